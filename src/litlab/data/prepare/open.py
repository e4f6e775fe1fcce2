"""Finds the prepared arrays that a configuration asks for."""

from pathlib import Path
from typing import Any

from litlab.config.schema import DataConfig
from litlab.data.prepare.prepare import prepare_alone
from litlab.data.prepare.source_files import alone, changed
from litlab.data.spec import FILE_NAME, DataSpec
from litlab.utils.errors import DataError
from litlab.utils.output import say
from litlab.utils.paths import PIPELINE, prepared_folder, seen_by_dvc
from litlab.utils.redact import redact


def open_or_prepare(
    config: DataConfig, trust: list[str], folder: Path | None = None
) -> tuple[Path, DataSpec]:
    """Return the folder and spec of the prepared data, preparing them where there are none yet.

    Args:
        config: The data.
        trust: Packages of the user's own that they may name.
        folder: Where the prepared data lie; if None, in data/prepared/<name>, or with the
            pipeline's where only the pipeline has prepared them.

    Raises:
        DataError: The folder holds data prepared with other settings, or from files that have
            changed since. They may be what another run, or the pipeline, still needs, so they are
            not overwritten. Or a given folder holds no prepared data.
    """
    if folder is None:
        folder = _find(config)
        if not (folder / FILE_NAME).is_file():
            with alone(folder):
                if not (folder / FILE_NAME).is_file():  # else another process was faster
                    say(f"preparing {config.name}")
                    return folder, prepare_alone(config, folder, trust)
    else:
        folder = folder.resolve()
    spec = DataSpec.load(folder)
    _require_same(spec, config, folder)
    file = changed(spec.source_files, folder.with_name(f".{folder.name}.seen.json"))
    if file:
        fix = "run `litlab prepare` with this run's overrides (or `dvc repro`)"
        if not seen_by_dvc(file):
            fix = "run `litlab prepare` with this run's overrides"
            fix += " (`dvc repro --force` in the pipeline: DVC watches data/raw alone)"
        raise DataError(f"changed since '{config.name}' was prepared from it", file, fix)
    return folder, spec


def _find(config: DataConfig) -> Path:
    """Return where the data lie, or are to be prepared.

    What the pipeline has prepared serves all: large data need not be there twice.
    """
    own, pipeline = prepared_folder(config.name), prepared_folder(PIPELINE)
    if not (own / FILE_NAME).is_file() and (pipeline / FILE_NAME).is_file():
        try:
            _require_same(DataSpec.load(pipeline), config, pipeline)
        except DataError:
            return own
        return pipeline
    return own


def _require_same(spec: DataSpec, config: DataConfig, folder: Path) -> None:
    # A password is not kept, and is not what the data are known by.
    # Whether open questions are refused changes nothing in what was prepared.
    given = config.model_dump(mode="json") | {"strict": spec.settings.get("strict")}
    had, asked = (_flat(redact(s)) for s in (spec.settings, given))
    differing = [key for key in {**asked, **had} if had.get(key) != asked.get(key)]
    if differing:
        key = differing[0]
        fix = "run `litlab prepare` with this run's overrides, or give it a data.name of its own"
        if folder.name == PIPELINE:
            fix = "run `dvc repro`, whose first stage prepares it again"
        raise DataError(
            f"prepared with data.{key}={had.get(key)}; this run asks for {asked.get(key)}",
            str(folder),
            fix,
        )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, object]:
    """Return nested settings by dotted name, so that a message can name the one that differs."""
    flat: dict[str, object] = {}
    for key, value in settings.items():
        name = prefix + key
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
