"""A folder of pictures on disk as a source."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from generama.data.contents import Source
from generama.data.pictures import MOST_BYTES
from generama.data.tree import Tree, is_hidden, is_picture, read_tree, shown
from generama.errors import DataError


def find_folder(root: Path) -> Source:
    """The source for a folder; its state is every file's name, size and time."""
    names, state = [], hashlib.sha256(os.fsencode(root.resolve()))
    for name, status in _walk(str(root), "", frozenset()):
        names.append(name)
        if not name.endswith("/"):
            state.update(os.fsencode(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"))
    tree = Tree(shown(str(root)), names, lambda name: read_file(root / name), lambda name: _lines(root / name))
    return Source(root.resolve().name, state.hexdigest(), partial(read_tree, tree))


def read_file(path: Path) -> bytes:
    """The bytes of one picture's file. Raises DataError for folders, devices, huge files and what cannot be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise DataError(f"{shown(str(path))} is {kind}, though its name is a picture's; rename or remove it")
        if status.st_size > MOST_BYTES:
            raise DataError(f"{shown(str(path))} has {status.st_size:,} bytes; at most {MOST_BYTES:,} are read")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{shown(str(path))} cannot be read: {error.strerror}") from error


def _walk(root: str, below: str, seen: frozenset[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Every file and folder (its name ends in '/') below `root`, by name; links are followed, but not in circles."""
    place = os.path.join(root, below)  # noqa: PTH118 (a million Path objects are slow)
    here = os.path.realpath(place)
    if here in seen:
        return
    try:
        with os.scandir(place) as entries:
            found = sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{shown(place)} cannot be listed: {error.strerror}") from error
    for entry in found:
        name = f"{below}{entry.name}"
        try:
            status = entry.stat()
        except OSError:  # a dangling link: named when it is read
            status = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode) and not is_picture(entry.name):
            yield f"{name}/", status
            yield from _walk(root, f"{name}/", seen | {here})
        else:
            yield name, status


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file
