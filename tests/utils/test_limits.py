"""A few lines that would fill the memory or never end are refused in one line, at once."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from litlab.cli.commands.common import trust_of_project
from litlab.config.compose import compose, dump, load, read
from litlab.data.prepare.source_files import changed
from litlab.runs.folder import RunRecord, read_results
from litlab.tuning.study.settings import load_settings
from litlab.utils import limits
from litlab.utils.errors import CheckpointError, ConfigError, DataError
from litlab.utils.limits import MAX_BYTES, MAX_DEPTH, MAX_VALUES, check_yaml

LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)
)
MERGED = "a0: &a0 {k: 1}\n" + "\n".join(
    f"a{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}}}" for i in range(1, 40)
)
LONG = "x" * 70_000
BAD = {
    "laughs": (LAUGHS, "more than 20,000 values"),
    "laughs in mappings": (MERGED, "more than 20,000 values"),
    "brackets": ("seed: " + "[" * 3000 + "]" * 3000, "nested more than 50"),
    "open brackets": ("seed: " + "[" * 3000, "nested more than 50"),
    "braces": ("seed: " + "{a: " * 3000 + "}" * 3000, "nested more than 50"),
    "dashes": ("seed:\n  " + "- " * 3000 + "1", "nested more than 50"),
    "indented": ("\n".join(" " * i + "a:" for i in range(1000)), "nested more than 50"),
    "deep through aliases": (
        "a0: &a0 [1]\n" + "\n".join(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 200)),
        "nested more than 50",
    ),
    "many": ("seed: [" + "1," * 30_000 + "]", "more than 20,000 values"),
    "itself": ("seed: &a [*a]", "is undefined, or refers to itself"),
    "nothing": ("seed: *a", "alias"),
    "twice": ("seed: 1\nseed: 2", "the key 'seed' appears twice"),
    "list as key": ("? [a, b]\n: 1", "a key is a list"),
    "alias as key": ("a: &a b\n*a : 1", "a key is"),
    "python": ("seed: !!python/object/apply:os.system [touch canary]", "not valid YAML"),
    "number": ("seed: 1\n2: 3", "no setting '2'|has no value"),
    "binary": ("seed: !!binary aGk=\nname: !!binary aGk=", "has no value|must be|not valid"),
    "broken binary": ("seed: !!binary 'é'", "not valid YAML"),
    "set": ("seed: !!set {a, b}", "not valid YAML|must be|has no value"),
    "month": ("seed: 2026-13-45", "not valid YAML|has no value|must be"),
    "no time": ("seed: !!timestamp x", "not valid YAML"),
    "no bool": ("seed: !!bool x", "not valid YAML"),
    "no number": ("seed: !!int x", "not valid YAML"),
    "digits": ("seed: " + "1" * 5000, "not valid YAML"),
    "hexadecimal": ("seed: 0x" + "f" * 50_000, "has no value|huge number"),
    "sixties": ("seed: 1" + ":1" * 30_000, "has no value|huge number|not valid"),
    "long": (f"seed: {LONG}", "a value of 70,000 characters"),
    "NUL": ("seed: a\0b", "not valid YAML"),
    "several": ("seed: 1\n---\nseed: 2", "not valid YAML"),
    "environment": ("seed: ${oc.env:HOME}", "seed refers to another value"),
    "doubled": (
        "a0: xxxxxxxxxx\n" + "\n".join(f"a{i}: ${{a{i - 1}}}${{a{i - 1}}}" for i in range(1, 40)),
        "a1 refers to another value",
    ),
}


def refusal(work: Callable[[], object]) -> ConfigError:
    """Run it; it must be refused within a second of this process's time."""
    began = time.process_time()
    with pytest.raises(ConfigError) as caught:
        work()
    assert time.process_time() - began < 1
    assert caught.value.exit_code == 2
    assert all(line.isprintable() for line in str(caught.value).splitlines())
    assert all(len(line) < 1000 for line in str(caught.value).splitlines())
    return caught.value


@pytest.fixture
def warm(project: Path) -> Path:
    """A project, with what is imported at the first use imported."""
    compose()
    return project


@pytest.mark.parametrize("case", BAD)
def test_params_that_are_refused(warm: Path, case: str) -> None:
    text, says = BAD[case]
    path = warm / "odd.yaml"
    path.write_text(text)
    error = refusal(lambda: load(params=path))
    assert pytest.raises(ConfigError, match=says).matches(error), error
    assert not (warm / "canary").exists()


