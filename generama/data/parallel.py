"""Decoding pictures in threads, in order and never far ahead; and a progress bar for what takes its time."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

from generama.data.contents import Picture
from generama.data.pictures import Decoded, decode
from generama.errors import DataError

Item = TypeVar("Item")
BLOCK = 16  # pictures a thread decodes at a time


def decoded(pictures: Iterable[Picture], size: int | None, grey: bool | None) -> Iterator[Decoded | DataError]:
    """Each picture decoded (see `decode`), or the DataError that says why it cannot be, in order.

    Pillow decodes and resizes outside Python's lock, so threads help where pictures are large.
    """

    def block(some: list[Picture]) -> list[Decoded | DataError]:
        return [_attempt(picture, size, grey) for picture in some]

    workers = min(8, os.cpu_count() or 1)
    rest = iter(pictures)
    waiting: deque[Future[list[Decoded | DataError]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            while some := list(islice(rest, BLOCK)):
                waiting.append(pool.submit(block, some))
                if len(waiting) > 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _attempt(picture: Picture, size: int | None, grey: bool | None) -> Decoded | DataError:
    try:
        return decode(picture, size, grey)
    except DataError as error:
        return error


def watched(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """The same items, with a progress bar on stderr from the first second on; without a terminal a line every 10 s."""
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, auto_refresh=False)
    task = bar.add_task(what, total=total)
    last = time.monotonic() + 1 - _pause(console)
    try:
        for count, item in enumerate(items, start=1):
            yield item
            if time.monotonic() - last < _pause(console):
                continue
            last = time.monotonic()
            if console.is_terminal:
                bar.start()
                bar.update(task, completed=count, refresh=True)
            else:
                console.print(f"{what}: {count:,} of {total:,}", highlight=False)
    finally:
        if bar.live.is_started:
            bar.stop()


def _pause(console: Console) -> float:
    """Seconds between two signs of life."""
    return 0.2 if console.is_terminal else 10.0
