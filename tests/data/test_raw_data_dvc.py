"""The user's raw data kept by DVC, as docs/data-versions.md shows it: locally and on S3. Long."""

import hashlib
import importlib.util
import os
import shutil
import sys
import warnings

import numpy as np
import pytest
import yaml

import forked
from dvc_helpers import dvc, repository, run

SETTINGS = (
    "data=image_folder",
    "data.path=data/raw/photos",
    "data.name=photos",
    "model=mlp",
    "trainer.max_epochs=1",
    "loader.batch_size=8",
)
NOTE = "data/raw/photos.dvc"
SECRET = "a-secret-that-stays-here"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]


def take_photos(folder, number=15):
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(number):
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def commit(folder, message):
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-q", "-m", message, cwd=folder)


def clone(folder, into):
    run("git", "clone", "-q", str(folder), str(into), cwd=folder)
    run("git", "config", "user.name", "Test", cwd=into)
    run("git", "config", "user.email", "test@example.org", cwd=into)
    return into


def prepared(folder):
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return stages["prepare"]["outs"][0]["md5"]


def litlab(*arguments, cwd):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    command = [sys.executable, "src/litlab", *arguments]
    return forked.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A project whose photos DVC keeps, with its results, pushed to a folder."""
    folder = repository(tmp_path_factory.mktemp("origin"), *SETTINGS)
    take_photos(folder / "data" / "raw" / "photos")
    dvc("add", "data/raw/photos", cwd=folder)
    dvc("remote", "add", "-d", "storage", str(tmp_path_factory.mktemp("storage")), cwd=folder)
    output = dvc("repro", cwd=folder)
    assert output.index(f"'{NOTE}' didn't change") < output.index("Running stage 'prepare'")
    commit(folder, "photos and first results")
    dvc("push", cwd=folder)
    return folder


@pytest.fixture
def workplace(origin, tmp_path):
    """A second place to work in: cloned, and pulled."""
    folder = clone(origin, tmp_path / "clone")
    dvc("pull", cwd=folder)
    return folder


def test_git_has_the_note_and_not_the_photos(origin):
    tracked = run("git", "ls-files", "data", cwd=origin).split()
    assert tracked == ["data/raw/.gitignore", "data/raw/README.md", NOTE]
    assert run("git", "status", "--porcelain", cwd=origin) == ""


def test_pulled_elsewhere_nothing_has_to_run(origin, workplace):
    photos = workplace / "data" / "raw" / "photos"
    assert contents(photos) == contents(origin / "data" / "raw" / "photos")
    output = dvc("repro", cwd=workplace)
    assert "Running stage" not in output
    assert output.count("didn't change, skipping") == 4


def test_from_the_photos_alone_the_pipeline_makes_the_same_bytes(origin, tmp_path):
    folder = clone(origin, tmp_path / "clone")
    dvc("pull", NOTE, cwd=folder)
    output = dvc("repro", "prepare", cwd=folder)
    assert "Running stage 'prepare'" in output
    assert prepared(folder) == prepared(origin)


def test_a_changed_photo_prepares_and_trains_again(workplace):
    before, note = prepared(workplace), (workplace / NOTE).read_text()
    photos = workplace / "data" / "raw" / "photos"
    shutil.copy(photos / "cat" / "0.png", workplace / "kept.png")
    take_photos(workplace / "new", number=16)
    shutil.copy(workplace / "new" / "cat" / "15.png", photos / "cat" / "0.png")
    shutil.rmtree(workplace / "new")
    assert "modified:           data/raw/photos" in dvc("status", cwd=workplace)
    output = dvc("repro", cwd=workplace)
    for stage in ("prepare", "train", "evaluate"):
        assert f"Running stage '{stage}'" in output
    assert prepared(workplace) != before
    assert (workplace / NOTE).read_text() != note  # repro noted the new state: no second `dvc add`
    assert "up to date" in dvc("status", cwd=workplace)
    # The old state comes back by git and DVC, without a run.
    run("git", "checkout", "-q", ".", cwd=workplace)
    dvc("checkout", cwd=workplace)
    first = (photos / "cat" / "0.png").read_bytes()
    assert first == (workplace / "kept.png").read_bytes()
    assert "Running stage" not in dvc("repro", cwd=workplace)
    assert prepared(workplace) == before


def test_another_data_set_beside_it_trains_nothing_again(workplace):
    take_photos(workplace / "data" / "raw" / "other", number=2)
    (workplace / "data" / "raw" / "README.md").write_text("changed\n")
    dvc("add", "data/raw/other", cwd=workplace)
    output = dvc("repro", cwd=workplace)
    assert "Running stage 'prepare'" in output
    assert "Running stage 'train'" not in output


def test_a_changed_readme_prepares_nothing_again(workplace):
    (workplace / "data" / "raw" / "README.md").write_text("changed\n")
    assert "Running stage" not in dvc("repro", cwd=workplace)


def test_queued_experiments_find_the_photos(workplace):
    settings = sum((["-S", setting] for setting in SETTINGS), [])
    dvc("exp", "run", "--queue", *settings, "-S", "data.split_seed=1", cwd=workplace)
    dvc("exp", "run", "--run-all", cwd=workplace)
    table = dvc("exp", "show", "--csv", cwd=workplace)
    assert ",Success," in table
    assert ",Failed," not in table


def test_missing_photos_are_one_line_that_says_how_to_get_them(origin, tmp_path):
    folder = clone(origin, tmp_path / "clone")
    done = litlab("prepare", "--params", "params.yaml", cwd=folder)
    assert done.returncode == 5
    assert done.stderr == (
        "error: there is no such file or folder | data/raw/photos | "
        f"DVC keeps it: `dvc pull {NOTE}`\n"
    )
    assert "missing data 'source': data/raw/photos" in run(
        sys.executable, "-m", "dvc", "repro", cwd=folder, check=False
    )
    dvc("remote", "remove", "storage", cwd=folder)
    done = litlab("prepare", "--params", "params.yaml", cwd=folder)
    assert done.returncode == 5
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: there is no such file or folder | data/raw/photos | ")
    assert "no remote is configured" in line
    assert "`dvc remote add -d NAME ADDRESS`" in line


def test_photos_that_dvc_does_not_keep_are_missed_in_a_queued_experiment(workplace):
    dvc("remove", NOTE, cwd=workplace)
    (workplace / ".gitignore").write_text("/data/raw/photos\n" + read(workplace / ".gitignore"))
    commit(workplace, "no longer kept")
    settings = sum((["-S", setting] for setting in SETTINGS), [])
    dvc("exp", "run", "--queue", *settings, "-S", "data.split_seed=1", cwd=workplace)
    output = run(sys.executable, "-m", "dvc", "exp", "run", "--run-all", cwd=workplace, check=False)
    assert "let DVC keep it (`dvc add`)" in output


def read(path):
    return path.read_text()


@pytest.fixture
def s3():
    """The address of an S3 server on this machine, with an empty bucket."""
    for module in ("moto", "dvc_s3", "boto3"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import boto3
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=address,
            region_name="us-east-1",
            aws_access_key_id="somebody",
            aws_secret_access_key=SECRET,
        )
        client.create_bucket(Bucket="lab")
    yield address, client
    server.stop()


def allow(folder):
    """What each who works with the remote does once, for themselves."""
    for key, value in (("access_key_id", "somebody"), ("secret_access_key", SECRET)):
        dvc("remote", "modify", "--local", "team", key, value, cwd=folder)


def test_photos_travel_by_s3(origin, s3, tmp_path):
    address, client = s3
    here = clone(origin, tmp_path / "here")
    dvc("pull", NOTE, cwd=here)
    dvc("remote", "add", "-d", "team", "s3://lab/photos-project", cwd=here)
    dvc("remote", "modify", "team", "endpointurl", address, cwd=here)
    allow(here)
    commit(here, "the team's storage")
    dvc("push", NOTE, cwd=here)
    stored = client.list_objects_v2(Bucket="lab")["KeyCount"]
    assert stored == 31  # the photos and their list

    there = clone(here, tmp_path / "there")
    assert SECRET not in run("git", "log", "-p", cwd=there)
    allow(there)
    dvc("pull", NOTE, cwd=there)
    photos = ("data", "raw", "photos")
    assert contents(there.joinpath(*photos)) == contents(origin.joinpath(*photos))
    assert "Running stage 'prepare'" in dvc("repro", "prepare", cwd=there)
    assert prepared(there) == prepared(origin)
    # A new photo comes back the other way.
    take_photos(tmp_path / "new", number=16)
    shutil.copy(tmp_path / "new" / "cat" / "15.png", there.joinpath(*photos, "cat", "15.png"))
    dvc("repro", "prepare", cwd=there)
    dvc("push", NOTE, cwd=there)
    commit(there, "one more")
    run("git", "pull", "-q", str(there), "main", cwd=here)
    dvc("pull", NOTE, cwd=here)
    assert len(contents(here.joinpath(*photos))) == 31
    assert contents(here.joinpath(*photos)) == contents(there.joinpath(*photos))
