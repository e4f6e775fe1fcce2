import random

import numpy as np

from litlab.config.hyperparameters import Index
from litlab.data.raw import Raw


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
