"""A zip of pictures as a source: read in place, nothing is unpacked to disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from generama.data.contents import Contents, Source
from generama.data.pictures import MOST_BYTES
from generama.data.tree import Tree, is_hidden, read_tree, shown
from generama.errors import DataError

MOST_EXPANSION = 200  # times the size of the archive; pictures are compressed already
SMALL = 2**30  # bytes that any archive may expand to


def find_archive(path: Path) -> Source:
    """The source for a .zip, known by its path, size and time."""
    status = path.stat()
    state = repr((str(path.resolve()), status.st_size, status.st_mtime_ns))
    return Source(path.stem, state, partial(_load, path))


def _load(path: Path) -> Contents:
    try:
        archive = zipfile.ZipFile(path)  # stays open while its pictures are read
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable zip ({error}); copy it again") from error
    names = _check(path, archive)
    return read_tree(Tree(shown(str(path)), names, partial(_read, path, archive), partial(_lines, path, archive)))


def _check(path: Path, archive: zipfile.ZipFile) -> list[str]:
    """The names in order, where all are harmless and nothing expands beyond reason."""
    names, size = set(), 0
    for info in archive.infolist():
        name = info.filename
        if name.startswith("/") or "\\" in name or ":" in name.split("/")[0] or ".." in name.split("/"):
            raise DataError(f"{path} holds the name {shown(name)}, which leads out of the archive; it is refused")
        if name in names:
            raise DataError(f"{path} holds {shown(name)} twice; make the archive again")
        if info.flag_bits & 1:
            raise DataError(f"{path} is encrypted; unpack it and pass the folder")
        names.add(name)
        size += info.file_size
    if size > max(SMALL, MOST_EXPANSION * path.stat().st_size):
        raise DataError(
            f"{path} expands to {size:,} bytes, more than {MOST_EXPANSION} times its size: refused as a bomb"
        )
    return sorted(name for name in names if not is_hidden(name))


def _read(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        with archive.open(name) as file:
            content = file.read(MOST_BYTES + 1)
    except Exception as error:  # BadZipFile, zlib.error, EOFError, NotImplementedError: all mean the same
        raise DataError(f"{shown(f'{path}/{name}')} cannot be read from the archive: {error}") from error
    if len(content) > MOST_BYTES:
        raise DataError(f"{shown(f'{path}/{name}')} has more than {MOST_BYTES:,} bytes, the most that is read")
    return content


def _lines(path: Path, archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    yield from io.BytesIO(_read(path, archive, name))
