"""Where a command begins: signals are taken before anything else is imported."""

from typing import NoReturn

from litlab.signals import CommandSignals


def main() -> NoReturn:
    """Run the command line."""
    with CommandSignals():
        from litlab.cli import main as run

        run()
