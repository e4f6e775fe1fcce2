"""Crop, flip, erasing, affine and noise, each against a loop over the images."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from litlab.data.augment.affine import Affine
from litlab.data.augment.base import inside
from litlab.data.augment.crop import Crop
from litlab.data.augment.erasing import Erasing
from litlab.data.augment.flip import Flip
from litlab.data.augment.noise import Noise
from made_augment import change, draws_of, samples, spec_of


def images(*shape: int, number: int = 64) -> torch.Tensor:
    return samples(spec_of("image", shape), number)


@pytest.mark.parametrize("reflect", [False, True])
@pytest.mark.parametrize("padding", [1, 4, 5])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 9)])
def test_crop_against_slices_of_padded_images(padding, shape, reflect) -> None:
    x = images(*shape)
    out = change(Crop(spec_of("image", shape), padding=padding, reflect=reflect), x)
    pads = [(0, 0), (0, 0), (padding,) * 2, (padding,) * 2]
    wide = np.pad(x.numpy(), pads, mode="reflect" if reflect else "constant")
    places = draws_of().integers(0, 2 * padding + 1, 2).tolist()
    for image, (top, left), got in zip(wide, places, out.numpy(), strict=True):
        slice_ = image[:, top : top + shape[1], left : left + shape[2]]
        np.testing.assert_array_equal(got, slice_)


def test_crop_reaches_every_place_evenly() -> None:
    x = torch.zeros(5000, 1, 5, 5)
    x[:, :, 2, 2] = 1
    out = change(Crop(spec_of("image", (1, 5, 5)), padding=2), x)
    assert (out.sum((1, 2, 3)) == 1).all()
    assert stats.chisquare(out.sum((0, 1)).flatten().numpy()).pvalue > 1e-4


def test_crop_refuses_to_mirror_more_than_there_is() -> None:
    spec = spec_of("image", (1, 4, 9))
    Crop(spec, padding=3, reflect=True)
    Crop(spec, padding=4)
    with pytest.raises(ValueError, match="padding=4 is too large.*at most 3, or reflect=false"):
        Crop(spec, padding=4, reflect=True)


def test_flips_at_both_ends_of_p() -> None:
    x, spec = images(3, 4, 5), spec_of("image", (3, 4, 5))
    assert torch.equal(change(Flip(spec, horizontal=0, vertical=0), x), x)
    assert torch.equal(change(Flip(spec, horizontal=1, vertical=0), x), x.flip(3))
    assert torch.equal(change(Flip(spec, horizontal=0, vertical=1), x), x.flip(2))
    assert torch.equal(change(Flip(spec, horizontal=1, vertical=1), x), x.flip(2, 3))


@pytest.mark.parametrize(("horizontal", "vertical"), [(0.5, 0.0), (0.3, 0.2)])
def test_flips_are_as_frequent_as_asked_and_independent(horizontal, vertical) -> None:
    x = images(1, 4, 5, number=4000)
    flip = Flip(spec_of("image", (1, 4, 5)), horizontal=horizontal, vertical=vertical)
    out = change(flip, x)
    ways = {(False, False): x, (True, False): x.flip(3)}
    ways |= {(False, True): x.flip(2), (True, True): x.flip(2, 3)}
    found = {way: (out == flipped).flatten(1).all(1) for way, flipped in ways.items()}
    assert (sum(f.int() for f in found.values()) == 1).all()
    for (across, down), hits in found.items():
        p = (horizontal if across else 1 - horizontal) * (vertical if down else 1 - vertical)
        assert hits.float().mean() == pytest.approx(p, abs=4 * (p * (1 - p) / 4000) ** 0.5)


def test_flips_that_alternate() -> None:
    """In epoch 0 a coin each; then each image is the other way round in every next epoch."""
    x, flip = images(1, 4, 5, number=1000), Flip(spec_of("image", (1, 4, 5)), alternate=True)
    first = (change(flip, x, epoch=0) != x).flatten(1).any(1)
    assert 430 < first.sum() < 570
    for epoch in range(6):
        flipped = first ^ bool(epoch % 2)
        expected = torch.where(flipped[:, None, None, None], x.flip(3), x)
        assert torch.equal(change(flip, x, epoch=epoch), expected)
    other = (change(flip, x, seed=1) != x).flatten(1).any(1)
    assert 400 < (other ^ first).sum() < 600  # another seed, another coin


def test_flips_that_alternate_do_so_in_half_of_the_epochs() -> None:
    with pytest.raises(ValueError, match="set horizontal=0.5, or alternate=false"):
        Flip(spec_of("image"), horizontal=0.3, alternate=True)


def test_alternating_flips_may_also_be_turned() -> None:
    x, flip = images(1, 4, 5), Flip(spec_of("image", (1, 4, 5)), alternate=True, vertical=1)
    both = {epoch: change(flip, x, epoch=epoch) for epoch in (0, 1)}
    assert torch.equal(both[0], both[1].flip(3))


def test_erasing_against_a_loop() -> None:
    x = images(3, 16, 21, number=200) + 0.1
    out = change(Erasing(spec_of("image", (3, 16, 21)), p=0.5, area=(0.05, 0.4)), x)
    draws = draws_of(200)
    hit, numbers = draws.bernoulli(0.5), draws.uniform(4)
    for image, erased, (size, shape, top, left), got in zip(x, hit, numbers, out, strict=True):
        expected = image.clone()
        if erased:
            area, ratio = (0.05 + 0.35 * size) * 16 * 21, 0.3 ** (1 - 2 * shape)
            height = int((area * ratio).sqrt().round().clamp(max=16))
            width = int((area / ratio).sqrt().round().clamp(max=21))
            row, column = int(top * (16 - height + 1)), int(left * (21 - width + 1))
            expected[:, row : row + height, column : column + width] = 0
        assert torch.equal(got, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_erasing_takes_a_rectangle_of_the_given_area(channels) -> None:
    x = torch.ones(500, channels, 40, 40)
    out = change(Erasing(spec_of("image", (channels, 40, 40)), p=1, area=(0.1, 0.2)), x)
    gone = (out == 0).all(1)
    assert torch.equal(gone, (out == 0).any(1))  # in all channels alike
    rows, columns = gone.any(2), gone.any(1)
    assert torch.equal(gone, rows[:, :, None] & columns[:, None])
    share, ratio = gone.float().mean((1, 2)), rows.sum(1) / columns.sum(1)
    assert 0.09 < share.min() < 0.11  # sides are whole pixels
    assert 0.19 < share.max() < 0.21
    assert 0.29 < ratio.min() < 0.4
    assert 2.5 < ratio.max() < 3.7
    assert ratio.log().mean().abs() < 4 * ratio.log().std() / 500**0.5
    for sides in (rows, columns):
        assert sides[:, 0].any()
        assert sides[:, -1].any()


def test_erasing_at_both_ends() -> None:
    x, spec = torch.ones(800, 1, 16, 16), spec_of("image", (1, 16, 16))
    hits = (change(Erasing(spec, p=0.25), x) == 0).flatten(1).any(1).float().mean()
    assert hits == pytest.approx(0.25, abs=0.06)
    assert torch.equal(change(Erasing(spec, p=0), x), x)
    assert torch.equal(change(Erasing(spec, p=1, area=(0, 0)), x), x)
    assert (change(Erasing(spec, p=1, area=(1, 1)), x).mean((1, 2, 3)) < 0.5).all()


def test_erasing_refuses_an_area_upside_down() -> None:
    with pytest.raises(ValueError, match="smaller share comes first"):
        Erasing(spec_of("image", (1, 8, 8)), area=(0.3, 0.1))


@pytest.mark.parametrize("number", [0, 1, 3, 7])
def test_spans_start_anywhere_evenly(number) -> None:
    at = (torch.arange(7000) + 0.5) / 7000
    spans = inside(torch.full((7000,), number), at, 7)
    assert (spans.sum(1) == number).all()
    assert ((spans[:, 1:] & ~spans[:, :-1]).sum(1) + spans[:, 0] == (number > 0)).all()
    starts = torch.bincount(spans.int().argmax(1), minlength=7)
    if number:
        assert (starts[: 8 - number] == 7000 / (8 - number)).all() or number == 3
        assert starts[8 - number :].sum() == 0


def test_spans_at_the_end_of_the_interval_stay_inside() -> None:
    at = torch.full((2,), 1 - 2**-24)
    spans = inside(torch.tensor([1, 5]), at, 2**20, torch.tensor([2**20, 3]))
    assert spans[0].nonzero().tolist() == [[2**20 - 1]]
    assert spans[1].nonzero().flatten().tolist() == [0, 1, 2]


def test_affine_against_scipy() -> None:
    """Bilinear, zero outside; scipy counts (row, column) from the first pixel's centre."""
    height, width = 15, 18
    spec = spec_of("image", (1, height, width))
    x = images(1, height, width)
    settings = {"degrees": 40.0, "translate": 0.2, "scale": 0.3, "shear": 25.0}
    out = change(Affine(spec, **settings), x)
    draws = draws_of()
    draws.bernoulli(1)
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    for image, numbers, got in zip(x, draws.uniform(5, low=-1, high=1), out, strict=True):
        turn, right, down, size, lean = numbers.double().tolist()
        angle, lean = np.deg2rad(turn * 40), np.tan(np.deg2rad(lean * 25))
        # First sheared, then turned and scaled, then moved, in (column, row).
        shear = np.array([[1, lean], [0, 1]])
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        inverse = np.linalg.inv((1 + 0.3 * size) * rotation @ shear)[::-1, ::-1]
        moved = np.array([down * 0.2 * height, right * 0.2 * width])
        expected = ndimage.affine_transform(
            image[0].double().numpy(),
            inverse,
            offset=centre - inverse @ (centre + moved),
            order=1,
            mode="grid-constant",
        )
        np.testing.assert_allclose(got[0], expected, atol=1e-4)


