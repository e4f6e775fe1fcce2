"""Language modelling from the text to the report."""

import csv
import json
import math
from random import Random

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.text.perplexity import Perplexity as Reference

from litlab.config.compose import load
from litlab.data.encode.text import load_tokenizer
from litlab.data.loading import open_split
from litlab.data.spec import DataSpec
from litlab.evaluation.evaluate import evaluate
from litlab.evaluation.inference import load_task
from litlab.evaluation.language_model import read
from litlab.runs.checkpoint.metadata import load as load_card
from litlab.runs.tracking.history import read_rows
from litlab.tasks.build import build_task
from litlab.tasks.losses.classification import BinaryCrossEntropy, CrossEntropy, Focal
from litlab.tasks.metrics import EpochMeter
from litlab.tasks.perplexity import BitsPerToken, Perplexity
from litlab.tasks.task import LanguageModelTask, Parts
from litlab.training.run import train
from litlab.utils.errors import ConfigError
from run_helpers import THIRD_PARTY, mlflow_run, ready_store

pytestmark = THIRD_PARTY


def make_text(number=220):
    """Numbered sentences: much can be learnt of them, and no two pieces are alike."""
    rng = Random(0)
    pick = lambda *words: rng.choice(words)  # noqa: E731
    return "".join(
        f"{i}{rng.randrange(100)} the {pick('cat', 'dog', 'hen')} {pick('sat', 'ran')} on the "
        f"{pick('mat', 'hill')}{pick('.', '!')}\n"
        for i in range(number)
    )


TEXT = make_text()
TINY = (
    "data=plain_text",
    "data.path=text.txt",
    "metrics=[accuracy,perplexity,bits]",
    "data.source.context_length=16",
    "trainer=debug",
    "trainer.limit_train_batches=null",
    "trainer.limit_val_batches=null",
    "trainer.accelerator=cpu",
    "trainer.progress=none",
    "loader.batch_size=8",
    "model.embed_dim=16",
    "model.depth=1",
    "model.num_heads=2",
    "model.ffn_dim=16",
    "optimizer.lr=0.01",
)
V = 11


def make_spec(length=8, vocab_size=V):
    return DataSpec(
        name="made",
        source="made",
        kind="text",
        task="language_model",
        shape=(length,),
        dtype="int32",
        vocab_size=vocab_size,
        sizes={"train": 9, "val": 9, "test": 9},
        licence="CC0-1.0",
        origin="made",
    )


def make_task(metrics=None, loss=None):
    """A task around a table of logits: what follows depends on the token alone."""
    spec = make_spec()
    torch.manual_seed(0)
    sgd = lambda model: torch.optim.SGD(model.parameters(), lr=0.1)  # noqa: E731
    parts = Parts(loss or CrossEntropy(spec), metrics or {}, sgd, lambda o, h: h, "val/loss", "min")
    return LanguageModelTask(nn.Embedding(V, V), spec, parts)


def make_batch(number=5, length=8, seed=0):
    ids = torch.randint(V, (number, length + 1), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:]


@pytest.fixture
def run(project):
    (project / "text.txt").write_text(TEXT)
    ready_store(project)
    return train(load(list(TINY)))


def test_the_loss_is_the_mean_over_all_tokens_and_so_are_its_gradients():
    task = make_task()
    x, y = make_batch()
    loss = task.training_step((x, y), 0)
    loss.backward()
    twin = nn.Embedding(V, V, _weight=task.model.weight.detach().clone())
    expected = F.cross_entropy(twin(x).transpose(1, 2), y)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(task.model.weight.grad, twin.weight.grad)


