"""IDX, CIFAR's and NumPy's files."""

import gzip
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litlab.data.prepare.split import cut
from litlab.data.prepare.validate import check_chunk, check_raw, check_splits
from litlab.data.raw import Raw
from litlab.data.sources import idx
from litlab.data.sources.cifar import Cifar10, Cifar100
from litlab.data.sources.idx import Idx
from litlab.data.sources.npz import Npz
from litlab.utils.errors import ConfigError, DataError, EnvironmentFault
from made_data import make_config

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"
RNG = np.random.default_rng(0)


def read(source: Any) -> Raw:
    """What `prepare` does with a source before it writes."""
    raw = source.read()
    assert isinstance(raw, Raw)
    check_raw(raw, "made")
    for name, (x, _) in raw.parts.items():
        check_chunk(raw, x[np.arange(min(len(x), 5))], np.arange(5), name)
    return raw


def refused(source: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read(source)
    assert caught.value.exit_code == 3
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    return caught.value


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(np.uint8)


# IDX


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_set(
    folder: Path,
    form: str = "{part}-{content}-idx{n}-ubyte",
    test: str = "t10k",
    labels: tuple[int, ...] = (0, 1, 2),
) -> dict[str, np.ndarray]:
    folder.mkdir(exist_ok=True)
    arrays = {}
    for part, number in (("train", 12), (test, 6)) if test else (("train", 12),):
        arrays[f"{part} images"] = noise(number, 5, 4)
        arrays[f"{part} labels"] = np.resize(labels, number)
        for content, n in (("images", 3), ("labels", 1)):
            name = form.format(part=part, content=content, n=n)
            write_idx(folder / name, arrays[f"{part} {content}"])
    return arrays


@pytest.mark.parametrize(
    ("form", "test"),
    [
        ("{part}-{content}-idx{n}-ubyte", "t10k"),
        ("{part}-{content}-idx{n}-ubyte.gz", "t10k"),
        ("{part}-{content}.idx{n}-ubyte", "t10k"),
        ("{part}-{content}.idx{n}-ubyte.gz", "t10k"),
        ("emnist-letters-{part}-{content}-idx{n}-ubyte", "test"),
        ("emnist-letters-{part}-{content}-idx{n}-ubyte.gz", "test"),
        ("Kuzushiji_{part}-{content}-idx{n}-ubyte", "test"),
    ],
)
def test_names_that_idx_files_are_published_under(tmp_path: Path, form: str, test: str) -> None:
    arrays = write_set(tmp_path, form, test)
    raw = read(Idx(path=str(tmp_path)))
    assert list(raw.parts) == ["train", "test"]
    assert raw.classes == ["0", "1", "2"]
    assert len(raw.files) == 4
    for part, stem in (("train", "train"), ("test", test)):
        x, y = raw.parts[part]
        assert isinstance(x, np.memmap) == (not form.endswith(".gz"))
        np.testing.assert_array_equal(x, arrays[f"{stem} images"][:, None])
        np.testing.assert_array_equal(y, arrays[f"{stem} labels"])
    cut(raw, make_config(test_fraction=None))


@pytest.mark.skipif(not MNIST.is_dir(), reason="no copy of MNIST in ../shared/data")
def test_mnist_itself() -> None:
    raw = read(Idx(path=str(MNIST), origin="x"))
    x, y = raw.parts["train"]
    assert x.shape == (60000, 1, 28, 28)
    assert raw.parts["test"][0].shape == (10000, 1, 28, 28)
    assert y[:5].tolist() == [5, 0, 4, 1, 9]
    # The figures everyone normalizes it by.
    assert x.mean() / 255 == pytest.approx(0.1307, abs=1e-4)
    assert x.std() / 255 == pytest.approx(0.3081, abs=1e-4)


@pytest.mark.parametrize(("code", "dtype"), [(0x0B, ">i2"), (0x0D, ">f4"), (0x0E, ">f8")])
def test_numbers_of_more_than_a_byte(tmp_path: Path, code: int, dtype: str) -> None:
    write_set(tmp_path)
    x = RNG.normal(0, 1000, (12, 5, 4)).astype(dtype)
    header = struct.pack(">HBB3I", 0, code, 3, *x.shape)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + x.tobytes())
    raw = read(Idx(path=str(tmp_path)))
    assert raw.dtype == "float32"
    np.testing.assert_array_equal(raw.parts["train"][0][:, 0], x)


