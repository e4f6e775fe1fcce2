from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litlab.config.schema import DataConfig
from litlab.data.prepare.prepare import prepare
from litlab.data.raw import Raw
from litlab.data.spec import DataSpec, Kind

SHAPES: dict[Kind, tuple[int, ...]] = {
    "image": (1, 6, 5),
    "sequence": (2, 7),
    "tabular": (4,),
    "text": (8,),
}
KINDS = tuple(SHAPES)
VOCABULARY = ("<pad>", "a", "good", "bad", "film", "é")


def make_raw(
    kind: Kind = "tabular",
    number: int = 60,
    *,
    classes: int = 3,
    targets: int = 0,
    shape: tuple[int, ...] | None = None,
    **more: Any,
) -> Raw:
    """Random data; `targets` of them make it a regression."""
    rng = np.random.default_rng(number)
    size = (number, *(shape or SHAPES[kind]))
    if kind == "image":
        x = rng.integers(0, 256, size).astype(np.uint8)
    elif kind == "text":
        x = rng.integers(0, len(VOCABULARY), size)
    else:
        x = rng.normal(3, 2, size).astype(np.float32)
    y = rng.normal(size=(number, targets)) if targets else np.arange(number) % classes
    settings: dict[str, Any] = {
        "kind": kind,
        "task": "regression" if targets else "classification",
        "parts": {"all": (x, y)},
        "licence": "CC0",
        "origin": "made here",
        "classes": [] if targets else [f"class {i}" for i in range(classes)],
        "targets": [f"target {i}" for i in range(targets)],
        "features": [f"f{i}" for i in range(size[1])] if kind == "tabular" else [],
        "vocabulary": VOCABULARY if kind == "text" else (),
        "pad_id": 0 if kind == "text" else None,
    }
    return Raw(**settings | more)


def make_config(**settings: Any) -> DataConfig:
    return DataConfig.model_validate(
        {
            "name": "made",
            "source": {"_target_": "litlab.made.Made"},
            "val_fraction": 0.2,
            "test_fraction": 0.2,
            "split_seed": 0,
            "stratify": True,
        }
        | settings
    )


def prepare_raw(
    raw: object, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> DataSpec:
    """Prepare data as if a source had read them."""

    class Made:
        def read(self) -> object:
            return raw

    monkeypatch.setattr("litlab.data.prepare.prepare.build", lambda *_, **__: Made())
    regression = getattr(raw, "task", None) == "regression"
    return prepare(make_config(**{"stratify": not regression} | settings), folder)


def make_spec(kind: Kind = "image", shape: tuple[int, ...] | None = None, **more: Any) -> DataSpec:
    shape = shape or SHAPES[kind]
    channels = 0 if kind == "text" else shape[0]
    settings: dict[str, Any] = {
        "name": "made",
        "source": "litlab.made.Made",
        "kind": kind,
        "task": "classification",
        "shape": shape,
        "dtype": {"image": "uint8", "text": "int32"}.get(kind, "float32"),
        "classes": ("x", "y", "z"),
        "features": tuple(f"f{i}" for i in range(shape[0])) if kind == "tabular" else (),
        "mean": tuple(0.1 * (i + 1) for i in range(channels)),
        "std": tuple(0.5 + i for i in range(channels)),
        "vocabulary": VOCABULARY if kind == "text" else (),
        "vocab_size": len(VOCABULARY) if kind == "text" else None,
        "pad_id": 0 if kind == "text" else None,
        "sizes": {"train": 8, "val": 4, "test": 4},
        "licence": "CC0",
        "origin": "made here",
    }
    return DataSpec(**settings | more)
