"""What holds for every augmentation and every choice in conf/augment."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from litlab.config.compose import compose
from litlab.config.instantiate import locate
from litlab.data.augment.base import Augmentation, needs_partners
from litlab.data.augment.crop import Crop
from litlab.data.augment.draws import Draws
from litlab.data.augment.flip import Flip
from litlab.data.augment.mixing import CutMix, Mixup
from litlab.data.augmentations import build_augmentations
from litlab.data.spec import DataSpec, Kind
from litlab.utils.errors import ConfigError
from made_augment import SIZES, samples, spec_of
from made_data import KINDS

ROOM = Path(__file__).parents[2] / "src" / "litlab" / "data" / "augment"
CONF = Path(__file__).parents[2] / "conf" / "augment"
EVERY = sorted(path.stem for path in CONF.glob("*.yaml"))
CHOICES = [choice for choice in EVERY if choice != "none"]
POLICIES = ["light", "standard", "trivial", "randaugment", "heavy"]


@cache
def nodes(choice: str) -> dict[str, dict[str, object]]:
    """What a choice composes to, read without Hydra: it is needed to collect these tests."""
    content = yaml.safe_load((CONF / f"{choice}.yaml").read_text()) or {}
    found: dict[str, dict[str, object]] = {}
    for name in content.pop("defaults", []):
        found |= nodes(name)
    return found | {name: {**found.get(name, {}), **given} for name, given in content.items()}


@pytest.mark.parametrize("choice", ["none", "digits", "heavy", "light"])
def test_choices_are_read_as_hydra_composes_them(choice):
    assert nodes(choice) == compose(["data=synthetic", f"augment={choice}"])["augment"]


def kinds_of(choice: str) -> set[Kind]:
    """The kinds of data that all parts of a choice are made for."""
    made_for = set(KINDS)
    for node in nodes(choice).values():
        made_for &= locate(node["_target_"], "augment", ()).kinds
    return made_for


def built(choice: str, spec: DataSpec) -> dict[str, Augmentation]:
    return dict(build_augmentations(nodes(choice), spec, []))


class Pipeline:
    """A choice with a batch of its kind: 64 samples, each with a partner where they are mixed."""

    def __init__(self, choice: str, kind: Kind, shape: tuple[int, ...] | None = None) -> None:
        spec = spec_of(kind, shape)
        self.modules = built(choice, spec)
        self.mixes = needs_partners(list(self.modules.values()))
        self.x, self.y = samples(spec), torch.arange(64) % 3
        self.partner = torch.arange(64).roll(7)

    def __call__(
        self, index: torch.Tensor, seed: int = 0, epoch: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment these samples, as the data module does."""
        rows = torch.cat([index, self.partner[index]]) if self.mixes else index
        x, y = self.x[rows], self.y[rows]
        for name, module in self.modules.items():
            x, y = module(x, y, Draws(seed, epoch, rows).stream(name))
        return x, y


CASES = [(choice, kind) for choice in CHOICES for kind in sorted(kinds_of(choice))]


@pytest.fixture
def pipeline(project, request) -> Pipeline:
    return Pipeline(*request.param)


every_choice = pytest.mark.parametrize(
    "pipeline", CASES, indirect=True, ids=["-".join(case) for case in CASES]
)


def test_the_policies_that_are_promised() -> None:
    assert set(POLICIES) <= set(EVERY)
    assert {"sequence_standard", "tabular_standard", "text_standard"} <= set(EVERY)


@every_choice
def test_shape_and_dtype_stay(pipeline) -> None:
    x, y = pipeline(torch.arange(64))
    assert x.shape == pipeline.x.shape
    assert x.dtype == pipeline.x.dtype
    assert x.is_floating_point() is False or x.isfinite().all()
    assert not torch.equal(x, pipeline.x)
    if pipeline.mixes:
        assert y.shape == (64, 3)
        assert torch.allclose(y.sum(1), torch.ones(64))
        assert (y >= 0).all()
    else:
        assert torch.equal(y, pipeline.y)


