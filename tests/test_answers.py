"""What a user is told who types a wrong command line, or uses the Python API wrongly."""

from typing import Any

import numpy as np
import pytest

import litlab
from litlab.data.inputs.read_input import read_values
from litlab.runs.checkpoint.changes import Change
from litlab.runs.checkpoint.resume import Interruption, _refuse_passed
from litlab.tuning.study.settings import StudySettings, load_settings
from run_helpers import THIRD_PARTY

pytestmark = THIRD_PARTY

# The command line: what is typed, and parts of the one line that answers it.

TYPED = [
    (
        "tune study=quick --n-trials 3",
        "no option '--n-trials' | --n-trials 3 | use study.n_trials=3",
    ),
    ("tune study=quick --workers=2", "no option '--workers' | --workers=2 | use study.workers=2"),
    ("tune study=quick workers=2", "no setting 'workers' | workers=2 | use study.workers=2"),
    ("tune study=quick --lr 1e-3", "use optimizer.lr=1e-3"),
    ("train model=mlp,cnn", "model takes one choice, not 2 | model=mlp,cnn | run the command once"),
    ("train data=digits,wine", "data takes one choice, not 2 | data=digits,wine | run the command"),
    ("train augment=crop,flip", "use 'augment=[crop,flip]'"),
]


@pytest.mark.parametrize(("typed", "answer"), TYPED)
def test_a_wrong_command_line_is_answered(
    project: Any, litlab: Any, typed: str, answer: str
) -> None:
    code, _, err = litlab(*typed.split())
    assert code == 2
    assert answer in err
    assert len(err.splitlines()) == 1


def test_nothing_typed_is_answered_by_the_help(litlab: Any) -> None:
    code, out, err = litlab()
    assert (code, err) == (0, "")
    assert "Usage: litlab" in out
    assert len(out.splitlines()) > 20


def test_the_search_that_is_suggested_is_one(project: Any) -> None:
    with pytest.raises(litlab.ConfigError) as error:
        litlab.compose("data=digits", "model=mlp,cnn")
    words = error.value.fix.split("litlab tune ")[1].split(maxsplit=1)
    settings, _ = load_settings(["data=digits", words[0], words[1].strip("'")])
    assert settings.space["model"] == ["mlp", "cnn"]


def test_a_space_of_python_values_is_what_storage_gives_back() -> None:
    space = {"optimizer.lr": (1e-3, np.float32(0.5)), "model.depth": range(3), "loss": {"a": (1,)}}
    settings = StudySettings(name="x", space=space)
    assert settings.space == {
        "optimizer.lr": [1e-3, 0.5],
        "model.depth": [0, 1, 2],
        "loss": {"a": [1]},
    }


def test_a_number_of_epochs_that_is_passed_is_refused_before_the_start(tmp_path: Any) -> None:
    change = Change("trainer.max_epochs", 30, 22)
    found = Interruption(tmp_path, tmp_path / "last.ckpt", {"epoch": 23})
    with pytest.raises(litlab.ConfigError, match="is in epoch 24 already") as error:
        _refuse_passed([change], found)
    assert "use trainer.max_epochs=24 or more" in error.value.fix
    _refuse_passed([change._replace(new=24)], found)


# New data for a trained network.


@pytest.fixture(scope="module")
def image() -> Any:
    from made_data import make_spec

    return make_spec("image", (1, 8, 8))


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((3, 1, 9, 9), "an array of shape (3, 1, 9, 9)"),
        ((3, 9, 9), "an array of shape (3, 9, 9)"),
        ((2, 5, 6, 7), "an array of shape (2, 5, 6, 7)"),
        ((0, 1, 8, 8), "there are no samples"),
    ],
)
def test_a_wrong_shape_is_told_as_it_was_given(image: Any, shape: Any, told: str) -> None:
    with pytest.raises(litlab.DataError) as error:
        read_values(np.zeros(shape, np.uint8), image)
    assert told in error.value.what


def test_what_is_no_image_is_told_so(image: Any, tmp_path: Any) -> None:
    import pandas as pd

    (tmp_path / "README.md").write_text("# text")
    for given, told in (
        (tmp_path / "README.md", "not an image"),
        (pd.DataFrame({"a": [1]}), "a DataFrame"),
    ):
        with pytest.raises(litlab.DataError) as error:
            read_values(given, image)
        assert error.value.what.startswith(told)
        assert "IDX" not in error.value.what