def test_metrics_are_over_all_tokens_whatever_the_batches():
    metrics = {
        "accuracy": MulticlassAccuracy(V, average="micro"),
        "top3": MulticlassAccuracy(V, top_k=3, average="micro"),
        "perplexity": Perplexity(),
        "bits": BitsPerToken(),
    }
    task = make_task(metrics)
    batches = [make_batch(5, seed=1), make_batch(2, seed=2)]
    for batch in batches:
        task.validation_step(batch, 0)
    values = task._meter("val").compute()
    x, y = (torch.cat(t) for t in zip(*batches, strict=True))
    logits = task.model(x).detach()
    assert values["accuracy"] == pytest.approx(float((logits.argmax(-1) == y).float().mean()))
    in_three = (logits.topk(3).indices == y.unsqueeze(-1)).any(-1)
    assert values["top3"] == pytest.approx(float(in_three.float().mean()))
    assert values["loss"] == pytest.approx(float(F.cross_entropy(logits.transpose(1, 2), y)))
    reference = Reference()
    reference.update(logits, y)
    assert values["perplexity"] == pytest.approx(float(reference.compute()))
    assert values["perplexity"] == pytest.approx(math.exp(values["loss"]))
    assert values["bits"] == pytest.approx(values["loss"] / math.log(2))


def test_label_smoothing_is_in_the_loss_and_not_in_the_perplexity():
    smooth = CrossEntropy(make_spec(), label_smoothing=0.3)
    task, plain = make_task({"p": Perplexity()}, smooth), make_task({"p": Perplexity()})
    for each in (task, plain):
        each.validation_step(make_batch(), 0)
    values, expected = (each._meter("val").compute() for each in (task, plain))
    assert values["loss"] != expected["loss"]
    assert values["p"] == expected["p"]


def test_perplexity_of_a_token_held_impossible_is_finite():
    metric, bits = Perplexity(), BitsPerToken()
    logits, y = torch.tensor([[0.0, 200.0]]), torch.tensor([0])
    for m in (metric, bits):
        m.update(logits[:, :1].expand(-1, 4), y)  # a guess among four
    assert float(metric.compute()) == pytest.approx(4)
    assert float(bits.compute()) == pytest.approx(2)
    bits.reset()
    bits.update(logits, y)
    assert float(bits.compute()) == pytest.approx(200 / math.log(2))


def test_a_batch_that_fills_the_memory_is_measured_at_once(monkeypatch):
    monkeypatch.setattr("litlab.tasks.metrics.FLUSH_BYTES", 1)
    meter = EpochMeter({"p": Perplexity()})
    logits, y = torch.randn(6, V), torch.arange(6)
    meter.add(torch.tensor(1.0), logits[:4], y[:4])
    assert meter._outputs == []
    meter.add(torch.tensor(1.0), logits[4:], y[4:])
    expected = F.cross_entropy(logits, y).exp()
    assert meter.compute()["p"] == pytest.approx(float(expected))


def test_predictions_are_probabilities_at_every_place():
    logits = torch.randn(3, 8, V, dtype=torch.bfloat16)
    probabilities = make_task().predict(logits)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3, 8))


def test_losses_that_are_for_labels_refuse_language_models():
    with pytest.raises(ValueError, match=r"loss\.class_weights"):
        CrossEntropy(make_spec(), class_weights="balanced")
    for loss in (Focal, BinaryCrossEntropy):
        with pytest.raises(ValueError, match="set loss=cross_entropy"):
            loss(make_spec())


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model=mlp"], "use model=transformer"),
        (["model=cnn"], "use model=transformer"),
        (["model=transformer", "model.pool=class_token"], "model.pool=mean"),
        (["loss=focal"], "set loss=cross_entropy"),
        (["task=classification"], "set task=language_model"),
        (["loss=mse"], "MeanSquaredError|MSE is not for language models"),
        (["metrics=rmse"], "is not for language models"),
    ],
)
def test_parts_that_do_not_fit_are_refused(project, overrides, says):
    with pytest.raises(ConfigError, match=says) as caught:
        build_task(load(["data=tinyshakespeare", *overrides]), make_spec())
    assert caught.value.exit_code == 2


def test_the_made_up_samples_pass(project):
    task = build_task(load(["data=tinyshakespeare"]), make_spec())
    assert list(task.parts.metrics) == ["accuracy", "perplexity"]
    assert task(torch.ones(2, 8, dtype=torch.long)).shape == (2, 8, V)


