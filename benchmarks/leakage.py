"""Claim: the leakage check finds copies that were changed a little, and nothing among clean data.

    OMP_NUM_THREADS=1 python benchmarks/leakage.py [--quick] [--json] [--copies 200]

Per data set: what is found without copies, then with each kind of copy planted, so many at a time;
then the processor time of one thread, and by how much the process grew, for all samples. Data sets
whose files are missing are left out: MNIST's IDX files in data/raw/mnist, or in the folder of
`--mnist`; Fashion-MNIST's of Debian's package. The photographs are scikit-learn's, cut into tiles.
"""

import argparse
import gzip
import io
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from litlab.data.leakage.check import LeakageCheck
from litlab.data.leakage.images import Thumbnails
from litlab.runs.environment import describe

ROOT = Path(__file__).resolve().parents[1]
FASHION = Path("/usr/share/datasets/fashion-mnist")
FILES = ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz")
CHUNK = 8192


def idx(folder: Path) -> np.ndarray:
    """All images of four IDX files `(70000, 1, 28, 28)`."""
    parts = []
    for name in FILES:
        with gzip.open(folder / name) as file:
            parts.append(np.frombuffer(file.read(), np.uint8, offset=16))
    return np.concatenate(parts).reshape(-1, 1, 28, 28)


def tiles(side: int) -> np.ndarray:
    """Pieces of two photographs that do not overlap and are not one shade."""
    found = [
        photo[y : y + side, x : x + side].transpose(2, 0, 1)
        for photo in load_sample_images().images
        for y in range(0, photo.shape[0] - side + 1, side)
        for x in range(0, photo.shape[1] - side + 1, side)
    ]
    return np.stack([tile for tile in found if tile.mean(0).std() > 10])


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    pixels(image).save(file, "JPEG", quality=quality)
    return array(Image.open(file))


def resized(image: np.ndarray, factor: float) -> np.ndarray:
    picture = pixels(image)
    size = (round(picture.width * factor), round(picture.height * factor))
    return array(picture.resize(size, 2).resize(picture.size, 2))


def pixels(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))


def array(picture: Image.Image) -> np.ndarray:
    values = np.asarray(picture)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def scaled(image: np.ndarray, factor: float, middle: float = 0.0) -> np.ndarray:
    return np.clip((image - middle) * factor + middle + 0.5, 0, 255).astype(np.uint8)


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = image.shape[1:]
    return padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG, quality 90": lambda image: jpeg(image, 90),
    "JPEG, quality 80": lambda image: jpeg(image, 80),
    "JPEG, quality 70": lambda image: jpeg(image, 70),
    "10 % brighter": lambda image: scaled(image, 1.1),
    "10 % darker": lambda image: scaled(image, 0.9),
    "10 % more contrast": lambda image: scaled(image, 1.1, image.mean()),
    "10 % less contrast": lambda image: scaled(image, 0.9, image.mean()),
    "a pixel down": lambda image: shifted(image, 1, 0),
    "a pixel up and right": lambda image: shifted(image, -1, 1),
    "to 150 % and back": lambda image: resized(image, 1.5),
    "to 90 % and back": lambda image: resized(image, 0.9),
    "to 75 % and back": lambda image: resized(image, 0.75),
    "to 50 % and back": lambda image: resized(image, 0.5),
    "mirrored": lambda image: image[:, :, ::-1],
}


def recall(x: np.ndarray, copies: int) -> dict[str, float]:
    """Pairs found without copies, then the share of the copies that are found with each kind."""
    own = near(x)
    found: dict[str, float] = {"images": len(x), "pairs without copies": len(own)}
    picked = np.random.default_rng(0).permutation(len(x))[:copies]
    for name, change in CHANGES.items():
        planted = np.stack([change(image) for image in x[picked]])
        pairs = near(np.concatenate([x, planted]))
        hits = {(int(i), len(x) + place) for place, i in enumerate(picked)} & pairs
        found[name] = len(hits) / len(picked)
        print(f"  {name}: {found[name]:.0%}", file=sys.stderr)
    return found


def near(x: np.ndarray) -> set[tuple[int, int]]:
    thumbnails = Thumbnails(x.shape[1:])
    for start in range(0, len(x), CHUNK):
        thumbnails.add(x[start : start + CHUNK])
    return {(int(a), int(b)) for a, b in thumbnails.near_pairs()[0]}


