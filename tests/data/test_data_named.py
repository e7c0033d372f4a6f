"""Named data sets: digits, $THINWIRE_DATA, the hub (read from local Parquet), and the real ones where they are."""

import datasets
import numpy as np
import pyarrow as pa
import pytest

from thinwire.data import DATASETS, load
from thinwire.errors import DataError

COLOUR = np.random.default_rng(2).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def hub(monkeypatch):
    """Stand in for the network alone: `datasets.load_dataset` reads local Parquet, as it does its own downloads."""
    monkeypatch.delenv("THINWIRE_DATA", raising=False)
    real, calls = datasets.load_dataset, []

    def serve(folder, splits):
        files = {split: str(folder / f"{split}.parquet") for split in splits}

        def load_dataset(repo, revision=None, split=None):
            calls.append((repo, revision, split))
            return real("parquet", data_files=files, split=split, cache_dir=str(folder / "cache"))

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return calls

    return serve


@pytest.fixture
def offline(monkeypatch):
    def load_dataset(repo, **_):
        raise ConnectionError(f"Couldn't reach '{repo}' on the Hub\nand a second line")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def with_features(columns, image):
    """A table with the schema metadata that the hub's own files carry, so that its image column is an Image."""
    features = datasets.Features({name: datasets.Value("int64") for name in columns} | {image: datasets.Image()})
    return datasets.Dataset.from_dict(columns, features=features).with_format("arrow")[:]


def write_hub_split(folder, split, table):
    import pyarrow.parquet as pq

    pq.write_table(table, folder / f"{split}.parquet")


def test_digits_are_standardised_and_complete():
    digits = load("digits")
    assert digits.train.x.shape == (1437, 1, 8, 8)
    assert digits.test.x.shape == (360, 1, 8, 8)
    assert digits.train.x.dtype == np.float32
    assert digits.train.y.dtype == np.int64
    assert abs(digits.train.x.mean()) < 1e-3
    assert abs(digits.train.x.std() - 1) < 1e-3
    every = np.sort(np.concatenate([digits.train.y, digits.test.y]))
    assert np.bincount(every).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_split_of_digits_is_pinned():
    digits = load("digits")
    assert digits.test.y[:12].tolist() == [3, 8, 4, 8, 1, 6, 2, 2, 9, 7, 3, 8]
    assert np.bincount(digits.test.y).tolist() == [27, 37, 44, 41, 33, 43, 33, 33, 35, 34]
    again = load("digits")
    np.testing.assert_array_equal(digits.train.x, again.train.x)


def test_digits_need_no_data_folder(monkeypatch, offline):
    monkeypatch.delenv("THINWIRE_DATA", raising=False)
    assert len(load("digits").train) == 1437


def test_a_named_set_is_read_from_the_data_folder(write_folder, monkeypatch, offline, encode):
    folder = write_folder({"image": [encode(np.full((28, 28), 51))] * 2, "label": [3, 9]}, folder="mnist")
    monkeypatch.setenv("THINWIRE_DATA", str(folder.parent))
    mnist = load("mnist")
    assert (mnist.classes, mnist.shape, mnist.name) == (10, (1, 28, 28), "mnist")
    np.testing.assert_allclose(mnist.train.x, (51 / 255 - 0.1307) / 0.3081, rtol=1e-5)


def test_the_hubs_column_names_serve_in_the_data_folder_too(write_folder, monkeypatch, offline, encode):
    images = [encode(image, format="WEBP") for image in COLOUR]
    columns = {"img": images, "fine_label": [99, 1, 2], "coarse_label": [4, 4, 5]}
    monkeypatch.setenv("THINWIRE_DATA", str(write_folder(columns, folder="cifar100").parent))
    cifar100 = load("cifar100")
    assert cifar100.classes == 100
    assert cifar100.train.y.tolist() == [99, 1, 2]
    assert cifar100.columns["coarse_label"].tolist() == [4, 4, 5]


