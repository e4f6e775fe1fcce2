"""Begins with the weights of another run, as far as they fit."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from litlab.data.spec import DataSpec
from litlab.runs.checkpoint.metadata import load
from litlab.runs.folder import find
from litlab.utils.errors import CheckpointError
from litlab.utils.files import write_json
from litlab.utils.paths import short

REPORT = "init_from.json"
MODEL = "model."  # what a task calls its network
SHOWN = 4  # names in one line


@dataclass(frozen=True)
class WarmStart:
    """What became of the entries (parameters and buffers) of two networks.

    Attributes:
        source: The checkpoint.
        run_id: The run it is of.
        taken: Names of the entries that were taken over.
        reinitialized: Names whose shapes differ, with the checkpoint's and the model's.
        missing: Names that the checkpoint lacks; they stay as they were initialized.
        unused: Names that the model lacks.
        notes: What is taken over but may mean something else here.
    """

    source: str
    run_id: str
    taken: list[str]
    reinitialized: dict[str, str]
    missing: list[str]
    unused: list[str]
    notes: list[str]

    def frozen(self, names: set[str]) -> "WarmStart":
        """Add what of the frozen parameters nobody ever trained."""
        anew = [name for name in (*self.reinitialized, *self.missing) if name in names]
        if not anew:
            return self
        more = f", ... ({len(anew)})" if len(anew) > SHOWN else ""
        note = f"frozen, but newly initialized: {', '.join(anew[:SHOWN])}{more}"
        return replace(self, notes=[*self.notes, note])

    def save(self, folder: Path) -> Path:
        """Write it into a run's folder, and return the file."""
        path = folder / REPORT
        write_json(path, asdict(self))
        return path

    def __str__(self) -> str:
        total = len(self.taken) + len(self.reinitialized) + len(self.missing)
        lines = [f"weights of {self.source}: {len(self.taken)} of {total} entries taken"]
        shapes = [f"{name} {shapes}" for name, shapes in self.reinitialized.items()]
        for what, names in (
            ("other shape, so newly initialized", shapes),
            ("not in it, so newly initialized", self.missing),
            ("in it, but not in this model", self.unused),
        ):
            if names:
                more = f", ... ({len(names)})" if len(names) > SHOWN else ""
                lines.append(f"  {what}: {', '.join(names[:SHOWN])}{more}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def init_from(
    model: nn.Module, spec: DataSpec, reference: str, trust: Sequence[str] = ()
) -> WarmStart:
    """Put another run's weights into a model, entry by entry, and say what became of them.

    An entry is taken if name and shape are the same. A head for other classes thus keeps its fresh
    weights, if their number differs.

    Args:
        model: Just built.
        spec: The data it is for.
        reference: A run or a checkpoint, as for `litlab evaluate`.
        trust: Packages whose classes the checkpoint may name.

    Raises:
        CheckpointError: There is no such run, its checkpoint is damaged, or nothing fits.
    """
    path = find(reference).checkpoint
    loaded = load(path, trust)
    theirs = {k.removeprefix(MODEL): v for k, v in loaded.weights.items() if k.startswith(MODEL)}
    own = model.state_dict()
    fits = {k: v for k, v in theirs.items() if k in own and v.shape == own[k].shape}
    if not fits.keys() & dict(model.named_parameters(remove_duplicate=False)).keys():
        raise CheckpointError(
            f"none of its weights fits this model: {_first_misfits(theirs, own)}",
            f"init_from={reference}",
            "name a run of the same kind of model, with the same sizes",
        )
    model.load_state_dict(fits, strict=False)
    other = {k: f"{_shape(v)} for {_shape(own[k])}" for k, v in theirs.items() if k in own}
    return WarmStart(
        source=short(path),
        run_id=loaded.metadata.run_id,
        taken=list(fits),
        reinitialized={k: shapes for k, shapes in other.items() if k not in fits},
        missing=[k for k in own if k not in theirs],
        unused=[k for k in theirs if k not in own],
        notes=_notes(loaded.metadata.spec, spec),
    )


def _notes(theirs: DataSpec, own: DataSpec) -> list[str]:
    notes = []
    if len(theirs.classes) == len(own.classes) and theirs.classes != own.classes:
        notes.append("the classes or their order differ; the head belongs to the old ones")
    if theirs.vocab_size == own.vocab_size and theirs.vocabulary != own.vocabulary:
        notes.append("the vocabulary differs; the embeddings belong to the old tokens")
    if _same_source(theirs, own) and theirs.split_hash != own.split_hash:
        notes.append(
            "the same data with another split: these weights were trained on samples that are now"
            " in validation or test, whose scores will be too good"
        )
    return notes


def _same_source(theirs: DataSpec, own: DataSpec) -> bool:
    pairs = [(s.source, s.settings.get("source"), s.source_files) for s in (theirs, own)]
    return pairs[0] == pairs[1] and sum(theirs.sizes.values()) == sum(own.sizes.values())


def _first_misfits(theirs: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> str:
    """Say why, by at most three names."""
    shapes = [f"{k} {_shape(theirs[k])} for {_shape(v)}" for k, v in own.items() if k in theirs]
    return ", ".join(shapes[:3]) or f"it has {_some(theirs)}, this one {_some(own)}"


def _some(names: Mapping[str, torch.Tensor]) -> str:
    return ", ".join(list(names)[:3]) + (", ..." if len(names) > 3 else "")


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