def test_labels_that_start_at_one(tmp_path: Path) -> None:
    arrays = write_set(tmp_path, labels=(1, 2, 26))
    raw = read(Idx(path=str(tmp_path)))
    assert raw.classes == ["1", "2", "26"]
    for part, stem in (("train", "train"), ("test", "t10k")):
        y = raw.parts[part][1]
        assert y.dtype == np.int64
        np.testing.assert_array_equal(np.array([1, 2, 26])[y], arrays[f"{stem} labels"])


def test_a_label_of_test_that_train_lacks(tmp_path: Path) -> None:
    write_set(tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([0, 1, 2, 0, 77, 2]))
    raw = read(Idx(path=str(tmp_path)))
    y = {part: targets for part, (_, targets) in raw.parts.items()}
    with pytest.raises(DataError, match="test has classes that are not in train: 77"):
        check_splits(raw, {**y, "val": y["train"]})


def test_emnists_images_are_turned_and_its_letters_named(tmp_path: Path) -> None:
    form = "emnist-letters-{part}-{content}-idx{n}-ubyte"
    arrays = write_set(tmp_path, form, "test", labels=(1, 2, 3))
    mapping = tmp_path / "emnist-letters-mapping.txt"
    mapping.write_text("1 65 97\n2 66 98\n3 67 99\n")
    raw = read(Idx(path=str(tmp_path), transpose=True))
    assert raw.classes == ["Aa", "Bb", "Cc"]
    expected = arrays["train images"].transpose(0, 2, 1)[:, None]
    np.testing.assert_array_equal(raw.parts["train"][0], expected)
    np.testing.assert_array_equal(raw.parts["train"][0][np.array([3, 1])], expected[[3, 1]])
    for other in ("1 65\n2 66\n", "one two three\n", "\n", "1 -5\n"):
        mapping.write_text(other)
        assert read(Idx(path=str(tmp_path))).classes == ["1", "2", "3"]


def test_several_sets_in_a_folder(tmp_path: Path) -> None:
    for name in ("letters", "digits"):
        write_set(tmp_path, f"emnist-{name}-{{part}}-{{content}}-idx{{n}}-ubyte.gz", "test")
    error = refused(Idx(path=str(tmp_path)))
    assert error.what == "files of 2 sets"
    assert "'emnist-digits-', 'emnist-letters-'" in error.fix
    raw = read(Idx(path=str(tmp_path), prefix="emnist-letters-"))
    assert all("letters" in path.name for path in raw.files)
    assert "emnist-x-train" in refused(Idx(path=str(tmp_path), prefix="emnist-x-")).what


def test_train_alone(tmp_path: Path) -> None:
    write_set(tmp_path, test="")
    raw = read(Idx(path=str(tmp_path)))
    assert list(raw.parts) == ["all"]
    cut(raw, make_config(stratify=False))


@pytest.mark.parametrize("part", ["train", "t10k"])
@pytest.mark.parametrize("content", ["images-idx3", "labels-idx1"])
def test_a_file_that_is_missing(tmp_path: Path, part: str, content: str) -> None:
    write_set(tmp_path)
    (tmp_path / f"{part}-{content}-ubyte").unlink()
    error = refused(Idx(path=str(tmp_path)))
    assert error.where == str(tmp_path)
    assert f"{part.replace('t10k', 'test')}-{content}-ubyte" in error.what


