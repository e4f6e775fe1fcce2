"""`litlab inspect`: a preset from a file, and training from that preset."""

import csv

import numpy as np
import pytest
import yaml

import litlab as package
from litlab.config.compose import load
from litlab.data import inspect as module
from litlab.data.prepare.prepare import prepare
from litlab.data.raw import Decision
from litlab.utils.errors import ConfigError, DataError


@pytest.fixture
def table(project):
    rng = np.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f},{'yes' if a > b else 'no'}" for a, b in rng.normal(size=(90, 2))]
    (project / "my people.csv").write_text("\n".join(["a,b,the answer", *rows]) + "\n")
    return project


def test_a_preset_is_written_and_read(table) -> None:
    made = package.inspect("my people.csv", "the answer")
    assert (made.name, made.preset) == ("my_people", "table")
    assert made.path == table / "conf" / "data" / "my_people.yaml"
    config = load(["data=my_people"])
    assert config.data.source["target"] == "the answer"
    spec = prepare(config.data, table / "made")
    assert (spec.name, spec.classes) == ("my_people", ("no", "yes"))


def test_decisions_become_settings_with_their_reasons(table, monkeypatch) -> None:
    decided = (
        Decision(setting="data.source.decimal", value=",", why="80 of 90 cells are like '2,6'"),
        Decision(setting="data.group", value=None, why="because " * 20),
        Decision(setting="data.source.drop", value=["b"], why="constant"),
    )
    hints = (Decision(setting="data.time", value="when", why="it holds dates"),)
    plain = module._read

    def read(config):
        raw = plain(config)
        raw.reading = raw.reading.model_copy(update={"decisions": decided, "suggestions": hints})
        return raw

    monkeypatch.setattr(module, "_read", read)
    made = package.inspect("my people.csv", "the answer", name="mine")
    text = made.path.read_text()
    content = yaml.safe_load(text)
    assert content["defaults"] == ["table", "_self_"]
    assert content["data"]["source"] == {"target": "the answer", "decimal": ",", "drop": ["b"]}
    assert content["data"]["group"] is None
    assert "decimal: \",\" # 80 of 90 cells are like '2,6'" in text
    assert "# data.time: when (it holds dates)" in text
    assert max(map(len, text.splitlines())) <= 170
    with pytest.raises(DataError, match=r"3 settings are left open \(decimal: 80 of 90") as caught:
        package.inspect("my people.csv", "the answer", name="other", strict=True)
    assert "'data.source.decimal=\",\"' data.group=null" in caught.value.fix
    assert not (table / "conf" / "data" / "other.yaml").exists()


@pytest.mark.parametrize("column", [True, False])
def test_no_cell_and_no_name_becomes_a_setting(project, column, litlab) -> None:
    """A file from elsewhere must not write into the configuration, nor move the cursor."""
    forged = "x\n  path: /etc/passwd\ntrust: [evil]\x1b[2J\u2028\x85#"
    with (project / "odd.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["a", forged if column else "b", "label"])
        cells = ["const"] if column else ["$1.50", "$2.50", forged]
        rows.writerows([i * 0.37 % 1, cells[i % 7 % len(cells)], "pq"[i % 2]] for i in range(90))
    code, _, err = litlab("inspect", "odd.csv")
    assert code == 0
    assert "\x1b" not in err
    content = yaml.safe_load((project / "conf" / "data" / "odd.yaml").read_text())
    assert set(content) == {"defaults", "data"}
    assert content["data"]["path"] == "odd.csv"
    if column:
        assert content["data"]["source"]["drop"] == [forged]
    spec = prepare(load(["data=odd"]).data, project / "made")
    assert spec.classes == ("p", "q")


def test_a_preset_is_not_overwritten_unasked(table) -> None:
    made = package.inspect("my people.csv", "the answer")
    before = made.path.read_text()
    with pytest.raises(ConfigError, match="there is a preset of that name"):
        package.inspect("my people.csv", "the answer")
    assert made.path.read_text() == before
    package.inspect("my people.csv", "the answer", replace=True)


def test_the_command(table, litlab) -> None:
    code, out, err = litlab(
        "inspect", "my people.csv", "--target", "the answer", "--name", "mine", "--json"
    )
    assert code == 0
    assert '"name": "mine"' in out
    assert "wrote conf/data/mine.yaml" in err
    assert err.endswith("next: litlab train data=mine\n")


def test_without_a_project(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("arrays.npz", x=np.zeros((9, 4, 4), np.uint8), y=np.arange(9) % 3)
    package.inspect("arrays.npz")
    assert load(["data=arrays"]).data.path == "arrays.npz"


@pytest.mark.parametrize("words", [["data=auto", "data.path=my people.csv"]])
def test_training_at_once_asks_for_the_target(table, words) -> None:
    with pytest.raises(
        ConfigError, match="which column is to be predicted: 'a', 'b', 'the answer'"
    ):
        package.compose(*words)
    config = package.compose(*words, "data.target=the answer")
    assert (config.data.name, config.data.source["target"]) == ("my_people", "the answer")


def test_a_folder_of_files_and_an_array_by_name(project) -> None:
    lines = ["a,b,label", *(f"{i * 0.37 % 1},{i * 0.61 % 1},{'pq'[i % 2]}" for i in range(80))]
    (project / "both").mkdir()
    for name in ("train", "test"):
        (project / "both" / f"{name}.csv").write_text("\n".join(lines) + "\n")
    config = package.compose("data=auto", "data.path=both")
    assert config.data.path == config.data.source["path"] == "both/train.csv"
    assert config.data.source["test_path"] == "both/test.csv"
    assert config.data.test_fraction is None
    y = {"kind": np.arange(9) % 3, "y": np.arange(9) % 2}
    np.savez("arrays.npz", x=np.zeros((9, 4, 4), np.uint8), **y)
    config = package.compose("data=auto", "data.path=arrays.npz", "data.target=kind")
    assert config.data.source["y"] == "kind"