def cost(kind: Any, chunks: Iterator[tuple[Any, Any]]) -> dict[str, float]:
    """Seconds of processor time and growth in MiB of checking chunks of (x, content)."""
    check, number, seconds = LeakageCheck(kind, "classification", tuple("0123456789")), 0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for x, content in chunks:
        rows = np.arange(number, number + len(x))
        number += len(x)
        start = time.process_time()
        check.add(("train", "val", "test")[int(rows[0] >= 50_000)], rows, x, rows % 10, content)
        seconds += time.process_time() - start
    start = time.process_time()
    report = check.finish()
    seconds += time.process_time() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    stops = float(sum(f.count for f in report.findings if f.stops))
    return {"samples": number, "seconds": seconds, "MiB": grown, "stops": stops}


def images(x: np.ndarray) -> Iterator[tuple[Any, Any]]:
    for start in range(0, len(x), CHUNK):
        yield x[start : start + CHUNK], x[start : start + CHUNK]


def rows(number: int) -> Iterator[tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    for _ in range(0, number, CHUNK):
        x = rng.normal(size=(CHUNK, 30)).astype(np.float32)
        yield x, x


def texts(number: int) -> Iterator[tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(20_000)])
    for _ in range(0, number, CHUNK):
        chosen = words[(rng.pareto(1.0, (CHUNK, 40)) * 20).astype(int).clip(0, 19_999)]
        yield [np.arange(40)] * CHUNK, [" ".join(text) for text in chosen]


def in_a_child(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Run in a process of its own, whose peak of memory is no other measurement's."""
    read, write = os.pipe()
    if not os.fork():
        os.write(write, json.dumps(work()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        found: dict[str, float] = json.load(answer)
    os.wait()
    return found


def as_table(recalls: dict[str, Any], costs: dict[str, Any], copies: int) -> str:
    machine = ", ".join(f"{k} {v}" for k, v in describe().items())
    names = list(recalls)
    rows_of = ["images", "pairs without copies", *CHANGES]
    lines = [
        f"Near duplicates: the share found of {copies} planted copies (or of as many as there are",
        "images), one kind at a time. Cost: processor time of one thread for everything the check",
        "does, growth of the process, and how many samples it stops for; n = 1. Rows have 30",
        "random numbers, texts 40 random words.",
        f"{datetime.now(UTC):%Y-%m-%d}; {machine}; "
        "`OMP_NUM_THREADS=1 python benchmarks/leakage.py`",
        "",
        f"| | {' | '.join(names)} |",
        f"|---|{'---:|' * len(names)}",
    ]
    for row in rows_of:
        cells = [
            f"{recalls[name][row]:,.0f}" if row in rows_of[:2] else f"{recalls[name][row]:.0%}"
            for name in names
        ]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    lines += ["", "| cost | samples | s | MiB | stops |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {name} | {c['samples']:,} | {c['seconds']:.1f} | {c['MiB']:.0f} | {c['stops']:.0f} |"
        for name, c in costs.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="5,000 samples, ten copies")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--mnist", type=Path, default=ROOT / "data" / "raw" / "mnist")
    arguments = parser.parse_args()
    most, copies = (5000, 10) if arguments.quick else (70_000, arguments.copies)
    sets = {f"photographs, {side} px": tiles(side) for side in (32, 48, 64, 96)}
    for name, folder in (("MNIST", arguments.mnist), ("Fashion-MNIST", FASHION)):
        if (folder / FILES[0]).is_file():
            sets[name] = idx(folder)[:most]
    costs = {
        name: in_a_child(lambda x=x: cost("image", images(x)))  # type: ignore[misc]
        for name, x in sets.items()
        if "MNIST" in name
    }
    number = most if arguments.quick else 1_000_000
    costs["rows"] = in_a_child(lambda: cost("tabular", rows(number)))
    costs["texts"] = in_a_child(lambda: cost("text", texts(number // 10)))
    recalls = {}
    for name, x in sets.items():
        print(name, file=sys.stderr)
        recalls[name] = recall(x, copies)
    if arguments.json:
        print(json.dumps({"recall": recalls, "cost": costs}))
        return
    table = as_table(recalls, costs, copies)
    print(table)
    if not arguments.quick:
        target = ROOT / "benchmarks" / "results" / f"leakage-{datetime.now(UTC):%Y-%m-%d}.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(table)


if __name__ == "__main__":
    main()
