import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from litlab.cli import main as cli
from litlab.cli.commands.common import trust_of_project
from litlab.config import menu
from litlab.config.compose import compose, load
from litlab.utils.errors import CheckpointError, DataError

SRC = str(Path(cli.__file__).parents[2])
VERBS = ["params", "inspect", "prepare", "preview", "train", "cv", "replay", "tune", "evaluate"]
VERBS += ["report", "predict", "generate", "selftest", "ui", "new"]
CONFIGURED = ["params", "prepare", "train"]


def assert_refused(answer: tuple[int, str, str], folder: Path, says: str = "") -> None:
    code, out, err = answer
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err.rstrip().split(" | ")) == 3
    assert says in err
    assert [p.name for p in folder.iterdir()] == ["conf"]


def test_help_lists_every_verb(litlab: Any) -> None:
    code, out, _ = litlab("--help")
    assert code == 0
    assert [c.name or c.callback.__name__ for c in cli.app.registered_commands] == VERBS
    for verb in VERBS:
        assert f"  {verb} " in out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_debug(litlab: Any, verb: str) -> None:
    code, out, _ = litlab(verb, "-h")
    assert code == 0
    assert "--debug" in out


def test_help_of_train_lists_the_choices_of_the_project(litlab: Any, project: Path) -> None:
    (project / "conf" / "model" / "of_my_own.yaml").write_text("_target_: torch.nn.Linear\n")
    for verb in ("train", "cv", "params", "prepare", "preview"):
        _, out, _ = litlab(verb, "--help")
        words = out.replace(",", " ").split()
        assert {"of_my_own", "one_cycle", "fashion_mnist"} <= set(words)


def test_help_shows_the_defaults_that_are_composed(litlab: Any, project: Path) -> None:
    _, out, _ = litlab("train", "--help")
    assert len(menu.OFTEN_CHANGED) == len(menu.defaults()) == 10
    composed = compose()
    for setting, default in menu.defaults().items():
        value: Any = composed
        for part in setting.split("."):
            value = value[part]
        assert default == value
        assert f"  {setting}=" in out
    assert f"optimizer.lr={composed['optimizer']['lr']} " in out


def test_help_follows_the_choices_of_another_data_set(project: Path) -> None:
    main = project / "conf" / "config.yaml"
    main.write_text(main.read_text().replace("data: digits", "data: tinyshakespeare"))
    composed, defaults = compose(), menu.defaults()
    assert defaults["model.dropout"] == composed["model"]["dropout"]
    assert defaults["trainer.max_epochs"] == composed["trainer"]["max_epochs"]


def test_help_of_tune_lists_the_studies(litlab: Any, project: Path) -> None:
    (project / "conf" / "study" / "wide.yaml").write_text("# Many layers.\nspace: {}\n")
    _, out, _ = litlab("tune", "--help")
    assert "wide      Many layers." in out
    assert "  quick     " in out


@pytest.mark.parametrize("verb", ["train", "tune"])
def test_help_needs_no_project_and_no_readable_conf(litlab: Any, project: Path, verb: str) -> None:
    (project / "conf" / "config.yaml").write_text("a: [")
    code, out, _ = litlab(verb, "--help")
    assert code == 0
    assert {"train": "optimizer ", "tune": "study.n_trials"}[verb] in out


