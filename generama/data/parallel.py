"""Decoding pictures in threads, in order and never far ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from generama.data.contents import Picture
from generama.data.pictures import Decoded, decode
from generama.errors import DataError

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
