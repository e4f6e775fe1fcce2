import gzip
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from litlab.data.inputs.read_input import read_input
from litlab.data.spec import DataSpec
from litlab.utils.errors import DataError
from made_data import make_spec

GREY = make_spec("image", (1, 6, 5))
COLOUR = make_spec("image", (3, 6, 5))
SEQUENCE = make_spec("sequence", (1, 7))
STEREO = make_spec("sequence", (2, 7))
TABLE = make_spec("tabular", (4,))
TEXT = make_spec("text", (8,))


def pixels(number: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(channels)
    return rng.integers(0, 256, (number, channels, 6, 5)).astype(np.uint8)


def to_image(array: np.ndarray) -> Image.Image:
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


def refused(path: Path, spec: DataSpec, **settings: bool) -> DataError:
    with pytest.raises(DataError) as caught:
        read_input(path, spec, **settings)
    assert caught.value.exit_code == 3
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    return caught.value


# Pictures


@pytest.mark.parametrize("spec", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG"])
def test_a_picture(tmp_path, spec, suffix) -> None:
    (expected,) = pixels(1, spec.shape[0])
    path = tmp_path / f"one{suffix}"
    to_image(expected).save(path)
    names, values = read_input(path, spec)
    assert names == [path.name]
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values, expected[None])


def test_a_folder_of_pictures_in_the_order_of_their_names(tmp_path) -> None:
    images = pixels(4, 1)
    places = ["b.png", "a/z.png", "a/c/y.png", "10.png"]
    for place, image in zip(places, images, strict=True):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        to_image(image).save(tmp_path / place)
    (tmp_path / "notes.txt").write_text("no picture")
    names, values = read_input(tmp_path, GREY)
    assert names == ["10.png", "a/c/y.png", "a/z.png", "b.png"]
    np.testing.assert_array_equal(values, images[[3, 2, 1, 0]])


def test_hidden_pictures_are_passed_over_as_in_training(tmp_path) -> None:
    (tmp_path / ".ipynb_checkpoints").mkdir()
    for name in ("a.png", ".ipynb_checkpoints/a.png"):
        to_image(pixels(1, 1)[0]).save(tmp_path / name)
    (tmp_path / "._a.png").write_bytes(b"what macOS leaves")
    assert read_input(tmp_path, GREY)[0] == ["a.png"]


def test_colour_is_made_grey_as_pillow_does_and_counted(tmp_path) -> None:
    for number, image in enumerate(pixels(2, 3)):
        to_image(image).save(tmp_path / f"{number}.png")
    to_image(pixels(1, 1)[0]).save(tmp_path / "2.png")
    to_image(pixels(1, 4)[0]).save(tmp_path / "3.png")
    with pytest.warns(UserWarning, match="converted to L: 2 RGB, 1 RGBA"):
        _, values = read_input(tmp_path, GREY)
    r, g, b = pixels(2, 3)[0].astype(float)
    np.testing.assert_allclose(values[0, 0], 0.299 * r + 0.587 * g + 0.114 * b, atol=1)


def test_grey_is_made_colour(tmp_path) -> None:
    (grey,) = pixels(1, 1)
    to_image(grey).save(tmp_path / "x.png")
    with pytest.warns(UserWarning, match="converted to RGB: 1 L"):
        _, values = read_input(tmp_path, COLOUR)
    np.testing.assert_array_equal(values[0], np.repeat(grey, 3, axis=0))


def test_cmyk_is_converted(tmp_path) -> None:
    Image.new("CMYK", (5, 6), (0, 0, 0, 0)).save(tmp_path / "x.tif")
    with pytest.warns(UserWarning, match="1 CMYK"):
        _, values = read_input(tmp_path / "x.tif", COLOUR)
    assert (values == 255).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path, suffix) -> None:
    (expected,) = pixels(1, 1)
    path = tmp_path / f"x{suffix}"
    Image.fromarray(expected[0].astype(np.uint16) * 257).save(path)
    with pytest.warns(UserWarning, match="converted to L: 1 I;16"):
        _, values = read_input(path, GREY)
    np.testing.assert_array_equal(values[0], expected)


def test_float_pixels_are_refused(tmp_path) -> None:
    Image.fromarray(np.ones((6, 5), dtype=np.float32)).save(tmp_path / "x.tif")
    assert "floats of an unknown range" in refused(tmp_path / "x.tif", GREY).what