@every_choice
def test_a_sample_is_changed_by_its_key_alone(pipeline) -> None:
    """Whatever the order of the batch, and however it is cut: between processes, for instance."""
    everything = torch.arange(64)
    whole = pipeline(everything)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    parts = [pipeline(everything[:1]), pipeline(everything[1:20]), pipeline(everything[20:])]
    parts += [pipeline(everything[:0])]
    for place in (0, 1):
        close = {"rtol": 1e-5, "atol": 1e-6}  # vector instructions round with the batch's size
        torch.testing.assert_close(pipeline(order)[place], whole[place][order], **close)
        cut = torch.cat([part[place] for part in parts])
        torch.testing.assert_close(cut, whole[place], **close)


@every_choice
def test_epochs_and_seeds_differ_and_repeat(pipeline) -> None:
    everything = torch.arange(64)
    x, y = pipeline(everything)
    again = pipeline(everything)
    assert torch.equal(x, again[0])
    assert torch.equal(y, again[1])
    for key in ({"seed": 1}, {"epoch": 1}):
        assert not torch.equal(x, pipeline(everything, **key)[0])


@every_choice
def test_what_comes_in_stays_as_it_was(pipeline) -> None:
    before, generator = pipeline.x.clone(), torch.get_rng_state()
    kept = pipeline.x
    rows = torch.arange(64)
    if pipeline.mixes:
        rows = torch.cat([rows, pipeline.partner])
        kept = kept[rows]
    for name, module in pipeline.modules.items():
        given = kept.clone()
        module(given, pipeline.y[rows], Draws(0, 0, rows).stream(name))
        assert torch.equal(given, kept), name
    assert torch.equal(pipeline.x, before)
    assert torch.equal(torch.get_rng_state(), generator)


@every_choice
def test_equal_samples_are_changed_unequally(pipeline) -> None:
    if pipeline.mixes:
        pipeline.x[1:32] = pipeline.x[0]
        pipeline.x[32:] = pipeline.x[63]
        pipeline.partner = torch.arange(63, -1, -1)
    else:
        pipeline.x[:] = pipeline.x[samples_of_most_tokens(pipeline.x)]
    x, _ = pipeline(torch.arange(32))
    assert len(torch.unique((x - pipeline.x[:32]).flatten(1), dim=0)) > 1


def samples_of_most_tokens(x: torch.Tensor) -> int:
    return int((x != 0).flatten(1).sum(1).argmax())


@pytest.mark.parametrize("choice", [c for c in CHOICES if "image" in kinds_of(c)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(5, 7), (32, 32)])
def test_images_stay_in_their_range(project, choice, channels, size) -> None:
    x, _ = Pipeline(choice, "image", (channels, *size))(torch.arange(64))
    assert x.shape == (64, channels, *size)
    if choice != "noise":
        assert x.min() >= 0
        assert x.max() <= 1 + 1e-5


def image_classes() -> list[type[Augmentation]]:
    targets = {
        str(n["_target_"]) for c in CHOICES if "image" in kinds_of(c) for n in nodes(c).values()
    }
    return [locate(target, "augment", ()) for target in sorted(targets)]


@pytest.mark.parametrize("made", [c for c in image_classes() if c.on_bytes])
@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_are_changed_as_floats_are(made, channels) -> None:
    spec = spec_of("image", (channels, 12, 10))
    levels = (samples(spec, 128) * 255).round()
    y, draws = torch.arange(128) % 3, Draws(0, 0, torch.arange(64 if made.mixes else 128))
    module = made(spec)
    on_bytes, soft = module(levels.byte(), y, draws)
    on_floats, also_soft = module(levels / 255, y, Draws(0, 0, draws.index))
    assert on_bytes.dtype == torch.uint8
    assert torch.equal(soft, also_soft)
    # A second operation of RandAugment gets levels that were rounded after the first: half a level
    # may then be the step of an equalization.
    away = (on_bytes.float() - on_floats * 255).abs()
    if made.__name__ == "RandAugment":
        assert (away <= 1).float().mean() > 0.97
    else:
        assert away.max() <= 0.5 + 1e-3


