"""`litlab new`: a small project that uses litlab, from the files of project_template/."""

import contextlib
import importlib.util
import keyword
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from litlab.utils.errors import ConfigError, EnvironmentFault
from litlab.utils.output import command, say
from litlab.utils.paths import not_a_file, short

TEMPLATE = Path(__file__).parent / "project_template"
SUFFIX = ".template"  # by it no tool takes these files for code of litlab's own
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
DVC_CONFIG = """\
[core]
    analytics = false
[hydra]
    enabled = True
    config_dir = conf
    config_name = config
"""


def make_project(folder: Path) -> None:
    """Write a project, put it under git and DVC where they are there, and say what to type next.

    Args:
        folder: Missing or empty; its name is the project's.

    Raises:
        ConfigError: The name cannot be that of a Python package, or the folder holds something.
        EnvironmentFault: The folder cannot be written to.
    """
    folder = folder.absolute()
    package = package_name(folder.name)
    _refuse_full(folder)
    tokens = {"project": folder.name, "package": package, "version": _version()}
    try:
        _write(folder, tokens)
    except OSError as error:
        what = f"the project cannot be written: {error.strerror}"
        fix = "check the folder's permissions and the disk's free space"
        raise EnvironmentFault(what, short(folder), fix) from None
    _write_params(folder)
    renamed = "" if package == folder.name else f" (a Python name has no '-': {package})"
    say(f"made {short(folder)}; its code is the package src/{package}{renamed}")
    for line in _put_under_control(folder):
        say(line)
    say("next:")
    say(f"  cd {short(folder)}")
    say("  make run        # prepare, train, evaluate; or one training: litlab train")
    say("  make test       # its tests; README.md says what is where")


def package_name(project: str) -> str:
    """Return the name of a project's package: the project's, with `_` for `-`.

    Raises:
        ConfigError: No package can be called so.
    """
    package = project.replace("-", "_")
    where = command("new", project)
    if not NAME.fullmatch(project):
        fix = "use letters, digits, '-' and '_', beginning with a letter: my-project"
        raise ConfigError(f"'{project}' cannot be the name of a package", where, fix)
    if keyword.iskeyword(package) or keyword.issoftkeyword(package):
        what, fix = f"'{package}' is a keyword of Python", f"choose another: my-{project}"
        raise ConfigError(what, where, fix)
    spec = importlib.util.find_spec(package)
    if package in sys.stdlib_module_names or (spec is not None and spec.origin is not None):
        what = f"a module '{package}' is installed, and would be imported instead of the project's"
        raise ConfigError(what, where, f"choose another: my-{project}")
    return package


def _refuse_full(folder: Path) -> None:
    where = short(folder)
    if folder.exists() and not folder.is_dir():
        what = f"there is {not_a_file(folder) or 'a file'} of this name"
        raise ConfigError(what, where, "choose another name")
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError("the folder is not empty", where, "choose another name, or empty it")


def _version() -> str:
    try:
        return version("litlab")
    except PackageNotFoundError:  # `python src/litlab` in a checkout
        return "0.1"


def _write(folder: Path, tokens: dict[str, str]) -> None:
    for source in sorted(TEMPLATE.rglob(f"*{SUFFIX}")):
        parts = source.relative_to(TEMPLATE).parts
        parts = tuple(part.replace("dot_", ".", 1).removesuffix(SUFFIX) for part in parts)
        parts = tuple(tokens["package"] if part == "package" else part for part in parts)
        text = source.read_text(encoding="utf-8")
        for token, value in tokens.items():
            text = text.replace(f"{{{{ {token} }}}}", value)
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _write_params(folder: Path) -> None:
    from litlab.config.compose import write_params

    with contextlib.chdir(folder):
        write_params([], folder / "params.yaml")


def _put_under_control(folder: Path) -> list[str]:
    """Initialize git and DVC as far as they are there; return what was done, a line each."""
    within = _run(folder, "git", "rev-parse", "--show-toplevel")
    if within:
        done = ["git: a part of the repository around it"]
    elif _run(folder, "git", "init", "--quiet"):
        done = ["git: a new repository; nothing is committed yet: git add -A && git commit"]
    else:
        done = ["git: not found or not working, so there is no repository; DVC works without"]
    options = ["--subdir"] if within else [] if (folder / ".git").exists() else ["--no-scm"]
    dvc = (sys.executable, "-m", "dvc")
    if _run(folder, *dvc, "init", "--quiet", *options):
        (folder / ".dvc" / "config").write_text(_dvc_config(options), encoding="utf-8")
        done.append("dvc: initialized, composes conf/ on `dvc exp run`")
    else:
        done.append(f"dvc: could not be initialized; try: dvc init {' '.join(options)}".rstrip())
    return done


def _dvc_config(options: list[str]) -> str:
    without_git = "--no-scm" in options
    return (
        DVC_CONFIG.replace("[hydra]", "    no_scm = True\n[hydra]") if without_git else DVC_CONFIG
    )


def _run(folder: Path, *words: str) -> bool:
    """Return whether a command is there and succeeds."""
    if shutil.which(words[0]) is None:
        return False
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, timeout=120)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
