import gzip
import io
import os
import random
import re
import struct
import tempfile
import urllib.error
import urllib.request
from hashlib import sha256
from http.client import IncompleteRead
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sklearn import datasets

from litlab.config.instantiate import build
from litlab.config.schema import DataConfig
from litlab.data.prepare.validate import check_raw
from litlab.data.raw import Raw
from litlab.data.sources import idx
from litlab.data.sources.idx import DEBIAN, FILES, FashionMNIST, find_idx, read_idx
from litlab.data.sources.scikit_learn import Diabetes, Digits
from litlab.data.sources.synthetic import MNIST1D, Synthetic
from litlab.data.spec import Kind
from litlab.utils.errors import DataError, EnvironmentFault

REPOSITORY = Path(__file__).parents[2]
CHOICES = sorted((REPOSITORY / "conf" / "data").glob("*.yaml"))
SOURCES = REPOSITORY / "src" / "litlab" / "data" / "sources"
# Those of the user's own files have tests of their own.
OWN = "datamodule"  # a LightningDataModule of the user's own
COME_WITH_DATA = [
    c for c in CHOICES if c.stem != OWN and "path" not in yaml.safe_load(c.read_text())["data"]
]
on_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)


def read(choice: Path) -> Raw:
    config = DataConfig.model_validate(yaml.safe_load(choice.read_text())["data"])
    raw = build(config.source, where="data.source").read()
    assert isinstance(raw, Raw)
    return raw