def test_another_size_is_refused_or_resized(tmp_path) -> None:
    Image.new("L", (10, 12), 77).save(tmp_path / "x.png")
    error = refused(tmp_path / "x.png", GREY)
    assert error.what == "10x12 pixels, not 5x6"
    assert "--resize" in error.fix
    _, values = read_input(tmp_path / "x.png", GREY, resize=True)
    assert values.shape == (1, 1, 6, 5)
    assert (values == 77).all()


def test_resizing_keeps_height_and_width_apart(tmp_path) -> None:
    image = np.zeros((12, 10), dtype=np.uint8)
    image[:6] = 200  # the upper half
    Image.fromarray(image).save(tmp_path / "x.png")
    _, values = read_input(tmp_path / "x.png", GREY, resize=True)
    assert values[0, 0, 0].min() > 150
    assert values[0, 0, -1].max() < 50


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".webp"])
def test_a_truncated_picture_is_named(tmp_path, suffix) -> None:
    path = tmp_path / f"x{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40)).astype(np.uint8)).save(path)
    content = path.read_bytes()
    for share in (0.0, 0.3, 0.6):
        path.write_bytes(content[: int(share * len(content))])
        error = refused(tmp_path, GREY, resize=True)
        assert "not a readable image" in error.what
        assert error.where == str(path)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "decompression bomb" in refused(tmp_path / "x.png", GREY, resize=True).what


def test_an_empty_folder(tmp_path) -> None:
    assert "no images" in refused(tmp_path, GREY).what


def test_no_picture_has_two_channels(tmp_path) -> None:
    to_image(pixels(1, 1)[0]).save(tmp_path / "x.png")
    assert "2 channels" in refused(tmp_path / "x.png", make_spec("image", (2, 6, 5))).what


@pytest.mark.parametrize("name", ["x.csv", "x.txt", "x.parquet"])
def test_no_picture_at_all(tmp_path, name) -> None:
    (tmp_path / name).write_text("1,2\n")
    error = refused(tmp_path / name, GREY)
    assert error.what == "not an image"
    assert ".png" in error.fix


# IDX


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
def test_idx_images(tmp_path, zipped) -> None:
    images = pixels(3, 1)
    content = struct.pack(">HBB3I", 0, 8, 3, 3, 6, 5) + images.tobytes()
    path = tmp_path / ("x-idx3-ubyte.gz" if zipped else "x-idx3-ubyte")
    path.write_bytes(gzip.compress(content) if zipped else content)
    names, values = read_input(path, GREY)
    assert names == [f"{path.name}:{row}" for row in range(3)]
    np.testing.assert_array_equal(values, images)
    assert values.flags.writeable  # torch.from_numpy wants it so


def test_idx_labels_given_as_images(tmp_path) -> None:
    path = tmp_path / "labels-idx1-ubyte"
    path.write_bytes(struct.pack(">HBBI", 0, 8, 1, 9) + bytes(9))
    error = refused(path, GREY)
    assert error.what == "an array of shape (9,)"
    assert "(N, 1, 6, 5)" in error.fix


# NumPy files


@pytest.mark.parametrize("form", ["NCHW", "NHWC", "NHW"])
@pytest.mark.parametrize("spec", [GREY, COLOUR], ids=["grey", "colour"])
def test_image_arrays_in_the_orders_people_save(tmp_path, spec, form) -> None:
    images = pixels(3, spec.shape[0])
    if form == "NHW" and spec is COLOUR:
        images = images[:, :1]
    saved = {"NCHW": images, "NHWC": images.transpose(0, 2, 3, 1), "NHW": images[:, 0]}[form]
    np.save(tmp_path / "x.npy", saved)
    if form == "NHW" and spec is COLOUR:
        assert "needs (N, 3, 6, 5)" in refused(tmp_path / "x.npy", spec).fix
        return
    names, values = read_input(tmp_path / "x.npy", spec)
    assert names == ["x.npy:0", "x.npy:1", "x.npy:2"]
    np.testing.assert_array_equal(values, images)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, ">i4"])