def test_no_set_at_all(tmp_path: Path) -> None:
    assert "train-labels-idx1-ubyte" in refused(Idx(path=str(tmp_path))).what
    (tmp_path / "x.gz").touch()
    assert "is a file" in refused(Idx(path=str(tmp_path / "x.gz"))).what
    with pytest.raises(EnvironmentFault, match="no such file"):
        Idx(path=str(tmp_path / "absent")).read()


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_labels_in_the_place_of_images(tmp_path: Path, ending: str) -> None:
    write_set(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").unlink()
    path = tmp_path / f"train-images-idx3-ubyte{ending}"
    write_idx(path, np.zeros(12))
    error = refused(Idx(path=str(tmp_path)))
    assert error.what == "an array of 1 dimensions, not 3"
    assert error.where == str(path)


def test_images_without_their_labels(tmp_path: Path) -> None:
    write_set(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.resize([0, 1, 2], 11))
    assert "12 inputs and 11 targets" in refused(Idx(path=str(tmp_path))).what


def test_what_unpacks_to_more_than_memory_should_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    write_idx(path, np.zeros((100, 28, 28)))
    assert path.stat().st_size < 1000
    monkeypatch.setattr(idx, "MOST_UNPACKED", 2000)
    with pytest.raises(DataError, match="unpacks to 78400 bytes") as caught:
        idx.read_idx(path)
    assert caught.value.fix == "gunzip train-images-idx3-ubyte.gz first"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:1000]))
    with pytest.raises(DataError, match="states 100x28x28 bytes, it holds 984"):
        idx.read_idx(path)


# CIFAR


def python2(value: object) -> bytes:
    """Pickle as Python 2 did: text as byte strings, which Python 3 no longer writes."""
    if isinstance(value, dict):
        items = b"".join(python2(k) + python2(v) for k, v in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, str):
        return b"T" + struct.pack("<i", len(value)) + value.encode()
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    assert isinstance(value, np.ndarray)
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    state = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR" + state
    shape = b"(" + b"".join(python2(side) for side in value.shape) + b"t"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + python2(value.tobytes()) + b"tb"


def pickled(value: object) -> bytes:
    return b"\x80\x02" + python2(value) + b"."


def python3(value: dict[str, Any]) -> bytes:
    """Pickle as Python 3 does, in Python 2's protocol."""
    return pickle.dumps(value, protocol=2)


def write_cifar(
    folder: Path, form: str, write: Callable[[dict[str, Any]], bytes] = pickled, number: int = 20
) -> dict[str, dict[str, Any]]:
    """The four published layouts, in small. Returns what is in each batch."""
    folder.mkdir(parents=True, exist_ok=True)
    hundred, binary = "100" in form, form.endswith(("bin", "binary"))
    trains = ["train"] if hundred else [f"data_batch_{i}" for i in range(1, 6)]
    tests = ["test"] if hundred else ["test_batch"]
    kinds = {"coarse_labels": 20, "fine_labels": 100} if hundred else {"labels": 10}
    batches = {}
    for seed, name in enumerate(trains + tests):
        rng = np.random.default_rng(seed)
        batch: dict[str, Any] = {"batch_label": name, "data": noise(number, 3072)}
        batch |= {k: rng.integers(0, classes, number).tolist() for k, classes in kinds.items()}
        batch["filenames"] = [f"{i}.png" for i in range(number)]
        batches[name] = batch
        if binary:
            columns = [np.array(batch[k], np.uint8)[:, None] for k in kinds]
            (folder / f"{name}.bin").write_bytes(np.hstack([*columns, batch["data"]]).tobytes())
        else:
            (folder / name).write_bytes(write(batch))
    names = {k.replace("labels", "label_names"): n for k, n in kinds.items()}
    lists = {key: [f"{key} {i}" for i in range(n)] for key, n in names.items()}
    if not binary:
        (folder / ("meta" if hundred else "batches.meta")).write_bytes(write(lists))
    for key, content in lists.items() if binary else ():
        name = f"{key}.txt" if hundred else "batches.meta.txt"
        (folder / name).write_text("\n".join(content) + "\n\n")
    return batches