def pack(array: np.ndarray) -> bytes:
    """An IDX file of bytes, as http://yann.lecun.com/exdb/mnist describes it."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def small_mnist(folder: Path, *, zipped: bool, number: int = 20) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    for stem in FILES:
        shape = (number, 5, 4) if "images" in stem else (number,)
        arrays[stem] = rng.integers(0, 256 if "images" in stem else 10, shape).astype(np.uint8)
        content = pack(arrays[stem])
        if zipped:
            (folder / f"{stem}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / stem).write_bytes(content)
    return arrays


def test_every_source_has_a_choice_and_every_choice_its_source() -> None:
    nodes = [yaml.safe_load(choice.read_text())["data"]["source"] for choice in CHOICES]
    targets = {node.get("_target_", "???") for node in nodes} - {"???"}
    modules = {target.split(".")[-2] for target in targets}
    reads = re.compile(r"    def read\(self.*\) -> Raw:")
    assert modules == {p.stem for p in SOURCES.glob("*.py") if reads.search(p.read_text())}


@pytest.mark.parametrize("choice", COME_WITH_DATA, ids=lambda path: path.stem)
def test_every_source_reads_sound_data_twice_alike(choice: Path) -> None:
    if choice.stem == "fashion_mnist" and not DEBIAN.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    raw, again = read(choice), read(choice)
    check_raw(raw, choice.stem)
    assert raw.licence.strip()
    assert raw.origin.strip()
    dtype = {"image": "u", "text": "i"}.get(raw.kind, "f")
    for name, (x, y) in raw.parts.items():
        assert x.dtype.kind == dtype
        np.testing.assert_array_equal(x, again.parts[name][0])
        np.testing.assert_array_equal(y, again.parts[name][1])
        if raw.task == "classification":
            assert set(np.unique(y)) == set(range(len(raw.classes)))
        else:
            assert y.shape == (len(x), len(raw.targets))
    if raw.kind == "tabular":
        assert len(raw.features) == raw.parts["all"][0].shape[1]


def test_digits_are_those_of_scikit_learn() -> None:
    expected = datasets.load_digits()
    raw = Digits().read()
    x, y = raw.parts["all"]
    assert x.shape == (1797, 1, 8, 8)
    assert (x.min(), x.max()) == (0, 255)
    np.testing.assert_array_equal(np.rint(x[:, 0] / 255 * 16), expected.images)
    np.testing.assert_array_equal(y, expected.target)


@pytest.mark.parametrize("name", ["wine", "breast_cancer"])
def test_tables_are_those_of_scikit_learn(name: str) -> None:
    expected = getattr(datasets, f"load_{name}")()
    raw = read(REPOSITORY / "conf" / "data" / f"{name}.yaml")
    x, y = raw.parts["all"]
    np.testing.assert_array_equal(x, expected.data.astype(np.float32))
    np.testing.assert_array_equal(y, expected.target)
    assert raw.features == [str(name) for name in expected.feature_names]
    assert raw.classes == [str(name) for name in expected.target_names]


def test_diabetes_is_in_its_own_units() -> None:
    """The extremes that Efron et al. 2004 print: ages of 19 to 79, sexes 1 and 2."""
    raw = Diabetes().read()
    x, y = raw.parts["all"]
    assert x.shape == (442, 10)
    assert (x[:, 0].min(), x[:, 0].max()) == (19, 79)
    assert set(x[:, 1].tolist()) == {1, 2}
    assert (y.min(), y.max()) == (25, 346)
    scaled = datasets.load_diabetes().data
    centred = x - x.mean(0, dtype=np.float64)
    np.testing.assert_allclose(centred / np.sqrt((centred**2).sum(0)), scaled, atol=1e-5)


def test_mnist1d_is_what_its_authors_generator_makes() -> None:
    from mnist1d.data import get_dataset_args, make_dataset

    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    raw = MNIST1D().read()
    # The generator seeds the global ones; reading data must not reset a program's random numbers.
    assert random.random() == random.Random(7).random()
    assert np.random.rand() == np.random.RandomState(7).rand()  # noqa: NPY002
    expected = make_dataset(get_dataset_args())
    for part, suffix, number in (("train", "", 4000), ("test", "_test", 1000)):
        x, y = raw.parts[part]
        assert x.shape == (number, 1, 40)
        np.testing.assert_array_equal(x[:, 0], expected[f"x{suffix}"].astype(np.float32))
        np.testing.assert_array_equal(y, expected[f"y{suffix}"])
    assert not np.array_equal(MNIST1D(seed=1).read().parts["test"][1], raw.parts["test"][1])


@pytest.mark.parametrize("kind", ["image", "sequence", "tabular", "text"])
def test_synthetic_data_of_every_kind(kind: Kind) -> None:
    raw = Synthetic(kind=kind, num_samples=50, num_classes=4, seed=3).read()
    check_raw(raw, "synthetic")
    x, y = raw.parts["all"]
    assert len(x) == 50
    assert np.bincount(y).tolist() == [13, 13, 12, 12]
    other = Synthetic(kind=kind, num_samples=50, num_classes=4, seed=4).read().parts["all"][0]
    assert not np.array_equal(x, other)
    regression = Synthetic(kind=kind, num_samples=50, num_classes=0).read()
    check_raw(regression, "synthetic")
    assert regression.task == "regression"
    assert regression.parts["all"][1].shape == (50, 1)


def test_synthetic_text_is_padded_at_its_end() -> None:
    x, _ = Synthetic(kind="text").read().parts["all"]
    padded = x == 0
    assert padded.any()
    np.testing.assert_array_equal(padded, np.logical_or.accumulate(padded, axis=1))
    assert not padded[:, 0].any()


@on_debian
def test_fashion_mnist_from_debian() -> None:
    raw = FashionMNIST().read()
    x, y = raw.parts["train"]
    assert x.shape == (60000, 1, 28, 28)
    assert raw.parts["test"][0].shape == (10000, 1, 28, 28)
    assert np.bincount(y).tolist() == [6000] * 10
    # The figures everyone normalizes it by.
    assert x.mean() / 255 == pytest.approx(0.2860, abs=1e-4)
    assert x.std() / 255 == pytest.approx(0.3530, abs=1e-4)
    assert [raw.classes[label] for label in y[:2]] == ["Ankle boot", "T-shirt/top"]


def test_mnist_itself() -> None:
    folder = os.environ.get("LITLAB_MNIST")
    if not folder:
        pytest.skip("LITLAB_MNIST does not name a folder with MNIST's four IDX files")
    x, y = FashionMNIST(folder=folder).read().parts["train"]
    assert y[:5].tolist() == [5, 0, 4, 1, 9]
    assert x.mean() / 255 == pytest.approx(0.1307, abs=1e-4)
    assert x.std() / 255 == pytest.approx(0.3081, abs=1e-4)


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
def test_fashion_mnist_from_a_folder(tmp_path: Path, zipped: bool) -> None:
    arrays = small_mnist(tmp_path, zipped=zipped)
    raw = FashionMNIST(folder=str(tmp_path)).read()
    check_raw(raw, "made")
    for part, stem in (("train", "train"), ("test", "t10k")):
        x, y = raw.parts[part]
        np.testing.assert_array_equal(x, arrays[f"{stem}-images-idx3-ubyte"][:, None])
        np.testing.assert_array_equal(y, arrays[f"{stem}-labels-idx1-ubyte"])
        assert y.dtype == np.int64


def test_a_folder_that_lacks_a_file(tmp_path: Path) -> None:
    small_mnist(tmp_path, zipped=False)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="no t10k-labels-idx1-ubyte") as caught:
        FashionMNIST(folder=str(tmp_path)).read()
    assert str(tmp_path) in caught.value.where


def test_labels_in_the_place_of_images_are_refused(tmp_path: Path) -> None:
    small_mnist(tmp_path, zipped=False)
    labels = (tmp_path / "train-labels-idx1-ubyte").read_bytes()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(labels)
    with pytest.raises(DataError, match="an array of 1 dimensions, not 3"):
        FashionMNIST(folder=str(tmp_path)).read()


def test_images_in_the_place_of_labels_are_refused(tmp_path: Path) -> None:
    small_mnist(tmp_path, zipped=False)
    images = (tmp_path / "train-images-idx3-ubyte").read_bytes()
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(images)
    with pytest.raises(DataError, match="an array of 3 dimensions, not 1"):
        FashionMNIST(folder=str(tmp_path)).read()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_an_idx_file_is_read_back(shape: list[int]) -> None:
    expected = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made"
        path.write_bytes(pack(expected))
        np.testing.assert_array_equal(read_idx(path), expected)


GOOD = pack(np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"PK\x03\x04" + GOOD, "not an IDX file"),
        (b"\0\0\x0d\x03" + GOOD[4:], "states 2x3x4 values of 4 bytes, it holds 24"),
        (b"\0\0\x0a\x03" + GOOD[4:], "not an IDX file"),  # no such type
        (b"\0\0\x08\x00" + GOOD[4:], "not an IDX file"),  # no dimension
        (GOOD[:10], "header is truncated"),
        (GOOD[:-1], "states 2x3x4 bytes, it holds 23"),
        (GOOD + b"\0", "states 2x3x4 bytes, it holds 25"),
        # 2^32 * 2^32 is 0 in 64 bits.
        (b"\0\0\x08\x03" + b"\x80\0\0\0" * 2 + b"\0\0\0\x04", "states 2147483648x"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
def test_a_damaged_idx_file_is_refused(
    tmp_path: Path, content: bytes, message: str, zipped: bool
) -> None:
    path = tmp_path / ("x.gz" if zipped else "x")
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert caught.value.exit_code == 3
    assert caught.value.where == str(path)


@pytest.mark.parametrize("cut", range(0, len(gzip.compress(GOOD)), 5))
def test_a_truncated_archive_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(GOOD)[:cut])
    with pytest.raises(DataError):
        read_idx(path)


@pytest.mark.parametrize("place", range(0, len(gzip.compress(GOOD)), 3))
def test_an_altered_archive_is_refused_or_reads_alike(tmp_path: Path, place: int) -> None:
    content = bytearray(gzip.compress(GOOD))
    content[place] ^= 0x10
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    try:
        array = read_idx(path)
    except DataError:
        return
    np.testing.assert_array_equal(array, np.arange(24).reshape(2, 3, 4))  # a time stamp


def test_both_spellings_of_the_names_are_found(tmp_path: Path) -> None:
    assert find_idx(tmp_path, "train-labels-idx1-ubyte") is None
    (tmp_path / "train-labels.idx1-ubyte.gz").touch()
    found = find_idx(tmp_path, "train-labels-idx1-ubyte")
    assert found == tmp_path / "train-labels.idx1-ubyte.gz"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No files of Debian's, and an empty cache; returns the cache's folder for Fashion-MNIST."""
    monkeypatch.setattr(idx, "DEBIAN", tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "litlab" / "fashion-mnist"


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no network"), TimeoutError("slow"), IncompleteRead(b"")]
)
def test_without_a_network(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(EnvironmentFault, match="cannot be downloaded") as caught:
        FashionMNIST().read()
    assert caught.value.exit_code == 5
    assert "dataset-fashion-mnist" in caught.value.fix
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("content", [b"<html>", gzip.compress(GOOD)], ids=["a page", "other data"])
def test_a_download_that_is_not_what_was_published_is_not_kept(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO(content))
    with pytest.raises(DataError, match="downloaded, but") as caught:
        FashionMNIST().read()
    assert caught.value.where.startswith("https://")
    assert list(elsewhere.iterdir()) == []


def test_a_download_is_checked_and_cached(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"
    remote.mkdir()
    arrays = small_mnist(remote, zipped=True)
    sums = {stem: sha256(array.tobytes()).hexdigest() for stem, array in arrays.items()}
    monkeypatch.setattr(idx, "FILES", sums)
    asked = []

    def answer(address: str, timeout: float) -> io.BytesIO:
        asked.append(address.rpartition("/")[2])
        return io.BytesIO((remote / asked[-1]).read_bytes())

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    first, second = FashionMNIST().read(), FashionMNIST().read()
    assert sorted(asked) == sorted(f"{stem}.gz" for stem in FILES)  # once each
    assert sorted(path.name for path in elsewhere.iterdir()) == sorted(asked)
    np.testing.assert_array_equal(first.parts["test"][0], second.parts["test"][0])


def test_an_altered_file_in_the_cache_is_refused(elsewhere: Path) -> None:
    elsewhere.mkdir(parents=True)
    small_mnist(elsewhere, zipped=True)
    with pytest.raises(DataError, match="not the published file") as caught:
        FashionMNIST().read()
    assert str(elsewhere) in caught.value.where
