from collections.abc import Iterable

import torch
from torch import Tensor


def l1_penalty(parameters: Iterable[Tensor]) -> Tensor:
    """Return `sum |w|` over the weights, a scalar that carries gradients.

    Weights are the parameters of two dimensions or more; biases and the gains of norms are left
    out, for shrinking them does not make a model simpler (Goodfellow et al., "Deep Learning",
    2016, section 7.1). Training adds `lambda * l1_penalty(...)` to the loss of each batch; the
    validation loss goes without it (Tibshirani, "Regression Shrinkage and Selection via the
    Lasso", 1996).
    """
    terms = [parameter.abs().sum() for parameter in parameters if parameter.ndim >= 2]
    return torch.stack(terms).sum() if terms else torch.zeros(())
