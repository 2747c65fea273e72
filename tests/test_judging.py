"""Pictures of any program are measured fairly, or what is unfair is refused or stands under the numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import generama
from generama.__main__ import main
from generama.data.named import digits, mnist5k
from generama.errors import DataError, UsageError
from generama.judging import Judgement
from generama.subjects import find_subjects

TILES = np.stack([picture.content for picture in mnist5k().pictures])  # (5000, 28, 28), sorted by class
SMALL = np.stack([picture.content for picture in digits().pictures])  # (1797, 8, 8)
SMALL_LABELS = digits().labels
DIGITS = TILES[np.random.default_rng(0).permutation(5000)]


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENERAMA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(folder: str, tiles: np.ndarray, ending: str = "png", size: int | None = None, start: int = 0) -> str:
    """A folder of pictures from (N, H, W) or (N, H, W, 3) bytes."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for i, tile in enumerate(tiles, start):
        image = Image.fromarray(tile)
        (image.resize((size, size)) if size else image).save(Path(folder) / f"{i:04}.{ending}")
    return folder


def judged(subjects: object, against: str = "real", **settings: object) -> Judgement:
    return generama.evaluate(subjects, against, out=Path("out"), **settings)


def keys(found: Judgement, row: int = 0) -> dict[str, str]:
    """The findings of a row: key -> severity."""
    return {finding.key: finding.severity for finding in found.rows[row].findings}


def titles(found: Judgement, row: int = 0) -> str:
    return "; ".join(finding.title for finding in found.rows[row].findings)


def test_two_folders_without_labels_give_a_whole_report_without_training(capsys: pytest.CaptureFixture[str]) -> None:
    write("real", DIGITS[:331])
    write("generated", DIGITS[1000:1071])
    assert main(["evaluate", "generated", "--against", "real"]) == 0
    shown = capsys.readouterr().out
    report = Path(shown.strip().splitlines()[-1])
    assert report == Path("runs/judged-generated-against-real/report.html")
    page = report.read_text()
    assert "generated" in page and "data:image/" in page and "is missing" not in page
    folder = report.parent / "generated"
    assert not list(folder.rglob("*.safetensors")) and not (folder / "log.jsonl").exists()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["n"] == 66 and metrics["extractor"] == "pixels"  # a fifth of 331 is held out
    assert np.load(folder / "samples/main/samples.npz")["images"].shape == (66, 28, 28, 1)
    assert json.loads((folder / "status.json").read_text()) == {"state": "done"}
    assert json.loads((folder / "recipe.json").read_text())["kind"] == "judged"
    assert "n = 66 pictures of each: real holds out no more" in shown and "efficientnet" in shown
    assert main(["evaluate", "generated", "--against", "real"]) == 0  # the same command writes the same folder again


