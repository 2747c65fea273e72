"""Folders and zips of pictures: classes, captions, splits, strange names, and what they say when they are unfit."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generama.data import open_data, prepare
from generama.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GENERAMA_CACHE", str(cache))
    yield cache
    for left in cache.rglob("*.partial"):
        pytest.fail(f"{left} was left half-written")


def colour(i):
    return (i % 256, (7 * i) % 256, 255 - i % 256)


def picture(path: Path, i=0, size=6):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), colour(i)).save(path)


def fill(root: Path, folders=("",), each=11, size=6):
    """Pictures folder by folder, each of its own colour; returns their names in order."""
    names = [f"{folder}/{i:02}.png".lstrip("/") for folder in sorted(folders) for i in range(each)]
    for i, name in enumerate(names):
        picture(root / name, i, size)
    return names


def zipped(root: Path) -> Path:
    return Path(shutil.make_archive(str(root), "zip", root))


def seen(data):
    return [tuple(p) for p in data.train.images[:, :, 0, 0].tolist()]


@pytest.mark.parametrize("pack", [lambda root: root, zipped], ids=["folder", "zip"])
class TestFoldersAndZips:
    def test_class_folders_give_labels(self, tmp_path, pack):
        names = fill(tmp_path / "pets", ("cat", "dog", "emu"))
        (tmp_path / "pets" / "README.txt").write_text("not a picture")
        (tmp_path / "pets" / ".hidden.png").write_text("not a picture")
        data = open_data(pack(tmp_path / "pets"))
        assert data.meta.name == "pets" and data.meta.class_names == ("cat", "dog", "emu")
        assert seen(data) == [colour(i) for i in range(len(names))]
        assert data.train.label.tolist() == [i // 11 for i in range(33)]
        assert data.held_out.labels(slice(None)).bincount().tolist() == [2, 2, 2]

    def test_no_class_folders_no_labels(self, tmp_path, pack):
        fill(tmp_path / "flat")
        fill(tmp_path / "nested", ("pictures/all",))
        for name in ("flat", "nested"):
            data = open_data(pack(tmp_path / name))
            assert data.spec.classes == 0 and data.train.label is None and len(data.train) == 9

    def test_train_and_test_folders_are_the_split(self, tmp_path, pack):
        fill(tmp_path / "d", ("train/a", "train/b", "test/a", "test/b"), each=5)
        data = open_data(pack(tmp_path / "d"))
        assert (len(data.train), len(data.held_out)) == (10, 10) and data.meta.class_names == ("a", "b")
        assert data.held_out.labels(slice(None)).tolist() == [0] * 5 + [1] * 5
        assert data.meta.split == "the source's own"

    def test_captions_beside_labels_with_bom_and_crlf(self, tmp_path, pack):
        names = fill(tmp_path / "d", ("a", "b"))
        lines = [json.dumps({"file_name": name, "text": f"größe {i}"}) for i, name in enumerate(reversed(names))]
        (tmp_path / "d" / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, "", ""]).encode())
        data = open_data(pack(tmp_path / "d"))
        rows = [json.loads(line) for line in (data.folder / "captions.jsonl").read_text().splitlines()]
        assert data.meta.captions and data.spec.classes == 2
        assert rows[4] == {"index": 4, "file_name": names[4], "text": f"größe {len(names) - 5}"}

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ('{"file_name": "99.png", "text": "x"}', "metadata.jsonl:7: there is no picture 99.png"),
            ('{"file_name": "06.png", "te', "metadata.jsonl:7 is not a line of JSON"),
            ('{"file_name": "06.png", "text": 5}', 'metadata.jsonl:7 needs "file_name" and "text"'),
            ('{"file_name": "05.png", "text": "x"}', "metadata.jsonl:7: 05.png has a caption already"),
            ("", "1 picture(s) have no line in metadata.jsonl, the first: ROOT/06.png"),
        ],
    )
    def test_da08_captions_that_do_not_fit_name_the_line(self, tmp_path, pack, line, says):
        names = fill(tmp_path / "d")
        lines = [json.dumps({"file_name": name, "text": name}) for name in names]
        lines[6] = line
        (tmp_path / "d" / "metadata.jsonl").write_text("\n".join(lines))
        root = pack(tmp_path / "d")
        with pytest.raises(DataError) as error:
            open_data(root)
        assert says.replace("ROOT", str(root)) in str(error.value)

    def test_da13_strange_names(self, tmp_path, pack):
        names = ["ö 鳥.png", "new\nline.png", "<script>.png", "A.png", "a.png", "x" * 240 + ".png", "'q\".PNG"]
        for i, name in enumerate(sorted(names)):
            picture(tmp_path / "d" / name, i)
        fill(tmp_path / "d", ("",), each=5)
        assert len(seen(open_data(pack(tmp_path / "d")))) == 12
        (tmp_path / "d" / "new\nline.png").write_bytes(b"broken")
        with pytest.raises(DataError, match=r"new\\nline\.png' is not a picture"):
            open_data(pack(tmp_path / "d"))

    def test_da07_nothing_and_too_little(self, tmp_path, pack):
        for count, says in (
            (0, "holds no pictures: looked for .png.* found 1 other file.*notes.txt"),
            (1, "holds 1 readable picture"),
        ):
            root = tmp_path / str(count)
            fill(root, each=count)
            root.mkdir(exist_ok=True)
            (root / "notes.txt").write_text("x")
            with pytest.raises(DataError, match=says) as error:
                open_data(pack(root))
            assert error.value.exit_code == 3

    def test_da06_mixed_sizes_name_file_and_size_until_a_size_is_asked_for(self, tmp_path, pack):
        fill(tmp_path / "d")
        picture(tmp_path / "d" / "zz.png", 5, size=9)
        root = pack(tmp_path / "d")
        with pytest.raises(DataError, match=r"zz\.png is 9x9, but .*00\.png is 6x6; pass --size"):
            open_data(root)
        data = open_data(root, size=4, grey=True)
        assert data.spec.shape == (1, 4, 4) and len(data.train) + len(data.held_out) == 12

    def test_da08_a_picture_beside_class_folders_and_an_empty_class(self, tmp_path, pack):
        fill(tmp_path / "d", ("a", "b"))
        (tmp_path / "d" / "empty").mkdir()
        data = open_data(pack(tmp_path / "d"))
        assert data.meta.class_names == ("a", "b") and data.meta.notes == (
            "class folder(s) without pictures left out: empty",
        )
        picture(tmp_path / "d" / "stray.png")
        with pytest.raises(DataError, match=r"stray\.png lies beside the class folder 'a'"):
            open_data(pack(tmp_path / "d"))


def test_da01_bad_files_stop_or_are_skipped_and_counted(tmp_path):
    fill(tmp_path / "d", ("a", "b"), each=60)
    (tmp_path / "d" / "a" / "05.png").write_bytes((tmp_path / "d" / "a" / "05.png").read_bytes()[:50])
    with pytest.raises(DataError, match=r"a/05\.png cannot be read.*on_bad='skip'"):
        open_data(tmp_path / "d")
    data = prepare(tmp_path / "d", on_bad="skip")
    assert data.meta.skipped == 1 and "a/05.png" in data.meta.notes[0] and "1 unreadable" in data.meta.notes[0]
    assert seen(data) == [colour(i) for i in range(120) if i != 5]
    assert data.train.label.tolist() == [0] * 59 + [1] * 60
    (tmp_path / "d" / "b" / "07.png").write_text("text")
    with pytest.raises(DataError, match=r"2 of 120 pictures cannot be read, more than the limit of 1%: .*a/05.*b/07"):
        prepare(tmp_path / "d", on_bad="skip")
    assert prepare(tmp_path / "d", on_bad="skip", bad_limit=0.02).meta.skipped == 2


def test_da01_folders_pipes_and_dangling_links_with_a_pictures_name(tmp_path):
    for make, says in (
        (lambda path: path.mkdir(), "is a folder, though its name"),
        (os.mkfifo, "is no regular file"),
        (lambda path: path.symlink_to("nowhere.png"), "cannot be read: No such file"),
    ):
        fill(tmp_path / "d")
        make(tmp_path / "d" / "a.png")
        with pytest.raises(DataError, match=rf"a\.png {says}"):
            open_data(tmp_path / "d")
        shutil.rmtree(tmp_path / "d")


def test_links_in_a_circle_end(tmp_path):
    fill(tmp_path / "d", ("a", "b"))
    (tmp_path / "d" / "a" / "again").symlink_to(tmp_path / "d")
    data = open_data(tmp_path / "d")
    assert len(data.train) + len(data.held_out) == 22


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "a/../../out.png", "C:/out.png", "..\\out.png"])
def test_da09_names_that_lead_out_of_a_zip_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(DataError, match="leads out of the archive"):
        open_data(tmp_path / "d.zip")


def test_da09_zip_bombs_truncated_zips_and_double_names(tmp_path, monkeypatch):
    fill(tmp_path / "d")
    path = zipped(tmp_path / "d")
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(DataError, match=r"d\.zip is not a readable zip"):
        open_data(path)
    damaged = bytearray(whole)
    damaged[60] ^= 255  # inside a picture
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"d\.zip/\d\d\.png cannot be read from the archive"):
        open_data(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(70_000_000))
    with pytest.raises(DataError, match="at least 10"):
        open_data(path)
    monkeypatch.setattr("generama.data.archive.SMALL", 1000)
    with pytest.raises(DataError, match="expands to 70,000,000 bytes"):
        open_data(path)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"")
        archive.writestr("a.png", b"")
    with pytest.raises(DataError, match=r"holds a\.png twice"):
        open_data(path)


def test_one_picture_is_not_a_data_set(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match="is one picture; pass the folder"):
        open_data(tmp_path / "a.png")


def test_pixels_of_every_picture_survive(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 7, 7, 3), dtype=np.uint8)
    (tmp_path / "d").mkdir()
    for i, values in enumerate(pixels):
        Image.fromarray(values).save(tmp_path / "d" / f"{i:03}.png")
    assert np.array_equal(open_data(tmp_path / "d").train.images, pixels.transpose(0, 3, 1, 2))
