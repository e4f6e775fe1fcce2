import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from litlab.data.spec import FILE_NAME, DataSpec
from litlab.utils.errors import DataError
from made_data import make_spec

NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4).map(tuple)
NAMES = st.lists(st.text(max_size=9), max_size=4).map(tuple)
SPECS = st.builds(
    DataSpec,
    schema_version=st.just(2),
    name=st.from_regex(r"\A[a-z0-9][a-zé0-9_.-]{0,20}\Z"),
    shape=st.lists(st.integers(1, 64), min_size=1, max_size=3).map(tuple),
    classes=NAMES,
    targets=NAMES,
    features=NAMES,
    vocabulary=NAMES,
    mean=NUMBERS,
    std=NUMBERS,
    target_mean=NUMBERS,
    target_std=NUMBERS,
    class_counts=st.lists(st.integers(0), max_size=3).map(tuple),
    settings=st.dictionaries(st.text(max_size=5), st.integers() | st.booleans() | st.text()),
)


@given(SPECS)
def test_what_is_saved_is_what_is_loaded(spec: DataSpec) -> None:
    with TemporaryDirectory() as folder:
        spec.save(Path(folder))
        assert DataSpec.load(Path(folder)) == spec


def test_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    make_spec(classes=("café", "naïve")).save(tmp_path)
    assert "café" in (tmp_path / FILE_NAME).read_bytes().decode("utf-8")


def test_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_spec().name = "other"  # type: ignore[misc]


def test_number_of_outputs() -> None:
    assert make_spec(classes=("a", "b", "c")).num_outputs == 3
    spec = make_spec("tabular", classes=(), targets=("u", "v"), task="regression")
    assert spec.num_outputs == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 1, "new_field": 1}, "schema 1, this is schema 2"),
        ({"invented": 1}, "invented"),
        ({"kind": "video"}, "kind"),
        ({"shape": "wide"}, "shape"),
    ],
)
def test_refuses_another_schema(tmp_path: Path, change: dict[str, object], message: str) -> None:
    content = json.loads(make_spec().model_dump_json()) | change
    (tmp_path / FILE_NAME).write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        DataSpec.load(tmp_path)
    assert caught.value.exit_code == 3
    assert caught.value.where == str(tmp_path / FILE_NAME)
    assert "litlab prepare" in caught.value.fix


def test_any_flipped_bit_is_noticed(tmp_path: Path) -> None:
    spec = make_spec(mean=(0.25,), std=(0.5,))
    spec.save(tmp_path)
    path = tmp_path / FILE_NAME
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DataError) as caught:
            DataSpec.load(tmp_path)
        assert caught.value.where == str(path)
        path.write_bytes(whole[:place])
        with pytest.raises(DataError):
            DataSpec.load(tmp_path)
    path.write_text(spec.model_dump_json(indent=2) + "\n")  # as an older version wrote it
    assert DataSpec.load(tmp_path) == spec


def test_the_checksum_of_the_data_is_that_of_the_samples() -> None:
    arrays = {"train.safetensors": "a", "val.safetensors": "b"}
    spec, other = (make_spec(checksums={**arrays, **more}) for more in ({}, {"leakage.json": "c"}))
    assert spec.checksum == other.checksum
    assert spec.checksum != make_spec(checksums={**arrays, "val.safetensors": "c"}).checksum


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_refuses_what_is_no_spec(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(DataError, match="not a data spec"):
        DataSpec.load(tmp_path)


def test_nothing_prepared(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prepared data") as caught:
        DataSpec.load(tmp_path)
    assert caught.value.where == str(tmp_path)
