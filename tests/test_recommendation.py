"""Which one should I use: each need finds the planted winner, says what it cannot tell, and never a run that failed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import jinja2
import numpy as np
import pytest

import generama
from generama.__main__ import main
from generama.errors import UsageError
from generama.families import FAMILIES
from generama.families.textbook import Textbook
from generama.report import axes
from generama.report.candidates import candidates_of
from generama.report.choosing import choosing, newest_comparison
from generama.report.collect import collect
from generama.report.recommendation import NEEDS, Candidate, Figure, Recommendation, recommend
from generama.report.stability import Stability, stability_of
from generama.report.table import rows_of
from generama.report.textbook import NOT_MEASURED, UNDECIDED, Aspect
from generama.settings import Need

PARTS = Path(generama.__file__).parent / "report" / "parts"


def candidate(label: str, frechet: float, **others: float | Figure) -> Candidate:
    """A row with these figures; a bare number is one without an interval."""
    figures = {"frechet": frechet, **others}
    return Candidate(label, {k: v if isinstance(v, Figure) else Figure(v) for k, v in figures.items()}, seeds=3)


SHARP = candidate(
    "sharp", 2.0, seconds_per_image=0.5, coverage=0.6, conditional_accuracy=0.7, peak_memory=7e8, bits_per_dim=2.5
)
FAST = candidate("fast", 3.0, seconds_per_image=0.001, coverage=0.5, conditional_accuracy=0.8, peak_memory=9e8)
SMALL = candidate("small", 3.5, seconds_per_image=0.2, coverage=0.4, conditional_accuracy=0.95, peak_memory=1e8)
BLURRED = candidate(
    "blurred", 31.0, seconds_per_image=1e-5, coverage=0.9, conditional_accuracy=1.0, peak_memory=1e7, bits_per_dim=1.5
)
ALL = [SHARP, FAST, SMALL, BLURRED]


def text(found: Recommendation) -> str:
    return " ".join(sentence for _, said in found.sections for sentence in said)


def section(found: Recommendation, heading: str) -> str:
    return " ".join(dict(found.sections).get(heading, []))


@pytest.mark.parametrize(
    ("need", "winner", "second"),
    [
        ("quality", "sharp", "fast"),
        ("fast-sampling", "fast", "small"),  # blurred is faster, and far from the real pictures
        ("low-memory", "small", "sharp"),
        ("control", "small", "fast"),
        ("diversity", "blurred", "sharp"),
        ("likelihood", "blurred", "sharp"),
    ],
)
@pytest.mark.parametrize("turn", range(4))
def test_each_need_finds_its_winner_in_any_order(need: str, winner: str, second: str, turn: int) -> None:
    found = recommend(ALL[turn:] + ALL[:turn], need)
    assert found.answer == winner and section(found, "Runner-up").startswith(f"{second}, with")
    assert NEEDS[need].rule in found.rule[0].lower() + found.rule[1:]


def test_the_reasons_carry_the_numbers() -> None:
    found = recommend(ALL, "fast-sampling")
    assert "fast has 1.00 ms an image, the best of 3" in section(found, "Because")
    assert "1.5 times that of sharp" in section(found, "Because")
    assert "Too far from the real pictures: blurred (31.0)" in section(found, "Because")
    changed = section(found, "What would change it")
    assert "If a Fréchet distance of 31.0 were good enough: blurred, with 10.0 µs an image" in changed
    assert "For quality: sharp." in changed and "For likelihood and diversity: blurred." in changed
    assert "For control and low-memory: small." in changed
    assert "Without this measure: fast and small" in section(recommend(ALL, "likelihood"), "Because")


def test_a_likelihood_or_a_coverage_is_not_sold_as_quality() -> None:
    for need in ("likelihood", "diversity"):
        assert "15.5 times as far from the real ones as sharp" in section(recommend(ALL, need), "Keep in mind")
    rows = [
        replace(c, figures={**c.figures, "recall": Figure(r)}) for c, r in zip(ALL, (0.9, 0.1, 0.1, 0.3), strict=True)
    ]
    assert "By recall sharp is first, with 90.0 %" in section(recommend(rows, "diversity"), "Keep in mind")


def test_a_bound_is_called_one() -> None:
    exact = candidate("flow", 2.0, bits_per_dim=Figure(1.6, note="exact"))
    bound = candidate("vae", 2.0, bits_per_dim=Figure(1.5, note="bound", bound=True))
    found = recommend([exact, bound], "likelihood")
    assert found.answer == "vae" and "at most 1.50 bits per dimension" in section(found, "Because")
    assert "The number of vae is a bound" in section(found, "Keep in mind")


@pytest.mark.parametrize(("high", "told"), [(2.6, False), (2.4, True)])
def test_overlapping_intervals_cannot_be_told_apart(high: float, told: bool) -> None:
    a, b = candidate("a", Figure(2.0, 1.5, high)), candidate("b", Figure(3.0, 2.5, 3.5))  # type: ignore[arg-type]
    found = recommend([b, a])
    assert found.answer == "a"
    assert ("a and b cannot be told apart here" in text(found)) is not told


def test_a_time_is_told_without_an_interval() -> None:
    timed = candidate("timed", 2.0, seconds_per_image=Figure(0.5, 0.1, 2.0))  # type: ignore[arg-type]
    assert "500 ms an image" in text(recommend([timed], "fast-sampling"))


def test_times_within_a_tenth_cannot_be_told_apart() -> None:
    rows = [candidate("a", 2.0, seconds_per_image=0.100), candidate("b", 2.1, seconds_per_image=0.109)]
    assert "cannot be told apart" in text(recommend(rows, "fast-sampling"))
    rows[1] = candidate("b", 2.1, seconds_per_image=0.115)
    assert "cannot be told apart" not in text(recommend(rows, "fast-sampling"))


def test_a_failed_run_is_never_the_answer() -> None:
    gone = replace(candidate("gone", 0.1), figures={}, seeds=0, failed=1)
    mostly = replace(candidate("mostly", 0.5), seeds=1, failed=2)
    broken = candidate("broken", math.nan)
    found = recommend([gone, mostly, broken, *ALL])
    assert found.answer == "sharp"
    kept = section(found, "Keep in mind")
    assert "gone is left out: 1 of its 1 runs failed." in kept and "mostly is left out: 2 of its 3 runs failed." in kept
    assert "broken is left out" in kept
    once = replace(SHARP, failed=1)
    assert "1 of 4 runs of sharp failed." in section(recommend([once, FAST]), "Keep in mind")
    nothing = recommend([gone, broken])
    assert nothing.answer is None and nothing.run == "" and "gone is left out" in text(nothing)


def test_a_need_that_nobody_measured_is_not_answered() -> None:
    rows = [replace(c, reasons={"bits_per_dim": "a GAN gives no density"}) for c in (FAST, SMALL)]
    found = recommend(rows, "likelihood")
    assert found.answer is None and "fast: a GAN gives no density" in section(found, "Why")
    assert recommend([], "quality").answer is None
    with pytest.raises(UsageError, match="unknown need 'sped'; known: control, diversity, fast-sampling"):
        recommend(ALL, "sped")


def test_one_row_has_no_runner_up() -> None:
    found = recommend([SHARP])
    assert found.answer == "sharp" and "None: no other model qualifies." in section(found, "Runner-up")
    assert "the only one that qualifies" in section(found, "Because")


def test_only_what_was_measured_alike_is_ranked() -> None:
    stranger = replace(candidate("stranger", 0.1), protocol="other features")
    found = recommend([stranger, *ALL])
    assert found.answer == "sharp" and "stranger cannot be compared" in section(found, "Keep in mind")


def test_what_speaks_against_the_answer_is_said() -> None:
    doubtful = replace(
        SHARP, seeds=1, problems=["The samples are nearly all alike"],
        figures={"frechet": Figure(2.0, floor=0.5, note="unreliable: n = 7 < 64 feature dimensions")},
    )  # fmt: skip
    kept = section(recommend([doubtful, replace(FAST, seeds=1, gain=0.4)]), "Keep in mind")
    assert "The diagnosis of sharp finds a problem: The samples are nearly all alike." in kept
    assert "unreliable: n = 7" in kept and "one seed only" in kept
    assert "real held-out pictures have a Fréchet distance of 0.500, these 2.00" in kept
    changed = section(recommend([doubtful, replace(FAST, seeds=1, gain=0.4)]), "What would change it")
    assert "More training: the kernel distance of fast (40.0 %)" in changed and "--seeds 3" in changed
    assert "More training" not in section(recommend([doubtful, replace(FAST, gain=0.1)]), "What would change it")


# From folders


def measures(frechet: float | None, seconds: float, recall: float, bits: float | None, note: str) -> dict:
    values = {
        "frechet": frechet,
        "seconds_per_image": seconds,
        "recall": recall,
        "coverage": recall,
        "train_seconds": 9.0,
    }
    entries = {key: {"value": value, "floor": None, "note": ""} for key, value in values.items()}
    return entries | {"bits_per_dim": {"value": bits, "floor": None, "note": note}}


def make(
    folder: Path, name: str, kind: str, seed: int, found: dict, kids: tuple[float, ...] = (), rate: str = ""
) -> str:
    """A run folder as a comparison leaves it; returns its name."""
    run = folder / f"{name}-9s{rate}-seed{seed}"
    run.mkdir(parents=True)
    recipe = {"family": {"kind": kind, "latent": 5}, "train": {"seed": seed, "minutes": 0.15}}
    spec = {"channels": 1, "size": 7, "classes": 3, "levels": 256}
    about = {"name": name, "recipe": recipe, "spec": spec, "data": {"name": "tiny", "hash": "ab" * 32}}
    done = found["frechet"]["value"] is not None
    points = [
        {"seconds": 3.0 * (i + 1), "images": i, "share": 0.3, "frechet": 1.0, "kid": kid} for i, kid in enumerate(kids)
    ]
    metrics = {"n": 17, "extractor": "pixels", "measures": found, "progress": {"n": 7, "points": points}}
    (run / "recipe.json").write_text(json.dumps(about))
    (run / "status.json").write_text(json.dumps({"state": "done" if done else "failed", "error": None}))
    (run / "log.jsonl").write_text("")
    if done:
        (run / "metrics.json").write_text(json.dumps(metrics))
    return run.name


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A comparison as the textbooks would have it, but for the GAN's diversity, which is the best here."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "compare-tiny"
    vae = measures(30.0, 1e-4, 0.8, 1.5, "bound: the true value is lower")
    gan = measures(9.0, 1e-4, 0.9, None, "not defined: no density")
    flow = measures(20.0, 2e-4, 0.7, 1.2, "exact")
    ddpm = measures(8.0, 0.5, 0.8, 1.1, "bound: the true value is lower")
    failed = measures(None, 0.1, 0.1, None, "")
    runs = [
        make(folder, "vae", "vae", 0, vae, (0.9, 0.31, 0.3)), make(folder, "vae", "vae", 1, vae, (0.9, 0.31, 0.3)),
        make(folder, "dcgan", "gan", 0, gan, (0.9, 0.5, 0.2)), make(folder, "dcgan", "gan", 1, failed),
        make(folder, "dcgan", "gan", 2, {**gan, "frechet": {"value": 12.0}}, (0.9, 0.5, 0.2)),
        make(folder, "realnvp", "flow", 0, flow, (0.9, 0.8, 0.7)),
        make(folder, "ddpm", "diffusion", 0, ddpm, (0.9, 0.2, 0.1)),
    ]  # fmt: skip
    beside = {
        make(folder, "vae", "vae", 0, {**vae, "frechet": {"value": 33.0}}, rate="-rate0.5"): 0.5,
        make(folder, "vae", "vae", 0, {**vae, "frechet": {"value": 36.0}}, rate="-rate2"): 2.0,
        make(folder, "ddpm", "diffusion", 0, failed, rate="-rate2"): 2.0,
    }
    stability = {name: {"recipe": name.split("-")[0], "seed": 0, "rate": rate} for name, rate in beside.items()}
    finding = {"key": "mode-collapse", "severity": "problem", "title": "All alike", "evidence": "", "advice": ""}
    (folder / runs[2] / "diagnosis.json").write_text(json.dumps({"findings": [finding]}))
    (folder / runs[0] / "diagnosis.json").write_text(json.dumps({"findings": []}))
    about = {
        "data": {"name": "tiny", "source": "photos/", "hash": "ab" * 32}, "budget": "9s each", "seeds": [0, 1, 2],
        "recipes": ["vae", "dcgan", "realnvp", "ddpm"], "runs": runs, "failed": {"ddpm-9s-seed1": "no memory"},
        "stability": {"rates": [0.5, 1, 2], "runs": stability}, "started": "2026-02-03 10:00",
    }  # fmt: skip
    (folder / "compare.json").write_text(json.dumps(about))
    return folder


def test_candidates_are_read_from_run_folders(compared: Path) -> None:
    comparison = collect(compared)
    found = {c.label: c for c in candidates_of(rows_of(comparison), comparison)}
    assert list(found) == ["vae", "dcgan", "realnvp", "ddpm"]
    gan = found["dcgan"]
    assert (gan.seeds, gan.failed) == (2, 1) and gan.value("frechet") == 10.5 and gan.problems == ["All alike"]
    assert gan.run.endswith("dcgan-9s-seed0") and gan.reasons["bits_per_dim"] == "not defined: no density"
    assert (found["ddpm"].seeds, found["ddpm"].failed) == (1, 1)  # the second failed before it had a folder
    assert found["ddpm"].gain == pytest.approx(0.5) and found["vae"].figures["bits_per_dim"].bound
    assert recommend(list(found.values())).answer == "dcgan"  # half of the ddpm's runs failed


def test_stability_counts_seeds_failures_and_rates(compared: Path) -> None:
    comparison, about = collect(compared), json.loads((compared / "compare.json").read_text())
    found = {row.label: stability_of(row, comparison, about) for row in rows_of(comparison)}
    assert found["vae"] == Stability((30.0, 30.0), {0.5: 33.0, 2.0: 36.0})
    assert found["vae"].factors == pytest.approx({0.5: 1.1, 2.0: 1.2}) and found["vae"].worst == pytest.approx(1.2)
    assert found["vae"].spread == 0 and found["vae"].failed == 0
    assert (found["dcgan"].failed, found["dcgan"].tried) == (1, 3) and found["dcgan"].worst == math.inf
    assert found["dcgan"].spread == pytest.approx(np.std([9, 12], ddof=1) / 10.5)
    assert found["ddpm"].failed == 2 and found["realnvp"].worst is None and found["realnvp"].spread is None


def shown(aspects: list[Aspect], name: str) -> dict[str, tuple[str, str, str]]:
    return {c.label: (c.figure, c.held, c.why) for aspect in aspects if aspect.name == name for c in aspect.cells}


def test_the_textbooks_are_held_against_the_numbers(compared: Path) -> None:
    comparison = collect(compared)
    found = choosing(rows_of(comparison), comparison)
    aspects = found["aspects"]
    assert len(aspects) == 8 and all(len(aspect.cells) == 4 for aspect in aspects)
    speed = shown(aspects, "Sampling speed")
    assert speed["ddpm"] == ("500 ms an image", "yes", "3 of 3") and speed["vae"][1:] == ("yes", "1 of 1")
    quality = shown(aspects, "Quality")
    assert quality["dcgan"] == ("10.5", "yes", "1 of 1") and quality["vae"][1:] == ("yes", "2 of 2")
    diversity = shown(aspects, "Diversity")
    assert diversity["dcgan"][1:] == ("no", "0 of 3") and diversity["vae"][1:] == ("no", "0 of 1")
    stable = shown(aspects, "Training stability")
    assert "0 of 4 runs failed, × 1.10 at half the rate, × 1.20 at double the rate" in stable["vae"][0]
    assert stable["vae"][1:] == ("yes", "1 of 1") and stable["dcgan"][1:] == ("yes", "1 of 1")
    assert "failed at double the rate" in stable["ddpm"][0] and stable["ddpm"][1] == UNDECIDED
    assert stable["realnvp"] == ("", NOT_MEASURED, "")
    likelihood = shown(aspects, "Likelihood")
    assert [likelihood[name][1] for name in ("vae", "dcgan", "realnvp", "ddpm")] == ["yes"] * 4
    hard = shown(aspects, "What is hard about it")
    assert hard["dcgan"] == ("All alike", "yes", "") and hard["vae"][:2] == ("not seen", "no")
    assert (
        hard["ddpm"][1] == NOT_MEASURED and shown(aspects, "Latent space")["vae"][0] == "5 numbers for an image of 49"
    )
    # Kernel distances end at 0.3, 0.2, 0.7 and 0.1, so time is taken to 0.3
    cost = shown(aspects, "Training cost")
    assert found["level"] == 0.3 and cost["vae"] == ("at most 9.00 s", "in part", "1 of 2")
    assert cost["realnvp"][0] == "not within 9.00 s" and cost["ddpm"][0] == "at most 6.00 s"
    assert cost["ddpm"][1:] == ("no", "0 of 2")


def test_a_likelihood_by_the_ode_is_called_neither_a_bound_nor_exact(compared: Path) -> None:
    path = next(compared.glob("**/ddpm-9s-seed0/metrics.json"))
    found = json.loads(path.read_text())
    found["measures"]["bits_per_dim"]["note"] = (
        "by the probability-flow ODE, of the picture with uniform noise added; n = 50"
    )
    path.write_text(json.dumps(found))
    comparison = collect(compared)
    aspects = choosing(rows_of(comparison), comparison)["aspects"]
    assert shown(aspects, "Likelihood")["ddpm"] == ("1.10 bits, by its ODE", "in part", "")


def test_a_given_quality_is_the_level_of_all(compared: Path) -> None:
    about = json.loads((compared / "compare.json").read_text())
    (compared / "compare.json").write_text(json.dumps(about | {"quality": 0.5}))
    comparison = collect(compared)
    found = choosing(rows_of(comparison), comparison)
    assert found["level"] == 0.5 and shown(found["aspects"], "Training cost")["dcgan"][0] == "at most 6.00 s"


def test_every_family_says_what_the_textbooks_say() -> None:
    books = {kind: family.textbook for kind, family in FAMILIES.items()}
    assert all(isinstance(book, Textbook) for book in books.values())
    for key in ("stability", "sampling_speed", "quality", "diversity", "training_cost"):
        assert len({getattr(book, key).rating for book in books.values()}) > 1, (
            key
        )  # or nothing could be held against it


def test_the_parts_of_the_page_show_it_and_escape_names(compared: Path) -> None:
    record = compared / "dcgan-9s-seed0" / "diagnosis.json"
    record.write_text(record.read_text().replace("All alike", "<b>alike</b>"))
    comparison = collect(compared)
    found = choosing(rows_of(comparison), comparison)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PARTS), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.globals["key"] = axes.key
    page = "".join(
        environment.get_template(f"{name}.html").render(choosing=found) for name in ("recommendation", "textbook")
    )
    assert page.count("<svg") == 4 + 4 * 8 and page.count("<table>") == 8
    assert "Which one should I use?" in page and "Fast sampling" in page and "× 1.20 at double the rate" in page
    assert "&lt;b&gt;alike" in page and "<b>alike" not in page and "style=" not in page
    empty = "".join(
        environment.get_template(f"{name}.html").render(choosing={}) for name in ("recommendation", "textbook")
    )
    assert empty.strip() == ""


def test_the_terminal_answers_from_the_newest_comparison(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "--data", "tiny", "--need", "fast-sampling"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("For fast-sampling: dcgan\nRule")
    for word in ("Because", "Runner-up", "What would change it", "Keep in mind", "Measured in", "9s each, 3 seeds"):
        assert word in said
    assert "generama sample runs/compare-tiny/dcgan-9s-seed0" in said
    assert all(len(line) <= 100 for line in said.splitlines())
    assert generama.recommend("photos", "likelihood").answer == "realnvp"
    assert generama.recommend("ab" * 8).answer == "dcgan" and generama.recommend(comparison=compared).answer == "dcgan"


def test_the_newest_comparison_of_the_data_is_taken(compared: Path) -> None:
    about = json.loads((compared / "compare.json").read_text())
    for name, started in (("older", "2026-01-01 10:00"), ("empty", "2026-09-09 10:00"), ("other", "2026-08-08 10:00")):
        other = compared.with_name(name)
        other.mkdir()
        data = about["data"] | ({"name": "moons", "source": "moons", "hash": "c"} if name == "other" else {})
        (other / "compare.json").write_text(json.dumps(about | {"started": started, "data": data}))
        if name != "empty":
            (other / "run").mkdir()
            (other / "run" / "metrics.json").write_text("{}")
    assert newest_comparison("tiny").name == "compare-tiny" and newest_comparison(None).name == "other"
    with pytest.raises(UsageError, match=r"no comparison of 'fmnist' in runs; there are some of moons, tiny; make one"):
        newest_comparison("fmnist")
    assert main(["recommend", "--data", "fmnist"]) == 2


def test_the_needs_of_the_command_line_are_those_that_can_be_answered() -> None:
    assert set(get_args(Need)) == set(NEEDS)
