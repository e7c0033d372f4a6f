"""Folders with train.parquet and test.parquet: images, lists of numbers, and everything that can be wrong."""

import numpy as np
import pyarrow as pa
import pytest

from thinwire.data import load
from thinwire.errors import ConfigError, DataError

GREY = np.full((4, 5), 7)
COLOUR = np.full((4, 5, 3), 7)


def numbers(values, type=None):
    return {"x": pa.array(values, type=type), "label": [0] * len(values)}


def test_grey_images_are_standardised_by_trains_moments(write_folder, grey_images):
    pixels, encoded = grey_images
    folder = write_folder({"image": encoded, "label": [0, 1, 2, 0, 1, 2]}, {"image": encoded[:2], "label": [2, 0]})
    dataset = load(str(folder))
    scaled = pixels[:, np.newaxis] / 255
    expected = (scaled - scaled.mean()) / scaled.std()
    np.testing.assert_allclose(dataset.train.x, expected, atol=1e-6)
    np.testing.assert_allclose(dataset.test.x, expected[:2], atol=1e-6)
    assert dataset.train.x.dtype == np.float32
    assert dataset.train.y.dtype == np.int64
    assert dataset.train.y.tolist() == [0, 1, 2, 0, 1, 2]
    assert (dataset.classes, dataset.shape, dataset.name) == (3, (1, 4, 5), str(folder))


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_colour_images_are_standardised_per_channel(write_folder, encode, format):
    pixels = np.random.default_rng(1).integers(0, 256, (8, 6, 7, 3), dtype=np.uint8)
    pixels[..., 2] = 9  # a constant channel is centred, not divided by zero
    folder = write_folder({"image": [encode(image, format=format) for image in pixels], "label": [0] * 8})
    x = load(str(folder)).train.x
    assert x.shape == (8, 3, 6, 7)
    np.testing.assert_allclose(x.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=(0, 2, 3)), [1, 1, 0], atol=1e-5)
    order = np.argsort(pixels[0, ..., 1].ravel(), kind="stable")
    assert (np.diff(x[0, 1].ravel()[order]) >= 0).all()


def test_tables_of_several_row_groups_keep_their_order(tmp_path, encode):
    import pyarrow.parquet as pq

    table = pa.table({"image": [encode(np.full((2, 2), 10 * row)) for row in range(9)], "label": range(9)})
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}.parquet", row_group_size=2)
    dataset = load(str(tmp_path))
    assert dataset.train.y.tolist() == list(range(9))
    assert (np.diff(dataset.train.x[:, 0, 0, 0]) > 0).all()


@pytest.mark.parametrize(
    ("values", "type", "shape"),
    [
        ([[1, 2, 3], [4, 5, 6]], None, (3,)),
        ([[1.5, 2], [4, 5]], pa.list_(pa.float64(), 2), (2,)),
        ([[1, 0], [4, 5]], pa.large_list(pa.uint8()), (2,)),
        ([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [0, 1, 2]]], None, (2, 3)),
        ([[[[1], [2]]], [[[3], [4]]]], pa.list_(pa.list_(pa.list_(pa.float32(), 1), 2), 1), (1, 2, 1)),
    ],
)
def test_lists_of_numbers_are_taken_as_they_are(write_folder, values, type, shape):
    dataset = load(str(write_folder(numbers(values, type))))
    assert dataset.shape == shape
    assert dataset.train.x.dtype == np.float32
    np.testing.assert_array_equal(dataset.train.x, np.array(values, np.float32))


def test_arrays_that_the_hubs_library_wrote_are_read(tmp_path):
    from datasets import Array2D, Dataset, Features, Value

    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    features = Features({"x": Array2D((2, 3), "float32"), "label": Value("int64")})
    for split in ("train", "test"):
        Dataset.from_dict({"x": x, "label": [0, 1]}, features=features).to_parquet(tmp_path / f"{split}.parquet")
    np.testing.assert_array_equal(load(str(tmp_path)).train.x, x)


def test_classes_count_the_labels_of_both_splits(write_folder):
    assert load(str(write_folder(numbers([[1.0]]), {"x": [[1.0]], "label": [6]}))).classes == 7


def test_further_plain_columns_are_kept_for_a_natural_partition(write_folder):
    more = {
        "user": ["b", "a"],
        "age": [3, 4],
        "group": pa.array(["u", "v"]).dictionary_encode(),
        "raw": [b"1", b"2"],
        "nested": [[1], [2]],
    }
    columns = load(str(write_folder(numbers([[1.0], [2.0]]) | more))).columns
    assert {name: values.tolist() for name, values in columns.items()} == {
        "user": ["b", "a"],
        "age": [3, 4],
        "group": ["u", "v"],
    }


def refused(folder, message):
    with pytest.raises(DataError, match=message) as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_file_is_named(write_folder, split):
    folder = write_folder(numbers([[1.0]]))
    (folder / f"{split}.parquet").unlink()
    refused(folder, rf"{split}\.parquet: no such file; a data folder holds train.parquet and test.parquet")


