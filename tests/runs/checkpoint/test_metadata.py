import os
import pickle
import pickletools
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from litlab.evaluation.inference import load_task
from litlab.runs.checkpoint.io import KEY, write
from litlab.runs.checkpoint.metadata import code_hash, load, load_weights
from litlab.utils.errors import CheckpointError
from run_helpers import THIRD_PARTY, small, small_run

pytestmark = THIRD_PARTY


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One checkpoint for all tests of this file, which only read it."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(Path(__file__).parents[3] / "conf", folder / "conf")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in [n for n in os.environ if n.startswith(("DVC_", "MLFLOW_"))]:
            patch.delenv(name)
        return small_run(folder).checkpoint


def altered(trained, folder, change):
    """A copy of the checkpoint with its content changed."""
    content = torch.load(trained, weights_only=True)
    change(content)
    path = folder / "altered.ckpt"
    write(content, path)
    return path


def refusal(path, trust=()):
    with pytest.raises(CheckpointError) as caught:
        load_task(path, trust)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_checkpoint_says_what_it_is(project, trained):
    loaded, task = load_task(trained)
    assert loaded.metadata.config.model_dump(exclude={"trust"}) == small().model_dump(
        exclude={"trust"}
    )
    assert loaded.metadata.spec.name == "synthetic"
    assert len(loaded.metadata.run_id) == 32
    assert loaded.epoch in (0, 1)
    assert not task.training
    assert all(torch.equal(task.state_dict()[k], v) for k, v in loaded.weights.items())


def test_a_checkpoint_holds_only_tensors_and_plain_values(trained):
    torch.load(trained, weights_only=True)
    with zipfile.ZipFile(trained) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("data.pkl")]
        named = pickletools.genops(archive.read(name))
        used = {str(argument).partition(" ")[0] for op, argument, _ in named if op.name == "GLOBAL"}
    assert used <= {"torch", "torch._utils", "collections"}


class Payload:
    def __reduce__(self):
        return os.system, ("touch canary",)


@pytest.mark.parametrize("place", ["whole", "metadata", "state_dict"])
def test_a_pickle_payload_never_runs(project, trained, place):
    content = torch.load(trained, weights_only=True)
    if place == "whole":
        content = Payload()
    elif place == "metadata":
        content[KEY]["run_id"] = Payload()
    else:
        content["state_dict"]["model.odd"] = Payload()
    torch.save(content, project / "bad.ckpt")
    assert "nothing in this one was executed" in refusal(project / "bad.ckpt")
    assert not (project / "canary").exists()
    (project / "plain.ckpt").write_bytes(pickle.dumps(Payload()))
    refusal(project / "plain.ckpt")
    assert not (project / "canary").exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_checkpoint(project, trained, share):
    whole = trained.read_bytes()
    (project / "cut.ckpt").write_bytes(whole[: int(len(whole) * share)])
    assert "damaged" in refusal(project / "cut.ckpt")


def test_an_absent_checkpoint(project):
    assert "no such checkpoint" in refusal(project / "absent.ckpt")


@pytest.mark.parametrize("content", [[1, 2], {}, {"state_dict": {}}, {KEY: "odd"}])
def test_not_one_of_litlabs(project, content):
    torch.save(content, project / "other.ckpt")
    assert "not a litlab checkpoint" in refusal(project / "other.ckpt")


def test_another_schema_names_both_versions(project, trained):
    path = altered(trained, project, lambda c: c[KEY].update(schema=7))
    assert "schema 7, this is schema 2" in refusal(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c[KEY].pop("config"),
        lambda c: c[KEY].update(config=None),
        lambda c: c[KEY].update(spec={"name": 1}),
        lambda c: c[KEY].update(epoch="first"),
        lambda c: c.pop("state_dict"),
        lambda c: c.update(state_dict=[1]),
        lambda c: c["state_dict"].update({"model.odd": 3}),
    ],
)
def test_metadata_with_holes(project, trained, change):
    assert "metadata do not match" in refusal(altered(trained, project, change))