def test_an_affine_map_of_nothing_is_the_identity() -> None:
    x = images(1, 8, 9)
    still = Affine(spec_of("image", (1, 8, 9)), degrees=0, translate=0, scale=0, shear=0)
    assert torch.allclose(change(still, x), x, atol=1e-5)


def test_affine_moves_its_share_of_images() -> None:
    x, spec = images(1, 8, 8, number=1000), spec_of("image", (1, 8, 8))
    assert torch.equal(change(Affine(spec, p=0), x), x)
    moved = (change(Affine(spec, p=0.3), x) != x).flatten(1).any(1).float().mean()
    assert moved == pytest.approx(0.3, abs=0.06)


def test_affine_refuses_what_leaves_no_image() -> None:
    for settings in ({"scale": 1.0}, {"shear": 90.0}):
        with pytest.raises(ValueError, match="keep scale below 1, shear below 90"):
            Affine(spec_of("image"), **settings)


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
    turn = Affine(spec_of("image", (1, 41, 41)), degrees=20, translate=0, scale=0)
    centre, spread = centre_and_spread(change(turn, bar()))
    assert torch.allclose(centre, torch.full_like(centre, 20), atol=0.1)
    angle = 0.5 * torch.atan2(2 * spread[:, 0, 1], spread[:, 1, 1] - spread[:, 0, 0])
    degrees = angle.rad2deg()
    assert degrees.abs().max() < 20.5
    assert degrees.min() < -15
    assert degrees.max() > 15


