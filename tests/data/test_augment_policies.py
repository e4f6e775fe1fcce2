"""TrivialAugment and RandAugment: their operations against Pillow's, image by image."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from litlab.data.augment import policies
from litlab.data.augment.policies import OPERATIONS, RandAugment, TrivialAugment
from made_augment import change, draws_of, spec_of

SIZE = (40, 36)


def pictures(channels: int, number: int = 12) -> torch.Tensor:
    """Smooth bytes with an edge, whose range and levels differ from one to the next."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[: SIZE[0], : SIZE[1]] / 10
    found = []
    for i in range(number):
        waves = [
            np.sin(row * rng.uniform(0.3, 2) + column * rng.uniform(0.3, 2) + rng.uniform(0, 6))
            for _ in range(channels)
        ]
        x = 128 + (30 + 7 * i) * np.stack(waves) + rng.normal(0, 6, (channels, *SIZE))
        x[:, 10:20, 5:30] += 40
        found.append(x.clip(0, 255))
    return torch.from_numpy(np.stack(found).round().astype(np.uint8))


def to_pillow(x: torch.Tensor) -> Image.Image:
    array = x.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if len(x) == 1 else array)


def from_pillow(image: Image.Image) -> torch.Tensor:
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def affine(image: Image.Image, a: float, b: float, c: float, d: float, e: float, f: float):
    """Pillow's map about the centre: it counts from the upper left corner."""
    width, height = image.size
    x, y = width / 2, height / 2
    moved = (a, b, c + x - a * x - b * y, d, e, f + y - d * x - e * y)
    return image.transform(image.size, Image.Transform.AFFINE, moved)


PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, _: image,
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "rotate": lambda image, v: image.rotate(v),
    "solarize": lambda image, v: ImageOps.solarize(image, v),
    "color": lambda image, v: ImageEnhance.Color(image).enhance(v),
    "posterize": lambda image, v: ImageOps.posterize(image, int(v)),
    "contrast": lambda image, v: ImageEnhance.Contrast(image).enhance(v),
    "brightness": lambda image, v: ImageEnhance.Brightness(image).enhance(v),
    "sharpness": lambda image, v: ImageEnhance.Sharpness(image).enhance(v),
    "shear_x": lambda image, v: affine(image, 1, v, 0, 0, 1, 0),
    "shear_y": lambda image, v: affine(image, 1, 0, 0, v, 1, 0),
    "translate_x": lambda image, v: affine(image, 1, 0, v, 0, 1, 0),
    "translate_y": lambda image, v: affine(image, 1, 0, 0, 0, 1, v),
}
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
AMOUNTS = {
    "rotate": (-135, -30.0, 0, 7.3, 90, 135),
    "solarize": (0, 64, 128, 200, 255, 256),
    "posterize": (2, 3, 4, 6, 7, 8),
    **dict.fromkeys(("shear_x", "shear_y"), (-0.99, -0.31, 0, 0.17, 0.5, 0.99)),
    **dict.fromkeys(("translate_x", "translate_y"), (-18, -7.3, 0, 1.2, 10, 32)),
    **dict.fromkeys(
        ("color", "contrast", "brightness", "sharpness"), (0.01, 0.5, 1, 1.3, 1.9, 1.99)
    ),
}


def test_the_papers_fourteen_operations() -> None:
    assert set(OPERATIONS) == set(PILLOW)
    assert len(OPERATIONS) == 14


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PILLOW)
def test_operations_against_pillow(name, channels) -> None:
    x = pictures(channels)
    amounts = torch.tensor(AMOUNTS.get(name, (0,) * 6) * 2, dtype=torch.float32)
    out = (OPERATIONS[name](x / 255, amounts) * 255).round()
    for image, amount, got in zip(x, amounts.tolist(), out, strict=True):
        expected = from_pillow(PILLOW[name](to_pillow(image), amount)).float()
        away = (got - expected).abs()
        if name in GEOMETRIC:  # a pixel half way between two may come from either
            assert (away > 0).float().mean() < 0.02, (name, amount)
        elif name in ("equalize", "posterize", "solarize", "identity"):
            assert away.max() == 0, (name, amount)
        else:  # Pillow cuts fractions of a level off, and takes the mean gray as a whole number
            assert away.max() <= 1.01, (name, amount)


@pytest.mark.parametrize("name", PILLOW)
def test_flat_and_tiny_images(name) -> None:
    for size in ((1, 1), (2, 2), (5, 1)):
        x = torch.full((3, 3, *size), 77 / 255)
        amount = torch.tensor({"posterize": 8.0, "solarize": 256.0}.get(name, 1.0)).expand(3)
        if name in GEOMETRIC:
            amount = torch.zeros(3)
        out = OPERATIONS[name](x, amount)
        torch.testing.assert_close(out, x, atol=1e-5, rtol=0)


