"""Writing pixels to disk one picture at a time, so that a million pictures need no more memory than a thousand."""

from __future__ import annotations

import hashlib
import os
import shutil
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from generama.data.pictures import Decoded
from generama.errors import DataError, ResourceError

LARGEST = 256  # pixels a side, where no size is asked for


class PixelWriter:
    """Appends pictures to one headerless file (N, C, H, W) uint8, and keeps what warnings need to know.

    Unless colour is asked for, the file starts grey; the first coloured picture widens it to three channels.
    """

    def __init__(self, path: Path, grey: bool | None) -> None:
        self.path = path
        self.channels = 3 if grey is False else 1
        self.count = 0
        self.size = 0
        self.first = ""  # the name of the first picture
        self.digests = array("Q")  # 8 bytes a picture, to find duplicates
        self.lowest = np.full(3, 255, np.uint8)
        self.highest = np.zeros(3, np.uint8)
        self._file = path.open("wb")

    def add(self, picture: Decoded) -> None:
        """Append one picture; it must be square and as large as those before it, else DataError names it."""
        pixels = picture.pixels
        self._check_size(picture)
        if pixels.ndim == 3 and self.channels == 1:
            self._widen()
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        self._file.write(np.broadcast_to(planes, (self.channels, self.size, self.size)).tobytes())
        self.digests.append(int.from_bytes(hashlib.blake2b(pixels.tobytes(), digest_size=8).digest(), "little"))
        self.lowest = np.minimum(self.lowest, planes.min(axis=(1, 2)))
        self.highest = np.maximum(self.highest, planes.max(axis=(1, 2)))
        self.count += 1

    def close(self) -> None:
        """Flush what is still in memory."""
        self._file.close()

    def _check_size(self, picture: Decoded) -> None:
        height, width = picture.pixels.shape[:2]
        how = "pass --size, such as --size 32 (in Python size=32), to crop and resize every picture"
        if self.count == 0:
            if height != width or height > LARGEST:
                rule = "not square" if height != width else f"larger than {LARGEST} pixels"
                raise DataError(f"{picture.name} is {width}x{height}, {rule}; {how}")
            self.size, self.first = height, picture.name
        elif (height, width) != (self.size, self.size):
            raise DataError(f"{picture.name} is {width}x{height}, but {self.first} is {self.size}x{self.size}; {how}")

    def _widen(self) -> None:
        """Rewrite what is there with three equal channels, a block at a time."""
        self._file.close()
        narrow = self.path.with_suffix(".narrow")
        self.path.rename(narrow)
        one = self.size * self.size
        self._file = self.path.open("wb")
        with narrow.open("rb") as file:
            while block := file.read(one * 256):
                planes = np.frombuffer(block, np.uint8).reshape(-1, 1, one)
                self._file.write(np.repeat(planes, 3, axis=1).tobytes())
        narrow.unlink()
        self.channels = 3


@contextmanager
def half_written(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target` that becomes `target` at the end, or vanishes on any error or Ctrl-C.

    Where another process finished the same folder first, theirs is kept.
    """
    folder = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder
        try:
            folder.rename(target)
        except OSError:
            if not (target / "meta.json").is_file():
                raise
    except OSError as error:
        raise ResourceError(
            f"{target} cannot be written: {error}; free some disk space, or choose another place"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
