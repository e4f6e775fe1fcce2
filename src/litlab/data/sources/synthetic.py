import random
from typing import Literal

import numpy as np

from litlab.config.hyperparameters import Count, Index
from litlab.data.raw import Raw
from litlab.data.spec import Array


class MNIST1D:
    """MNIST-1D (Greydanus & Kobak, ICML 2024, "Scaling down deep learning with MNIST-1D").

    4,000 + 1,000 sequences of length 40, made by the authors' own generator. Seed 42 is the
    published data set; another seed is another draw from the same distribution.
    """

    def __init__(self, *, seed: Index = 42) -> None:
        self.seed = seed

    def read(self) -> Raw:
        """Generate the data (a few seconds)."""
        from mnist1d.data import get_dataset_args, make_dataset

        arguments = get_dataset_args()
        arguments.seed = self.seed
        states = random.getstate(), np.random.get_state()  # noqa: NPY002 - the generator's own
        try:
            data = make_dataset(arguments)  # it seeds the global generators
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
        return Raw(
            kind="sequence",
            task="classification",
            parts={
                "train": (data["x"].astype(np.float32)[:, None], data["y"]),
                "test": (data["x_test"].astype(np.float32)[:, None], data["y_test"]),
            },
            classes=[str(digit) for digit in range(10)],
            licence="Apache-2.0",
            origin="https://github.com/greydanus/mnist1d",
        )


SHAPES: dict[str, tuple[int, ...]] = {
    "image": (1, 12, 12),
    "sequence": (1, 32),
    "tabular": (6,),
    "text": (16,),
}
VOCABULARY = ("<pad>", *(f"word{i}" for i in range(1, 30)))


class Synthetic:
    """Made-up data that a network can learn in seconds: a prototype a class, plus noise.

    Not for conclusions: for self-tests, for first steps with a new model, for trying out a machine.
    With `num_classes: 0` the target is a smooth function of the inputs (regression).
    """

    def __init__(
        self,
        *,
        kind: Literal["image", "sequence", "tabular", "text"] = "image",
        num_samples: Count = 600,
        num_classes: Index = 3,
        seed: Index = 0,
    ) -> None:
        self.kind, self.num_samples = kind, num_samples
        self.num_classes, self.seed = num_classes, seed

    def read(self) -> Raw:
        """Make the data."""
        rng = np.random.default_rng(self.seed)
        labels = rng.permutation(np.arange(self.num_samples) % max(self.num_classes, 1))
        inputs = self._text(rng, labels) if self.kind == "text" else self._numbers(rng, labels)
        regression = self.num_classes == 0
        targets = self._targets(rng, inputs) if regression else labels
        return Raw(
            kind=self.kind,
            task="regression" if regression else "classification",
            parts={"all": (inputs, targets)},
            classes=[f"class{i}" for i in range(self.num_classes)],
            targets=["target"] if regression else [],
            features=[f"x{i}" for i in range(SHAPES["tabular"][0])]
            if self.kind == "tabular"
            else [],
            vocabulary=VOCABULARY if self.kind == "text" else (),
            pad_id=0 if self.kind == "text" else None,
            licence="CC0-1.0",
            origin="made up by litlab",
        )

    def _numbers(self, rng: np.random.Generator, labels: Array) -> Array:
        shape = SHAPES[self.kind]
        prototypes = rng.normal(size=(labels.max() + 1, *shape))
        noisy = prototypes[labels] + rng.normal(scale=0.7, size=(len(labels), *shape))
        if self.kind == "image":
            return np.clip(128 + 40 * noisy, 0, 255).astype(np.uint8)
        return noisy.astype(np.float32)

    def _text(self, rng: np.random.Generator, labels: Array) -> Array:
        """Ids of which a third come from a class's own words; padded to uneven lengths."""
        length, words = SHAPES["text"][0], len(VOCABULARY)
        ids = rng.integers(1, words, size=(len(labels), length))
        own = 1 + (labels[:, None] * 5 + rng.integers(0, 5, size=ids.shape)) % (words - 1)
        ids = np.where(rng.random(ids.shape) < 0.35, own, ids)
        lengths = rng.integers(length // 2, length + 1, size=len(labels))
        return np.where(np.arange(length) < lengths[:, None], ids, 0).astype(np.int32)

    def _targets(self, rng: np.random.Generator, inputs: Array) -> Array:
        flat = inputs.reshape(len(inputs), -1).astype(np.float64)
        flat = (flat - flat.mean()) / flat.std()
        weights = rng.normal(size=flat.shape[1]) / np.sqrt(flat.shape[1])
        clean = 10 * np.tanh(flat @ weights) + 50
        targets: Array = (clean + rng.normal(scale=0.5, size=len(flat))).astype(np.float32)[:, None]
        return targets
