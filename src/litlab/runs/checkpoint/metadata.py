"""What a checkpoint says of itself, so that it can be used alone: configuration, data, run.

Its manifest is the short form, a member of the file's archive: hashes that tell what may continue
from it.
"""

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from litlab.config.hyperparameters import Index
from litlab.config.instantiate import UntrustedTarget
from litlab.config.schema import Config
from litlab.config.validate import check_config
from litlab.data.spec import DataSpec
from litlab.runs.checkpoint.changes import training_settings
from litlab.runs.checkpoint.io import KEY, OTHER, SCHEMA, Manifest, read, verify
from litlab.utils.errors import CheckpointError, ConfigError
from litlab.utils.files import dumps
from litlab.utils.paths import make_importable
from litlab.utils.redact import redact, redact_spec


@dataclass(frozen=True)
class CheckpointMetadata:
    """The configuration, data and run that made a checkpoint."""

    config: Config
    spec: DataSpec
    run_id: str

    def as_written(
        self, epoch: int, step: int, weights: Mapping[str, torch.Tensor]
    ) -> dict[str, Any]:
        """Return the metadata as plain values, with the manifest for the file's archive.

        Args:
            epoch: What the weights are of, counted from 0.
            step: How many optimizer steps they have had.
            weights: By name.
        """
        manifest = {
            "schema": SCHEMA,
            "run_id": self.run_id,
            "config": config_hash(self.config),
            "data": self.spec.checksum,
            "model": model_fingerprint(weights),
            "epoch": epoch,
            "step": step,
        }
        return {
            "schema": SCHEMA,
            "config": redact(self.config.model_dump(mode="json")),
            "spec": redact_spec(self.spec.model_dump(mode="json")),
            "run_id": self.run_id,
            "epoch": epoch,
            "step": step,
            "manifest": manifest,
        }


def config_hash(config: Config) -> str:
    """Return the SHA-256 of the settings that decide the numbers of a run."""
    content = training_settings(config.model_dump(mode="json"))
    return hashlib.sha256(dumps(content, sort_keys=True).encode()).hexdigest()


def code_hash(trust: Sequence[str] = ()) -> str:
    """Return the SHA-256 of litlab's source and of the user's own packages.

    Args:
        trust: Their names; one that is not found here is left out.
    """
    make_importable()
    total, places = hashlib.sha256(), [Path(__file__).parents[2]]
    for name in sorted({package.partition(".")[0] for package in trust}):
        found = importlib.util.find_spec(name)
        folders = found.submodule_search_locations if found else None
        if folders:
            places += [Path(folder) for folder in folders]
        elif found and found.origin:
            places.append(Path(found.origin))
    for place in places:
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            total.update(str(path.relative_to(place.parent)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def model_fingerprint(weights: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of the weights' names, shapes and types: the same for the same model."""
    lines = [f"{name} {tuple(value.shape)} {value.dtype}" for name, value in weights.items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def manifest_of(path: Path) -> Manifest:
    """Verify a checkpoint and return its manifest, with all its parts.

    Raises:
        CheckpointError: It is missing or damaged, or its manifest lacks something.
    """
    found = verify(path)
    texts = [isinstance(found.get(name), str) for name in ("run_id", "config", "data", "model")]
    counts = [type(found.get(name)) is int and found[name] >= 0 for name in ("epoch", "step")]
    if not all(texts + counts):
        raise CheckpointError("its manifest is incomplete", str(path), OTHER)
    return found


def _plain(value: object) -> torch.Tensor:
    """Pass on an ordinary tensor of numbers in memory."""
    if not isinstance(value, torch.Tensor):
        raise ValueError("state_dict holds values that are not tensors")
    odd = value.is_quantized or value.is_nested
    if odd or value.layout is not torch.strided or value.device.type != "cpu":
        raise ValueError("state_dict holds tensors that are not dense CPU tensors")
    return value


Weight = Annotated[torch.Tensor, PlainValidator(_plain)]


class _Written(BaseModel):
    """Metadata and weights as they lie in a file."""

    model_config = ConfigDict(arbitrary_types_allowed=True, strict=True)

    config: dict[str, Any]
    spec: Annotated[DataSpec, Field(strict=False)]
    run_id: Annotated[str, Field(pattern=r"^[\w-]*$", max_length=256)]
    epoch: Index
    step: Index
    state_dict: dict[str, Weight]


@dataclass(frozen=True)
class Loaded:
    """A checkpoint read from disk."""

    metadata: CheckpointMetadata
    epoch: int
    weights: dict[str, torch.Tensor]


def load(path: Path, trust: Sequence[str] = ()) -> Loaded:
    """Read a checkpoint's metadata and weights; only tensors and plain values are accepted.

    Args:
        path: The file.
        trust: Packages whose classes the metadata may name besides litlab's. What it says itself
            that it trusts counts for nothing: it may come from a stranger.

    Raises:
        CheckpointError: It is missing, damaged, holds code, or is not one of litlab's.
    """
    return unpack(read(path), path, trust)


def unpack(content: Mapping[str, Any], path: Path, trust: Sequence[str] = ()) -> Loaded:
    """Check what was read from a checkpoint; see `load`."""
    written = content.get(KEY)
    if not isinstance(written, dict):
        raise CheckpointError("not a litlab checkpoint", str(path), "name one that litlab wrote")
    if written.get("schema") != SCHEMA:
        raise CheckpointError(
            f"written by checkpoint schema {written.get('schema')}, this is schema {SCHEMA}",
            str(path),
            "use the litlab version that wrote it",
        )
    try:
        parts = _Written.model_validate({**written, "state_dict": content.get("state_dict")})
        trusted = {**parts.config, "trust": list(trust)}
        config = check_config(trusted, origin=str(path), device=False)
        found = CheckpointMetadata(config, parts.spec, parts.run_id)
        return Loaded(found, parts.epoch, parts.state_dict)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))[:100]
        raise _misfit(f"{place}: {first['msg']}", path) from None
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise _misfit(f"{type(error).__name__}: {error}", path) from None
    except ConfigError as error:
        fix, reasons = error.fix, getattr(error, "reasons", [error])
        if any(isinstance(reason, UntrustedTarget) for reason in reasons):
            fix = "pass --trust PACKAGE if the checkpoint names a package of yours"
        raise CheckpointError(error.what, f"{path}: {error.where}", fix) from None


def _misfit(reason: str, path: Path) -> CheckpointError:
    reason = " ".join(reason.split())[:200]
    return CheckpointError(f"its metadata do not match: {reason}", str(path), OTHER)


def load_weights(module: torch.nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Put a checkpoint's weights into a module.

    Raises:
        CheckpointError: Names or shapes differ: the checkpoint is of another model.
    """
    refuse_another_model(module.state_dict(), weights, path)
    module.load_state_dict(weights)


def refuse_another_model(
    own: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], path: Path
) -> None:
    """Compare names and shapes of a model's state and a checkpoint's.

    Raises:
        CheckpointError: They differ; five of the differences are shown.
    """
    wrong = [f"{name} missing" for name in own if name not in weights]
    wrong += [f"{name} unknown" for name in weights if name not in own]
    wrong += [
        f"{name}: {tuple(weights[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    wrong += [
        f"{name}: {weights[name].dtype} for {own[name].dtype}"
        for name in own
        if name in weights and weights[name].is_complex() != own[name].is_complex()
    ]
    if wrong:
        raise CheckpointError(
            f"of another model: {len(wrong)} entries differ: {', '.join(wrong[:5])}",
            str(path),
            "use the configuration it was trained with",
        )
