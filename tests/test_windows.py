"""What Windows lacks is not needed to import litlab; without fork the command says what to do."""

import os
import signal
import sys

import pytest

import forked
from litlab.tuning.workers.devices import slots
from litlab.utils.errors import EnvironmentFault

IMPORT_ALL = """
import importlib, os, pkgutil, signal, sys
import litlab

def names():
    found = pkgutil.walk_packages(litlab.__path__, "litlab.")
    return sorted(m.name for m in found if not m.name.endswith("__main__"))

everything = names()
for name in everything:  # the libraries, which have fallbacks of their own on Windows
    importlib.import_module(name)
for name in [n for n in sys.modules if n.partition(".")[0] == "litlab"]:
    del sys.modules[name]
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None
of_posix = "fork forkpty register_at_fork setsid killpg getpgid getuid geteuid getgid uname"
of_posix += " sched_getaffinity mkfifo chown statvfs sysconf getloadavg WNOHANG O_DIRECTORY"
for name in of_posix.split():
    if hasattr(os, name):
        delattr(os, name)
kept = "SIGINT SIGTERM SIGABRT SIGFPE SIGILL SIGSEGV SIG_DFL SIG_IGN".split()
for name in dir(signal):
    if name.startswith("SIG") and name not in kept:
        delattr(signal, name)
for name in ("pthread_kill", "pthread_sigmask", "sigwait", "setitimer", "alarm", "pause"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in everything:
    importlib.import_module(name)
from litlab.utils.signals import CommandSignals
with CommandSignals():
    pass
print(len(everything))
"""


@pytest.mark.slow
def test_every_module_is_imported_without_posix() -> None:
    done = forked.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 150


def test_a_study_without_fork_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    with pytest.raises(EnvironmentFault, match="forked processes, which this system does not"):
        slots(None, 1, 1)  # type: ignore[arg-type]


def test_the_signals_that_are_there_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from litlab.utils import signals

    monkeypatch.setattr(signals, "HANGUP", -1)
    before = signal.getsignal(signal.SIGHUP)
    with signals.CommandSignals():
        assert signal.getsignal(signal.SIGHUP) == before
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
