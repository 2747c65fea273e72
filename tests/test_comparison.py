"""A comparison: which runs it plans, what it keeps to measure learning by, and that nothing is done twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import generama
from generama.core import Spec
from generama.data import open_data
from generama.errors import UsageError
from generama.metrics.choice import choose
from generama.metrics.extractors import PixelFeatures
from generama.metrics.over_time import quality_over_time, seconds_to
from generama.plans import KEPT, PREVIEWS, plan
from generama.recipes import recipe
from generama.run import Record, Run
from generama.settings import CompareSettings, Spent

SPEC = Spec(channels=1, size=5)


def test_other_rates_are_planned_after_the_table_and_once_each() -> None:
    wanted = CompareSettings(("vae", "ddpm"), budget="5min", seeds=2, rates=(0.5, 1.0, 2.0, 2.0))
    plans = plan(wanted)
    assert [p.name for p in plans if p.rate == 1] == [p.name for p in plans][:4]
    beside = {p.name: p for p in plans[4:]}
    assert list(beside) == [
        "vae-5min-rate0.5-seed0", "ddpm-5min-rate0.5-seed0", "vae-5min-rate2-seed0", "ddpm-5min-rate2-seed0"
    ]  # fmt: skip
    assert beside["ddpm-5min-rate0.5-seed0"].recipe.train.rate == recipe("ddpm").train.rate / 2
    assert all(p.recipe.train.kept == KEPT and p.recipe.train.seed == 0 for p in beside.values())
    assert plan(replace(wanted, rates=(2.0,)))[:4] == plans[:4]  # the recipe's own rate is always in the table
    assert len(plan(replace(wanted, rates=(1.0,)))) == 4


@pytest.mark.parametrize("rates", [(0.0,), (-1.0, 1.0), (float("nan"),), (float("inf"),)])
def test_rates_that_are_none_are_refused(rates: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match=r"--rates 0.5,1,2"):
        plan(CompareSettings(rates=rates))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A real comparison of two families on digits at two rates; its folder."""
    cache, before = tmp_path_factory.mktemp("cache"), os.environ.get("GENERAMA_CACHE")
    os.environ["GENERAMA_CACHE"] = str(cache)
    try:
        out = tmp_path_factory.mktemp("work") / "compared"
        asked = {"data": "digits", "budget": "1k images", "samples": 60, "rates": (0.5, 1.0), "out": out}
        assert generama.compare(["vae-mlp", "gan-mlp"], **asked) == out / "report.html"
        yield out
        done = {p: p.stat().st_mtime_ns for p in out.glob("*/**/*") if p.is_file()}
        generama.compare(["vae-mlp", "gan-mlp"], **asked)  # again: nothing is left to do
        assert done == {p: p.stat().st_mtime_ns for p in out.glob("*/**/*") if p.is_file()}
    finally:
        os.environ.pop("GENERAMA_CACHE")
        if before:
            os.environ["GENERAMA_CACHE"] = before


def test_runs_at_other_rates_are_measured_but_are_no_rows(compared: Path) -> None:
    summary = json.loads((compared / "compare.json").read_text())
    assert summary["runs"] == ["vae-mlp-1kimages-seed0", "gan-mlp-1kimages-seed0"] and summary["failed"] == {}
    assert summary["stability"] == {
        "rates": [0.5, 1.0],
        "runs": {f"{name}-1kimages-rate0.5-seed0": {"recipe": name, "seed": 0, "rate": 0.5}
                 for name in ("vae-mlp", "gan-mlp")},
    }  # fmt: skip
    for name in (*summary["runs"], *summary["stability"]["runs"]):
        measures = json.loads((compared / name / "metrics.json").read_text())["measures"]
        assert measures["frechet"]["value"] > 0 and measures["train_flops"]["value"] > 0
        assert 0 < measures["seconds_per_image"]["value"] <= 2 * measures["seconds_one"]["value"]
        assert "64" in measures["seconds_per_image"]["note"]


