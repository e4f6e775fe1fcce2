"""Checkpoints whose checksum fits and whose content does not: one line, exit 4, no traceback."""

import copy
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import RUN, cut_run
from test_resume import small as of_other_model

from litlab.evaluation.evaluate import evaluate
from litlab.evaluation.inference import load_task
from litlab.runs.checkpoint import io
from litlab.runs.checkpoint.io import KEY, read, write
from litlab.runs.checkpoint.resume import Resume
from litlab.training.callbacks.checkpoint import RESUME
from litlab.training.replay import CONTENT, replay
from litlab.training.run import train
from litlab.training.warm_start import init_from
from litlab.utils.errors import CheckpointError, LitlabError
from run_helpers import SMALL, THIRD_PARTY, small, small_run

pytestmark = [*THIRD_PARTY, pytest.mark.filterwarnings("ignore:.*using the one before")]


class MISSING:
    """Stands for a part that is taken out."""


ODD: tuple[Any, ...] = (MISSING, None, "odd", [1], {"a": 1}, -1, 10**12, float("inf"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """A project with a finished run, an interrupted one and a failed step; no test changes it."""
    folder = tmp_path_factory.mktemp("kept")
    shutil.copytree(Path(__file__).parents[3] / "conf", folder / "conf")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in [n for n in os.environ if n.startswith(("DVC_", "MLFLOW_"))]:
            patch.delenv(name)
        small_run(folder, out=folder / "runs" / "done")
        cut_run(folder, out=folder / "runs" / "cut")
        content = read(folder / "runs" / "done" / "best.ckpt")
        x = torch.zeros(16, 1, 12, 12)
        y = torch.zeros(16, dtype=torch.int64)
        content[CONTENT] = {"what": "loss", "batches": [[x, y]], "rng": [[torch.get_rng_state()]]}
        write(content, folder / "runs" / "done" / "failed-step.ckpt")
    return folder


@pytest.fixture
def there(kept: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(kept)
    for name in [n for n in os.environ if n.startswith(("DVC_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    return kept


def places(content: Any, depth: int, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place within nested dictionaries, to a depth."""
    if isinstance(content, dict) and depth:
        for key, value in content.items():
            yield (*path, key)
            yield from places(value, depth - 1, (*path, key))


def put(content: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        content = content[key]
    if value is MISSING:
        del content[path[-1]]
    else:
        content[path[-1]] = value


def put_down(content: Any, path: Path) -> None:
    """Write a checkpoint with a checksum; where there is no place for a manifest, without."""
    if isinstance(content.get(KEY), dict):
        write(content, path)
    else:
        torch.save(content, path)


def outcome(use: Callable[[Path], Any], path: Path) -> Exception | None:
    """Return what using a file raised."""
    try:
        use(path)
    except Exception as error:
        return error
    return None


def survey(file: Path, inside: tuple[Any, ...], depth: int, use: Callable[[Path], Any]) -> int:
    """Put each odd value into each place of a checkpoint, and use it; return how many it refused.

    It may be used as if nothing were wrong, or be refused in one line.
    """
    whole, refused = read(file), 0
    part = whole
    for key in inside:
        part = part[key]
    path = file.with_name("crafted.ckpt")
    for place in places(part, depth):
        for value in ODD:
            content = copy.deepcopy(whole)
            put(content, (*inside, *place), copy.deepcopy(value))
            put_down(content, path)
            error = outcome(use, path)
            if isinstance(error, LitlabError):
                assert error.exit_code == 4, (place, value, error)
                assert str(error).isprintable(), (place, value)
                assert len(str(error)) < 1000, (place, value)
                refused += 1
            else:
                assert error is None, (place, value, error)
    path.unlink()
    return refused


def use_weights(path: Path) -> None:
    """What evaluate, predict and generate begin with, and init_from."""
    loaded, task = load_task(path)
    init_from(task.model, loaded.metadata.spec, str(path))


@pytest.mark.parametrize("part", ["data", "model", "spec", "loss", "optimizer", "trainer"])
def test_every_value_of_a_card(there: Path, part: str) -> None:
    """Here of the parts that are built or looked into; those beside them are in the next test."""
    inside = (KEY, "spec") if part == "spec" else (KEY, "config", part)
    assert survey(there / "runs" / "done" / "best.ckpt", inside, 1, use_weights) > 20


def test_every_part_of_a_checkpoint(there: Path) -> None:
    file = there / "runs" / "done" / "best.ckpt"
    assert survey(file, (), 1, use_weights) > 15
    assert survey(file, (KEY,), 1, use_weights) > 40
    assert survey(file, ("state_dict",), 1, use_weights) > 30


def test_every_part_of_a_failed_step(there: Path) -> None:
    file = there / "runs" / "done" / "failed-step.ckpt"
    replay(file)
    assert survey(file, (CONTENT,), 1, replay) > 15
    content = read(file)
    content["capsule"] = content.pop(CONTENT)  # as earlier versions called it
    (file.parent / "earlier").mkdir()
    write(content, file.parent / "earlier" / "capsule.ckpt")
    assert replay(file.parent / "earlier") == replay(file)
    for x, y in [
        (torch.zeros(16, 3), torch.zeros(16, dtype=torch.int64)),
        (torch.zeros(16, 1, 12, 12), torch.full((16,), 999)),
        (torch.zeros(16, 1, 12, 12), torch.zeros(3, dtype=torch.int64)),
    ]:
        content = read(file)
        content[CONTENT]["batches"] = [[x, y]]
        write(content, file.with_name("crafted.ckpt"))
        with pytest.raises(CheckpointError, match="cannot be repeated"):
            replay(file.with_name("crafted.ckpt"))


@pytest.fixture
def cut(there: Path, project: Path) -> Path:
    """An interrupted run of a project of its own."""
    for name in ("runs", "data"):
        shutil.copytree(there / name, project / name)
    shutil.copy(there / "mlflow.db", project / "mlflow.db")
    os.chdir(project)
    (project / "runs" / "cut" / "previous.ckpt").unlink(missing_ok=True)
    return project / "runs" / "cut"


def resume(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        train(small(*RUN), folder, resume=Resume())
    assert caught.value.exit_code == 4
    assert str(caught.value).isprintable()
    return caught.value


def test_the_best_under_the_name_of_the_last(cut: Path) -> None:
    shutil.copy(cut / "best.ckpt", cut / "last.ckpt")
    error = resume(cut)
    assert "loops, callbacks, optimizer_states, lr_schedulers, resume" in error.what
    assert "init_from=runs/cut/last.ckpt" in error.fix
    # What is offered works.
    config = small(*RUN, "init_from=runs/cut/last.ckpt", "trainer.max_epochs=1")
    assert train(config).record.status == "FINISHED"


def test_the_one_before_is_used_where_the_last_lacks_parts(cut: Path) -> None:
    shutil.copy(cut / "last.ckpt", cut / "previous.ckpt")
    shutil.copy(cut / "best.ckpt", cut / "last.ckpt")
    with pytest.warns(UserWarning, match="needs? to continue.*using the one before"):
        assert train(small(*RUN), cut, resume=Resume()).record.status == "FINISHED"


STATE = [
    *[(name,) for name in ("loops", "callbacks", "optimizer_states", "lr_schedulers", RESUME)],
    ("loops", "fit_loop"),
    *[("loops", "fit_loop", name) for name in ("epochs", "steps", "should_stop")],
    *[(RESUME, name) for name in ("rng", "meters", "tracked")],
    *[(RESUME, "tracked", name) for name in ("rows", "started", "resumed", "seconds")],
]


@pytest.mark.parametrize("value", [MISSING, "odd", [1], {"a": 1}], ids=str)
def test_every_part_that_a_run_continues_from(there: Path, value: Any) -> None:
    """Those that are refused at once; `require_parts` is all that is asked."""
    from litlab.runs.checkpoint.resume import require_parts

    whole = read(there / "runs" / "cut" / "last.ckpt")
    require_parts(whole, Path("last.ckpt"))
    for place in STATE:
        content = copy.deepcopy(whole)
        put(content, place, value)
        if (place[-1], value) == ("started", "odd"):
            continue
        with pytest.raises(CheckpointError, match="continue"):
            require_parts(content, Path("last.ckpt"))


def spoil(content: dict[str, Any], what: str) -> None:
    groups, states = content["optimizer_states"][0]["param_groups"], content["optimizer_states"][0]
    rng = content[RESUME]["rng"][0]
    if what == "groups":
        groups.pop()
    elif what == "group":
        groups[0].pop("params")
    elif what == "moments":
        states["state"][0]["exp_avg"] = torch.zeros(3, 3, 3)
    elif what == "rng":
        rng["torch"] = torch.zeros(7)
    elif what == "python":
        rng["python"] = [3, "odd", None]
    elif what == "meters":
        content[RESUME]["meters"] = [{"losses": 1}]
    elif what == "no meters":
        content[RESUME]["meters"] = None
    elif what == "schedule":
        content["lr_schedulers"] = []
    elif what == "callback":
        content["callbacks"]["CheckpointCallback"] = {"odd": 1}


@pytest.mark.parametrize(
    "what",
    ["groups", "group", "moments", "rng", "python", "meters", "no meters", "callback"],
)
def test_a_state_that_cannot_be_restored(cut: Path, what: str) -> None:
    content = read(cut / "last.ckpt")
    spoil(content, what)
    write(content, cut / "last.ckpt")
    error = resume(cut)
    assert "cannot continue from it" in error.what
    assert "init_from=" in error.fix


def with_manifest(file: Path, text: bytes) -> None:
    """Replace a checkpoint's manifest, with a checksum that fits."""
    content = read(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "dumps", lambda _: text)
        write(content, file)


@pytest.mark.parametrize(
    "text",
    [b"not JSON", b"\xff\xfe", b"[1]", b"null", b"[" * 30_000, b'{"a": ' * 5000, b"1" * 9000, b"{}",
     b'{"schema": 2}', b'{"schema": 7}'],
    ids=lambda text: text[:12].decode(errors="replace"),
)  # fmt: skip
def test_a_manifest_that_is_none(cut: Path, text: bytes) -> None:
    shutil.copy(cut / "last.ckpt", cut / "best.ckpt")
    for name in ("last.ckpt", "best.ckpt"):
        with_manifest(cut / name, text)
    assert "damaged" in resume(cut).what
    if text.startswith(b"{"):
        return  # who asks for the weights alone needs no manifest
    for use in (evaluate, replay, load_task):
        with pytest.raises(CheckpointError, match="manifest"):
            use(cut / "best.ckpt")  # type: ignore[operator]


@pytest.mark.parametrize("name", ["run_id", "config", "data", "model", "epoch", "step"])
def test_a_manifest_with_holes(cut: Path, name: str) -> None:
    manifest = read(cut / "last.ckpt")[KEY]["manifest"]
    for value in (MISSING, None, [1], 1.5):
        changed = copy.deepcopy(manifest)
        put(changed, (name,), value)
        with_manifest(cut / "last.ckpt", json.dumps(changed).encode())
        assert "damaged" in resume(cut).what


HUGE = 10**9


@pytest.mark.parametrize(
    ("model", "change"),
    [
        ("simple_nn", {"width": HUGE}),
        ("mlp", {"hidden": [HUGE]}),
        ("mlp", {"hidden": [8] * 200_000}),
        ("cnn", {"channels": [HUGE]}),
        ("transformer", {"depth": HUGE}),
        ("transformer", {"embed_dim": 2 * HUGE}),
        ("transformer", {"ffn_dim": HUGE}),
    ],
    ids=str,
)
def test_a_card_that_asks_for_too_much(there: Path, model: str, change: dict[str, Any]) -> None:
    content = read(there / "runs" / "done" / "best.ckpt")
    node = content[KEY]["config"]["model"]
    if model != "simple_nn":
        node = of_other_model(f"model={model}").model
    content[KEY]["config"]["model"] = {**node, **change}
    path = there / "crafted.ckpt"
    write(content, path)
    with pytest.raises(CheckpointError):
        load_task(path)


def test_a_spec_that_asks_for_too_much(there: Path) -> None:
    for change in ({"shape": [1, HUGE, HUGE]}, {"shape": [HUGE]}, {"vocab_size": HUGE}):
        content = read(there / "runs" / "done" / "best.ckpt")
        content[KEY]["spec"].update(change)
        if "vocab_size" in change:
            content[KEY]["spec"].update(task="language_model", kind="text", shape=[8])
        write(content, there / "crafted.ckpt")
        with pytest.raises(CheckpointError):
            load_task(there / "crafted.ckpt")


def test_weights_that_repeat_one_number(there: Path) -> None:
    """A tensor of strides 0 has any shape, and takes four bytes."""
    content = read(there / "runs" / "done" / "best.ckpt")
    content[KEY]["config"]["model"]["width"] = 10**7
    shapes = {"0": (10**7, 64), "2": (3, 10**7)}
    for name, weight in content["state_dict"].items():
        layer = name.split(".")[-2]
        shape = shapes.get(layer, weight.shape) if weight.ndim == 2 else (10**7,)
        content["state_dict"][name] = torch.zeros(1).expand(*shape)
    write(content, there / "crafted.ckpt")
    with pytest.raises(CheckpointError):
        load_task(there / "crafted.ckpt")


def test_a_compressed_checkpoint(there: Path) -> None:
    source = there / "runs" / "done" / "best.ckpt"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(there / "crafted.ckpt", "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="not a weights-only checkpoint"):
        load_task(there / "crafted.ckpt")


@pytest.mark.parametrize("kind", ["sparse", "complex", "meta", "strides"])
def test_weights_that_are_no_plain_numbers(there: Path, kind: str) -> None:
    content = read(there / "runs" / "done" / "best.ckpt")
    name, weight = next((n, w) for n, w in content["state_dict"].items() if w.ndim == 2)
    made = {
        "sparse": lambda: weight.to_sparse(),
        "complex": lambda: weight.to(torch.complex64),
        "meta": lambda: weight.to("meta"),
        "strides": lambda: torch.zeros(1).expand(weight.shape),
    }
    content["state_dict"][name] = made[kind]()
    write(content, there / "crafted.ckpt")
    with pytest.raises(CheckpointError):
        load_task(there / "crafted.ckpt")


def test_a_dictionary_within_itself(there: Path) -> None:
    for inside in ((KEY, "config", "model"), (KEY, "spec", "settings"), (KEY, "config")):
        content = read(there / "runs" / "done" / "best.ckpt")
        part = content
        for key in inside:
            part = part[key]
        part["itself"] = part
        write(content, there / "crafted.ckpt")
        error = outcome(load_task, there / "crafted.ckpt")
        assert error is None or (isinstance(error, CheckpointError) and len(str(error)) < 1000)


def test_the_command_line_says_one_line(there: Path, litlab: Any) -> None:
    content = read(there / "runs" / "done" / "best.ckpt")
    content["state_dict"] = [1]
    write(content, there / "crafted.ckpt")
    for words in (
        ["evaluate", "crafted.ckpt"],
        ["predict", "crafted.ckpt", "conf", "-o", "out.csv"],
        ["generate", "crafted.ckpt"],
        ["replay", "crafted.ckpt"],
        ["train", *SMALL, "init_from=crafted.ckpt"],
    ):
        code, _, err = litlab(*words)
        assert code == 4, words
        assert err.count("error: ") == 1
        assert "Traceback" not in err
