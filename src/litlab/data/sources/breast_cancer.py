from litlab.data.raw import Raw
from litlab.data.sources.sklearn_table import read_table


class BreastCancer:
    """Breast Cancer Wisconsin (Diagnostic), Street et al. 1993: 569 rows, 30 features."""

    def read(self) -> Raw:
        """Return the data; they come with scikit-learn."""
        from sklearn.datasets import load_breast_cancer

        return read_table(
            load_breast_cancer, licence="CC BY 4.0", origin="https://archive.ics.uci.edu/dataset/17"
        )
