"""One process at a time may train into a run folder."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from generama.errors import Busy
from generama.files import refused, write_json

HOLDER = ".holder.json"  # who holds the lock: for people, the lock itself is the kernel's


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder. Raises Busy, naming the holder, where another process does; a dead one holds nothing."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy(f"{folder} is being trained by {_holder(folder)}; wait for it or choose another --run") from None
    except OSError as error:
        raise refused(error, folder) from error
    try:
        holder = {"pid": os.getpid(), "host": platform.node(), "started": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_json(folder / HOLDER, holder)
        yield
    finally:
        with suppress(OSError):
            (folder / HOLDER).unlink()
        lock.release()


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_bytes())
        return f"process {holder['pid']} on {holder['host']} since {holder['started']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just begun, or has just ended
        return "another process"
