"""Several labels a sample: metrics against scikit-learn, thresholds against every possible one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn
from torch import nn
from torch.nn import functional as F

from litlab.data.augment.draws import Draws
from litlab.data.augment.mixing import CutMix, Mixup
from litlab.data.spec import DataSpec
from litlab.tasks.losses.multi_label import LabelCrossEntropy, LabelFocal
from litlab.tasks.multi_label import (
    ExactMatch,
    HammingLoss,
    LabelF1,
    MeanAveragePrecision,
    MultiLabelTask,
    average_precisions,
    best_thresholds,
)


def spec_of(counts: tuple[int, ...] = (30, 10, 3), task: str = "multi_label") -> DataSpec:
    return DataSpec.model_validate(
        {
            **{"name": "made", "source": "made", "kind": "tabular", "task": task},
            **{"shape": (4,), "dtype": "float32", "mean": (0.0,) * 4, "std": (1.0,) * 4},
            **{"classes": ("a", "b", "c"), "class_counts": counts, "sizes": {"train": 40}},
            **{"licence": "none", "origin": "made"},
        }
    )


def samples(number: int = 60, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `(N, 3)` that tell something of the targets, and the targets."""
    rng = np.random.default_rng(number)
    y = (rng.random((number, 3)) < (0.7, 0.3, 0.1)).astype(np.uint8)
    y[0] = 1
    p = np.clip(0.3 * y + 0.7 * rng.random((number, 3)), 0, 1)
    return (p.round(1) if ties else p).astype(np.float32), y


def measured(metric, p, y, batches: int = 3) -> float:
    for part, truth in zip(np.array_split(p, batches), np.array_split(y, batches), strict=True):
        metric.update(torch.from_numpy(part), torch.from_numpy(truth))
    return float(metric.compute())


@pytest.mark.parametrize("ties", [True, False])
def test_metrics_are_those_of_scikit_learn(ties: bool) -> None:
    p, y = samples(ties=ties)
    limits = np.array([0.6, 0.35, 0.2], np.float32)
    decided = p >= limits
    expected = {
        LabelF1(3, average="macro"): sklearn.f1_score(y, decided, average="macro"),
        LabelF1(3, average="micro"): sklearn.f1_score(y, decided, average="micro"),
        ExactMatch(): sklearn.accuracy_score(y, decided),
        HammingLoss(): sklearn.hamming_loss(y, decided),
        MeanAveragePrecision(): sklearn.average_precision_score(y, p, average="macro"),
    }
    for metric, value in expected.items():
        metric.thresholds = torch.from_numpy(limits)
        assert measured(metric, p, y) == pytest.approx(value, abs=1e-6), metric


def test_a_label_that_no_sample_has_is_left_out_of_the_mean() -> None:
    p, y = samples()
    y[:, 2] = 0
    each = average_precisions(p, y)
    assert np.isnan(each[2])
    assert measured(MeanAveragePrecision(), p, y) == pytest.approx(each[:2].mean())
    assert best_thresholds(p, y)[2] == 0.5


ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.500001, 0.9, 1.0]), st.booleans()),
    min_size=1,
    max_size=12,
)


@given(ROWS)
def test_no_threshold_has_a_larger_f1(rows) -> None:
    p = np.array([[value] for value, _ in rows], np.float32)
    y = np.array([[found] for _, found in rows], np.uint8)
    chosen = best_thresholds(p, y)

    def f1(limit: float) -> float:
        return float(sklearn.f1_score(y[:, 0], p[:, 0] >= limit, zero_division=0))

    every = [f1(limit) for limit in [*np.unique(p), 2.0]]
    if y.any():
        assert f1(chosen[0]) == pytest.approx(max(every))
    else:
        assert chosen[0] == 0.5


def test_thresholds_between_neighbours_of_float32() -> None:
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    p, y = np.array([[high], [low]]), np.array([[1], [0]])
    assert (p >= best_thresholds(p, y)).tolist() == [[True], [False]]


def test_the_cross_entropy_is_that_of_torch() -> None:
    logits, target = torch.randn(5, 3), torch.randint(0, 2, (5, 3)).float()
    plain = LabelCrossEntropy(spec_of())(logits, target)
    assert plain == F.binary_cross_entropy_with_logits(logits, target)
    balanced = LabelCrossEntropy(spec_of(), pos_weight="balanced")
    weights = torch.tensor([10 / 30, 30 / 10, 37 / 3])
    torch.testing.assert_close(balanced.pos_weight, weights)
    expected = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weights)
    assert balanced(logits, target) == expected
    torch.testing.assert_close(LabelFocal(spec_of(), gamma=0.0)(logits, target), plain)
    p = logits.sigmoid()
    right = torch.where(target == 1, p, 1 - p)
    alpha = torch.where(target == 1, 0.25, 0.75)
    expected = -(alpha * (1 - right) ** 2 * right.log()).mean()
    torch.testing.assert_close(LabelFocal(spec_of(), alpha=0.25)(logits, target), expected)


@pytest.mark.parametrize(
    ("weights", "counts", "match"),
    [
        ("balanced", (30, 0, 40), "'balanced' needs train samples with and without.*b, c"),
        ([1.0, 2.0], (1, 1, 1), "2 weights for 3 labels"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, counts, match) -> None:
    with pytest.raises(ValueError, match=match):
        LabelCrossEntropy(spec_of(counts), pos_weight=weights)
    with pytest.raises(ValueError, match="needs several labels"):
        LabelCrossEntropy(spec_of(task="classification"))


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_mixed_samples_have_shares_of_both_labels(kind) -> None:
    y = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 1], [0, 0, 1]], dtype=torch.uint8)
    draws = Draws(0, 0, torch.arange(2)).stream("mix")
    _, mixed = kind(spec_of(), alpha=1.0)(torch.randn(4, 4), y, draws)
    assert mixed.shape == (2, 3)
    own = mixed[0, 0]  # sample 0 has a, its partner 2 has b, both have c
    torch.testing.assert_close(mixed[0], torch.tensor([own, 1 - own, 1.0]))
    assert mixed[1, :2].tolist() == [0, 0]
    task = MultiLabelTask(nn.Identity(), spec_of())
    assert task.measured(torch.zeros(2, 3), mixed)[1][0].tolist() == [own >= 0.5, own <= 0.5, 1]


def test_weights_load_into_a_task_that_knows_no_data() -> None:
    trained = MultiLabelTask(nn.Linear(4, 3), spec_of())
    trained.thresholds = torch.tensor([0.1, 0.2, 0.3])
    other = MultiLabelTask(nn.Linear(4, 3))
    assert list(other.parts.metrics) == ["mean_average_precision", "exact_match", "hamming_loss"]
    other.load_state_dict(trained.state_dict())
    assert other.decide(torch.full((1, 3), 0.25)).tolist() == [[True, True, False]]
