"""Model files: `model.tw` is a frame with seed and one range-coded mask, `model.safetensors` the plain weights.

A file names a model of the library, never code to import: for a model of one's own, `load` is given the module.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from thinwire import frame as frames
from thinwire.buffers import Buffer, Buffers, buffers_of
from thinwire.codecs import Context, Mask, tag, varint
from thinwire.errors import ConfigError, DecodeError, line
from thinwire.files import read_plain
from thinwire.frame import Frame, Kind, Section
from thinwire.layout import Layout
from thinwire.models import MODELS
from thinwire.parameterisations import (
    Masked,
    Parameterisation,
    compose,
    from_config,
    frozen_weights,
    mask_layout,
    parameterise,
    to_config,
)
from thinwire.tensors import FlatModel, layout_of_sketch, norm_layers

MAX_CONFIG_BYTES = 65_536
MAX_PARAMETERS = 2**30  # of a model that a file may ask for by its description alone
FREE_PARAMETERS = 2**24  # which a file of any size may ask for, and a larger one so many a byte:
PARAMETERS_PER_BYTE = 1000  # 30 times what a mask with one entry in 1,000 kept comes to, or factors of rank 1


def save_bytes(data: bytes, path: Path) -> Path:
    """Write a file under a temporary name, then rename it: it is whole or it is not there. OSError names it."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb", opener=no_link) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()  # on a full disk, half a file takes room
        raise OSError(error.errno, error.strerror, str(path)) from None
    return path


def no_link(path: str, flags: int) -> int:
    """Open a file, but not through a link that somebody left under its name, and wait for no pipe's reader."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: what was renamed before stays so when the power fails.

    Windows opens no folder as a file, and has no O_DIRECTORY: there it is left to the file system.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mask_frame(
    model: dict[str, Any], flat: FlatModel, seed: int, gain: float, mask: np.ndarray, other: Callable[[], nn.Module]
) -> bytes:
    """Bytes of a seed + mask model file; `model` describes the architecture: name, shape, classes.

    `other` builds the model as another seed would have it: what is the same there, every instance has.
    """
    layout, codec = mask_layout(flat.layout), Mask()
    config = json.dumps(model | {"gain": gain}, sort_keys=True, separators=(",", ":")).encode()
    sections = [
        (Section.CONFIG, config),
        (Section.SEED, varint.write([seed])),
        (Section.VALUES, codec.encode(mask, Context(layout))),
    ]
    if rest := _rest(flat.model, layout, other):
        sections.append((Section.REST, rest))
    return frames.write(Frame(Kind.MODEL, 0, 0, tag(codec), flat.layout.digest, tuple(sections)))


class _Parameter(Buffer):
    """A parameter that no mask makes, read and written as buffers are."""

    @property
    def tensor(self) -> torch.Tensor:
        return cast(torch.Tensor, self.owner._parameters[self.key])


def _unmasked(model: nn.Module, layout: Layout) -> Buffers:
    """What a mask of this layout does not make: frozen and norm parameters, then the buffers of the state."""
    masked, parts = {entry.name for entry in layout}, list[Buffer]()
    for name, parameter in model.named_parameters():
        if name not in masked:
            owner, _, key = name.rpartition(".")
            parts.append(_Parameter(name, model.get_submodule(owner), key, parameter.shape, parameter.dtype))
    return Buffers((*parts, *buffers_of(model).parts))


def _rest(model: nn.Module, layout: Layout, other: Callable[[], nn.Module]) -> bytes:
    """Digest of what the mask does not make, then the parts of it that a new instance of the model may not have.

    That is every frozen parameter, and all else that is not the same under another seed with untrained norm layers.
    Empty where there is nothing to say.
    """
    mine = _unmasked(model, layout)
    if not mine:
        return b""
    plain = other()
    for name in norm_layers(plain):
        getattr(plain.get_submodule(name), "reset_parameters", lambda: None)()
    theirs, data = _unmasked(plain, layout).read(), mine.read()
    fixed = [isinstance(part, _Parameter) and not part.tensor.requires_grad for part in mine.parts]
    chosen = [stays or data[span] != theirs[span] for stays, span in zip(fixed, mine.spans, strict=True)]
    return _digest(mine) + mine.payload(data, chosen) if any(chosen) or buffers_of(model) else b""


def _digest(parts: Buffers) -> bytes:
    """Of names, types, shapes and entries.  # 8 bytes"""
    names = "".join(f"{part.name} {part.dtype} {tuple(part.shape)};" for part in parts.parts)
    return sha256(names.encode() + parts.read()).digest()[:8]


