"""eden and drive: rotation, code books, the errors that theory names, bytes and shared randomness."""

from itertools import pairwise

import numpy as np
import pytest
from baseline_checks import (
    LAYOUTS,
    MIXED,
    check_bad_scales,
    check_hostile,
    check_not_finite_is_refused,
    check_odd_inputs,
    check_seed_matters,
    check_shared_is_left_alone,
    flat,
    gaussian,
    means,
    nmse,
    sent,
)

from thinwire import rng
from thinwire.codecs import Context
from thinwire.codecs.eden import Drive, Eden, centroids
from thinwire.codecs.rotation import Block, cuts, hadamard, rotations, sent_of
from thinwire.errors import ConfigError, DecodeError
from thinwire.layout import Layout

FORMS = [Drive(), Drive("mse"), *(Eden(b, s) for s in ("unbiased", "mse") for b in (0.1, 2.0, 3.0))]
forms = pytest.mark.parametrize("codec", FORMS, ids=str)
BITS = (0.01, 0.1, 0.3, 0.5, 0.999, 1.0, 2.0, 3.0, 4.0)
N = 2**17


# Rotation.


@pytest.mark.parametrize("power", range(8))
def test_hadamard_is_sylvesters_matrix(power):
    matrix = np.ones((1, 1))
    for _ in range(power):
        matrix = np.kron([[1, 1], [1, -1]], matrix)
    v = np.random.default_rng(power).integers(-99, 99, 2**power).astype(np.float32)
    turned = v.copy()
    hadamard(turned)
    assert turned.tolist() == (matrix @ v).tolist()
    hadamard(turned)
    assert turned.tolist() == (v * 2**power).tolist()


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (0, []), (1, [1]), (2, [2]), (3, [4]), (5, [8]), (512, [512]), (513, [1024]), (1023, [1024]), (1024, [1024]),
        (1025, [1024, 1]), (5000, [4096, 1024]), (7168, [4096, 2048, 1024]), (8192, [8192]), (8193, [8192, 1]),
        (20_000, [8192, 8192, 2048, 1024, 1024]),
    ],
)  # fmt: skip
def test_cuts(n, sizes):
    assert [size for _, _, size in cuts(Layout.of({"a": (n,)}))] == sizes


def test_cuts_cover_every_tensor_once_and_pad_less_than_512():
    for n in (*range(1, 70), *np.random.default_rng(0).integers(1, 10**6, 200).tolist()):
        found = cuts(Layout.of({"a": (3,), "none": (0,), "b": (int(n),)}))[1:]
        assert found[0][0] == 3
        assert all(a + count == b for (a, count, _), (b, _, _) in pairwise(found))
        assert sum(count for _, count, _ in found) == n
        assert all(count == size for _, count, size in found[:-1])
        assert all(size & (size - 1) == 0 and size <= 8192 for _, _, size in found)
        assert found[-1][2] - found[-1][1] < 512


