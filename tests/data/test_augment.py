import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from made_data import KINDS, SHAPES, make_spec
from torch.nn import functional as F

from litlab.assemble import build_augmentations
from litlab.config import compose
from litlab.data.augment.affine import Affine
from litlab.data.augment.base import Augmentation
from litlab.data.augment.crop import Crop
from litlab.data.augment.erasing import Erasing
from litlab.data.augment.flip import Flip
from litlab.data.augment.mixup import Mixup
from litlab.data.augment.noise import Noise
from litlab.data.augment.scale import Scale
from litlab.data.augment.shift import Shift
from litlab.data.spec import DataSpec, Kind
from litlab.errors import ConfigError
from litlab.targets import locate

REPOSITORY = Path(__file__).parents[2]
CHOICES = sorted(path.stem for path in (REPOSITORY / "conf" / "augment").glob("*.yaml"))
MODULES = sorted((REPOSITORY / "src" / "litlab" / "data" / "augment").glob("[!_]*.py"))
SIZES: dict[Kind, tuple[int, ...]] = SHAPES | {"image": (3, 32, 32)}


@cache
def nodes(choice: str) -> dict[str, dict[str, object]]:
    return compose(["data=synthetic", f"augment={choice}"])["augment"]


def kind_of(choice: str) -> Kind:
    """A kind of data that all parts of a choice are made for."""
    made_for = set(KINDS)
    for node in nodes(choice).values():
        made_for &= locate(node["_target_"], "augment", ()).kinds
    return min(made_for)


def make_batch(kind: Kind, shape: tuple[int, ...] | None = None, number: int = 64):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(number, *(shape or SIZES[kind]), generator=generator)
    return x, torch.arange(number) % 3


def change(augmentation: Augmentation, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return augmentation(x.clone(), torch.zeros(len(x), dtype=torch.long))[0]


def image_spec(*shape: int) -> DataSpec:
    return make_spec("image", shape)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_choice_keeps_shape_dtype_and_range(project, choice, channels) -> None:
    kind = kind_of(choice)
    shape = (channels, *SIZES[kind][1:])
    if kind == "tabular":
        shape = SIZES[kind]
    modules = build_augmentations(nodes(choice), make_spec(kind, shape), [])
    before, labels = make_batch(kind, shape)
    x, y = before.clone(), labels
    torch.manual_seed(0)
    for module in modules:
        x, y = module(x, y)
    assert x.shape == before.shape
    assert x.dtype == torch.float32
    assert x.isfinite().all()
    assert len(y) == len(labels)
    if y.is_floating_point():
        assert y.shape == (64, 3)
    else:
        assert torch.equal(y, labels)
    if choice != "none":
        assert not torch.equal(x, before)
    noisy = any("noise" in str(node["_target_"]) for node in nodes(choice).values())
    if kind == "image" and not noisy:
        assert x.min() >= 0
        assert x.max() <= 1 + 1e-5


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice != "none"])
def test_samples_differ_and_seeds_repeat(project, choice) -> None:
    kind = kind_of(choice)
    modules = build_augmentations(nodes(choice), make_spec(kind, SIZES[kind]), [])
    sample, labels = make_batch(kind)
    x = sample[:1].expand_as(sample).clone()  # the same sample, 64 times
    if "mixup" in choice:
        x = sample  # a sample mixed with itself stays what it is

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        out, y = x.clone(), labels
        for module in modules:
            out, y = module(out, y)
        return out

    out = run(0)
    assert torch.equal(out, run(0))
    assert not torch.equal(out, run(1))
    assert len(torch.unique((out - x).flatten(1), dim=0)) > 1


def test_every_module_has_a_choice(project) -> None:
    targets = {str(node["_target_"]) for choice in CHOICES for node in nodes(choice).values()}
    modules = {target.split(".")[-2] for target in targets if target.startswith("litlab.")}
    assert modules == {path.stem for path in MODULES} - {"base"}


@pytest.mark.parametrize("padding", [1, 4, 9])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 9)])
def test_crop_is_a_slice_of_each_padded_image(padding, shape) -> None:
    x, _ = make_batch("image", shape, 16)
    out = change(Crop(image_spec(*shape), padding=padding), x, seed=5)
    wide = np.pad(x.numpy(), [(0, 0), (0, 0), (padding,) * 2, (padding,) * 2])
    places = list(itertools.product(range(2 * padding + 1), repeat=2))
    found = []
    for image, got in zip(wide, out.numpy(), strict=True):
        slices = (image[:, t : t + shape[1], le : le + shape[2]] for t, le in places)
        found.append([place for place, s in zip(places, slices, strict=True) if (s == got).all()])
    assert all(found)
    assert len({place[0] for place in found}) > 1


def test_crop_reaches_every_place() -> None:
    x = torch.zeros(600, 1, 5, 5)
    x[:, :, 2, 2] = 1
    out = change(Crop(image_spec(1, 5, 5), padding=2), x)
    assert {tuple(place) for place in out.nonzero()[:, 2:].tolist()} == {
        (row, column) for row in range(5) for column in range(5)
    }


