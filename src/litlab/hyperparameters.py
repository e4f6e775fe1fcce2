"""The types a constructor may annotate its hyperparameters with.

A component's signature is its schema: `litlab.signature` reads these annotations from the source
file, without importing torch, and refuses a bad value before anything else happens.
"""

from typing import Annotated, Literal

from pydantic import Field

Probability = Annotated[float, Field(ge=0, lt=1)]  # of dropping, in [0, 1)
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]
Betas = tuple[Probability, Probability]  # Adam's decay rates of the first and second moment

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
Norm = Literal["batch", "layer", "none"]
Initialization = Literal[
    "default", "xavier_uniform", "xavier_normal", "he_uniform", "he_normal", "orthogonal"
]