def dense_bytes(
    model: nn.Module, description: dict[str, Any], parameterisation: Parameterisation | None = None
) -> bytes:
    """Bytes of a safetensors file with the model's state and, as metadata, what architecture it is.

    Of a parameterised model these are its factors: the file is as small as what travelled, `load` composes it.
    """
    from safetensors.torch import save

    if parameterisation:
        description = description | {"parameterisation": to_config(parameterisation)}

    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    return save(tensors, metadata={"thinwire": json.dumps(description, sort_keys=True)})


def densities(model: nn.Module) -> dict[str, float]:
    """The fraction of the entries that are not 0, of every weight of two axes or more; {} if none is 0."""
    weights = {name: weight for name, weight in model.named_parameters() if weight.dim() > 1 and weight.numel()}
    found = {name: int(weight.count_nonzero()) / weight.numel() for name, weight in weights.items()}
    return found if any(density < 1 for density in found.values()) else {}


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The model of a `model.tw` or `model.safetensors` file, in evaluation mode.

    `model`: an instance of the architecture, needed when the run's model was not one of the library's.
    DecodeError when the file is broken, ConfigError when the architecture is needed or differs.
    """
    return read(read_plain(Path(path)), model)


def read(data: bytes, model: nn.Module | None = None) -> nn.Module:
    """The model that a file's bytes hold; see `load`."""
    loaded = _load_mask(data, model) if data[: len(frames.MAGIC)] == frames.MAGIC else _load_dense(data, model)
    return loaded.eval()


Check = Callable[[nn.Module], object]  # raises what is wrong with a module on the meta device


def _architecture(description: dict[str, Any], model: nn.Module | None, check: Check, size: int) -> nn.Module:
    """The module to fill: the one given, else the library's model that a file of `size` bytes names.

    That one is first sketched on the meta device, where nothing is allocated, and made once `check` has passed it.
    """
    if model is not None:
        return model
    name = description.get("name")
    if not isinstance(name, str) or name not in MODELS:
        raise ConfigError("model", name, "the file's model is not one of the library's: pass load(path, model=...)")
    shape, classes = description.get("shape"), description.get("classes")
    if not isinstance(shape, list) or not all(type(n) is int and 0 < n < 2**20 for n in [*shape, classes]):
        raise DecodeError("model file: shape and classes must be positive whole numbers")
    most = min(MAX_PARAMETERS, max(FREE_PARAMETERS, PARAMETERS_PER_BYTE * size))
    what = f"model file: shape {shape} and {classes} classes make more than {most} parameters"
    if prod([*shape, classes]) > MAX_PARAMETERS:
        raise DecodeError(what)
    with torch.device("meta"):
        sketch = MODELS[name](tuple(shape), classes)
        if sum(parameter.numel() for parameter in sketch.parameters()) > most:
            raise DecodeError(f"{what}, the most for its {size} bytes")
        check(sketch)
    return MODELS[name](tuple(shape), classes)


