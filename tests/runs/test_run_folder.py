import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from litlab.runs.folder import (
    RunRecord,
    find,
    latest_results,
    make_folder,
    read_results,
)
from litlab.utils.errors import CheckpointError, ConfigError, EnvironmentFault


def make_run(project, name, run_id="", started="2026-01-01", run_name="tea", checkpoint=True):
    folder = project / "runs" / name
    folder.mkdir(parents=True)
    RunRecord(run_id, run_name, "exp", "sqlite://", started=started).save(folder)
    if checkpoint:
        (folder / "best.ckpt").write_bytes(b"x")
    return folder


def test_a_record_reads_back_as_it_was_written(project):
    record = RunRecord("id", "name", "exp", "uri", metrics={"val/loss": 0.1}, git={"dirty": "no"})
    record.save(project)
    assert RunRecord.load(project) == record


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"run_id": 1, "odd": 2}'])
def test_a_damaged_record(project, content):
    (project / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match="not the folder of a run"):
        RunRecord.load(project)


def test_found_by_folder_file_name_id_and_last(project, monkeypatch):
    first = make_run(project, "one", "abcd1111", "2026-01-01T00:00:00.100", run_name="coffee")
    second = make_run(project, "two", "abcd2222", "2026-01-01T00:00:00.200")
    other = second / "last.ckpt"
    other.write_bytes(b"y")
    assert find(str(first)).checkpoint == first / "best.ckpt"
    assert find("runs/one").folder == first
    assert find(str(other)).checkpoint == other
    assert find(str(other)).folder == second
    assert find("two").folder == second
    assert find("coffee").folder == first
    assert find("abcd11").folder == first
    assert find("last").folder == second
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    assert find("two").folder == second


def test_trials_of_a_study(project):
    make_run(project, "quick/trial-0003", "abcd3333", "2027", run_name="quick-0003")
    assert find("last").folder.name == find("quick-0003").folder.name == "trial-0003"
    own = make_run(project, "one", "abcd1111", "2026")
    make_run(project, "wide/trial-0003", "abcd4444", "2027", run_name="wide-0003")
    assert find("last").folder == own  # what was trained by name, not one of many trials
    assert find("wide-0003").folder == find("abcd4444").folder
    with pytest.raises(CheckpointError, match="quick/trial-0003, wide/trial-0003"):
        find("trial-0003")
    with pytest.raises(CheckpointError, match="did you mean 'quick-0003'"):
        find("quick-0004")


def test_ambiguous_names_are_listed(project):
    make_run(project, "one", "abcd1111")
    make_run(project, "two", "abcd2222")
    for reference in ("abcd", "tea"):
        with pytest.raises(CheckpointError, match="several runs match: one, two"):
            find(reference)


def test_a_short_id_is_no_id(project):
    make_run(project, "one", "abcd1111")
    with pytest.raises(CheckpointError, match="no such run"):
        find("abc")


def test_the_nearest_name_is_offered(project):
    make_run(project, "digits-cnn")
    with pytest.raises(CheckpointError, match="did you mean 'digits-cnn'") as caught:
        find("digits-cnm")
    assert caught.value.exit_code == 4


def test_nothing_trained_yet(project):
    for reference in ("last", "any"):
        with pytest.raises(CheckpointError, match="train one first"):
            find(reference)


def test_a_run_without_checkpoint(project):
    make_run(project, "failed", checkpoint=False)
    with pytest.raises(CheckpointError, match=r"has no best\.ckpt"):
        find("failed")


def test_a_damaged_run_does_not_hide_the_others(project):
    good = make_run(project, "good", "abcd1111")
    bad = make_run(project, "bad", started="2027")
    (bad / "run.json").write_text("{")
    assert find("last").folder == find("abcd11").folder == good


def test_a_checkpoint_without_its_run(project):
    (project / "moved.ckpt").write_bytes(b"x")
    found = find("moved.ckpt")
    assert found.folder == project
    assert found.record is None


def test_a_new_folder_each_time(project):
    made = [make_folder(None, "tea") for _ in range(3)]
    assert len(set(made)) == 3
    assert all(f.is_dir() and f.parent == project / "runs" and not list(f.iterdir()) for f in made)


def test_runs_that_begin_at_once_get_a_folder_each(project, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            "pathlib.Path.exists", lambda self: False
        )  # each looks before any has made it
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _: make_folder(None, "tea"), range(16)))
    assert len(set(made)) == 16


@pytest.mark.parametrize(("name", "held"), [("run.json", "a run"), ("notes.txt", "other files")])
def test_a_folder_that_holds_something_is_left_alone(project, name, held):
    out = project / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"holds {held}") as caught:
        make_folder(out, "tea")
    assert caught.value.exit_code == 2
    assert (out / name).read_text() == "mine"


def test_an_empty_folder_is_taken(project):
    (project / "out").mkdir()
    assert make_folder(project / "out", "tea") == project / "out"


def test_a_place_that_cannot_be_written(project):
    (project / "file").write_text("x")
    for out in (project / "file", project / "file" / "below"):
        with pytest.raises(EnvironmentFault, match="cannot write there") as caught:
            make_folder(out, "tea")
        assert caught.value.exit_code == 5


def test_results_that_are_not_there(project):
    with pytest.raises(CheckpointError, match="no results there"):
        read_results(project)


def test_the_latest_results_are_the_newest_evaluation(project):
    with pytest.raises(CheckpointError, match="nothing has been evaluated"):
        latest_results()
    for number, folder in enumerate(("reports", "runs/a/report", "runs/b/report")):
        path = project / folder / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        os.utime(path, (number, number))
    assert latest_results() == project / "runs/b/report"
    os.utime(project / "reports" / "metrics.json", (9, 9))
    assert latest_results() == project / "reports"


def test_last_is_the_last_run_that_ended_with_a_checkpoint(project):
    ended = make_run(project, "ended", started="2026-01-01")
    running = make_run(project, "running", started="2026-01-02")
    record = RunRecord.load(ended)
    record.status = "FINISHED"
    record.save(ended)
    make_run(project, "empty", started="2026-01-03", checkpoint=False)
    assert find("last").folder == ended
    assert find(str(running)).folder == running


@pytest.mark.parametrize("missing", ["metrics.json", "run.json", "report.html"])
def test_an_evaluation_that_did_not_finish_is_no_result(project, missing):
    old, new = project / "runs" / "a" / "report", project / "runs" / "b" / "report"
    for age, folder in ((1, old), (2, new)):
        folder.mkdir(parents=True)
        for name in ("metrics.json", "run.json", "report.html"):
            (folder / name).write_text("{}")
            os.utime(folder / name, (age, age))
    (new / missing).unlink()
    assert read_results(old) == ({}, {})
    assert latest_results() == new  # and no older one instead, as if nothing had happened
    with pytest.raises(CheckpointError, match=f"did not finish: {missing} is missing"):
        read_results(new)
