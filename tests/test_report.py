"""The report: it is made from any folder, says what is wrong at its top, escapes every name and follows the numbers."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generama.errors import UsageError
from generama.report import write_report
from generama.report.collect import collect
from generama.report.page import render
from generama.report.table import best, rows_of, show
from generama.report.words import compare_in_words

CLASSES = 3
FRECHET = {"vae": 31.0, "dcgan": 24.0, "ddpm": 14.0}
VOID = {"meta", "link", "img", "br", "input"}


def measure(value: float | None, floor: float | None = None, note: str = "") -> dict:
    return {"value": value, "floor": floor, "note": note}


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def make_run(
    folder: Path, recipe: str = "vae", seed: int = 0, frechet: float = 20.0, seconds: float = 0.01, epochs: float = 10
) -> Path:
    """A whole run folder of 7x7 pictures, as train, sample and evaluate leave it."""
    run = folder / f"{recipe}-{epochs}-s{seed}"
    family = {"kind": recipe, "conditional": recipe != "dcgan"}
    data = {"source": str(folder / "gone"), "name": "tiny", "hash": "abc", "class_names": ["a", "b", "c"], "train": 11}
    spec = {"channels": 1, "size": 7, "classes": CLASSES, "levels": 256}
    train = {"seed": seed, "epochs": epochs}
    write(
        run / "recipe.json",
        {"name": recipe, "recipe": {"family": family, "train": train}, "spec": spec, "data": data,
         "machine": {"processor": "abacus", "cores": 2, "generama": "0.0.1"}, "command": f"generama train {recipe}"},
    )  # fmt: skip
    write(run / "status.json", {"state": "done", "error": None, "images": 110, "seconds": 5.0, "parameters": 1700})
    losses = [{"step": i, "images": 11 * i, "loss/model": 1 / (i + 1)} for i in range(13)]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in losses))
    pixels = np.random.default_rng(seed).integers(0, 256, (17, 7, 7, 1), np.uint8)
    samples = run / "samples" / "main"
    write(samples / "manifest.json", {"n": 17, "options": {"steps": 5}, "evaluations": 5, "seconds_per_image": seconds})
    np.savez(samples / "samples.npz", images=pixels, seeds=np.arange(17), labels=np.arange(17) % CLASSES)
    np.savez(samples / "trajectory.npz", frames=pixels[:6].reshape(3, 2, 7, 7, 1))
    (run / "previews").mkdir()
    for images in (11, 55, 110):
        Image.fromarray(pixels[0, :, :, 0]).save(run / "previews" / f"{images:09d}.png")
    measures = {
        "frechet": measure(frechet, 3.0),
        "recall": measure(0.5, 0.9),
        "missing_classes": measure(1 if recipe == "dcgan" else 0, 0),
        "bits_per_dim": measure(None, None, "a GAN gives no density")
        if recipe == "dcgan"
        else measure(1.5, None, "exact"),
    }
    write(run / "metrics.json", {"n": 17, "extractor": "classifier", "measures": measures, "histogram": [9, 8, 0],
                                 "nearest": [{"sample": 1, "train": 5, "distance": 2.0}]})  # fmt: skip
    return run


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    """Three recipes with one seed each."""
    folder = tmp_path / "compare-tiny"
    runs = [make_run(folder, name, frechet=value) for name, value in FRECHET.items()]
    write(folder / "compare.json", {
        "data": {"name": "tiny"}, "budget": "10 epochs each", "recipes": list(FRECHET), "seeds": [0], "n": 17,
        "command": "generama compare vae dcgan ddpm", "runs": [run.name for run in runs], "failed": {}, "seconds": 21.0,
    })  # fmt: skip
    return folder


def change(path: Path, **entries: object) -> None:
    write(path, json.loads(path.read_text()) | entries)


def set_measure(run: Path, key: str, entry: dict) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["measures"][key] = entry
    write(run / "metrics.json", metrics)


class Page(HTMLParser):
    """What a browser would find: elements with attributes, their text, and whether they are nested properly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.raw = text
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def warnings_of(page: Page) -> str:
    return page.text.split("Before you read on")[1].split("Contents")[0] if "Before you read on" in page.text else ""