def test_affine_moves_by_at_most_its_share() -> None:
    move = Affine(spec_of("image", (1, 41, 41)), degrees=0, translate=0.1, scale=0)
    centre, _ = centre_and_spread(change(move, bar()))
    moved = (centre - 20).abs()
    assert moved.max() <= 4.2
    assert (moved.amax(0) > 3).all()


def test_affine_scales_within_its_bounds() -> None:
    zoom = Affine(spec_of("image", (1, 41, 41)), degrees=0, translate=0, scale=0.2)
    size = change(zoom, bar()).sum((1, 2, 3)) / bar()[0].sum()
    assert 0.8**2 - 0.05 < size.min() < 0.8
    assert 1.2 < size.max() < 1.2**2 + 0.05


@pytest.mark.parametrize("kind", ["image", "sequence", "tabular"])
def test_noise_is_in_units_of_the_train_deviation(kind) -> None:
    shape = {"image": (2, 9, 9), "sequence": (2, 81), "tabular": (2,)}[kind]
    spec = spec_of(kind, shape)
    x = torch.zeros(4000 if kind == "tabular" else 60, *shape)
    out = change(Noise(spec, std=0.2), x)
    for channel, deviation in enumerate(spec.std):
        noise = out[:, channel].flatten().numpy() / (0.2 * deviation)
        assert stats.kstest(noise, "norm").pvalue > 1e-4
    assert torch.equal(change(Noise(spec, std=0), x), x)


def test_noise_leaves_codes_alone() -> None:
    spec = spec_of("tabular")
    x = samples(spec)
    out = change(Noise(spec), x)
    assert torch.equal(out[:, 4:], x[:, 4:])
    assert (out[:, :4] != x[:, :4]).all()


def test_crops_of_a_pixel_and_more() -> None:
    """The smallest images there can be."""
    for height, width in itertools.product((1, 2), repeat=2):
        x, spec = images(1, height, width), spec_of("image", (1, height, width))
        assert change(Crop(spec, padding=1), x).shape == x.shape
        assert change(Erasing(spec, p=1), x).shape == x.shape
        assert change(Flip(spec), x).shape == x.shape
