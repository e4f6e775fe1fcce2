"""Cells of a CSV file that a spreadsheet would take for a formula, and run."""

import re

# The characters that OWASP names ("CSV Injection"), and their full-width forms.
FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def safe_cell(value: object) -> object:
    """Return a cell to write into CSV: a text that begins a formula gets a `'` in front.

    Numbers, and texts that are numbers such as "-3.5", stay as they are. A carriage return becomes
    a line feed: Python's csv module quotes only that, and a bare one would begin another row.
    """
    if not isinstance(value, str) or NUMBER.fullmatch(value):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if text.startswith(FORMULA) else text
