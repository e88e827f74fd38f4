"""SIGINT and SIGTERM: a run that is told to stop saves what it has and stops.

A signal raises `Stopped` where the program is, but inside `deferred()` only when the block is left: an optimizer step
is done or not done, never half. A batch system that warns with a signal of its own before it takes a job away
(submitit: SIGUSR2) gets its turn after the run has saved.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

STOP = (signal.SIGINT, signal.SIGTERM)
WARNING = signal.SIGUSR2


class Stopped(BaseException):
    """The process was told to stop. No `Exception`: a run that is told to stop has not failed."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class _State:
    """What this process was told, and whether it may be interrupted now."""

    watching = False
    depth = 0
    told: int | None = None
    told_by: Callable[[], Any] | None = None


def stopping() -> int | None:
    """The signal that told this process to stop, if one did."""
    return _State.told


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Hold a signal back until the block is done; it is raised then as `Stopped`."""
    _State.depth += 1
    try:
        yield
    finally:
        _State.depth -= 1
    if _State.watching:
        check()


def check() -> None:
    """Raise `Stopped` if this process was told to stop."""
    if _State.told is not None and _State.depth == 0:
        raise Stopped(_State.told)


@contextlib.contextmanager
def watch(forever: bool = False) -> Iterator[None]:
    """Take over the signals of this process while the block runs.

    Args:
        forever: Keep them after it: a signal that comes between two runs is remembered, and the next does not begin.

    Raises:
        Stopped: The process was told to stop, before the block or in it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may take signals
        return
    before = {number: signal.getsignal(number) for number in (*STOP, WARNING)}
    for number in STOP:
        if _is_free(before[number]):
            signal.signal(number, _tell)
    warned = before[WARNING]
    if callable(warned) and warned is not _warn:
        _State.told_by = lambda: warned(WARNING, None)
        signal.signal(WARNING, _warn)
    _State.watching = True
    try:
        check()
        yield
    except Stopped as stopped:
        if stopped.number == WARNING and _State.told_by is not None:
            _State.told = None
            _State.told_by()
        raise
    finally:
        _State.watching = False
        if not forever:
            for number, handler in before.items():
                signal.signal(number, handler)


def _is_free(handler: Any) -> bool:
    """Whether nobody else wants the signal: a batch system that handles it, or a shell that has it ignored."""
    return handler in (signal.SIG_DFL, signal.default_int_handler) or getattr(handler, "__module__", "") == __name__


def _tell(number: int, frame: FrameType | None) -> None:
    if _State.told is not None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        return
    _State.told = number
    if _State.watching:
        check()


def _warn(number: int, frame: FrameType | None) -> None:
    if _State.told is not None:
        return
    _State.told = number
    if _State.watching:
        check()
    elif _State.told_by is not None:
        _State.told_by()


@contextlib.contextmanager
def forwarding(children: Callable[[], list[int]]) -> Iterator[None]:
    """Hand SIGINT and SIGTERM on to the processes that `children` names while the block runs, and go on waiting.

    They save and stop; so the launcher that waits for them comes back. A second SIGINT does not wait. Where there are
    no such processes, the block is left at once.

    Raises:
        Stopped: There was nobody to hand the signal on to.
    """

    def hand_on(number: int, frame: FrameType | None) -> None:
        if _State.told is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        _State.told = number
        found = children()
        if not found:
            raise Stopped(number)
        for child in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in STOP}
    for number in STOP:
        if _is_free(before[number]):
            signal.signal(number, hand_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
