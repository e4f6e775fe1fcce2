"""The README's example of a new model, taken out of the README and run."""

import re
import sys
from pathlib import Path

import pytest

from litlab.config.compose import load
from litlab.utils.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def example(project, monkeypatch):
    """Write the two blocks as a module beside conf/ and a choice of conf/model."""
    section = (ROOT / "README.md").read_text().split("## Add a model")[1].split("\n## ")[0]
    (python,) = re.findall(r"```python\n(.*?)```", section, flags=re.S)
    (yaml,) = re.findall(r"```yaml\n(.*?)```", section, flags=re.S)
    (project / "readme_model.py").write_text(python)
    yaml = yaml.replace("litlab.models.linear", "readme_model")
    (project / "conf" / "model" / "linear.yaml").write_text(yaml)
    monkeypatch.syspath_prepend(project)
    yield project
    sys.modules.pop("readme_model", None)


def test_the_new_model_trains(example):
    from litlab.training.run import train

    overrides = ["data=synthetic", "trainer=debug", "trainer.progress=none"]
    overrides += ["model=linear", "model.dropout=0.2", "trust=[readme_model]"]
    result = train(load(overrides))
    assert result.record.status == "FINISHED"
    assert result.record.num_parameters == 12 * 12 * 3 + 3


def test_its_signature_is_its_schema(example):
    with pytest.raises(ConfigError, match=r"model\.dropout"):
        load(["model=linear", "model.dropout=1.5", "trust=[readme_model]"])
    with pytest.raises(ConfigError, match="did you mean 'dropout'"):
        load(["model=linear", "+model.droput=0.5", "trust=[readme_model]"])