def test_signs_and_sample_are_the_raw_bits_of_their_streams():
    context = Context(Layout.of({"a": (3,), "b": (1030,)}), seed=11)
    blocks = list(rotations(context, 0.1))
    assert [block.place for block in blocks] == [slice(0, 3), slice(3, 1027), slice(1027, 1033)]
    flips = rng.raw_bits(11, "eden-signs", 4 + 1024 + 8)
    assert np.concatenate([block.signs for block in blocks]).tolist() == [-1.0 if bit else 1.0 for bit in flips]
    words = rng.raw_words(11, "eden-sample", 60)
    halves = iter([int(word) >> shift & 0xFFFFFFFF for word in words for shift in (0, 32)])
    for block, d, k in zip(blocks, (4, 1024, 8), (1, 103, 1), strict=True):
        edges = [j * d // k for j in range(k + 1)]
        assert block.sent.tolist() == [a + (next(halves) * (b - a) >> 32) for a, b in pairwise(edges)]


@pytest.mark.parametrize("share", [1e-9, 0.01, 0.1, 0.5, 0.77, 0.999])
def test_sample_takes_one_of_each_stratum(share):
    hits = np.zeros(512)
    for seed in range(400):
        (block,) = rotations(flat(512, seed), share)
        assert block.sent.size == sent_of(512, share)
        assert (np.diff(block.sent) > 0).all()
        assert 0 <= block.sent[0] <= block.sent[-1] < 512
        hits[block.sent] += 1
    assert hits.sum() == 400 * sent_of(512, share)
    assert hits.max() <= 400 * share + 6 * np.sqrt(400 * share) + 4


# Code books.


@pytest.mark.parametrize(
    ("bits", "positive"),
    [
        (1, [0.7978846]), (2, [0.4527800, 1.5104176]), (3, [0.2450942, 0.7560053, 1.3439093, 2.1519457]),
        (4, [0.1284, 0.3881, 0.6568, 0.9424, 1.2562, 1.6181, 2.0690, 2.7326]),
    ],
)  # fmt: skip
def test_centroids_are_the_published_ones(bits, positive):
    """J. Max, "Quantizing for minimum distortion", 1960, Table I (1 bit: √(2/π))."""
    code = centroids(bits)
    assert code.dtype == np.float32
    assert code[2 ** (bits - 1) :] == pytest.approx(positive, abs=1e-4 if bits == 4 else 1e-6)
    assert (code == -code[::-1]).all()


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_centroids_are_a_fixed_point(bits):
    """Means of a million Gaussian quantiles' cells."""
    code = centroids(bits)
    z = np.sort(gaussian(10**6))
    cells = np.searchsorted((code[1:] + code[:-1]) / 2, z)
    assert np.bincount(cells, weights=z) / np.bincount(cells) == pytest.approx(code, abs=0.01)


# Errors.


@pytest.mark.parametrize(("bits", "error"), [(1.0, np.pi / 2 - 1), (2.0, 0.133), (3.0, 0.0358), (4.0, 0.0096)])
@pytest.mark.parametrize("entries", [gaussian(N), np.random.default_rng(2).laplace(size=N).astype(np.float32)])
def test_error_of_a_bit_budget(bits, error, entries):
    """Whatever the distribution: the rotation makes it Gaussian."""
    assert nmse(Eden(bits), entries, flat(N)) == pytest.approx(error, rel=0.02)
    assert nmse(Eden(bits, "mse"), entries, flat(N)) == pytest.approx(error / (1 + error), rel=0.02)


@pytest.mark.parametrize("bits", [0.05, 0.1, 0.5, 0.9])
def test_error_below_one_bit(bits):
    assert nmse(Eden(bits), gaussian(N), flat(N)) == pytest.approx(np.pi / 2 / bits - 1, rel=0.02)
    assert nmse(Eden(bits, "mse"), gaussian(N), flat(N)) == pytest.approx(1 - 2 * bits / np.pi, rel=0.02)


def test_a_single_spike_comes_through_one_bit():
    x = np.zeros(4096, np.float32)
    x[17] = -3
    assert sent(Drive(), x, flat(4096)) == pytest.approx(x, abs=1e-5)
    assert sent(Drive(), np.array([-0.3], np.float32), flat(1)) == pytest.approx(np.float32(-0.3))


@pytest.mark.parametrize("bits", [1.0, 2.0, 3.0, 4.0])
def test_unbiased_scale_keeps_the_length_along_x(bits):
    """⟨x̂, x⟩ = ‖x‖² for every draw; the least error leaves an error that is orthogonal to x̂."""
    x = gaussian(4096)
    assert sent(Eden(bits), x, flat(4096)) @ x == pytest.approx(x @ x, rel=1e-5)
    best = sent(Eden(bits, "mse"), x, flat(4096))
    assert (x - best) @ best == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize("bits", [0.1, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("heavy", [False, True])
def test_unbiased(bits, heavy):
    x = np.random.default_rng(4).standard_t(3, 1000).astype(np.float32) if heavy else gaussian(1000)
    mean, error = means(Eden(bits), x)
    assert (np.abs(mean - x) <= 5 * error + 1e-5).all()
    assert ((mean - x) ** 2).sum() == pytest.approx((error**2).sum(), rel=0.25)


def test_mean_over_clients_of_one_round():
    """What biased codecs miss: the error of a mean over 100 seeds is a hundredth."""
    x = gaussian(2048)
    mean, _ = means(Drive(), x, draws=100)
    assert ((mean - x) ** 2).sum() / (x**2).sum() == pytest.approx((np.pi / 2 - 1) / 100, rel=0.1)


# Bytes.


@pytest.mark.parametrize("bits", BITS)
def test_size(bits):
    width = int(np.ceil(bits))
    for layout in (*LAYOUTS, Layout.of({"a": (5000,), "b": (77, 3)})):
        sizes = [size for _, _, size in cuts(layout)]
        count = sum(min(size, int(np.ceil(bits * size))) for size in sizes)
        payload = Eden(bits).encode(np.ones(layout.size, np.float32), Context(layout))
        assert len(payload) == 4 * len(sizes) + (count * width + 7) // 8


def plain(payload, n, width, seed):
    """Slow decoder of one unpadded block of n entries, from the words of the docstring."""
    number = int.from_bytes(payload[4:], "little")
    symbols = [number >> width * i & (2**width - 1) for i in range(n)]
    assert number >> width * n == 0
    q = [float(centroids(width)[s]) for s in symbols]
    flips = rng.raw_bits(seed, "eden-signs", n)
    scale = float(np.frombuffer(payload, "<f4", 1)[0])
    rows = [sum((-1) ** (i & j).bit_count() * q[j] for j in range(n)) for i in range(n)]
    return [scale * (-1.0) ** int(flips[i]) * rows[i] for i in range(n)]


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 8, 128])
def test_decoder_against_a_slow_one(bits, n):
    payload = Eden(float(bits)).encode(gaussian(n), flat(n, 6))
    assert Eden(float(bits)).decode(payload, flat(n, 6)) == pytest.approx(plain(payload, n, bits, 6), abs=1e-5)


def test_drive_is_eden_with_one_bit():
    x = gaussian(MIXED.size)
    for scale in ("unbiased", "mse"):
        payload = Drive(scale).encode(x, Context(MIXED, seed=2))
        assert payload == Eden(1.0, scale).encode(x, Context(MIXED, seed=2))
        back = Eden(1.0, scale).decode(payload, Context(MIXED, seed=2))
        assert Drive(scale).decode(payload, Context(MIXED, seed=2)).tobytes() == back.tobytes()


def test_a_scale_of_two_changes_only_the_scale():
    x = gaussian(3000)
    one, two = (Eden(2.0).encode(factor * x, flat(3000)) for factor in (np.float32(1), np.float32(2)))
    blocks = len(cuts(flat(3000).layout))
    assert one[4 * blocks :] == two[4 * blocks :]
    assert (2 * np.frombuffer(one, "<f4", blocks)).tolist() == np.frombuffer(two, "<f4", blocks).tolist()


def test_another_seed_reads_noise():
    x = gaussian(4096)
    back = Drive().decode(Drive().encode(x, flat(4096, 1)), flat(4096, 2))
    assert abs(np.corrcoef(x, back)[0, 1]) < 0.1


def test_spare_bits_and_bad_scales_are_refused():
    payload = Drive().encode(np.ones(4, np.float32), flat(4))
    for bit in range(4, 8):
        with pytest.raises(DecodeError, match="spare bit"):
            Drive().decode(payload[:4] + bytes([1 << bit]), flat(4))
    check_bad_scales(Drive(), flat(4))


@pytest.mark.parametrize("bits", [0.0, -1.0, 1.5, 5.0, np.nan, np.inf])
def test_bits_out_of_range(bits):
    with pytest.raises(ConfigError, match=r"eden.bits = .*1, 2, 3, 4, or between 0 and 1"):
        Eden(bits)


@pytest.mark.parametrize("build", [Eden, Drive])
def test_other_scales_are_refused(build):
    with pytest.raises(ConfigError, match=rf"{build.id}.scale = 'best': unbiased or mse"):
        build(scale="best")


@forms
@pytest.mark.parametrize("check", [check_odd_inputs, check_not_finite_is_refused, check_shared_is_left_alone])
def test_common(codec, check):
    check(codec)


@forms
def test_hostile(codec):
    check_hostile(codec, tries=150)


@pytest.mark.parametrize("codec", [Drive(), Eden(0.3), Eden(4.0)], ids=str)
def test_seed_matters(codec):
    check_seed_matters(codec)


def test_a_block_knows_its_entries():
    assert Block(slice(4, 7), np.ones(4, np.float32), slice(None)).entries == 3
