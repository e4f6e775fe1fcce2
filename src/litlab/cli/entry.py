"""Where a command begins: signals are taken before anything else is imported."""

from typing import NoReturn

from litlab.utils.signals import CommandSignals


def main() -> NoReturn:
    """Run the command line."""
    with CommandSignals():
        from litlab.cli.main import main as run

        run()