WRONG = [
    ("modle=cnn", "use model=cnn"),
    ("trainer.max_epoch=3", "use trainer.max_epochs=3"),
    ("model=cnnn", "use model=cnn"),
    ("model=null", "one of: auto, cnn"),
    ("+model.unknown=1", "no setting 'model.unknown'"),
    ("+data.source.unknown=1", "no setting 'data.source.unknown'"),
    ("seed=a", "seed=a, but must be a whole number"),
    ("optimizer.lr=-1", "but must be a number (above 0)"),
    ("model.dropout=1.5", "below 1"),
    ("optimizer.betas=[2,0]", "a list of 2, each a number"),
    ("monitor=val/acuracy", "did you mean 'val/accuracy'?"),
    ("monitor=test/accuracy", "use val/accuracy"),
    ("trainer.accelerator=gpu", "this machine has 0"),
    ("trainer.precision=16-mixed", "needs a GPU"),
    ("model._target_=os.system", "trust=[os]"),
    ("model._target_=litlab.tasks.task.torch.hub.load", "no module 'litlab.tasks.task.torch.hub'"),
    ("model._target_=litlab.config.instantiate.build", "not in a trusted package"),
    ("model={_target_:os.system,command:'touch ran'}", "ran"),
    ("data.name=../../x", "data.name=../../x"),
    ("seed=???", "seed has no value"),
    ("seed=", "seed=''"),
    ("--parms", "No such option: --parms"),
    ("--optimizer.lr=1", "use optimizer.lr=1"),
]


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litlab.config.constraints._count_cuda", lambda: 0)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(("argument", "says"), WRONG)
def test_a_wrong_setting_is_one_line(litlab: Any, project: Path, argument: str, says: str) -> None:
    verb = CONFIGURED[len(argument) % 3]
    assert_refused(litlab(verb, argument), project, says)


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (("--lr", "1e-3"), "use optimizer.lr=1e-3"),
        (("--lr=-1", "--epochs", "5", "batch_size=3"), "use loader.batch_size=3 optimizer.lr=-1 "),
        (("seed=1", "--learning-rate", "-1"), "use optimizer.lr=-1"),
        (("--model", "cnn", "--json"), "use model=cnn"),
        (("--early-stopping",), "use 'trainer.early_stopping={patience: 10}'"),
        (("-lr", "0.1"), "use optimizer.lr=0.1"),
    ],
)
def test_a_setting_typed_as_an_option(
    litlab: Any, project: Path, arguments: tuple[str, ...], fix: str
) -> None:
    assert_refused(litlab("train", *arguments), project, fix)


@pytest.mark.parametrize("arguments", [("trian",), ("train", "-x"), ("train", "--params")])
def test_wrong_usage(litlab: Any, project: Path, arguments: tuple[str, ...]) -> None:
    assert_refused(litlab(*arguments), project)


@pytest.mark.usefixtures("no_gpu")
def test_trust_lets_through_only_what_it_names(litlab: Any, project: Path) -> None:
    (project / "conf" / "mine.py").write_text("")
    target = "model._target_=shutil.rmtree"
    assert_refused(litlab("train", "trust=[os]", target), project, "trust=[shutil]")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("verb", ["train", "prepare"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no such file"),
        ("a: [", "not valid YAML"),
        ("- a\n- b", "not a mapping"),
        ("7", "cannot be read"),
        ("sede: 3", "use seed"),
    ],
)
def test_a_bad_params_file(
    litlab: Any, project: Path, verb: str, content: str | None, says: str
) -> None:
    path = project / "conf" / "order.yaml"
    if content is not None:
        path.write_text(content)
    answer = litlab(verb, "--params", str(path))
    assert_refused(answer, project, says)
    assert str(path) in answer[2]


def test_params_and_overrides_exclude_each_other(litlab: Any, project: Path) -> None:
    (project / "conf" / "order.yaml").write_text("seed: 1")
    answer = litlab("train", "--params", "conf/order.yaml", "seed=2")
    assert_refused(answer, project, "exclude each other")


def test_params_writes_the_order(litlab: Any, project: Path) -> None:
    code, out, err = litlab("params", "model=mlp", "seed=3")
    assert (code, out) == (0, "")
    assert "wrote params.yaml for digits-mlp" in err
    assert load(params=project / "params.yaml") == load(["model=mlp", "seed=3"])


