"""Files and folders that are written whole or not at all: whoever reads sees the old content or the new, never a part.

What is being written, and what is about to be deleted, lies under names that nobody lists: .incomplete-PID-* and
.trash-PID-*. A process that dies leaves such things behind; `tidy` removes what belongs to nobody alive.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generama.errors import ResourceError

HIDDEN = re.compile(r"\.(?:incomplete|trash)-([0-9]+)-.+")
REASONS = {
    errno.ENOSPC: "the disk is full; free some space and go on",
    errno.EDQUOT: "your disk quota is used up; delete something of yours or ask for more, and go on",
    errno.EROFS: "the file system is read-only; mount it for writing or choose another folder",
    errno.EACCES: "access is denied; change the permissions or choose another folder",
    errno.EPERM: "that is not permitted; change the permissions or choose another folder",
    errno.EIO: "the disk reports an input/output error and may be failing; copy the run elsewhere and go on there",
    errno.EFBIG: "the file is larger than is allowed here; raise the limit (ulimit -f) or choose another file system",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}
MANY = 100
_writing: set[Path] = set()  # what this process is at work on


def write_whole(path: Path, content: bytes, lasting: bool = True) -> None:
    """Replace a file at once; a `lasting` one outlives a power cut too, which takes the disk a moment.

    Raises ResourceError where the disk refuses; the old content is then still there.
    """
    draft = _hidden("incomplete", path.parent)
    try:
        draft.write_bytes(content)
        if lasting:
            _flush(draft)
        draft.replace(path)
    except OSError as error:
        raise refused(error, path, len(content)) from error
    finally:
        _delete(draft)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file at once; NaN and infinity, which JSON does not know, are refused with a ValueError."""
    write_whole(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


@contextlib.contextmanager
def whole_folder(target: Path, needed: int | None = None) -> Iterator[Path]:
    """A hidden folder to write files into, which at the end is flushed to disk and takes the place of `target`.

    On any failure, Ctrl-C included, it is deleted and `target` is as it was. Raises ResourceError where the disk
    refuses; `needed` is the number of bytes that its sentence names.
    """
    draft = _hidden("incomplete", target.parent)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        yield draft
        _flush_all(draft)
        _swap(draft, target)
    except OSError as error:
        raise refused(error, target, needed) from error
    finally:
        _delete(draft)


def discard(path: Path) -> None:
    """Delete a file or folder: out of sight at once, then gone. A link is removed, never followed."""
    trash = _hidden("trash", path.parent)
    path.rename(trash)
    _delete(trash)


def tidy(*folders: Path) -> int:
    """Remove what dead processes left half-written or half-deleted in these folders; returns the bytes freed."""
    freed = 0
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            owner = HIDDEN.fullmatch(path.name)
            if owner and not _at_work(int(owner[1]), path):
                freed += _size(path)
                _delete(path)
    return freed


def refused(error: OSError, path: Path, needed: int | None = None) -> ResourceError:
    """What the disk's refusal means, with what was needed and what is free there."""
    reason = REASONS.get(error.errno or 0, f"{error.strerror or error}; mend that or choose another folder")
    sizes = [f"{needed:,} bytes are needed"] if needed else []
    with contextlib.suppress(OSError):
        sizes.append(f"{free_space(path):,} bytes are free there")
    return ResourceError(f"{path} cannot be written: {reason} ({', '.join(sizes)})")


def free_space(path: Path) -> int:
    """Bytes free on the volume that holds a path, or would hold it: links are followed, as writing does."""
    there = next(p for p in (path, *path.resolve().parents) if p.exists())
    return shutil.disk_usage(there).free


def _hidden(kind: str, folder: Path) -> Path:
    path = folder / f".{kind}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    _writing.add(path)
    return path


def _swap(draft: Path, target: Path) -> None:
    """Put the draft in the target's place; between the two renames there is neither, never a mixture."""
    trash = _hidden("trash", target.parent)
    replaces = os.path.lexists(target)
    if replaces:
        target.rename(trash)
    try:
        draft.rename(target)
    except OSError:
        if replaces:
            trash.rename(target)
        raise
    _flush(target.parent)
    _delete(trash)


def _delete(path: Path) -> None:
    """Delete what is there, as far as it goes: what is left over is hidden, and `tidy` comes later."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    _writing.discard(path)


def _flush(path: Path) -> None:
    """Make a file, or the names in a folder, outlast a power cut."""
    if path.is_dir() and sys.platform == "win32":  # folders cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_all(folder: Path) -> None:
    """Flush the files in a folder: each, or where they are many the whole disk at once, which is then faster."""
    files = list(folder.iterdir())
    if len(files) > MANY and hasattr(os, "sync"):
        os.sync()
    else:
        for path in (*files, folder):
            _flush(path)


def _at_work(pid: int, path: Path) -> bool:
    """Whether the process that owns a hidden path lives. A number that is ours may be a dead one's, used again."""
    if pid == os.getpid():
        return path in _writing
    if sys.platform == "win32":  # where asking is not harmless
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _size(path: Path) -> int:
    """Bytes below a path; links are not followed."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    return sum(p.lstat().st_size for p in (path, *inside) if not p.is_dir() or p.is_symlink())
