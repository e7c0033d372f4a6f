"""Initial values have the same bits on every machine, and are torch's own to the last bits."""

import os
import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from torch import nn

from thinwire.exact import exact_draws, normal_quantile


def drawn():
    """Every fill that torch's layers and initialisers make."""
    layers = [
        nn.Linear(30, 20),
        nn.Embedding(10, 41),
        nn.Conv2d(3, 8, 3),
        nn.LSTM(8, 16, 2),
        nn.MultiheadAttention(8, 2),
    ]
    plain = [torch.randn(3, 7), torch.rand(4), torch.rand_like(torch.empty(5)), torch.randn_like(torch.empty(33))]
    filled = [torch.empty(100), torch.empty(16, 17), torch.empty(5, 5)]
    nn.init.trunc_normal_(filled[0], std=0.02)
    nn.init.kaiming_normal_(filled[1])
    nn.init.xavier_uniform_(filled[2])
    return [*(parameter.detach() for layer in layers for parameter in layer.parameters()), *plain, *filled]


def seeded(exact):
    torch.manual_seed(7)
    if not exact:
        return drawn()
    with exact_draws():
        return drawn()


def test_the_values_are_torchs_own_to_the_last_bits():
    for number, (ours, theirs) in enumerate(zip(seeded(True), seeded(False), strict=True)):
        torch.testing.assert_close(ours, theirs, rtol=3e-6, atol=3e-6, msg=f"draw {number}")


def digest():
    return sha256(b"".join(tensor.numpy().tobytes() for tensor in seeded(True))).hexdigest()


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_a_processor_without_fused_instructions_draws_the_same_bits(capability):
    code = "import sys; sys.path.insert(0, sys.argv[1]); from test_exact import digest; print(digest())"
    found = subprocess.run(
        [sys.executable, "-c", code, os.path.dirname(__file__)], check=True, capture_output=True, text=True,
        env=os.environ | {"ATEN_CPU_CAPABILITY": capability},
    )  # fmt: skip
    assert found.stdout.strip() == digest()


def test_the_bits_are_pinned():
    torch.manual_seed(0)
    with exact_draws():
        values = torch.cat([torch.rand(4), torch.randn(20)])
    pinned = "5815fe3e0033073e1445593fa137883e083a14c0"
    assert values.numpy()[[0, 3, 4, 11, 23]].tobytes().hex() == pinned


def test_other_generators_and_types_are_torchs():
    own = torch.Generator().manual_seed(3)
    with exact_draws():
        ours = torch.randn(40, generator=own), torch.randn(40, dtype=torch.float64, generator=own.manual_seed(3))
    own.manual_seed(3)
    assert torch.equal(ours[0], torch.randn(40, generator=own))
    assert torch.equal(ours[1], torch.randn(40, dtype=torch.float64, generator=own.manual_seed(3)))


def test_quantiles_are_scipys():
    p = np.concatenate([np.linspace(1e-12, 1 - 1e-12, 10_001), [1e-300, 0.075, 0.925]])
    np.testing.assert_allclose(normal_quantile(p), ndtri(p), rtol=1e-13, atol=1e-14)
