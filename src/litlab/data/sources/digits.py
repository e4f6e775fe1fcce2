import numpy as np

from litlab.data.raw import Raw


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