def slow(x: torch.Tensor, choice, magnitude, sign, ranges: policies.Ranges) -> torch.Tensor:
    """Image by image, with Pillow."""
    found = []
    for image, k, m, s in zip(x, choice.tolist(), magnitude, sign, strict=True):
        name = policies.NAMES[k]
        amount = float(ranges.amount(name, m / 30, s.float()))
        found.append(from_pillow(PILLOW[name](to_pillow(image), amount)))
    return torch.stack(found)


def assert_alike(out: torch.Tensor, expected: torch.Tensor, least: float) -> None:
    close = ((out.int() - expected.int()).abs() <= 1).flatten(1).float().mean(1)
    assert close.median() == 1
    assert (close > least).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("wide", [True, False])
def test_trivial_augment_against_a_loop(channels, wide) -> None:
    x = pictures(channels, 200)
    augment = TrivialAugment(spec_of("image", (channels, *SIZE)), wide=wide)
    draws = draws_of(200)
    choice, magnitude = draws.integers(0, 14), draws.integers(0, 31)
    sign = draws.integers(0, 2) * 2 - 1
    assert set(choice.tolist()) == set(range(14))
    expected = slow(x, choice, magnitude, sign, augment.ranges)
    assert_alike(change(augment, x), expected, 0.95)  # see GEOMETRIC above


def test_rand_augment_against_a_loop() -> None:
    x = pictures(3, 100)
    augment = RandAugment(spec_of("image", (3, *SIZE)), num_ops=2, magnitude=12)
    draws = draws_of(100)
    choices, signs = draws.integers(0, 14, 2), draws.integers(0, 2, 2) * 2 - 1
    expected = x
    for i in (0, 1):
        magnitude = torch.full((100,), 12)
        expected = slow(expected, choices[:, i], magnitude, signs[:, i], augment.ranges)
    out = change(augment, x)
    close = ((out.int() - expected.int()).abs() <= 1).flatten(1).float().mean(1)
    # A level's rounding becomes more where an equalization or a solarization follows.
    assert (close > 0.97).float().mean() > 0.9
    assert close.median() > 0.995


@pytest.mark.parametrize(
    ("name", "least", "greatest"),
    [
        ("rotate", 0, 135),
        ("shear_x", 0, 0.99),
        ("translate_x", 0, 18),
        ("translate_y", 0, 20),
        ("posterize", 8, 2),
        ("solarize", 256, 0),
        ("brightness", 1, 1.99),
    ],
)
def test_the_wide_space(name, least, greatest) -> None:
    ranges = TrivialAugment(spec_of("image", (3, 40, 36))).ranges
    up, down = (
        ranges.amount(name, torch.tensor([0.0, 1.0]), torch.tensor(sign)) for sign in (1, -1)
    )
    assert up.tolist() == pytest.approx([least, greatest])
    if name == "brightness":
        assert down.tolist() == pytest.approx([1, 0.01])
    elif name in GEOMETRIC:
        assert torch.equal(down, -up)
    else:
        assert torch.equal(down, up)


def test_translation_in_large_images_is_the_papers() -> None:
    assert TrivialAugment(spec_of("image", (3, 224, 96))).ranges.pixels == (32, 32)
    narrow = TrivialAugment(spec_of("image", (3, 32, 64)), wide=False).ranges
    assert narrow.pixels == (20, 10)


def test_each_operation_and_strength_is_as_likely(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(policies, "apply", lambda x, *drawn: seen.append(drawn) or x)
    x, spec = torch.zeros(20_000, 1, 1, 1), spec_of("image", (1, 1, 1))
    change(TrivialAugment(spec), x)
    change(RandAugment(spec, num_ops=2, magnitude=5), x)
    trivial, first, second = seen
    for choice, _, sign, _ in seen:
        assert stats.chisquare(torch.bincount(choice, minlength=14).numpy()).pvalue > 1e-4
        assert abs(sign.float().mean()) < 0.03
    assert stats.chisquare(torch.bincount(trivial[1], minlength=31).numpy()).pvalue > 1e-4
    assert set(first[1].tolist()) == {5}
    both = torch.bincount(first[0] * 14 + second[0], minlength=196)
    assert stats.chisquare(both.numpy()).pvalue > 1e-4


def test_rand_augment_of_strength_nothing_repaints_only() -> None:
    """At 0 only autocontrast and equalize, which have no strength, change an image."""
    x = pictures(3, 100)
    augment = RandAugment(spec_of("image", (3, *SIZE)), num_ops=1, magnitude=0)
    choice = draws_of(100).integers(0, 14, 1)[:, 0]
    changed = (change(augment, x) != x).flatten(1).any(1)
    repainted = (choice == policies.NAMES.index("autocontrast")) | (
        choice == policies.NAMES.index("equalize")
    )
    assert not (changed & ~repainted).any()
    assert changed.sum() > repainted.sum() / 2  # an image of the whole range stays


def test_there_is_no_strength_beyond_thirty() -> None:
    with pytest.raises(ValueError, match="magnitude=31: must be at most 30"):
        RandAugment(spec_of("image"), magnitude=31)