LAYOUTS = ["cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary"]


def open_cifar(path: Path, form: str, **settings: Any) -> Any:
    return (Cifar100 if "100" in form else Cifar10)(path=str(path), **settings)


def test_our_pickles_are_what_python_reads() -> None:
    content = {"data": noise(2, 3), "labels": [1, 2], "name": "x"}
    found = pickle.loads(pickled(content), encoding="bytes")
    np.testing.assert_array_equal(found.pop(b"data"), content["data"])
    assert found == {b"labels": [1, 2], b"name": b"x"}


@pytest.mark.parametrize("write", [pickled, python3])
@pytest.mark.parametrize("inside", [True, False], ids=["the folder", "its parent"])
@pytest.mark.parametrize("form", LAYOUTS)
def test_the_published_layouts(tmp_path: Path, form: str, inside: bool, write: Any) -> None:
    folder = tmp_path / form
    batches = write_cifar(folder, form, write)
    raw = read(open_cifar(folder if inside else tmp_path, form))
    kind = "fine_label" if "100" in form else "label"
    number = 100 if "100" in form else 10
    assert raw.classes == [f"{kind}_names {i}" for i in range(number)]
    for part, names in (("train", list(batches)[:-1]), ("test", list(batches)[-1:])):
        x, y = raw.parts[part]
        data = np.concatenate([batches[name]["data"] for name in names])
        # 1,024 red bytes, then green, then blue, row by row (the data set's page).
        np.testing.assert_array_equal(x, data.reshape(-1, 3, 32, 32))
        assert y.tolist() == sum((batches[name][f"{kind}s"] for name in names), [])
    assert len(raw.files) == len(batches) + 1
    cut(raw, make_config(test_fraction=None, stratify=False))


@pytest.mark.parametrize("form", LAYOUTS[2:])
def test_coarse_labels(tmp_path: Path, form: str) -> None:
    batches = write_cifar(tmp_path, form)
    raw = read(open_cifar(tmp_path, form, labels="coarse"))
    assert raw.classes == [f"coarse_label_names {i}" for i in range(20)]
    assert raw.parts["train"][1].tolist() == batches["train"]["coarse_labels"]


@pytest.mark.parametrize("form", LAYOUTS)
def test_without_the_file_of_names_classes_are_numbers(tmp_path: Path, form: str) -> None:
    write_cifar(tmp_path, form)
    for path in [*tmp_path.glob("*meta*"), *tmp_path.glob("*names.txt")]:
        path.unlink()
    raw = read(open_cifar(tmp_path, form))
    assert raw.classes == [str(i) for i in range(100 if "100" in form else 10)]


