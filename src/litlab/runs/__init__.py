"""A run's folder, record, checkpoints and tracking.

`litlab.runs(query)` searches runs. The package has that name too, so it can be called.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litlab.evaluation.run import Runs


class _Searchable(ModuleType):
    def __call__(
        self, query: str = "", *, uri: "str | None" = None, trust: "Sequence[str]" = ()
    ) -> "Runs":
        """Search the project's runs; see `litlab.evaluation.run.runs`."""
        # By its name, for what a run can do lies on a higher level than this package.
        from importlib import import_module

        found: Runs = import_module("litlab.evaluation.run").runs(query, uri=uri, trust=trust)
        return found


sys.modules[__name__].__class__ = _Searchable
