"""One training batch before and after augmentation, as a picture, and the data's statistics."""

import warnings
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from litlab.config.schema import Config
from litlab.data.augmentations import build_augmentations
from litlab.data.datamodule import ArrayDataModule
from litlab.data.encode import decode
from litlab.data.leakage.report import GuardReport
from litlab.data.loading.preprocess import Key
from litlab.data.prepare.open import open_or_prepare
from litlab.data.prepare.source_files import require_file
from litlab.data.spec import DataSpec
from litlab.evaluation.describe import by_name, describe
from litlab.report.preview.batch import BatchStatistics, PreviewSamples, Range, Statistics
from litlab.report.preview.figure import draw, png, shown
from litlab.utils import seeding
from litlab.utils.errors import ConfigError, DataError, EnvironmentFault, LitlabError
from litlab.utils.paths import project_root
from litlab.utils.strict_json import write_json

EPOCH = 0


def preview(config: Config, out: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Draw what a run of this configuration would train on; return the picture's path too.

    Args:
        config: A checked configuration.
        out: The picture, a .png; statistics are written beside it as .json. If None,
            reports/preview-<data>.png: of that folder DVC keeps only the files that it names.

    Raises:
        ConfigError: The picture is not a .png file, or the augmentations do not fit the data.
        DataError: See `open_or_prepare`.
        EnvironmentFault: It cannot be written there.
    """
    out = out or project_root() / "reports" / f"preview-{config.data.name}.png"
    if out.suffix != ".png":
        raise ConfigError(f"'{out.name}' is not a .png file", "--out", "name a file.png")
    folder, spec = open_or_prepare(config.data, config.trust)
    augmentations = build_augmentations(config.augment, spec, config.trust)
    data = ArrayDataModule(folder, spec, config.loader, augmentations, seed=config.seed)
    data.open()
    try:
        return out, asdict(write_preview(data, out))
    except OSError as error:
        raise EnvironmentFault(
            f"cannot write there: {error.strerror}", str(out), "choose another --out"
        ) from None


def preview_of_run(data: ArrayDataModule, folder: Path) -> list[Path]:
    """Draw a preview into a run's folder and return its files; a failure does not end the run.

    Raises:
        LitlabError: What would end the run a moment later.
    """
    picture = folder / "preview.png"
    try:
        write_preview(data, picture)
    except LitlabError:
        raise
    except Exception as error:  # whatever a user's own augmentation may raise of its first samples
        warnings.warn(f"there is no preview of this run: {error}", stacklevel=2)
        return []
    return [picture, picture.with_suffix(".json")]


def write_preview(data: ArrayDataModule, picture: Path) -> Statistics:
    """Write the picture, and its statistics beside it as JSON; train and val are open.

    No generator of random numbers is moved, nor the augmentations: a run goes on as without it.
    """
    with seeding.kept():
        samples, batch = _look(data)
    spec = data.spec
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader()}
    statistics = Statistics(
        data=spec.name,
        kind=spec.kind,
        task=spec.task,
        shape=spec.shape,
        seed=data.seed,
        epoch=EPOCH,
        augment=tuple(data.augmentations),
        sizes=spec.sizes,
        splits={n: describe(loader.split, spec, loader.sampler) for n, loader in loaders.items()},
        batch=batch,
        guard=_guard(data.folder),
    )
    picture.parent.mkdir(parents=True, exist_ok=True)
    write_json(picture.with_suffix(".json"), asdict(statistics))
    picture.write_bytes(png(draw(spec, samples, statistics)))
    return statistics


@torch.no_grad()
def _look(data: ArrayDataModule) -> tuple[PreviewSamples, BatchStatistics]:
    """Take the first samples of the first batch, and do to them what the run will do."""
    loader, spec = data.train_dataloader(), data.spec
    x, y, index = next(iter(loader))
    size = len(index) // (2 if loader.partners else 1)
    number = min(size, shown(spec, bool(data.augmentations)))
    kept = torch.arange(number)
    if loader.partners:
        kept = torch.cat([kept, kept + size])
    x, y, index = x[kept], y[kept], index[kept]
    before = _as_stored(data, data.preprocess(x[:number].clone()))
    key = Key(data.seed, EPOCH, index)
    seen, new = data.preprocess.augmented(x, y.clone(), deepcopy(data.augmentations), key)
    after = _as_stored(data, seen)
    samples = _in_words(spec, before, after, y[:number], new, bool(data.augmentations))
    statistics = BatchStatistics(
        shown=number,
        size=size,
        changed=sum(map(_differ, before, after, y, new)),
        values=by_name(after.numpy(), spec),
        model_input=None if spec.kind == "text" else _range(seen),
    )
    return samples, statistics


def _as_stored(data: ArrayDataModule, x: torch.Tensor) -> torch.Tensor:
    """Undo the normalization."""
    if data.spec.kind == "text":
        return x
    return x / data.preprocess.inverse_std + data.preprocess.mean


def _in_words(
    spec: DataSpec,
    before: torch.Tensor,
    after: torch.Tensor,
    y: torch.Tensor,
    new: torch.Tensor,
    augmented: bool,
) -> PreviewSamples:
    if spec.kind in ("image", "sequence"):
        arrays = before.numpy(), after.numpy() if augmented else None
        return PreviewSamples(*arrays, decode.labels(spec, y), decode.labels(spec, new))
    words = decode.cells if spec.kind == "tabular" else decode.tokens
    lists = words(spec, before), words(spec, after) if augmented else None
    if spec.kind == "tabular":
        return PreviewSamples(*lists, decode.labels(spec, y), decode.labels(spec, new))
    joint = decode.joint(spec)
    if spec.task == "language_model":
        return PreviewSamples(*lists, targets=decode.tokens(spec, new), joint=joint)
    return PreviewSamples(*lists, decode.labels(spec, y), decode.labels(spec, new), joint=joint)


def _differ(x: torch.Tensor, new_x: torch.Tensor, y: torch.Tensor, new_y: torch.Tensor) -> bool:
    """Whether a sample was changed by more than rounding; a soft label is not a class."""
    if x.shape != new_x.shape or not torch.allclose(x.float(), new_x.float(), atol=1e-5):
        return True
    return y.shape == new_y.shape and not torch.equal(y, new_y)


def _range(x: torch.Tensor) -> Range:
    return Range(float(x.min()), float(x.mean()), float(x.max()))


def _guard(folder: Path) -> tuple[str, ...]:
    """What the leakage check said when the data were prepared; nothing if it was not asked then."""
    try:
        text = require_file(folder / "guard.json").read_text(encoding="utf-8")
        return tuple(GuardReport.model_validate_json(text).lines())
    except (DataError, OSError, ValidationError):
        return ()