class Canary:
    """Touches a file when it is unpickled by a loader that runs what it reads."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.place),))


def evaluating(builtins: str) -> Callable[[Path], bytes]:
    call = '__import__("os").mkdir({!r})'
    return lambda place: f"c{builtins}\neval\n(S'{call.format(str(place))}'\ntR.".encode()


PAYLOADS = {
    "a call": lambda place: pickle.dumps({"data": Canary(place)}, protocol=2),
    "in a list": lambda place: pickle.dumps({"labels": [Canary(place)]}, protocol=2),
    "eval": evaluating("builtins"),
    "builtins of Python 2": evaluating("__builtin__"),
    "system": lambda place: f"cposix\nsystem\n(S'mkdir {place}'\ntR.".encode(),
    "an instance": lambda place: f"(S'mkdir {place}'\niposix\nsystem\n.".encode(),
    "a submodule": lambda place: f"cnumpy.lib.npyio\nload\n(S'{place}'\ntR.".encode(),
    "a dotted name": lambda place: (
        b"\x80\x04\x8c\x05numpy\x8c\x0bndarray.dump\x93" + f"(S'{place}'\ntR.".encode()
    ),
    "codecs": lambda place: f"c_codecs\ndecode\n(S'{place}'\nS'unicode_escape'\ntR.".encode(),
    "a persistent id": lambda place: f"P{place}\n.".encode(),
}


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("place", ["data_batch_3", "test_batch", "batches.meta"])
def test_nothing_of_a_pickle_is_run(tmp_path: Path, payload: str, place: str) -> None:
    write_cifar(tmp_path, "cifar-10-batches-py")
    canary = tmp_path / "canary"
    (tmp_path / place).write_bytes(PAYLOADS[payload](canary))
    error = refused(Cifar10(path=str(tmp_path)))
    assert error.where == str(tmp_path / place)
    assert not canary.exists()


def test_the_payloads_would_run_elsewhere(tmp_path: Path) -> None:
    for name in ("a call", "in a list", "eval", "builtins of Python 2", "system", "an instance"):
        canary = tmp_path / name.replace(" ", "_")
        pickle.loads(PAYLOADS[name](canary))
        assert canary.exists(), name


@pytest.mark.parametrize("place", ["data_batch_2", "test_batch", "batches.meta"])
def test_damaged_pickles_are_refused_or_read(tmp_path: Path, place: str) -> None:
    write_cifar(tmp_path, "cifar-10-batches-py", number=2)
    path = tmp_path / place
    content = path.read_bytes()
    for end in [*range(0, 200, 7), len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:end])
        assert refused(Cifar10(path=str(tmp_path))).where == str(path)
    for spot in [*range(0, 200, 3), *range(len(content) - 200, len(content), 3)]:
        altered = bytearray(content)
        altered[spot] ^= 0x15
        path.write_bytes(altered)
        try:
            read(Cifar10(path=str(tmp_path)))
        except DataError:
            continue


@pytest.mark.parametrize("form", [LAYOUTS[1], LAYOUTS[3]])
def test_binary_batches_that_are_cut_short(tmp_path: Path, form: str) -> None:
    write_cifar(tmp_path, form)
    path = tmp_path / ("test.bin" if "100" in form else "test_batch.bin")
    content = path.read_bytes()
    for altered in (content[:-1], content + b"\0", b""):
        path.write_bytes(altered)
        error = refused(open_cifar(tmp_path, form))
        assert f"has {len(altered)} bytes" in error.what
        assert error.where == str(path)


@pytest.mark.parametrize("form", LAYOUTS)
def test_a_batch_that_is_missing(tmp_path: Path, form: str) -> None:
    write_cifar(tmp_path, form)
    for path in tmp_path.glob("test*"):
        path.unlink()
        error = refused(open_cifar(tmp_path, form))
        assert "No such file" in error.what
        assert error.where == str(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"data": noise(20, 3071)}, "images of shape (20, 3071)"),
        ({"data": noise(3072)}, "images of shape (3072,)"),
        ({"data": [1, 2]}, "no images"),
        ({"labels": [0] * 19}, "20 images and 19 labels"),
        ({"labels": ["cat"] * 20}, "20 images and no labels"),
        ({"labels": [3, 10, -1] + [0] * 17}, "2 labels outside 0..9 (row 1: 10, row 2: -1)"),
    ],
)
def test_batches_that_hold_something_else(tmp_path: Path, change: Any, what: str) -> None:
    batches = write_cifar(tmp_path, "cifar-10-batches-py")
    (tmp_path / "data_batch_1").write_bytes(pickled(batches["data_batch_1"] | change))
    assert what in refused(Cifar10(path=str(tmp_path))).what


def test_another_number_of_names(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar-10-batches-bin")
    (tmp_path / "batches.meta.txt").write_text("cat\ndog\n")
    assert "2 names for 10 classes" in refused(Cifar10(path=str(tmp_path))).what


def test_an_archive_that_is_not_extracted(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    path.touch()
    error = refused(Cifar10(path=str(path)))
    assert "tar -xzf cifar-10-python.tar.gz" in error.fix
    error = refused(Cifar100(path=str(tmp_path)))
    assert "neither train nor train.bin" in error.what
    assert "cifar-100-python or cifar-100-binary" in error.fix
    with pytest.raises(EnvironmentFault, match="no such file"):
        Cifar10(path=str(tmp_path / "absent")).read()


# npz


SAVE = pytest.mark.parametrize("save", [np.savez, np.savez_compressed])


@SAVE
@pytest.mark.parametrize("names", ["{}", "{}_{part}", "{part}_{}"])
def test_arrays_by_name(tmp_path: Path, save: Any, names: str) -> None:
    path = tmp_path / "x.npz"
    parts = ("all",) if names == "{}" else ("train", "val", "test")
    arrays = {part: (noise(6, 5, 4), np.resize([0, 1], 6)) for part in parts}
    given = {}
    for part, (x, y) in arrays.items():
        given |= {names.format("x", part=part): x, names.format("y", part=part): y}
    save(path, **given)
    raw = read(Npz(path=str(path)))
    assert list(raw.parts) == list(parts)
    assert list(raw.files) == [path]
    for part, (x, y) in arrays.items():
        found = raw.parts[part][0]
        assert isinstance(found, np.memmap) == (save is np.savez)
        np.testing.assert_array_equal(found, x[:, None])
        np.testing.assert_array_equal(raw.parts[part][1], y)


def test_the_names_of_others(tmp_path: Path) -> None:
    """MedMNIST's: train_images, train_labels of shape (N, 1)."""
    path = tmp_path / "x.npz"
    images, labels = noise(6, 5, 4), np.resize(np.array([0, 1], np.uint8), (6, 1))
    given = {f"{part}_images": images for part in ("train", "val", "test")}
    np.savez(path, **given, **{f"{part}_labels": labels for part in ("train", "val", "test")})
    raw = read(Npz(path=str(path), x="images", y="labels"))
    assert raw.parts["val"][1].tolist() == [0, 1] * 3
    error = refused(Npz(path=str(path), x="images", y="label"))
    assert error.fix == "set data.source.y: did you mean 'labels'?"


