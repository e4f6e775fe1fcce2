"""Claim: litlab feeds a network many times faster than a map-style Dataset with a DataLoader.

    python benchmarks/data.py [--quick] [--json] [--rounds 5]

Compares epochs over Fashion-MNIST (Debian's files, else noise of its shape), 32x32 colour noise and
texts of uneven length: fed by litlab's data module, by an ordinary Dataset whose samples are made
one by one (as tensors, without Pillow, which would only slow it) in a DataLoader with 0 and 2
workers, and by indexing the bare arrays. Feeds take turns, round by round; ratios are of the same
round. Memory and the time to the first batch are measured in a process of their own.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

ROOT = Path(__file__).resolve().parents[1]
BATCH = 128
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FEEDS = ("bare", "litlab", "dataset, 0 workers", "dataset, 2 workers")


class Samples(Dataset):
    """The ordinary way: one sample at a time, transformed by itself, batches put together later."""

    def __init__(self, split, spec, *, augment: bool) -> None:
        self.split, self.augment, self.text = split, augment, spec.kind == "text"
        if self.text:
            ends = split.lengths.cumsum(0).tolist()
            self.ids = [split.x[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        else:
            self.mean, self.std = (torch.tensor(v)[:, None, None] for v in (spec.mean, spec.std))

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, place: int):
        y = self.split.y[place]
        if self.text:
            return self.ids[place].long(), y
        x = self.split.x[place].float().div(255)
        if self.augment:
            x = erased(flipped(cropped(x, 4)))
        return (x - self.mean) / self.std, y


def cropped(x: torch.Tensor, padding: int) -> torch.Tensor:
    top, left = torch.randint(2 * padding + 1, (2,)).tolist()
    padded = F.pad(x, [padding] * 4)
    return padded[:, top : top + x.shape[1], left : left + x.shape[2]]


def flipped(x: torch.Tensor) -> torch.Tensor:
    return x.flip(2) if torch.rand(()) < 0.5 else x


def erased(x: torch.Tensor, p: float = 0.25) -> torch.Tensor:
    if torch.rand(()) >= p:
        return x
    _, height, width = x.shape
    area = float(torch.empty(()).uniform_(0.02, 0.2)) * height * width
    ratio = float(torch.empty(()).uniform_(0.3, 3.3))
    h = min(height, max(1, round((area * ratio) ** 0.5)))
    w = min(width, max(1, round((area / ratio) ** 0.5)))
    top = int(torch.randint(height - h + 1, ()))
    left = int(torch.randint(width - w + 1, ()))
    x = x.clone()
    x[:, top : top + h, left : left + w] = 0
    return x


def padded(samples):
    ids = torch.nn.utils.rnn.pad_sequence([ids for ids, _ in samples], batch_first=True)
    return ids, torch.stack([y for _, y in samples])


def ordinary(split, spec, workers: int, *, augment: bool) -> DataLoader:
    return DataLoader(
        Samples(split, spec, augment=augment),
        BATCH,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        collate_fn=padded if spec.kind == "text" else None,
    )


def bare(split, spec) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Nothing but indexing, and what makes floats of bytes."""
    text = spec.kind == "text"
    if not text:
        mean, std = (torch.tensor(v)[:, None, None] for v in (spec.mean, spec.std))
    for index in torch.randperm(len(split)).split(BATCH)[: len(split) // BATCH]:
        x, y = split.take(index)
        yield (x.long() if text else (x.float().div_(255).sub_(mean).div_(std))), y


def data_module(folder: Path, spec, augment: list[str]):
    """litlab's own path, as the Trainer calls it."""
    from litlab.config.compose import load
    from litlab.data.augmentations import build_augmentations
    from litlab.data.datamodule import ArrayDataModule

    config = load(["data=synthetic", *augment])
    loader = config.loader.model_copy(update={"batch_size": BATCH})
    built = build_augmentations(config.augment, spec, [])
    module = ArrayDataModule(folder, spec, loader, built)
    module.trainer = SimpleNamespace(
        training=True,
        current_epoch=0,
        global_rank=0,
        world_size=1,
        precision_plugin=SimpleNamespace(convert_input=lambda x: x),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    return module


def litlab(module) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for batch in module.train_dataloader():
        yield module.on_after_batch_transfer(batch, 0)


def feed(name: str, folder: Path, spec, *, augment: bool) -> Callable[[], Iterator[object]]:
    """Return what makes one epoch's batches; called once an epoch."""
    from litlab.data.loading import open_split

    if name == "litlab":
        module = data_module(folder, spec, [f"augment={'standard' if augment else 'none'}"])
        module.open()
        return lambda: litlab(module)
    split = open_split(folder, spec, "train")
    if name == "bare":
        return lambda: bare(split, spec)
    loader = ordinary(split, spec, 2 if "2" in name else 0, augment=augment)
    return lambda: iter(loader)


def epoch_seconds(batches: Callable[[], Iterator[object]], most: int) -> float:
    began = time.perf_counter()
    for _ in islice(batches(), most):
        pass
    return time.perf_counter() - began


def compare(
    folder: Path, rounds: int, most: int, *, augment: bool
) -> dict[str, dict[str, list[float]]]:
    """Return samples/s of each feed, and how many times the others' speed litlab's is."""
    from litlab.data.spec import DataSpec

    spec = DataSpec.load(folder)
    most = min(most, spec.sizes["train"] // BATCH)
    names = [name for name in FEEDS if not (augment and name == "bare")]
    feeds = {name: feed(name, folder, spec, augment=augment) for name in names}
    for name in names:  # pages read, threads started, kernels chosen
        next(iter(feeds[name]()))
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            speeds[name].append(most * BATCH / epoch_seconds(feeds[name], most))
    ratios = {
        name: [a / b for a, b in zip(speeds["litlab"], speeds[name], strict=True)]
        for name in names
        if name != "litlab"
    }
    return {"speeds": speeds, "ratios": ratios}


def alone(name: str, folder: Path) -> None:
    """Print seconds to the first batch, and MiB in use in mid-epoch beyond those before."""
    from litlab.data.spec import DataSpec

    spec = DataSpec.load(folder)
    data_module(folder, spec, [])  # imports are no part of it
    before, began = memory(), time.perf_counter()
    batches = feed(name, folder, spec, augment=False)()
    next(batches)
    seconds = time.perf_counter() - began
    for _ in range(spec.sizes["train"] // BATCH // 2):
        next(batches)
    print(json.dumps({"seconds": seconds, "mib": memory() - before}))


def memory() -> float:
    """MiB that this process and its workers hold; what they share counts once (Linux's Pss)."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    lines = [
        line
        for process in ("self", *children)
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measured_alone(name: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--alone", name, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def prepared(number: int) -> dict[str, Path]:
    """Prepare the three data sets in the working directory, a project."""
    from litlab.config.compose import load
    from litlab.data.prepare.open import open_or_prepare

    rng = np.random.default_rng(0)
    images = {"colour": (3, 32, 32)}
    sources = {}
    if (DEBIAN / "train-images-idx3-ubyte.gz").exists() or any(DEBIAN.glob("train-images*")):
        sources["fashion_mnist"] = ["data=fashion_mnist"]
    else:
        images["fashion_mnist"] = (1, 28, 28)
    for name, shape in images.items():
        x = rng.integers(0, 256, (number, *shape), dtype=np.uint8)
        np.savez(f"{name}.npz", x=x, y=rng.integers(0, 10, number))
        sources[name] = ["data=npz", f"data.name={name}", f"data.path={name}.npz"]
    lengths = rng.lognormal(3, 0.6, number // 3).astype(int).clip(1, 200)
    with open("text.txt", "w") as file:
        for label, length in enumerate(lengths):
            words = rng.integers(0, 5000, length)
            file.write(f"{label % 4} " + " ".join(f"w{word}" for word in words) + "\n")
    sources["text"] = ["data=text", "data.path=text.txt"]
    found = {}
    for name, overrides in sources.items():
        found[name], _ = open_or_prepare(load(overrides).data, [])
    return found


def spread(values: list[float], form: str) -> str:
    low, mid, high = min(values), statistics.median(values), max(values)
    return f"{mid:{form}} ({low:{form}} to {high:{form}})"


def as_table(results: dict[str, dict], rounds: int) -> str:
    from litlab.runs.environment import describe

    machine = ", ".join(f"{k} {v}" for k, v in describe().items())
    lines = [
        f"Samples/s of the train split, batches of {BATCH}; median (min to max), {rounds} rounds.",
        "litlab/this: how many times the feed's speed litlab's was in the same round.",
        f"{datetime.now(UTC):%Y-%m-%d}; {torch.get_num_threads()} threads; {machine};",
        "`python benchmarks/data.py`",
    ]
    for title, result in results.items():
        lines += ["", f"## {title}", "", "| feed | samples/s | litlab/this |", "|---|---:|---:|"]
        for name, speeds in result["speeds"].items():
            ratios = result["ratios"].get(name)
            ratio = spread(ratios, ".2f") if ratios else "1"
            lines.append(f"| {name} | {spread(speeds, ',.0f')} | {ratio} |")
        if "alone" in result:
            lines += ["", "| feed | first batch, s | memory, MiB |", "|---|---:|---:|"]
            for name, found in result["alone"].items():
                lines.append(f"| {name} | {found['seconds']:.3f} | {found['mib']:.0f} |")
    return "\n".join(lines) + "\n"


def as_claims(results: dict[str, dict]) -> dict[str, float]:
    claims = {}
    for title, result in results.items():
        for name, ratios in result["ratios"].items():
            claims[f"{title}: litlab / {name}"] = statistics.median(ratios)
        for name, found in result.get("alone", {}).items():
            claims[f"{title}: {name}: seconds to first batch"] = found["seconds"]
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="twenty batches, one round")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        alone(arguments.alone, arguments.folder)
        return
    # An epoch cut short still pays for starting the workers: --quick shows that it runs, no more.
    rounds, most = (1, 20) if arguments.quick else (arguments.rounds, 10**9)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "conf", Path(folder) / "conf")
        os.chdir(folder)
        results = {}
        for name, path in prepared(3000 if arguments.quick else 50_000).items():
            result = compare(path, rounds, most, augment=False)
            result["alone"] = {f: measured_alone(f, path) for f in FEEDS if f != "bare"}
            results[name] = result
            if name != "text":  # there is no ordinary way to augment texts one by one
                results[f"{name}, augmented"] = compare(path, rounds, most, augment=True)
        os.chdir(ROOT)
    if arguments.json:
        print(json.dumps(as_claims(results)))
        return
    table = as_table(results, rounds)
    print(table)
    if not arguments.quick:
        target = ROOT / "benchmarks" / "results" / f"data-{datetime.now(UTC):%Y-%m-%d}.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(table)


if __name__ == "__main__":
    main()