@pytest.mark.parametrize("made", [c for c in image_classes() if c.on_bytes and not c.mixes])
def test_memory_formats_do_not_matter(made) -> None:
    spec = spec_of("image")
    x, y = samples(spec), torch.zeros(64)
    last = x.contiguous(memory_format=torch.channels_last)
    a, b = (made(spec)(given, y, Draws(0, 0, torch.arange(64)))[0] for given in (x, last))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_every_class_has_a_choice(project) -> None:
    """Every augmentation can be chosen in conf/."""
    targets = {str(node["_target_"]) for choice in CHOICES for node in nodes(choice).values()}
    modules = {target.split(".")[-2] for target in targets}
    helpers = {"base", "draws", "warp"}
    assert modules == {path.stem for path in ROOM.glob("*.py")} - {"__init__"} - helpers


TARGETS = sorted({str(n["_target_"]) for choice in CHOICES for n in nodes(choice).values()})


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.rpartition(".")[2])
@pytest.mark.parametrize("kind", KINDS)
def test_data_of_another_kind_are_refused_by_name(project, target, kind) -> None:
    made, spec = locate(target, "augment", ()), spec_of(kind)
    if kind in made.kinds:
        build_augmentations({"first": {"_target_": target}}, spec, [])
        return
    with pytest.raises(ConfigError, match=f"{made.__name__} is for") as caught:
        build_augmentations({"first": {"_target_": target}}, spec, [])
    assert "augment.first" in caught.value.where
    assert f"is {kind}" in caught.value.what


def test_partners_are_needed_by_what_mixes() -> None:
    spec = spec_of("image")
    assert not needs_partners([])
    assert not needs_partners([Crop(spec), Flip(spec)])
    assert needs_partners([Crop(spec), Mixup(spec)])
    assert not needs_partners([torch.nn.Identity()])  # a user's own module, that says nothing


def test_what_mixes_comes_once_and_last() -> None:
    spec = spec_of("image")
    with pytest.raises(ValueError, match="Mixup and CutMix both mix.*augment=mixup_cutmix"):
        needs_partners([Mixup(spec), CutMix(spec)])
    with pytest.raises(ValueError, match="Mixup mixes samples and comes before Crop; put it last"):
        needs_partners([Flip(spec), Mixup(spec), Crop(spec)])


def test_buffers_follow_the_batch(project) -> None:
    """No Trainer moves augmentations; `meta` stands in for a GPU."""
    for kind in KINDS:
        for choice in CHOICES:
            if kind not in kinds_of(choice):
                continue
            for module in built(choice, spec_of(kind, SIZES[kind])).values():
                module.follow(torch.device("meta"))
                assert {buffer.device.type for buffer in module.buffers()} <= {"meta"}


GUIDE = (ROOM.parents[3] / "docs" / "augmentation.md").read_text()


def test_the_guide_names_every_choice() -> None:
    named = set(re.findall(r"`(\w+)`", GUIDE))
    assert named >= set(EVERY)


def test_the_guides_own_augmentation() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.S)
    made: dict[str, type[Augmentation]] = {}
    exec(code, made)
    spec = spec_of("image")
    x = samples(spec)
    dark, _ = made["Darken"](spec)(x, torch.zeros(64), Draws(0, 0, torch.arange(64)))
    factor = dark / x
    assert torch.allclose(factor, factor[:, :1, :1, :1].expand_as(factor))
    assert 0.5 <= factor.min() < 0.55
    assert 0.95 < factor.max() <= 1