@SAVE
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("shape", "channels", "axes"),
    [
        ((4, 5, 6), "auto", None),
        ((4, 3, 5, 6), "auto", (0, 1, 2, 3)),
        ((4, 5, 6, 3), "auto", (0, 3, 1, 2)),
        ((4, 5, 6, 1), "auto", (0, 3, 1, 2)),
        ((4, 3, 5, 3), "first", (0, 1, 2, 3)),
        ((4, 3, 5, 3), "last", (0, 3, 1, 2)),
        ((4, 5, 6, 13), "last", (0, 3, 1, 2)),
    ],
)
def test_orders_of_axes(
    tmp_path: Path, save: Any, order: Any, shape: Any, channels: Any, axes: Any
) -> None:
    x = np.asarray(noise(*shape), order=order)
    save(tmp_path / "x.npz", x=x, y=np.arange(4))
    found = read(Npz(path=str(tmp_path / "x.npz"), channels=channels)).parts["all"][0]
    expected = x[:, None] if axes is None else x.transpose(axes)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found[np.array([2, 0])], expected[[2, 0]])


@pytest.mark.parametrize("shape", [(4, 3, 5, 3), (4, 5, 6, 7)])
def test_channels_that_cannot_be_guessed(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "x.npz", x=noise(*shape), y=np.arange(4))
    error = refused(Npz(path=str(tmp_path / "x.npz")))
    assert "cannot be guessed" in error.what
    assert "data.source.channels" in error.fix


