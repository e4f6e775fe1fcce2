import random
import shlex
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litlab.config.compose import compose, dump, load, read, write_params
from litlab.config.suggestions import suggest
from litlab.utils.errors import ConfigError, EnvironmentFault

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def refusal(*overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        load(list(overrides))
    return error.value


@pytest.mark.parametrize(
    ("override", "says", "fix"),
    [
        ("modle=cnn", "no setting 'modle'", "use model=cnn"),
        ("model.kernal_size=3", "no setting 'model.kernal_size'", "use model.kernel_size=3"),
        ("seed.x=3", "no setting 'seed.x'", "seed holds a value and no further settings"),
        ("~model.hidden", "no setting 'model.hidden'", "one of: activation"),
        ("model=cnnn", "model has no choice 'cnnn'", "use model=cnn"),
        ("model=null", "model has no choice 'null'", "one of: auto, cnn"),
        ("model=???", "model has no choice '???'", "one of: auto, cnn"),
        ("augment=3", "augment has no choice '3'", "one of: affine"),
        ("metrics=[accuracy,ff1]", "metrics has no choice 'ff1'", "use metrics=f1"),
        ("experiment=foo", "experiment has no choice 'foo'", ""),
        ("model@foo=mlp", "no setting 'model@foo'", "leave out '@...'"),
        ("tracking.tags={a:1}", "no setting 'tracking.tags'", "+tracking.tags.KEY=VALUE"),
        ("seed=???", "seed has no value", "seed=VALUE"),
        ("seed", "not of the form key=value", "+new_key=value"),
        ("=", "Could not override ''", "key=value"),
        ("seed=[", "no viable alternative", """quote it: 'seed="["'"""),
        ("seed=1,2", "Ambiguous value", """a list: 'seed=[1,2]'; a text: 'seed="1,2"'"""),
        ("name=${nope}", "Interpolation key 'nope' not found", "key=value"),
        ("hydra.run.dir=x", "Hydra's own settings have no effect here", "leave it out"),
        ("+hydra/launcher=x", "Hydra's own settings have no effect here", "leave it out"),
    ],
)
def test_refused_overrides(project: Path, override: str, says: str, fix: str) -> None:
    error = refusal(override)
    assert says in error.what
    assert fix in error.fix


UNQUOTED = [
    ("data.source.target", "CO(GT)"),
    ("data.source.delimiter", ";"),
    ("data.source.decimal", ","),
    ("data.path", "archive (1)/x.csv"),
    ("data.path", "a,b/"),
    ("data.path", "d\u00eda/"),
    ("data.path", "[x].csv"),
    ("data.path", "{a}.csv"),
    ("data.path", "it's"),
    ("data.path", 'a"b'),
    ("data.path", """a"b'c\\"""),
    ("data.path", "C:\\x,y\\"),
    ("+tracking.tags.note", "hello, world!"),
    ("tracking.uri", "http://host/#/x=y"),
]
TABLE = ("data=table", "data.path=x.csv", "data.source.target=y")


@pytest.mark.parametrize(("key", "value"), UNQUOTED)
def test_a_value_that_needs_quotes_is_given_in_quotes_that_work(
    project: Path, key: str, value: str
) -> None:
    error = refusal(*TABLE, f"{key}={value}")
    assert error.where == f"{key}={value}"
    (pasted,) = shlex.split(error.fix[error.fix.rindex(f"'{key}=") :])
    content: Any = compose([*TABLE, pasted])
    for part in key.lstrip("+").split("."):
        content = content[part]
    assert content == value


def test_a_home_folder_is_written_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert refusal("data.path=~/x.csv").fix == """quote it: 'data.path="/home/me/x.csv"'"""


@pytest.mark.parametrize(
    "override",
    [
        "tracking.uri=http://u:secret-canary!@h",
        "tracking.uri=[http://u:secret-canary!@h",
        "tracking.uri=http://u:secret-canary,x@h",
        "tracking.uri=http://u:secret-canary/#@h",
        "+tracking.tags.token=secret-canary!",
        "+tracking.tags={token: secret-canary!}",
        "=http://u:secret-canary!@h",
        "http://u:secret-canary!@h",
    ],
)
def test_an_override_that_cannot_be_read_shows_no_password(
    project: Path, override: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(override, "seed=1")
    assert "secret" not in str(error)
    assert "canary" not in str(error)
    assert "***" in error.where
    traceback.print_exception(error)  # what --debug shows
    assert "canary" not in capsys.readouterr().err


def test_the_quoted_form_of_an_address_has_its_password_left_out(project: Path) -> None:
    fix = refusal("tracking.uri=http://u:p!@h").fix
    assert fix == """quote it: 'tracking.uri="http://***@h"'"""


RESOLVERS = ["${oc.env:CANARY}", "x ${oc.decode:${oc.env:CANARY}}", "${now:%Y}", "${name:x}"]


@pytest.mark.parametrize("value", RESOLVERS)
def test_a_resolver_is_refused_before_it_is_called(
    project: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("CANARY", "secret-canary")
    params, choice = project / "params.yaml", project / "conf" / "model" / "odd.yaml"
    params.write_text(dump(compose()) + f"more:\n- tea: '{value}'\n")
    with pytest.raises(ConfigError, match=r"more\.tea refers to another value") as error:
        load(params=params)
    assert error.value.where == str(params)
    assert "canary" not in str(error.value)
    choice.write_text(f"_target_: litlab.models.mlp.MLP\nactivation: '{value}'\n")
    for refused in (refusal("model=odd"), refusal(f"+tracking.tags.x='{value}'")):
        assert "calls a resolver" in refused.what
        assert "MLFLOW_TRACKING_PASSWORD" in refused.fix
        assert "canary" not in str(refused)
    with pytest.raises(ConfigError, match="calls a resolver"):
        write_params(["model=odd"], project / "new.yaml")
    assert not (project / "new.yaml").exists()


def test_settings_may_name_one_another(project: Path) -> None:
    assert compose(["name=x${seed}", "plot='\\${oc.env:HOME}'"])["name"] == "x0"


def test_a_damaged_choice_is_named(project: Path) -> None:
    (project / "conf" / "model" / "odd.yaml").write_text("a: [")
    assert refusal("model=odd").exit_code == 2
    (project / "conf" / "model" / "odd.yaml").write_text("defaults: [none_such]")
    assert refusal("model=odd").what == "model has no choice 'none_such'"


def test_later_groups_follow_the_data_and_the_task(project: Path) -> None:
    checked = load(["data=diabetes", "model=mlp"])
    assert checked.task["_target_"] == "litlab.tasks.task.RegressionTask"
    assert set(checked.metrics) == {"mae", "rmse", "r2"}
    assert load(["data=diabetes", "model=mlp", "loss=huber"]).loss["delta"] == 1.0
    assert checked.run_name == "diabetes-mlp"
    assert load(["name=mine"]).run_name == "mine"


def test_params_hold_what_hydra_composed(project: Path) -> None:
    path = project / "params.yaml"
    overrides = ["model=mlp", "optimizer.lr=3e-4", "+tracking.tags.purpose='x: y \u00e9'"]
    written = write_params(overrides, path)
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == compose(overrides)
    assert load(params=path) == written == load(overrides)
    assert [p.name for p in project.iterdir() if p.name != "conf"] == ["params.yaml"]


def test_a_refused_order_leaves_the_old_one(project: Path) -> None:
    path = project / "params.yaml"
    path.write_text("old")
    with pytest.raises(ConfigError):
        write_params(["seed=x"], path)
    assert path.read_text() == "old"


def test_a_failed_write_leaves_the_old_one(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = project / "params.yaml"
    path.write_text("old")
    monkeypatch.setattr("litlab.utils.files.os.fsync", full)
    with pytest.raises(EnvironmentFault, match="No space left on device"):
        write_params([], path)
    assert path.read_text() == "old"
    assert sorted(p.name for p in project.iterdir()) == ["conf", "params.yaml"]


def shuffled(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    items = [(key, shuffled(value)) for key, value in node.items()]
    random.Random(0).shuffle(items)
    return dict(items)


def test_spelling_and_order_do_not_matter(project: Path) -> None:
    content = compose(["optimizer.lr=0.001", "augment=mixup"])
    other = dump(shuffled(content)).replace("lr: 0.001", "lr: 1e-03").replace("64", "+64")
    assert other != dump(content)
    (project / "a.yaml").write_text(dump(content))
    (project / "b.yaml").write_text(other)
    (project / "c.yaml").write_text(other.replace("1e-03", "'1E-3'"))
    assert load(params=project / "a.yaml") == load(params=project / "b.yaml")
    assert load(params=project / "a.yaml") == load(params=project / "c.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "not valid YAML"),
        ("a: 1\na: 2", "the key .a. appears twice"),
        ("a: ${b}", "a refers to another value"),
        ("- a", "not a mapping"),
        ("3", "cannot be read"),
        ("", "name has no value"),
        ("a: ???", "a has no value"),
        ("name: \udcff", "not valid YAML"),
    ],
)
def test_damaged_params(project: Path, text: str, says: str) -> None:
    path = project / "params.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=says) as error:
        load(params=path)
    assert error.value.where == str(path)


def test_params_that_are_not_there(project: Path) -> None:
    for path, what in (("none.yaml", "there is no such file"), ("conf", "is a folder")):
        with pytest.raises(ConfigError, match=what):
            read(project / path)


def test_params_and_overrides_exclude_each_other(project: Path) -> None:
    path = project / "params.yaml"
    write_params([], path)
    with pytest.raises(ConfigError, match="exclude each other"):
        load(["seed=1"], path)


def test_a_misspelt_key_in_params(project: Path) -> None:
    content = compose()
    content["trainer"]["max_epoch"] = content["trainer"].pop("max_epochs")
    (project / "params.yaml").write_text(dump(content))
    with pytest.raises(ConfigError, match="use trainer.max_epochs") as error:
        load(params=project / "params.yaml")
    assert error.value.where.endswith("params.yaml")


def paths_of(node: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in node.items():
        found.append((*prefix, key))
        if isinstance(value, dict):
            found += paths_of(value, (*prefix, key))
    return found


DEFAULT = compose()
LONG = [p for p in paths_of(DEFAULT) if len(p[-1]) >= 5 and not p[-1].startswith("_")]


@st.composite
def misspelt(draw: st.DrawFn) -> tuple[tuple[str, ...], str]:
    """A path of the default configuration, and its last key with one edit."""
    path = draw(st.sampled_from(LONG))
    key, letter = path[-1], draw(st.sampled_from(LETTERS))
    at = draw(st.integers(0, len(key) - 1))
    swapped = key[:at] + key[at : at + 2][::-1] + key[at + 2 :]
    dropped, changed = key[:at] + key[at + 1 :], key[:at] + letter + key[at + 1 :]
    inserted = key[:at] + letter + key[at:]
    return path, draw(st.sampled_from([swapped, dropped, changed, inserted]))


def siblings(path: tuple[str, ...]) -> dict[str, Any]:
    node: dict[str, Any] = DEFAULT
    for part in path[:-1]:
        node = node[part]
    return node


@settings(max_examples=200, deadline=None)
@given(misspelt())
def test_any_misspelt_key_is_refused_with_the_right_hint(
    case: tuple[tuple[str, ...], str],
) -> None:
    path, wrong = case
    if wrong in siblings(path):
        return
    meant = suggest(".".join([*path[:-1], wrong]), DEFAULT, "1")
    assert path[-1] in str(meant)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(misspelt())
def test_any_misspelt_override_exits_with_2(
    project: Path, case: tuple[tuple[str, ...], str]
) -> None:
    path, wrong = case
    if wrong in siblings(path):
        return
    error = refusal(f"{'.'.join([*path[:-1], wrong])}=1")
    assert error.exit_code == 2
    assert path[-1] in error.fix


def test_a_conf_of_one_experiment_has_litlabs_main_file(tmp_path: Path, monkeypatch: Any) -> None:
    """As a study leaves it in an empty folder."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    recipe = tmp_path / "conf" / "experiment" / "best.yaml"
    recipe.write_text("# @package _global_\noptimizer:\n  lr: 0.02\n")
    monkeypatch.chdir(tmp_path)
    assert load(["experiment=best"]).optimizer["lr"] == 0.02
    assert load(["experiment=digits_cnn"]).optimizer["lr"] != 0.02
