"""The shipped networks by name, each imported when it is used: `litlab.models.CNN(data.spec)`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litlab.models.cnn import CNN
    from litlab.models.mlp import MLP
    from litlab.models.simple import SimpleCNN, SimpleNN
    from litlab.models.transformer import Transformer

_PUBLIC = {
    "MLP": "mlp",
    "CNN": "cnn",
    "Transformer": "transformer",
    "SimpleNN": "simple",
    "SimpleCNN": "simple",
}
__all__ = ["CNN", "MLP", "SimpleCNN", "SimpleNN", "Transformer"]


def __getattr__(name: str) -> Any:
    """Import a network on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'litlab.models' has no attribute '{name}'")
    return getattr(importlib.import_module(f"litlab.models.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
