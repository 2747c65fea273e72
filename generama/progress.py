"""What a person sees of long work: a live bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

QUIET_SECONDS = 1.0  # work that is shorter shows no bar
LIVE_SECONDS = 0.2  # between two looks of a bar
PLAIN_SECONDS = 15.0  # between two lines where there is no terminal
console = Console(stderr=True, quiet=int(os.environ.get("RANK", "0")) > 0)  # of several processes the first speaks
T = TypeVar("T")


class Watch:
    """Progress of one piece of work from 0 to 1, with a note such as the loss. Use as a context manager."""

    def __init__(self, title: str, share: float = 0.0) -> None:
        self.title = title
        self._began = self._told = self._shown = time.perf_counter()
        self._first = share  # a resumed run starts in the middle
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(Text(title).plain, total=1.0, left="", note="")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def due(self) -> bool:
        """Whether it is time to show something new: making the note can cost as much as a step."""
        return time.perf_counter() - self._shown > (LIVE_SECONDS if console.is_terminal else PLAIN_SECONDS)

    def update(self, share: float, note: str = "") -> None:
        """Show that `share` of the work is done; the time left is read from the pace so far."""
        left = self._left(share)
        self._bar.update(self._task, completed=share, left=left, note=note)
        self._shown = time.perf_counter()
        if console.is_terminal and self._shown - self._began > QUIET_SECONDS:
            self._bar.start()
        if not console.is_terminal and self._shown - self._told > PLAIN_SECONDS:
            self._told = self._shown
            console.print(f"{self.title}: {share:.0%}  {left}  {note}", markup=False, highlight=False, soft_wrap=True)

    def _left(self, share: float) -> str:
        done = share - self._first
        if done <= 0:
            return ""
        seconds = (time.perf_counter() - self._began) * (1 - share) / done
        return f"{seconds / 60:.0f} min left" if seconds >= 90 else f"{seconds:.0f} s left"


def tell(sentence: str) -> None:
    """Say one thing to the person at the terminal, on standard error."""
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def track(title: str, items: Iterable[T], total: int) -> Iterator[T]:
    """The same items, with the progress of a `Watch`."""
    with Watch(title) as watch:
        for i, item in enumerate(items):
            yield item
            if watch.due():
                watch.update((i + 1) / total, f"{i + 1:,} of {total:,}")
        watch.update(1.0, f"{total:,} of {total:,}")