def test_a_file_that_is_no_parquet_is_named(write_folder):
    folder = write_folder(numbers([[1.0]]))
    (folder / "test.parquet").write_bytes(b"PAR1 or not")
    refused(folder, r"test\.parquet: is not a readable Parquet file")


def test_an_empty_split_is_named(write_folder):
    empty = {"x": pa.array([], pa.list_(pa.float32())), "label": pa.array([], pa.int64())}
    refused(write_folder(numbers([[1.0]]), empty), r"test\.parquet: has no rows")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0]}, "has none of the columns image, x, text, only label"),
        ({"x": [[1.0]]}, "has no column 'label', only x"),
    ],
)
def test_a_missing_column_is_named(write_folder, columns, message):
    refused(write_folder(columns), rf"train\.parquet: {message}")


def test_a_column_that_only_test_lacks_is_named(write_folder):
    refused(
        write_folder(numbers([[1.0]]), {"y": [1], "label": [0]}), r"test\.parquet: has no column 'x', only y, label"
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0], "column label: holds double, must hold integers from 0 on"),
        (["a", "b"], "column label: holds string, must hold integers from 0 on"),
        ([0, None], "column label, row 1: is missing"),
        ([0, -2], r"column label, row 1: is negative \(-2\)"),
    ],
)
def test_bad_labels_are_refused(write_folder, labels, message):
    refused(write_folder({"x": [[1.0], [2.0]], "label": labels}), rf"train\.parquet, {message}")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], "column x: holds double, must hold lists of numbers"),
        ([["a"], ["b"]], "column x: holds list<.*string>, must hold lists of numbers"),
        ([[1, 2], [3]], "column x, row 1: holds a list of 1 where row 0 holds 2"),
        ([[[1], [2]], [[3], [4, 5]]], "column x, row 1: holds a list of 2 where row 0 holds 1"),
        ([[1, 2], None], "column x, row 1: has a missing value"),
        ([[1, 2], [3, None]], "column x, row 1: has a missing value"),
        ([[1.0], [float("nan")]], "column x, row 1: holds NaN or infinity"),
        ([[1.0], [1e300]], "column x, row 1: holds NaN or infinity"),
    ],
)
def test_bad_numbers_are_refused(write_folder, values, message):
    refused(write_folder(numbers(values)), rf"train\.parquet, {message}")


def test_another_shape_in_test_is_refused(write_folder):
    folder = write_folder(numbers([[1.0, 2.0]]), numbers([[1.0]]))
    refused(folder, r"test\.parquet: samples have shape \(1,\), those of train \(2,\)")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((GREY,), (GREY[:3],), "row 1: is grey 3x5, row 0 is grey 4x5"),
        ((GREY,), (COLOUR,), "row 1: is RGB 4x5, row 0 is grey 4x5"),
        ((COLOUR,), (COLOUR, "RGBA"), "row 1: has mode RGBA, must be one of L, RGB"),
    ],
)
def test_images_of_another_size_or_mode_are_refused(write_folder, encode, first, second, message):
    folder = write_folder({"image": [encode(*first), encode(*second)], "label": [0, 0]})
    refused(folder, rf"train\.parquet, column image, {message}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda encoded: b"nothing", "cannot be decoded as an image"),
        (lambda encoded: encoded[:50], "cannot be decoded as an image"),
        (lambda encoded: encoded[:45] + bytes(12) + encoded[57:], "cannot be decoded as an image"),
        (lambda encoded: b"", "cannot be decoded as an image"),
        (lambda encoded: None, "has no bytes"),
    ],
)
def test_broken_images_are_refused(write_folder, encode, damage, message):
    good = encode(GREY)
    folder = write_folder({"image": [good, good | {"bytes": damage(good["bytes"])}], "label": [0, 0]})
    refused(folder, rf"train\.parquet, column image, row 1: {message}")


def test_a_column_of_bare_numbers_is_no_image(write_folder):
    refused(write_folder({"image": [1], "label": [0]}), "column image: holds int64, must hold images as struct")


def test_grey_train_and_colour_test_are_refused(write_folder, encode):
    folder = write_folder({"image": [encode(GREY)], "label": [0]}, {"image": [encode(COLOUR)], "label": [0]})
    refused(folder, r"test\.parquet, column image: has 3 channels, must have 1")


@pytest.mark.parametrize("name", ["imagenet", "/no/such/folder", ""])
def test_an_unknown_name_lists_what_there_is(name):
    with pytest.raises(ConfigError, match=r"one of digits, mnist, .*, a folder with train\.parquet"):
        load(name)


@pytest.mark.parametrize("value", [10**7, 10**9])
def test_one_stray_label_of_a_file_is_refused_with_its_row(write_folder, value):
    table = {"x": [[1.0]] * 3, "label": [0, value, 1]}
    with pytest.raises(DataError, match=rf"train\.parquet, column label, row 1: is {value}, must be 0 to 65535"):
        load(str(write_folder(table, numbers([[1.0]]))))


def test_a_misspelt_name_is_told_from_the_nearest():
    with pytest.raises(ConfigError, match=r"data = 'digit': .*; did you mean digits\?$"):
        load("digit")
