import json
from statistics import fmean, stdev

import pytest

from litlab.data.loading import open_split
from litlab.data.spec import DataSpec
from litlab.training.crossval import cross_validate
from litlab.utils.errors import ConfigError
from run_helpers import SMALL, THIRD_PARTY, mlflow_run, ready_store, small

pytestmark = THIRD_PARTY


def test_every_sample_is_validated_once_and_the_scores_are_summed_up(project) -> None:
    ready_store(project)
    result = cross_validate(small("data.num_folds=3"))
    assert [run.record.run_name for run in result.runs] == [
        f"synthetic-simplenn-fold{fold}of3" for fold in (1, 2, 3)
    ]
    val, test = [], []
    for fold in (1, 2, 3):
        folder = project / "data" / "prepared" / f"synthetic-fold{fold}of3"
        spec = DataSpec.load(folder)
        val += open_split(folder, spec, "val").source_index.tolist()
        test.append(open_split(folder, spec, "test").source_index.tolist())
    assert test[0] == test[1] == test[2]
    assert sorted(val + test[0]) == list(range(150))
    scores = [run.record.metrics["val/accuracy"] for run in result.runs]
    assert result.metrics["val/accuracy"] == (fmean(scores), stdev(scores))
    tags = [mlflow_run(project, run.record.run_id).data.tags for run in result.runs]
    assert [tag["cv.fold"] for tag in tags] == ["0", "1", "2"]
    assert {tag["cv"] for tag in tags} == {"synthetic-simplenn"}


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        ((), "data.num_folds"),
        (("data.num_folds=3", "data.fold=1"), "data.fold=1"),
        (("data.num_folds=3", "trainer.devices=2"), "trainer.devices"),
    ],
)
def test_refusals(project, overrides, where) -> None:
    with pytest.raises(ConfigError) as caught:
        cross_validate(small(*overrides))
    assert caught.value.where == where


def test_the_verb(project, litlab) -> None:
    ready_store(project)
    code, out, err = litlab("cv", *SMALL, "data.num_folds=2", "--json")
    assert code == 0
    said = json.loads(out)
    assert len(said["runs"]) == 2
    scores = [mlflow_run(project, run).data.metrics["best/val/accuracy"] for run in said["runs"]]
    assert said["metrics"]["val/accuracy"] == pytest.approx(fmean(scores))
    assert said["deviations"]["val/accuracy"] == pytest.approx(stdev(scores))
    assert "2 folds, mean \u00b1 standard deviation" in err
