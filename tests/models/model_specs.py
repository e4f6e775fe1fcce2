import torch
from torch import Tensor

from litlab.data.spec import DataSpec, Kind

PAD = 0
VOCABULARY = 11
SHAPES: dict[Kind, tuple[int, ...]] = {
    "image": (3, 8, 12),
    "sequence": (2, 16),
    "tabular": (9,),
    "text": (16,),
}
KINDS = tuple(SHAPES)


def make_spec(
    kind: Kind, shape: tuple[int, ...] | None = None, outputs: int = 5, *, regression: bool = False
) -> DataSpec:
    names = tuple(f"output {i}" for i in range(outputs))
    return DataSpec(
        name="made",
        source="made",
        kind=kind,
        task="regression" if regression else "classification",
        shape=shape or SHAPES[kind],
        dtype="int32" if kind == "text" else "float32",
        classes=() if regression else names,
        targets=names if regression else (),
        vocab_size=VOCABULARY if kind == "text" else None,
        pad_id=PAD if kind == "text" else None,
        sizes={"train": 1, "val": 1, "test": 1},
        licence="none",
        origin="made here",
    )


def make_batch(spec: DataSpec, batch: int = 4, seed: int = 0) -> Tensor:
    """Normal numbers, or texts whose second sample has half its tokens and whose third has none."""
    generator = torch.Generator().manual_seed(seed)
    if spec.kind != "text":
        return torch.randn(batch, *spec.shape, generator=generator)
    ids = torch.randint(1, VOCABULARY, (batch, *spec.shape), generator=generator)
    ids[1, spec.shape[0] // 2 :] = PAD
    if batch > 2:
        ids[2] = PAD
    return ids


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
