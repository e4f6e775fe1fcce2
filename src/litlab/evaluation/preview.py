"""One training batch before and after augmentation, as a picture, and the data's statistics.

The statistics are of a bounded sample: quick for data of any size.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from litlab.config.schema import Config
from litlab.data.augmentations import build_augmentations
from litlab.data.datamodule import ArrayDataModule
from litlab.data.encode import decode
from litlab.data.encode.decode import token_names
from litlab.data.leakage import report
from litlab.data.loading import Key, Preprocess, Split, padding_share
from litlab.data.prepare.open import open_or_prepare
from litlab.data.prepare.source_files import require_file
from litlab.data.spec import Array, DataSpec
from litlab.report.preview import (
    BatchStatistics,
    Histogram,
    Lengths,
    PreviewSamples,
    Range,
    SplitStatistics,
    Statistics,
    draw,
    png,
    shown,
)
from litlab.utils import seeding
from litlab.utils.errors import ConfigError, DataError, EnvironmentFault, LitlabError
from litlab.utils.files import write_json
from litlab.utils.paths import project_root

SAMPLES = 1000
VALUES = 2**21  # numbers looked at
TOKENS = 2**20
BATCHES = 500  # whose padding is counted
FREQUENT = 100  # tokens
BINS = 30
EPOCH = 0
COLOURS = {1: ("grey",), 3: ("red", "green", "blue")}


def describe(split: Split, spec: DataSpec, batches: Iterable[torch.Tensor]) -> SplitStatistics:
    """Return the statistics of an opened split.

    Args:
        split: Train or validation.
        spec: The data.
        batches: Sample numbers of an epoch's batches, for the share of padding.
    """
    if spec.task == "language_model":
        number = min(len(split.x), TOKENS)
        return SplitStatistics(len(split), number, tokens=_frequent(split.x[:number], spec))
    classes, targets, histogram, lengths = {}, {}, None, None
    if spec.task == "regression":
        y = split.y.numpy()
        targets = dict(zip(spec.targets, ranges(y), strict=True))
        histogram = _histogram(y[:, 0])
    elif spec.task == "multi_label":
        counts = split.y.sum(0, dtype=torch.int64).tolist()
        classes = dict(zip(spec.classes, counts, strict=True))
    else:
        counts = torch.bincount(split.y, minlength=len(spec.classes)).tolist()
        classes = dict(zip(spec.classes, counts, strict=True))
    if split.lengths is not None:
        lengths = _lengths(split.lengths, spec.shape[0], batches)
        return SplitStatistics(len(split), len(split), classes, targets, histogram, lengths=lengths)
    number = min(len(split), SAMPLES, max(1, VALUES // math.prod(spec.shape)))
    rows = torch.linspace(0, len(split) - 1, number, dtype=torch.float64).long()
    x = Preprocess(spec).to_float(split.take(rows)[0])
    return SplitStatistics(
        len(split), number, classes, targets, histogram, values=by_name(x.numpy(), spec)
    )


def by_name(x: Array, spec: DataSpec) -> dict[str, Range]:
    """Return the ranges of samples `(n, C or F, ...)` by channel or numeric column."""
    if spec.kind == "text":
        return {}
    tabular = spec.kind == "tabular"
    number = spec.num_numeric if tabular else spec.shape[0]
    names = spec.feature_names if tabular else tuple(f"channel {i}" for i in range(number))
    if spec.kind == "sequence" and number == 1:
        names = ("value",)
    if spec.kind == "image":
        names = COLOURS.get(number, names)
    return dict(zip(names[:number], ranges(x[:, :number]), strict=True))


def ranges(x: Array) -> list[Range]:
    """Return the range of each column of `(n, F, ...)`."""
    moved = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
    low, mean, high = moved.min(1), moved.mean(1, dtype=np.float64), moved.max(1)
    return [Range(*map(float, three)) for three in zip(low, mean, high, strict=True)]


def _frequent(ids: torch.Tensor, spec: DataSpec) -> dict[str, int]:
    counts = torch.bincount(ids)
    number, found = counts.topk(min(FREQUENT, int((counts > 0).sum())))
    names = token_names(spec, found.numpy())
    frequent: Counter[str] = Counter()
    for i, n in zip(found.tolist(), number.tolist(), strict=True):
        frequent[names[i]] += n  # two parts of a character may both be written as "�"
    return dict(frequent)


def _lengths(lengths: torch.Tensor, limit: int, batches: Iterable[torch.Tensor]) -> Lengths:
    values = lengths.numpy()
    median, p95 = np.percentile(values, [50, 95])
    return Lengths(
        minimum=int(values.min()),
        median=float(median),
        p95=float(p95),
        maximum=int(values.max()),
        at_limit=int((values >= limit).sum()),
        padding=padding_share(lengths, islice(batches, BATCHES)),
        histogram=_histogram(values),
    )


def _histogram(values: Array) -> Histogram:
    """Count values in bins of equal width; those of whole numbers are whole numbers wide."""
    low, high = float(values.min()), float(values.max())
    bins = int(np.clip(2 * len(values) ** (1 / 3), 5, BINS))  # Rice's rule, within reason
    if values.dtype.kind in "iu":
        step = max(1, math.ceil((high - low + 1) / bins))
        edges = np.arange(low, high + 1 + step, step) - 0.5
    elif low < high:
        edges = np.linspace(low, high, bins + 1)
    else:
        edges = np.array([low - 0.5, low + 0.5])
    counts, _ = np.histogram(values, edges)
    return Histogram(edges.tolist(), counts.tolist())


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

    No generator of random numbers is moved, nor the augmentations: a run continues as without it.
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
        leakage=_leakage(data.folder),
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
    def content(x: torch.Tensor) -> Any:
        if spec.kind == "text":
            return decode.tokens(spec, x)
        if spec.kind == "tabular":
            return decode.cells(spec, x)
        return decode.pixels(spec, x.numpy()) if spec.kind == "image" else x.numpy()

    arrays = content(before), content(after) if augmented else None
    joint = decode.joint(spec) if spec.kind == "text" else ""
    if spec.task == "language_model":
        return PreviewSamples(*arrays, targets=decode.tokens(spec, new), joint=joint)
    return PreviewSamples(*arrays, decode.labels(spec, y), decode.labels(spec, new), joint=joint)


def _differ(x: torch.Tensor, new_x: torch.Tensor, y: torch.Tensor, new_y: torch.Tensor) -> bool:
    """Whether a sample was changed by more than rounding; a soft label is not a class."""
    if x.shape != new_x.shape or not torch.allclose(x.float(), new_x.float(), atol=1e-5):
        return True
    return y.shape == new_y.shape and not torch.equal(y, new_y)


def _range(x: torch.Tensor) -> Range:
    return Range(float(x.min()), float(x.mean()), float(x.max()))


def _leakage(folder: Path) -> tuple[str, ...]:
    """What the leakage check said when the data were prepared; nothing if there is no report."""
    names = (report.FILE_NAME, *report.OLD_NAMES)
    file = next((folder / name for name in names if (folder / name).exists()), folder / names[0])
    try:
        text = require_file(file).read_text(encoding="utf-8")
        return tuple(report.LeakageReport.model_validate_json(text).lines())
    except (DataError, OSError, ValidationError):
        return ()
