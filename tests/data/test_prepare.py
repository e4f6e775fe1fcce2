import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from litlab.config.compose import load
from litlab.config.instantiate import build
from litlab.data.loading import Preprocess, open_split, sha256
from litlab.data.prepare.open import open_or_prepare
from litlab.data.prepare.prepare import prepare
from litlab.data.spec import DataSpec
from litlab.utils.errors import ConfigError, DataError, EnvironmentFault
from litlab.utils.paths import prepared_folder
from made_data import KINDS, make_config, make_raw, prepare_raw

SMALL = ["data=synthetic", "data.source.num_samples=60"]
USER_SOURCE = """
import numpy as np
from litlab.data.raw import Raw


class Parity:
    def __init__(self, *, rows: int = 40) -> None:
        self.rows = rows

    def read(self) -> Raw:
        x = np.arange(self.rows, dtype=np.float32)[:, None]
        return Raw(
            kind="tabular", task="classification", parts={"all": (x, np.arange(self.rows) % 2)},
            classes=["even", "odd"], features=["number"], licence="mine", origin="here",
        )
"""


def left_in(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if not name.endswith(".lock")]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["image", "sequence", "tabular"])
def test_statistics_are_of_train_alone(kind, tmp_path, monkeypatch) -> None:
    shape = (3, 4, 4) if kind == "image" else None
    raw = make_raw(kind, shape=shape)
    spec = prepare_raw(raw, tmp_path / "made", monkeypatch)
    place = open_split(tmp_path / "made", spec, "train").source_index.numpy()
    train = raw.parts["all"][0][place].astype(np.float64) / (255 if kind == "image" else 1)
    columns = np.moveaxis(train, 1, -1).reshape(-1, train.shape[1])
    np.testing.assert_allclose(spec.mean, columns.mean(0), rtol=1e-9)
    np.testing.assert_allclose(spec.std, columns.std(0), rtol=1e-9)
    assert spec.class_counts == tuple(np.bincount(raw.parts["all"][1][place]))


def test_target_statistics_are_of_train_alone(tmp_path, monkeypatch) -> None:
    raw = make_raw(targets=2)
    spec = prepare_raw(raw, tmp_path / "made", monkeypatch)
    train = open_split(tmp_path / "made", spec, "train").y.double().numpy()
    np.testing.assert_allclose(spec.target_mean, train.mean(0), rtol=1e-9)
    np.testing.assert_allclose(spec.target_std, train.std(0), rtol=1e-9)
    assert spec.class_counts == ()


def test_what_the_spec_says_of_text(tmp_path, monkeypatch) -> None:
    spec = prepare_raw(make_raw("text"), tmp_path / "made", monkeypatch)
    assert (spec.mean, spec.std) == ((), ())
    assert (spec.vocab_size, spec.pad_id, spec.dtype) == (6, 0, "int32")


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9, 1e-40, "jitter", "small"])
def test_a_constant_column_becomes_zeros(value, tmp_path, monkeypatch) -> None:
    raw = make_raw("tabular")
    x = raw.parts["all"][0].astype(np.float64)
    if value == "jitter":
        x[:, 1] = 1e6 + 1e-4 * np.arange(len(x))  # less than float32 can tell
    elif value == "small":
        x[:, 1] = 1e-42 * np.arange(len(x))  # 1/std overflows
    else:
        x[:, 1] = value
    raw.parts = {"all": (x, raw.parts["all"][1])}
    spec = prepare_raw(raw, tmp_path / "made", monkeypatch)
    out = Preprocess(spec)(open_split(tmp_path / "made", spec, "train").x)
    assert out.isfinite().all()
    assert torch.allclose(out[:, 1], torch.zeros(len(out)), atol=1e-3)
    assert spec.std[1] == 1


def test_a_constant_target_and_a_blank_channel(tmp_path, monkeypatch) -> None:
    raw = make_raw("image", targets=1)
    raw.parts = {"all": (raw.parts["all"][0], np.full((60, 1), 3.0))}
    assert prepare_raw(raw, tmp_path / "a", monkeypatch).target_std == (1.0,)
    raw = make_raw("image", shape=(2, 4, 4))
    raw.parts["all"][0][:, 1] = 7
    assert prepare_raw(raw, tmp_path / "b", monkeypatch).std[1] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_run_writes_the_same_bytes(kind, project: Path) -> None:
    config = load([*SMALL, f"data.source.kind={kind}"]).data
    folder = prepared_folder(config.name)
    spec = prepare(config, folder)
    first = contents(folder)
    assert prepare(config, folder) == spec == DataSpec.load(folder)
    assert contents(folder) == first
    arrays = {"train.safetensors", "val.safetensors", "test.safetensors"}
    assert set(first) == {*arrays, "spec.json", "leakage.json", "reading.json"}
    files = [path for path in folder.iterdir() if path.name != "spec.json"]
    assert spec.checksums == {path.name: sha256(path) for path in files}
    assert sum(spec.sizes.values()) == 60


