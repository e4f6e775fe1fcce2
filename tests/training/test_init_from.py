import json
from shutil import rmtree
from typing import Any

import pytest
import torch

from litlab.data.prepare.open import open_or_prepare
from litlab.runs.checkpoint.metadata import load
from litlab.tasks.build import build_model
from litlab.training.crossval import cross_validate
from litlab.training.warm_start import REPORT, init_from
from litlab.utils.errors import CheckpointError
from run_helpers import THIRD_PARTY, mlflow_run, small, small_run

pytestmark = THIRD_PARTY


def mlp(*hidden: int) -> dict[str, Any]:
    return {"_target_": "litlab.models.mlp.MLP", "hidden": hidden}


def fresh(model, *overrides):
    config = small(*overrides, model=model)
    _, spec = open_or_prepare(config.data, config.trust)
    torch.manual_seed(5)
    return build_model(config, spec), spec


MORE = ("data.name=more", "data.source.num_classes=5")


@pytest.fixture
def source(project):
    return small_run(project, model=mlp(8, 6))


def entries(result):
    weights = load(result.checkpoint).weights
    return {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}


def test_the_same_model_is_taken_whole(source):
    model, spec = fresh(mlp(8, 6))
    report = init_from(model, spec, source.folder.name)
    assert (report.reinitialized, report.missing, report.unused, report.notes) == ({}, [], [], [])
    assert report.run_id == source.record.run_id
    theirs = entries(source)
    assert set(report.taken) == set(theirs)
    assert all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())


def test_a_head_for_other_classes_is_initialized_anew(source):
    model, spec = fresh(mlp(8, 6), *MORE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = init_from(model, spec, str(source.checkpoint))
    assert report.reinitialized == {"output.weight": "3x6 for 5x6", "output.bias": "3 for 5"}
    theirs = entries(source)
    for name, value in model.state_dict().items():
        expected = before if name.startswith("output") else theirs
        assert torch.equal(value, expected[name]), name
    assert "output.weight 3x6 for 5x6" in str(report)


def test_what_one_of_them_lacks_is_named(source):
    model, spec = fresh(mlp(8, 6, 6))
    report = init_from(model, spec, "last")
    assert report.missing == [
        n for n in model.state_dict() if n.startswith(("hidden.8", "hidden.9"))
    ]
    model, spec = fresh(mlp(8))
    report = init_from(model, spec, "last")
    assert {name.split(".")[1] for name in report.unused} == {"4", "5"}
    assert "not in this model" in str(report)


@pytest.mark.parametrize("model", [mlp(3, 3), {"_target_": "litlab.models.cnn.CNN"}])
def test_when_nothing_fits_it_is_refused(source, model):
    """Batch norm's counters always have the same shape; they are no weights."""
    built, spec = fresh(model, *MORE)
    with pytest.raises(CheckpointError, match="none of its weights fits") as caught:
        init_from(built, spec, "last")
    assert caught.value.exit_code == 4


def test_other_classes_of_the_same_number_are_pointed_out(source):
    model, spec = fresh(mlp(8, 6))
    renamed = spec.model_copy(update={"classes": tuple(f"new {c}" for c in spec.classes)})
    assert "the classes or their order differ" in str(init_from(model, renamed, "last"))


def test_weights_that_have_seen_what_is_now_validation_are_pointed_out(source):
    for override, seen in (("data.split_seed=1", True), ("data.source.seed=1", False)):
        model, spec = fresh(mlp(8, 6), "data.name=again", override)
        assert ("with another split" in str(init_from(model, spec, "last"))) == seen
        rmtree("data/prepared/again")


def test_all_folds_begin_with_the_same_weights(source, project):
    result = cross_validate(small("init_from=last", "data.num_folds=2", model=mlp(8, 6)))
    told = [json.loads((run.folder / REPORT).read_text()) for run in result.runs]
    assert {report["run_id"] for report in told} == {source.record.run_id}
    assert all("with another split" in " ".join(report["notes"]) for report in told)


def test_a_run_begins_with_them_and_says_so(source, project, capsys):
    reference = source.folder.name
    result = small_run(
        project, f"init_from={reference}", *MORE, "trainer.freeze=[hidden]", model=mlp(8, 6)
    )
    told = json.loads((result.folder / REPORT).read_text())
    assert told["run_id"] == source.record.run_id
    assert set(told["reinitialized"]) == {"output.weight", "output.bias"}
    assert "entries taken" in capsys.readouterr().err
    theirs, own = entries(source), entries(result)
    for name in told["taken"]:  # all of it frozen
        assert torch.equal(theirs[name], own[name])
    params = mlflow_run(project, result.record.run_id).data.params
    assert params["init_from"] == reference
    with pytest.raises(CheckpointError, match="no such run"):
        small_run(project, "init_from=nothing_of_that_name", model=mlp(8, 6))


def test_frozen_weights_that_nobody_trained_are_pointed_out(source, project, capsys):
    frozen = "trainer.freeze=[hidden.4,hidden.8]"
    small_run(project, "init_from=last", frozen, model=mlp(8, 6, 6))
    assert "frozen, but newly initialized: hidden.8.weight" in capsys.readouterr().err


def test_the_average_is_what_is_begun_with(project):
    source = small_run(project, "trainer.ema={decay: 0.9}", model=mlp(8, 6))
    model, spec = fresh(mlp(8, 6))
    init_from(model, spec, "last")
    content = torch.load(source.checkpoint, weights_only=True)["state_dict"]
    assert torch.equal(model.state_dict()["output.weight"], content["model.output.weight"])