@pytest.mark.parametrize("case", ["laughs", "brackets", "twice", "digits", "itself"])
def test_every_yaml_file_of_a_project_is_read_so(warm: Path, case: str) -> None:
    text, says = BAD[case]
    (warm / "params.yaml").write_text(text)
    assert str(warm / "params.yaml") in refusal(lambda: trust_of_project([])).where
    (warm / "conf" / "model" / "odd.yaml").write_text(text)
    refusal(lambda: load(["model=odd"]))
    (warm / "conf" / "model" / "odd.yaml").unlink()
    (warm / "conf" / "study" / "odd.yaml").write_text(text)
    refusal(lambda: load_settings(["study=odd"]))


@pytest.mark.parametrize(
    "value",
    ["[" * 3000 + "]" * 3000, "{a:" * 3000 + "}" * 3000, "[" * 3000, "[" + "1," * 5000 + "1]"],
    ids=["brackets", "braces", "open", "long"],
)
@pytest.mark.parametrize("key", ["seed", "+tracking.tags.x", "study.space"])
def test_overrides_that_are_refused(warm: Path, key: str, value: str) -> None:
    words = [f"{key}={value}"]
    of_study = key.startswith("study")
    error = refusal(lambda: load_settings(["study=quick", *words]) if of_study else load(words))
    assert "nested more than 50" in error.what or "more than 1,000 values" in error.what


def test_aliases_in_an_override_of_a_study(warm: Path) -> None:
    text = "[&a0 [x,x,x,x,x,x,x,x,x,x]" + "".join(
        f", &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)
    )
    error = refusal(lambda: load_settings(["study=quick", f"study.objectives={text}]"]))
    assert "more than 20,000 values" in error.what


def test_brackets_in_quotes_are_text(warm: Path) -> None:
    tags = load([f"+tracking.tags.x='{'[' * 60}'", '+tracking.tags.y="(,{"']).tracking.tags
    assert tags == {"x": "[" * 60, "y": "(,{"}


def test_a_huge_file_is_not_read(warm: Path) -> None:
    path = warm / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(2 * 2**30)  # takes no room on the disk
    assert "2,147,483,648 bytes" in refusal(lambda: read(path)).what
    path.write_text("# " + "x" * MAX_BYTES)
    assert "too large for a configuration" in refusal(lambda: read(path)).what


def test_a_byte_order_mark_does_no_harm(warm: Path) -> None:
    path = warm / "params.yaml"
    path.write_text("\ufeff" + dump(compose()), encoding="utf-8")
    assert load(params=path) == load()


def test_what_is_allowed() -> None:
    check_yaml("a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1), "a file")
    check_yaml("a: [" + "1," * (MAX_VALUES - 10) + "]", "a file")
    check_yaml("base: &base {lr: 1}\nfirst: {<<: *base}\nsecond: {<<: *base, <<: *base}", "a file")
    check_yaml("a: &a x\nb: [*a, *a]\nc: {a: *a, b: {a: *a}}", "a file")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=20,
)


@given(PLAIN)
def test_ordinary_yaml_is_never_refused(content: object) -> None:
    check_yaml(yaml.safe_dump({"a": content, "b": [content, content]}), "a file")


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("text", [DEEP, '{"a": ' + DEEP + "}", "[1]", "null", "{}", "\0", "NaN"])
def test_json_that_is_no_record(tmp_path: Path, text: str) -> None:
    for name in ("run.json", "metrics.json", "spec.json", ".seen.json"):
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match="not the folder of a run"):
        RunRecord.load(tmp_path)
    if text == DEEP:
        (tmp_path / "report.html").touch()
        with pytest.raises(CheckpointError, match="cannot be read: nested too deeply"):
            read_results(tmp_path)
    assert changed({"none": "0"}, tmp_path / ".seen.json") is None
    from litlab.data.spec import DataSpec

    with pytest.raises(DataError):
        DataSpec.load(tmp_path)


RECORD = {"run_id": "1", "run_name": "a", "experiment": "b", "tracking_uri": "c"}


@pytest.mark.parametrize("field", ["status", "metrics", "epochs", "data", "command", "best_epoch"])
@pytest.mark.parametrize("value", [[1], {"a": [1]}, "odd"])
def test_a_run_of_other_types(tmp_path: Path, field: str, value: object) -> None:
    if (field, value) == ("status", "odd"):
        return
    (tmp_path / "run.json").write_text(json.dumps({**RECORD, field: value}))
    with pytest.raises(CheckpointError, match=f"run.json: {field}: ") as caught:
        RunRecord.load(tmp_path)
    assert str(caught.value).isprintable()


def test_a_metric_that_is_null(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({**RECORD, "metrics": {"val/loss": None}}))
    value = RunRecord.load(tmp_path).metrics["val/loss"]
    assert value != value


def test_files_are_checked_once(warm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "check_yaml", lambda *_: pytest.fail("read again"))
    compose()