@pytest.mark.parametrize(
    "moment",
    [
        "litlab.data.prepare.prepare.SplitWriter",
        "litlab.data.prepare.source_files._replace",
        "litlab.data.prepare.prepare.split_hash",
    ],
)
def test_an_interruption_leaves_the_old_data(moment, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "made"
    prepare_raw(make_raw(), folder, monkeypatch)
    before = contents(folder)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_raw(make_raw(number=90), folder, monkeypatch)
    assert contents(folder) == before
    assert left_in(tmp_path) == ["made"]


@pytest.mark.parametrize("fails", [1, 2])
def test_a_rename_that_fails_leaves_the_old_data(fails, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "made"
    prepare_raw(make_raw(), folder, monkeypatch)
    before, rename, calls = contents(folder), Path.rename, []

    def fail(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == fails:
            raise OSError("disk trouble")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(EnvironmentFault, match="disk trouble") as caught:
        prepare_raw(make_raw(number=90), folder, monkeypatch)
    assert caught.value.exit_code == 5
    assert contents(folder) == before
    assert left_in(tmp_path) == ["made"]


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="cannot write") as caught:
        prepare_raw(make_raw(), tmp_path / "file" / "made", monkeypatch)
    assert caught.value.where == str(tmp_path / "file" / "made")


def test_refused_data_leave_nothing(tmp_path, monkeypatch) -> None:
    raw = make_raw()
    raw.parts["all"][0][3, 2] = np.nan
    with pytest.raises(DataError, match="missing or infinite"):
        prepare_raw(raw, tmp_path / "made", monkeypatch)
    assert left_in(tmp_path) == []


def test_a_class_that_val_lacks_is_warned_of(tmp_path, monkeypatch) -> None:
    raw = make_raw()
    rare = np.where(np.arange(60) == 0, 2, np.arange(60) % 2)
    raw.parts = {"all": (raw.parts["all"][0], rare)}
    with pytest.warns(UserWarning, match="val has no samples of the classes class 2"):
        prepare_raw(raw, tmp_path / "made", monkeypatch, stratify=False)


def test_a_source_that_returns_something_else(tmp_path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="read\\(\\) returned tuple"):
        prepare_raw((1, 2), tmp_path / "made", monkeypatch)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "..", ".hidden", "", "a\n", "x" * 101])
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        make_config(name=name)


def test_a_name_on_the_command_line_cannot_leave_either(project: Path) -> None:
    with pytest.raises(ConfigError, match="data.name"):
        load([*SMALL, "data.name=../x"])


def test_data_are_prepared_once(project: Path, capsys) -> None:
    config = load(SMALL).data
    folder, spec = open_or_prepare(config, [])
    assert "preparing synthetic" in capsys.readouterr().err
    age = (folder / "spec.json").stat().st_mtime_ns
    assert open_or_prepare(config, []) == (folder, spec)
    assert (folder / "spec.json").stat().st_mtime_ns == age
    assert folder == project / "data" / "prepared" / "synthetic"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.split_seed=3", "data.split_seed=0; this run asks for data.split_seed=3"),
        (
            "data.source.num_samples=70",
            "num_samples=60; this run asks for data.source.num_samples=70",
        ),
        ("data.stratify=false", "data.stratify=true; this run asks for data.stratify=false"),
        (
            "+data.source={kind: text}",
            "data.source.kind=image; this run asks for data.source.kind=text",
        ),
    ],
)
def test_data_prepared_otherwise_are_not_used(project: Path, override, message) -> None:
    folder, _ = open_or_prepare(load(SMALL).data, [])
    before = contents(folder)
    with pytest.raises(DataError, match=message) as caught:
        open_or_prepare(load([*SMALL, override]).data, [])
    assert "data.name" in caught.value.fix
    assert contents(folder) == before


