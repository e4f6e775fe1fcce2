import numpy as np

from litlab.data.spec import Array


class RunningStatistics:
    """Mean and deviation of what comes in pieces (Chan, Golub & LeVeque 1979, the pairwise update).

    Args:
        scale: The unit of the result, in units of what comes in: 255 for bytes as [0, 1].
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale, self.count = scale, 0
        self.mean: Array = np.zeros(1)
        self.squares: Array = np.zeros(1)  # sum of squared distances from the mean

    def add(self, x: Array) -> None:
        """Take in samples `(n, C, ...)`; every axis but C is averaged over."""
        axes = (0, *range(2, x.ndim))
        number = x.size // x.shape[1]
        mean = x.mean(axes, dtype=np.float64)
        squares = x.var(axes, dtype=np.float64) * number
        total = self.count + number
        gap = mean - self.mean
        self.squares = self.squares + squares + gap**2 * (self.count * number / total)
        self.mean = self.mean + gap * (number / total)
        self.count = total

    def result(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and deviation, one number a channel or feature.

        A constant column has nothing to divide by; its deviation becomes 1, so that it turns into
        zeros, not NaN. So does one that varies so little that 1/std overflows float32.
        """
        if not self.count:
            return (), ()
        std = np.sqrt(self.squares / self.count)
        std = np.where(std > np.finfo(np.float32).tiny, std, self.scale)
        mean, std = self.mean / self.scale, std / self.scale
        return tuple(map(float, mean)), tuple(map(float, std))
