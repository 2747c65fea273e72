"""Source in, prepared folder out: decode, check, split, hash, write; atomically, and only once for the same source."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from generama.data.contents import Contents, Source
from generama.data.parallel import decoded
from generama.data.shards import FORMAT, Data, Meta, is_prepared, open_prepared, pixel_file, write_meta
from generama.data.sources import find_source
from generama.data.split import choose_held_out
from generama.data.writing import PixelWriter, half_written
from generama.errors import DataError, UsageError
from generama.progress import track

FEWEST = 10  # pictures that make a data set
FEWEST_JUDGED = 2  # that have a distribution to measure
SIZES = 10  # sizes that are listed
OnBad = Literal["error", "skip"]


@dataclass(frozen=True)
class Wanted:
    """How the pictures are to be written."""

    size: int | None
    grey: bool | None
    bad_limit: float | None  # the share of unreadable pictures that is skipped; None: the first one stops
    split: bool = True  # whether some are held out


@dataclass(frozen=True)
class Written:
    """What the pixels turned out to be, once they are on disk."""

    kept: np.ndarray  # (N,) int64, positions in the source
    channels: int
    size: int
    digests: np.ndarray  # (N,) uint64, equal for equal pictures
    notes: tuple[str, ...]
    formats: dict[str, int]
    sizes: dict[str, int]


def open_data(
    source: str | Path,
    *,
    size: int | None = None,
    grey: bool | None = None,
    cache: Path | None = None,
    on_bad: OnBad = "error",
    bad_limit: float = 0.01,
    split: bool = True,
) -> Data:
    """Data from a name, a file or a folder, prepared on the first call and read from the cache afterwards.

    `source` is 'mnist5k', 'digits', 'fashion-mnist', a 2-D toy, 'hub:NAME', an .npz, a folder or zip of pictures, a
    folder of IDX files, or a folder that `prepare` wrote. The other arguments are those of `prepare`.
    """
    folder = Path(source).expanduser()
    if folder.is_dir() and is_prepared(folder):
        data = open_prepared(folder)
        asked = (size or data.spec.size, data.spec.channels == 1 if grey is None else grey)
        if asked != (data.spec.size, data.spec.channels == 1):
            raise UsageError(
                f"{folder} was prepared with {data.spec.channels} channel(s) at {data.spec.size} pixels; "
                "leave size and grey out, or prepare the original pictures again"
            )
        return data
    return prepare(source, size=size, grey=grey, cache=cache, on_bad=on_bad, bad_limit=bad_limit, split=split)


def prepare(
    source: str | Path,
    *,
    size: int | None = None,
    grey: bool | None = None,
    out: Path | None = None,
    cache: Path | None = None,
    on_bad: OnBad = "error",
    bad_limit: float = 0.01,
    split: bool = True,
) -> Data:
    """Write a source as a folder of memory-mapped bytes, or find it where that was done before.

    Without `size` all pictures must have one square size up to 256 pixels; with it each is turned upright, cropped to
    its centred square and resampled. `grey` None makes the data grey where every picture is. The folder is `out`, or
    lies in `cache` (default: $GENERAMA_CACHE/data, or ~/.cache/generama/data). With `on_bad` 'skip' unreadable
    pictures are left out, up to the share `bad_limit`. Without `split` nothing is held out: pictures to be judged, not
    to learn from, of which two are enough. Warnings go to stderr and into the notes of the meta.
    Raises DataError, naming the picture or line; nothing half-written is left.
    """
    if size is not None and not 1 <= size <= 4096:
        raise UsageError(f"size is a number of pixels from 1 to 4096, not {size}")
    found = find_source(source)
    settings = [FORMAT, found.state, size, grey, on_bad, bad_limit, split]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    target = out if out is not None else (cache or default_cache()) / f"{_folder_name(found.name)}-{key[:12]}"
    if target.exists() and (out is None or is_prepared(target)):
        data = open_prepared(target)
        if data.meta.key == key:
            return data
    if target.exists():
        raise UsageError(f"{target} exists and holds something else; choose another folder or delete it")
    with half_written(target) as folder:
        wanted = Wanted(size, grey, bad_limit if on_bad == "skip" else None, split)
        _write(folder, found, str(source), key, wanted)
    data = open_prepared(target)
    for note in data.meta.notes:
        print(f"warning about {found.name}: {note}", file=sys.stderr)
    return data


def default_cache() -> Path:
    """$GENERAMA_CACHE/data, or ~/.cache/generama/data."""
    root = os.environ.get("GENERAMA_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "generama") / "data"


def _write(folder: Path, source: Source, typed: str, key: str, wanted: Wanted) -> None:
    contents = source.load()
    _check_count(typed, contents.count, wanted)
    if contents.points is None:
        written = _write_pictures(folder, contents, wanted)
    elif wanted.size is None and wanted.grey is None:
        written = _write_points(folder, contents.points)
    else:
        raise UsageError(f"{typed} is made of 2-D points, which have no size and no colour; leave both out")
    kept = written.kept
    _check_count(typed, len(kept), wanted)
    labels = None if contents.labels is None else contents.labels[kept].astype(np.int64)
    mask, rule = _held_out(typed, contents, kept, labels) if wanted.split else (np.zeros(len(kept), bool), "none")
    if labels is not None:
        np.save(folder / "labels.npy", labels)
    if contents.seeds is not None:
        np.save(folder / "seeds.npy", contents.seeds[kept].astype(np.int64))
    if contents.captions is not None:
        _write_captions(folder, contents, kept)
    np.save(folder / "train.npy", np.flatnonzero(~mask))
    np.save(folder / "held_out.npy", np.flatnonzero(mask))
    levels = 256 if contents.points is None else 0
    meta = Meta(
        format=FORMAT,
        name=source.name,
        source=typed,
        key=key,
        hash=_content_hash(folder, [len(kept), written.channels, written.size, levels, list(contents.class_names)]),
        channels=written.channels,
        size=written.size,
        levels=levels,
        classes=len(contents.class_names),
        class_names=contents.class_names,
        licence=contents.licence,
        train=int((~mask).sum()),
        held_out=int(mask.sum()),
        split=rule,
        captions=contents.captions is not None,
        skipped=contents.count - len(kept),
        formats=written.formats,
        sizes=written.sizes,
        notes=contents.notes + written.notes + _overlap(written.digests, mask),
    )
    write_meta(folder, meta)


def _check_count(typed: str, count: int, wanted: Wanted) -> None:
    fewest, purpose = (FEWEST, "to train and to test") if wanted.split else (FEWEST_JUDGED, "to be measured")
    if count < fewest:
        raise DataError(f"{typed} holds {count} readable picture(s); at least {fewest} are needed {purpose}")


def _held_out(typed: str, contents: Contents, kept: np.ndarray, labels: np.ndarray | None) -> tuple[np.ndarray, str]:
    """Which pictures are kept back from training, a mask (N,), and by which rule."""
    if contents.held_out is None:
        mask, rule = choose_held_out(len(kept), labels), "random, a fifth of every class"
    else:
        mask, rule = contents.held_out[kept], "the source's own"
    if not mask.any() or mask.all():
        raise DataError(f"{typed} leaves {int((~mask).sum())} pictures to train on and {int(mask.sum())} to test with")
    return mask, rule


def _write_points(folder: Path, points: np.ndarray) -> Written:
    points = np.ascontiguousarray(points, np.float32)
    pixel_file(folder, levels=0).write_bytes(points.tobytes())
    return Written(np.arange(len(points)), 2, 1, np.arange(len(points), dtype=np.uint64), (), {}, {})


def _write_pictures(folder: Path, contents: Contents, wanted: Wanted) -> Written:
    writer = PixelWriter(pixel_file(folder, levels=256), wanted.grey)
    kept, bad, animated = array("q"), [], 0
    formats, sizes = Counter[str](), Counter[str]()
    try:
        stream = decoded(contents.pictures, wanted.size, wanted.grey)
        for i, picture in enumerate(track("preparing pictures", stream, contents.count)):
            if isinstance(picture, DataError):
                bad.append(picture)
                _check_bad(bad, contents.count, wanted.bad_limit)
                continue
            writer.add(picture)
            kept.append(i)
            animated += picture.animated
            formats[picture.stored] += 1
            sizes["x".join(map(str, picture.size or picture.pixels.shape[1::-1]))] += 1
    finally:
        writer.close()
    notes = [f"{len(bad)} unreadable picture(s) left out, the first: {bad[0]}"] if bad else []
    if animated:
        notes.append(f"animated or many-page: first frame taken of {animated} picture(s)")
    digests = np.frombuffer(writer.digests, np.uint64)
    notes += _flatness(writer, digests)
    made = (np.frombuffer(kept, np.int64), writer.channels, writer.size, digests, tuple(notes))
    return Written(*made, dict(formats), dict(sizes.most_common(SIZES)))


def _check_bad(bad: list[DataError], count: int, limit: float | None) -> None:
    if limit is None:
        raise DataError(
            f"{bad[0]} (to leave unreadable pictures out: --on-bad skip, in Python on_bad='skip')"
        ) from bad[0]
    if len(bad) > limit * count:
        listed = "; ".join(str(error) for error in bad[:3])
        raise DataError(f"{len(bad)} of {count} pictures cannot be read, more than the limit of {limit:.0%}: {listed}")


def _flatness(writer: PixelWriter, digests: np.ndarray) -> Iterator[str]:
    if len(np.unique(digests)) == 1:
        yield f"all {len(digests)} pictures are the same: there is nothing to learn from them"
    for channel in range(writer.channels):
        low, high = int(writer.lowest[channel]), int(writer.highest[channel])
        if low == high:
            yield f"channel {channel} has the value {low} in every pixel of every picture (zero variance)"


def _overlap(digests: np.ndarray, mask: np.ndarray) -> tuple[str, ...]:
    shared = int(np.isin(digests[mask], digests[~mask]).sum())
    return (f"{shared} of {int(mask.sum())} held-out pictures also occur in training",) if shared else ()


def _write_captions(folder: Path, contents: Contents, kept: np.ndarray) -> None:
    captions = contents.captions or ()
    names = contents.file_names or [""] * contents.count
    with (folder / "captions.jsonl").open("w", encoding="utf-8") as file:
        for row, i in enumerate(kept.tolist()):
            file.write(json.dumps({"index": row, "file_name": names[i], "text": captions[i]}) + "\n")


def _content_hash(folder: Path, shape: Iterable[object]) -> str:
    digest = hashlib.sha256(json.dumps(list(shape)).encode())
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _folder_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:60] or "data"
