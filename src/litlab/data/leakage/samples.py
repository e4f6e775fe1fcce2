"""What the leakage check keeps of each sample: some dozen bytes, never the sample itself."""

from hashlib import blake2b

import numpy as np

from litlab.data.spec import SPLITS, Array


class GrowingArray:
    """An array that grows by chunks."""

    def __init__(self, dtype: object, width: tuple[int, ...] = ()) -> None:
        self.chunks: list[Array] = [np.empty((0, *width), dtype)]  # type: ignore[call-overload]

    def add(self, chunk: Array) -> None:
        """Append a chunk."""
        self.chunks.append(chunk.astype(self.chunks[0].dtype, copy=False))

    def whole(self) -> Array:
        """Return all chunks as one array, which then is all that is kept."""
        if len(self.chunks) > 1:
            self.chunks = [np.concatenate(self.chunks)]
        return self.chunks[0]


class SampleDigests:
    """Split, place in the source, and digests of input and target: 33 bytes a sample."""

    def __init__(self) -> None:
        self._split = GrowingArray(np.uint8)
        self._index = GrowingArray(np.int64)
        self._inputs = GrowingArray(np.uint64, (2,))
        self._targets = GrowingArray(np.uint64)

    def add(self, split: str, index: Array, inputs: Array, targets: Array) -> None:
        """Remember n samples by digests `(n, 2)` of their inputs, `(n,)` of their targets."""
        self._split.add(np.full(len(index), SPLITS.index(split), np.uint8))
        self._index.add(index)
        self._inputs.add(inputs)
        self._targets.add(targets)

    @property
    def split(self) -> Array:
        """Numbers of the splits, by their order in SPLITS `(N,)`."""
        return self._split.whole()

    @property
    def index(self) -> Array:
        """Places in the source `(N,)`."""
        return self._index.whole()

    @property
    def inputs(self) -> Array:
        """Digests of the inputs `(N, 2)`."""
        return self._inputs.whole()

    @property
    def targets(self) -> Array:
        """Digests of the targets `(N,)`."""
        return self._targets.whole()

    def place(self, number: int) -> tuple[str, int]:
        """Return where sample `number` of those remembered is: its split and its place."""
        return SPLITS[int(self.split[number])], int(self.index[number])


def digests(rows: object) -> Array:
    """Return 16 bytes of BLAKE2b for each row of an array or list, as `(n, 2)` uint64."""
    found = b"".join(blake2b(row, digest_size=16).digest() for row in rows)  # type: ignore
    return np.frombuffer(found, np.uint64).reshape(-1, 2)


def target_digests(y: Array | None, number: int) -> Array:
    """Return one uint64 for each target: the class number itself, or a digest of the values."""
    if y is None:
        return np.zeros(number, np.uint64)
    if y.ndim == 1 and y.dtype.kind in "iu":
        return y.astype(np.int64).view(np.uint64)
    return digests(np.ascontiguousarray(y.reshape(number, -1)))[:, 0]
