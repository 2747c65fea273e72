"""Signals that ask a run to stop: it saves at the next step; a second Ctrl-C leaves at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

ASKING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


@contextlib.contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that is set once a signal asked to stop; the handlers are put back afterwards.

    Outside the main thread, where Python allows no handlers, the event is simply never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in ASKING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