def test_a_folder_that_is_there_but_incomplete_is_not_passed_over(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    monkeypatch.setenv("THINWIRE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"mnist/train\.parquet: no such file"):
        load("mnist")


def test_a_label_beyond_the_sets_classes_is_refused(write_folder, monkeypatch, encode):
    folder = write_folder({"image": [encode(np.zeros((28, 28)))] * 2, "label": [3, 10]}, folder="mnist")
    monkeypatch.setenv("THINWIRE_DATA", str(folder.parent))
    with pytest.raises(DataError, match=r"train\.parquet, column label, row 1: is 10, must be below the 10 classes"):
        load("mnist")


def test_colour_where_grey_is_expected_is_refused(write_folder, monkeypatch, encode):
    folder = write_folder({"image": [encode(COLOUR[0])], "label": [3]}, folder="mnist")
    monkeypatch.setenv("THINWIRE_DATA", str(folder.parent))
    with pytest.raises(DataError, match="column image: has 3 channels, must have 1"):
        load("mnist")


def test_images_from_the_hub_are_renamed_and_decoded(hub, tmp_path, encode):
    table = with_features({"img": [encode(image) for image in COLOUR], "label": [9, 0, 4]}, image="img")
    for split, rows in (("train", table), ("test", table.slice(1, 2))):
        write_hub_split(tmp_path, split, rows)
    calls = hub(tmp_path, ("train", "test"))
    cifar10 = load("cifar10")
    assert calls == [("uoft-cs/cifar10", None, "train"), ("uoft-cs/cifar10", None, "test")]
    info = DATASETS["cifar10"]
    expected = (COLOUR / 255 - np.array(info.mean)) / np.array(info.std)
    np.testing.assert_allclose(cifar10.train.x, expected.transpose(0, 3, 1, 2), atol=1e-5)
    np.testing.assert_allclose(cifar10.test.x, cifar10.train.x[1:], atol=1e-6)
    assert cifar10.train.y.tolist() == [9, 0, 4]


def test_fine_labels_from_the_hub_become_labels(hub, tmp_path, encode):
    columns = {"img": [encode(image) for image in COLOUR], "fine_label": [7, 8, 9], "coarse_label": [1, 1, 2]}
    for split in ("train", "test"):
        write_hub_split(tmp_path, split, with_features(columns, image="img"))
    hub(tmp_path, ("train", "test"))
    cifar100 = load("cifar100")
    assert cifar100.train.y.tolist() == [7, 8, 9]
    assert list(cifar100.columns) == ["coarse_label"]


def test_text_from_the_hub_joins_validation_and_test(hub, tmp_path):
    for split, letter in (("train", "ab"), ("validation", "bc"), ("test", "cd")):
        write_hub_split(tmp_path, split, pa.table({"text": [letter * 100]}))
    calls = hub(tmp_path, ("train", "validation", "test"))
    dataset = load("tinyshakespeare")
    assert [call[2] for call in calls] == ["train", "validation+test"]
    assert all(call[1] == DATASETS["tinyshakespeare"].revision for call in calls)
    assert (len(dataset.train), len(dataset.test), dataset.classes) == (2, 4, 4)


def test_errors_about_hub_data_name_the_repository_and_split(hub, tmp_path):
    for split in ("train", "test"):
        write_hub_split(tmp_path, split, pa.table({"label": [1]}))
    hub(tmp_path, ("train", "test"))
    with pytest.raises(DataError, match=r"^ylecun/mnist \(train\): has none of the columns image"):
        load("mnist")


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
def test_offline_the_message_says_what_was_looked_for_and_what_to_set(name, offline, monkeypatch, tmp_path):
    repo = DATASETS[name].repo
    monkeypatch.delenv("THINWIRE_DATA", raising=False)
    with pytest.raises(DataError, match=f"'{name}': THINWIRE_DATA is not set, and {repo} cannot be fetched") as unset:
        load(name)
    assert f"holds {name}/train.parquet and {name}/test.parquet" in str(unset.value)
    assert "\n" not in str(unset.value)
    monkeypatch.setenv("THINWIRE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"no folder {tmp_path / name}, and {repo} cannot be fetched"):
        load(name)


def test_the_real_mnists_test_images(shared_data, tmp_path):
    source = shared_data("mnist") / "test.parquet"
    for split in ("train", "test"):
        (tmp_path / f"{split}.parquet").symlink_to(source)
    images = load(str(tmp_path)).test
    assert images.x.shape == (10_000, 1, 28, 28)
    assert np.bincount(images.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert abs(images.x.mean()) < 1e-5


@pytest.mark.slow
def test_the_real_mnist(shared_data):
    shared_data("mnist")
    mnist = load("mnist")
    assert mnist.train.x.shape == (60_000, 1, 28, 28)
    assert mnist.train.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert abs(mnist.train.x.mean()) < 1e-3
    assert abs(mnist.train.x.std() - 1) < 1e-3


@pytest.mark.slow
def test_the_real_cifar10(shared_data):
    shared_data("cifar10")
    cifar10 = load("cifar10")
    assert cifar10.train.x.shape == (50_000, 3, 32, 32)
    assert np.bincount(cifar10.train.y).tolist() == [5000] * 10
    assert np.bincount(cifar10.test.y).tolist() == [1000] * 10
    np.testing.assert_allclose(cifar10.train.x.mean(axis=(0, 2, 3), dtype=np.float64), 0, atol=1e-3)
    np.testing.assert_allclose(cifar10.train.x.std(axis=(0, 2, 3), dtype=np.float64), 1, atol=1e-3)


def test_the_real_tinyshakespeare(shared_data):
    shared_data("tinyshakespeare")
    text = load("tinyshakespeare")
    assert text.classes == 65
    assert text.train.x.shape == text.train.y.shape == (12_548, 80)
    np.testing.assert_array_equal(text.train.x.ravel()[1:], text.train.y.ravel()[:-1])
