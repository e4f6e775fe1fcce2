"""What a checkpoint is of, in a few words and hashes: enough to know what may go on from it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from litlab.checkpoint.io import SCHEMA
from litlab.data.spec import DataSpec
from litlab.schema import Config
from litlab.strict_json import dumps

# What does not change the numbers of a run. Where it runs does not either: a batch is shared out.
FREE = ("name", "plot", "trust", "tracking")
FREE_OF_TRAINER = (
    *("progress", "profiler", "detect_anomaly", "save_every_seconds", "save_every_steps"),
    *("devices", "num_nodes", "strategy"),
)


def training_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that decides the numbers of a run."""
    kept = {key: value for key, value in config.items() if key not in FREE}
    trainer = {k: v for k, v in kept["trainer"].items() if k not in FREE_OF_TRAINER}
    for name in ("lr_find", "batch_size_find"):
        if trainer.get(name) != "use":  # a suggestion changes nothing
            trainer.pop(name, None)
    # What is found when a run begins differs from what was asked for, and is gone on with.
    if trainer.get("lr_find") == "use":
        kept["optimizer"] = {k: v for k, v in kept["optimizer"].items() if k != "lr"}
    if trainer.get("batch_size_find") == "use":
        kept["loader"] = {k: v for k, v in kept["loader"].items() if k != "batch_size"}
    return {**kept, "trainer": trainer}


def config_hash(config: Config) -> str:
    """Return the SHA-256 of the settings that decide the numbers of a run."""
    content = training_settings(config.model_dump(mode="json"))
    return hashlib.sha256(dumps(content, sort_keys=True).encode()).hexdigest()


def code_hash() -> str:
    """Return the SHA-256 of litlab's own source."""
    total, root = hashlib.sha256(), Path(__file__).parents[1]
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