def test_bytes_stored_as_wider_integers(tmp_path, dtype) -> None:
    expected = pixels(2, 1)
    np.save(tmp_path / "x.npy", expected.astype(dtype))
    _, values = read_input(tmp_path / "x.npy", GREY)
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint16, bool])
def test_image_arrays_that_are_not_bytes(tmp_path, dtype) -> None:
    np.save(tmp_path / "x.npy", (pixels(2, 1).astype(np.float64) * 2).astype(dtype))
    error = refused(tmp_path / "x.npy", GREY)
    assert f"images of {np.dtype(dtype)}" in error.what
    assert "uint8" in error.fix


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, bool])
def test_sequences(tmp_path, dtype) -> None:
    x = np.random.default_rng(0).normal(0, 3, (4, 1, 7)).astype(dtype)
    for saved in (x, x[:, 0]):
        np.save(tmp_path / "x.npy", saved)
        _, values = read_input(tmp_path / "x.npy", SEQUENCE)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, x.astype(np.float32))


def test_two_channels_are_never_guessed(tmp_path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 7)))
    assert "needs (N, 2, 7)" in refused(tmp_path / "x.npy", STEREO).fix


def test_archives_of_arrays(tmp_path) -> None:
    x, y = np.ones((4, 4)), np.zeros(4)
    np.savez(tmp_path / "x.npz", y=y, x=x)
    np.testing.assert_array_equal(read_input(tmp_path / "x.npz", TABLE)[1], x)
    np.savez_compressed(tmp_path / "one.npz", anything=x)
    np.testing.assert_array_equal(read_input(tmp_path / "one.npz", TABLE)[1], x)
    np.savez(tmp_path / "two.npz", a=x, b=y)
    assert "no x" in refused(tmp_path / "two.npz", TABLE).what
    np.savez(tmp_path / "none.npz")
    assert "no x" in refused(tmp_path / "none.npz", TABLE).what


def test_no_pickle_is_opened(tmp_path) -> None:
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("canary").touch, ())

    np.save(tmp_path / "x.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=np.array([Bomb()], dtype=object))
    for name in ("x.npy", "x.npz"):
        assert "pickle" in refused(tmp_path / name, TABLE).what
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_damaged_arrays(tmp_path, suffix) -> None:
    path = tmp_path / f"x{suffix}"
    with path.open("wb") as file:
        (np.save if suffix == ".npy" else np.savez_compressed)(file, np.ones((40, 4)))
    content = path.read_bytes()
    for cut in range(0, len(content) - 1, 17):
        path.write_bytes(content[:cut])
        refused(path, TABLE)
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            read_input(path, TABLE)
        except DataError:
            continue


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.float64(3), r"shape (1,)"),
        (np.zeros(4), "shape (4,)"),  # one sample without its N
        (np.zeros((3, 5)), "shape (3, 5)"),
        (np.zeros((0, 4)), "shape (0, 4)"),
        (np.zeros((3, 4), dtype=complex), "complex128"),
        (np.array([["a"] * 4]), "<U1"),
        (np.array([[1, 2, 3, np.nan]] * 7), "7 samples, first x.npy:0, x.npy:1"),
        (np.array([[1, 2, 3, 4], [1, 2, 3, np.inf]]), "1 samples, first x.npy:1"),
        (np.array([[1, 2, 3, 1e300]]), "1 samples, first x.npy:0"),  # infinite as float32
    ],
)
def test_arrays_that_do_not_fit(tmp_path, array, message) -> None:
    np.save(tmp_path / "x.npy", array)
    assert message in refused(tmp_path / "x.npy", TABLE).what


# Tables


ROWS = pd.DataFrame(np.arange(12.0).reshape(3, 4), columns=["f3", "f1", "f0", "f2"])
ORDERED = ROWS[["f0", "f1", "f2", "f3"]].to_numpy()


def save_table(table: pd.DataFrame, path: Path, **settings) -> Path:
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="\t" if path.suffix == ".tsv" else ",", index=False, **settings)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_columns_are_found_by_name(tmp_path, suffix) -> None:
    path = save_table(ROWS.assign(extra="ignored"), tmp_path / f"x{suffix}")
    names, values = read_input(path, TABLE)
    first = 0 if suffix == ".parquet" else 2  # a line, below the header
    assert names == [f"x{suffix}:{first + row}" for row in range(3)]
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, ORDERED)


