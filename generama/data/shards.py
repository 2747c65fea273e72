"""A prepared data set: one folder of memory-mapped bytes that explains itself, and the two splits read from it.

images.u8      uint8 (N, C, H, W), no header        or points.f32, float32 (N, 2, 1, 1), for 2-D data
labels.npy     int64 (N,), where there are labels
seeds.npy      int64 (N,), where a model of Generama drew the pictures: the seeds of their noise
captions.jsonl {"index": i, "file_name": ..., "text": ...}, where there are captions
train.npy, held_out.npy   int64 positions of the two splits
meta.json      what `Meta` says
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generama.core import Batch, Condition, Spec
from generama.errors import DataError
from generama.pixels import to_float
from generama.unsafe import load_arrays

FORMAT = "generama-data-2"  # a change of the layout, or of how pictures are converted, must change this


@dataclass(frozen=True)
class Meta:
    """What there is to know of a prepared data set besides its pixels."""

    format: str
    name: str
    source: str  # as it was typed
    key: str  # SHA-256 of the source's state and the settings of the preparation; the cache compares it
    hash: str  # SHA-256 of the content: shape, pixels, labels, captions, split
    channels: int
    size: int
    levels: int
    classes: int
    class_names: tuple[str, ...]
    licence: str
    train: int  # number of pictures
    held_out: int
    split: str  # how the held-out pictures were chosen
    captions: bool
    skipped: int  # unreadable pictures that were left out
    formats: dict[str, int]  # pictures by how the source held them: PNG, JPEG ... or array
    sizes: dict[str, int]  # pictures by the size they had there, as '178x218'; the ten most frequent
    notes: tuple[str, ...]  # warnings and counts worth a line in a report


@dataclass(frozen=True, eq=False)
class Split:
    """Some of the pictures of a prepared data set: row i of the split is row `index[i]` of the files."""

    images: np.ndarray  # (N, C, H, W) uint8, or float32 for points; a memory map
    index: np.ndarray  # (n,) int64
    label: np.ndarray | None  # (N,) int64
    seeds: np.ndarray | None = None  # (N,) int64

    def __len__(self) -> int:
        return len(self.index)

    def pixels(self, indices: Tensor | slice) -> Tensor:
        """The pictures at these positions of the split, (B, C, H, W): uint8, or float32 for points."""
        return torch.from_numpy(self.images[self._rows(indices)])

    def labels(self, indices: Tensor | slice) -> Tensor | None:
        """Their classes, (B,) int64; None where the data has no labels."""
        return None if self.label is None else torch.from_numpy(self.label[self._rows(indices)])

    def batch(self, indices: Tensor | slice) -> Batch:
        """The pictures as float32 in [-1, 1] with their labels and seeds, ready to learn from."""
        seeds = None if self.seeds is None else torch.from_numpy(self.seeds[self._rows(indices)])
        return Batch(to_float(self.pixels(indices)), Condition(label=self.labels(indices)), seeds)

    def _rows(self, indices: Tensor | slice) -> np.ndarray:
        return self.index[indices if isinstance(indices, slice) else indices.cpu().numpy()]


@dataclass(frozen=True, eq=False)
class Data:
    """A prepared data set: what it looks like, where it came from, and its two splits."""

    folder: Path
    spec: Spec
    meta: Meta
    train: Split
    held_out: Split

    def describe(self) -> dict[str, Any]:
        """The few facts a run writes into its recipe.json."""
        meta = self.meta
        return {
            "source": meta.source,
            "name": meta.name,
            "hash": meta.hash,
            "size": meta.size,
            "grey": meta.channels == 1,
            "class_names": list(meta.class_names),
            "train": meta.train,
            "held_out": meta.held_out,
            "licence": meta.licence,
        }


def is_prepared(folder: Path) -> bool:
    """Whether the folder was written by `prepare`: it holds a meta.json that names our format."""
    meta = folder / "meta.json"
    if not meta.is_file() or meta.stat().st_size > 2**26:
        return False
    try:
        content = json.loads(meta.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and str(content.get("format", "")).startswith("generama-data-")


def read_meta(folder: Path) -> Meta:
    """The meta.json of a prepared folder. Raises DataError where it is of another version or damaged."""
    try:
        content = json.loads((folder / "meta.json").read_bytes())
        if content["format"] != FORMAT:
            raise DataError(f"{folder} was prepared as {content['format']}, not {FORMAT}; prepare it again")
        return Meta(**{**content, "class_names": tuple(content["class_names"]), "notes": tuple(content["notes"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder / 'meta.json'} is damaged ({error}); delete the folder and prepare it again"
        ) from error


def write_meta(folder: Path, meta: Meta) -> None:
    """Write meta.json, the last file of a preparation."""
    (folder / "meta.json").write_text(json.dumps(asdict(meta), indent=2) + "\n", encoding="utf-8")


def pixel_file(folder: Path, levels: int) -> Path:
    """Where the pixels lie: bytes for images, floats for points."""
    return folder / ("images.u8" if levels else "points.f32")


def open_prepared(folder: Path) -> Data:
    """Open a prepared folder; pixels stay on disk until they are asked for. Raises DataError where it is damaged."""
    meta = read_meta(folder)
    spec = Spec(meta.channels, meta.size, meta.classes, meta.levels)
    path = pixel_file(folder, meta.levels)
    shape = (meta.train + meta.held_out, *spec.shape)
    kind = np.dtype(np.uint8 if meta.levels else np.float32)
    try:
        size = path.stat().st_size
        if size != int(np.prod(shape)) * kind.itemsize:
            raise DataError(
                f"{path} has {size} bytes, which is not {shape} {kind}; delete the folder and prepare it again"
            )
        images = np.asarray(np.memmap(path, dtype=kind, mode="r", shape=shape))
        label = load_arrays(folder / "labels.npy")["array"] if meta.classes else None
        seeds = load_arrays(folder / "seeds.npy")["array"] if (folder / "seeds.npy").exists() else None
        rows = [load_arrays(folder / f"{name}.npy")["array"] for name in ("train", "held_out")]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} is damaged ({error}); delete it and prepare it again") from error
    train, held_out = (Split(images, index, label, seeds) for index in rows)
    return Data(folder, spec, meta, train, held_out)
