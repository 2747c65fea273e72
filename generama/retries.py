"""Writing that the disk refuses while a run trains: told, tried again later, and only the last refusal ends the run."""

from __future__ import annotations

import time
from collections.abc import Callable

from generama.errors import ResourceError
from generama.progress import tell

Attempt = Callable[[Callable[[], object]], object]  # how to write where a disk may refuse


def at_once(write: Callable[[], object]) -> object:
    """Write, whatever comes of it."""
    return write()


class Retries:
    """Counts refusals in a row: after each it waits twice as long, and the last of `most` is raised."""

    def __init__(self, most: int = 5, wait: float = 30.0) -> None:
        self.most = most
        self.wait = wait  # seconds
        self._refusals = 0
        self._not_before = 0.0

    def attempt(self, write: Callable[[], object]) -> bool:
        """Write, unless it is still the time to wait; returns whether it was done. Raises the last ResourceError."""
        now = time.monotonic()
        if now < self._not_before:
            return False
        try:
            write()
        except ResourceError as error:
            self._refusals += 1
            if self._refusals >= self.most:
                raise
            pause = self.wait * 2 ** (self._refusals - 1)
            self._not_before = now + pause
            tell(f"warning: {error}; the run goes on, trying again in {pause:.0f} s ({self._refusals} of {self.most})")
            return False
        self._refusals = 0
        return True
