from collections.abc import Callable
from typing import Any

import numpy as np

from litlab.data.raw import Raw


def read_table(load: Callable[[], Any], *, licence: str, origin: str) -> Raw:
    """Return one of scikit-learn's classification tables, its target as class numbers."""
    table = load()
    return Raw(
        kind="tabular",
        task="classification",
        parts={"all": (table.data.astype(np.float32), table.target)},
        classes=[str(name) for name in table.target_names],
        features=[str(name) for name in table.feature_names],
        licence=licence,
        origin=origin,
    )


class BreastCancer:
    """Breast Cancer Wisconsin (Diagnostic), Street et al. 1993: 569 rows, 30 features."""

    def read(self) -> Raw:
        """Return the data; they come with scikit-learn."""
        from sklearn.datasets import load_breast_cancer

        return read_table(
            load_breast_cancer, licence="CC BY 4.0", origin="https://archive.ics.uci.edu/dataset/17"
        )


class Diabetes:
    """Diabetes (Efron, Hastie, Johnstone & Tibshirani 2004, "Least Angle Regression", table 1).

    442 patients, 10 features in their own units (not scikit-learn's scaled copy, whose scaling
    has seen every row); the target is disease progression a year after baseline.
    """

    def read(self) -> Raw:
        """Return the data; they come with scikit-learn."""
        from sklearn.datasets import load_diabetes

        table = load_diabetes(scaled=False)
        return Raw(
            kind="tabular",
            task="regression",
            parts={
                "all": (table.data.astype(np.float32), table.target.astype(np.float32)[:, None])
            },
            targets=["progression"],
            features=[str(name) for name in table.feature_names],
            licence="public (no licence stated)",
            origin="https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html",
        )


class Digits:
    """Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), scikit-learn's copy.

    1,797 images of 8x8 pixels in 17 grey levels, stretched to the full range of a byte.
    """

    def read(self) -> Raw:
        """Return the data; they come with scikit-learn."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
        return Raw(
            kind="image",
            task="classification",
            parts={"all": (images, digits.target)},
            classes=[str(digit) for digit in range(10)],
            licence="CC BY 4.0",
            origin="https://archive.ics.uci.edu/dataset/80",
        )


class Wine:
    """Wine (Aeberhard & Forina 1991): 178 rows, 13 features, 3 cultivars."""

    def read(self) -> Raw:
        """Return the data; they come with scikit-learn."""
        from sklearn.datasets import load_wine

        return read_table(
            load_wine, licence="CC BY 4.0", origin="https://archive.ics.uci.edu/dataset/109"
        )
