"""What `prepare` does with samples that are in two splits."""

import numpy as np
import pytest

from litlab.data.leakage.chance import by_chance
from litlab.data.leakage.report import LeakageReport
from litlab.data.loading import open_split
from litlab.utils.errors import DataError
from made_data import make_raw, prepare_raw


def doubled(kind="tabular", copies=60):
    raw = make_raw(kind)
    x, y = raw.parts["all"]
    raw.parts = {"all": (np.concatenate([x, x[:copies]]), np.concatenate([y, y[:copies]]))}
    return raw


def rows(folder, spec, split):
    samples = open_split(folder, spec, split).x.numpy()
    return {row.tobytes() for row in samples}


@pytest.mark.parametrize("kind", ["tabular", "image", "sequence"])
def test_copies_stay_in_train_alone(tmp_path, monkeypatch, capsys, kind) -> None:
    folder = tmp_path / "made"
    kept = prepare_raw(doubled(kind), tmp_path / "kept", monkeypatch, duplicates="keep")
    before = {s: rows(tmp_path / "kept", kept, s) for s in kept.sizes}
    capsys.readouterr()
    spec = prepare_raw(doubled(kind), folder, monkeypatch)
    after = {s: rows(folder, spec, s) for s in spec.sizes}
    assert spec.sizes["train"] == kept.sizes["train"]
    assert after["train"] == before["train"]
    assert after["val"] == before["val"] - before["train"]
    assert after["test"] == before["test"] - before["train"] - before["val"]
    number = sum(kept.sizes.values()) - sum(spec.sizes.values())
    shown = capsys.readouterr().err
    assert f"leakage check: {number} copies left out: " in shown
    report = LeakageReport.model_validate_json((folder / "leakage.json").read_text())
    assert (report.findings[0].count, report.stopping()) == (number, [])


def test_a_publishers_test_split_stays_whole(tmp_path, monkeypatch) -> None:
    raw = make_raw()
    x, y = raw.parts["all"]
    raw.parts = {"train": (x, y), "test": (x[:12], y[:12])}
    spec = prepare_raw(raw, tmp_path / "made", monkeypatch, test_fraction=None)
    assert spec.sizes["test"] == 12
    assert spec.sizes["train"] + spec.sizes["val"] == 48
    test = rows(tmp_path / "made", spec, "test")
    assert not test & (
        rows(tmp_path / "made", spec, "train") | rows(tmp_path / "made", spec, "val")
    )
    assert list(spec.mean) != [0.0] * 4


def test_what_is_learnt_from_train_is_learnt_without_them(tmp_path, monkeypatch) -> None:
    raw = make_raw()
    x, y = raw.parts["all"]
    raw.parts = {"train": (x, y), "test": (x[:12], y[:12])}
    spec = prepare_raw(raw, tmp_path / "made", monkeypatch, test_fraction=None)
    train = open_split(tmp_path / "made", spec, "train").x.numpy()
    assert spec.mean == pytest.approx(train.mean(0, dtype=np.float64))
    assert sum(spec.class_counts) == len(train)


def test_they_are_refused_on_request_and_named(tmp_path, monkeypatch) -> None:
    raw = doubled(copies=10)
    raw.place = lambda part, row: f"{part}.csv:{row + 2}"
    with pytest.raises(DataError, match=r"in two splits: .* \(train all.csv:\d+ = "):
        prepare_raw(raw, tmp_path / "made", monkeypatch, duplicates="refuse")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("settings", [{"duplicates": "keep"}, {"allow": ["exact_duplicates"]}])
def test_they_are_kept_on_request(tmp_path, monkeypatch, settings) -> None:
    spec = prepare_raw(doubled(copies=10), tmp_path / "made", monkeypatch, **settings)
    assert sum(spec.sizes.values()) == 70
    report = LeakageReport.model_validate_json((tmp_path / "made" / "leakage.json").read_text())
    assert [finding.check for finding in report.stopping()] == ["exact_duplicates"]


def test_samples_that_look_alike_stay_with_a_warning(tmp_path, monkeypatch) -> None:
    raw = make_raw("image", shape=(1, 32, 32))
    x, y = raw.parts["all"]
    smooth = np.kron(x[:, :, :8, :8], np.ones((1, 1, 4, 4), np.uint8)) // 2
    raw.parts = {"all": (np.concatenate([smooth, smooth + 1]), np.concatenate([y, y]))}
    with pytest.warns(UserWarning, match=r"looking like .* scores may be too good: drop them"):
        spec = prepare_raw(raw, tmp_path / "made", monkeypatch)
    assert sum(spec.sizes.values()) == 120
    with pytest.raises(DataError, match="looking like"):
        prepare_raw(raw, tmp_path / "made", monkeypatch, duplicates="refuse")


def test_nothing_is_left(tmp_path, monkeypatch) -> None:
    raw = make_raw()
    x, y = raw.parts["all"]
    raw.parts = {"train": (x[:40], y[:40]), "test": (x, y)}
    with pytest.raises(DataError, match="nothing is left of train and val"):
        prepare_raw(raw, tmp_path / "made", monkeypatch, test_fraction=None)


def test_coarse_rows_that_are_equal_by_chance_stay(tmp_path, monkeypatch, capsys) -> None:
    raw = make_raw()
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 2, (400, 4)).astype(np.float32)
    raw.parts = {"all": (coarse, np.arange(400) % 3)}
    spec = prepare_raw(raw, tmp_path / "made", monkeypatch)
    assert sum(spec.sizes.values()) == 400
    assert "as expected by chance of so few different values: kept" in capsys.readouterr().err


def test_chance_needs_frequent_values() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 3, (500, 4)).astype(np.float32)
    assert by_chance(coarse, coarse).all()
    fine = rng.normal(size=(500, 4)).astype(np.float32)
    assert not by_chance(fine, fine).any()
    assert not by_chance(np.hstack([coarse, fine]), np.hstack([coarse, fine])).any()
