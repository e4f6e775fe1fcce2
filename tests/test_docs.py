"""The code blocks of README and docs: commands are composed and checked, examples are run."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import typer

from litlab.cli import main
from litlab.config.compose import compose, load
from litlab.config.validate import check_config
from litlab.tasks.build import build_metrics
from litlab.tuning.study.settings import load_settings
from run_helpers import SMALL, THIRD_PARTY, ready_store

pytestmark = THIRD_PARTY
ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
EXAMPLE = "data.path=x data.source.target=y"  # what "..." stands for


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.S)


def commands(page: Path) -> list[list[str]]:
    """The words of each litlab command in the page's console blocks."""
    found = []
    for block in blocks(page, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"\w*\$ ", line):
                lexer = shlex.shlex(line.partition("$ ")[2], posix=True, punctuation_chars="&|;")
                lexer.whitespace_split = True
                words = list(lexer)
                while "&&" in words:
                    found.append(words[: words.index("&&")])
                    words = words[words.index("&&") + 1 :]
                found.append(words)
    return [words for words in found if words[:1] == ["litlab"]]


SLIPS = (["modle=cnn"], ["lr=1e-3", "epochs=5"])
COMMANDS = [(page.name, words) for page in PAGES for words in commands(page)]


def test_the_pages_have_commands() -> None:
    assert len(COMMANDS) > 60
    assert {page for page, _ in COMMANDS} >= {"README.md", "tuning.md", "data-tables.md"}


@pytest.fixture(scope="module")
def conf(tmp_path_factory) -> Path:
    """A project with the recipe of a study, and with a model of the user's own."""
    root = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "conf", root / "conf")
    recipe = root / "conf" / "experiment" / "quick-best.yaml"
    recipe.write_text("# @package _global_\noptimizer:\n  lr: 0.01\n")
    own_model(root)
    (task,) = (b for b in blocks(ROOT / "docs" / "python.md", "python") if "class Small" in b)
    module = "class MyModule:\n    def __init__(self, lr: float = 0.1): ...\n"
    (root / "my_task.py").write_text(f"{task}\n\n{module}")
    return root


def own_model(root: Path) -> None:
    """The README's model as docs/extending.md has it: outside the package."""
    (code,) = (b for b in blocks(ROOT / "README.md", "python") if "class Linear" in b)
    (root / "my_models").mkdir()
    (root / "my_models" / "mine.py").write_text(code.replace("Linear(nn.Module)", "Net(nn.Module)"))
    (root / "conf" / "model" / "net.yaml").write_text("_target_: my_models.mine.Net\n")


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[shlex.join(w) for _, w in COMMANDS])
def test_a_command_is_one_that_litlab_takes(conf, monkeypatch, page, words) -> None:
    monkeypatch.chdir(conf)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the project will be on it
    words = (
        " ".join(map(shlex.quote, words)).replace(" ... ", f" {EXAMPLE} ").replace("data=...", "")
    )
    verb, *arguments = shlex.split(words)[1:]
    if "--help" in arguments:
        return
    context = typer.main.get_command(main.app).commands[verb].make_context(verb, arguments)
    overrides = list(context.params.get("overrides") or [])
    if "data=table" in overrides and not any("target=" in o for o in overrides):
        overrides.append("data.source.target=y")  # of a path that is "..."
    if verb == "tune":
        overrides = load_settings(overrides)[1]
    if "data=auto" in overrides:  # of a file that is not here
        overrides = [o.replace("=auto", "=table").replace("a.t", "a.source.t") for o in overrides]
    if overrides in SLIPS:
        return  # shows an error: see below, and test_suggestions.py
    check_config(compose(overrides), page, device=False)


def test_the_error_that_the_readme_shows(project, litlab) -> None:
    (shown,) = re.findall(r"^error: .*$", (ROOT / "README.md").read_text(), flags=re.M)[:1]
    code, _, err = litlab("train", "modle=cnn")
    assert (code, err.strip()) == (2, shown)


METRIC = """
import torch
from torchmetrics import Metric

class Seen(Metric):
    def __init__(self, num_classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.num_classes, self.scale = num_classes, scale

    def update(self, outputs, targets):
        pass

    def compute(self):
        return torch.tensor(self.scale * self.num_classes)
"""


def test_the_parts_that_the_guide_adds(project, litlab, monkeypatch) -> None:
    """Those of docs/extending.md and the README, all of them outside the package."""
    page = ROOT / "docs" / "extending.md"
    (source,) = blocks(page, "python")
    moons, top3 = blocks(page, "yaml")
    monkeypatch.syspath_prepend(project)
    (project / "two_moons.py").write_text(source)
    text = moons.replace("litlab.data.sources.two_moons", "two_moons")
    (project / "conf" / "data" / "two_moons.yaml").write_text(text)
    (project / "conf" / "metrics" / "top3.yaml").write_text(top3)
    own_model(project)
    (project / "my_metric.py").write_text(METRIC)
    (project / "conf" / "metrics" / "seen.yaml").write_text("seen:\n  _target_: my_metric.Seen\n")
    ready_store(project)
    small = [o for o in SMALL if not o.startswith(("data", "model"))]
    words = ["data=two_moons", "model=net", "trust=[two_moons,my_models,my_metric]"]
    code, out, err = litlab("train", *small, *words, "metrics=[accuracy,seen]")
    assert code == 0, err
    assert "val/seen 2" in err  # moons have two classes: it was told

    config = load(["metrics=[accuracy,top3]", "monitor=val/top3"])
    built = build_metrics(config.metrics, 10, [])
    assert (built["top3"].top_k, built["top3"].num_classes) == (3, 10)


def test_a_number_of_classes_in_the_configuration_wins(project, monkeypatch) -> None:
    monkeypatch.syspath_prepend(project)
    (project / "own_metric.py").write_text(METRIC)
    (project / "conf" / "metrics" / "seen.yaml").write_text(
        "seen:\n  _target_: own_metric.Seen\n  num_classes: 7\n"
    )
    config = load(["metrics=[seen]", "trust=[own_metric]"])
    assert build_metrics(config.metrics, 10, ["own_metric"])["seen"].num_classes == 7
