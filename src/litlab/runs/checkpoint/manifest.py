"""What a checkpoint is of, in a few words and hashes: enough to know what may go on from it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from litlab.config.schema import Config
from litlab.data.spec import DataSpec
from litlab.runs.checkpoint.changes import training_settings
from litlab.runs.checkpoint.io import OTHER, SCHEMA, Manifest, verify
from litlab.utils.errors import CheckpointError
from litlab.utils.strict_json import dumps


def config_hash(config: Config) -> str:
    """Return the SHA-256 of the settings that decide the numbers of a run."""
    content = training_settings(config.model_dump(mode="json"))
    return hashlib.sha256(dumps(content, sort_keys=True).encode()).hexdigest()


def code_hash() -> str:
    """Return the SHA-256 of litlab's own source."""
    total, root = hashlib.sha256(), Path(__file__).parents[2]
    for path in sorted(root.rglob("*.py")):
        total.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def model_fingerprint(weights: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of the weights' names, shapes and types: the same for the same model."""
    lines = [f"{name} {tuple(value.shape)} {value.dtype}" for name, value in weights.items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def manifest(
    config: Config, spec: DataSpec, run_id: str, epoch: int, step: int, weights: Any
) -> dict[str, Any]:
    """Return the manifest of a checkpoint, as plain values."""
    return {
        "schema": SCHEMA,
        "run_id": run_id,
        "config": config_hash(config),
        "data": spec.checksum,
        "model": model_fingerprint(weights),
        "epoch": epoch,
        "step": step,
    }


def manifest_of(path: Path) -> Manifest:
    """Verify a checkpoint and return its manifest, with all that `manifest` puts in.

    Raises:
        CheckpointError: It is missing or damaged, or its manifest lacks something.
    """
    found = verify(path)
    texts = [isinstance(found.get(name), str) for name in ("run_id", "config", "data", "model")]
    counts = [type(found.get(name)) is int and found[name] >= 0 for name in ("epoch", "step")]
    if not all(texts + counts):
        raise CheckpointError("its manifest lacks parts", str(path), OTHER)
    return found
