"""litlab: train neural networks with everything recorded.

Every public name is in the table below; see docs/python.md. A name is imported when it is used, so
`import litlab` itself is quick and loads neither torch nor lightning.
"""

import importlib as _importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litlab import models
    from litlab.config.compose import compose_config as compose
    from litlab.config.schema import Config
    from litlab.data.datamodule import DataModule
    from litlab.data.inspect import inspect
    from litlab.data.spec import DataSpec
    from litlab.evaluation.run import Run, runs
    from litlab.tasks.multi_label import MultiLabelTask
    from litlab.tasks.task import ClassificationTask, LanguageModelTask, RegressionTask
    from litlab.training.crossval import cross_validate
    from litlab.training.run import train
    from litlab.tuning.run import Study, tune
    from litlab.utils.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        EnvironmentFault,
        Interrupted,
        LitlabError,
        NonFiniteError,
    )

# Public name to where it is defined.
_PUBLIC = {
    "compose": "litlab.config.compose:compose_config",
    "inspect": "litlab.data.inspect:inspect",
    "train": "litlab.training.run:train",
    "cross_validate": "litlab.training.crossval:cross_validate",
    "tune": "litlab.tuning.run:tune",
    "runs": "litlab.runs:",
    "Run": "litlab.evaluation.run:Run",
    "Study": "litlab.tuning.run:Study",
    "Config": "litlab.config.schema:Config",
    "DataModule": "litlab.data.datamodule:DataModule",
    "DataSpec": "litlab.data.spec:DataSpec",
    "models": "litlab.models:",
    "ClassificationTask": "litlab.tasks.task:ClassificationTask",
    "MultiLabelTask": "litlab.tasks.multi_label:MultiLabelTask",
    "RegressionTask": "litlab.tasks.task:RegressionTask",
    "LanguageModelTask": "litlab.tasks.task:LanguageModelTask",
    **{
        name: f"litlab.utils.errors:{name}"
        for name in (
            "LitlabError",
            "ConfigError",
            "DataError",
            "CheckpointError",
            "EnvironmentFault",
            "NonFiniteError",
            "Interrupted",
        )
    },
}
__all__ = [
    "CheckpointError",
    "ClassificationTask",
    "Config",
    "ConfigError",
    "DataError",
    "DataModule",
    "DataSpec",
    "EnvironmentFault",
    "Interrupted",
    "LanguageModelTask",
    "LitlabError",
    "MultiLabelTask",
    "NonFiniteError",
    "RegressionTask",
    "Run",
    "Study",
    "compose",
    "cross_validate",
    "inspect",
    "models",
    "runs",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("litlab")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'litlab' has no attribute '{name}'")
    module, _, attribute = _PUBLIC[name].partition(":")
    found = _importlib.import_module(module)
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__", *(n for n in globals() if n.startswith("__"))})
