"""A signal's exception may be dropped; the request to stop may not."""

import ctypes
import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from litlab.utils import signals
from litlab.utils.errors import STOPPED, Interrupted
from litlab.utils.output import say
from litlab.utils.signals import CommandSignals, Signals

SRC = str(Path(signals.__file__).parents[2])
NUMBERS = dict(zip((signal.SIGHUP, signal.SIGINT, signal.SIGTERM), STOPPED, strict=True))


@pytest.fixture(autouse=True)
def _none_is_ignored() -> Iterator[None]:
    """Also where the tests run in the background of a shell, or under `nohup`."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in NUMBERS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


class Destroyed:
    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        send(self.number)


def in_a_destructor(number: int) -> None:
    Destroyed(number)


def in_a_weak_callback(number: int) -> None:
    referent = type("Referent", (), {})()
    kept = weakref.ref(referent, lambda _: send(number))
    del referent
    assert kept() is None


def in_a_garbage_collection(number: int) -> None:
    def callback(phase: str, info: dict[str, int]) -> None:
        gc.callbacks.remove(callback)
        send(number)

    gc.callbacks.append(callback)
    gc.collect()


def in_a_c_callback(number: int) -> None:
    ctypes.CFUNCTYPE(None)(lambda: send(number))()


def in_a_bare_except(number: int) -> None:
    with suppress(BaseException):
        send(number)


DROPS = (
    in_a_destructor,
    in_a_weak_callback,
    in_a_garbage_collection,
    in_a_c_callback,
    in_a_bare_except,
)


def work(seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def end(kind: type[Signals], body: Callable[[Signals], None]) -> Interrupted:
    """Return the error with which a signal ends the body."""
    with pytest.raises(Interrupted) as caught, kind() as run:
        body(run)
    return caught.value


@pytest.mark.parametrize("drop", DROPS)
@pytest.mark.parametrize("kind", [Signals, CommandSignals])
def test_a_dropped_exception_is_raised_again(
    kind: type[Signals], drop: Callable[[int], None], capfd: pytest.CaptureFixture[str]
) -> None:
    def body(_: Signals) -> None:
        drop(signal.SIGTERM)
        work()
        pytest.fail("the signal was lost")

    handler, hook = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    assert end(kind, body).exit_code == 143
    assert (signal.getsignal(signal.SIGTERM), sys.unraisablehook) == (handler, hook)
    assert "ignored" not in capfd.readouterr().err


def test_it_is_raised_as_often_as_it_is_dropped() -> None:
    drops = []

    def body(_: Signals) -> None:
        in_a_destructor(signal.SIGTERM)
        for place in range(4):
            try:
                work()
            except BaseException:
                drops.append(place)
        work()
        pytest.fail("the signal was lost")

    end(CommandSignals, body)
    assert drops == [0, 1, 2, 3]


def test_an_exception_on_its_way_is_left_alone() -> None:
    closed = []

    def body(_: Signals) -> None:
        try:
            send(signal.SIGTERM)
        finally:
            work(0.5)  # what closes files may take its time
            closed.append(True)

    end(Signals, body)
    assert closed


def test_dropped_before_a_run_begins_it_ends_the_run() -> None:
    """Also where the exception is kept by a library that has dropped it."""
    kept = []

    def body(_: Signals) -> None:
        try:
            send(signal.SIGTERM)
        except BaseException as error:
            kept.append(error)
        with Signals():
            pytest.fail("the signal was lost")

    end(CommandSignals, body)


def test_dropped_before_the_fit_it_is_seen_there() -> None:
    seen = []

    def body(run: Signals) -> None:
        in_a_destructor(signal.SIGINT)
        with run.noted():  # whose loop stops after a step, and is not cut off in it
            work(0.3)
        seen.append(run.came)

    end(Signals, body)
    assert seen == [signal.SIGINT]


@pytest.mark.parametrize("number", NUMBERS)
def test_ignored_signals_stay_ignored(number: int) -> None:
    """As for a process that `nohup` has started."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with CommandSignals(), Signals() as run:
            send(number)
        assert run.came is None
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("drop", [send, in_a_destructor, in_a_bare_except])
def test_the_command_line_ends_with_one_line(
    litlab: Any,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    drop: Callable[[int], None],
) -> None:
    def load(*_: object) -> None:
        drop(number)
        work()
        pytest.fail("the signal was lost")

    monkeypatch.setattr("litlab.config.compose.load", load)
    code, out, err = litlab("train")
    assert (code, out) == (NUMBERS[number], "")
    name = signals.NAMES[number]
    assert err == f"error: stopped by {name} | litlab | run it again\n"


