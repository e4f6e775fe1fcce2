"""The types a constructor may annotate its hyperparameters with.

A component's signature is its schema: `litlab.config.signature` reads these annotations from the
source file, without importing torch, and refuses a bad value before anything else happens.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):  # Python would take `true` for 1
        raise ValueError("true and false are not numbers")
    return value


def _as_text(value: object) -> object:
    known = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return known[value]
    return str(value) if isinstance(value, int | float) else value


NOT_BOOL = BeforeValidator(_refuse_bool)

Probability = Annotated[float, NOT_BOOL, Field(ge=0, lt=1)]  # of dropping, in [0, 1)
Fraction = Annotated[float, NOT_BOOL, Field(ge=0, le=1)]
Decay = Annotated[float, NOT_BOOL, Field(gt=0, le=1)]  # a factor, 1 for none
Positive = Annotated[float, NOT_BOOL, Field(gt=0)]
NonNegative = Annotated[float, NOT_BOOL, Field(ge=0)]
Count = Annotated[int, NOT_BOOL, Field(ge=1)]
# How often a block is repeated: each is built by itself, and a million take hours.
Depth = Annotated[int, NOT_BOOL, Field(ge=1, le=1000)]
Index = Annotated[int, NOT_BOOL, Field(ge=0)]
Betas = tuple[Probability, Probability]  # Adam's decay rates of the first and second moment

# A table's cell, as it was typed: YAML reads NULL, -200 and true as values of their own.
Cell = Annotated[str, BeforeValidator(_as_text)]

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
Norm = Literal["batch", "layer", "none"]
Initialization = Literal[
    "default", "xavier_uniform", "xavier_normal", "he_uniform", "he_normal", "orthogonal"
]
