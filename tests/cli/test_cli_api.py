"""The Python door: `run`, `resume`, `load` and the names of the package."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import thinwire as tw
from thinwire.api import settings
from thinwire.errors import ConfigError
from thinwire.runtime.experiment import parse

OWN = {"data": "toyworld:blobs", "model": "toyworld:two_layers", "clients": 3, "workers": 1}


def test_run_and_resume(tmp_path):
    entries = []
    result = tw.run(
        "fedpm", **OWN, rounds=2, seed=4, out=tmp_path / "a", on_round=lambda e, of: entries.append((e, of))
    )
    assert isinstance(result, tw.Result)
    assert result.summary == json.loads((tmp_path / "a" / "summary.json").read_text())
    assert [(e.round, of) for e, of in entries] == [(1, 2), (2, 2)]
    assert result.rounds == [e for e, _ in entries]
    assert (tmp_path / "a" / "report.html").exists()
    assert isinstance(result.model, torch.nn.Module)
    again = tw.resume(tmp_path / "a", workers=1)
    assert again.rounds == result.rounds


def test_settings_by_short_name_dotted_key_and_section():
    parsed = parse(
        settings(
            method="fedavg", data="digits", model="linear", clients=7, fraction=0.5, lr=0.2, local_epochs=3,
            uplink={"id": "float16", "error_feedback": True}, downlink="bfloat16",
            local={"momentum": 0.9}, **{"checkpoint.every": 2},
        )
    )  # fmt: skip
    assert parsed.method == {"name": "fedavg"}
    assert (parsed.data.name, parsed.data.clients, parsed.model.name) == ("digits", 7, "linear")
    assert (parsed.cohort.fraction, parsed.local.lr, parsed.local.epochs, parsed.local.momentum) == (0.5, 0.2, 3, 0.9)
    assert parsed.uplink == {"id": "float16", "error_feedback": True}
    assert parsed.downlink == {"id": "bfloat16"}
    assert parsed.checkpoint.every == 2


def test_none_is_what_is_not_given():
    assert parse(settings(method="fedpm", data=None, uplink=None, lr=None)) == parse({"method": {"name": "fedpm"}})


@pytest.mark.parametrize("as_path", [str, lambda path: path])
def test_a_folder_of_parquet_files(tmp_path, as_path):
    rng = np.random.default_rng(0)
    y = np.arange(30) % 3
    table = pa.table({"x": list((rng.normal(size=(30, 6)) + 3 * np.eye(3, 6)[y]).astype(np.float32)), "label": y})
    folder = tmp_path / "set"
    folder.mkdir()
    for split in ("train", "test"):
        pq.write_table(table, folder / f"{split}.parquet")
    result = tw.run("fedavg", data=as_path(folder), model="linear", clients=3, rounds=2, workers=1, out=tmp_path / "a")
    assert result.summary["parameters"] == 6 * 3 + 3
    loaded = tw.load(tmp_path / "a" / "model.safetensors")
    x = torch.randn(5, 6)
    assert torch.equal(loaded(x), result.model(x))


def test_wrong_names():
    with pytest.raises(ConfigError, match=r"speed = 9: unknown field"):
        tw.run("fedpm", speed=9, out="never")
    with pytest.raises(ConfigError, match=r"method\.name = 'sgd'"):
        tw.run("sgd", out="never")
    with pytest.raises(AttributeError, match="module 'thinwire' has no attribute 'nothing'"):
        tw.nothing  # noqa: B018


def test_public_names_resolve():
    for name in tw.__all__:
        assert getattr(tw, name) is not None
