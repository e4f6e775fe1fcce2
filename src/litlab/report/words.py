import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from litlab.data.spec import DataSpec

METRICS = {
    "accuracy": "share of correct predictions",
    "auroc": "area under the ROC curve",
    "bits": "bits per token",
    "ece": "expected calibration error",
    "exact_match": "share of samples whose labels are all right",
    "f1": "harmonic mean of precision and recall",
    "f1_macro": "mean of the labels' F1 scores",
    "f1_micro": "F1 of all decisions together",
    "hamming_loss": "share of wrong decisions",
    "mae": "mean absolute error",
    "mean_average_precision": "mean of the areas under the labels' precision-recall curves",
    "mse": "mean squared error",
    "perplexity": "perplexity per token",
    "r2": "share of the variance explained",
    "rmse": "root mean squared error",
}
# What the first sentence reports: the first of these that test has, else any metric but the loss.
FIRST = {
    "classification": ("accuracy",),
    "multi_label": ("mean_average_precision", "f1_macro", "f1_micro"),
    "regression": ("mae", "rmse", "mse", "r2"),
    "language_model": ("perplexity", "bits"),
}
LEADS = {"mean_average_precision": "mean average precision"}  # shorter than their meaning
SAMPLES = {"image": "image", "sequence": "sequence", "tabular": "row", "text": "text"}


def number(value: float) -> str:
    """Return a number as tables show it: four significant digits, thousands grouped."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size != 0 and (size < 1e-4 or size >= 1e9):
        return f"{value:.3e}".replace("-", "−")
    text = f"{value:,.0f}" if size >= 1e4 else f"{value:#,.4g}".rstrip(".")
    return text.replace("-", "−")


def percent(share: float) -> str:
    """Return a share of 1 in percent, with one decimal."""
    return f"{100 * share:.1f} %" if math.isfinite(share) else f"{number(share)} %"


def counted(n: int, noun: str) -> str:
    """Return "1 epoch", "2 epochs"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def listed(names: Sequence[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def lead(
    metrics: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, tuple[float, float]],
    spec: DataSpec,
    n: int,
    model: str,
    by_target: Mapping[str, Mapping[str, float]] | None = None,
) -> str:
    """Return what was trained on what and how well it did, in one sentence.

    Args:
        metrics: Split to metric to value.
        intervals: Test metric to its 95 % interval.
        spec: What the data are.
        n: Test samples that were predicted; 0 takes the number from the spec.
        model: Subject of the sentence.
        by_target: Of several targets, each one's test metrics: a mean over them mixes their units.
    """
    noun = "window" if spec.task == "language_model" else SAMPLES[spec.kind]
    trained = f"{model} was trained on {counted(spec.sizes.get('train', 0), noun)} of {spec.name}"
    aim = f"to tell {len(spec.classes)} classes apart"
    if spec.task == "multi_label":
        aim = f"to find which of {counted(len(spec.classes), 'label')} a {noun} has"
    elif spec.task == "regression":
        few = len(spec.targets) <= 3
        aim = f"to predict {listed(spec.targets) if few else f'{len(spec.targets)} targets'}"
    elif spec.task == "language_model":
        aim = "to predict the next token"
    test = metrics.get("test", {})
    if not test:
        return f"{trained} {aim}; it has not been evaluated on the test split."
    known = [name for name in FIRST[spec.task] if name in test]
    name = (known + [name for name in test if name != "loss"] + ["loss"])[0]
    tested = counted(n or spec.sizes.get("test", 0), f"test {noun}")
    each = {target: row[name] for target, row in (by_target or {}).items() if name in row}
    if each and len(each) <= 3:
        values = listed([f"{number(value)} for {target}" for target, value in each.items()])
        return f"{trained} {aim}: its {METRICS.get(name, name)} on {tested} is {values}."
    show = percent if name == "accuracy" else number
    name_of = LEADS.get(name, METRICS.get(name, name))
    said = f"its {name_of} on {tested} is {show(test[name])}"
    if name == "accuracy":
        said = f"it classifies {show(test[name])} of {tested} correctly"
    if name in intervals:
        low, high = intervals[name]
        said += f" (95 % interval {show(low).removesuffix(' %')} to {show(high)})"
    return f"{trained} {aim}: {said}."


def confusion_text(actual: Sequence[str], predicted: Sequence[str]) -> str:
    """Return in words what a confusion matrix shows."""
    wrong = Counter((a, p) for a, p in zip(actual, predicted, strict=True) if a != p)
    text = f"Confusion matrix of {counted(len(actual), 'test sample')}: "
    if not wrong:
        return text + "all are correct."
    (a, p), times = wrong.most_common(1)[0]
    if wrong.total() == 1:
        return text + "one is wrong."
    if times == 1:
        return text + f"{wrong.total():,} wrong, each in a different way."
    return text + f"{wrong.total():,} wrong; most often {a} is predicted as {p} ({times:,} times)."


def short_hash(value: str) -> str:
    """Return a checksum or commit by its first 12 digits, with its algorithm if it names one."""
    head, _, digits = value.rpartition(":")
    return f"{head}:{digits[:12]}" if head else digits[:12]


def hide_passwords(text: str) -> str:
    """Return text with the password of every `scheme://user:password@host` left out."""
    return re.sub(r"://[^/\s:@]*:[^/\s@]+@", "://***@", text)
