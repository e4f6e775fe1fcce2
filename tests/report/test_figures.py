import base64
import io
import math
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import confusion_matrix as count_pairs

from litlab.report import figures
from litlab.report.intervals import calibration_bins, calibration_error


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 60)  # half the pixels each way, for speed


def pixels(figure: Figure) -> np.ndarray:
    """Decode the figure's data URI; drawing it is where a bad label or scale would fail."""
    head, _, body = figures.data_uri(figures.png(figure)).partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB"))


def titles(figure: Figure) -> list[str]:
    return [axes.get_title("left") for axes in figure.axes]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


FULL = [
    {
        "epoch": e,
        "train/accuracy": 0.5 + e / 50,
        "train/loss": 2 / (e + 1),
        "val/loss": 3 / (e + 1),
        "val/accuracy": 0.4 + e / 50,
        "lr": 0.1 * 0.5**e,
    }
    for e in range(12)
]


def test_learning_curves_has_a_panel_a_quantity_with_the_loss_first() -> None:
    figure = figures.learning_curves(FULL, best_epoch=7)
    assert titles(figure) == ["loss", "accuracy", "learning rate"]
    assert set(legend(figure)) == {
        "train",
        "validation",
        "best epoch (8)",
    }
    assert figure.axes[0].get_title("right") == "validation 0.375 at best"
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    np.testing.assert_allclose(lines["validation"].get_ydata(), [r["val/accuracy"] for r in FULL])
    np.testing.assert_allclose(lines["train"].get_xdata(), range(1, 13))
    assert pixels(figure).std() > 5


@pytest.mark.parametrize(
    ("missing", "columns"),
    [("epoch", 1), ("lr", 2), ("lr", 1), ("val/loss", 2), ("train/accuracy", 2), ("train/loss", 1)],
)
def test_learning_curves_does_without_any_column(missing: str, columns: int) -> None:
    history = [{k: v for k, v in row.items() if k != missing} for row in FULL]
    figure = figures.learning_curves(history, 3, columns)
    assert ("learning rate" in titles(figure)) == (missing != "lr")
    assert titles(figure)[:2] == ["loss", "accuracy"]


def test_learning_curves_joins_over_none_and_breaks_at_nan() -> None:
    values = [1.0, None, 3.0, math.nan, math.inf, 6.0]
    history = [{"epoch": e, "val/loss": value} for e, value in enumerate(values)]
    figure = figures.learning_curves(history, None)
    line = figure.axes[0].lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [1, 3, 4, 5, 6])
    np.testing.assert_array_equal(line.get_ydata(), [1, 3, math.nan, math.nan, 6])
    pixels(figure)


@pytest.mark.parametrize("value", [1.0, 0.0, math.nan])
def test_learning_curves_of_one_epoch(value: float) -> None:
    history = [{"epoch": 0, "train/loss": value, "val/loss": value, "lr": 0.1}]
    pixels(figures.learning_curves(history, 0))


@pytest.mark.parametrize("history", [[], [{"epoch": 0}], [{"test/loss": 1.0}], [{"val/x": None}]])
def test_learning_curves_of_nothing_says_so(history: list[dict[str, float | None]]) -> None:
    figure = figures.learning_curves(history, 0)
    assert "no values" in figure.texts[0].get_text()
    pixels(figure)


def test_only_a_loss_that_falls_far_gets_a_logarithm() -> None:
    history = [{"epoch": e, "val/loss": 10.0**-e, "val/accuracy": 0.9**e} for e in range(60)]
    loss, accuracy = figures.learning_curves(history, None).axes
    assert (loss.get_yscale(), accuracy.get_yscale()) == ("log", "linear")
    history[3]["val/loss"] = -1.0
    assert figures.learning_curves(history, None).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("n", [2, 13, 21, 100])
@pytest.mark.parametrize("columns", [1, 2])
def test_confusion_matrix_counts_like_sklearn(n: int, columns: int) -> None:
    classes = [f"kind {i}" for i in range(n)]
    rng = np.random.default_rng(0)
    actual = np.repeat(classes[:-1], 5)  # the last class has no samples
    predicted = np.where(rng.random(len(actual)) < 0.6, actual, rng.choice(classes, len(actual)))
    figure = figures.confusion_matrix(actual, predicted, classes, columns)
    counts = count_pairs(actual, predicted, labels=classes)
    axes = figure.axes[0]
    shown = axes.images[0].get_array()
    np.testing.assert_allclose(shown[:-1], counts[:-1] / counts[:-1].sum(1, keepdims=True))
    np.testing.assert_array_equal(shown[-1], 0)
    written = [int(text.get_text().replace("·", "0")) for text in axes.texts]
    assert written == ([] if n > 20 else counts.ravel().tolist())
    assert len(axes.get_xticks()) == len(axes.get_yticks()) <= 40
    assert len(figure.axes) == columns  # the colour bar is left out on a phone
    if n in (2, 100):  # drawing takes most of the time, so only the ends
        assert max(pixels(figure).shape) < 600


