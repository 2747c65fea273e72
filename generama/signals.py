"""Signals that ask to stop: training saves at its next step, other work leaves nothing half-written."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

LEAVING = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
ASKING = [signal.SIGINT, *LEAVING]


class Stop:
    """Set once a signal asked to stop; `signal` is the first that did."""

    signal: signal.Signals | None = None

    def is_set(self) -> bool:
        """Whether a signal asked to stop."""
        return self.signal is not None


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGUSR1 where nothing waits for a step to end: unwinds like Ctrl-C, past every `except Exception`."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Stop]:
    """What a signal has asked so far, for work that looks between its steps; a second Ctrl-C leaves at once.

    The handlers are put back afterwards. Outside the main thread, where Python allows no handlers, nothing ever asks.
    """
    stop = Stop()

    def note(number: int, frame: object) -> None:
        stop.signal = stop.signal or signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    with _handled(ASKING, note):
        yield stop


@contextlib.contextmanager
def terminated_cleanly() -> Iterator[None]:
    """SIGTERM and SIGUSR1 raise Terminated, so that what is half-written is deleted on the way out."""

    def leave(number: int, frame: object) -> None:
        raise Terminated(number)

    with _handled(LEAVING, leave):
        yield


@contextlib.contextmanager
def _handled(numbers: list[signal.Signals], handler: signal._HANDLER) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