def test_one_table_has_one_n_and_puts_the_worse_pictures_behind(capsys: pytest.CaptureFixture[str]) -> None:
    write("real", DIGITS[:701])
    write("good", DIGITS[1000:1131])
    noise = np.random.default_rng(1).integers(0, 256, (97, 28, 28), np.uint8)
    write("noise", noise)
    np.savez("blurred.npz", images=DIGITS[1200:1400] // 2)
    shutil.make_archive("packed", "zip", "good")
    names = ["good", "noise", "blurred.npz", "packed.zip"]
    assert main(["evaluate", *names, "--against", "real", "--json", "--out", "out"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)  # one object, and nothing else on stdout
    assert [row["name"] for row in found["subjects"]] == ["good", "noise", "blurred", "packed"]
    assert {row["n"] for row in found["subjects"]} == {found["n"]} == {97}
    assert "n = 97 pictures of each: noise has no more" in found["notes"]
    frechet = {row["name"]: row["measures"]["frechet"]["value"] for row in found["subjects"]}
    assert (
        frechet["good"] == pytest.approx(frechet["packed"]) and frechet["noise"] > frechet["blurred"] > frechet["good"]
    )
    summary = json.loads(Path("out/compare.json").read_text())
    assert summary["runs"] == ["good", "noise", "blurred", "packed"] and summary["n"] == 97
    assert Path(found["report"]).exists()


def test_real_pictures_among_the_generated_are_counted() -> None:  # DA-15, ME-10
    write("real", DIGITS[:401])
    write("mixed", DIGITS[370:530])
    write("again", np.concatenate([DIGITS[600:650]] * 2))
    found = judged(["mixed", "real", "again"])
    assert keys(found)["copies"] == keys(found, 1)["copies"] == "problem" and "copies" not in keys(found, 2)
    assert "31 of 160 pictures are exact copies of real ones" in titles(found)
    assert "401 of 401 pictures are exact copies" in titles(found, 1)
    assert "50 of 100 pictures repeat another one exactly" in titles(found, 2)
    same = found.rows[1].evaluation.measures
    assert same["memorised"].value > 0.6 > 0.05 > same["memorised"].floor
    assert same["frechet"].value < 1.2 * same["frechet"].floor  # one distribution on both sides


def test_what_was_not_the_same_for_both_sides_is_named() -> None:  # ME-07
    write("real", DIGITS[:131])
    write("alike", DIGITS[1000:1031])
    write("large", DIGITS[1000:1031], size=53)
    write("compressed", DIGITS[1000:1031], "jpg")
    write("two", DIGITS[1000:1031])
    write("two", DIGITS[1100:1107], size=37, start=500)
    found = judged(["alike", "large", "compressed", "two"])
    assert not {key for key in keys(found) if "protocol" in key or "sizes" in key}
    assert keys(found, 1)["protocol-resize"] == "warning"
    assert "resized from 53x53 to 28x28; the real ones were not" in titles(found, 1)
    assert "Stored as JPEG, the real pictures as PNG" in titles(found, 2)
    assert "2 sizes: 28x28 (31), 37x37 (7)" in titles(found, 3)
    colour = np.stack([DIGITS[1000:1031], DIGITS[1000:1031] // 2, DIGITS[1000:1031]], -1)
    write("colour", colour)
    found = judged(["colour", "alike"])
    assert keys(found)["protocol-colour"] == "warning" and "protocol-colour" not in keys(found, 1)
    assert json.loads(Path("out/alike/recipe.json").read_text())["spec"]["channels"] == 3
    found = judged(["colour", "large"], grey=True, size=23)  # both sides are now resized, from different sizes
    assert "protocol-colour" not in keys(found) and keys(found, 1)["protocol-resize"] == "note"


def test_a_real_side_of_two_sizes_needs_one_to_be_named() -> None:  # DA-06
    write("real", DIGITS[:101])
    write("real", DIGITS[101:131], size=37, start=500)
    write("mine", DIGITS[1000:1031])
    with pytest.raises(DataError, match=r"is 37x37, but .* pass --size"):
        judged("mine")
    found = judged("mine", size=23)
    assert "The real pictures were resized from 28x28 (101), 37x37 (30) to 23x23" in titles(found)


def test_a_broken_picture_is_named_or_left_out_and_counted(capsys: pytest.CaptureFixture[str]) -> None:  # DA-01
    write("real", DIGITS[:131])
    write("mine", DIGITS[1000:1103])
    whole = Path("mine/0007.png").read_bytes()
    Path("mine/0007.png").write_bytes(whole[: len(whole) // 2])
    words = ["evaluate", "mine", "--against", "real", "--out", "out"]
    assert main(words) == 3
    said = capsys.readouterr().err
    assert "mine/0007.png" in said and "--on-bad skip" in said and not Path("out").exists()
    assert main([*words, "--on-bad", "skip"]) == 0
    shown = capsys.readouterr().out
    assert "1 unreadable picture(s) left out" in shown and "mine/0007.png" in shown
    Path("mine/0008.png").write_text("no picture")
    assert main([*words, "--on-bad", "skip"]) == 3  # two of 103 are more than the limit of 1 %


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (DIGITS[:31] / np.float32(255), r"float32 with values from 0 to 1"),
        (DIGITS[:31] / 127.5 - 1, r"float64 with values from -1 to 1"),
        (np.repeat(DIGITS[:31, None], 3, 1), r"channels first"),
        (DIGITS[:1], r"1 readable picture\(s\); at least 2 are needed to be measured"),
    ],
    ids=["0..1", "-1..1", "channels-first", "one"],
)
def test_arrays_that_are_no_pictures_are_refused_with_what_was_seen(images: np.ndarray, sentence: str) -> None:  # ME-08
    write("real", DIGITS[:31])
    np.savez("mine.npz", images=images)
    with pytest.raises(DataError, match=sentence):
        judged("mine.npz")
    with pytest.raises(DataError, match=sentence.replace("2 are needed to be measured", "10 are needed")):
        judged("real", "mine.npz")


def test_numbers_that_mean_little_are_marked() -> None:  # ME-04, DA-12
    write("real", DIGITS[:31])
    write("few", DIGITS[1000:1003])
    write("black", np.zeros((13, 28, 28), np.uint8))
    found = judged(["few", "black"])
    assert found.n == 3 and keys(found)["few"] == "warning" and "n = 3 <" in titles(found)
    assert found.rows[0].evaluation.measures["precision"].value is None
    assert "all 13 pictures are the same" in titles(found, 1) and "zero variance" in titles(found, 1)
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["n"] == 3


def test_classes_are_wishes_only_where_they_are_the_real_ones() -> None:
    for digit, swapped, other in (("3", "3", "a"), ("5", "8", "b"), ("8", "5", "c")):
        tiles = SMALL[np.equal(SMALL_LABELS, int(digit))][:17]
        for folder in (f"same/{digit}", f"swapped/{swapped}", f"others/{other}"):
            write(folder, tiles)
    found = judged(["same", "swapped", "others"], "digits")
    accuracy = [row.evaluation.measures["conditional_accuracy"].value for row in found.rows]
    assert accuracy[0] > 0.9 > 0.5 > accuracy[1] and accuracy[2] is None
    assert keys(found, 2)["labels"] == "note" and "labels" not in keys(found)
    assert set(np.load("out/swapped/samples/main/samples.npz")["labels"]) == {3, 5, 8}


def test_a_run_is_judged_beside_pictures_and_alone_against_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    train = ["--data", "digits", "--train.images", "320", "--train.batch", "32", "--train.previews", "0"]
    assert main(["train", "vae-mlp", "--run", "first", *train]) == 0
    assert main(["train", "vae-mlp", "--run", "second", *train, "--train.seed", "7"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "first", "second", "--n", "71", "--extractor", "pixels"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split()[:4] == ["measure", "better", "first", "second"]
    assert any("bits_per_dim" in line for line in shown)
    assert json.loads(Path("runs/second/metrics.json").read_text())["n"] == 71
    own = generama.evaluate("first", "digits", n=71, extractor="pixels")  # its own data by name: measured in place
    assert own.report is None and own.rows[0].folder == Path("runs/first")

    write("real", SMALL[:307])
    before = Path("runs/first/samples/main/manifest.json").read_text()
    found = judged(["first", "runs/first/samples/main", "real"], n=61, extractor="pixels")
    assert [row.name for row in found.rows] == ["first", "first-2", "real"]
    values = [row.evaluation.measures["frechet"].value for row in found.rows]
    assert values[0] == values[1] > values[2]
    assert Path("runs/first/samples/main/manifest.json").read_text() == before
    again = judged(Path("out/first"), extractor="pixels")  # what was judged can be judged
    assert again.rows[0].name == "first" and again.n == 61


def test_what_cannot_be_judged_is_refused_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:  # UX-01, DA-07
    write("real", DIGITS[:31])
    write("mine", DIGITS[40:60])
    Path("empty").mkdir()
    Path("runs/frist").mkdir(parents=True)
    Path("runs/frist/recipe.json").write_text('{"data": {"source": "digits"}}')
    for words, code, sentence in (
        (["mine"], 2, "say what to measure it against: --against"),
        ([], 2, "name what is to be judged"),
        (["first", "--against", "real"], 2, "did you mean 'frist'?"),
        (["empty", "--against", "real"], 3, "holds no pictures: looked for .png"),
        (["mine", "--against", "rael"], 3, "unknown data 'rael'"),
        (["mine", "--against", "runs/frist"], 2, "--against digits"),
        (["mine", "--against", "moons"], 2, "2-D points"),
        (["mine", "--against", "real", "--n", "19"], 2, "real holds out 6"),
        (["mine", "--against", "real", "--n", "1"], 2, "at least 2"),
        (["mine", "--against", "real", "--extractor", "pixel"], 2, "did you mean 'pixels'?"),
        (["mine", "--against", "real", "--average", "0.1"], 2, "--average is for runs"),
        (["mine", "--against", "real", "--out", "mine/judged"], 2, "lies in the pictures"),
        (["mine", "--against", "real", "--out", "runs"], 2, "holds something else"),
        (["mine", "--against", "real", "--size", "0"], 2, "from 1 to 4096"),
    ):
        assert main(["evaluate", *words]) == code, words
        assert sentence in capsys.readouterr().err, words
    with pytest.raises(UsageError, match="is a comparison"):
        Path("runs/compare.json").write_text("{}")
        find_subjects(["runs"])


def test_names_stay_apart() -> None:
    for folder in ("a/samples", "b/samples"):
        write(folder, DIGITS[:2])
    assert [s.name for s in find_subjects(["a/samples", "b/samples", "a/samples"])] == ["a-samples", "b-samples"]