def test_another_models_checkpoint_shows_at_most_five_entries(project, trained):
    def rename(content):
        weights = content["state_dict"]
        content["state_dict"] = {f"odd.{i}": torch.zeros(1) for i in range(9)} | weights

    message = refusal(altered(trained, project, rename))
    assert "of another model: 9 entries differ" in message
    assert message.count("odd.") == 5


def test_other_shapes_are_another_model(trained):
    weights = load(trained).weights
    _, task = load_task(trained)
    name = next(iter(weights))
    wrong = {**weights, name: torch.zeros(1, 2, 3)}
    with pytest.raises(CheckpointError, match=r"\(1, 2, 3\) for"):
        load_weights(task, wrong, trained)
    with pytest.raises(CheckpointError, match="missing"):
        load_weights(task, {k: v for k, v in weights.items() if k != name}, trained)


def write_canary_module(project):
    (project / "stranger.py").write_text(
        "from pathlib import Path\nPath('canary').touch()\n"
        "def Model(spec):\n    Path('canary').touch()\n"
    )


@pytest.mark.parametrize(
    "target",
    [
        "stranger.Model",
        "os.system",
        "litlab.tasks.task.torch.hub.load",
        "litlab.runs.environment.subprocess.run",
        "torch.nn.modules.module.warnings.warn",
        "torch.hub.load",
    ],
)
@pytest.mark.parametrize("trust", [[], ["os"], ["stranger", "os", "torch"]])
def test_metadata_does_not_choose_what_is_imported(project, trained, target, trust):
    write_canary_module(project)

    def change(content):
        content[KEY]["config"]["trust"] = trust
        content[KEY]["config"]["model"] = {"_target_": target}

    before = set(sys.modules)
    refusal(altered(trained, project, change))
    assert not (project / "canary").exists()
    assert "stranger" not in set(sys.modules) - before


def test_the_user_may_trust_a_package(project, trained, monkeypatch):
    monkeypatch.syspath_prepend(project)
    (project / "friend.py").write_text(
        "from torch import nn\nclass Model(nn.Module):\n"
        "    def __init__(self, spec):\n        super().__init__()\n"
    )

    def change(content):
        content[KEY]["config"]["model"] = {"_target_": "friend.Model"}

    path = altered(trained, project, change)
    assert "--trust" in refusal(path)
    assert "another model" in refusal(path, ["friend"])  # built, and its weights do not fit


def test_hyperparameters_that_metadata_made_up(project, trained):
    path = altered(trained, project, lambda c: c[KEY]["config"]["model"].update(width=-1))
    assert "width" in refusal(path)


@pytest.mark.parametrize("name", ["../outside", "/outside", "..", "a/../../b", "a\0b", "a" * 101])
@pytest.mark.parametrize("place", ["spec", "config", "run"])
def test_metadata_does_not_choose_a_folder(project, trained, place, name):
    def change(content):
        metadata = content[KEY]
        if place == "spec":
            metadata["spec"]["name"] = name
        elif place == "config":
            metadata["config"]["data"]["name"] = name
        else:
            metadata["config"]["name"] = name

    refusal(altered(trained, project, change))


def test_passwords_do_not_travel_in_checkpoints(project):
    tags = {"server": "http://me:geheim@host", "api_key": "geheim"}
    tracking = small().tracking.model_copy(update={"tags": tags})
    result = small_run(project, tracking=tracking)
    for name in ("best.ckpt", "last.ckpt", "config.yaml", "run.json"):
        assert b"geheim" not in (result.folder / name).read_bytes()
    assert load(result.checkpoint).metadata.config.tracking.tags["server"] == "http://***@host"


def test_the_code_of_a_package_of_the_users_own_counts(project) -> None:
    package = project / "src" / "ownpkg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('not imported')")
    (package / "model.py").write_text("a = 1")
    before = code_hash(["ownpkg"])
    assert before == code_hash(["ownpkg", "not_there_at_all"])
    assert before != code_hash()
    (package / "model.py").write_text("a = 2")
    assert code_hash(["ownpkg"]) != before
