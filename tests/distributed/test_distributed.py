"""One, two and three processes train the same: weights, metrics, records."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forked
from litlab.evaluation.evaluate import evaluate
from run_helpers import THIRD_PARTY, ready_store

pytestmark = [pytest.mark.slow, *THIRD_PARTY]
HERE = Path(__file__).parents[1]
SMALL = [
    "data=synthetic",
    "data.source.num_samples=157",  # 100 to train on
    "trainer.accelerator=cpu",
    "trainer.max_epochs=3",
    "trainer.progress=none",
    "loader.batch_size=64",
    "loader.eval_batch_size=16",
    "loader.drop_last=false",
    "model=mlp",
    "model.hidden=[16]",
    "model.norm=none",
    "model.dropout=0",
    "optimizer=sgd",
    "+metrics.count._target_=several_processes.Count",
    "trust=[several_processes]",
]
TEXT = ["data=text", "data.path=texts.csv", "model=transformer", "model.depth=1"]
TEXT += ["model.embed_dim=16", "model.num_heads=2", "model.ffn_dim=16", "loader.batch_size=16"]
TEXT += ["data.allow=[exact_duplicates,near_duplicates]", "optimizer=sgd", "optimizer.lr=0.01"]
LANGUAGE = ["data=plain_text", "data.path=novel.txt", "data.source.context_length=16"]
LANGUAGE += [o for o in TEXT if o.startswith(("model", "optimizer"))]
WORDS = ["it", "was", "the", "best", "of", "times", "and", "worst", "age", "wisdom"]
TRAINER = [o for o in SMALL if o.startswith(("trainer", "loader", "+metrics", "trust"))]
TRAININGS = {
    "uneven": [*SMALL, "augment=[crop,mixup]", "trainer.gradient_clip_val=1.0"],
    # 100 = 3 * 33 + 1: of the last batch, two of three processes have nothing.
    "weighted": [*SMALL, "loader.batch_size=33", "loss.class_weights=[1,2,5]"],
    "accumulated": [*SMALL, "loader.batch_size=16", "trainer.accumulate_grad_batches=3"],
    "batch_norm": [*SMALL, "model.norm=batch", "trainer.sync_batchnorm=true"],
    "averaged": [*SMALL, "trainer.ema={decay: 0.9}", "trainer.log_norms=true"],
    "swa": [
        *(*SMALL, "model.norm=batch", "trainer.sync_batchnorm=true"),
        "trainer.swa={start: 0.5, lr: 0.05}",
    ],
    "texts": [*TRAINER, *TEXT],
    "language": [*TRAINER, *LANGUAGE, "loader.batch_size=32"],
}
SHARDED = ["trainer=fsdp2", "trainer.accelerator=cpu", "trainer.devices=2"]
SHARDED += ["trainer.precision=32-true", "trainer.max_epochs=3", "trainer.progress=none"]
TO_SHARD = ["uneven", "weighted", "accumulated", "batch_norm", "texts", "language"]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What each training left, by the number of processes; they are started when asked for."""

    class Answers(dict[int, dict[str, Any]]):
        def __missing__(self, world: int) -> dict[str, Any]:
            self[world] = train(tmp_path_factory.mktemp(f"world{world}"), world)
            return self[world]

    return Answers()


def train(project: Path, world: int) -> dict[str, Any]:
    (project / "conf").symlink_to(HERE.parent / "conf")
    rows = [f"{'good' if i % 2 else 'bad'}{' day' * (1 + i * 7 % 11)},{i % 2}" for i in range(90)]
    (project / "texts.csv").write_text("text,label\n" + "\n".join(rows))
    words = [WORDS[i * i * 7 % 31 % len(WORDS)] for i in range(700)]
    (project / "novel.txt").write_text(" ".join(words))
    ready_store(project)
    # Two by Lightning's own launcher, three by torchrun, whose number needs no setting.
    extra = ["trainer=ddp_cpu"] if world == 2 else []
    trainings = {name: [*overrides, *extra] for name, overrides in TRAININGS.items()}
    if world == 2:
        trainings |= {f"{name} sharded": [*TRAININGS[name], *SHARDED] for name in TO_SHARD}
    (project / "trainings.json").write_text(json.dumps(trainings))
    starter = [sys.executable]
    if world == 3:
        starter += ["-m", "torch.distributed.run", "--nproc-per-node", "3"]
    command = [*starter, str(HERE / "several_processes.py"), "answer.json", "trainings.json"]
    source = f"{HERE.parent / 'src'}{os.pathsep}{HERE}"
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    done = forked.run(
        command, cwd=project, env=environment, timeout=280, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((project / "answer.json").read_text())


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("world", [2, 3])
def test_the_final_weights_are_those_of_one_process(answers, world, name):
    alone, together = answers[1][name]["weights"], answers[world][name]["weights"]
    assert list(together) == list(alone)
    for key, value in alone.items():
        np.testing.assert_allclose(together[key], value, rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", TO_SHARD)
def test_shared_out_weights_are_trained_and_kept_whole(answers, name):
    alone, together = answers[1][name], answers[2][f"{name} sharded"]
    assert list(together["weights"]) == list(alone["weights"])
    for key, value in alone["weights"].items():
        np.testing.assert_allclose(
            together["weights"][key], value, rtol=1e-4, atol=1e-6, err_msg=key
        )
    assert together["metrics"] == pytest.approx(alone["metrics"], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("world", [2, 3])
def test_the_metrics_are_those_of_one_process(answers, world, name):
    alone, together = answers[1][name]["metrics"], answers[world][name]["metrics"]
    assert together == pytest.approx(alone, rel=1e-5, abs=1e-6)
    if name not in ("texts", "language"):  # no sample is left out, and none counted twice
        assert (together["train/count"], together["val/count"]) == (100, 25)


@pytest.mark.parametrize("world", [2, 3])
def test_every_training_is_one_run(answers, world):
    from mlflow.tracking import MlflowClient

    folders = [Path(answer["folder"]) for answer in answers[world].values()]
    assert sorted(folders[0].parent.iterdir()) == sorted(folders)
    project = folders[0].parents[1]
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    (experiment,) = (e for e in client.search_experiments() if e.name == "litlab")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == len(folders) >= len(TRAININGS)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {int(run.data.params["trainer.devices"]) for run in runs} == {world}


@pytest.mark.parametrize("name", ["weighted", "batch_norm"])
def test_evaluation_gives_the_same(answers, name, monkeypatch):
    measured = []
    for world, which in ((1, name), (3, name), (2, f"{name} sharded")):
        folder = Path(answers[world][which]["folder"])
        monkeypatch.chdir(folder.parents[1])
        measured.append(evaluate(str(folder), trust=["several_processes"]).metrics)
    for several in measured[1:]:
        assert several == pytest.approx(measured[0], rel=1e-5, abs=1e-6)
