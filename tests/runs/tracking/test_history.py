import pytest

from litlab.runs.tracking.history import History, read_rows, write_rows


def test_one_row_an_epoch_whatever_the_order(tmp_path):
    history = History(tmp_path / "history.csv")
    for epoch in range(3):
        history.log_metrics({"val/loss": 2.0 - epoch, "epoch": epoch}, step=epoch * 10)
        history.log_metrics({"train/loss": 3.0 - epoch, "lr": 0.1, "epoch": epoch}, step=epoch * 10)
    expected = [
        {"epoch": e, "val/loss": 2.0 - e, "train/loss": 3.0 - e, "lr": 0.1} for e in range(3)
    ]
    assert list(history.rows.values()) == expected
    assert read_rows(tmp_path / "history.csv") == expected


def test_the_file_is_there_after_each_whole_epoch(tmp_path):
    history = History(tmp_path / "history.csv")
    history.log_metrics({"val/loss": 1.0, "epoch": 0})
    assert read_rows(history.path)[0]["val/loss"] == 1.0  # no train/loss is known to follow
    history.log_metrics({"train/loss": 1.0, "epoch": 0})
    assert len(read_rows(history.path)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["history.csv"]


def test_missing_values_are_none_and_columns_are_of_all_rows(tmp_path):
    rows = [{"epoch": 0, "a": 1.0}, {"epoch": 1, "b": 1e-30}]
    write_rows(tmp_path / "h.csv", rows)
    assert read_rows(tmp_path / "h.csv") == [
        {"epoch": 0, "a": 1.0, "b": None},
        {"epoch": 1, "a": None, "b": 1e-30},
    ]


@pytest.mark.parametrize("value", [0.1 + 0.2, 1 / 3, float("inf"), -0.0, 1e-310])
def test_numbers_come_back_as_they_were(tmp_path, value):
    write_rows(tmp_path / "h.csv", [{"x": value}])
    assert read_rows(tmp_path / "h.csv") == [{"x": value}]


def test_an_absent_file_is_an_empty_history(tmp_path):
    assert read_rows(tmp_path / "absent.csv") == []


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    from lightning_utilities.core.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
    history = History(tmp_path / "history.csv")
    history.log_metrics({"train/loss": 1.0, "epoch": 0})
    assert not history.rows
    assert not history.path.exists()
