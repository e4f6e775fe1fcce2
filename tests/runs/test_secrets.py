"""No password ends up in a file that is committed."""

import pytest

from litlab.config.compose import load, write_params
from litlab.utils.errors import ConfigError

URI = "postgresql://user:hunter2@db.example.org/mlflow"


def test_params_yaml_takes_no_password(project):
    path = project / "params.yaml"
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI") as refusal:
        write_params([f"tracking.uri={URI}"], path)
    assert "hunter2" not in str(refusal.value)
    assert not path.exists()


def test_a_params_file_with_a_password_is_refused(project):
    path = project / "params.yaml"
    write_params([], path)
    path.write_text(path.read_text().replace("uri: null", f"uri: {URI}"))
    with pytest.raises(ConfigError, match="credentials") as refusal:
        load(params=path)
    assert "hunter2" not in str(refusal.value)


def test_the_command_line_may_carry_one(project):
    assert load([f"tracking.uri={URI}"]).tracking.uri == URI
