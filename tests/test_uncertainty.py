"""Intervals and what they allow to say: against scipy, by simulation, and on rows whose order is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from run_folders import change, enrich, make_run, measure, set_measure
from scipy import stats

from generama.report.collect import collect
from generama.report.ranking import best, flips, leagues, refusals, ties
from generama.report.table import Cell, rows_of
from generama.report.uncertainty import apart, interval, together


@pytest.mark.parametrize("count", [2, 3, 5, 11])
def test_interval_of_a_mean_is_that_of_student(count: int) -> None:
    values = np.random.default_rng(count).normal(7.0, 2.0, count)
    found = interval(Cell(tuple(values)))
    expected = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert found == pytest.approx(expected, rel=1e-9)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(3.0, 1.0, (4000, 3))
    ends = [interval(Cell(tuple(row))) for row in draws]
    covered = np.mean([low <= 3.0 <= high for low, high in (pair for pair in ends if pair)])
    assert 0.94 < covered < 0.96  # standard error 0.0034


def test_one_seed_has_the_interval_of_its_measurement_or_none() -> None:
    assert interval(Cell((5.0,), ((4.0, 7.0),))) == (4.0, 7.0)
    assert interval(Cell((5.0,))) is None
    assert interval(Cell()) is None


def test_seeds_that_agree_by_luck_are_no_surer_than_their_measurements() -> None:
    low, high = interval(Cell((5.0, 5.0), ((4.0, 7.0), (4.0, 7.0)))) or (math.nan, math.nan)
    assert (low, high) == pytest.approx((5 - math.sqrt(2) / 2, 5 + math.sqrt(8) / 2))


def test_apart_where_intervals_share_nothing() -> None:
    a, b, c = Cell((1.0,), ((0.0, 2.0),)), Cell((2.5,), ((1.5, 3.5),)), Cell((3.0,), ((2.1, 4.0),))
    assert not apart(a, b) and not apart(b, c) and apart(a, c) and apart(c, a)
    assert apart(Cell((1.0,)), Cell((1.01,))) and not apart(Cell((1.0,)), Cell((1.0001,)))  # three digits, no interval
    assert not apart(a, Cell())


def test_groups_are_the_largest_in_which_no_two_are_apart() -> None:
    ends = {"a": (0, 2), "b": (1, 3), "c": (2.5, 4), "d": (9, 10), "e": (2.7, 2.8)}
    cells = {name: Cell((sum(pair) / 2,), (pair,)) for name, pair in ends.items()}
    assert together(cells) == [["a", "b"], ["b", "c", "e"]]
    assert together({"a": cells["a"], "d": cells["d"], "none": Cell()}) == []


def runs_of(folder: Path, widths: dict[str, float], values: dict[str, float]) -> Path:
    for name, value in values.items():
        enrich(make_run(folder, name, frechet=value), widths[name])
    return folder


def test_best_are_all_that_cannot_be_told_from_the_best(tmp_path: Path) -> None:
    widths = {"vae": 0.05, "ddpm": 0.05, "flow": 0.05}
    rows = rows_of(collect(runs_of(tmp_path, widths, {"vae": 30.0, "ddpm": 14.0, "flow": 15.0})))
    assert best(rows, "frechet") == {"ddpm", "flow"}
    assert ties(rows, "frechet") == [["ddpm", "flow"]]
    assert best(rows, "precision") == set()  # all three are equal
    assert ties(rows, "precision") == [["ddpm", "flow", "vae"]]


def test_rows_that_were_measured_differently_are_never_ranked_together(tmp_path: Path) -> None:
    names = ("vae", "ddpm", "flow")
    runs_of(tmp_path, dict.fromkeys(names, 0.05), {"vae": 30.0, "ddpm": 14.0, "flow": 40.0})
    rows = rows_of(collect(tmp_path))
    assert len(leagues(rows)) == 1 and refusals(rows) == []
    protocol = {"n": 19, "extractor": "classifier:1", "data": "abc", "size": 7, "channels": 1, "split": "train"}
    change(tmp_path / "ddpm-10-s0" / "metrics.json", protocol=protocol, n=19)
    rows = rows_of(collect(tmp_path))
    assert [[row.label for row in league] for league in leagues(rows)] == [["ddpm"], ["flow", "vae"]]
    (said,) = refusals(rows)
    assert said.startswith("ddpm and flow and vae are not ranked together") and "numbers of samples (19 and 17)" in said
    assert best(rows, "frechet") == set() and ties(rows, "frechet") == []
    assert best(rows, "seconds_per_image") == set()  # all take as long
    set_measure(tmp_path / "vae-10-s0", "seconds_per_image", measure(0.001))
    assert best(rows_of(collect(tmp_path)), "seconds_per_image") == {"vae"}  # a time does not depend on n
    change(tmp_path / "ddpm-10-s0" / "metrics.json", protocol=protocol | {"size": 11})
    assert best(rows_of(collect(tmp_path)), "seconds_per_image") == set()  # but on the size of the pictures


def test_seeds_that_were_measured_differently_are_no_one_row(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        enrich(make_run(tmp_path, "vae", seed))
    change(tmp_path / "vae-10-s1" / "metrics.json", protocol={"n": 19})
    (tmp_path / "vae-10-s2" / "metrics.json").unlink()  # not measured: it stays with its siblings
    rows = rows_of(collect(tmp_path))
    assert [[run.folder.name for run in row.runs] for row in rows] == [["vae-10-s0", "vae-10-s2"], ["vae-10-s1"]]


def test_measures_that_disagree_are_found_only_beyond_their_intervals(tmp_path: Path) -> None:
    rows = rows_of(collect(runs_of(tmp_path, {"vae": 0.05, "ddpm": 0.05}, {"vae": 30.0, "ddpm": 14.0})))
    assert flips(rows) == []
    set_measure(tmp_path / "vae-10-s0", "precision", measure(0.9, 0.8, "", (0.88, 0.92)))
    (flip,) = flips(rows_of(collect(tmp_path)))
    assert {flip.a: flip.for_a, flip.b: flip.for_b} == {"ddpm": ["frechet", "kid"], "vae": ["precision"]}
    set_measure(tmp_path / "vae-10-s0", "precision", measure(0.9, 0.8, "", (0.7, 0.92)))
    assert flips(rows_of(collect(tmp_path))) == []
    set_measure(tmp_path / "vae-10-s0", "precision", measure(0.9, 0.8))  # without an interval it proves nothing
    assert flips(rows_of(collect(tmp_path))) == []
