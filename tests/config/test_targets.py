import ast
import sys
from pathlib import Path

import pytest

from litlab.config import instantiate
from litlab.utils.errors import ConfigError

REFUSED = [
    "os.system",
    "subprocess.Popen",
    "torch.hub.load",
    "torch.load",
    "torchmetrics.text.BERTScore",  # downloads weights by name
    "torchmetrics.image.fid.FrechetInceptionDistance",
    "torchmetrics.Accuracy",
    "lightning.pytorch.callbacks.LambdaCallback",
    "litlab",
    "litlabx.models.Net",
    "litlab.config.instantiate.build",  # would build what its own arguments name
    "litlab.config.instantiate.locate",
    "litlab.tasks.metrics.build_metrics",
    "litlab.data.augmentations.build_augmentations",
    "litlab.runs.folder.make_folder",
    "litlab.cli.main.main",
    "torch.nn._reduction.get_enum",
    "litlab.data.sources.idx._download",
    "builtins.eval",
    "os.system('true')",
    "litlab.models.mlp.MLP ",
    "../litlab.models.mlp.MLP",
    "litlab.models.mlp.MLP\n",
    "",
    None,
    3,
    ["litlab.models.mlp.MLP"],
]


@pytest.mark.parametrize("target", REFUSED)
def test_refuses_by_name(target: object) -> None:
    with pytest.raises(ConfigError) as error:
        instantiate.check(target, "model._target_", ())
    assert error.value.where == "model._target_"


@pytest.mark.parametrize(
    "target",
    [
        "litlab.models.cnn.prod",  # math's
        "litlab.models.mlp.nn",  # a module
        "litlab.models.layers.CONVOLUTIONS",  # a dict
        "litlab.tasks.task.Any",
        "litlab.data.sources.idx.urllib",
    ],
)
def test_refuses_what_is_defined_elsewhere(target: str) -> None:
    with pytest.raises(ConfigError, match="not a class or function of a trusted package"):
        instantiate.locate(target, "model", ())


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("litlab.tasks.task.torch.hub.load", "no module"),
        ("litlab.models.mlp.nn.Linear", "no module"),
        ("litlab.models.mlpp.MLP", "no module"),
        ("litlab.models.mlp.MLPP", "did you mean 'MLP'"),
    ],
)
def test_paths_that_lead_nowhere(target: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        instantiate.locate(target, "model", ())


def test_other_metrics_need_trust() -> None:
    for target in ("classification.MulticlassF1Score", "regression.R2Score"):
        instantiate.locate(f"torchmetrics.{target}", "metrics.x", ())
    with pytest.raises(ConfigError, match=r"trust=\[torchmetrics\]"):
        instantiate.check("torchmetrics.MeanMetric", "metrics.x", ())
    instantiate.locate("torchmetrics.MeanMetric", "metrics.x", ["torchmetrics"])


def test_a_users_module_needs_trust(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    (project / "my_nets.py").write_text("class Net:\n    def __init__(self, spec, *, x=1): ...\n")
    with pytest.raises(ConfigError, match=r"trust=\[my_nets\]"):
        instantiate.locate("my_nets.Net", "model", ())
    assert "my_nets" not in sys.modules
    built = instantiate.build({"_target_": "my_nets.Net"}, None, where="model", trust=["my_nets"])
    assert type(built).__name__ == "Net"
    with pytest.raises(ConfigError):
        instantiate.check("my_nets_too.Net", "model", ["my_nets"])
    del sys.modules["my_nets"]


@pytest.mark.parametrize("room", ["metrics.x", "data.source", "model"])
def test_a_strangers_configuration_cannot_build_its_own_way_out(room: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    inner = {"_target_": "pathlib.Path.touch", "self": str(canary)}
    node = {
        "_target_": "litlab.config.instantiate.build",
        "node": inner,
        "where": "x",
        "trust": ["pathlib"],
    }
    with pytest.raises(ConfigError, match="not in a trusted package"):
        instantiate.build(node, where=room)
    assert not canary.exists()


def test_a_refused_hyperparameter_is_a_configuration_error() -> None:
    node = {"_target_": "litlab.data.sources.synthetic.Synthetic", "colour": "red"}
    with pytest.raises(ConfigError, match="colour") as error:
        instantiate.build(node, where="data.source")
    assert "choose another 'data'" in error.value.fix


def test_nothing_that_a_target_may_name_takes_what_to_trust() -> None:
    """It would build what its own arguments name, trusted by the same arguments."""
    source = Path(instantiate.__file__).parents[1]
    taking = []
    for path in source.rglob("*.py"):
        module = ".".join(["litlab", *path.relative_to(source).with_suffix("").parts])
        for node in ast.walk(ast.parse(path.read_text())):
            named = f"{module}.{getattr(node, 'name', '')}".startswith(instantiate.COMPONENTS)
            if named and isinstance(node, ast.FunctionDef) and "trust" in ast.unparse(node.args):
                taking.append(f"{module}.{node.name}")
    assert taking == []