def test_class_names_are_never_taken_for_mathematics() -> None:
    classes = ["$\\frac{$", "a_b^c $x$", "汉字", "long " * 20]
    figure = figures.confusion_matrix(classes, classes, classes)
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[:2] == classes[:2]
    assert len(labels[3]) == 18
    pixels(figure)
    pixels(figures.learning_curves([{"val/$\\bad{": 1.0}], None))
    pixels(figures.predicted_against_true(np.arange(3), np.arange(3), "$\\bad{"))


@pytest.mark.parametrize("columns", [1, 2])
def test_predicted_against_true_shows_pairs_and_residuals(columns: int) -> None:
    rng = np.random.default_rng(0)
    actual = rng.normal(50, 9, 200)
    predicted = actual + rng.normal(2, 1, 200)
    figure = figures.predicted_against_true(actual, predicted, "price (EUR)", columns)
    scatter, residuals = figure.axes
    np.testing.assert_allclose(scatter.collections[0].get_offsets(), np.c_[actual, predicted])
    assert scatter.get_xlim() == scatter.get_ylim()
    assert sum(bar.get_height() for bar in residuals.patches) == 200
    assert "price (EUR)" in scatter.get_xlabel() + residuals.get_xlabel()
    means = [line for line in residuals.lines if "mean" in line.get_label()]
    assert means[0].get_xdata()[0] == pytest.approx((predicted - actual).mean())
    pixels(figure)


def test_predicted_against_true_counts_what_is_not_finite() -> None:
    predicted = np.array([1.0, math.nan, 3.0, math.inf])
    figure = figures.predicted_against_true(np.arange(4.0), predicted, "y")
    assert figure.axes[0].get_title("right") == "2 non-finite values left out"
    figure = figures.predicted_against_true(np.arange(2.0), np.full(2, math.nan), "y")
    assert "finite" in figure.texts[0].get_text()


@pytest.mark.parametrize(("scale", "n"), [(0.0, 1), (1.0, 5), (1e30, 5)])
def test_predicted_against_true_of_a_constant(scale: float, n: int) -> None:
    pixels(figures.predicted_against_true(np.zeros(n), np.full(n, scale), "y"))


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.05, 0.1, 0.85, 0.95, 1.0])
    correct = np.array([False, True, True, True, False])
    # (0, .1]: right .5, sure .075; (.8, .9]: 1, .85; (.9, 1]: .5, .975
    by_hand = (2 * 0.425 + 1 * 0.15 + 2 * 0.475) / 5
    assert calibration_error(correct, confidence) == pytest.approx(by_hand)
    bins = calibration_bins(correct, confidence)
    assert bins.number.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 1, 2]
    figure = figures.reliability(correct, confidence)
    assert figure.axes[0].get_title("right") == f"ECE {by_hand:.4f} in 10 bins"
    pixels(figure)


def test_calibration_of_odd_input() -> None:
    assert math.isnan(calibration_error(np.array([]), np.array([])))
    nan_left_out = calibration_error(np.array([True, True]), np.array([0.75, math.nan]))
    assert nan_left_out == pytest.approx(0.25)
    pixels(figures.reliability(np.array([True]), np.array([math.nan])))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        calibration_error(np.array([True]), np.array([97.0]))
    with pytest.raises(ValueError, match="shape"):
        calibration_error(np.array([True]), np.array([0.5, 0.5]))


def test_save_png_makes_folders_and_repeats_byte_for_byte(tmp_path) -> None:
    for name in ("a", "b"):
        figures.save_png(figures.learning_curves(FULL, 7), tmp_path / name / "curves.png")
    first, second = ((tmp_path / name / "curves.png").read_bytes() for name in ("a", "b"))
    assert first[:8] == b"\x89PNG\r\n\x1a\n"
    assert first == second


def test_report_draws_without_pyplot_or_torch() -> None:
    code = (
        "import sys, litlab.report.page; "
        "print([m for m in ('matplotlib.pyplot', 'torch', 'lightning', 'mlflow') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_quantities_ignore_the_test_split_and_what_is_empty() -> None:
    history = [{"val/b": 1.0, "test/a": 1.0, "val/c": None}, {"train/loss": 1.0, "lr": 1.0}]
    assert figures.quantities(history) == ["loss", "b"]
