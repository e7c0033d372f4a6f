"""Columns of encoded images (PNG, WebP, ...): decoded to bytes, then standardised per channel."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

from thinwire.data.tables import Table
from thinwire.errors import DataError
from thinwire.machine import memory_bytes

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF")  # of Pillow's some start other programs
MODES = ("L", "RGB")  # grey, colour: 8 bits a channel
BLOCK = 4096  # images at a time, to bound the memory that temporary arrays take


def decode(table: Table) -> np.ndarray:
    """The column `image`, structs of encoded bytes: images of one size and one mode.

    Returns uint8, (n, channels, height, width). Each image is decoded straight into its place: a thread pool was
    measured and is no faster, since for images this small the interpreter's lock is held most of the time.

    Raises:
        DataError: the column holds no images, or a row's image is missing, broken or unlike the first row's.
    """
    where = f"{table.where}, column image"
    images = _encoded(table, where)
    first = _pixels(next(images, None), f"{where}, row 0")
    size = 5 * first.nbytes * table.rows.num_rows  # a byte and a float32 a pixel
    if size > memory_bytes():
        what = f"{table.rows.num_rows} images of {_describe(first)} take {size} bytes"
        raise DataError(f"{where}: {what}, more than this machine has")
    out = np.empty((table.rows.num_rows, *first.shape), np.uint8)
    out[0] = first
    for row, encoded in enumerate(images, start=1):
        pixels = _pixels(encoded, f"{where}, row {row}")
        if pixels.shape != first.shape:
            raise DataError(f"{where}, row {row}: is {_describe(pixels)}, row 0 is {_describe(first)}")
        out[row] = pixels
    return out


def _encoded(table: Table, where: str) -> Iterator[bytes | None]:
    """The images' encoded bytes, one chunk of rows in memory at a time."""
    import pyarrow as pa

    column = table.column("image")
    if not pa.types.is_struct(column.type) or column.type.get_field_index("bytes") < 0:
        raise DataError(f"{where}: holds {column.type}, must hold images as struct<bytes, path>")
    for chunk in column.chunks:
        yield from chunk.field("bytes").to_pylist()


def _pixels(encoded: bytes | None, where: str) -> np.ndarray:
    """Decode one image.  # -> (channels, height, width) uint8."""
    if encoded is None:
        raise DataError(f"{where}: has no bytes")
    try:
        with Image.open(BytesIO(encoded), formats=FORMATS) as image:
            mode, pixels = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: cannot be decoded as an image") from error
    if mode not in MODES:
        raise DataError(f"{where}: has mode {mode}, must be one of {', '.join(MODES)}")
    return pixels[np.newaxis] if mode == "L" else pixels.transpose(2, 0, 1)


def _describe(pixels: np.ndarray) -> str:
    channels, height, width = pixels.shape
    return f"{'grey' if channels == 1 else 'RGB'} {height}x{width}"


def moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per channel of pixels in [0, 1], exact; a constant channel has deviation 1.

    # uint8 (n, channels, height, width) -> (channels,), (channels,)
    """
    counts = np.stack([_histogram(images[:, channel]) for channel in range(images.shape[1])])  # (channels, 256)
    share = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256) / 255
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, np.newaxis]) ** 2).sum(axis=1))
    return mean, np.where(std > 0, std, 1.0)


def _histogram(channel: np.ndarray) -> np.ndarray:
    """How often each of the 256 values occurs.  # uint8 (n, height, width) -> (256,) int64."""
    blocks = (channel[start : start + BLOCK].ravel() for start in range(0, len(channel), BLOCK))
    return sum((np.bincount(block, minlength=256) for block in blocks), np.zeros(256, np.int64))


def standardise(images: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """(pixel / 255 − mean) / std per channel.  # uint8 (n, channels, height, width) -> float32, the same shape."""
    scale = (1 / (255 * std)).astype(np.float32)[:, np.newaxis, np.newaxis]  # (channels, 1, 1)
    shift = (mean / std).astype(np.float32)[:, np.newaxis, np.newaxis]
    out = np.multiply(images, scale, dtype=np.float32)
    out -= shift
    return out
