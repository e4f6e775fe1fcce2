"""What a checkpoint says of itself, so that it can be used alone: configuration, data, run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from litlab.config.hyperparameters import Index
from litlab.config.schema import Config
from litlab.config.validate import check_config
from litlab.data.spec import DataSpec
from litlab.runs.checkpoint.io import KEY, OTHER, SCHEMA, read
from litlab.runs.checkpoint.manifest import manifest
from litlab.utils.errors import CheckpointError, ConfigError
from litlab.utils.redact import redact, redact_spec


@dataclass(frozen=True)
class CheckpointMetadata:
    """The configuration, data and run that made a checkpoint."""

    config: Config
    spec: DataSpec
    run_id: str


def metadata_of(card: CheckpointMetadata, epoch: int, step: int, weights: Any) -> dict[str, Any]:
    """Return the card as plain values, and the manifest that goes into the file's comment.

    Args:
        card: The run's.
        epoch: What the weights are of, counted from 0.
        step: How many optimizer steps they have had.
        weights: By name.
    """
    return {
        "schema": SCHEMA,
        "config": redact(card.config.model_dump(mode="json")),
        "spec": redact_spec(card.spec.model_dump(mode="json")),
        "run_id": card.run_id,
        "epoch": epoch,
        "step": step,
        "manifest": manifest(card.config, card.spec, card.run_id, epoch, step, weights),
    }


def _plain(value: object) -> torch.Tensor:
    """Pass on an ordinary tensor of numbers in memory."""
    if not isinstance(value, torch.Tensor):
        raise ValueError("state_dict holds other things than tensors")
    odd = value.is_quantized or value.is_nested
    if odd or value.layout is not torch.strided or value.device.type != "cpu":
        raise ValueError("state_dict holds tensors that are no plain numbers")
    return value


Weight = Annotated[torch.Tensor, PlainValidator(_plain)]


class _Written(BaseModel):
    """A card and weights as they lie in a file."""

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

    card: CheckpointMetadata
    epoch: int
    weights: dict[str, torch.Tensor]


def load(path: Path, trust: Sequence[str] = ()) -> Loaded:
    """Read a checkpoint's card and weights; only tensors and plain values are accepted.

    Args:
        path: The file.
        trust: Packages whose classes the card may name besides litlab's. What the card itself says
            it trusts counts for nothing: it may come from a stranger.

    Raises:
        CheckpointError: It is missing, damaged, holds code, or is not one of litlab's.
    """
    return unpack(read(path), path, trust)


def unpack(content: Mapping[str, Any], path: Path, trust: Sequence[str] = ()) -> Loaded:
    """Check what was read from a checkpoint; see `load`."""
    card = content.get(KEY)
    if not isinstance(card, dict):
        raise CheckpointError("not a litlab checkpoint", str(path), "name one that litlab wrote")
    if card.get("schema") != SCHEMA:
        raise CheckpointError(
            f"written by checkpoint schema {card.get('schema')}, this is schema {SCHEMA}",
            str(path),
            "use the litlab version that wrote it",
        )
    try:
        written = _Written.model_validate({**card, "state_dict": content.get("state_dict")})
        trusted = {**written.config, "trust": list(trust)}
        config = check_config(trusted, origin=str(path), device=False)
        found = CheckpointMetadata(config, written.spec, written.run_id)
        return Loaded(found, written.epoch, written.state_dict)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))[:100]
        raise _misfit(f"{place}: {first['msg']}", path) from None
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise _misfit(f"{type(error).__name__}: {error}", path) from None
    except ConfigError as error:
        fix = error.fix
        if "outside the packages" in error.what:
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