def _load_mask(data: bytes, model: nn.Module | None) -> nn.Module:
    frame = frames.expect(frames.read(data), kinds=(Kind.MODEL,), codec=tag(Mask()))
    config = _json(frame.one(Section.CONFIG))
    gain = config.get("gain")
    if not isinstance(gain, float) or not 0 < gain < 1e6:
        raise DecodeError(f"model file: gain {gain!r} is not a positive number")

    def fits(sketch: nn.Module) -> None:
        frames.expect(frame, layout=layout_of_sketch(sketch).digest)

    flat = FlatModel(_architecture(config, model, fits, len(data)))
    frames.expect(frame, layout=flat.layout.digest)
    layout = mask_layout(flat.layout)
    mask = Mask().decode(frame.one(Section.VALUES), Context(layout))
    seed = varint.Reader(frame.one(Section.SEED)).next()
    set_mask(flat, seed, gain, mask)
    if frame.all(Section.REST):
        _put_rest(flat.model, layout, frame.one(Section.REST))
    # as files had it until December 2026
    if frame.all(Section.STANDING) and frame.one(Section.STANDING) != flat.standing:
        allowed = (
            "a model with the run's frozen parameters and first buffers, which this file lacks: "
            "`thinwire export RUN` writes one that has them"
        )
        raise ConfigError("model", type(flat.model).__name__, allowed)
    if frame.all(Section.BUFFERS):
        flat.buffers.write(flat.buffers.patched(flat.first_buffers, frame.one(Section.BUFFERS)))
    return flat.model


def _put_rest(model: nn.Module, layout: Layout, data: bytes) -> None:
    """Inverse of `_rest`; ConfigError when what the file leaves out is not in the model as it was in the run's."""
    parts = _unmasked(model, layout)
    if len(data) < 8:
        raise DecodeError(f"model file: section rest has {len(data)} bytes, at least 8 needed")
    for number, entries in parts.changes(data[8:]).items():
        tensor = parts.parts[number].tensor
        tensor.data = parts.parts[number].values(entries).view(tensor.shape).to(tensor.device)
    if _digest(parts) != data[:8]:
        allowed = "a model whose tensors are named as the run's, with the same constants in its buffers"
        raise ConfigError("model", type(model).__name__, allowed)


def set_mask(flat: FlatModel, seed: int, gain: float, mask: np.ndarray) -> None:
    """Make a model's weights the frozen ones of the seed times the mask (d,)."""
    frozen = frozen_weights(mask_layout(flat.layout), seed, gain)
    Masked(flat, frozen).write(torch.from_numpy(mask.astype(np.float32)))


def _json(data: bytes) -> dict[str, Any]:
    try:
        config = json.loads(data[:MAX_CONFIG_BYTES])
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"model file: its description is not JSON ({error})") from None
    if not isinstance(config, dict):
        raise DecodeError("model file: its description is not a table")
    return config


def _load_dense(data: bytes, model: nn.Module | None) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load as load_tensors

    try:
        tensors = load_tensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise DecodeError(f"model file: neither a thinwire frame nor safetensors ({line(error)})") from None
    description = _json((header.get("__metadata__") or {}).get("thinwire", "{}").encode())
    how = _factors(description)

    def fits(sketch: nn.Module) -> None:
        _fill(parameterise(sketch, how, report=None) if how else sketch, tensors, assign=True)

    target = _architecture(description, model, fits, len(data))
    if how:
        target = parameterise(target, how, report=None)
    _fill(target, tensors)
    return compose(target) if how else target


def _fill(model: nn.Module, tensors: dict[str, torch.Tensor], assign: bool = False) -> None:
    """Load a state dict; ConfigError says which names or shapes differ. assign: nothing is copied."""
    try:
        model.load_state_dict(tensors, assign=assign)
    except RuntimeError as error:
        raise ConfigError("model", type(model).__name__, " ".join(str(error).split())[:500]) from None


def _factors(description: dict[str, Any]) -> Parameterisation | None:
    """The parameterisation that a file names, if any."""
    config = description.get("parameterisation")
    if config is None:
        return None
    try:
        return from_config(config if isinstance(config, dict) else {"name": config})
    except ConfigError as error:
        raise DecodeError(f"model file: {error}") from None