@pytest.mark.parametrize("steps", [1, 4, 30])
def test_shift_is_a_roll_of_each_sequence(steps) -> None:
    x, _ = make_batch("sequence", (2, 11), 32)
    by = torch.randint(
        -steps, steps + 1, (32, 1, 1), generator=torch.Generator().manual_seed(3)
    ).flatten()
    wrapped = change(Shift(make_spec("sequence"), steps=steps), x, seed=3)
    cut = change(Shift(make_spec("sequence"), steps=steps, wrap=False), x, seed=3)
    for sample, amount, rolled, shifted in zip(x.numpy(), by.tolist(), wrapped, cut, strict=True):
        expected = np.roll(sample, amount, axis=1)
        np.testing.assert_array_equal(rolled, expected)
        if amount >= 0:
            expected[:, :amount] = 0
        else:
            expected[:, amount:] = 0
        np.testing.assert_array_equal(shifted, expected)
    assert {-1, 1} <= set(by.sign().tolist())


@pytest.mark.parametrize("kind", ["image", "sequence", "tabular"])
def test_mixup_mixes_labels_as_it_mixes_inputs(kind) -> None:
    """The inputs carry the one-hot labels, so that both must stay equal."""
    y = torch.arange(64) % 3
    one_hot = F.one_hot(y, 3).float()
    tail = {"image": (1, 1), "sequence": (1,), "tabular": ()}[kind]
    x = one_hot.reshape(64, 3, *tail)
    torch.manual_seed(0)
    mixed, soft = Mixup(make_spec(kind, (3, *tail)), alpha=1.0)(x, y)
    assert torch.allclose(mixed.flatten(1), soft)
    assert torch.allclose(soft.sum(1), torch.ones(64))
    assert ((soft > 0.05) & (soft < 0.95)).any()
    assert (soft >= 0).all()


def test_mixup_against_a_loop() -> None:
    x, y = make_batch("tabular")
    spec = make_spec("tabular")
    torch.manual_seed(1)
    mixed, soft = Mixup(spec, alpha=0.4)(x, y)
    torch.manual_seed(1)
    weights = torch.distributions.Beta(torch.full((64,), 0.4), torch.full((64,), 0.4)).sample()
    partners = torch.randperm(64)
    for i, (weight, partner) in enumerate(zip(weights.tolist(), partners.tolist(), strict=True)):
        expected = np.zeros(3)
        expected[y[i]] += weight
        expected[y[partner]] += 1 - weight
        np.testing.assert_allclose(soft[i], expected, atol=1e-6)
        combined = weight * x[i].numpy() + (1 - weight) * x[partner].numpy()
        np.testing.assert_allclose(mixed[i], combined, atol=1e-6)


def test_mixup_of_regression_targets() -> None:
    x = torch.rand(32, 2)
    spec = make_spec("tabular", (2,), classes=(), targets=("u", "v"), task="regression")
    mixed, y = Mixup(spec, alpha=1.0)(x, x.clone())
    assert torch.allclose(mixed, y)
    assert not torch.equal(mixed, x)


def test_flips_at_both_ends_of_p() -> None:
    x, _ = make_batch("image", (3, 4, 5))
    spec = image_spec(3, 4, 5)
    assert torch.equal(change(Flip(spec, horizontal=0, vertical=0), x), x)
    assert torch.equal(change(Flip(spec, horizontal=1, vertical=0), x), x.flip(3))
    assert torch.equal(change(Flip(spec, horizontal=0, vertical=1), x), x.flip(2))
    assert torch.equal(change(Flip(spec, horizontal=1, vertical=1), x), x.flip(2, 3))


