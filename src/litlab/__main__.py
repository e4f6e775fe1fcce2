"""`python src/litlab ...` runs this checkout's code, whichever litlab is installed.

The DVC stages call it so: an experiment that DVC runs in a copy of the repository must run the
code of that copy.
"""

import sys
from pathlib import Path

if not __package__:
    # Started as a folder: Python put the package itself on the path, where `report` or `data`
    # would shadow other modules.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    # With a spec, Lightning's ddp would start its other processes as `python -m __main__`.
    __spec__ = None

from litlab.cli.entry import main

if __name__ == "__main__":
    main()
