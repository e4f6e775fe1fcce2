import numpy as np

from litlab.data.raw import Raw


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
