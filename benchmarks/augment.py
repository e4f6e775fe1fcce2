"""Claim: keyed augmentation of whole batches costs a few milliseconds a batch.

    python benchmarks/augment.py [--quick] [--json] [--rounds 30]

Bytes in, normalized floats out, 512 samples at a time on one thread, for every policy; beside them
kornia's crop and flip, and Pillow's crop, flip and TrivialAugment image by image, in this process.
Processor time of the thread, not the clock's, so that a shared machine may be used; the rounds take
turns, ratios are of the same round.
"""

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from litlab.config.compose import compose
from litlab.data.augment.base import needs_partners
from litlab.data.augmentations import build_augmentations
from litlab.data.loading import Key, Preprocess
from litlab.data.spec import DataSpec, Kind
from litlab.runs.environment import describe

ROOT = Path(__file__).resolve().parents[1]
BATCH = 512
POLICIES: dict[str, Kind] = {
    **dict.fromkeys(("none", "light", "standard", "trivial", "randaugment", "heavy"), "image"),
    "sequence_standard": "sequence",
    "tabular_standard": "tabular",
    "text_standard": "text",
}
SHAPES: dict[Kind, tuple[int, ...]] = {
    "image": (3, 32, 32),
    "sequence": (3, 128),
    "tabular": (30,),
    "text": (64,),
}
Step = Callable[[], object]


def spec_of(kind: Kind) -> DataSpec:
    shape = SHAPES[kind]
    channels = 0 if kind == "text" else shape[0]
    return DataSpec(
        name="made",
        source="made",
        kind=kind,
        task="classification",
        shape=shape,
        dtype={"image": "uint8", "text": "int32"}.get(kind, "float32"),
        classes=tuple("abcdefghij"),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        vocab_size=1000 if kind == "text" else None,
        pad_id=0 if kind == "text" else None,
        sizes={"train": BATCH},
        licence="CC0-1.0",
        origin="noise",
    )


def batch_of(spec: DataSpec, number: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if spec.kind == "image":
        shape = (number, *spec.shape)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    if spec.kind == "text":
        return torch.randint(1, 1000, (number, 64), dtype=torch.int32, generator=generator)
    return torch.randn(number, *spec.shape, generator=generator)


def ours(choice: str) -> Step:
    spec = spec_of(POLICIES[choice])
    modules = build_augmentations(compose([f"augment={choice}"])["augment"], spec, [])
    number = BATCH * (1 + needs_partners(list(modules.values())))
    x, y, preprocess = batch_of(spec, number), torch.arange(number) % 10, Preprocess(spec)
    return lambda: preprocess.augmented(x, y, modules, Key(0, 0, torch.arange(number)))


def kornia() -> Step:
    """Needs kornia, which litlab does not."""
    import kornia.augmentation as K

    spec = spec_of("image")
    x, preprocess = batch_of(spec, BATCH), Preprocess(spec)
    change = torch.nn.Sequential(
        K.RandomCrop((32, 32), padding=4, cropping_mode="slice"), K.RandomHorizontalFlip()
    )
    return lambda: preprocess.normalize(change(preprocess.to_float(x)))


def pillow(*, trivial: bool) -> Step:
    """Image by image, as a map-style data set does it, from decoded images to a batch."""
    spec = spec_of("image")
    images = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in batch_of(spec, BATCH)]
    preprocess, rng = Preprocess(spec), np.random.default_rng(0)

    def change(image: Image.Image) -> np.ndarray:
        left, top = rng.integers(0, 9, 2).tolist()
        image = ImageOps.expand(image, 4).crop((left, top, left + 32, top + 32))
        if rng.random() < 0.5:
            image = ImageOps.mirror(image)
        return np.asarray(trivially(image, rng) if trivial else image)

    def run() -> torch.Tensor:
        x = torch.from_numpy(np.stack([change(image) for image in images]))
        return preprocess(x.permute(0, 3, 1, 2).contiguous())

    return run


def trivially(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """TrivialAugment's wide space, with Pillow."""
    strength = int(rng.integers(0, 31)) / 30
    way = 1 - 2 * int(rng.integers(0, 2))
    factor, affine = 1 + way * strength * 0.99, Image.Transform.AFFINE
    slope, pixels = way * strength * 0.99, round(way * strength * 16)
    operations = (
        lambda: image,
        lambda: ImageOps.autocontrast(image),
        lambda: ImageOps.equalize(image),
        lambda: image.rotate(way * strength * 135),
        lambda: ImageOps.solarize(image, 256 - int(256 * strength)),
        lambda: ImageOps.posterize(image, 8 - round(strength * 6)),
        lambda: ImageEnhance.Color(image).enhance(factor),
        lambda: ImageEnhance.Contrast(image).enhance(factor),
        lambda: ImageEnhance.Brightness(image).enhance(factor),
        lambda: ImageEnhance.Sharpness(image).enhance(factor),
        lambda: image.transform(image.size, affine, (1, slope, 0, 0, 1, 0)),
        lambda: image.transform(image.size, affine, (1, 0, 0, slope, 1, 0)),
        lambda: image.transform(image.size, affine, (1, 0, pixels, 0, 1, 0)),
        lambda: image.transform(image.size, affine, (1, 0, 0, 0, 1, pixels)),
    )
    return operations[int(rng.integers(0, 14))]()


def measure(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Return milliseconds of processor time, a round each."""
    for step in steps.values():  # memory, kernels
        step()
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.thread_time()
            step()
            found[name].append(1000 * (time.thread_time() - began))
    return found


def ratios(found: dict[str, list[float]]) -> dict[str, list[float]]:
    pairs = {
        "crop and flip: kornia / light": ("kornia: crop, flip", "light"),
        "crop and flip: Pillow / light": ("Pillow: crop, flip", "light"),
        "with TrivialAugment: Pillow / trivial": ("Pillow: crop, flip, trivial", "trivial"),
    }
    return {
        name: [a / b for a, b in zip(found[slow], found[fast], strict=True)]
        for name, (slow, fast) in pairs.items()
        if slow in found
    }


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def as_table(found: dict[str, list[float]], rounds: int) -> str:
    machine = ", ".join(f"{k} {v}" for k, v in describe().items())
    lines = [
        f"Milliseconds of processor time for {BATCH} samples, one thread, bytes to normalized",
        f"floats; median (min to max), n = {rounds}. Images 3x32x32, sequences 3x128, tables of 30",
        "columns, texts of 64 tokens; all of noise.",
        f"{datetime.now(UTC):%Y-%m-%d}; {machine}; `python benchmarks/augment.py`",
        "",
        "| what | ms |",
        "|---|---:|",
        *(f"| {name} | {spread(values)} |" for name, values in found.items()),
        "",
        "| ratio, of the same round | |",
        "|---|---:|",
        *(f"| {name} | {spread(values)} |" for name, values in ratios(found).items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 3 if arguments.quick else arguments.rounds
    steps = {choice: ours(choice) for choice in POLICIES}
    steps["Pillow: crop, flip"] = pillow(trivial=False)
    steps["Pillow: crop, flip, trivial"] = pillow(trivial=True)
    with contextlib.suppress(ModuleNotFoundError):
        steps["kornia: crop, flip"] = kornia()
    found = measure(steps, rounds)
    if arguments.json:
        medians = {name: statistics.median(v) for name, v in (found | ratios(found)).items()}
        print(json.dumps(medians))
        return
    table = as_table(found, rounds)
    print(table)
    if not arguments.quick:
        target = ROOT / "benchmarks" / "results" / f"augment-{datetime.now(UTC):%Y-%m-%d}.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(table)


if __name__ == "__main__":
    main()