def test_the_pipelines_data_serve_a_run_of_the_same_settings(project: Path) -> None:
    config, pipeline = load(SMALL).data, project / "data" / "prepared" / "pipeline"
    prepare(config, pipeline)
    assert open_or_prepare(config, [])[0] == pipeline
    assert open_or_prepare(config, [], Path("data/../data/prepared/pipeline"))[0] == pipeline
    other = load([*SMALL, "data.split_seed=3"]).data
    own, _ = open_or_prepare(other, [])
    assert own == project / "data" / "prepared" / "synthetic"
    assert open_or_prepare(other, [])[0] == own
    with pytest.raises(DataError, match="this run asks for data.split_seed=3") as caught:
        open_or_prepare(other, [], pipeline)
    assert "dvc repro" in caught.value.fix
    with pytest.raises(DataError, match="no prepared data"):
        open_or_prepare(config, [], project / "elsewhere")


@pytest.mark.parametrize("name", ["pipeline", "Pipeline"])
def test_no_data_set_has_the_name_of_the_pipelines_folder(project: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="not 'pipeline', the folder of the DVC pipeline"):
        load([*SMALL, f"data.name={name}"])


def test_only_prepared_data_are_replaced(project: Path) -> None:
    config, folder = load(SMALL).data, project / "data" / "prepared" / "synthetic"
    folder.mkdir(parents=True)
    mine = folder / "photo.png"
    mine.write_bytes(b"the only copy")
    with pytest.raises(DataError, match="it holds photo.png, which would be deleted") as caught:
        prepare(config, folder)
    assert "data.name" in caught.value.fix
    assert contents(folder) == {"photo.png": b"the only copy"}
    mine.rename(project / "photo.png")
    prepare(config, folder)
    prepare(config, folder)
    (folder / "notes").mkdir()
    with pytest.raises(DataError, match="it holds notes, which would be deleted"):
        prepare(config, folder)
    with pytest.raises(DataError, match="it holds photo.png, which would be deleted"):
        prepare(config, project / "photo.png")


def test_a_link_is_replaced_and_not_what_it_leads_to(project: Path) -> None:
    config, folder = load(SMALL).data, project / "data" / "prepared" / "synthetic"
    target = project / "disk" / "synthetic"
    prepare(config, target)
    before = contents(target)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(target)
    prepare(load([*SMALL, "data.split_seed=3"]).data, folder)
    assert contents(target) == before
    assert not folder.is_symlink()
    assert not list(folder.parent.glob(".synthetic~*"))


def test_a_source_of_the_users_own(project: Path) -> None:
    (project / "my_parity_source.py").write_text(USER_SOURCE)
    (project / "conf" / "data" / "parity.yaml").write_text(
        "# @package _global_\n"
        "data:\n  name: parity\n  source: {_target_: my_parity_source.Parity, rows: 50}\n"
        "  val_fraction: 0.2\n  test_fraction: 0.2\n  split_seed: 0\n  stratify: true\n"
    )
    with pytest.raises(ConfigError, match="not in a trusted package") as caught:
        load(["data=parity"])
    assert "trust=[my_parity_source]" in caught.value.fix
    config = load(["data=parity", "trust=[my_parity_source]"])
    folder, spec = open_or_prepare(config.data, config.trust)
    assert spec.classes == ("even", "odd")
    assert sum(spec.sizes.values()) == 50
    test = open_split(folder, spec, "test")
    assert torch.equal(test.x[:, 0].long() % 2, test.y)


def test_a_source_of_the_users_own_needs_trust_when_it_is_built(project: Path) -> None:
    (project / "my_untrusted_source.py").write_text("raise SystemExit('it ran')")
    node = {"_target_": "my_untrusted_source.Source"}
    with pytest.raises(ConfigError, match="is not in a trusted package"):
        build(node, where="data.source")


def test_a_file_that_cannot_be_read_is_not_called_unwritable(tmp_path, monkeypatch) -> None:
    class Broken:
        shape = (60, 4)

        def __len__(self) -> int:
            return 60

        def __getitem__(self, rows: np.ndarray) -> np.ndarray:
            raise OSError("disk trouble")

    raw = make_raw()
    raw.parts = {"all": (Broken(), raw.parts["all"][1])}
    with pytest.raises(EnvironmentFault, match="cannot be read: disk trouble") as caught:
        prepare_raw(raw, tmp_path / "made", monkeypatch)
    assert caught.value.exit_code == 5
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("name", ["drift", "imbalance", "label_noise"])
def test_only_what_stops_can_be_allowed(name: str) -> None:
    with pytest.raises(ValidationError):
        make_config(allow=[name])
