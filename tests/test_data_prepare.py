"""Preparing: caching, atomic writing, the split, the hash, warnings, and memory that does not grow with the data."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch

from generama.data import open_data, prepare
from generama.data.contents import Contents, Picture, Source
from generama.data.named import NAMED
from generama.data.pictures import Decoded
from generama.data.prepare import Wanted, _write_pictures
from generama.data.split import choose_held_out
from generama.data.writing import PixelWriter, half_written
from generama.errors import DataError, ResourceError, UsageError


def images(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.fixture
def source(tmp_path):
    np.savez(tmp_path / "source.npz", images=images(50, 6, 6), labels=np.arange(50) % 5)
    return tmp_path / "source.npz"


def test_a_second_call_reads_the_cache_and_a_changed_source_does_not(source, tmp_path):
    cache = tmp_path / "cache"
    first = open_data(source, cache=cache)
    stamp = (first.folder / "meta.json").stat().st_mtime_ns
    assert open_data(source, cache=cache).folder == first.folder
    assert (first.folder / "meta.json").stat().st_mtime_ns == stamp
    assert open_data(source, size=3, cache=cache).spec.size == 3
    assert open_data(source, grey=False, cache=cache).spec.channels == 3
    np.savez(source, images=images(75, 6, 6), labels=np.arange(75) % 5)
    assert len(open_data(source, cache=cache).train) == 60
    assert len(list(cache.iterdir())) == 4


def test_the_hash_is_that_of_the_content_not_of_the_place(source, tmp_path):
    here = prepare(source, out=tmp_path / "one")
    np.savez_compressed(tmp_path / "other.npz", images=images(50, 6, 6), labels=np.arange(50) % 5)
    there = prepare(tmp_path / "other.npz", out=tmp_path / "two")
    assert here.meta.hash == there.meta.hash and len(here.meta.hash) == 64
    np.savez(tmp_path / "third.npz", images=images(50, 6, 6), labels=(np.arange(50) + 1) % 5)
    assert prepare(tmp_path / "third.npz", out=tmp_path / "three").meta.hash != here.meta.hash


def test_a_prepared_folder_opens_by_itself_and_explains_itself(source, tmp_path):
    made = prepare(source, out=tmp_path / "out")
    data = open_data(tmp_path / "out")
    assert data.meta == made.meta and torch.equal(data.train.pixels(slice(None)), made.train.pixels(slice(None)))
    assert json.loads((tmp_path / "out" / "meta.json").read_text())["classes"] == 5
    assert data.describe()["hash"] == data.meta.hash and json.dumps(data.describe())
    assert open_data(tmp_path / "out", size=6, grey=True).meta == made.meta
    with pytest.raises(UsageError, match="prepared with 1 channel"):
        open_data(tmp_path / "out", size=8)


def test_out_is_never_overwritten(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds something else"):
        prepare(source, out=tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "precious"


def test_damage_to_a_prepared_folder_is_noticed(source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out=out)
    pixels = (out / "images.u8").read_bytes()
    (out / "images.u8").write_bytes(pixels[:-1])
    with pytest.raises(DataError, match=r"images\.u8 has 1799 bytes"):
        open_data(out)
    (out / "images.u8").write_bytes(pixels)
    (out / "train.npy").unlink()
    with pytest.raises(DataError, match="is damaged"):
        open_data(out)


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError, MemoryError])
def test_nothing_half_written_is_left(tmp_path, error):
    with pytest.raises(error), half_written(tmp_path / "place" / "data") as folder:
        (folder / "images.u8").write_bytes(b"123")
        raise error
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError])
def test_an_interrupted_preparation_leaves_an_empty_cache(tmp_path, monkeypatch, error):
    def pictures():
        for pixels in images(500, 6, 6):
            yield Picture("x", pixels)
        raise error

    source = Source("stopped", "1", lambda: Contents(1000, pictures()))
    monkeypatch.setitem(NAMED, "stopped", lambda: source)
    with pytest.raises(error):
        open_data("stopped", cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_full_or_forbidden_disk_is_a_resource_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="cannot be written"), half_written(tmp_path / "file" / "data"):
        pass


def test_the_first_of_two_processes_wins(tmp_path):
    with half_written(tmp_path / "data") as late:
        (late / "meta.json").write_text("late")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "meta.json").write_text("early")
    assert (tmp_path / "data" / "meta.json").read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_held_out_is_a_fifth_of_every_class_and_repeatable():
    labels = np.repeat([0, 1, 2, 3], [500, 50, 7, 1])
    mask = choose_held_out(len(labels), labels)
    assert [int(mask[labels == c].sum()) for c in range(4)] == [100, 10, 1, 0]
    assert np.array_equal(mask, choose_held_out(len(labels), labels))
    assert not np.array_equal(mask, choose_held_out(len(labels), labels, seed=1))
    assert choose_held_out(1_000_003, None).sum() == 10_000
    assert choose_held_out(11, np.arange(11)).sum() == 2  # no class is large enough: all are one


def test_da15_pictures_in_both_splits_are_counted(tmp_path, capsys):
    train, test = images(40, 6, 6, 3), images(20, 6, 6, 3, seed=1)
    test[3:10] = train[:7]
    np.savez(tmp_path / "a.npz", train_x=train, test_x=test)
    data = open_data(tmp_path / "a.npz", cache=tmp_path)
    assert data.meta.notes == ("7 of 20 held-out pictures also occur in training",)
    assert "7 of 20 held-out" in capsys.readouterr().err


def test_da12_constant_data_is_noted(tmp_path):
    def notes(name, pixels):
        np.savez(tmp_path / f"{name}.npz", images=pixels)
        return open_data(tmp_path / f"{name}.npz", cache=tmp_path).meta.notes

    assert "all 20 pictures are the same" in notes("same", np.repeat(images(1, 6, 6), 20, axis=0))[0]
    assert "channel 0 has the value 0" in notes("black", np.zeros((20, 6, 6), np.uint8))[1]
    flat = images(20, 6, 6, 3)
    flat[..., 1] = 9
    assert notes("flat", flat) == ("channel 1 has the value 9 in every pixel of every picture (zero variance)",)


def test_late_colour_widens_what_was_written_as_grey(tmp_path):
    grey, colour = images(300, 4, 4), images(5, 4, 4, 3)
    writer = PixelWriter(tmp_path / "images.u8", grey=None)
    for i, pixels in enumerate([*grey, *colour]):
        writer.add(Decoded(str(i), pixels))
    writer.close()
    out = np.fromfile(tmp_path / "images.u8", np.uint8).reshape(305, 3, 4, 4)
    assert writer.channels == 3 and [path.name for path in tmp_path.iterdir()] == ["images.u8"]
    assert (out[:300] == grey[:, None]).all() and (out[300:] == colour.transpose(0, 3, 1, 2)).all()


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    """8,000 pictures of 3,072 bytes are 25 MB; beyond some 16 bytes of bookkeeping each, nothing may stay in memory."""

    def peak(count):
        pictures = (Picture("x", np.full((32, 32, 3), (i % 256, i // 256, 7), np.uint8)) for i in range(count))
        (tmp_path / str(count)).mkdir()
        tracemalloc.start()
        written = _write_pictures(tmp_path / str(count), Contents(count, pictures), Wanted(None, None, None))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(written.kept) == count and (tmp_path / str(count) / "images.u8").stat().st_size == count * 3072
        return top

    assert peak(8_000) - peak(1_000) < 1_000_000


def test_reading_batches_keeps_to_the_memory_map(tmp_path):
    """A process that draws batches from 51 MB of pictures holds far less than that in its own (anonymous) memory."""
    code = f"""
import numpy as np, torch
torch.set_num_threads(1)
from generama.data.shards import Split
path = {str(tmp_path / "images.u8")!r}
np.memmap(path, np.uint8, "w+", shape=(50_000, 1, 32, 32)).flush()
split = Split(np.asarray(np.memmap(path, np.uint8, "r", shape=(50_000, 1, 32, 32))), np.arange(50_000), None)
def own():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
split.batch(torch.arange(64))
before = own()
for start in range(0, 50_000, 64):
    split.batch(torch.arange(start, min(start + 64, 50_000)))
print(own() - before)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) < 8_000  # kB


@pytest.mark.parametrize("size", [0, -3, 5000])
def test_sizes_out_of_reason_are_refused(size):
    with pytest.raises(UsageError, match="from 1 to 4096"):
        open_data("digits", size=size)
