"""The words, as a user types them: the whole path on real digits, and every failure with its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import generama
from generama.__main__ import main
from generama.run import Run

TINY_RUN = ["--data", "digits", "--train.images", "640", "--train.batch", "32"]


@pytest.fixture(autouse=True, scope="module")
def own_folder(tmp_path_factory):
    """Run in an empty folder, with a cache of this test's own."""
    before, cache = Path.cwd(), os.environ.get("GENERAMA_CACHE")
    os.chdir(tmp_path_factory.mktemp("work"))
    os.environ["GENERAMA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.chdir(before)
    os.environ.pop("GENERAMA_CACHE")
    if cache:
        os.environ["GENERAMA_CACHE"] = cache


def test_help_and_import_do_not_bring_torch() -> None:  # UX-07
    code = "import sys; from generama.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules and 'numpy' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(word in shown for word in ("recipes", "prepare", "train", "resume", "sample", "evaluate", "compare"))


def test_train_sample_evaluate_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "vae", "--run", "first", *TINY_RUN, "--family.latent", "7"]) == 0
    run = Path("runs/first")
    record = json.loads((run / "recipe.json").read_text())
    assert record["recipe"]["family"]["latent"] == 7 and record["name"] == "vae"
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert sorted(p.name for p in (run / "previews").iterdir())[0] == "000000000.png"

    assert main(["sample", "first", "--n", "12", "--singles", "--label", "3", "--temperature", "0.5"]) == 0
    folder = run / "samples" / "drawn"
    arrays = np.load(folder / "samples.npz")
    assert arrays["images"].shape == (12, 8, 8, 1) and set(arrays["labels"]) == {3}
    single = Image.open(folder / "000007.png")
    origin = json.loads(single.text["generama"])  # type: ignore[attr-defined]
    assert origin == {"ai_generated": True, "run": "first", "recipe": "vae", "seed": 7}
    assert json.loads((folder / "manifest.json").read_text())["options"]["temperature"] == 0.5

    assert main(["evaluate", "first", "--n", "100"]) == 0
    shown = capsys.readouterr().out
    assert "frechet" in shown and "bits_per_dim" in shown
    assert main(["resume", "first"]) == 0  # RS-11: done already


def test_the_same_words_in_python() -> None:
    trained = generama.train("rectified-flow", data="digits", run="flowing", images=320, batch=32)
    images = trained.sample(seeds=range(5), label=2, steps=3)
    assert images.shape == (5, 1, 8, 8)
    again = generama.load("runs/flowing").sample(seeds=[4], label=2, steps=3)
    assert np.allclose(images[4], again[0], atol=1e-5)
    folder = generama.sample("flowing", seeds=range(9), name="nine", steps=4, guidance=2.0)
    assert (folder / "trajectory.gif").exists() and (folder / "trajectory.png").exists()
    assert json.loads((folder / "manifest.json").read_text())["evaluations"] == 8


def test_a_comparison_goes_on_past_a_failure_and_reuses_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "vae", "gan-mlp", "--data", "digits", "--budget", "320images", "--samples", "60"]
    assert main(words) == 0
    report = Path(capsys.readouterr().out.strip().splitlines()[-1])
    assert report.name == "report.html" and "gan-mlp" in report.read_text()
    done = {p: p.stat().st_mtime_ns for p in report.parent.glob("*/checkpoints/*/state.json")}
    assert len(done) == 4  # the first and the last step of both
    assert main(words) == 0
    assert done == {p: p.stat().st_mtime_ns for p in report.parent.glob("*/checkpoints/*/state.json")}

    assert main(["compare", "vae-mlp", "pixelcnn", "--data", "moons", "--budget", "320images", "--samples", "60"]) == 0
    summary = json.loads(Path("runs/compare-moons/compare.json").read_text())
    assert list(summary["failed"]) == ["pixelcnn-320images-seed0"]  # it models grey levels, not points
    assert "pixelcnn" in Path("runs/compare-moons/report.html").read_text()
    assert main(["report", "runs/compare-moons"]) == 0


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["train", "vea"], 2, "unknown recipe 'vea'"),
        (["train", "vae", "--data", "mnits5k"], 3, "mnist5k"),
        (["train", "vae", "--device", "cuda:7", *TINY_RUN, "--run", "gpu"], 2, "leave --device out"),
        (["resume", "nowhere"], 4, "is not a run"),
        (["sample", "nowhere"], 4, "is not a run"),
        (["compare", "vae", "--budget", "soon"], 2, "is not a budget"),
        (["compare", "vae", "--data", "no/such/folder"], 3, "no/such/folder"),
        (["report", "no-such-folder"], 2, "no-such-folder"),
    ],
)
def test_failures_end_in_one_sentence_and_their_code(
    words: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:  # UX-01
    assert main(words) == code
    assert sentence in capsys.readouterr().err


def test_unknown_flags_and_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "vae", "--train.epohcs", "3"])
    assert stopped.value.code == 2
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["compare", "--sedes", "3"])


def test_doctor_and_recipes_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0 and main(["recipes"]) == 0
    shown = capsys.readouterr().out
    assert "torch" in shown and "rectified-flow" in shown


@pytest.mark.parametrize("labelled", [True, False], ids=["classes", "no-labels"])
def test_a_folder_of_colour_pictures_that_nobody_prepared_is_compared(labelled: bool, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for i in range(60):
        shade = np.array([[200, 40, 40], [30, 90, 220]])[i % 2]
        pixels = np.clip(shade + random.normal(0, 20, (40, 36, 3)), 0, 255).astype(np.uint8)
        folder = tmp_path / "photos" / (["red", "blue"][i % 2] if labelled else ".")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    recipes = ["vae", "dcgan", "realnvp", "rectified-flow"]
    report = generama.compare(
        recipes, str(tmp_path / "photos"), "160 images", samples=12, out=tmp_path / "out", size=32
    )
    summary = json.loads((report.parent / "compare.json").read_text())
    assert summary["failed"] == {} and len(summary["runs"]) == 4
    for run in summary["runs"]:
        metrics = json.loads((report.parent / run / "metrics.json").read_text())
        assert metrics["extractor"] == ("classifier" if labelled else "pixels")
        assert metrics["measures"]["frechet"]["value"] > 0
        assert "findings" in json.loads((report.parent / run / "diagnosis.json").read_text())
        assert np.load(report.parent / run / "samples/main/samples.npz")["images"].shape == (12, 32, 32, 3)


def test_amounts_are_read_from_the_command_line_as_people_write_them(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "vae-mlp", "--data", "digits", "--train.previews", "0", "--run"]
    assert main([*words, "short", "--train.images", "1.3k"]) == 0
    assert 1_300 <= Run.open(Path("runs/short")).read_status()["images"] < 1_300 + 128
    assert main([*words, "never", "--train.images", "2q"]) == 2
    assert "'2q' is not a number of images; write 500, 20k or 2M" in capsys.readouterr().err
