import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litlab.utils import errors
from litlab.utils.errors import ConfigError, Interrupted, nearest

CODES = {
    "ConfigError": 2,
    "DataError": 3,
    "CheckpointError": 4,
    "EnvironmentFault": 5,
    "NonFiniteError": 6,
}


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_exit_codes_are_those_of_the_contract(name: str, code: int) -> None:
    assert getattr(errors, name)("what", "where", "fix").exit_code == code


@given(st.text(), st.text(), st.text())
def test_message_is_one_line_whatever_it_holds(what: str, where: str, fix: str) -> None:
    message = str(ConfigError(what, where, fix))
    assert message.startswith("error: ")
    assert message.count(" | ") >= 2
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("error", [ConfigError("a", "b", "c"), Interrupted("a", "b", "c", 143)])
def test_survives_the_way_between_processes(error: errors.LitlabError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.exit_code) == (type(error), str(error), error.exit_code)


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("accurcy", ["accuracy", "f1"], "did you mean 'accuracy'?"),
        ("mlp", ["MLP", "CNN"], "did you mean 'MLP'?"),
        ("zzz", ["b", "a", "a"], "one of: a, b"),
        ("zzz", [], "there are no choices"),
    ],
)
def test_nearest(name: str, known: list[str], hint: str) -> None:
    assert nearest(name, known) == hint


def test_nearest_does_not_list_without_end() -> None:
    assert nearest("zzz", [f"{i:03}" for i in range(500)]).endswith("019, ...")