def test_half_of_the_images_are_flipped() -> None:
    x, _ = make_batch("image", (1, 4, 5), 400)
    out = change(Flip(image_spec(1, 4, 5), horizontal=0.5), x)
    same = (out == x).flatten(1).all(1)
    mirrored = (out == x.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 150 < same.sum() < 250  # five standard deviations


def test_an_affine_map_of_nothing_is_the_identity() -> None:
    x, _ = make_batch("image", (1, 8, 9))
    still = Affine(image_spec(1, 8, 9), degrees=0, translate=0, scale=0, shear=0)
    assert torch.allclose(change(still, x), x, atol=1e-5)


def test_no_image_moves_at_p_zero() -> None:
    x, _ = make_batch("image", (1, 8, 8))
    assert torch.equal(change(Affine(image_spec(1, 8, 8), p=0), x), x)


def centre_and_spread(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre of mass `(B, 2)` and covariance `(B, 2, 2)` of images `(B, 1, H, W)`."""
    height, width = x.shape[2:]
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    mass = x / x.sum((2, 3), keepdim=True)
    centre = (mass * grid).sum((2, 3))
    away = grid - centre[:, :, None, None]
    return centre, torch.einsum("bhw,bihw,bjhw->bij", mass[:, 0], away, away)


def bar() -> torch.Tensor:
    x = torch.zeros(200, 1, 41, 41)
    x[:, :, 18:23, 10:31] = 1
    return x


def test_affine_turns_by_at_most_its_degrees() -> None:
    turn = Affine(image_spec(1, 41, 41), degrees=20, translate=0, scale=0)
    centre, spread = centre_and_spread(change(turn, bar()))
    assert torch.allclose(centre, torch.full_like(centre, 20), atol=0.1)
    angle = 0.5 * torch.atan2(2 * spread[:, 0, 1], spread[:, 1, 1] - spread[:, 0, 0])
    degrees = angle.rad2deg()
    assert degrees.abs().max() < 20.5
    assert degrees.min() < -15
    assert degrees.max() > 15


def test_affine_moves_by_at_most_its_share() -> None:
    move = Affine(image_spec(1, 41, 41), degrees=0, translate=0.1, scale=0)
    centre, _ = centre_and_spread(change(move, bar()))
    moved = (centre - 20).abs()
    assert moved.max() <= 4.2
    assert (moved.amax(0) > 3).all()


def test_affine_scales_within_its_bounds() -> None:
    zoom = Affine(image_spec(1, 41, 41), degrees=0, translate=0, scale=0.2)
    size = change(zoom, bar()).sum((1, 2, 3)) / bar()[0].sum()
    assert 0.8**2 - 0.05 < size.min() < 0.8
    assert 1.2 < size.max() < 1.2**2 + 0.05


@pytest.mark.parametrize("channels", [1, 3])
def test_erasing_takes_a_rectangle_of_the_given_area(channels) -> None:
    x = torch.ones(200, channels, 40, 40)
    out = change(Erasing(image_spec(channels, 40, 40), p=1, area=(0.1, 0.2)), x)
    for image in out:
        gone = (image == 0).all(0)
        assert torch.equal(gone, (image == 0).any(0))  # in all channels alike
        assert torch.equal(~gone, (image == 1).all(0))
        rows, columns = gone.any(1), gone.any(0)
        assert torch.equal(gone, rows[:, None] & columns)  # a rectangle
        # Sides are rounded to pixels and cut off at the image's.
        assert gone.float().mean() < 0.22
    assert 0.1 < (out == 0).float().mean() < 0.2


def test_erasing_hits_its_share_of_images() -> None:
    x = torch.ones(400, 1, 16, 16)
    out = change(Erasing(image_spec(1, 16, 16), p=0.25), x)
    assert 60 < (out == 0).flatten(1).any(1).sum() < 140
    assert torch.equal(change(Erasing(image_spec(1, 16, 16), p=0), x), x)


def test_erasing_refuses_an_area_upside_down() -> None:
    with pytest.raises(ValueError, match="smaller share comes first"):
        Erasing(image_spec(1, 8, 8), area=(0.3, 0.1))


@pytest.mark.parametrize("kind", ["image", "sequence", "tabular"])
def test_noise_is_in_units_of_the_train_deviation(kind) -> None:
    shape = {"image": (2, 9, 9), "sequence": (2, 81), "tabular": (2,)}[kind]
    spec = make_spec(kind, shape)
    x = torch.zeros(4000 if kind == "tabular" else 60, *shape)
    out = change(Noise(spec, std=0.2), x)
    for channel, deviation in enumerate(spec.std):
        assert out[:, channel].std() == pytest.approx(0.2 * deviation, rel=0.06)
        assert out[:, channel].mean().abs() < 0.02 * deviation
    assert torch.equal(change(Noise(spec, std=0), x), x)


def test_scale_multiplies_each_sequence_by_one_factor() -> None:
    x, _ = make_batch("sequence", (2, 7), 500)
    factors = change(Scale(make_spec("sequence"), amount=0.3), x + 1) / (x + 1)
    assert torch.allclose(factors, factors[:, :1, :1].expand_as(factors))
    assert 0.7 <= factors.min() < 0.75
    assert 1.25 < factors.max() <= 1.3 + 1e-6


@pytest.mark.parametrize("path", [p for p in MODULES if p.stem != "base"], ids=lambda p: p.stem)
@pytest.mark.parametrize("kind", KINDS)
def test_data_of_another_kind_are_refused_by_name(path, kind) -> None:
    target = f"litlab.data.augment.{path.stem}.{path.stem.capitalize()}"
    made_for = locate(target, "augment", ()).kinds
    spec = make_spec(kind)
    if kind in made_for:
        build_augmentations({"first": {"_target_": target}}, spec, [])
        return
    with pytest.raises(ConfigError, match=f"{path.stem.capitalize()} is for") as caught:
        build_augmentations({"first": {"_target_": target}}, spec, [])
    assert "augment.first" in caught.value.where
    assert f"is {kind}" in caught.value.what
