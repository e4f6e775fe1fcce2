import contextlib
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from litlab.data.inputs.images import (
    Form,
    Header,
    ImageFiles,
    count_conversions,
    decode,
    in_threads,
    read_header,
)
from litlab.data.inputs.read_input import read_input
from litlab.utils.errors import DataError
from made_data import make_spec

SIZES = [(40, 30), (30, 40), (64, 64), (7, 90), (33, 32)]  # height, width


def smooth(height: int, width: int, channels: int = 3) -> np.ndarray:
    """A picture without fine detail, on which ways of resizing agree."""
    y, x = np.mgrid[0:1:height*1j, 0:1:width*1j]  # fmt: skip
    planes = [128 + 100 * np.sin(3 * x + c) * np.cos(2 * y - c) for c in range(channels)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, **settings: object) -> Path:
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path, **settings)
    return path


def chunk(kind: bytes, content: bytes) -> bytes:
    ends = kind + content
    return struct.pack(">I", len(content)) + ends + struct.pack(">I", zlib.crc32(ends))


def png(
    pixels: np.ndarray, bits: int, colour: int, before: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG written by hand, for what Pillow does not write."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + before + data + after + chunk(b"IEND", b"")


# Size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("wanted", [(16, 16), (12, 20)])
def test_resizing_is_torchs_antialiased_interpolation(tmp_path, size, wanted) -> None:
    pixels = smooth(*size)
    path = save(tmp_path / "x.png", pixels)
    image, mode = decode(path, Form(3, *wanted, "resize"))
    batch = torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32))
    expected = torch.nn.functional.interpolate(batch, wanted, mode="bilinear", antialias=True)[0]
    assert mode == "RGB"
    assert image.shape == (3, *wanted)
    np.testing.assert_allclose(image, expected, atol=1.5)  # bytes between its two passes


@pytest.mark.parametrize("size", SIZES)
def test_cropping_scales_the_shorter_side_and_cuts_the_centre(tmp_path, size) -> None:
    """The two steps of Krizhevsky et al. 2012, §2, as torchvision's Resize and CenterCrop."""
    pixels, side = smooth(*size), 24
    image, _ = decode(save(tmp_path / "x.png", pixels), Form(3, side, side, "crop"))
    scale = side / min(size)
    height, width = (round(length * scale) for length in size)
    scaled = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    top, left = (height - side) // 2, (width - side) // 2
    expected = scaled[top : top + side, left : left + side].transpose(2, 0, 1)
    # The whole is scaled to full pixels, ours is not: up to a pixel apart.
    np.testing.assert_allclose(image, expected.astype(float), atol=12)
    assert np.abs(image - expected.astype(float)).mean() < 3


