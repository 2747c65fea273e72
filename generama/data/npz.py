"""NumPy's .npz: images (N, H, W) or (N, H, W, C) uint8 and labels, read a picture at a time and never unpickled.

Samples that Generama drew are such files; they also hold seeds, and 2-D points as images (N, 2) float32.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from generama.data.contents import Contents, Picture, Source
from generama.data.labels import Classes, as_classes
from generama.errors import DataError, UnsafeFile

# Names in use for (training images, training labels, test images, test labels); the last two may be missing.
NAMES = (
    ("images", "labels", "test_images", "test_labels"),
    ("train_x", "train_y", "test_x", "test_y"),
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x", "y", "test_x", "test_y"),
    ("arr_0", "arr_1", "arr_2", "arr_3"),
)


@dataclass(frozen=True)
class Header:
    """What an array in the file is, before any of it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype


def find_npz(path: Path) -> Source:
    """The source for an .npz file, known by its path, size and time."""
    status = path.stat()
    state = repr((str(path.resolve()), status.st_size, status.st_mtime_ns))
    return Source(path.stem, state, partial(_load, path))


def _load(path: Path) -> Contents:
    try:
        with zipfile.ZipFile(path) as archive:
            present = {name.removesuffix(".npy"): _header(path, archive, name) for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} is not a readable .npz ({error}); write it again with numpy.savez") from error
    names = next((names for names in NAMES if names[0] in present), None)
    if names is None:
        raise DataError(
            f"{path} holds {', '.join(sorted(present)) or 'nothing'}; name the array of pictures 'images' "
            "(and 'labels'), or 'train_x' (and 'train_y', 'test_x', 'test_y')"
        )
    if names[0] == "images" and present["images"].dtype == np.float32 and present["images"].shape[1:] == (2,):
        points = np.stack(list(_rows(path, "images", present["images"])))
        return Contents(count=len(points), points=points, seeds=_seeds(path, present, len(points)))
    parts = [(image, label) for image, label in (names[:2], names[2:]) if image in present]
    counts = [_check_images(path, image, present[image]) for image, _ in parts]
    labelled = [label in present for _, label in parts]
    if any(labelled) and not all(labelled):
        missing = parts[labelled.index(False)]
        raise DataError(f"{path} has pictures '{missing[0]}' without the labels '{missing[1]}'; add or drop them all")
    classes = _classes(path, [label for _, label in parts], present, sum(counts)) if all(labelled) else None
    held_out = np.repeat(np.arange(len(parts)) > 0, counts)
    return Contents(
        count=sum(counts),
        pictures=(picture for image, _ in parts for picture in _pictures(path, image, present[image])),
        labels=classes.labels if classes else None,
        class_names=classes.names if classes else (),
        held_out=held_out if held_out.any() else None,
        seeds=_seeds(path, present, sum(counts)),
        notes=classes.notes if classes else (),
    )


def _classes(path: Path, keys: Sequence[str], present: Mapping[str, Header], count: int) -> Classes:
    try:
        with np.load(path, allow_pickle=False) as file:
            called = next((file[key] for key in ("class_names", "classes") if key in present), np.array([]))
            values = [file[key] for key in keys]
    except Exception as error:  # zlib.error, BadZipFile, EOFError, ValueError: all mean the same
        raise DataError(f"{path} has labels that cannot be read ({error}); copy it again") from error
    flat = [value.reshape(-1) if value.ndim == 2 and value.shape[1] == 1 else value for value in values]
    if any(value.ndim != 1 for value in flat):
        raise DataError(f"{path} has labels of shape {values[0].shape} for {count} pictures; one a picture is needed")
    return as_classes(np.concatenate(flat), count, str(path), [str(name) for name in called.reshape(-1)])


def _seeds(path: Path, present: Mapping[str, Header], count: int) -> np.ndarray | None:
    """The seeds of drawn samples; an array of another kind that is called so is none of ours."""
    if present.get("seeds") != Header((count,), np.dtype(np.int64)):
        return None
    return np.stack(list(_rows(path, "seeds", present["seeds"])))


def _header(path: Path, archive: zipfile.ZipFile, member: str) -> Header:
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise UnsafeFile(
            f"{path}: the array '{member.removesuffix('.npy')}' is pickled (dtype {dtype}), and unpickling can run "
            "code; save it as numbers or fixed-width text"
        )
    if fortran and len(shape) > 1:
        raise DataError(f"{path}: '{member}' is stored column by column; save numpy.ascontiguousarray(...) of it")
    return Header(shape, dtype)


def _check_images(path: Path, key: str, header: Header) -> int:
    """The number of pictures, where the array can be pictures at all."""
    if header.dtype != np.uint8:
        low, high = _range(path, key, header)
        raise DataError(
            f"{path}: '{key}' is {header.dtype} with values from {low:g} to {high:g}; pictures are uint8 from 0 to "
            "255: scale them and save .astype('uint8')"
        )
    shape = header.shape
    if len(shape) == 4 and shape[1] in (1, 3, 4) and shape[3] not in (1, 2, 3, 4):
        raise DataError(f"{path}: '{key}' is {shape}, channels first; save .transpose(0, 2, 3, 1) of it")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 2, 3, 4)):
        raise DataError(f"{path}: '{key}' is {shape}; pictures are (N, H, W), or (N, H, W, C) with 1 to 4 channels")
    if 0 in shape[1:]:
        raise DataError(f"{path}: '{key}' is {shape}: its pictures have no pixels")
    return shape[0]


def _pictures(path: Path, key: str, header: Header) -> Iterator[Picture]:
    for i, row in enumerate(_rows(path, key, header)):
        yield Picture(f"picture {i} of '{key}' in {path}", row)


def _range(path: Path, key: str, header: Header) -> tuple[float, float]:
    if header.dtype.kind not in "biuf" or not header.shape or 0 in header.shape:
        return float("nan"), float("nan")
    lows, highs = zip(*((float(row.min()), float(row.max())) for row in _rows(path, key, header)), strict=True)
    return min(lows), max(highs)


def _rows(path: Path, key: str, header: Header) -> Iterator[np.ndarray]:
    """The array row by row, decompressed as it is read."""
    size = int(np.prod(header.shape[1:])) * header.dtype.itemsize
    with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
        version = npy.read_magic(file)
        (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
        for i in range(header.shape[0]):
            try:
                content = file.read(size)
            except Exception as error:  # zlib.error, BadZipFile, EOFError: all mean the same
                raise DataError(f"{path} is damaged at row {i} of '{key}' ({error}); copy it again") from error
            if len(content) < size:
                raise DataError(f"{path} is cut short at row {i} of '{key}'; copy it again")
            yield np.frombuffer(content, header.dtype).reshape(header.shape[1:])
