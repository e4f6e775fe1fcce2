from typing import NoReturn

from litlab.utils.errors import DataError


class GivenInPython:
    """Stands in a record for a LightningDataModule that was an object of Python.

    Args:
        name: Its class.
    """

    def __init__(self, *, name: str) -> None:
        self.name = name

    def read(self) -> NoReturn:
        """Refuse to read: only the program that made the data has them.

        Raises:
            DataError: Always.
        """
        fix = "train with litlab.train(config, data=...) again"
        raise DataError(f"the data were {self.name}, given in Python", "data.source", fix)
