import os

import pytest

from litlab.runs.tracking.address import tracking_uri
from litlab.utils.redact import redact

ADDRESS = "http://me:ge%40heim-geheim@host:5000/x"


@pytest.fixture(autouse=True)
def clean(project, monkeypatch):
    """The variables as they were, whatever is lent."""
    for name in ("URI", "USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    yield
    tracking_uri("http://nowhere", project)


def lent():
    return tuple(os.environ.get(f"MLFLOW_TRACKING_{n}") for n in ("USERNAME", "PASSWORD"))


def test_an_address_gives_its_password_to_the_environment(project):
    assert tracking_uri(ADDRESS, project) == "http://host:5000/x"
    assert lent() == ("me", "ge@heim-geheim")
    assert tracking_uri("http://host:5000/x", project) == "http://host:5000/x"
    assert lent() == ("me", "ge@heim-geheim")  # the same server
    assert redact("it says ge@heim-geheim") == "it says ***"
    assert redact("it says ge%40heim-geheim") == "it says ***"


def test_the_variable_loses_its_password_too(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESS)
    for _ in range(2):
        assert tracking_uri(None, project) == "http://host:5000/x"
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://host:5000/x"
        assert lent() == ("me", "ge@heim-geheim")


def test_a_password_is_for_its_own_server_only(project, monkeypatch):
    tracking_uri(ADDRESS, project)
    assert tracking_uri("http://other", project) == "http://other"
    assert lent() == (None, None)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "mine")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "own")
    tracking_uri(ADDRESS, project)
    tracking_uri("http://you:theirs@third", project)
    assert lent() == ("you", "theirs")
    tracking_uri("http://other", project)
    assert lent() == ("mine", "own")


def test_a_recorded_address_gets_its_password_from_the_environment(project, monkeypatch):
    assert tracking_uri("http://***@host:5000/x", project) == "http://host:5000/x"
    assert lent() == (None, None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESS)
    for _ in range(2):
        assert tracking_uri("http://***@host:5000/x", project) == "http://host:5000/x"
        assert lent() == ("me", "ge@heim-geheim")
    assert tracking_uri("http://***@other", project) == "http://other"
    assert lent() == (None, None)


def test_a_user_without_a_password_leaves_the_variable(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "own")
    assert tracking_uri("http://me@host", project) == "http://host"
    assert lent() == ("me", "own")


@pytest.mark.parametrize("uri", ["postgresql://u:geheim@db/ml", "databricks://profile"])
def test_other_stores_get_their_address_whole(project, uri):
    assert tracking_uri(uri, project) == uri
    assert lent() == (None, None)
