"""Files -> data sets of the library `datasets`: Arrow files, read by row number."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litlab.data.prepare.source_files import cannot_write
from litlab.data.sources.hub_card import Chosen
from litlab.data.sources.hub_fetch import DatasetFiles
from litlab.utils.errors import ConfigError, DataError, nearest

VAL_NAMES = ("validation", "valid", "val", "dev")
TEST_NAMES = ("test",)


def load(found: DatasetFiles, scratch: Path) -> dict[str, Any]:
    """Return a data set's splits by name; what has to be converted is put into `scratch`.

    Raises:
        DataError: The library cannot read it, or not from a path like this.
        EnvironmentFault: The disk is full.
    """
    import datasets

    saved = [found.path / name for name in ("dataset_dict.json", "state.json")]
    is_saved = any(file.is_file() for file in saved)
    chosen = found.chosen
    if chosen != Chosen() and (is_saved or found.path.is_file()):
        warnings.warn(f"data.source.config is ignored: {found.origin} has no folders", stacklevel=3)
    special = sorted(set("[]*?") & set(str(found.path.resolve())))
    if special and not is_saved:
        what = f"`datasets` reads {' '.join(special)} in a path as a pattern"
        raise DataError(what, str(found.path), "rename it")
    try:
        if is_saved:
            loaded = datasets.load_from_disk(str(found.path))
        elif found.path.is_file():
            loaded = datasets.load_dataset(
                str(found.path.parent), data_files=[found.path.name], cache_dir=str(scratch)
            )
        else:
            loaded = datasets.load_dataset(
                str(found.path),
                name=chosen.name,
                data_files=chosen.files,
                data_dir=chosen.folder if chosen.name is None else None,
                cache_dir=str(scratch),
            )
    except Exception as error:  # of pandas, pyarrow, json, ...
        raise _complaint(error, found, scratch) from None
    return dict(loaded) if isinstance(loaded, Mapping) else {"train": loaded}


def _complaint(error: BaseException, found: DatasetFiles, scratch: Path) -> Exception:
    while error.__cause__ is not None:  # the library wraps what went wrong
        error = error.__cause__
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        return cannot_write(error, scratch)
    text = " ".join(str(error).split())[:300]
    if "scripts are no longer supported" in text:
        return DataError(
            "it is loaded by its own code, which litlab does not run",
            f"data.path={found.origin}",
            "convert it to Parquet and name the folder",
        )
    return DataError(
        f"`datasets` cannot read it: {type(error).__name__}: {text}",
        f"data.path={found.origin}",
        "repair the files, or name those to read",
    )


def name_parts(
    splits: Mapping[str, Any], train: str, val: str | None, test: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Return the splits by litlab's names, and the names of those left out.

    Without `val` and `test`, splits of the usual names are taken for them.

    Raises:
        ConfigError: There is no split of a given name.
    """
    if train not in splits and len(splits) == 1 and val is None and test is None:
        return {"all": next(iter(splits.values()))}, []
    if val is None and test is None:
        val = next((name for name in VAL_NAMES if name in splits and name != train), None)
        test = next((name for name in TEST_NAMES if name in splits and name != train), None)
    parts = {}
    for part, name in (("train", train), ("val", val), ("test", test)):
        if name is None:
            continue
        if name not in splits:
            what = f"there is no split '{name}'"
            raise ConfigError(what, f"data.source.{part}_split", nearest(name, splits))
        parts[part] = splits[name]
    left_out = [name for name in splits if name not in (train, val, test)]
    return ({"all": parts["train"]} if len(parts) == 1 else parts), left_out
