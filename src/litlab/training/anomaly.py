"""What torch's anomaly detection finds, in one line."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from litlab.utils.errors import NonFiniteError

FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)\n\s*(\S.*)')
FIX = "correct that operation, such as a root, a logarithm or a division near zero"


@contextmanager
def explained() -> Iterator[None]:
    """Turn torch's warning of a whole traceback, and its error, into one line.

    Raises:
        NonFiniteError: An operation's gradient was NaN.
    """
    told: list[str] = []
    show = warnings.showwarning

    def note(message: Any, *args: Any, **kwargs: Any) -> None:
        if str(message).startswith("Error detected in"):
            told.append(str(message))
        else:
            show(message, *args, **kwargs)

    warnings.showwarning = note
    try:
        yield
    except RuntimeError as error:
        if "returned nan values" not in str(error):
            raise
        what = f"anomaly detection: {str(error).rstrip('.')}"
        raise NonFiniteError(what, _place(told), FIX) from error
    finally:
        warnings.showwarning = show


def _place(told: list[str]) -> str:
    """Return the innermost line of the forward call that is not torch's own."""
    frames = [f for text in told for f in FRAME.findall(text) if "/torch/" not in f[0]]
    if not frames:
        return "training"
    path, line, function, code = frames[-1]
    return f"{path}, line {line}, in {function}: {code.strip()}"