@pytest.mark.parametrize(
    ("kind", "x", "shape"),
    [
        ("sequence", np.ones((4, 9)), (4, 1, 9)),
        ("sequence", np.ones((4, 2, 9), np.float32), (4, 2, 9)),
        ("tabular", np.ones((4, 3), np.int16), (4, 3)),
    ],
)
def test_other_kinds(tmp_path: Path, kind: Any, x: np.ndarray, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "x.npz", x=x, y=[0, 1, 0, 1])
    raw = read(Npz(path=str(tmp_path / "x.npz"), kind=kind))
    assert raw.kind == kind
    assert raw.parts["all"][0].shape == shape


@pytest.mark.parametrize(
    ("y", "classes", "numbers"),
    [
        ([1, 2, 26, 1], ["1", "2", "26"], [0, 1, 2, 0]),
        (["dog", "cat", "dog", "cat"], ["cat", "dog"], [1, 0, 1, 0]),
        ([b"b", "é".encode(), b"b", b"b"], ["b", "é"], [0, 1, 0, 0]),
        ([True, False, True, True], ["False", "True"], [1, 0, 1, 1]),
        ([[3], [4], [4], [3]], ["3", "4"], [0, 1, 1, 0]),
    ],
)
def test_labels_become_class_numbers(tmp_path: Path, y: Any, classes: Any, numbers: Any) -> None:
    np.savez(tmp_path / "x.npz", x=noise(4, 5, 4), y=y)
    raw = read(Npz(path=str(tmp_path / "x.npz")))
    assert raw.classes == classes
    assert raw.parts["all"][1].tolist() == numbers
    assert raw.parts["all"][1].dtype == np.int64


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3)])
def test_regression(tmp_path: Path, shape: tuple[int, ...]) -> None:
    y = RNG.normal(size=shape)
    np.savez(tmp_path / "x.npz", x=np.ones((4, 5)), y=y)
    raw = read(Npz(path=str(tmp_path / "x.npz"), kind="tabular", task="regression"))
    assert raw.targets == (["y0", "y1", "y2"] if shape == (4, 3) else ["y"])
    np.testing.assert_array_equal(raw.parts["all"][1], y.reshape(4, -1).astype(np.float32))


@pytest.mark.parametrize(
    ("x", "y", "settings", "what", "fix"),
    [
        (noise(4, 5), [0, 1, 0, 1], {"kind": "image"}, "shape (4, 5)", "data.source.kind"),
        (noise(4), [0, 1, 0, 1], {}, "shape (4,)", "(N, H, W)"),
        (np.full((4, 5, 5), "a"), [0, 1, 0, 1], {}, "inputs of <U1", "give numbers"),
        (
            *(noise(4, 5, 5), [0.5, 1.0, 0.0, 1.0]),
            *({"task": "classification"}, "labels of float64 that are not whole", "regression"),
        ),
        (noise(4, 5, 5), np.full((4, 4), 7), {}, "labels of shape (4, 4)", "several labels"),
        (noise(4, 5, 5), [0, 1, 2], {}, "4 inputs and 3 targets", ""),
        (noise(4, 5, 5), [1j] * 4, {}, "labels of complex128", "integers or strings"),
        (noise(4, 5, 5), [7, 7, 7, 7], {}, "1 class", ""),
        (noise(0, 5, 5), np.zeros(0, int), {}, "no targets", ""),
        (np.ones((4, 2, 3, 4)), [0, 1, 0, 1], {"kind": "sequence"}, "shape (4, 2, 3, 4)", "(N, L)"),
        (np.ones((4, 2, 3)), [0, 1, 0, 1], {"kind": "tabular"}, "shape (4, 2, 3)", "(N, F)"),
        (
            np.full((4, 2), np.nan),
            [0, 1, 0, 1],
            {"kind": "tabular"},
            "missing values (NaN) in 4 samples",
            "",
        ),
        (np.ones((4, 2)), list("abcd"), {"kind": "tabular", "task": "regression"}, "of <U1", ""),
    ],
)
def test_arrays_that_do_not_fit(
    tmp_path: Path, x: Any, y: Any, settings: Any, what: str, fix: str
) -> None:
    np.savez(tmp_path / "x.npz", x=x, y=y)
    error = refused(Npz(path=str(tmp_path / "x.npz"), **settings))
    assert what in error.what
    assert fix in error.fix


