import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONGEST_SIDE = 160  # pixels; the gallery shows samples at about 100


def sample_uri(sample: NDArray[np.uint8]) -> str:
    """Return a uint8 image `(C, H, W)` as a PNG `data:` URI.

    Three or more channels: the first three as red, green and blue; fewer: the first as grey.

    Raises:
        ValueError: The array is not uint8 with three axes.
    """
    if sample.dtype != np.uint8 or sample.ndim != 3:
        raise ValueError(f"need uint8 (C, H, W), got {sample.dtype} {sample.shape}")
    pixels = sample[:3].transpose(1, 2, 0) if len(sample) >= 3 else sample[0]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