def test_whole_comparison(comparison: Path) -> None:
    path = write_report(comparison)
    assert path == comparison / "report.html"
    assert path.stat().st_size < 300_000
    page = Page(path.read_text(encoding="utf-8"))
    assert "Before you read on" not in page.text
    for fact in ("Three ways to draw tiny", "10 epochs each", "generama compare vae dcgan ddpm", "abacus"):
        assert fact in page.text
    for section in ("What they draw", "Loss curves", "From noise to picture", "Which classes they draw", "In words"):
        assert section in page.text
    assert all(image["alt"] for image in page.all("img"))
    assert all(drawing.get("aria-label") or drawing.get("aria-hidden") for drawing in page.all("svg"))
    # 3 galleries, 3 x 3 previews, 3 noise strips; neighbours need the data, which is gone and said to be
    assert len(page.all("img")) == 3 + 9 + 3
    assert "The data could not be opened" in page.text
    assert "Fréchet distance (classifier)" in page.text
    assert re.findall(r"(\S+) FID\b", page.text) == ["published"]  # named once, as what these numbers are not


def test_nothing_is_loaded_from_anywhere(comparison: Path) -> None:
    page = page_of(comparison)
    assert "http://" not in page.raw and "https://" not in page.raw and "@import" not in page.raw
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))
    assert all(str(link["href"]).startswith(("#", "data:")) for link in page.all("a") + page.all("link"))
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"]
    identifiers = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {str(link["href"])[1:] for link in page.all("a")} <= identifiers


def test_policy_allows_exactly_its_own_style_and_script(comparison: Path) -> None:
    page = page_of(comparison)
    policy = next(str(m["content"]) for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.raw, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_table_is_sorted_and_marks_the_best(comparison: Path) -> None:
    page = page_of(comparison)
    sorted_by = [head for head in page.all("th") if "aria-sort" in head]
    assert [head["aria-sort"] for head in sorted_by] == ["ascending"]
    names = [head["data-sort"] for head in page.all("th") if head.get("scope") == "row" and "data-sort" in head]
    assert names == ["ddpm", "dcgan", "vae"]
    marked = [cell["data-sort"] for cell in page.all("td") if "best" in str(cell.get("class")).split()]
    assert "14.0" in marked and "24.0" not in marked
    (reason,) = {cell["title"] for cell in page.all("td") if cell.get("title") == "a GAN gives no density"}
    assert f"{reason}" in page.text  # the reason is also a footnote, for those who cannot hover
    assert "not defined" in page.text and "real pictures (floor)" in page.text


def test_seeds_become_mean_and_spread(tmp_path: Path) -> None:
    for seed, frechet in enumerate((10.0, 14.0)):
        make_run(tmp_path / "runs", "vae", seed, frechet)
    (row,) = rows_of(collect(tmp_path / "runs"))
    cell = row.cell("frechet")
    assert (cell.mean, cell.n) == (12.0, 2)
    assert cell.spread == pytest.approx(8**0.5)
    assert "12.0 ± 2.8" in page_of(tmp_path / "runs").text


def test_budgets_are_rows_of_their_own(tmp_path: Path) -> None:
    for epochs, frechet in ((10, 30.0), (100, 9.0)):
        make_run(tmp_path / "runs", "ddpm", frechet=frechet, epochs=epochs)
    assert [row.label for row in rows_of(collect(tmp_path / "runs"))] == ["ddpm (10 epochs)", "ddpm (100 epochs)"]
    page = page_of(tmp_path / "runs")
    assert "Against training time" in page.text and "ddpm on tiny" in page.text


def test_failed_running_cut_and_empty_runs_are_said_first(comparison: Path) -> None:
    change(comparison / "dcgan-10-s0" / "status.json", state="failed", error="the loss is <not> a number")
    change(comparison / "vae-10-s0" / "status.json", state="running")
    with (comparison / "vae-10-s0" / "log.jsonl").open("a") as log:
        log.write('{"step": 14, "ima')
    (comparison / "ddpm-10-s0" / "metrics.json").unlink()
    (comparison / "ddpm-10-s0" / "samples" / "main" / "samples.npz").write_bytes(b"PK not a zip")
    (comparison / "empty").mkdir()
    change(comparison / "compare.json", runs=["vae-10-s0", "dcgan-10-s0", "ddpm-10-s0", "empty", "lost"],
           failed={"flow-10-s0": "out of memory"})  # fmt: skip
    said = warnings_of(page_of(comparison))
    for part in (
        "dcgan-10-s0: failed: the loss is <not> a number",
        "vae-10-s0: was still running",
        "log.jsonl: 1 line is cut or garbled",
        "ddpm-10-s0: metrics.json is missing",
        "empty: does not say whether it finished; recipe.json is missing",
        "lost failed: its folder is not there",
        "flow-10-s0 failed: out of memory",
    ):
        assert part in said


def test_failure_after_training_counts_as_failed(comparison: Path) -> None:
    change(comparison / "compare.json", failed={"vae-10-s0": "could not be sampled"})
    page = page_of(comparison)
    assert "vae-10-s0: failed: could not be sampled" in warnings_of(page)
    assert "2 of 3 runs finished" in page.text


def test_values_that_are_no_numbers(comparison: Path) -> None:
    set_measure(comparison / "ddpm-10-s0", "frechet", measure(float("nan"), 3.0))
    set_measure(comparison / "vae-10-s0", "frechet", measure(None, 3.0, "not finite; reason"))
    log = comparison / "vae-10-s0" / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 14, "images": 154, "loss/model": NaN}\n')
    page = page_of(comparison)
    assert "ddpm-10-s0: frechet is not a number" in warnings_of(page)
    assert "vae-10-s0: frechet is not a number; the training log holds values that are not numbers" in warnings_of(page)
    assert page.text.count("not a number") >= 4  # above, and in both cells
    assert best(rows_of(collect(comparison)), "frechet") == set()  # one number is no contest
    assert not [path["d"] for path in page.all("path") if re.search("nan|inf", str(path["d"]))]


