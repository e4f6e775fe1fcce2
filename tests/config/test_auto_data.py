"""`data=auto`: the preset that fits a path."""

import json

import numpy as np
import pytest
from PIL import Image

from litlab.config.auto_data import expand, look, name_of
from litlab.utils.errors import ConfigError

ROWS = "".join(f"{i},{i % 3},{'ab'[i % 2]}\n" for i in range(30))
WORDS = "a rather long sentence"


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content == "picture":
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
        elif content == "array":
            np.savez(path, x=np.zeros((2, 4)), y=np.zeros(2))
        else:
            path.write_text(content)
    return folder / next(iter(files))


CASES = [
    ({"x.csv": "p,q,label\n" + ROWS}, None, "table", {"data.source.target": "label"}),
    ({"x.csv": "p;q;kind\n" + ROWS.replace(",", ";")}, "kind", "table", {}),
    ({"x.tsv": "p\tq\tclass\n" + ROWS.replace(",", "\t")}, None, "table", {}),
    ({"x.parquet": "PAR1"}, "y", "table", {"data.source.target": "y"}),
    (
        {"x.csv": "review,stars\n" + f"{WORDS},1\n" * 9},
        "stars",
        "text",
        {"data.source.text": "review", "data.source.label": "stars"},
    ),
    (
        {"x.jsonl": json.dumps({"id": "1", "text": WORDS, "label": "a"}) + "\n"},
        None,
        "text",
        {"data.source.text": "text", "data.source.label": "label"},
    ),
    ({"x.txt": "__label__a some words\n" * 5}, None, "text", {}),
    ({"x.txt": "pos some words\nneg other words\n" * 20}, None, "text", {}),
    ({"x.txt": f"{WORDS}.\nIt was a dark night. So what?\n"}, None, "plain_text", {}),
    ({"x.npz": "array"}, None, "npz", {}),
    ({"photos/cat/1.png": "picture", "photos/dog/1.png": "picture"}, None, "image_folder", {}),
    ({"texts/pos/1.txt": WORDS, "texts/neg/1.txt": WORDS}, None, "text", {}),
    ({"digits/train-images-idx3-ubyte": "x"}, None, "idx", {}),
    (
        {"both/train.csv": "p,q,label\n" + ROWS, "both/test.csv": "p,q,label\n" + ROWS},
        None,
        "table",
        {"data.test_fraction": "null"},
    ),
]


@pytest.mark.parametrize(("files", "target", "preset", "settings"), CASES)
def test_the_preset_that_fits(tmp_path, files, target, preset, settings) -> None:
    path = write(tmp_path, files)
    while path.parent != tmp_path:
        path = path.parent
    found = look(path, target)
    assert (found.preset, {k: found.settings[k] for k in settings}) == (preset, settings)


def test_a_folder_of_a_table_in_parts(tmp_path) -> None:
    write(tmp_path, {"train.csv": "p,label\n1,2\n", "test.csv": "p,label\n1,2\n"})
    settings = look(tmp_path).settings
    assert settings["data.path"] == str(tmp_path / "train.csv")
    assert settings["data.source.test_path"] == str(tmp_path / "test.csv")


@pytest.mark.parametrize(
    ("files", "reason", "fix"),
    [
        ({"x.csv": "p,q,r s\n" + ROWS}, r"which column .*'p', 'q', 'r s'", 'data.target="r s"'),
        ({"a/x.csv": ROWS, "a/y.csv": ROWS}, "several tables", "data.path="),
        ({"a/x.bin": ROWS}, "no pictures, arrays, tables or texts among 1", "choose a preset"),
        ({"x.png": "picture"}, "a single picture", "data.path="),
        ({"x.txt": ""}, "empty", "another"),
    ],
)
def test_what_fits_no_preset(tmp_path, files, reason, fix) -> None:
    path = write(tmp_path, files)
    path = path if path.parent == tmp_path else path.parent
    with pytest.raises(ConfigError, match=reason) as caught:
        look(path)
    assert fix in caught.value.fix


def test_overrides_are_replaced(project, capsys) -> None:
    write(project, {"my data.csv": "p,q,k\n" + ROWS})
    words = ["data=auto", "data.path=my data.csv", "data.target=k", "seed=1"]
    assert expand(words) == [
        "data=table",
        "data.name=my_data",
        "data.source.target=k",
        "data.path=my data.csv",
        "seed=1",
    ]
    assert capsys.readouterr().err == "data=table: my data.csv is a table\n"
    assert expand(["data=digits"]) == ["data=digits"]
    with pytest.raises(ConfigError, match="needs a path"):
        expand(["data=auto"])


def test_names(tmp_path) -> None:
    assert name_of(tmp_path / "Día (1).csv.gz") == "d_a_1"
    assert name_of(tmp_path / "...") == "data"


def test_a_look_reads_little(tmp_path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "' + "a b " * 10**6)  # one line, which does not end
    assert look(path).preset == "text"
    path.write_text("[" * 10**5)
    assert look(path).preset == "text"
    (tmp_path / "x.csv.gz").write_bytes(b"\x1f\x8b\x08\x00 cut")
    with pytest.raises(ConfigError, match="cannot be read"):
        look(tmp_path / "x.csv.gz", "y")


def test_a_target_that_has_no_meaning_is_refused(tmp_path) -> None:
    write(tmp_path, {"photos/cat/1.png": "picture", "photos/dog/1.png": "picture"})
    with pytest.raises(ConfigError, match="holds pictures: there is no column to name"):
        look(tmp_path / "photos", "kind")


def test_a_cell_without_an_end_is_left_to_the_source(tmp_path) -> None:
    (tmp_path / "x.csv").write_text('a,y\n"' + "x" * 200_000)
    assert look(tmp_path / "x.csv", "y").preset == "table"
