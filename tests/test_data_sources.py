"""Every source by name and by file: what it holds, and what it says when it is broken."""

from __future__ import annotations

import gzip
import pickle
import struct
import sys

import numpy as np
import pytest
import torch

from generama.data import open_data
from generama.data.labels import as_classes
from generama.data.named import EMBEDDED, FASHION, NAMED
from generama.data.toys import SPREAD, TOYS, grid_centres, ring_centres
from generama.errors import DataError, UnsafeFile, UsageError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GENERAMA_CACHE", str(tmp_path_factory.mktemp("cache")))


def images(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def all_pixels(data):
    """Every picture in the order of the source."""
    return torch.from_numpy(data.train.images.copy())


def test_mnist5k_is_embedded_small_and_balanced():
    assert EMBEDDED.stat().st_size < 1_000_000
    assert "Burges" in (EMBEDDED.parent / "LICENSE.mnist5k").read_text()
    data = open_data("mnist5k")
    assert data.spec.shape == (1, 28, 28) and data.spec.classes == 10
    assert torch.equal(data.train.labels(slice(None)).bincount(), torch.full((10,), 400))
    assert torch.equal(data.held_out.labels(slice(None)).bincount(), torch.full((10,), 100))
    zeros, ones = (data.train.pixels(data.train.labels(slice(None)).eq(c).nonzero()[:, 0]) for c in (0, 1))
    middle = slice(12, 16)
    assert zeros[:, 0, middle, middle].float().mean() < 30 < 120 < ones[:, 0, middle, middle].float().mean()


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    data = open_data("digits")
    assert data.spec.shape == (1, 8, 8) and (len(data.train), len(data.held_out)) == (1438, 359)
    back = (all_pixels(data)[:, 0].double() * 16 / 255).round()
    assert np.array_equal(back.numpy(), load_digits().images)


def test_a_batch_is_float_in_minus_one_to_one_with_labels():
    batch = open_data("digits").held_out.batch(torch.tensor([3, 1, 4]))
    assert batch.images.shape == (3, 1, 8, 8) and batch.images.dtype == torch.float32
    assert batch.images.min() == -1 and batch.images.max() == 1
    assert batch.cond.label.dtype == torch.int64 and batch.cond.label.shape == (3,)


@pytest.mark.parametrize("name", sorted(TOYS))
def test_toys_are_points_that_fill_the_square(name):
    data = open_data(name)
    assert (data.spec.channels, data.spec.size, data.spec.levels, data.spec.classes) == (2, 1, 0, 0)
    points = data.train.pixels(slice(None))
    assert points.shape == (16_000, 2, 1, 1) and points.dtype == torch.float32
    assert 0.75 < points.abs().max() < 1.1 and points.mean().abs() < 0.1
    assert data.train.batch(slice(0, 5)).cond.label is None
    with pytest.raises(UsageError, match="2-D points"):
        open_data(name, size=32)


@pytest.mark.parametrize(("name", "centres"), [("ring", ring_centres()), ("grid", grid_centres())])
def test_modes_are_equally_likely_and_as_wide_as_stated(name, centres):
    points = TOYS[name](20_011, torch.Generator().manual_seed(1))
    distance, mode = torch.cdist(points, centres).min(dim=1)
    share = mode.bincount(minlength=len(centres)) / len(points) * len(centres)
    assert (share - 1).abs().max() < 0.15
    assert abs(distance.square().mean().item() / (2 * SPREAD**2) - 1) < 0.05  # E|noise|^2 = 2 sigma^2


def test_checkerboard_never_hits_a_light_square():
    points = TOYS["checkerboard"](4001, torch.Generator().manual_seed(1))
    square = ((points + 1) * 2).floor().long()
    assert (square.sum(dim=1) % 2 == 0).all() and len(square.unique(dim=0)) == 8


def test_unknown_name_lists_the_known_and_the_paths():
    with pytest.raises(
        DataError, match=r"unknown data 'mnist5'; known: .*did you mean 'mnist5k'.*path to a folder"
    ) as e:
        open_data("mnist5")
    assert e.value.exit_code == 3 and all(name in str(e.value) for name in NAMED)


def test_npz_keeps_pixels_labels_and_its_own_test_split(tmp_path):
    train, test = images(31, 7, 7, 3), images(11, 7, 7, 3, seed=1)
    file = tmp_path / "small.npz"
    np.savez_compressed(
        file, train_x=train, train_y=np.arange(31) % 3, test_x=test, test_y=np.arange(11)[:, None] % 3,
        class_names=np.array(["cat", "dog", "emu"]),
    )  # fmt: skip
    data = open_data(file)
    assert np.array_equal(data.train.pixels(slice(None)).numpy(), train.transpose(0, 3, 1, 2))
    assert np.array_equal(data.held_out.pixels(slice(None)).numpy(), test.transpose(0, 3, 1, 2))
    assert data.held_out.labels(slice(None)).tolist() == [i % 3 for i in range(11)]
    assert data.meta.class_names == ("cat", "dog", "emu") and data.meta.split == "the source's own"


@pytest.mark.parametrize("keys", [("images", "labels"), ("x", "y"), ("arr_0", "arr_1")])
def test_npz_under_its_usual_names(tmp_path, keys):
    pixels = images(29, 5, 5)
    np.savez(tmp_path / "a.npz", **{keys[0]: pixels, keys[1]: np.array(["b", "a"])[np.arange(29) % 2]})
    data = open_data(tmp_path / "a.npz")
    assert np.array_equal(all_pixels(data)[:, 0].numpy(), pixels)
    assert data.meta.class_names == ("a", "b") and data.meta.channels == 1
    assert data.train.label.tolist() == [1 - i % 2 for i in range(29)]


def test_da08_labels_that_are_not_0_to_k_are_renumbered_and_noted(tmp_path):
    np.savez(tmp_path / "a.npz", images=images(30, 5, 5), labels=np.tile([7, 3, 40], 10))
    data = open_data(tmp_path / "a.npz")
    assert data.meta.class_names == ("3", "7", "40") and data.train.label[:3].tolist() == [1, 0, 2]
    assert "3, 7, 40" in data.meta.notes[0]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": np.full((20, 5, 5), 0.25)}, r"float64 with values from 0\.25 to 0\.25"),
        ({"images": images(20, 3, 8, 8)}, "channels first"),
        ({"images": images(20, 5)}, r"\(20, 5\); pictures are \(N, H, W\)"),
        ({"photos": images(20, 5, 5)}, "holds photos; name the array"),
        ({"images": images(20, 5, 5), "labels": np.zeros(19, int)}, r"shape \(19,\) for 20 pictures"),
        ({"images": images(20, 5, 5), "labels": np.full(20, 0.5)}, "float64; classes are whole numbers"),
        ({"images": images(20, 5, 6)}, "is 6x5, not square; pass --size"),
        ({"images": images(9, 5, 5)}, "holds 9 readable picture"),
    ],
)
def test_npz_that_cannot_be_used_says_why(tmp_path, arrays, says):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=says):
        open_data(tmp_path / "a.npz")


