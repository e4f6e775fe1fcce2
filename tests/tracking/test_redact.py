import pytest
from hypothesis import given
from hypothesis import strategies as st

from litlab.tracking.redact import redact, redact_spec


@pytest.mark.parametrize(
    ("given_uri", "shown"),
    [
        ("http://me:geheim@host:5000/x", "http://***@host:5000/x"),
        ("postgresql+psycopg://u:ge@heim@db/ml", "postgresql+psycopg://***@db/ml"),
        ("https://token@host", "https://***@host"),
        ("store at http://a:b@c and s3://d:e@f/g", "store at http://***@c and s3://***@f/g"),
        ("postgresql://db/ml?user=u&password=geheim&x=1", "postgresql://db/ml?user=u&password=***&x=1"),
        ("+source.api_key=geheim", "+source.api_key=***"),
        ("tracking.uri=http://u:p@h", "tracking.uri=http://***@h"),
        ("http://host/path@version", "http://host/path@version"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("me@example.org", "me@example.org"),
        ("model.pool=class_token", "model.pool=class_token"),
    ],
)  # fmt: skip
def test_uris_and_overrides(given_uri, shown):
    assert redact(given_uri) == shown


@pytest.mark.parametrize(
    "key",
    ["password", "db_password", "token", "API_KEY", "apikey", "client-secret", "aws.secret",
     "aws_secret_access_key", "private_key", "pwd"],
)  # fmt: skip
def test_secret_sounding_keys(key):
    assert redact({"a": {key: "geheim"}}) == {"a": {key: "***"}}
    assert redact({key: ["geheim", "geheim"]}) == {key: ["***", "***"]}


@pytest.mark.parametrize("key", ["num_tokens", "class_token", "pad_token", "tokenizer", "keys"])
def test_keys_that_only_sound_like_it(key):
    assert redact({key: "mean"}) == {key: "mean"}


def test_other_values_stay_as_they_are():
    value = {"lr": 0.1, "on": True, "none": None, "list": [1, "a"], "password": ""}
    assert redact(value) == value


secret = st.text("abcdefgh0123456789!$%*:@+", min_size=8)


@given(secret, st.sampled_from(["http", "postgresql", "mysql+pymysql", "S3"]))
def test_no_password_survives_in_a_uri(password, scheme):
    assert redact(f"{scheme}://user:{password}@host/x") == f"{scheme}://***@host/x"


def test_redacting_twice_changes_nothing():
    once = redact("http://me:geheim@host?token=abc")
    assert redact(once) == once


def test_a_spec_keeps_its_words():
    spec = {"vocabulary": ["http://a:b@c"], "origin": "http://a:b@c", "settings": {"token": "x"}}
    assert redact_spec(spec) == {
        "vocabulary": ["http://a:b@c"],
        "origin": "http://***@c",
        "settings": {"token": "***"},
    }
