"""The report: it is made from any folder, says what is wrong at its top, escapes every name and follows the numbers."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_folders import CLASSES, FRECHET, change, enrich, make_comparison, make_judged, make_run, measure, set_measure

from generama.errors import UsageError
from generama.report import write_report
from generama.report.collect import collect
from generama.report.numbers import show
from generama.report.page import render
from generama.report.ranking import best
from generama.report.table import rows_of
from generama.report.words import compare_in_words

VOID = {"meta", "link", "img", "br", "input"}


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    """Three recipes with one seed each."""
    folder = tmp_path / "compare-tiny"
    return make_comparison(folder, [make_run(folder, name, frechet=value) for name, value in FRECHET.items()])


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
    # 3 galleries, 3 x 3 previews, 3 x 3 denoising steps; neighbours need the data, which is gone and said to be
    assert len(page.all("img")) == 3 + 9 + 9
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


def test_seeds_become_mean_and_interval(tmp_path: Path) -> None:
    for seed, frechet in enumerate((10.0, 14.0)):
        make_run(tmp_path / "runs", "vae", seed, frechet)
    (row,) = rows_of(collect(tmp_path / "runs"))
    cell = row.cell("frechet")
    assert (cell.mean, cell.n) == (12.0, 2)
    assert cell.spread == pytest.approx(8**0.5)
    text = page_of(tmp_path / "runs").text
    assert "12.00.0–37.4" in text  # Student's t with one degree of freedom, cut at 0
    assert "2 seeds are few: t is 12.7, where 5 would make it 2.8." in text


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


def test_intervals_decide_what_is_said(comparison: Path) -> None:
    for name, value in FRECHET.items():
        set_measure(comparison / f"{name}-10-s0", "frechet", measure(value, 3.0, "", (value - 4, value + 4)))
    said = sentences(comparison)["Quality"]
    assert "dcgan follows at 24.0 (20.0–28.0); with one seed of each" in said
    set_measure(comparison / "dcgan-10-s0", "frechet", measure(17.0, 3.0, "", (13.0, 21.0)))
    said = sentences(comparison)["Quality"]
    assert "dcgan follows at 17.0 (13.0–21.0); the two cannot be told apart, because their intervals overlap." in said
    page = page_of(comparison)
    marked = [cell["data-sort"] for cell in page.all("td") if "best" in str(cell.get("class")).split()]
    assert {"14.0", "17.0"} <= set(marked) and "31.0" not in marked
    assert "Cannot be told apart: ddpm, dcgan." in page.text
    assert "17.013.0–21.0" in page.text  # the interval stands below its number
    assert "| dcgan | 17.0 (13.0–21.0) |" in (comparison / "table.md").read_text(encoding="utf-8")


def test_measures_that_disagree_are_named(comparison: Path) -> None:
    for name, value in FRECHET.items():
        enrich(comparison / f"{name}-10-s0", 0.05)
        set_measure(comparison / f"{name}-10-s0", "frechet", measure(value, 3.0, "", (value - 1, value + 1)))
    assert "Disagreement" not in sentences(comparison)
    set_measure(comparison / "vae-10-s0", "coverage", measure(0.9, 0.9, "", (0.85, 0.95)))
    said = sentences(comparison)["Disagreement"]
    assert "vae is ahead of ddpm by coverage, and behind by Fréchet distance and kernel distance." in said


def test_unlike_rows_stand_in_tables_of_their_own(comparison: Path) -> None:
    for name in FRECHET:
        enrich(comparison / f"{name}-10-s0")
    metrics = json.loads((comparison / "ddpm-10-s0" / "metrics.json").read_text())
    change(comparison / "ddpm-10-s0" / "metrics.json", extractor="inception", n=19,
           protocol=metrics["protocol"] | {"extractor": "inception:2", "n": 19})  # fmt: skip
    page = page_of(comparison)
    assert len([t for t in page.all("table") if t.get("class") == "measures"]) == 2
    assert "ddpm are not ranked together" in warnings_of(page) and "numbers of samples (17 and 19)" in warnings_of(page)
    assert "Measured on 19 samples, inception features" in page.text
    assert "FID (inception)" in page.text and "FID (classifier)" not in page.text
    marked = [cell["data-sort"] for cell in page.all("td") if "best" in str(cell.get("class")).split()]
    assert "14.0" not in marked and "24.0" in marked
    assert "Among ddpm:" in page.text


def test_everything_that_may_be_there_is_shown(comparison: Path) -> None:
    for name in FRECHET:
        enrich(comparison / f"{name}-10-s0")
    finding = {"severity": "problem", "title": "Posterior collapse", "evidence": "KL is 0.01 nats."}
    change(comparison / "vae-10-s0" / "diagnosis.json", findings=[finding])
    change(comparison / "ddpm-10-s0" / "diagnosis.json", findings=[])
    page = page_of(comparison)
    assert "vae-10-s0: Posterior collapse; see the diagnosis" in warnings_of(page)
    for part in ("KL is 0.01 nats.", "It stopped learning", "Nothing was found in ddpm-10-s0.", "Over training time",
                 "Class by class", "Twins among the samples", "10.0 % of the samples have a near twin"):  # fmt: skip
        assert part in page.text
    assert "Measured on 13 samples" in page.text


def test_judged_folders_are_not_asked_for_a_training(tmp_path: Path) -> None:
    run = make_judged(tmp_path / "runs")
    make_comparison(tmp_path / "runs", [run], notes=["all at 7x7 pixels, grey"])
    page = page_of(tmp_path / "runs")
    assert "All at 7x7 pixels, grey" in page.text and "AI-generated" not in page.text
    assert warnings_of(page) == "" and "How they learned" not in page.text and "Fréchet distance" in page.text


def test_parts_of_the_page_are_in_the_package() -> None:
    folder = files("generama.report")
    assert {"page.js", "style.css"} <= {entry.name for entry in folder.iterdir()}
    assert "page.html" in {entry.name for entry in (folder / "parts").iterdir()}


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


def test_six_recipes_of_large_colour_pictures_stay_under_ten_megabytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 64, 64, 3), np.uint8)  # the worst for any compression
    steps = np.random.default_rng(1).integers(0, 256, (11, 8, 64, 64, 3), np.uint8)
    for seed in range(3):
        run = enrich(make_run(tmp_path / "runs", "ddpm", seed))
        np.savez(run / "samples" / "main" / "samples.npz", images=noise, seeds=np.arange(50))
        np.savez(run / "samples" / "main" / "trajectory.npz", frames=steps)
        for images in range(10):
            Image.fromarray(noise.reshape(400, 512, 3)).save(run / "previews" / f"{images}.png", compress_level=1)
    page = render(collect(tmp_path / "runs"))
    assert len(re.findall("data:image/webp", page)) > 15
    assert 6 * len(page.encode("utf-8")) < 10_000_000  # a recipe costs the same bytes each time


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
