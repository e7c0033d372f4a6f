"""Small Parquet folders, encoded images, and the real data sets where the machine has them."""

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def encode():
    """Encode a uint8 array (height, width) or (height, width, 3) as the hub's image struct."""

    def encoded(pixels, mode=None, format="PNG"):
        image, buffer = Image.fromarray(np.asarray(pixels, np.uint8)), BytesIO()
        (image.convert(mode) if mode else image).save(buffer, format=format, lossless=True)
        return {"bytes": buffer.getvalue(), "path": None}

    return encoded


@pytest.fixture
def write_folder(tmp_path):
    """Write {column: values} for train and test as a data folder; test defaults to the same rows as train."""

    def write(train, test=None, folder="set"):
        target = tmp_path / folder
        target.mkdir(exist_ok=True)
        for split, columns in (("train", train), ("test", train if test is None else test)):
            pq.write_table(pa.table(columns), target / f"{split}.parquet")
        return target

    return write


@pytest.fixture
def grey_images(encode):
    """Six 4×5 grey images and their pixels."""
    pixels = np.random.default_rng(5).integers(0, 256, (6, 4, 5), dtype=np.uint8)
    return pixels, [encode(image) for image in pixels]


@pytest.fixture
def shared_data(monkeypatch):
    """Point THINWIRE_DATA at the real data sets; `shared_data(name)` skips the test where one is missing."""
    root = Path(os.environ.get("THINWIRE_DATA") or REPOSITORY.parent / "shared" / "data")

    def need(name):
        if not (root / name / "train.parquet").is_file():
            pytest.skip(f"{root / name} is not there: set THINWIRE_DATA to a folder that holds {name}/train.parquet")
        monkeypatch.setenv("THINWIRE_DATA", str(root))
        return root / name

    return need