def test_an_error_that_takes_its_place_is_not_shown(
    litlab: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        try:
            send(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    monkeypatch.setattr("litlab.config.compose.load", load)
    code, _, err = litlab("train")
    assert code == 130
    assert err.splitlines() == ["error: stopped by Ctrl-C | litlab | run it again"]


IMPORTING = """
import os, sys, time, weakref
from litlab.utils.signals import CommandSignals, cleaning_up
open("slow.py", "w").write('''
import os, time
try:
    os.kill(os.getpid(), {number})
    time.sleep(10)
except BaseException:
    pass
''')
sys.path.insert(0, ".")
with {within}:
    import slow
    open("went_on", "w")
"""


@pytest.mark.parametrize("number", NUMBERS)
def test_within_an_import_the_process_ends_at_once(tmp_path: Path, number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING.format(number=int(number), within="CommandSignals()")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": SRC},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == NUMBERS[number]
    assert done.stderr == f"error: stopped by {signals.NAMES[number]} | litlab | run it again\n"
    assert not (tmp_path / "went_on").exists()


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_import_is_one_too(tmp_path: Path, number: int) -> None:
    (tmp_path / "typer.py").write_text(f"import os; os.kill(os.getpid(), {int(number)})")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{SRC}"}
    command = [sys.executable, "-m", "litlab", "train"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == NUMBERS[number]
    assert done.stderr == f"error: stopped by {signals.NAMES[number]} | litlab | run it again\n"


def test_within_an_import_temporary_files_are_removed(tmp_path: Path) -> None:
    within = "tempfile.TemporaryDirectory(dir='.') as folder, CommandSignals(), cleaning_up()"
    script = "import tempfile" + IMPORTING.format(number=15, within=within)
    environment = {**os.environ, "PYTHONPATH": SRC}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 1  # by an exception
    assert {path.name for path in tmp_path.iterdir()} <= {"slow.py", "__pycache__", "went_on"}


def test_a_closed_standard_error_ends_nothing() -> None:
    """As of `2>&1 | tee log`, which Ctrl-C ends too, and of a closed terminal."""

    def body(run: Signals) -> None:
        with run.noted():
            send(signal.SIGINT)
            work(0.1)

    reader, writer = os.pipe()
    os.close(reader)
    before = os.dup(2)
    os.dup2(writer, 2)
    try:
        end(Signals, body)
        os.dup2(writer, 2)
        signals.detach()
        os.write(2, b"nobody reads this")
    finally:
        os.dup2(before, 2)
        for number in (before, writer):
            os.close(number)


def test_a_line_for_a_person_who_has_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError if text == "a pipe\n" else OSError(5, "Input/output error")

    detached: list[int] = []
    monkeypatch.setattr("litlab.utils.output.detach", lambda: detached.append(1))
    monkeypatch.setattr("litlab.utils.output.console._file", Gone())
    say("a pipe")
    say("a terminal")
    assert detached == [1, 1]


@pytest.mark.slow
def test_no_signal_is_lost_during_the_start() -> None:
    """A few moments of it; benchmarks/interrupts.py tries more, and other commands."""
    script = Path(SRC).parent / "benchmarks" / "interrupts.py"
    ended = subprocess.run(
        [sys.executable, str(script), "--quick", "--json"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout.splitlines()[-1])["moments"]
    assert said["tries"] >= 10
    assert said["lost"] == said["traceback"] == 0
