"""`litlab new`: what it makes works as it is, and what it cannot make is refused in one line."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import forked
from litlab.cli import new_project
from litlab.cli.new_project import TEMPLATE, make_project, package_name
from litlab.config.compose import compose, load
from litlab.utils.errors import ConfigError, EnvironmentFault

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; git and DVC take seconds and are tried in one test only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(new_project, "_put_under_control", lambda folder: [])
    return tmp_path


@pytest.fixture
def made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    make_project(folder / "my-project")
    monkeypatch.chdir(folder / "my-project")
    yield folder / "my-project"
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_project"]:
        del sys.modules[name]


def test_the_command_says_what_to_type_next(litlab: Any, folder: Path) -> None:
    code, out, err = litlab("new", "my-project")
    assert (code, out) == (0, "")
    assert "src/my_project (a Python name has no '-': my_project)" in err
    assert "  cd my-project\n  make run " in err


def test_no_token_is_left_and_every_file_of_yaml_is_valid(made: Path) -> None:
    files = [path for path in made.rglob("*") if path.is_file()]
    assert len(files) == len(list(TEMPLATE.rglob("*.template"))) + 1  # params.yaml
    for path in files:
        text = path.read_text()
        for token in ("{{ project }}", "{{ package }}", "{{ version }}"):
            assert token not in text, path
        if path.suffix in (".yaml", ".yml"):
            assert yaml.safe_load(text)
    assert (made / ".github" / "workflows" / "ci.yml").is_file()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("class", "a keyword of Python"),
        ("match", "a keyword of Python"),
        ("1st", "cannot be the name of a package"),
        ("my project", "cannot be the name of a package"),
        ("été", "cannot be the name of a package"),
        ("torch", "is installed"),
        ("json", "is installed"),
        ("litlab", "is installed"),
    ],
)
def test_a_name_that_no_package_can_have_is_refused(
    litlab: Any, folder: Path, name: str, says: str
) -> None:
    code, _, err = litlab("new", name)
    assert (code, err.count("\n")) == (2, 1)
    assert says in err
    assert list(folder.iterdir()) == []


def test_a_dash_becomes_an_underscore() -> None:
    assert package_name("a-b_c2") == "a_b_c2"


def test_only_an_empty_folder_is_taken(folder: Path) -> None:
    (folder / "full").mkdir()
    (folder / "full" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="the folder is not empty"):
        make_project(folder / "full")
    assert [path.name for path in (folder / "full").iterdir()] == ["thesis.tex"]
    (folder / "a_file").touch()
    with pytest.raises(ConfigError, match="of this name"):
        make_project(folder / "a_file")
    (folder / "empty").mkdir()
    make_project(folder / "empty")
    assert (folder / "empty" / "dvc.yaml").is_file()


def test_a_folder_that_cannot_be_written_to_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(EnvironmentFault, match="cannot be written: Permission denied"):
        make_project(folder / "mine")


def test_its_conf_comes_first_and_litlabs_after_it(made: Path) -> None:
    config = load()
    assert config.data.name == "spirals"
    assert config.model["_target_"] == "my_project.model.Highway"
    assert list(config.metrics) == ["accuracy", "worst_recall"]
    assert config.tracking.experiment == "my-project"
    assert load(["data=digits"]).model["_target_"] == "litlab.models.cnn.CNN"
    assert load(["model=mlp"]).data.name == "spirals"
    assert load(["experiment=digits_cnn"]).data.name == "digits"  # an experiment wins
    assert load(["experiment=small"]).model["width"] == 16
    assert yaml.safe_load((made / "params.yaml").read_text()) == compose()
    with pytest.raises(ConfigError, match="width") as caught:
        load(["model.width=0"])
    assert "model.width" in str(caught.value)


def test_its_own_package_is_trusted_and_nothing_else(made: Path) -> None:
    assert load().trust == ["my_project"]
    with pytest.raises(ConfigError, match="is not in a trusted package"):
        load(["model._target_=os.system"])
    with pytest.raises(ConfigError, match="is not in a trusted package"):
        load(["model._target_=my_project2.model.Highway"])


def test_a_search_path_of_its_own_is_refused(made: Path) -> None:
    main = made / "conf" / "config.yaml"
    main.write_text(main.read_text().replace("pkg://litlab.conf", "file:///tmp"))
    with pytest.raises(ConfigError, match="Hydra's own settings do nothing here"):
        compose()


def test_the_pipeline_runs_the_same_stages_as_litlabs_own(made: Path) -> None:
    ours, own = (yaml.safe_load((place / "dvc.yaml").read_text()) for place in (ROOT, made))
    for name, stage in own["stages"].items():
        expected = ours["stages"][name]
        assert stage["cmd"] == expected["cmd"].replace("python src/litlab", "litlab")
        for key in ("params", "outs", "metrics"):
            assert stage.get(key) == expected.get(key)
    assert own["plots"] == ours["plots"]


def test_git_and_dvc_are_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = []
    monkeypatch.setattr(new_project, "say", done.append)
    make_project(tmp_path / "mine")
    assert any(line.startswith("git: a new repository") for line in done)
    assert any(line.startswith("dvc: initialized") for line in done)
    assert (tmp_path / "mine" / ".git").is_dir()
    assert "config_dir = conf" in (tmp_path / "mine" / ".dvc" / "config").read_text()


def test_without_git_dvc_does_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    commands: list[tuple[str, ...]] = []

    def run(place: Path, *command: str) -> bool:
        commands.append(command)
        return command[0] != "git" and bool((place / ".dvc").mkdir(parents=True) or True)

    monkeypatch.setattr(new_project, "_run", run)
    lines = new_project._put_under_control(folder)
    assert lines[0].startswith("git: not found")
    assert commands[-1][-1] == "--no-scm"
    assert "no_scm = True" in (folder / ".dvc" / "config").read_text()


def copied_by_dockerfile() -> list[str]:
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines()]
    return [name for line in lines if line[:1] == ["COPY"] for name in line[1:-1]]


def test_the_dockerfile_copies_what_is_there_and_runs_as_no_root() -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for name in copied_by_dockerfile():
        assert (ROOT / name).exists()
        assert f"!{name}" in allowed
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    users = [line for line in lines if line.startswith("USER ")]
    assert users == ["USER litlab"]
    assert lines.index("USER litlab") < lines.index('ENTRYPOINT ["litlab"]')


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it, made from what the Dockerfile copies.

    The libraries are this environment's.
    """
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    for name in copied_by_dockerfile():
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--target", str(place / "site")]
    subprocess.run([*pip, "install", *options, str(source)], check=True, timeout=200)
    return place / "site"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_trains_in_an_empty_folder_and_in_a_new_project(
    installed: Path, tmp_path: Path
) -> None:
    ours = sorted(p.relative_to(ROOT / "conf") for p in (ROOT / "conf").rglob("*.yaml"))
    conf = installed / "litlab" / "conf"
    assert sorted(p.relative_to(conf) for p in conf.rglob("*.yaml")) == ours
    # Forks of a process that has imported the wheel, where each would take ten seconds to start.
    path = os.pathsep.join([forked.python_folder(str(installed)), os.environ["PATH"]])
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    environment = {**kept, "PYTHONPATH": str(installed), "PATH": path, "OMP_NUM_THREADS": "1"}
    environment[forked.SOURCE_NAME] = str(installed)

    def run(where: Path, *command: str) -> str:
        done = subprocess.run(
            command, cwd=where, env=environment, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    where = "import litlab.cli.main; print(litlab.__file__, litlab.cli.main.__file__)"
    for python in ("python", sys.executable):
        assert run(tmp_path, python, "-c", where).count(str(installed)) == 2
    script = str(installed / "bin" / "litlab")
    small = ("data=digits", "model=mlp", "trainer.max_epochs=1")
    run(tmp_path, sys.executable, script, "train", *small)
    assert len(list((tmp_path / "runs").iterdir())) == 1
    run(tmp_path, "litlab", "new", "my-project")
    project = tmp_path / "my-project"
    run(project, "litlab", "params", "trainer.max_epochs=2", "model.width=16")
    assert "test worst_recall" in run(project, "make", "run")
    assert "4 passed" in run(project, "make", "test")
