import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from litlab.tasks.losses.classification import BinaryCrossEntropy, CrossEntropy, Focal

WEIGHTS = [0.5, 1.0, 4.0]
ALL = [
    (CrossEntropy, {}),
    (CrossEntropy, {"label_smoothing": 0.1}),
    (CrossEntropy, {"class_weights": WEIGHTS}),
    (CrossEntropy, {"class_weights": WEIGHTS, "label_smoothing": 0.2}),
    (Focal, {}),
    (Focal, {"gamma": 0.5, "alpha": WEIGHTS}),
    (BinaryCrossEntropy, {}),
    (BinaryCrossEntropy, {"pos_weight": 2.0, "label_smoothing": 0.1}),
]


def batch(seed=0, size=6, classes=3):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(scale=3, size=(size, classes)))
    index = torch.tensor(rng.integers(classes, size=size))
    soft = torch.tensor(rng.dirichlet(np.ones(classes), size=size))
    return logits, index, soft


# Against torch, scikit-learn and the formulas


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_cross_entropy_on_indices_is_torchs(make_spec, label_smoothing, class_weights):
    logits, index, _ = batch()
    weight = None if class_weights is None else torch.tensor(class_weights).double()
    loss = CrossEntropy(make_spec(3), label_smoothing=label_smoothing, class_weights=class_weights)(
        logits, index
    )
    expected = F.cross_entropy(logits, index, weight, label_smoothing=label_smoothing)
    torch.testing.assert_close(loss, expected)


def test_cross_entropy_on_soft_labels_is_torchs_without_weights(make_spec):
    logits, _, soft = batch()
    loss = CrossEntropy(make_spec(3), label_smoothing=0.1)(logits, soft)
    torch.testing.assert_close(loss, F.cross_entropy(logits, soft, label_smoothing=0.1))


def test_weighted_soft_labels_divide_by_their_weight(make_spec):
    logits, _, soft = batch()
    log_p = np.log(np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True))
    weight = np.array(WEIGHTS)
    expected = -(soft.numpy() * weight * log_p).sum() / (soft.numpy() @ weight).sum()
    loss = CrossEntropy(make_spec(3), class_weights=WEIGHTS)(logits, soft)
    assert loss.item() == pytest.approx(expected)


def test_balanced_weights_are_scikit_learns(make_spec):
    labels = np.repeat([0, 1, 2], [7, 2, 1])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    for loss in (
        CrossEntropy(make_spec(3, class_counts=(7, 2, 1)), class_weights="balanced").weight,
        Focal(make_spec(3, class_counts=(7, 2, 1)), alpha="balanced").alpha,
    ):
        np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-6)


def test_focal_is_the_papers_formula(make_spec):
    logits, index, _ = batch()
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    p_t = p[np.arange(len(p)), index.numpy()]
    alpha_t = np.array(WEIGHTS)[index.numpy()]
    loss = Focal(make_spec(3), gamma=2.0)(logits, index)
    assert loss.item() == pytest.approx((-((1 - p_t) ** 2) * np.log(p_t)).mean())
    weighted = Focal(make_spec(3), gamma=2.0, alpha=WEIGHTS)(logits, index)
    terms = -alpha_t * (1 - p_t) ** 2 * np.log(p_t)
    assert weighted.item() == pytest.approx(terms.sum() / alpha_t.sum())


def test_focal_of_two_classes_is_torchvisions_sigmoid_form(make_spec):
    # softmax of (0, z) is sigmoid(z); the formula of torchvision.ops.sigmoid_focal_loss
    z, t = torch.randn(8, dtype=torch.double), torch.tensor([0, 1] * 4)
    p = torch.sigmoid(z)
    p_t = torch.where(t == 1, p, 1 - p)
    ce = F.binary_cross_entropy_with_logits(z, t.double(), reduction="none")
    logits = torch.stack([torch.zeros_like(z), z], dim=1)
    loss = Focal(make_spec(2), gamma=1.5)(logits, t)
    torch.testing.assert_close(loss, (ce * (1 - p_t) ** 1.5).mean())