def test_npz_with_pickles_is_refused_without_unpickling(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (sys.exit, ("unpickled",))

    np.savez(tmp_path / "a.npz", images=images(20, 5, 5), labels=np.array([Bomb()] * 20, dtype=object))
    with pytest.raises(UnsafeFile, match="'labels' is pickled") as e:
        open_data(tmp_path / "a.npz")
    assert e.value.exit_code == 7


def test_da01_npz_cut_short(tmp_path):
    np.savez(tmp_path / "a.npz", images=images(50, 9, 9))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.npz").write_bytes(whole[:2000] + bytes(500) + whole[2500:])  # the checksum no longer fits
    with pytest.raises(DataError, match=r"b\.npz is not a readable \.npz"):
        open_data(tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"c\.npz is damaged"):
        open_data(tmp_path / "c.npz")


def write_idx(path, values):
    content = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_files_give_pictures_labels_and_the_test_split(tmp_path, end):
    train, test = images(31, 6, 6), images(13, 6, 6, seed=1)
    for part, pixels in (("train", train), ("t10k", test)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{end}", pixels)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{end}", (np.arange(len(pixels)) % 4).astype(np.uint8))
    data = open_data(tmp_path)
    assert np.array_equal(data.train.pixels(slice(None))[:, 0].numpy(), train)
    assert np.array_equal(data.held_out.pixels(slice(None))[:, 0].numpy(), test)
    assert data.held_out.labels(torch.tensor([5, 2])).tolist() == [1, 2]


def test_da01_idx_cut_short_or_something_else(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte"
    write_idx(path, images(31, 6, 6))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="train-images-idx3-ubyte is cut short"):
        open_data(tmp_path)
    path.write_bytes(b"not an IDX file at all")
    with pytest.raises(DataError, match="not an IDX file"):
        open_data(tmp_path)


def test_fashion_mnist_is_found_or_says_how_to_install_it(monkeypatch, tmp_path):
    if FASHION.is_dir():
        data = open_data("fashion-mnist")
        assert (len(data.train), len(data.held_out)) == (60_000, 10_000) and data.meta.class_names[9] == "ankle boot"
    monkeypatch.setattr("generama.data.named.FASHION", tmp_path / "nowhere")
    with pytest.raises(DataError, match="apt install dataset-fashion-mnist"):
        open_data("fashion-mnist")


def test_hub_without_the_extra_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # what importing a package that is not there does
    with pytest.raises(UsageError, match=r"pip install 'generama\[hub\]'"):
        open_data("hub:someone/flowers")


def test_hub_reads_a_saved_data_set(tmp_path):
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    pixels = images(24, 9, 9, 3)
    parts = {}
    for part, rows in (("train", range(17)), ("test", range(17, 24))):
        columns = {
            "picture": [Image.fromarray(pixels[i]) for i in rows],
            "kind": [i % 2 for i in rows],
            "text": [f"picture number {i}" for i in rows],
        }
        features = datasets.Features(
            picture=datasets.Image(), kind=datasets.ClassLabel(names=["even", "odd"]), text=datasets.Value("string")
        )
        try:
            parts[part] = datasets.Dataset.from_dict(columns, features=features)
        except pickle.PicklingError:
            pytest.skip(f"datasets {datasets.__version__} cannot make a table here, a fault of its own")
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    data = open_data(f"hub:{tmp_path / 'saved'}")
    assert np.array_equal(all_pixels(data).numpy(), pixels.transpose(0, 3, 1, 2))
    assert len(data.held_out) == 7 and data.meta.class_names == ("even", "odd") and data.meta.captions
    assert '"picture number 23"' in (data.folder / "captions.jsonl").read_text().splitlines()[23]


def test_label_numbers_outside_the_class_names_are_refused():
    with pytest.raises(DataError, match=r"label -1, but its class names are numbered 0 to 1"):
        as_classes(np.array([0, 1, -1]), 3, "here", ["a", "b"])
