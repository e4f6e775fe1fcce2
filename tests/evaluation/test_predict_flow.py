import csv
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from litlab.evaluation.evaluate import evaluate
from litlab.evaluation.predict import predict
from run_helpers import THIRD_PARTY, small_run

pytestmark = THIRD_PARTY


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch):
    monkeypatch.setattr(
        "litlab.evaluation.results.ROUNDS", 20
    )  # of the bootstrap, which has its own tests


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def array_input(project):
    """The test split's inputs, as a user would have them."""
    return load_file(project / "data/prepared/synthetic/test.safetensors")["x"]


@pytest.mark.parametrize("kind", ["tabular", "sequence", "image"])
def test_labels_are_those_of_the_evaluation(project, kind):
    small_run(project, f"data.source.kind={kind}")
    evaluated = read(evaluate("last").folder / "predictions.csv")
    np.save(project / "new.npy", array_input(project))
    count = predict("last", project / "new.npy", project / "out.csv")
    predicted = read(project / "out.csv")
    assert count == len(predicted) == len(evaluated)
    assert [p["prediction"] for p in predicted] == [e["predicted"] for e in evaluated]
    mine = [float(p["confidence"]) for p in predicted]
    assert mine == pytest.approx([float(e["confidence"]) for e in evaluated], abs=1e-5)
    for row in predicted:
        assert sum(float(row[f"p(class{i})"]) for i in range(3)) == pytest.approx(1, abs=1e-4)


def test_a_table_in_csv(project):
    small_run(project, "data.source.kind=tabular")
    evaluated = read(evaluate("last").folder / "predictions.csv")
    header = ",".join(f"x{i}" for i in range(6))
    np.savetxt(project / "new.csv", array_input(project), delimiter=",", header=header, comments="")
    predict("last", project / "new.csv", project / "out.csv")
    predicted = [row["prediction"] for row in read(project / "out.csv")]
    assert predicted == [row["predicted"] for row in evaluated]


def test_a_checkpoint_by_itself_needs_no_project(project, litlab, monkeypatch, tmp_path_factory):
    result = small_run(project, "data.source.kind=tabular")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    np.save(elsewhere / "new.npy", array_input(project))
    shutil.copy(result.checkpoint, elsewhere)
    monkeypatch.chdir(elsewhere)
    assert litlab("predict", "best.ckpt", "new.npy", "-o", "out.csv")[0] == 0
    assert len(read(elsewhere / "out.csv")) == len(np.load("new.npy"))
    assert {path.name for path in elsewhere.iterdir()} == {"new.npy", "best.ckpt", "out.csv"}


def test_a_folder_of_images(project):
    small_run(project)
    evaluated = read(evaluate("last").folder / "predictions.csv")
    (project / "images").mkdir()
    for number, image in enumerate(array_input(project)):
        Image.fromarray(image[0], mode=None).save(project / "images" / f"{number:04}.png")
    predict("last", project / "images", project / "out.csv")
    predicted = [row["prediction"] for row in read(project / "out.csv")]
    assert predicted == [row["predicted"] for row in evaluated]


def test_regression_in_its_own_unit(project):
    small_run(project, "data.source.num_classes=0", "data.stratify=false", "task=regression")
    evaluated = read(evaluate("last").folder / "predictions.csv")
    np.save(project / "new.npy", array_input(project))
    predict("last", project / "new.npy", project / "out.csv")
    mine = [float(row["target"]) for row in read(project / "out.csv")]
    assert mine == pytest.approx([float(row["predicted"]) for row in evaluated], rel=1e-4)


def test_a_checkpoint_alone_is_enough(project, monkeypatch, tmp_path_factory):
    run = small_run(project)
    evaluated = read(evaluate("last").folder / "predictions.csv")
    np.save(project / "new.npy", array_input(project))
    shutil.copy(run.checkpoint, project / "alone.ckpt")
    shutil.rmtree(project / "runs")
    shutil.rmtree(project / "data")
    predict("alone.ckpt", project / "new.npy", project / "out.csv")
    predicted = [row["prediction"] for row in read(project / "out.csv")]
    assert predicted == [row["predicted"] for row in evaluated]
