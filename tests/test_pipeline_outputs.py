"""DVC deletes a stage's outputs before it runs it: nothing of the user's may be among them."""

import os
import shutil
import sys

import pytest
import yaml

from dvc_helpers import dvc, repository, run

CONTENT = "the only copy"
TINY = ("data=synthetic", "data.source.num_samples=60", "model=mlp", "trainer.max_epochs=1")
# Where a name would lead from data/prepared; an absolute one where it says.
NAMES = {"inside": "../../photos", "outside": "../../../photos", "absolute": None}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    return repository(tmp_path_factory.mktemp("outputs") / "repo", *TINY)


@pytest.fixture
def clean(repo):
    """The repository as it was committed, with nothing else in it."""
    yield repo
    for name in ("runs/pipeline", "data/prepared", "reports", "runs"):
        if (repo / name).is_symlink():
            (repo / name).unlink()
    run("git", "checkout", "-q", ".", cwd=repo)
    run("git", "clean", "-qfdx", "-e", ".dvc", cwd=repo)


def keep(folder):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "mine.txt"
    file.write_text(CONTENT)
    return file


def name_data(repo, name):
    path = repo / "params.yaml"
    content = yaml.safe_load(path.read_text())
    content["data"]["name"] = name
    path.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("case", "command"),
    [("inside", "repro"), ("outside", "repro"), ("absolute", "repro"), ("outside", "exp run")],
)
def test_no_name_of_the_data_deletes_a_folder(clean, tmp_path, case, command):
    name = NAMES[case] or str(tmp_path / "photos")
    mine = keep(clean / "data" / "prepared" / name)
    if command == "repro":
        name_data(clean, name)
        output = dvc_refused("repro", "prepare", cwd=clean)
    else:
        settings = [f"data.name={name}", *TINY]
        output = dvc_refused("exp", "run", *sum((["-S", s] for s in settings), []), cwd=clean)
    assert mine.read_text() == CONTENT
    assert f"data.name={name}, but must be a name" in output


def dvc_refused(*arguments, cwd):
    return run(sys.executable, "-m", "dvc", *arguments, cwd=cwd, check=False)


def test_a_link_of_the_data_s_own_name_is_left_alone(clean, tmp_path):
    mine, link = keep(tmp_path / "photos"), clean / "data" / "prepared" / "photos"
    (tmp_path / "photos" / "spec.json").write_text("{}")  # as if prepared
    link.parent.mkdir(parents=True)
    link.symlink_to(mine.parent)
    name_data(clean, "photos")
    dvc("repro", "prepare", cwd=clean)
    assert (clean / "data" / "prepared" / "pipeline" / "spec.json").is_file()
    assert link.is_symlink()
    assert sorted(os.listdir(link)) == ["mine.txt", "spec.json"]


@pytest.mark.parametrize("place", ["data/prepared/pipeline", "runs/pipeline"])
def test_what_a_link_in_an_output_s_place_leads_to_is_left_alone(clean, tmp_path, place):
    mine = keep(tmp_path / "elsewhere")
    (clean / place).parent.mkdir(parents=True, exist_ok=True)
    (clean / place).symlink_to(mine.parent)
    assert "error: " in dvc_refused("repro", cwd=clean)
    assert mine.read_text() == CONTENT
    assert os.listdir(mine.parent) == ["mine.txt"]


def test_params_add_no_stage_and_no_command(clean):
    path = clean / "params.yaml"
    order = {"tune": {"../../quick": "data=digits; touch injected"}}
    path.write_text(path.read_text() + yaml.safe_dump(order))
    output = dvc_refused("repro", "tune", cwd=clean)
    assert "cannot redefine 'tune'" in output
    output = dvc_refused("exp", "run", "-S", "+tune.quick='x; touch injected'", cwd=clean)
    assert "cannot redefine 'tune'" in output
    assert not (clean / "injected").exists()


def test_no_output_depends_on_a_setting(repo):
    stages = yaml.safe_load((repo / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        outs = str([stage.get("do", stage).get(key) for key in ("outs", "metrics", "plots")])
        assert "${" not in outs.replace("${item.study}", "" if name == "tune" else "${"), name
