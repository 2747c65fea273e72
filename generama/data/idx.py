"""IDX, the format of MNIST's own files: a magic number, the sizes, then the bytes (LeCun, Cortes and Burges)."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from generama.data.contents import Contents, Picture, Source
from generama.data.labels import as_classes
from generama.errors import DataError

PARTS = {"train": False, "t10k": True}  # the prefix of the four files, and whether it is the held-out part


def holds_idx(folder: Path) -> bool:
    """Whether the folder holds MNIST-like files, named with '-' or '.' and plain or gzipped."""
    return _find(folder, "train", "images", 3) is not None


def find_idx(folder: Path, name: str, class_names: tuple[str, ...] = (), licence: str = "") -> Source:
    """The source for a folder of train-images-idx3-ubyte(.gz) and its companions; t10k-* becomes the held-out split."""
    files = [path for part in PARTS for path in _pair(folder, part) if path is not None]
    state = repr([(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files])
    return Source(name, state, partial(_load, folder, class_names, licence))


def read_idx(path: Path) -> np.ndarray:
    """A whole IDX file of unsigned bytes, of any number of axes. Meant for labels: pictures are streamed."""
    with _open(path) as file:
        shape = _header(path, file)
        return np.frombuffer(_exactly(path, file, int(np.prod(shape))), np.uint8).reshape(shape)


def _load(folder: Path, class_names: tuple[str, ...], licence: str) -> Contents:
    images, labels, held_out = [], [], []
    for part, is_held_out in PARTS.items():
        image_file, label_file = _pair(folder, part)
        if image_file is None:
            continue
        with _open(image_file) as file:
            count = _header(image_file, file)[0]
        images.append(image_file)
        held_out.append(np.full(count, is_held_out))
        if label_file is not None:
            labels.append(read_idx(label_file))
            if len(labels[-1]) != count:
                raise DataError(f"{label_file} has {len(labels[-1])} labels for the {count} pictures of {image_file}")
    if labels and len(labels) != len(images):
        raise DataError(f"{folder} has labels for only one of its parts; add the missing *-labels-idx1-ubyte file")
    label = np.concatenate(labels) if labels else None
    mask = np.concatenate(held_out)
    classes = None if label is None else as_classes(label, len(mask), str(folder), class_names)
    return Contents(
        count=len(mask),
        pictures=(picture for path in images for picture in _pictures(path)),
        labels=classes.labels if classes else None,
        class_names=classes.names if classes else (),
        held_out=mask if mask.any() else None,
        licence=licence,
        notes=classes.notes if classes else (),
    )


def _pictures(path: Path) -> Iterator[Picture]:
    with _open(path) as file:
        shape = _header(path, file)
        if len(shape) != 3:
            raise DataError(f"{path} has {len(shape)} axes, where pictures have 3; is it a file of labels?")
        for i in range(shape[0]):
            pixels = np.frombuffer(_exactly(path, file, shape[1] * shape[2]), np.uint8).reshape(shape[1:])
            yield Picture(f"picture {i} of {path}", pixels)


def _header(path: Path, file: BufferedIOBase) -> tuple[int, ...]:
    magic = _exactly(path, file, 4)
    if magic[:3] != b"\0\0\x08" or magic[3] > 4:
        raise DataError(f"{path} is not an IDX file of unsigned bytes (it starts with {magic.hex()}, not 0000080n)")
    return struct.unpack(f">{magic[3]}I", _exactly(path, file, 4 * magic[3]))


def _exactly(path: Path, file: BufferedIOBase, count: int) -> bytes:
    try:
        content = file.read(count)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); copy or download it again") from error
    if len(content) < count:
        raise DataError(f"{path} is cut short; copy or download it again")
    return content


def _open(path: Path) -> BufferedIOBase:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _pair(folder: Path, part: str) -> tuple[Path | None, Path | None]:
    return _find(folder, part, "images", 3), _find(folder, part, "labels", 1)


def _find(folder: Path, part: str, what: str, axes: int) -> Path | None:
    names = [f"{part}-{what}{joint}idx{axes}-ubyte{end}" for joint in "-." for end in (".gz", "")]
    return next((folder / name for name in names if (folder / name).is_file()), None)