def test_debug_shows_the_traceback_and_keeps_the_code(litlab: Any, project: Path) -> None:
    code, _, err = litlab("params", "--debug", "seed=a")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: seed=a")


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (DataError("a", "b", "c"), 3),
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left on device", "run.json"), 5),
        (OSError(errno.EFBIG, "File too large"), 5),
        (OSError(errno.EMFILE, "Too many open files"), 5),
        (PermissionError(errno.EACCES, "Permission denied", "run.json"), 5),
    ],
)
def test_exit_codes(
    litlab: Any,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    code: int,
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr("litlab.config.compose.load", fail)
    answer = litlab("train")
    assert answer[0] == code
    assert answer[2].startswith("error: ")
    assert answer[2].count("\n") == 1


@pytest.mark.parametrize("bug", [RuntimeError("a bug"), FileNotFoundError(2, "a bug")])
def test_a_bug_is_not_hidden(
    project: Path, monkeypatch: pytest.MonkeyPatch, bug: Exception
) -> None:
    def fail(*_: object) -> None:
        raise bug

    monkeypatch.setattr("litlab.config.compose.load", fail)
    monkeypatch.setattr(sys, "argv", ["litlab", "train"])
    with pytest.raises(type(bug), match="a bug"):
        cli.main()


def test_report_needs_results(litlab: Any, project: Path) -> None:
    code, _, err = litlab("report")
    assert code == 4
    assert "litlab evaluate" in err


def test_report_shows_what_was_recorded(litlab: Any, project: Path) -> None:
    folder = project / "reports"
    folder.mkdir()
    metrics = {"test": {"accuracy": 0.9612}, "test_interval_95": {"accuracy": [0.94, 0.98]}}
    run = {
        "run_name": "mine",
        "run_id": "abc",
        "experiment": "[red]odd[/red]",
        "checkpoint": str(project / "runs" / "a" / "best.ckpt"),
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "report.html").touch()
    code, _, err = litlab("report")
    assert code == 0
    assert "0.9612  (95 %: 0.94 to 0.98)" in err
    assert "[red]odd[/red]" in err  # not taken for markup
    assert "runs/a/best.ckpt" in err


def test_project_trust_is_read_from_params(project: Path) -> None:
    trust = ["given"]
    trust_of_project(trust)
    assert trust == ["given"]
    content = compose() | {"trust": ["mine", 3]}
    (project / "params.yaml").write_text(json.dumps(content))
    trust_of_project(trust)
    assert trust == ["given", "mine"]


PROBE = """
import sys
from litlab.cli.main import main
try:
    main()
finally:
    heavy = {"torch", "lightning", "mlflow", "sklearn", "pandas"} & set(sys.modules)
    print("loaded:", sorted(heavy))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "optimizer.lr=-1"),
        ("train", "model._target_=litlab.tasks.task.torch.hub.load"),
        ("train", "--params", "none.yaml"),
        ("--help",),
    ],
)
def test_a_refusal_loads_nothing_heavy(project: Path, arguments: tuple[str, ...]) -> None:
    environment = {**os.environ, "PYTHONPATH": SRC}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "loaded: []", done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("start", [["-m", "litlab"], [f"{SRC}/litlab"]])
def test_both_ways_to_start_it(project: Path, start: list[str]) -> None:
    command = [sys.executable, *start, "train", "seed=a"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": SRC if start[0] == "-m" else ""},
        check=False,
    )
    assert_refused((done.returncode, done.stdout, done.stderr), project, "seed=a")


def test_outside_a_project_the_folder_itself_is_one(litlab, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command, says in (("evaluate", "no such run"), ("report", "nothing has been evaluated")):
        code, _, error = litlab(command)
        assert code == CheckpointError.exit_code
        assert says in error
    code, _, error = litlab("train", "model=cnnn")
    assert (code, error) == (
        2,
        "error: model has no choice 'cnnn' | model=cnnn | use model=cnn\n",
    )
    assert list(tmp_path.iterdir()) == []
    assert litlab("params", "model=mlp")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_the_version(litlab) -> None:
    from importlib.metadata import version

    assert litlab("--version") == (0, f"litlab {version('litlab')}\n", "")
    assert "Show the version." in litlab("--help")[1]
    assert "Train neural networks with everything recorded" in litlab("--help")[1]