@pytest.mark.parametrize("pos_weight", [None, 3.0])
def test_binary_is_torchs_on_one_hot(make_spec, pos_weight):
    logits, index, _ = batch()
    weight = None if pos_weight is None else torch.tensor([pos_weight]).double()
    loss = BinaryCrossEntropy(make_spec(3), pos_weight=pos_weight)(logits, index)
    one_hot = F.one_hot(index, 3).double()
    expected = F.binary_cross_entropy_with_logits(logits, one_hot, pos_weight=weight)
    torch.testing.assert_close(loss, expected)


def test_a_single_logit_is_refused(make_spec):
    with pytest.raises(ValueError, match="must be class indices"):
        BinaryCrossEntropy(make_spec(2))(torch.zeros(4, 1), torch.zeros(4, 2))


# Properties


@pytest.mark.parametrize(("loss", "settings_"), ALL)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_one_hot_is_the_index_and_no_loss_is_negative(make_spec, loss, settings_, seed, size):
    logits, index, soft = batch(seed, size)
    function = loss(make_spec(3), **settings_)
    value = function(logits, index)
    torch.testing.assert_close(function(logits, F.one_hot(index, 3).double()), value)
    assert value >= 0
    assert function(logits, soft) >= 0
    assert value.shape == ()


@given(seed=st.integers(0, 2**32 - 1), soft=st.booleans(), weighted=st.booleans())
@settings(max_examples=20, deadline=None)
def test_focal_at_gamma_0_is_cross_entropy(make_spec, seed, soft, weighted):
    logits, index, probabilities = batch(seed)
    target, weights = probabilities if soft else index, WEIGHTS if weighted else None
    focal = Focal(make_spec(3), gamma=0.0, alpha=weights)(logits, target)
    expected = CrossEntropy(make_spec(3), class_weights=weights)(logits, target)
    torch.testing.assert_close(focal, expected)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("loss", "settings_"), ALL)
def test_gradients(make_spec, loss, settings_, soft):
    logits, index, probabilities = batch(size=3)
    function = loss(make_spec(3), **settings_)
    target = probabilities if soft else index
    assert torch.autograd.gradcheck(lambda x: function(x, target), logits.requires_grad_())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_of_a_sure_prediction_has_finite_gradients(make_spec, gamma):
    logits = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]], requires_grad=True)
    loss = Focal(make_spec(3), gamma=gamma)(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(100.0)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("loss", "settings_"), ALL)
def test_half_precision_logits_give_a_float32_loss(make_spec, loss, settings_, dtype):
    # 40000 samples of weight 4 sum beyond float16's 65504.
    logits, index, soft = batch(size=40000)
    function = loss(make_spec(3), **settings_)
    for target in (index, soft.to(dtype)):
        value = function(logits.to(dtype), target)
        exact = function(logits.to(dtype).double(), target)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact.item(), rel=1e-3)


@pytest.mark.parametrize(("loss", "settings_"), ALL)
def test_nothing_is_saved_in_the_checkpoint(make_spec, loss, settings_):
    assert not loss(make_spec(3), **settings_).state_dict()


# Refusals


@pytest.mark.parametrize("loss", [CrossEntropy, Focal, BinaryCrossEntropy])
def test_numeric_targets_are_refused(make_spec, loss):
    with pytest.raises(ValueError, match=r"'houses' are for regression; set loss=mse"):
        loss(make_spec(targets=1))


@pytest.mark.parametrize(("loss", "name"), [(CrossEntropy, "class_weights"), (Focal, "alpha")])
def test_weights_that_do_not_fit_are_refused(make_spec, loss, name):
    with pytest.raises(ValueError, match=rf"loss\.{name}: 2 weights .*rose, lily, iris"):
        loss(make_spec(3), **{name: [1.0, 2.0]})
    for counts in [(), (3, 0, 1)]:
        with pytest.raises(ValueError, match=rf"loss\.{name}: 'balanced' needs .*rose, lily"):
            loss(make_spec(3, class_counts=counts), **{name: "balanced"})


@pytest.mark.parametrize("loss", [CrossEntropy, Focal, BinaryCrossEntropy])
@pytest.mark.parametrize("target", [torch.zeros(6), torch.zeros(6, 1), torch.zeros(6, 2)])
def test_targets_of_another_shape_are_refused(make_spec, loss, target):
    with pytest.raises(ValueError, match="must be class indices"):
        loss(make_spec(3))(torch.zeros(6, 3), target)