@SAVE
@pytest.mark.parametrize("name", ["x", "y"])
def test_no_pickled_array_is_opened(tmp_path: Path, save: Any, name: str) -> None:
    canary = tmp_path / "canary"
    given: dict[str, Any] = {"x": noise(4, 5, 5), "y": np.array([0, 1, 0, 1])}
    objects = np.array([Canary(canary)] * 4, dtype=object)
    save(tmp_path / "x.npz", **(given | {name: objects}))
    error = refused(Npz(path=str(tmp_path / "x.npz")))
    assert f"array '{name}' holds Python objects" in error.what
    assert not canary.exists()


@SAVE
def test_damaged_archives_are_refused(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "x.npz"
    x, y = noise(4, 5, 5), np.array([0, 1, 0, 1])
    save(path, x=x, y=y)
    content = path.read_bytes()
    for end in range(0, len(content), 23):
        path.write_bytes(content[:end])
        refused(Npz(path=str(path)))
    for spot in range(0, len(content), 3):
        altered = bytearray(content)
        altered[spot] ^= 0x41
        path.write_bytes(altered)
        try:
            raw = read(Npz(path=str(path)))
        except DataError:
            continue
        # Times, attributes and the like: what is read is never something else.
        np.testing.assert_array_equal(raw.parts["all"][0][:, 0], x)
        np.testing.assert_array_equal(raw.parts["all"][1], y)


def test_headers_that_announce_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 5, 5)}
    )
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        np.savez(path, y=[0, 1])
        with zipfile.ZipFile(path, "a", how) as archive:
            archive.writestr("x.npy", file.getvalue() + bytes(100))
        assert "array 'x'" in refused(Npz(path=str(path))).what


def test_names_that_climb_out_lead_nowhere(tmp_path: Path) -> None:
    """Members are read by number within the archive, nothing is extracted."""
    path, folder = tmp_path / "in" / "x.npz", tmp_path / "in"
    folder.mkdir()
    np.savez(path, x=noise(4, 5, 5), y=[0, 1, 0, 1])
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../evil.npy", "/evil.npy", "a/../../evil.npy"):
            archive.writestr(name, b"x")
    read(Npz(path=str(path)))
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "x.npz"]


def test_what_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", noise(4, 5, 5))
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    assert "cannot be read" in refused(Npz(path=str(tmp_path / "x.npz"))).what
    with pytest.raises(EnvironmentFault, match="no such file"):
        Npz(path=str(tmp_path / "absent.npz")).read()


@pytest.mark.parametrize(
    ("kind", "shape"), [("sequence", (6, 9)), ("tabular", (6, 9)), ("image", (6, 5, 4))]
)
def test_channels_where_there_are_none(kind: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=noise(*shape), y=np.arange(6) % 2)
    with pytest.raises(ConfigError, match="has no axis of channels"):
        Npz(path=str(path), kind=kind, channels="last").read()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ["x", "y"])
def test_what_to_do_with_arrays_of_objects(name: str, save: Any, tmp_path: Path) -> None:
    given = {"x": noise(4, 5, 4), "y": np.arange(4)}
    save(tmp_path / "x.npz", **(given | {name: np.array(["a", "b", "c", "d"], dtype=object)}))
    error = refused(Npz(path=str(tmp_path / "x.npz")))
    assert error.what == f"array '{name}' holds Python objects, not numbers or texts"
    assert f"{name}.astype(str)" in error.fix
    assert "savez" not in error.fix  # which was done
