"""What becomes part of a path is a name, wherever it is read from."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from litlab.config.compose import load
from litlab.data.prepare.open import open_or_prepare
from litlab.data.spec import FILE_NAME, DataSpec
from litlab.training import crossval
from litlab.training.crossval import cross_validate
from litlab.tuning.study.settings import load_settings
from litlab.utils import paths
from litlab.utils.errors import ConfigError, DataError
from litlab.utils.names import LONGEST, Name, file_name
from run_helpers import SMALL

BAD = {
    "parent": "../outside",
    "deep": "a/../../outside",
    "absolute": "/tmp/outside",
    "backslash": "..\\outside",
    "drive": "C:outside",
    "NUL": "a\0b",
    "line": "a\n",
    "dots": "..",
    "hidden": ".hidden",
    "home": "~root",
    "variable": "$HOME",
    "blank": "a b",
    "empty": "",
    "long": "a" * 101,
    "long in bytes": "a" + "\u4e00" * 40,
    "surrogate": "a\udcff",
}


@pytest.mark.parametrize("name", BAD.values(), ids=list(BAD))
def test_what_is_not_a_name(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)


@pytest.mark.parametrize("name", ["digits", "a.b-c_d", "9", "größe", "a" * LONGEST])
def test_what_is_a_name(name: str) -> None:
    assert TypeAdapter(Name).validate_python(name) == name


@pytest.mark.parametrize("name", BAD.values(), ids=list(BAD))
def test_prepared_data_with_a_bad_name_are_refused(project: Path, name: str) -> None:
    config = load(SMALL).data
    folder, _ = open_or_prepare(config, [])
    content = json.loads((folder / FILE_NAME).read_text())
    (folder / FILE_NAME).write_text(json.dumps({**content, "name": name}))
    with pytest.raises(DataError, match="name: |not a data spec") as caught:
        DataSpec.load(folder)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [n for n in BAD.values() if n.isprintable()])
@pytest.mark.parametrize("setting", ["name", "data.name", "study.name"])
def test_a_setting_with_a_bad_name_is_refused(project: Path, setting: str, name: str) -> None:
    override = f"{setting}='{name}'"
    with pytest.raises(ConfigError) as caught:
        load_settings(["study=quick", override]) if "study" in setting else load([override])
    assert setting in str(caught.value)


def test_a_name_that_folds_make_too_long(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known before the first fold, though only the tenth has two digits more."""
    monkeypatch.setattr(crossval, "train", lambda *_, **__: pytest.fail("a fold was trained"))
    name = "a" * (LONGEST - len("-fold9of10"))
    config = load([*SMALL, "data.num_folds=10", f"data.name={name}", "name=cv"])
    with pytest.raises(ConfigError, match="fold10of10' is longer than 100 bytes") as caught:
        cross_validate(config)
    assert caught.value.where == "data.name"


def test_a_link_out_of_the_prepared_data_is_refused(project: Path) -> None:
    outside = project / "outside"
    outside.mkdir()
    parent = project / "data" / "prepared"
    parent.mkdir(parents=True)
    (parent / "wine").symlink_to(outside)
    with pytest.raises(DataError, match="points outside of data/prepared"):
        paths.prepared_folder("wine")
    (parent / "same").symlink_to(parent / "other")
    assert paths.prepared_folder("same") == parent / "same"
    parent.rename(project / "elsewhere")
    parent.symlink_to(project / "elsewhere")  # all of it on another disk
    assert paths.prepared_folder("digits") == parent / "digits"


def test_a_files_name_of_any_text() -> None:
    assert file_name("predicted_rent/m2") == "predicted_rent_m2"
    assert file_name("predicted_../../x") == "predicted_.._.._x"
    assert len(file_name("é" * 200).encode()) == LONGEST
    assert file_name("p_a b", {"p_a_b"}) == "p_a_b-2"
    assert file_name("p_a b", {"p_a_b", "p_a_b-2"}) == "p_a_b-3"
