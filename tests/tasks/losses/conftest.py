from collections.abc import Callable

import pytest

from litlab.data.spec import DataSpec


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., DataSpec]:
    def make(classes: int = 0, targets: int = 0, class_counts: tuple[int, ...] = ()) -> DataSpec:
        return DataSpec(
            name="flowers" if classes else "houses",
            source="made",
            kind="tabular",
            task="classification" if classes else "regression",
            shape=(4,),
            dtype="float32",
            classes=("rose", "lily", "iris", "moss", "fern")[:classes],
            targets=("price", "age", "size")[:targets],
            class_counts=class_counts,
            sizes={"train": sum(class_counts)},
            licence="CC0-1.0",
            origin="made in a test",
        )

    return make
