"""Every failure a user can cause: one line, `error: what | where | fix`, and its exit code."""

import difflib
import errno
from collections.abc import Iterable, Sequence

from litlab.utils.redact import redact, redact_prose

STOPPED = (129, 130, 143)  # exit codes of what was ended by SIGHUP, Ctrl-C or SIGTERM, and saved
MOST_LISTED = 20  # names in one line
MOST_SHOWN = 60  # characters of a wrong argument in one line


class LitlabError(Exception):
    """A failure that the user can fix. It shows no password, whatever it was made from.

    Args:
        what: What is wrong, in one sentence.
        where: The setting, file or command it was found in.
        fix: What to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, where: str, fix: str) -> None:
        what, where, fix = redact_prose(str(what)), str(redact(str(where))), redact_prose(str(fix))
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = what, where, fix

    @property
    def reason(self) -> str:
        """What is wrong and where, for a longer sentence."""
        return f"{self.what} ({self.where})"

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in a notebook: the one line, and no traceback."""
        return [str(self)]

    def __str__(self) -> str:
        parts = (" ".join(str(part).split()) for part in (self.what, self.where, self.fix))
        return "error: " + " | ".join(parts)


class ConfigError(LitlabError):
    """The configuration asks for something that does not exist or cannot be."""

    exit_code = 2


class Refused(ConfigError):
    """Several reasons at once, a line each.

    Args:
        reasons: What is wrong.
    """

    def __init__(self, reasons: Sequence[LitlabError]) -> None:
        parts = [[getattr(r, part) for r in reasons] for part in ("what", "where", "fix")]
        super().__init__(*("; ".join(dict.fromkeys(part)) for part in parts))
        self.args = (reasons,)  # by which pickle makes it again
        self.reasons, self.exit_code = tuple(reasons), reasons[0].exit_code

    def __str__(self) -> str:
        return "\n".join(map(str, self.reasons))


def refuse(reasons: Iterable[LitlabError]) -> None:
    """Raise what speaks against something, all of it at once; nothing if there are no reasons.

    Raises:
        LitlabError: The only reason, or `Refused` with several.
    """
    found = [r for reason in reasons for r in getattr(reason, "reasons", (reason,))]
    if len(found) == 1:
        raise found[0]
    if found:
        raise Refused(found)


def require(value: object, kind: type | tuple[type, ...], name: str, fix: str) -> None:
    """Refuse an argument of a public function that is of another type.

    Args:
        value: What was given.
        kind: What it has to be an instance of.
        name: The argument, after its function: "litlab.train(config)".
        fix: What to write instead.

    Raises:
        ConfigError: It is something else.
    """
    if isinstance(value, kind):
        return
    kinds = kind if isinstance(kind, tuple) else (kind,)
    wanted = " or ".join(one.__name__ for one in kinds if one is not type(None))
    if isinstance(value, type):
        what = f"the class {value.__name__} was given, not an object ({wanted})"
    else:
        short = f" {value!r}" if isinstance(value, str) and len(value) < MOST_SHOWN else ""
        what = f"{type(value).__name__}{short} was given, not {wanted}"
    raise ConfigError(what, name, fix)


class DataError(LitlabError):
    """The data are missing, damaged or not what the configuration says."""

    exit_code = 3


class CheckpointError(LitlabError):
    """A checkpoint is missing, damaged, or of another model."""

    exit_code = 4


class EnvironmentFault(LitlabError):
    """Disk, lock, cache, network or device are not as needed."""

    exit_code = 5


# What the system refuses whatever file it is: the disk, a quota or a limit of the process.
_REFUSALS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n)"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "check the permissions"),
    errno.EIO: "check the disk",
}


def fault_of(error: OSError) -> EnvironmentFault | None:
    """Return what to say of an error of the system; None if it is none of the machine's."""
    fix = _REFUSALS.get(error.errno or 0)
    if fix is None:
        return None
    return EnvironmentFault(error.strerror or str(error), str(error.filename or "a file"), fix)


class NonFiniteError(LitlabError):
    """Training produced NaN or infinity."""

    exit_code = 6

    @staticmethod
    def remedy(*, clipped: bool) -> str:
        """Return what to change so that training stays finite; `clipped`: gradients already are."""
        return "lower optimizer.lr" + ("" if clipped else ", or set trainer.gradient_clip_val=1.0")


class Interrupted(LitlabError):
    """Stopped from outside; what was reached has been saved."""

    # One of STOPPED. The default is for pickle, which restores the right one after it.
    def __init__(self, what: str, where: str, fix: str, exit_code: int = 130) -> None:
        super().__init__(what, where, fix)
        self.exit_code = exit_code


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most like a name, whatever the case; None without any."""
    by_lower = {word.lower(): word for word in sorted(set(known))}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known word, or lists them when none is close."""
    known = sorted(set(known))
    close = closest(name, known)
    if close is not None:
        return f"did you mean '{close}'?"
    more = ", ..." if len(known) > MOST_LISTED else ""
    listed = ", ".join(known[:MOST_LISTED]) + more
    return f"one of: {listed}" if known else "there are no choices"