def test_a_folder_with_nothing_in_it(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert "No run was found in this folder" in warnings_of(page)
    with pytest.raises(UsageError, match="there is no folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no run to report on"):
        write_report([])


@pytest.mark.parametrize(
    "junk", ["", "[1, 2]", '{"state": ', "null", '{"state": ["x"], "seconds": "y", "images": true}']
)
@pytest.mark.parametrize(
    "name", ["recipe.json", "status.json", "metrics.json", "samples/main/manifest.json", "log.jsonl"]
)
def test_junk_in_any_file_is_survived(tmp_path: Path, name: str, junk: str) -> None:
    run = make_run(tmp_path)
    (run / name).write_text(junk)
    assert "What they draw" in page_of(run).text


def test_names_are_text_never_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    run = make_run(tmp_path / "a" / "<b>")
    data = json.loads((run / "recipe.json").read_text())["data"] | {
        "name": evil,
        "class_names": [evil] * 3,
        "licence": evil,
    }
    change(run / "recipe.json", name=evil, data=data, command=evil, machine={evil: evil})
    change(run / "status.json", state="failed", error=evil, budget=evil)
    change(run / "metrics.json", extractor=evil, extractor_note=evil)
    set_measure(run, "bits_per_dim", measure(None, None, evil))
    change(run / "samples" / "main" / "manifest.json", options={evil: evil})
    page = page_of(run)
    assert len(page.all("script")) == 1 and evil in page.text
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def sentences(folder: Path) -> dict[str, str]:
    comparison = collect(folder)
    return {topic.name: " ".join(topic.sentences) for topic in compare_in_words(rows_of(comparison), comparison)}


def test_sentences_follow_the_numbers(comparison: Path) -> None:
    before = sentences(comparison)
    assert before["Quality"].startswith("ddpm comes closest to the real pictures, with a Fréchet distance of 14.0")
    assert "dcgan follows at 24.0; with one seed of each, another seed could change the order." in before["Quality"]
    assert "vae is farthest, at 31.0, 2.21 times as far as ddpm." in before["Quality"]
    assert "how much luck is in these numbers is not known" in before["Stability"]
    assert "Classes are missing from dcgan (1)." in before["Diversity"]
    assert "For dcgan no likelihood is defined: a GAN gives no density." in before["Likelihood"]
    assert "dcgan was trained without labels" in before["Control"]
    assert "Copying" not in before  # nobody measured it
    set_measure(comparison / "vae-10-s0", "frechet", measure(12.5, 3.0))
    after = sentences(comparison)["Quality"]
    assert after.startswith("vae comes closest to the real pictures, with a Fréchet distance of 12.5")
    assert "the gap of 1.50 is smaller than the floor, so do not read an order into it" in after


def test_high_precision_with_low_recall_is_no_praise(comparison: Path) -> None:
    set_measure(comparison / "vae-10-s0", "precision", measure(0.99, 0.9))
    assert "leaves out the rest" not in sentences(comparison)["Quality"]
    set_measure(comparison / "vae-10-s0", "recall", measure(0.05, 0.9))
    assert "That vae goes beyond the 90.0 % of held-out pictures there" in sentences(comparison)["Quality"]


def test_distance_at_the_floor_is_called_so(comparison: Path) -> None:
    set_measure(comparison / "ddpm-10-s0", "frechet", measure(3.1, 3.0))
    assert "That is at the floor: with 17 pictures" in sentences(comparison)["Quality"]
    assert "Precision can" not in sentences(comparison)["Quality"]
    set_measure(comparison / "ddpm-10-s0", "precision", measure(0.2, 0.9))
    assert "Precision can: 20.0 % against 90.0 % for real ones." in sentences(comparison)["Quality"]


def test_nothing_is_said_that_was_not_measured(comparison: Path) -> None:
    for run in comparison.glob("*-s0"):
        (run / "metrics.json").unlink()
        (run / "samples" / "main" / "manifest.json").unlink()
    assert set(sentences(comparison)) == {"Stability", "Cost", "Control"}


def test_points_of_a_toy_are_drawn(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    points = np.random.default_rng(0).normal(size=(53, 2)).astype(np.float32)
    np.savez(run / "samples" / "main" / "samples.npz", images=points, seeds=np.arange(53))
    page = page_of(run)
    assert any(str(path.get("class")).startswith("cloud") for path in page.all("path"))


def test_real_pictures_and_neighbours_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENERAMA_CACHE", str(tmp_path / "cache"))
    labels = np.arange(60) % CLASSES
    np.savez(
        tmp_path / "tiny.npz", images=np.random.default_rng(1).integers(0, 256, (60, 7, 7), np.uint8), labels=labels
    )
    run = make_run(tmp_path)
    data = json.loads((run / "recipe.json").read_text())["data"]
    change(run / "recipe.json", data=data | {"source": str(tmp_path / "tiny.npz"), "size": 7, "hash": ""})
    images = [str(image["alt"]) for image in page_of(run).all("img")]
    assert any("real held-out pictures" in alt for alt in images)
    assert "Nearest training picture, number 5" in images
    change(run / "recipe.json", data=data | {"source": str(tmp_path / "tiny.npz"), "size": 7, "hash": "other"})
    assert "The data has changed since training" in page_of(run).text


def test_pickled_samples_are_not_loaded(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    objects = np.empty(1, dtype=object)
    np.savez(run / "samples" / "main" / "samples.npz", images=objects)
    assert "no samples that can be read" in page_of(run).text


def test_large_colour_pictures_stay_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 64, 64, 3), np.uint8)
    for seed in range(3):
        run = make_run(tmp_path / "runs", f"recipe{seed}")
        np.savez(run / "samples" / "main" / "samples.npz", images=noise, seeds=np.arange(50))
        for images in range(10):  # noise is the worst case for any compression
            Image.fromarray(noise.reshape(400, 512, 3)).save(run / "previews" / f"{images}.png")
    assert write_report(tmp_path / "runs").stat().st_size < 10_000_000


def test_list_of_runs_and_own_file(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", "vae"), make_run(tmp_path / "b", "ddpm")]
    out = write_report(runs, tmp_path / "mine.html")
    assert out == tmp_path / "mine.html" and "Two ways to draw tiny" in out.read_text(encoding="utf-8")


def test_same_folder_same_page(comparison: Path) -> None:
    assert render(collect(comparison)) == render(collect(comparison))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.0123, "seconds", "12.3 ms"), (4.2e-5, "seconds", "42.0 µs"), (150, "seconds", "2.50 min"),
     (0.345, "share", "34.5 %"), (1234567, "count", "1.23 M"), (42, "count", "42"), (3 * 2**29, "bytes", "1.50 GiB"),
     (13.249, "number", "13.2"), (0.00123, "number", "0.00123"), (0, "number", "0"), (1234.5, "number", "1,234"),
     (-0.001, "number", "−0.00100"), (float("inf"), "number", "not a number"), (None, "number", "–")],
)  # fmt: skip
def test_numbers_as_people_read_them(value: float | None, unit: str, text: str) -> None:
    assert show(value, unit) == text
