import torch
from torch.nn import functional as F


def warp(x: torch.Tensor, source: torch.Tensor, mode: str) -> torch.Tensor:
    """Return images `(B, C, H, W)` whose pixels come from elsewhere in the same image.

    Args:
        x: Images, float.
        source: `(B, 2, 3)`: a pixel at (column, row), counted from the centre, comes from
            `source @ (column, row, 1)`. What comes from outside is zero.
        mode: "nearest" or "bilinear".
    """
    height, width = x.shape[2:]
    # torch counts from -1 at the first pixel's outer edge to 1 at the last one's.
    half = torch.tensor([width / 2, height / 2], device=x.device)
    unit = torch.cat([half, half.new_ones(1)])
    theta = source * unit / half[:, None]
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode=mode, padding_mode="zeros", align_corners=False)