def test_quality_over_training_time_is_measured(compared: Path) -> None:
    run = compared / "vae-mlp-1kimages-seed0"
    progress = json.loads((run / "metrics.json").read_text())["progress"]
    assert progress["n"] == KEPT and len(progress["points"]) == PREVIEWS
    shares = [point["share"] for point in progress["points"]]
    assert [int(share * PREVIEWS) for share in shares] == [1, 2, 3, 4, 5] and shares[-1] == 1
    seconds = [point["seconds"] for point in progress["points"]]
    assert seconds == sorted(seconds) and seconds[-1] == json.loads((run / "status.json").read_text())["seconds"]
    assert progress["points"][-1]["kid"] < progress["points"][0]["kid"]  # it learned
    assert progress["floor"]["frechet"] < progress["points"][-1]["frechet"]
    last = np.load(max((run / "previews").glob("*.npz")))["images"]
    drawn = np.load(run / "samples" / "main" / "samples.npz")["images"]
    assert np.abs(last[:60].astype(int) - drawn).max() <= 1  # the same seeds and the same averaged weights


def test_the_time_to_a_quality_is_that_of_the_first_preview_which_has_it() -> None:
    points = [{"seconds": s, "kid": k} for s, k in ((1.5, 0.9), (3.1, None), (4.7, 0.2), (6.3, 0.3), (7.9, 0.1))]
    assert seconds_to(points, 0.2) == 4.7 and seconds_to(points, 0.15) == 7.9
    assert seconds_to(points, 1.0) == 1.5 and seconds_to(points, 0.05) is None and seconds_to([], 1.0) is None


def test_what_was_kept_is_measured_at_one_n_and_a_damaged_preview_is_left_out(tmp_path: Path) -> None:
    digits = open_data("digits", cache=tmp_path / "data")
    previews = tmp_path / "run" / "previews"
    previews.mkdir(parents=True)
    assert quality_over_time(tmp_path / "run", digits, PixelFeatures(), tmp_path) == {}
    real = digits.train.pixels(choose(len(digits.train), 97)).permute(0, 2, 3, 1).numpy()
    noise = np.random.default_rng(0).integers(0, 256, (101, 8, 8, 1), np.uint8)
    np.savez(previews / "000000037.npz", images=noise, seconds=1.25, share=0.5)
    np.savez(previews / "000000074.npz", images=real, seconds=2.5, share=1.0)
    (previews / "000000050.npz").write_bytes(b"PK\3\4 cut")
    np.savez(previews / "000000060.npz", images=real)
    found = quality_over_time(tmp_path / "run", digits, PixelFeatures(), tmp_path)["progress"]
    assert found["n"] == 97
    first, last = found["points"]
    assert (first["images"], first["seconds"], first["share"]) == (37, 1.25, 0.5) and last["images"] == 74
    assert first["frechet"] > 10 * last["frechet"] and first["kid"] > 10 * abs(last["kid"])
    assert last["frechet"] < 2 * found["floor"]["frechet"]


class Grey:
    """A generator whose every picture is its seed's shade."""

    def __init__(self) -> None:
        self.spec = SPEC

    def parameters(self):
        return iter([torch.zeros(1)])

    def sample(self, rng, cond=None):
        return torch.tensor([seed / 300 for seed in rng.seeds]).reshape(-1, 1, 1, 1).expand(-1, 1, 5, 5)


def test_previews_keep_what_is_asked_and_a_rewound_run_forgets_the_later_ones(tmp_path: Path) -> None:
    base = recipe("vae")
    kept = replace(base, train=replace(base.train, kept=101))
    run = Run.create(tmp_path / "run", Record("vae", kept, SPEC, {}, {}, "test"))
    for images, share in ((0, 0.0), (37, 0.5), (74, 1.0)):
        run.preview(Grey(), Spent(images=images, seconds=images / 10), share)  # type: ignore[arg-type]
    names = sorted(path.name for path in (run.folder / "previews").iterdir())
    assert names == ["000000000.png", "000000037.npz", "000000037.png", "000000074.npz", "000000074.png"]
    arrays = np.load(run.folder / "previews" / "000000037.npz")
    assert arrays["images"].shape == (101, 5, 5, 1) and arrays["seconds"] == 3.7 and arrays["share"] == 0.5
    assert arrays["images"][100, 0, 0, 0] == round((100 / 300 + 1) * 127.5)
    (run.folder / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    run.rewind(1, 37)
    names = sorted(path.name for path in (run.folder / "previews").iterdir())
    assert names == ["000000000.png", "000000037.npz", "000000037.png"]
