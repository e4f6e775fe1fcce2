"""Run the Dockerfile's steps without docker, and use the result as the image would be used.

    python scripts/test_dockerfile.py [--keep] [--torch cpu]

Each step runs in a temporary folder that stands for the image's file system, with a fresh virtual
environment for its Python. Steps that need root or change the system (apt-get, useradd, chown) are
printed and left out. It installs torch anew, so it is no part of `make test`.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SYSTEM = ("apt-get", "rm -rf /var/lib/apt", "useradd", "chown")  # left out
USES = (  # what a container is asked for, in the mounted folder
    ["train", "data=digits", "model=mlp", "trainer.max_epochs=2"],
    ["evaluate"],
    ["new", "own-project"],
)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction of a Dockerfile with its argument, lines joined, without comments."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.partition(" ")
        yield name, " ".join(rest.split())


def ignored(name: str) -> bool:
    """Whether .dockerignore keeps a file or folder at the top out of the image."""
    kept = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    ]
    return name not in kept


class Image:
    """A folder that stands for the image's file system."""

    def __init__(self, folder: Path, torch: str) -> None:
        self.folder, self.torch, self.work = folder, torch, folder
        self.user: str | None = None
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.environment.pop("PYTHONPATH", None)
        self.environment.pop("VIRTUAL_ENV", None)

    def path(self, name: str) -> Path:
        """Return where a path of the image lies."""
        return self.folder / name.lstrip("/") if name.startswith("/") else self.work / name

    def run(self, command: list[str] | str) -> None:
        """Run a command as the image's user; a failure ends the program."""
        print(f"$ {command if isinstance(command, str) else shlex.join(command)}", flush=True)
        begun = time.monotonic()
        subprocess.run(
            command if isinstance(command, list) else ["sh", "-ec", command],
            cwd=self.work,
            env=self.environment,
            user=self.user,
            check=True,
        )
        print(f"  {time.monotonic() - begun:.0f} s", flush=True)

    def do(self, name: str, rest: str) -> None:
        """Do one instruction."""
        if name == "FROM":
            version = rest.partition(":")[2].partition("-")[0]
            python = shutil.which(f"python{version}") or sys.exit(f"python{version} is not here")
            self.run([python, "-m", "venv", str(self.folder / "python")])
            found = f"{self.folder / 'python' / 'bin'}{os.pathsep}{os.environ['PATH']}"
            self.environment["PATH"] = found
        elif name == "ARG":
            variable, _, value = rest.partition("=")
            self.environment[variable] = self.torch if variable == "TORCH" else value
        elif name == "ENV":
            variable, _, value = rest.partition("=")
            self.environment[variable] = str(self.path(value)) if value[0] == "/" else value
            self.path(value).mkdir(mode=0o777, exist_ok=True)
        elif name == "WORKDIR":
            self.work = self.path(rest)
            self.work.mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            self.copy(rest.split())
        elif name == "RUN":
            for part in rest.split(" && "):
                self.step(part)
        elif name == "USER":
            (self.folder / "work").chmod(0o777)
            self.user = "nobody" if os.getuid() == 0 else None  # not root in the image either
        elif name not in ("ENTRYPOINT", "CMD"):
            sys.exit(f"Dockerfile: {name} is not known to {Path(__file__).name}")

    def copy(self, names: list[str]) -> None:
        """Copy files of the context, without what .dockerignore lists."""
        *sources, target = names
        for source in sources:
            if ignored(source):
                sys.exit(f"Dockerfile: COPY {source}, which .dockerignore leaves out")
            if (ROOT / source).is_dir():
                left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(ROOT / source, self.path(target), ignore=left_out)
            else:
                shutil.copy(ROOT / source, self.path(target))

    def step(self, command: str) -> None:
        """Run a part of a RUN, mapped into the folder."""
        if command.startswith(SYSTEM):
            print(f"left out: {command}")
            return
        index = re.search(r'--extra-index-url "([^"]*)"', command)
        if index and not reachable(index[1].replace("${TORCH}", self.torch)):
            print(f"left out, not reachable from here: {index[0]}")
            command = command.replace(index[0], "")
        self.run(re.sub(r"(?<= )/(?=\w)", f"{self.folder}/", command))


def reachable(address: str) -> bool:
    """Whether an index answers."""
    try:
        urllib.request.urlopen(f"{address}/", timeout=10).close()
    except OSError:
        return False
    return True


def main() -> None:
    """Build and use the image's stand-in."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    parser.add_argument("--torch", default="cpu", help="the build argument TORCH")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="litlab-image-"))
    folder.chmod(0o755)
    try:
        image = Image(folder, options.torch)
        steps = list(instructions((ROOT / "Dockerfile").read_text()))
        for name, rest in steps:
            image.do(name, rest)
        entry = next(re.findall(r'"([^"]+)"', rest) for name, rest in steps if name == "ENTRYPOINT")
        default = next(re.findall(r'"([^"]+)"', rest) for name, rest in steps if name == "CMD")
        for words in (default, *USES):
            image.run([*entry, *words])
        print("the Dockerfile's steps work")
    finally:
        if options.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