def test_cropping_keeps_shapes_where_resizing_squashes(tmp_path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    yy, xx = np.mgrid[:20, :60]
    pixels[(yy - 9.5) ** 2 + (xx - 29.5) ** 2 < 64] = 255  # a disc in the middle
    path = save(tmp_path / "x.png", pixels)
    for fit, ratio in (("crop", 1.0), ("resize", 1 / 3)):
        image, _ = decode(path, Form(1, 20, 20, fit))
        lit = image[0] > 127
        assert lit.any(0).sum() / lit.any(1).sum() == pytest.approx(ratio, abs=0.15)


def test_another_size_is_refused_without_a_fit(tmp_path) -> None:
    path = save(tmp_path / "x.png", smooth(4, 6))
    with pytest.raises(DataError, match="6x4 pixels, not 5x4") as caught:
        decode(path, Form(3, 4, 5))
    assert caught.value.where == str(path)


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(tmp_path, monkeypatch) -> None:
    path = save(tmp_path / "x.jpg", smooth(800, 1200), quality=95)
    seen = []
    convert = Image.Image.convert
    monkeypatch.setattr(
        Image.Image, "convert", lambda self, mode: seen.append(self.size) or convert(self, mode)
    )
    image, _ = decode(path, Form(3, 50, 50, "resize"))
    assert seen == [(150, 100)]  # an eighth, twice what is needed
    with Image.open(path) as whole:
        expected = np.asarray(whole.convert("RGB").resize((50, 50), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(image, expected.transpose(2, 0, 1).astype(float), atol=4)


# Orientation


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("number", range(1, 9))
def test_the_cameras_orientation_is_applied(tmp_path, suffix, number) -> None:
    """Each of the eight EXIF values, the upright picture being light above and left."""
    upright = np.full((24, 40, 1), 30, np.uint8)
    upright[:12, :20] = 220
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }[number]
    exif = Image.Exif()
    exif[0x0112] = number
    path = save(tmp_path / f"x{suffix}", np.ascontiguousarray(stored), exif=exif)
    header = read_header(path)
    assert (header.height, header.width) == (24, 40)
    image, _ = decode(path, Form(1, 24, 40))
    np.testing.assert_allclose(image[0], upright[..., 0].astype(float), atol=25)  # of JPEG, WebP


def test_orientation_behind_the_pixels(tmp_path) -> None:
    """A PNG's EXIF data may come last; then the header is wrong, and the decoder says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    behind = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    path = tmp_path / "x.png"
    path.write_bytes(png(np.zeros((4, 6)), 8, 0, after=behind))
    assert read_header(path) == Header("L", 4, 6)
    assert decode(path, Form(1, 6, 4))[0].shape == (1, 6, 4)
    with pytest.raises(DataError, match="4x6 pixels, not 6x4"):
        decode(path, Form(1, 4, 6))


def test_damaged_exif_data_do_not_damage_the_picture(tmp_path) -> None:
    pixels = smooth(8, 8, 1)
    path = tmp_path / "x.png"
    path.write_bytes(png(pixels, 8, 0, before=chunk(b"eXIf", b"not at all")))
    assert read_header(path) == Header("L", 8, 8)
    np.testing.assert_array_equal(decode(path, Form(1, 8, 8))[0][0], pixels[..., 0])


# Modes


def test_every_mode_becomes_grey_and_colour(tmp_path) -> None:
    pixels = smooth(6, 5)
    image = Image.fromarray(pixels)
    for mode, suffix in [
        ("1", "png"),
        ("L", "png"),
        ("LA", "png"),
        ("P", "png"),
        ("RGB", "png"),
        ("RGBA", "png"),
        ("CMYK", "jpg"),
        ("YCbCr", "tif"),
    ]:
        path = tmp_path / f"x.{suffix}"
        image.convert(mode).save(path)
        for channels, wanted in ((1, "L"), (3, "RGB")):
            found, stored = decode(path, Form(channels, 6, 5))
            with Image.open(path) as opened:
                expected = np.atleast_3d(np.asarray(opened.convert(wanted))).transpose(2, 0, 1)
            np.testing.assert_array_equal(found, expected)
            assert stored == mode == read_header(path).mode


def test_sixteen_bits_of_grey(tmp_path) -> None:
    values = np.array([[0, 128, 129, 257], [40000, 65407, 65408, 65535]], np.uint16)
    path = tmp_path / "x.png"
    Image.fromarray(values).save(path)
    image, mode = decode(path, Form(1, 2, 4))
    assert mode == "I;16"
    np.testing.assert_array_equal(image[0], np.rint(values / 257))
    colour, _ = decode(path, Form(3, 2, 4))
    np.testing.assert_array_equal(colour, np.repeat(image, 3, axis=0))


def test_sixteen_bits_of_colour_are_told_apart(tmp_path) -> None:
    values = (smooth(3, 4).astype(np.uint16) << 8) + 77
    path = tmp_path / "x.png"
    path.write_bytes(png(values, 16, 2))
    image, mode = decode(path, Form(3, 3, 4))
    assert mode == "RGB;16" == read_header(path).mode
    np.testing.assert_array_equal(image, smooth(3, 4).transpose(2, 0, 1))
    assert count_conversions(["RGB", mode], 3) == "images converted to RGB: 1 RGB;16"


def test_a_palette_with_transparent_entries(tmp_path) -> None:
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3), "P")
    image.putpalette(list(range(18)))
    image.save(tmp_path / "x.png", transparency=bytes([0, 128, 255]))
    found, mode = decode(tmp_path / "x.png", Form(3, 2, 3))  # and no warning of Pillow's
    assert mode == "P"
    np.testing.assert_array_equal(found.transpose(1, 2, 0).ravel(), np.arange(18))


def test_the_first_frame_of_an_animation(tmp_path) -> None:
    frames = [Image.new("L", (5, 4), shade) for shade in (10, 200)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    image, _ = decode(tmp_path / "x.gif", Form(1, 4, 5))
    assert (image == 10).all()


@given(st.lists(st.sampled_from(["L", "RGB", "RGBA", "CMYK"])), st.sampled_from([1, 3, 4]))
def test_conversions_are_counted(modes, channels) -> None:
    text = count_conversions(modes, channels)
    wanted = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    others = [mode for mode in modes if mode != wanted]
    assert bool(text) == bool(others)
    for mode in set(others):
        assert f"{others.count(mode)} {mode}" in text


# What cannot be read


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif", ".gif"])
def test_altered_pictures_are_refused_or_read_but_never_crash(tmp_path, suffix) -> None:
    rng = np.random.default_rng(0)
    path = save(tmp_path / f"x{suffix}", rng.integers(0, 256, (24, 24, 3)).astype(np.uint8))
    content = path.read_bytes()
    for number in range(60):
        altered = bytearray(content)
        for place in rng.integers(0, min(len(content), 400), 1 + number % 4):
            altered[place] ^= int(rng.integers(1, 256))
        path.write_bytes(altered)
        with contextlib.suppress(DataError):
            assert decode(path, Form(3, 24, 24, "resize"))[0].shape == (3, 24, 24)


@pytest.mark.parametrize("read", [read_header, lambda path: decode(path, Form(3, 4, 4))])
def test_what_is_no_picture(tmp_path, read) -> None:
    for name, content in {"empty.png": b"", "page.jpg": b"<html>" * 100, "x.webp": b"RIFF"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="not a readable image") as caught:
            read(tmp_path / name)
        assert caught.value.where.endswith(name)
        assert caught.value.exit_code == 3
    with pytest.raises(DataError, match="No such file"):
        read(tmp_path / "absent.png")


def test_a_decompression_bomb_is_refused_before_it_unfolds(tmp_path, monkeypatch) -> None:
    path = save(tmp_path / "x.png", np.zeros((100, 100, 1), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("it was decoded"))
    for read in (read_header, lambda path: decode(path, Form(3, 4, 4, "resize"))):
        with pytest.raises(DataError, match="decompression bomb") as caught:
            read(path)
        assert caught.value.where == str(path)


# By number


def test_files_by_number_are_what_each_decodes_to(tmp_path) -> None:
    names = [f"{number}.png" for number in range(9)]
    for number, name in enumerate(names):
        save(tmp_path / name, smooth(8 + number, 9))
    form = Form(3, 8, 8, "crop")
    files = ImageFiles(tmp_path, names, form)
    assert (len(files), files.shape, files.dtype) == (9, (9, 3, 8, 8), np.uint8)
    for rows in ([], [3], [8, 0, 0, 5], list(range(9))):
        chunk_ = files[np.array(rows, dtype=np.int64)]
        assert chunk_.shape == (len(rows), 3, 8, 8)
        for image, row in zip(chunk_, rows, strict=True):
            np.testing.assert_array_equal(image, decode(tmp_path / names[row], form)[0])


def test_the_first_bad_file_is_named_whichever_thread_meets_it(tmp_path) -> None:
    names = [f"{number}.png" for number in range(20)]
    for name in names:
        save(tmp_path / name, smooth(8, 8))
    for name in ("11.png", "4.png", "17.png"):
        (tmp_path / name).write_bytes(b"damaged")
    files = ImageFiles(tmp_path, names, Form(3, 8, 8))
    for _ in range(5):
        with pytest.raises(DataError) as caught:
            files[np.arange(20)]
        assert caught.value.where == str(tmp_path / "4.png")


def test_items_are_spread_over_threads_in_order(monkeypatch) -> None:
    monkeypatch.setattr("litlab.data.inputs.images.count_cores", lambda: 3)
    together = threading.Barrier(3, timeout=10)

    def wait(number: int) -> tuple[int, str]:
        together.wait()  # passes only with three at once
        return number, threading.current_thread().name

    done = in_threads(wait, range(9))
    assert [number for number, _ in done] == list(range(9))
    assert len({name for _, name in done}) == 3


# New images


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_new_images_are_brought_into_shape_as_the_training_images_were(tmp_path, fit) -> None:
    path = save(tmp_path / "x.png", smooth(30, 50))
    spec = make_spec("image", (3, 16, 12), image_fit=fit)
    for asked in (False, True):
        _, values = read_input(path, spec, resize=asked)
        np.testing.assert_array_equal(values[0], decode(path, Form(3, 16, 12, fit))[0])
