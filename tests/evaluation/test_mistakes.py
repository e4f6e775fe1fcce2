"""The worst test samples of a report, for each kind of data."""

import torch

from litlab.data.loading import Split
from litlab.data.spec import Column, DataSpec
from litlab.evaluation.inference import Outputs
from litlab.evaluation.results import MOST, surest, worst


def make_spec(kind: str, **changes) -> DataSpec:
    base = {
        "name": "made",
        "source": "made",
        "kind": kind,
        "task": "classification",
        "shape": (6,),
        "dtype": "float32",
        "classes": ("cat", "dog"),
        "sizes": {"train": 9, "val": 3, "test": 3},
        "licence": "none",
        "origin": "made here",
    }
    return DataSpec.model_validate(base | changes)


# Right; wrong and sure; wrong and unsure.
SURE = torch.tensor([[0.9, 0.1], [0.99, 0.01], [0.4, 0.6]])
LABELS = torch.tensor([0, 1, 0])
PLACES = torch.tensor([70, 71, 72])


def test_mistakes_of_a_table_in_the_order_of_their_confidence() -> None:
    columns = [Column(name=f"n{i}", kind="numeric") for i in range(5)]
    columns.append(Column(name="town", kind="categorical", categories=("Bern", "Rome")))
    x = torch.arange(18.0).view(3, 6) % 2
    found = worst(
        Outputs(SURE, SURE), Split(x, LABELS, PLACES), make_spec("tabular", columns=columns)
    )
    assert found is not None
    assert found.title == "Most confident mistakes"
    assert found.columns == ["Index", "n0", "n1", "n2", "n3", "Actual", "Predicted", "Confidence"]
    assert [row[0] for row in found.rows] == ["71", "72"]
    assert found.rows[0][-3:] == ["dog", "cat", "99.0 %"]
    assert found.rows[1][-3:] == ["cat", "dog", "60.0 %"]


def test_mistakes_of_texts_show_the_text() -> None:
    spec = make_spec("text", dtype="int32", vocabulary=("<pad>", "good", "bad"), pad_id=0)
    x = torch.tensor([[1, 1, 0], [2, 1, 0], [1, 2, 2]], dtype=torch.int32)
    found = worst(Outputs(SURE, SURE), Split(x, LABELS, PLACES), spec)
    assert found is not None
    assert [row[:2] for row in found.rows] == [["71", "bad good"], ["72", "good bad bad"]]


def test_mistakes_of_sequences_are_drawn() -> None:
    spec = make_spec("sequence", shape=(2, 400))
    x = torch.randn(3, 2, 400)
    x[1, 0, 5] = torch.nan
    found = worst(Outputs(SURE, SURE), Split(x, LABELS, PLACES), spec)
    assert found is not None
    assert len(found.curves) == len(found.rows) == 2
    points = [tuple(map(float, point.split(","))) for point in found.curves[0].split()]
    assert len(points) == 120
    assert all(0 <= a <= 100 and 0 <= b <= 30 for a, b in points)


def test_the_largest_errors_of_two_targets_in_their_own_deviations() -> None:
    spec = make_spec(
        "tabular", task="regression", classes=(), features=tuple("abcdef"),
        targets=("km", "kg"), target_mean=(0.0, 0.0), target_std=(1.0, 1000.0),
    )  # fmt: skip
    y = torch.zeros(3, 2)
    predictions = torch.tensor([[0.5, 900.0], [-3.0, 0.0], [0.0, torch.nan]])
    found = worst(Outputs(y, predictions), Split(torch.ones(3, 6), y, PLACES), spec)
    assert found is not None
    assert found.columns[-4:] == ["Target", "Actual", "Predicted", "Error"]
    named = [(row[0], *row[-4:]) for row in found.rows[:3]]
    assert named == [
        ("72", "kg", "0", "nan", "nan"),
        ("71", "km", "0", "-3", "-3"),
        ("70", "kg", "0", "900", "900"),
    ]


def test_images_have_their_gallery_and_no_mistake_has_no_section() -> None:
    spec = make_spec("image", shape=(1, 2, 2), dtype="uint8")
    split = Split(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), LABELS, PLACES)
    assert worst(Outputs(SURE, SURE), split, spec) is None
    assert [m.predicted for m in surest(Outputs(SURE, SURE), split, spec)] == ["cat", "dog"]
    right = SURE.argmax(1)
    table = make_spec("tabular", features=tuple("abcdef"))
    assert worst(Outputs(SURE, SURE), Split(torch.ones(3, 6), right, PLACES), table) is None


def test_no_more_than_a_dozen() -> None:
    spec = make_spec("tabular", features=tuple("abcdef"))
    many = torch.tensor([[0.9, 0.1]] * 50)
    split = Split(torch.ones(50, 6), torch.ones(50, dtype=torch.long), torch.arange(50))
    found = worst(Outputs(many, many), split, spec)
    assert found is not None
    assert [row[0] for row in found.rows] == [str(i) for i in range(MOST)]


def test_a_table_without_names_of_columns() -> None:
    found = worst(
        Outputs(SURE, SURE), Split(torch.ones(3, 6), LABELS, PLACES), make_spec("tabular")
    )
    assert found is not None
    assert found.columns[:3] == ["Index", "feature 0", "feature 1"]
