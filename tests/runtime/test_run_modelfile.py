"""Model files: read back bit for bit, and a broken, mutated or absurd one is refused with its reason."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toyworld
from torch import nn
from toyworld import FEATURES, World, batch_norm, grouped, run, two_layers

import thinwire
from thinwire import frame as frames
from thinwire import modelfile
from thinwire.codecs import Context, Mask, varint
from thinwire.errors import ConfigError, DecodeError, ThinwireError
from thinwire.frame import Kind, Section
from thinwire.parameterisations import mask_layout
from thinwire.tensors import FlatModel

DIGITS = {"data": {"name": "digits", "load": None}, "model": {"name": "linear", "build": None}, "rounds": 2}


@pytest.fixture(scope="module")
def mask_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("fedpm") / "run"
    return run(out, "fedpm", **DIGITS)


@pytest.fixture(scope="module")
def dense_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("fedavg") / "run"
    return run(out, "fedavg", **DIGITS)


THRESHOLD = {"method": {"evaluation": "threshold", "ship": "threshold"}}


def predictions(model, shape=(1, 8, 8)):
    x = torch.randn(50, *shape, generator=torch.manual_seed(0))
    with torch.no_grad():
        return model.eval()(x)


def test_a_mask_file_predicts_as_the_servers_threshold_model():
    for settings in (DIGITS, {"model": {"name": "mlp", "build": None}}, {"data": {"clients": 3}}):
        world = World("fedpm", **THRESHOLD, **settings)
        world.play()
        state = world.progress.server
        data = world.method.ship(state, world.assembly.description)
        path = modelfile.save_bytes(data, tmp())
        own = two_layers() if "model" not in settings else None
        loaded = thinwire.load(path, own)
        assert not loaded.training
        shape = world.assembly.dataset.shape
        assert torch.equal(predictions(loaded, shape), predictions(world.method.model(state), shape))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def tmp():
    return Path("model.bin").absolute()


def test_a_dense_file_predicts_as_the_servers_model():
    world = World("fedavg", **DIGITS)
    world.play()
    path = modelfile.save_bytes(world.method.ship(world.progress.server, world.assembly.description), tmp())
    expected = predictions(world.method.model(world.progress.server))
    assert torch.equal(predictions(thinwire.load(path)), expected)


@pytest.mark.parametrize("which", ["mask_run", "dense_run"])
def test_a_run_ships_what_it_measured(which, request):
    result = request.getfixturevalue(which)
    (path,) = result.out.glob("model.*")
    assert path.name == {"mask_run": "model.tw", "dense_run": "model.safetensors"}[which]
    loaded = thinwire.load(path)
    assert torch.equal(predictions(loaded), predictions(result.model))
    assert result.summary["model_bytes"] == path.stat().st_size
    assert result.summary["model_bpp"] == pytest.approx(8 * path.stat().st_size / 650)
    weights = {name: tensor for name, tensor in loaded.state_dict().items() if tensor.dim() > 1}
    shares = {name: float((weight != 0).double().mean()) for name, weight in weights.items()}
    assert result.summary["model_density"] == (pytest.approx(shares) if which == "mask_run" else {})
    if which == "dense_run":
        assert result.summary["model_accuracy"] == result.summary["accuracy"]


def test_buffers_are_shipped():
    world = World("fedavg", model={"build": "toyworld:batch_norm"})
    world.play()
    path = modelfile.save_bytes(world.method.ship(world.progress.server, world.assembly.description), tmp())
    loaded, model = thinwire.load(path, batch_norm()), world.method.model(world.progress.server)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert loaded[1].num_batches_tracked > 0


@pytest.mark.parametrize(("name", "build"), [("fedpm", "grouped"), ("fedpm", "tied"), ("fedavg", "tied")])
def test_a_model_of_ones_own_is_handed_to_load(name, build):
    world = World(name, model={"build": f"toyworld:{build}"}, **(THRESHOLD if name == "fedpm" else {}))
    world.play()
    path = modelfile.save_bytes(world.method.ship(world.progress.server, world.assembly.description), tmp())
    with pytest.raises(ConfigError, match=r"not one of the library's: pass load\(path, model=\.\.\.\)"):
        thinwire.load(path)
    own = getattr(toyworld, build)()
    assert thinwire.load(path, model=own) is own
    assert torch.equal(predictions(own, (6,)), predictions(world.method.model(world.progress.server), (6,)))


def test_another_architecture_is_refused(mask_run, dense_run):
    with pytest.raises(DecodeError, match="the two ends differ in model"):
        thinwire.load(mask_run.out / "model.tw", nn.Linear(64, 11))
    with pytest.raises(ConfigError, match=r"model = 'Linear': Error.*fc") as caught:
        thinwire.load(dense_run.out / "model.safetensors", nn.Linear(64, 10))
    assert "\n" not in str(caught.value)


# broken files --------------------------------------------------------------------------------------------------------


def load_bytes(data, model=None):
    tmp().write_bytes(data)
    return thinwire.load(tmp(), model)


@pytest.mark.parametrize("which", ["mask_run", "dense_run"])
def test_every_truncation_is_refused(which, request):
    (path,) = request.getfixturevalue(which).out.glob("model.*")
    data = path.read_bytes()
    for length in {*range(0, min(len(data), 220)), *range(0, len(data), 97)}:
        with pytest.raises(DecodeError):
            load_bytes(data[:length])


def test_every_flipped_bit_of_a_mask_file_is_refused(mask_run):
    data = (mask_run.out / "model.tw").read_bytes()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        with pytest.raises(DecodeError):
            load_bytes(bytes(flipped))


def test_a_mutated_header_of_a_dense_file_is_refused_or_loads(dense_run):
    # safetensors has no checksum: what must not happen is any other error
    data = (dense_run.out / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    refused = 0
    for position in range(header):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 7
        try:
            load_bytes(bytes(changed))
        except ThinwireError:
            refused += 1
    assert refused > header // 2


@pytest.mark.parametrize("data", [b"", b"T", b"TW", b"hello world", b"\0" * 100, b"PK\x03\x04" * 20, b"\x80\x04\x95"])
def test_what_is_no_model_file_is_refused(data):
    with pytest.raises(DecodeError):
        load_bytes(data)


def changed(run, **change):
    """The mask file with other fields and a right checksum."""
    frame = frames.read((run.out / "model.tw").read_bytes())
    config = change.pop("config", None)
    sections = dict(frame.sections)
    if config is not None:
        own = json.loads(sections[Section.CONFIG])
        sections[Section.CONFIG] = config if isinstance(config, bytes) else json.dumps(own | config).encode()
    sections |= change.pop("sections", {})
    return frames.write(replace(frame, sections=tuple((k, v) for k, v in sections.items() if v is not None), **change))


def test_an_unchanged_file_is_read(mask_run):
    load_bytes(changed(mask_run))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": Kind.UPDATE}, "kind update, expected model"),
        ({"codec": 7}, "codec tag"),
        ({"layout": bytes(8)}, "differ in model"),
        ({"sections": {Section.CONFIG: None}}, "0 sections config"),
        ({"sections": {Section.SEED: None}}, "0 sections seed"),
        ({"sections": {Section.VALUES: None}}, "0 sections values"),
        ({"sections": {Section.SEED: b""}}, "varint: payload ends"),
        ({"sections": {Section.VALUES: b""}}, "varint: payload ends"),
        ({"sections": {Section.VALUES: b"\x02\xff\xff\xff"}}, "varint"),
        ({"config": b"{"}, "its description is not JSON"),
        ({"config": b"\xff"}, "its description is not JSON"),
        ({"config": b"[" * 60_000}, "its description is not JSON"),
        ({"config": b"[]"}, "its description is not a table"),
        ({"config": {"gain": None}}, "gain None is not a positive number"),
        ({"config": {"gain": -1.0}}, "gain -1.0"),
        ({"config": {"gain": float("nan")}}, "gain nan"),
        ({"config": {"gain": float("inf")}}, "gain inf"),
        ({"config": {"gain": "2"}}, "gain '2'"),
        ({"config": {"shape": None}}, "shape and classes must be positive whole numbers"),
        ({"config": {"shape": [1, 8, -8]}}, "positive whole numbers"),
        ({"config": {"shape": [1, 8, 8.0]}}, "positive whole numbers"),
        ({"config": {"shape": [1, 8, True]}}, "positive whole numbers"),
        ({"config": {"shape": [[1], 8]}}, "positive whole numbers"),
        ({"config": {"classes": 0}}, "positive whole numbers"),
        ({"config": {"classes": "10"}}, "positive whole numbers"),
        ({"config": {"shape": [2**20]}}, "positive whole numbers"),
        ({"config": {"shape": [2**19, 2**19]}}, r"make more than \d+ parameters"),
        ({"config": {"shape": [2**19] * 9}}, r"make more than \d+ parameters"),
        ({"config": {"shape": [2**12, 2**11], "name": "mlp"}}, r"make more than \d+ parameters"),
        ({"config": {"classes": 11}}, "differ in model"),
        ({"config": {"name": "mlp"}}, "differ in model"),
    ],
)
def test_a_mask_file_that_was_tampered_with_is_refused_by_its_reason(mask_run, change, reason):
    with pytest.raises(DecodeError, match=reason):
        load_bytes(changed(mask_run, **change))


@pytest.mark.parametrize("name", ["os:system", "resnet", None, 5, ["linear"], {"a": 1}])
def test_a_file_never_names_code_to_import(mask_run, name):
    with pytest.raises(ConfigError, match=r"pass load\(path, model=\.\.\.\)"):
        load_bytes(changed(mask_run, config={"name": name}))


def dense(metadata):
    from safetensors.torch import save

    return save({"fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)}, metadata)


@pytest.mark.parametrize(
    ("metadata", "error", "reason"),
    [
        (None, ConfigError, "pass load"),
        ({"other": "x"}, ConfigError, "pass load"),
        ({"thinwire": "{"}, DecodeError, "not JSON"),
        ({"thinwire": "[]"}, DecodeError, "not a table"),
        ({"thinwire": '{"name": ["linear"]}'}, ConfigError, "pass load"),
        ({"thinwire": '{"name": "linear"}'}, DecodeError, "positive whole numbers"),
        ({"thinwire": '{"name": "linear", "shape": [524288, 524288], "classes": 9}'}, DecodeError, "make more than"),
        ({"thinwire": '{"name": "linear", "shape": [8, 8], "classes": 9}'}, ConfigError, "size mismatch"),
        ({"thinwire": '{"name": "mlp", "shape": [8, 8], "classes": 10}'}, ConfigError, "Missing key"),
    ],
)
def test_a_dense_file_that_describes_something_else_is_refused(metadata, error, reason):
    with pytest.raises(error, match=reason):
        load_bytes(dense(metadata))


def test_a_plain_safetensors_file_fills_a_model_that_is_given():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(64, 10)

    model = load_bytes(dense(None), Net())
    assert not model.fc.weight.any()


def test_a_mask_is_written_over_norm_layers():
    flat = FlatModel(grouped())
    layout = mask_layout(flat.layout)
    mask = np.random.default_rng(0).integers(0, 2, layout.size, dtype=np.uint8)
    data = modelfile.mask_frame({}, flat, seed=2**55, gain=1.5, mask=mask, other=grouped)
    model = load_bytes(data, grouped())
    weights = torch.cat([model[0].weight.ravel(), model[0].bias, model[3].weight.ravel(), model[3].bias])
    np.testing.assert_array_equal((weights != 0).numpy(), mask == 1)
    assert set(model[0].weight[model[0].weight != 0].abs().tolist()) == {float(np.float32(1.5 / np.sqrt(6)))}
    frame = frames.read(data)
    assert varint.Reader(frame.one(Section.SEED)).next() == 2**55
    np.testing.assert_array_equal(Mask().decode(frame.one(Section.VALUES), Context(layout)), mask)


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "model.tw"
    modelfile.save_bytes(b"old", path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        modelfile.save_bytes(b"new", path)
    assert path.read_bytes() == b"old"


def test_folders_are_flushed_where_the_system_opens_them(tmp_path, monkeypatch):
    opened, real = [], os.open
    monkeypatch.setattr(os, "open", lambda path, *how: opened.append(path) or real(path, *how))
    modelfile.sync_folder(tmp_path)
    assert opened == [tmp_path]
    with pytest.raises(FileNotFoundError):
        modelfile.sync_folder(tmp_path / "none")
    opened.clear()
    monkeypatch.delattr(os, "O_DIRECTORY")  # as on Windows
    modelfile.sync_folder(tmp_path)
    assert opened == []


# what a mask does not make -------------------------------------------------------------------------------------------


class Drawn(nn.Module):
    """Frozen layers and buffers that the builder draws, a constant, and norm layers of both kinds."""

    def __init__(self, wide=3):
        super().__init__()
        self.backbone = nn.Linear(FEATURES, FEATURES).requires_grad_(False)
        self.backbone.bias.data = torch.randint(9, (FEATURES,), dtype=torch.int16)  # of another type
        self.norm, self.group, self.out = nn.BatchNorm1d(FEATURES), nn.GroupNorm(2, FEATURES), nn.Linear(FEATURES, 3)
        nn.init.normal_(self.group.weight)
        self.register_buffer("features", torch.randn(FEATURES))
        self.register_buffer("table", torch.arange(1000.0 * wide))
        self.register_buffer("odd", torch.tensor([float("-inf"), float("nan")]))

    def forward(self, x):
        x = torch.tanh(nn.functional.linear(x * self.features, self.backbone.weight, self.backbone.bias.float()))
        return self.out(self.group(self.norm(x)) + self.table[:1])


@pytest.fixture(scope="module")
def drawn_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "run"
    return run(out, "fedpm", rounds=2, model={"build": f"{__name__}:Drawn"})


def test_a_mask_file_alone_gives_the_model_back(drawn_run):
    loaded = thinwire.load(drawn_run.out / "model.tw", Drawn())
    for name, tensor in drawn_run.model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0, equal_nan=True)
    assert not loaded.backbone.weight.requires_grad
    assert loaded.norm.num_batches_tracked > 0
    assert torch.equal(predictions(loaded, (FEATURES,)), predictions(drawn_run.model, (FEATURES,)))


def test_a_mask_file_has_what_is_drawn_or_trained_and_no_constants(drawn_run):
    data = (drawn_run.out / "model.tw").read_bytes()
    rest = frames.read(data).one(Section.REST)
    floats = FEATURES * FEATURES + FEATURES + 2 * FEATURES + FEATURES  # backbone, group.weight, statistics, features
    assert len(rest) == 8 + 2 + 4 * floats + 2 * FEATURES + 8
    assert drawn_run.summary["model_bytes"] == len(data)
    assert drawn_run.summary["model_bpp"] == 8 * len(data) / sum(p.numel() for p in Drawn().parameters())


def test_a_mask_file_without_such_parts_has_no_section_of_them(mask_run):
    assert not frames.read((mask_run.out / "model.tw").read_bytes()).all(Section.REST)


def test_another_constant_is_refused(drawn_run):
    other = Drawn()
    other.table[5] = 0
    with pytest.raises(ConfigError, match=r"model = 'Drawn': .*the same constants"):
        thinwire.load(drawn_run.out / "model.tw", other)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rest: b"", "section rest has 0 bytes, at least 8 needed"),
        (lambda rest: rest[:9], "not about 12 of them"),
        (lambda rest: rest[:-1], r"buffers: \d+ bytes, \d+ expected"),
        (lambda rest: rest + b"\0", r"buffers: \d+ bytes, \d+ expected"),
        (lambda rest: rest[:9] + b"\xff" + rest[10:], "not about 12 of them"),
    ],
)
def test_a_section_of_another_size_is_refused(drawn_run, change, reason):
    rest = frames.read((drawn_run.out / "model.tw").read_bytes()).one(Section.REST)
    with pytest.raises(DecodeError, match=reason):
        load_bytes(changed(drawn_run, sections={Section.REST: change(rest)}), Drawn())


def test_the_section_of_a_small_model_byte_for_byte():
    """Format: digest, a bit each for norm.weight, norm.bias and the three buffers, the entries that were set."""

    class Small(nn.Module):
        def __init__(self, start=0):
            super().__init__()
            self.out, self.norm = nn.Linear(2, 1), nn.BatchNorm1d(1)
            self.norm.running_mean += start

    data = modelfile.mask_frame({}, FlatModel(Small(2)), seed=1, gain=1.5, mask=np.ones(3, np.uint8), other=Small)
    assert frames.read(data).one(Section.REST).hex() == "a8951a9d2554f662" + "04" + "00000040"
    assert load_bytes(data, Small()).norm.running_mean == 2


def before(flat, data, buffers):
    """A mask file as it was until December 2026: changed buffers and the digest of what stands."""
    frame = frames.read(data)
    kept = tuple(part for part in frame.sections if part[0] != Section.REST)
    payload = flat.buffers.difference(buffers, flat.first_buffers)
    return frames.write(replace(frame, sections=(*kept, (Section.STANDING, flat.standing), (Section.BUFFERS, payload))))


def test_a_file_of_before_is_read():
    flat, mask = FlatModel(batch_norm()), np.ones(FEATURES * 4 + 4 + 15, np.uint8)
    written = modelfile.mask_frame({}, flat, seed=1, gain=1.5, mask=mask, other=batch_norm)
    moved = np.full(4, 3, np.float32).tobytes() + flat.first_buffers[16:]
    assert load_bytes(before(flat, written, moved), batch_norm())[1].running_mean.tolist() == [3] * 4
    other = batch_norm()
    other[1].running_var += 1
    with pytest.raises(ConfigError, match="first buffers, which this file lacks: `thinwire export RUN`"):
        load_bytes(before(flat, written, moved), other)
