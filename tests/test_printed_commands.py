"""Commands that litlab prints to be typed work as they are printed, in a shell."""

import ast
import html
import re
import shlex
import shutil
from pathlib import Path

import pytest

from litlab.cli import main as cli
from litlab.config.compose import untrusted
from litlab.evaluation.evaluate import evaluate
from litlab.utils.errors import CheckpointError, DataError, NonFiniteError
from litlab.utils.output import command
from run_helpers import SMALL, THIRD_PARTY, only_run, ready_store

pytestmark = THIRD_PARTY
SRC = Path(__file__).resolve().parents[1] / "src" / "litlab"
OWN = """
import torch
from torch import Tensor, nn

class Net(nn.Module):
    def __init__(self, spec, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.layer = nn.Linear(spec.shape[-1] ** 2, spec.num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x.flatten(1)) * self.scale
        return y * self.scale if self.training else y
"""
WORDS = [o for o in SMALL if not o.startswith("model")] + ["model=net", "trust=[my_own]"]
VERBS = "|".join(verb.__name__ for verb in cli.VERBS)


@pytest.fixture
def awkward(project, monkeypatch):
    """A project in a folder whose name a shell would take apart, entered from beside it."""
    root = project / "it's $HOME; a project"
    root.mkdir()
    (project / "conf").rename(root / "conf")
    (root / "conf" / "model" / "net.yaml").write_text("_target_: my_own.Net\nscale: 1.0\n")
    (root / "my_own.py").write_text(OWN)
    (root / "below").mkdir()
    monkeypatch.chdir(root / "below")
    monkeypatch.syspath_prepend(root)
    ready_store(root)
    return root


def words_of(text: str, before: str, after: str = "\n") -> list[str]:
    """The command between two texts, as a shell splits it, without the program's name."""
    found = re.search(re.escape(before) + "(litlab .*?)" + re.escape(after), text)
    assert found, text
    return shlex.split(found[1])[1:]


def test_what_follows_a_training_with_classes_of_one_s_own(awkward, litlab) -> None:
    code, _, err = litlab("train", *WORDS)
    assert code == 0, err
    next_words = words_of(err, "next: ")
    assert next_words[-2:] == ["--trust", "my_own"]
    assert " " in next_words[1]
    code, _, err = litlab(*next_words)
    assert code == 0, err
    code, _, err = litlab(*words_of(err, "; `", "`"))
    assert code == 0, err
    assert "test accuracy" in err

    run = only_run(awkward)
    page = (run / "report" / "report.html").read_text()
    (repeated,) = re.findall(r"litlab (train --params [^\n<]*)", html.unescape(page))
    repeated = shlex.split(repeated)
    code, _, err = litlab(*[str(awkward / w) if "config.yaml" in w else w for w in repeated])
    assert code == 0, err

    shutil.rmtree(awkward / "data")
    with pytest.raises(DataError, match="prepared data are missing") as caught:
        evaluate(str(run), trust=["my_own"])
    code, _, err = litlab(*words_of(caught.value.fix, "`", "`"))
    assert code == 0, err
    assert litlab(*next_words)[0] == 0


def test_no_hint_at_results_that_litlab_report_would_not_show(awkward, litlab) -> None:
    assert litlab("train", *WORDS)[0] == 0
    code, _, err = litlab("evaluate", "--trust", "my_own", "--out", str(awkward / "elsewhere"))
    assert code == 0, err
    assert "litlab report" not in err
    assert litlab("report")[0] == 4  # as it says


def test_a_step_that_is_kept_to_be_replayed(awkward, litlab) -> None:
    code, _, err = litlab("train", *WORDS, "model.scale=1e30")
    assert code == NonFiniteError.exit_code
    words = words_of(err, "`", "`")
    assert words[-2:] == ["--trust", "my_own"]
    code, _, err = litlab(*words)
    assert code == 0, err
    assert "reproduced" in err


@pytest.mark.parametrize("place", ["conf/base.yaml", "params.yaml"])
def test_what_the_project_trusts_need_not_be_told(awkward, litlab, place) -> None:
    """The configuration is the user's; a checkpoint's own list counts for nothing."""
    assert litlab("train", *WORDS)[0] == 0
    code, _, err = litlab("evaluate")
    assert code == CheckpointError.exit_code
    assert "--trust PACKAGE" in err
    assert litlab("params")[0] == 0  # params.yaml is there, and lists none
    path = awkward / place
    path.write_text(path.read_text().replace("trust: []", "trust: [my_own]"))
    assert "trust: [my_own]" in path.read_text()
    code, _, err = litlab("evaluate")
    assert code == 0, err


def test_a_command_is_quoted_for_a_shell() -> None:
    line = command("evaluate", Path("runs/it's $x"), trust=["a", "b"])
    words = ["litlab", "evaluate", "runs/it's $x", "--trust", "a", "--trust", "b"]
    assert shlex.split(line) == words


def test_every_command_in_a_message_exists_and_is_put_together_by_command() -> None:
    """A value put into a text by hand would not be quoted."""
    found = 0
    for path in SRC.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = node.values
                for text, value in zip(parts, parts[1:], strict=False):
                    if isinstance(text, ast.Constant) and isinstance(value, ast.FormattedValue):
                        open_command = re.search(rf"litlab ({VERBS})\b[^`|;]*$", text.value)
                        assert not open_command, f"{path.name}:{node.lineno}: use output.command"
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                for verb in re.findall(r"`litlab (\w+)", node.value):
                    found += 1
                    assert verb in VERBS.split("|"), f"{path.name}:{node.lineno}"
    assert found > 5


def test_trust_is_found_where_conf_does_not_compose(project) -> None:
    """`data: table` wants a path, which a network that was trained does not need."""
    from litlab.cli.commands.common import trust_of_project

    main = project / "conf" / "base.yaml"
    text = main.read_text().replace("trust: []", "trust: [mine]")
    main.write_text(text.replace("  - data: digits", "  - data: table"))
    trust = ["told"]
    trust_of_project(trust)
    assert trust == ["told", "mine"]
    (project / "params.yaml").write_text("trust: [other]\n")
    trust_of_project(trust)
    assert trust == ["told", "mine", "mine", "other"]
    assert untrusted(["told", "mine", "other"]) == ["told"]  # what a printed command has to name
