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
        again = f"prepare them again: {' '.join(('litlab prepare', *config._overrides))}"
        fix = f"{again}, or dvc repro"
        if not seen_by_dvc(file):
            fix = f"{again} (`dvc repro --force` in the pipeline: DVC watches data/raw alone)"
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
    # Whether open questions are refused changes nothing in what was prepared, and data that were
    # prepared before copies could be dropped have none, or their settings allow them.
    unchanged = {"strict": spec.settings.get("strict")}
    unchanged |= {} if "duplicates" in spec.settings else {"duplicates": None}
    given = config.model_dump(mode="json") | unchanged
    had, asked = (_flat(redact(s)) for s in (spec.settings, given))
    differing = [key for key in {**asked, **had} if had.get(key) != asked.get(key)]
    if differing:
        key = differing[0]
        again = " ".join(("litlab prepare", *config._overrides))
        fix = f"replace them: {again} (runs trained on them can then not be evaluated); "
        fix += f"or keep both: add data.name={config.name}-2"
        if folder.name == PIPELINE:
            fix = "run `dvc repro`, whose first stage prepares it again"
        raise DataError(
            f"prepared with {_typed(key, had)}; this run asks for {_typed(key, asked)}",
            str(folder),
            fix,
        )


def _typed(key: str, settings: dict[str, object]) -> str:
    """Return a setting as it is typed."""
    value = settings.get(key)
    if isinstance(value, list):
        return f"data.{key}=[{','.join(map(str, value))}]"
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else value
    return f"data.{key}={text}"


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, object]:
    """Return nested settings by dotted name, so that a message can name the one that differs."""
    flat: dict[str, object] = {}
    for key, value in settings.items():
        name = prefix + key
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
