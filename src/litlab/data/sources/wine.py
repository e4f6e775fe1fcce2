from litlab.data.raw import Raw
from litlab.data.sources.sklearn_table import read_table


class Wine:
    """Wine (Aeberhard & Forina 1991): 178 rows, 13 features, 3 cultivars."""

    def read(self) -> Raw:
        """Return the data; they come with scikit-learn."""
        from sklearn.datasets import load_wine

        return read_table(
            load_wine, licence="CC BY 4.0", origin="https://archive.ics.uci.edu/dataset/109"
        )
