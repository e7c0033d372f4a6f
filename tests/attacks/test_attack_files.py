"""Files that come from elsewhere: who sends a model, a table or a run directory wants memory, a file's content, a hang.

What a file says of itself is held against its own size before anything is made of it; a run directory's files are plain
files in that directory. Each attack is one line of DataError, DecodeError or ConfigError.
"""

import io
import json
import os
import shutil
import struct
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from thinwire import frame as frames
from thinwire import modelfile
from thinwire.api import settings
from thinwire.codecs import Context, Mask, tag, varint
from thinwire.data import load, tables
from thinwire.errors import ConfigError, DataError, DecodeError, ThinwireError
from thinwire.frame import Frame, Kind, Section
from thinwire.models import MODELS
from thinwire.report.runs import read_run
from thinwire.runtime.experiment import parse
from thinwire.runtime.inspection import inspect
from thinwire.runtime.run import export, resume, start
from thinwire.tensors import layout_of

HUGE = {"name": "linear", "shape": [1, 512, 512], "classes": 1000}  # 1 GB of weights
LARGE = {"name": "linear", "shape": [1, 64, 64], "classes": 1000}  # 16 MB


def dense(header: dict, tensors: bytes = b"") -> bytes:
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + tensors


def described(description: object, **tensors: object) -> dict:
    return {"__metadata__": {"thinwire": json.dumps(description)}, **tensors}


def mask(description: dict, payload: bytes = b"", layout: bytes = bytes(8)) -> bytes:
    config = json.dumps(description | {"gain": 1.0}).encode()
    sections = (Section.CONFIG, config), (Section.SEED, varint.write([1])), (Section.VALUES, payload)
    return frames.write(Frame(Kind.MODEL, 0, 0, tag(Mask()), layout, sections))


class Unmade:
    """Stands in for a model's class: says whether it was made other than on the meta device."""

    def __init__(self, name: str) -> None:
        self.make, self.real = MODELS[name], False

    def __call__(self, *arguments: object) -> torch.nn.Module:
        model = self.make(*arguments)
        self.real |= not next(model.parameters()).is_meta
        return model


@pytest.mark.parametrize("data", [
    dense(described(HUGE)), mask(HUGE), dense(described(HUGE | {"parameterisation": {"name": "fedpara"}})),
    dense(described(LARGE)), mask(LARGE), dense(described(LARGE | {"parameterisation": {"name": "fedpara"}})),
    dense(described(LARGE, **{"weight": {"dtype": "F32", "shape": [1000, 0], "data_offsets": [0, 0]}})),
], ids=["dense", "mask", "factors", "dense16", "mask16", "factors16", "empty16"])  # fmt: skip
def test_a_small_file_makes_no_large_model(data):
    seen = Unmade("linear")
    with patch.dict(MODELS, linear=seen), pytest.raises((DecodeError, ConfigError)) as caught:
        modelfile.read(data)
    assert not seen.real
    assert "\n" not in str(caught.value)


def test_a_mask_of_few_bytes_may_still_be_one_of_a_paper_sized_model():
    layout = layout_of(MODELS["lenet"]((1, 28, 28), 10))
    masked = modelfile.mask_layout(layout)
    payload = Mask().encode(np.zeros(masked.size, np.uint8), Context(masked))
    data = mask({"name": "lenet", "shape": [1, 28, 28], "classes": 10}, payload, layout.digest)
    assert len(data) < 300
    assert sum(p.numel() for p in modelfile.read(data).parameters()) > 10_000


EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
ODD = {
    "no description": {},
    "not a table": described([1]),
    "not json": {"__metadata__": {"thinwire": "{"}},
    "deep": {"__metadata__": {"thinwire": "[" * 60_000}},
    "long": {"__metadata__": {"thinwire": " " * 10**6}},
    "not text": {"__metadata__": {"thinwire": 5}},
    "metadata a list": {"__metadata__": []},
    "factors of nothing": described(HUGE | {"parameterisation": 7}),
    "shape a word": described(LARGE | {"shape": "big"}),
    "shape of nothing": described(LARGE | {"shape": []}),
    "shape of many axes": described(LARGE | {"shape": [1] * 1000}),
    "classes true": described(LARGE | {"classes": True}),
    "name a list": described(LARGE | {"name": ["linear"]}),
    "unknown type": described(LARGE, weight={"dtype": "F7", "shape": [1], "data_offsets": [0, 4]}),
    "four bits": described(LARGE, weight={"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}),
    "exponents": described(LARGE, weight={"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]}),
    "beyond the file": described(LARGE, weight={"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}),
    "overflow": described(LARGE, weight={"dtype": "F32", "shape": [2**33, 2**33], "data_offsets": [0, 4]}),
    "negative": described(LARGE, weight={"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}),
    "many names": described(LARGE, **dict.fromkeys(map("t{}".format, range(9999)), EMPTY)),
}  # fmt: skip


@pytest.mark.parametrize("header", ODD.values(), ids=ODD.keys())
def test_odd_safetensors_are_one_line(header):
    with pytest.raises(ThinwireError) as caught:
        modelfile.read(dense(header, bytes(4) if "data_offsets" in str(header) and "t0" not in header else b""))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("data", [
    b"", b"\x00", struct.pack("<Q", 2**63), struct.pack("<Q", 10) + b"{", struct.pack("<Q", 2) + b"[]",
    dense({})[:-1] + b"[" * 20_000,
    struct.pack("<Q", 100_000) + b"[" * 100_000,
])  # fmt: skip
def test_what_is_no_safetensors_is_one_line(data):
    with pytest.raises(DecodeError, match="neither a thinwire frame nor safetensors") as caught:
        modelfile.read(data)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    start(parse(settings("digits", "linear", method="fedavg", clients=2, rounds=1)), out, workers=1, save_frames=True)
    return out


@pytest.fixture
def sent(finished, tmp_path):
    """A run directory that somebody sends, and a file of whoever takes it."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "mine").write_text("mine")
    return tmp_path / "run"


OPEN = {
    "resume": lambda run: resume(run, workers=1),
    "export": lambda run: export(run, run.parent / "model"),
    "report": read_run,
    "inspect": lambda run: inspect(next((run / "frames").glob("*up*.tw")), run),
}


def link_to_mine(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(next(parent for parent in path.parents if (parent / "mine").exists()) / "mine")


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def huge(path: Path) -> None:
    path.unlink(missing_ok=True)
    with open(path, "wb") as file:
        file.truncate(2**42)  # no block of it is on the disk


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("do", OPEN.values(), ids=OPEN.keys())
@pytest.mark.parametrize("make", [link_to_mine, pipe, huge])
@pytest.mark.parametrize("name", [
    "rounds.jsonl", "summary.json", "clients.csv", "config.toml.tmp", ".lock", "checkpoint/origin.json",
    "checkpoint/manifest-1.json", "checkpoint/clients.sqlite", "checkpoint/x.tmp", "frames/server-0.safetensors",
])  # fmt: skip
def test_what_no_run_leaves_in_its_folder_is_named(sent, do, make, name):
    make(sent / name)
    with pytest.raises(DataError) as caught:
        do(sent)
    assert str(sent / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (sent.parent / "mine").read_text() == "mine"


@pytest.mark.parametrize("do", OPEN.values(), ids=OPEN.keys())
def test_a_folder_of_a_run_that_is_a_link_is_named(sent, do):
    shutil.move(sent / "checkpoint", sent.parent / "elsewhere")
    (sent / "checkpoint").symlink_to(sent.parent / "elsewhere")
    with pytest.raises(DataError, match="checkpoint: a link that leads out"):
        do(sent)


def test_links_inside_the_folder_and_to_it_are_the_users_own_affair(sent):
    (sent / "last.jsonl").symlink_to("rounds.jsonl")
    (sent.parent / "named").symlink_to(sent)
    assert len(resume(sent.parent / "named", workers=1).rounds) == 1


def test_a_run_does_not_start_over_a_link(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "config.toml.tmp").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match=r"config\.toml"):
        modelfile.save_bytes(b"theirs", tmp_path / "config.toml")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_manifest_names_files_of_its_folder_alone(sent):
    (path,) = (sent / "checkpoint").glob("manifest-*.json")
    manifest = json.loads(path.read_bytes())
    state = (sent / "checkpoint" / manifest["server"]).rename(sent.parent / manifest["server"])
    manifest = {key: value for key, value in manifest.items() if key != "digest"} | {"server": f"../../{state.name}"}
    path.write_text(json.dumps(manifest | {"digest": sha256(json.dumps(manifest).encode()).hexdigest()[:16]}))
    with pytest.raises(DataError, match="is no server's file"):
        export(sent, sent.parent / "model")


@pytest.mark.parametrize("do", [modelfile.load, inspect])
def test_a_model_that_is_no_file_is_one_line(tmp_path, do):
    os.mkfifo(tmp_path / "pipe")
    huge(tmp_path / "huge")
    for path in (tmp_path / "pipe", tmp_path / "huge", tmp_path, Path("/dev/zero")):
        with pytest.raises(DataError, match=str(path)):
            do(path)


def table(folder: Path, train: pa.Table, **options: object) -> Path:
    """A data folder with this train.parquet, and a test.parquet of nothing special."""
    pq.write_table(train, folder / "train.parquet", **options)
    pq.write_table(pa.table({"x": [[1.0], [2.0]], "label": [0, 1]}), folder / "test.parquet")
    return folder


def repeated(value: object, times: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(times, np.int32)), pa.array([value]))


BOMBS = {
    "one text, often": {"text": repeated("a" * 100_000, 1000)},  # 100 MB in 300 bytes, of which it declares 100 kB
    "one image, often": {"image": repeated(b"a" * 100_000, 1000)},
    "zeros": {"x": pa.array(np.zeros(2 * 10**7, np.float32)), "label": pa.array(np.zeros(2 * 10**7, np.int8))},
    "one list of zeros": {"x": pa.array([np.zeros(2 * 10**7, np.float32)]), "label": pa.array([0])},
    "labels alone": {"label": pa.array(np.zeros(2 * 10**7, np.int64))},
}


@pytest.mark.parametrize("columns", BOMBS.values(), ids=BOMBS.keys())
def test_a_small_table_makes_no_large_one(tmp_path, monkeypatch, columns):
    monkeypatch.setattr(tables, "FREE_BYTES", 10**7)
    monkeypatch.setattr(tables, "BYTES_PER_BYTE", 100)
    folder = table(tmp_path, pa.table(columns), store_schema=False, compression="zstd")
    most = tables.most_bytes(folder / "train.parquet")
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(DataError, match=r"train\.parquet: holds more than \d+ bytes once unpacked") as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)
    assert pa.default_memory_pool().max_memory() - before < most + 2 * 10**7


def test_a_table_of_lists_in_lists_beyond_all_use_is_one_line(tmp_path):
    deep, kind = 0.0, pa.float32()
    for _ in range(70):
        deep, kind = [deep], pa.list_(kind)
    folder = table(tmp_path, pa.table({"x": pa.array([deep], kind), "label": [0]}))
    with pytest.raises(DataError, match=r"train\.parquet: is not a readable Parquet file \(.*nested") as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(8) + b"PAR1", b"PAR1" + b"\xff" * 8 + b"PAR1"])
def test_what_is_no_table_is_one_line(tmp_path, data):
    (tmp_path / "train.parquet").write_bytes(data)
    with pytest.raises(DataError, match="is not a readable Parquet file") as caught:
        load(str(tmp_path))
    assert "\n" not in str(caught.value)


def images(*encoded: bytes) -> pa.Table:
    return pa.table({"image": [{"bytes": data, "path": None} for data in encoded], "label": [0] * len(encoded)})


def test_images_that_only_other_programs_can_draw_are_refused(tmp_path):
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    with (
        patch("subprocess.Popen", side_effect=AssertionError),
        pytest.raises(DataError, match="row 0: cannot be decoded as an image"),
    ):
        load(str(table(tmp_path, images(postscript))))


def test_images_that_fill_the_memory_are_named_before_they_are_unpacked(tmp_path, monkeypatch):
    file = io.BytesIO()
    Image.new("L", (1000, 1000)).save(file, "PNG")
    monkeypatch.setattr("thinwire.data.images.memory_bytes", lambda: 10**7)
    with pytest.raises(DataError, match=r"column image: 9 images of grey 1000x1000 take 45000000 bytes, more than"):
        load(str(table(tmp_path, images(*[file.getvalue()] * 9))))