def test_blanks_around_names_and_a_byte_order_mark(tmp_path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("f0, f1 ,f2, f3\n1,2,3,4\n", encoding="utf-8-sig")
    np.testing.assert_array_equal(read_input(path, TABLE)[1], [[1, 2, 3, 4]])


def test_a_missing_column_is_named_with_the_nearest(tmp_path) -> None:
    spec = make_spec("tabular", (2,), features=("alcohol", "ash"))
    path = save_table(pd.DataFrame({"alcohl": [1.0], "ash": [2.0]}), tmp_path / "x.csv")
    error = refused(path, spec)
    assert error.what == "the file has 'alcohl', the model was trained with 'alcohol'"
    assert error.fix == "rename it to 'alcohol'"


def test_missing_cells_are_counted(tmp_path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("f0,f1,f2,f3\n1,2,3,4\n1,,3,4\nNaN,2,3,4\n")
    assert "2 samples, first x.csv:3, x.csv:4" in refused(path, TABLE).what


def test_missing_cells_of_parquets_own_integers(tmp_path) -> None:
    table = ROWS.astype("Int64")
    table.loc[1, "f2"] = pd.NA
    refused(save_table(table, tmp_path / "x.parquet"), TABLE)


def test_a_column_twice_is_refused(tmp_path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("f0,f1,f2,f3,f3 \n1,2,3,4,5\n")
    assert "'f3' appears twice" in refused(path, TABLE).what


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a table"),
        (b"f0,f1,f2,f3\n", "shape (0, 4)"),
        (
            b"f0,f1,f2,f3\n1,2,3,four\n",
            "'f3' has cells that are not finite numbers: x.csv:2 'four'",
        ),
        (b"f0,f1,f2,f3\n1,2,3,inf\n", "'f3' has cells that are not finite numbers: x.csv:2 'inf'"),
        (b"f0,f1,f2,f3\n1,2,3,4\n1,2,3,4,5,6\n", "line 3 has 6 cells, the others 4"),
        (b"f0,f1,f2,f3\n1,2,3,\xff\xff\n", "not UTF-8 at byte 18"),
        (b"1,2,3,4\n", "the file has no column 'f0', the model was trained with it (4 of 4"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, content, message) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    assert message in refused(tmp_path / "x.csv", TABLE).what


def test_a_damaged_parquet_file(tmp_path) -> None:
    path = save_table(ROWS, tmp_path / "x.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    assert "cannot be read as a table" in refused(path, TABLE).what


def test_a_table_of_features_without_names(tmp_path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("5,6,7,8\n1,2,3,4\n")
    _, values = read_input(path, make_spec("tabular", (4,), features=()))
    np.testing.assert_array_equal(values, [[5, 6, 7, 8], [1, 2, 3, 4]])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("header", [True, False])
def test_a_row_a_sequence(tmp_path, suffix, header) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 7)).round(3)
    table = pd.DataFrame(rows, columns=[f"t{i}" for i in range(7)])
    path = tmp_path / f"x{suffix}"
    save_table(table, path, **({} if suffix == ".parquet" else {"header": header}))
    names, values = read_input(path, SEQUENCE)
    first = 0 if suffix == ".parquet" else 1 + header
    assert names == [f"x{suffix}:{first + row}" for row in range(3)]
    np.testing.assert_array_equal(values[:, 0], rows.astype(np.float32))


def test_the_column_numbers_that_pandas_writes_are_a_header(tmp_path) -> None:
    path = save_table(pd.DataFrame(np.ones((3, 7))), tmp_path / "x.csv")
    with pytest.warns(UserWarning, match="0, 1, 2, ..., is a header"):
        _, values = read_input(path, SEQUENCE)
    assert len(values) == 3


def test_a_missing_value_in_the_first_row_does_not_make_it_a_header(tmp_path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("1,2,,4,5,6,7\n1,2,3,4,5,6,7\n")
    assert "first x.csv:1" in refused(path, SEQUENCE).what


# Text


def test_a_line_a_text(tmp_path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("a good film\n\né  bad\n", encoding="utf-8")
    names, values = read_input(path, TEXT)
    assert names == ["x.txt:1", "x.txt:2", "x.txt:3"]
    assert values.dtype == np.int32
    assert values.tolist() == [[1, 2, 4, 0, 0, 0, 0, 0], [0] * 8, [5, 3, 0, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    "content", [b"a\r\ngood\r\n", b"\xef\xbb\xbfa\ngood", b"a \x0b\ngood \xe2\x80\xa8\n"]
)
def test_line_ends_and_marks(tmp_path, content) -> None:
    (tmp_path / "x.txt").write_bytes(content)
    assert read_input(tmp_path / "x.txt", TEXT)[1][:, 0].tolist() == [1, 2]


@pytest.mark.parametrize("name", ["x", "x.csv", "x.tsv", "x.text"])
def test_a_text_file_of_any_name(tmp_path, name) -> None:
    (tmp_path / name).write_text("a good film\n")
    assert read_input(tmp_path / name, TEXT)[1][0, :3].tolist() == [1, 2, 4]


def test_long_lines_are_cut_and_counted(tmp_path) -> None:
    (tmp_path / "x.txt").write_text("a " * 9 + "\n" + "bad " * 8 + "\n")
    with pytest.warns(UserWarning, match="1 lines are longer than 8 words"):
        _, values = read_input(tmp_path / "x.txt", TEXT)
    assert values.tolist() == [[1] * 8, [3] * 8]


def test_an_unknown_word_is_named_with_its_line_and_the_nearest(tmp_path) -> None:
    (tmp_path / "x.txt").write_text("a film\ngoood film\n")
    error = refused(tmp_path / "x.txt", TEXT)
    assert error.what == "line 2: 'goood' is not in the vocabulary"
    assert error.fix == "did you mean 'good'?"
    large = make_spec("text", vocabulary=("<pad>", *(f"w{i}" for i in range(999))))
    assert refused(tmp_path / "x.txt", large).fix == "use only its 1000 words"


def test_text_that_is_not_utf8(tmp_path) -> None:
    (tmp_path / "x.txt").write_bytes(b"a film\n\xe9\n")
    assert refused(tmp_path / "x.txt", TEXT).what == "not UTF-8 at byte 7"


def test_an_empty_text_file(tmp_path) -> None:
    (tmp_path / "x.txt").touch()
    assert "shape (0, 8)" in refused(tmp_path / "x.txt", TEXT).what


def test_token_ids(tmp_path) -> None:
    ids = np.arange(16).reshape(2, 8) % 6
    np.save(tmp_path / "x.npy", ids)
    np.testing.assert_array_equal(read_input(tmp_path / "x.npy", TEXT)[1], ids)


@pytest.mark.parametrize("wrong", [6, -1, 0.5])
def test_ids_outside_the_vocabulary(tmp_path, wrong) -> None:
    np.save(tmp_path / "x.npy", np.full((2, 8), wrong))
    error = refused(tmp_path / "x.npy", TEXT)
    assert "not token ids" in error.what
    assert error.fix == "give integers from 0 to 5"


# Any kind


@pytest.mark.parametrize("spec", [GREY, SEQUENCE, TABLE, TEXT], ids=lambda spec: spec.kind)
def test_no_such_input(tmp_path, spec) -> None:
    assert "no such input" in refused(tmp_path / "none.csv", spec).what


@pytest.mark.parametrize("spec", [SEQUENCE, TABLE, TEXT], ids=lambda spec: spec.kind)
def test_a_folder_is_for_images(tmp_path, spec) -> None:
    assert f"cannot read {spec.kind} data" in refused(tmp_path, spec).what


@pytest.mark.parametrize("spec", [SEQUENCE, TABLE], ids=lambda spec: spec.kind)
def test_a_picture_is_for_images(tmp_path, spec) -> None:
    Image.new("L", (5, 6)).save(tmp_path / "x.png")
    assert f"cannot read {spec.kind} data" in refused(tmp_path / "x.png", spec).what


def test_images_of_another_scale_are_pointed_out(tmp_path) -> None:
    spec = make_spec("image", shape=(1, 2, 2), mean=(0.3,), std=(0.2,))
    np.save(tmp_path / "x.npy", np.full((2, 2, 2), 16, np.uint8))
    with pytest.warns(UserWarning, match="brightest value, 16"):
        read_input(tmp_path / "x.npy", spec)
    np.save(tmp_path / "x.npy", np.full((2, 2, 2), 200, np.uint8))
    read_input(tmp_path / "x.npy", spec)


@pytest.mark.parametrize("steps", [5, 2])
def test_sequences_with_their_channels_last(steps: int, tmp_path: Path) -> None:
    settings = {"source": {"channels": "last"}}
    spec = make_spec("sequence", (2, steps)).model_copy(update={"settings": settings})
    x = np.random.default_rng(0).normal(size=(4, steps, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    _, values = read_input(tmp_path / "x.npy", spec)
    np.testing.assert_array_equal(values, x.transpose(0, 2, 1))
