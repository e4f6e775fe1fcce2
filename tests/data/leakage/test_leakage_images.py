import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from leakage_helpers import look, of, stopping
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from litlab.data.leakage.images import Thumbnails

ROOT = Path(__file__).parents[3]
MNIST = ROOT.parent / "shared" / "data" / "mnist"


def tiles(side, number=300):
    """Pieces of two photographs, none overlapping another `(n, 3, side, side)`."""
    cut = [
        photo[y : y + side, x : x + side].transpose(2, 0, 1)
        for photo in load_sample_images().images
        for y in range(0, photo.shape[0] - side + 1, side)
        for x in range(0, photo.shape[1] - side + 1, side)
    ]
    cut = [tile for tile in cut if tile.mean(0).std() > 20]  # sky has nothing to recognize
    return np.stack(cut)[np.random.default_rng(0).permutation(len(cut))[:number]]


def shapes(number, side=28, seed=0):
    """Bright random blobs on black `(n, 1, side, side)`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    images = np.zeros((number, side, side))
    for _ in range(4):
        at, width = rng.uniform(0.2, 0.8, (2, number, 1, 1)), rng.uniform(0.05, 0.2, (number, 1, 1))
        images += np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / (2 * width**2))
    return (images / images.max((1, 2), keepdims=True) * 240).astype(np.uint8)[:, None]


def jpeg(image, quality):
    file = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    read = np.asarray(Image.open(file))
    return read[None] if len(image) == 1 else read.transpose(2, 0, 1)


def scaled(image, factor):
    return np.clip(image * factor + 0.5, 0, 255).astype(np.uint8)


def contrasted(image, factor):
    return np.clip((image - image.mean()) * factor + image.mean() + 0.5, 0, 255).astype(np.uint8)


def shifted(image, down, right):
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = image.shape[1:]
    return padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]


def resized(image, factor):
    pixels = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    small = (round(pixels.width * factor), round(pixels.height * factor))
    read = np.asarray(pixels.resize(small, 2).resize(pixels.size, 2))
    return read[None] if len(image) == 1 else read.transpose(2, 0, 1)


CHANGES = {
    "jpeg 90": lambda image: jpeg(image, 90),
    "jpeg 80": lambda image: jpeg(image, 80),
    "jpeg 70": lambda image: jpeg(image, 70),
    "brighter": lambda image: scaled(image, 1.1),
    "darker": lambda image: scaled(image, 0.9),
    "more contrast": lambda image: contrasted(image, 1.1),
    "less contrast": lambda image: contrasted(image, 0.9),
    "down": lambda image: shifted(image, 1, 0),
    "left": lambda image: shifted(image, 0, -1),
    "up and right": lambda image: shifted(image, -1, 1),
    "through 150 %": lambda image: resized(image, 1.5),
    "through 90 %": lambda image: resized(image, 0.9),
}
PICTURES = {"photographs of 48": lambda: tiles(48), "blobs of 28": lambda: shapes(300)}


@pytest.mark.parametrize("pictures", PICTURES)
@pytest.mark.parametrize("change", CHANGES)
def test_planted_leaks_are_found(pictures, change) -> None:
    x = PICTURES[pictures]()
    copies = np.stack([CHANGES[change](image) for image in x[:30]])
    report = look("image", np.concatenate([x, copies]), sizes=(len(x) - 10, 10, 30))
    (found,) = of(report, "near_duplicates")
    assert found.stops
    known = {(("train", i), ("test", len(x) + i)) for i in range(30)}
    assert set(found.pairs) <= known
    assert found.counts == {"train-test": found.count}
    # Texture that moves by half a thumbnail's pixel is not always recognized.
    assert found.count >= (20 if pictures == "photographs of 48" else 29)


CLEAN = {
    "photographs of 32": lambda: tiles(32, 600),
    "photographs of 48": lambda: tiles(48),
    "photographs of 64": lambda: tiles(64),
    "photographs of 100 x 60": lambda: tiles(100)[:, :, :60],
    "blobs of 28": lambda: shapes(3000),
    "noise": lambda: np.random.default_rng(0).integers(0, 256, (500, 3, 24, 24)).astype(np.uint8),
    "digits of 8": lambda: load_digits().images[:, None].astype(np.uint8),
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_pictures_raise_nothing(name) -> None:
    report = look("image", CLEAN[name]())
    assert not [f for f in report.findings if f.check in ("exact_duplicates", "near_duplicates")]
    report.refuse([])


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST's files are not there")
def test_mnist_raises_nothing() -> None:
    with gzip.open(MNIST / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    mixed = images[np.random.default_rng(0).permutation(len(images))]  # the last were worse written
    report = look("image", mixed, y=np.arange(len(images)) % 10)
    assert report.findings == ()
    assert "near_duplicates" in report.checked


def test_near_duplicates_within_a_split_are_told_and_do_not_stop() -> None:
    x = tiles(64)
    x[7] = jpeg(x[2], 85)
    report = look("image", x)
    (found,) = of(report, "near_duplicates")
    assert (found.stops, found.counts) == (False, {"train": 1})
    assert found.pairs == ((("train", 2), ("train", 7)),)
    assert "1 sample looking like a sample of the same split: 1 in train" in "".join(report.lines())
    report.refuse([])


def test_an_exact_copy_is_not_a_near_one_too() -> None:
    x, y = tiles(64), np.arange(300) % 3
    x, y = x[: len(x)], y[: len(x)]
    x[-1], y[-1] = x[2], y[2]
    report = look("image", x, y)
    assert {f.check for f in report.findings} == {"exact_duplicates"}


def test_small_images_are_only_compared_exactly() -> None:
    x = shapes(100, side=16)
    x[99] = scaled(x[3], 0.9)
    report = look("image", x)
    assert not stopping(report)
    assert "near_duplicates" not in report.checked
    assert report.lines()[-1] == (
        "leakage check: images of 16 x 16 are too small for the near-duplicate check"
        " (below 24 pixels a side)"
    )


def test_plain_images_are_counted_and_not_compared() -> None:
    x = shapes(100)
    x[:20] = np.arange(20)[:, None, None, None] * 10  # one grey each
    x[20:30] = np.linspace(50, 60, 28).astype(np.uint8)  # a slope
    x[20:30, :, 0, 0] += np.arange(10, dtype=np.uint8)[:, None]
    report = look("image", x, np.arange(100) % 7)
    assert not [f for f in report.findings if f.check == "near_duplicates"]
    assert "30 images with too little detail" in report.lines()[-1]


def test_thumbnails_are_pillows_and_stretched() -> None:
    images = tiles(64, 5)[:, :, :, [*range(64), *range(32)]]
    images[1] //= 8  # a dark one has as many grey levels
    images[2] = 7
    thumbnails = Thumbnails((3, 64, 96))
    thumbnails.add(images)
    for image, found in zip(images, thumbnails.whole(), strict=True):
        grey = Image.fromarray(image.mean(0, dtype=np.float32))
        small = np.asarray(grey.resize((32, 32), Image.Resampling.BILINEAR))
        for axis in (0, 1):
            blur = np.array([1, 2, 1]) / 4
            small = np.apply_along_axis(np.convolve, axis, small, blur, mode="valid")
        small = small - small.mean()
        gain = np.clip(127 / (np.abs(small).max() + 1), 0.5, 16)
        np.testing.assert_allclose(found, small * gain + 128, atol=0.6)