def test_labels_are_no_tokens(project):
    spec = make_spec().model_copy(update={"task": "classification", "classes": ("a", "b")})
    with pytest.raises(ConfigError, match="set task=classification"):
        build_task(load(["task=language_model", "model=transformer"]), spec)


def test_it_learns(run, project):
    rows = read_rows(project / run.folder / "history.csv")
    for row in rows:
        assert row["val/perplexity"] == pytest.approx(math.exp(row["val/loss"]), rel=1e-5)
    assert rows[-1]["val/perplexity"] < min(rows[0]["val/perplexity"], 8)  # 31 characters
    assert run.record.metrics["val/bits"] == pytest.approx(
        run.record.metrics["val/loss"] / math.log(2), rel=1e-5
    )


def test_evaluation_is_the_network_run_by_hand(run, project):
    result = evaluate("last")
    loaded, task = load_task(run.checkpoint)
    split = open_split(project / "data/prepared/plain_text", loaded.metadata.spec, "test")
    x, y = split.take(torch.arange(len(split)))
    with torch.no_grad():
        logits = task.cpu()(x.long())
    loss = F.cross_entropy(logits.transpose(1, 2), y)
    assert result.metrics["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert result.metrics["perplexity"] == pytest.approx(float(loss.exp()), rel=1e-5)
    assert result.metrics["accuracy"] == pytest.approx(
        float((logits.argmax(-1) == y).float().mean())
    )
    data = mlflow_run(project, run.record.run_id).data
    assert data.metrics["test/perplexity"] == pytest.approx(result.metrics["perplexity"])
    tokenizer = load_tokenizer(load_card(run.checkpoint).metadata.spec.tokenizer)
    with (result.folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = [tokenizer.decode([i]).replace(" ", "␣").replace("\n", "\\n") for i in y.flatten()]
    assert [row["actual"] for row in rows] == shown
    probabilities, ids = logits.softmax(-1).flatten(0, 1).max(-1)
    assert [float(row["confidence"]) for row in rows] == pytest.approx(
        probabilities.tolist(), abs=1e-5
    )
    hits = [row["actual"] == row["predicted"] for row in rows]
    assert sum(hits) / len(hits) == pytest.approx(result.metrics["accuracy"])
    assert rows[0]["index"] == "1"


def test_the_report_says_how_well_and_shows_what_it_writes(run):
    folder = evaluate("last").folder
    page = (folder / "report.html").read_text()
    assert "to predict the next token: its perplexity" in page
    assert "What it writes" in page
    assert sorted(f.name for f in (folder / "figures").iterdir()) == ["learning_curves.png"]
    assert "test_interval_95" in (folder / "metrics.json").read_text()


def test_memory_for_few_logits_gives_the_same(run, project, monkeypatch):
    loaded, task = load_task(run.checkpoint)
    spec = loaded.metadata.spec
    split = open_split(project / "data/prepared/plain_text", spec, "val")
    values, outputs = read(task, spec, split, 512)
    monkeypatch.setattr(
        "litlab.evaluation.language_model.FLUSH_BYTES", 3 * 16 * spec.num_outputs * 4
    )
    fewer, same = read(task, spec, split, 512)
    assert fewer == pytest.approx(values)
    for a, b in zip(vars(outputs).values(), vars(same).values(), strict=True):
        torch.testing.assert_close(a, b)
    assert run.record.metrics["val/loss"] == pytest.approx(values["loss"], rel=1e-5)


def test_intervals_hold_the_value(run):
    result = evaluate("last")

    found = json.loads((result.folder / "metrics.json").read_text())["test_interval_95"]
    assert set(found) == {"accuracy", "perplexity", "bits"}
    for name, (low, high) in found.items():
        assert low < result.metrics[name] < high


def test_views_of_a_text_are_refused(run):
    with pytest.raises(ConfigError, match="--tta"):
        evaluate("last", tta=2)
