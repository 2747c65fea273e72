"""Each finding on a run made to have it, and on one made not to: samples, data, logs and the command as a whole."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TINY
from torch import Tensor, nn

from generama import machine
from generama.__main__ import main
from generama.core import Family, Finding
from generama.data import Data, open_data
from generama.diagnosis import diagnose, measured, pictures, samples, training_log
from generama.errors import Diverged, Unseen, UsageError
from generama.evaluation import as_json, evaluate_images
from generama.families import FamilyConfig, build
from generama.metrics.extractors import PixelFeatures
from generama.recipes import Recipe
from generama.run import Record, Run, load
from generama.sampling import sample_run
from generama.settings import TrainSettings
from generama.training import train

CPU = torch.device("cpu")
PLAIN = TrainSettings(
    batch=32, steps=40, previews=0, clip=0, precision="float32", layout="contiguous", compile="no", schedule="constant"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def digits(cache) -> Data:
    return open_data("digits", cache=cache / "data")


def trained(
    folder: Path, config: FamilyConfig, data: Data, settings: TrainSettings = PLAIN, change=lambda family: None
) -> Path:
    """A run that was really trained; `change` may spoil the family first."""
    record = Record("test", Recipe(config, settings), data.spec, data.describe(), machine.describe(CPU), "test")
    run = Run.create(folder, record)
    torch.manual_seed(0)
    family = build(config, data.spec)
    change(family)
    train(family, data.train, settings, run, CPU)
    return folder


def keys(findings) -> list[str]:
    return [finding.key for finding in findings]


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").open()]


# Samples beside real pictures


@pytest.fixture(scope="module")
def real(digits: Data) -> Tensor:
    return digits.held_out.pixels(slice(None))


def every_look(images: Tensor, real: Tensor) -> list[Finding]:
    looks = (samples.mode_collapse, samples.blank, samples.burnt_out)
    return [finding for look in looks for finding in look(images, real)]


def test_real_pictures_have_none_of_the_ailments_of_samples(digits: Data, real: Tensor) -> None:
    assert every_look(digits.train.pixels(slice(0, 307)), real) == []


def test_one_picture_over_and_over_is_mode_collapse(digits: Data, real: Tensor) -> None:
    one = digits.train.pixels(slice(5, 6)).expand(211, -1, -1, -1).float()
    noisy = (one + 3 * torch.randn(one.shape, generator=torch.Generator().manual_seed(0))).clamp(1, 254).byte()
    found = every_look(noisy, real)
    assert keys(found) == ["mode-collapse"]
    assert (
        "two samples are on average 3." in found[0].evidence and "grey levels apart, two real ones" in found[0].evidence
    )


def test_a_few_pictures_over_and_over_are_repeated_samples(digits: Data, real: Tensor) -> None:
    few = digits.train.pixels(slice(0, 23)).repeat(11, 1, 1, 1)
    found = every_look(few, real)
    assert keys(found) == ["repeated-samples"] and "100% of the samples" in found[0].evidence


def test_a_class_that_is_one_picture_is_named(digits: Data, real: Tensor) -> None:
    images, labels = digits.train.pixels(slice(0, 503)), digits.train.labels(slice(0, 503))
    truth, names = digits.held_out.labels(slice(None)), digits.meta.class_names
    assert labels is not None and truth is not None
    assert list(samples.collapsed_classes(images, labels, real, truth, names)) == []
    images[labels == 7] = images[labels == 7][:1]
    (found,) = samples.collapsed_classes(images, labels, real, truth, names)
    assert found.severity == "warning" and "class 7 (0%)" in found.title and "class 3" not in found.title


def test_blank_and_burnt_out_samples_are_counted(digits: Data, real: Tensor) -> None:
    images = digits.train.pixels(slice(0, 307))
    some_blank = images.clone()
    some_blank[:11] = 127
    (found,) = every_look(some_blank, real)
    assert found.key == "blank-samples" and "11 of 307" in found.evidence
    assert "saturated-samples" in keys(every_look((images > 127).byte() * 255, real))


def test_too_few_samples_are_not_judged(real: Tensor) -> None:
    with pytest.raises(Unseen, match="7 samples"):
        list(samples.mode_collapse(real[:7], real))


def test_images_that_are_not_numbers_are_counted() -> None:
    images = torch.zeros(5, 1, 8, 8)
    assert list(samples.not_numbers(images)) == []
    images[3, 0, 2, 2] = math.inf
    (found,) = samples.not_numbers(images)
    assert "1 of 5 images" in found.evidence


# What was measured, of real pictures


def measures_of(images: Tensor, data: Data, cache: Path) -> dict[str, Any]:
    return as_json(evaluate_images(images, None, data, PixelFeatures(), cache=cache))


def test_copies_are_found_in_what_was_measured(digits: Data, cache: Path) -> None:  # ME-10
    (found,) = measured.memorised(measures_of(digits.train.pixels(slice(0, 211)), digits, cache))
    assert found.key == "memorisation" and found.severity == "problem"
    assert found.evidence.startswith("100.0% of 211 samples") and "is 0.0 from training picture" in found.evidence


def test_samples_unlike_the_data_are_found_and_real_pictures_pass(real: Tensor, digits: Data, cache: Path) -> None:
    noise = torch.randint(0, 256, (101, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert keys(measured.unlike(measures_of(noise, digits, cache))) == ["unlike-the-data"]
    clean = measures_of(real, digits, cache)
    assert list(measured.unlike(clean)) == [] == list(measured.memorised(clean))
    with pytest.raises(Unseen, match="classifier"):
        list(measured.dropped_classes({**clean, "histogram": None}, [0.1] * 10, digits.meta.class_names, True))


def test_dropped_classes_are_named(digits: Data) -> None:
    labels, names = digits.train.labels(slice(None)), digits.meta.class_names
    assert labels is not None
    low = {"histogram": labels[labels < 5][:400].bincount(minlength=10).tolist()}
    (found,) = measured.dropped_classes(low, [0.1] * 10, names, False)
    assert found.title == "Classes 5, 6, 7, 8, 9 hardly ever seen in the samples (dropped classes)"
    assert "never sees classes 5, 6, 7, 8, 9; about 40 of each were expected" in found.evidence
    every = {"histogram": labels[:400].bincount(minlength=10).tolist()}
    assert list(measured.dropped_classes(every, [0.1] * 10, names, False)) == []


def test_a_class_drawn_too_seldom_is_a_warning() -> None:
    metrics = {"histogram": [97, 20, 103]}
    (found,) = measured.dropped_classes(metrics, [1 / 3] * 3, ["cat", "dog", "fox"], True)
    assert found.severity == "warning" and found.title == "Class dog too seldom seen in the samples"
    assert found.evidence == "in 220 samples the classifier sees class dog (20 times); about 73 of each were expected"
    with pytest.raises(Unseen, match="too few"):
        list(measured.dropped_classes({"histogram": [3, 2, 4]}, [1 / 3] * 3, ["cat", "dog", "fox"], True))


# The data


def prepared(folder: Path, train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> Data:
    np.savez(folder / "some.npz", images=train, labels=labels, test_images=test, test_labels=test_labels)
    return open_data(folder / "some.npz", cache=folder / "cache")


def looks_at_data(data: Data) -> list[Finding]:
    train, held_out = pictures.contents(data.train), pictures.contents(data.held_out)
    found = [*pictures.leaked(train, held_out), *pictures.duplicated(train), *pictures.blank(train)]
    return found + list(pictures.unbalanced(data.train, data.meta.class_names))


def test_good_data_has_no_findings(digits: Data) -> None:
    assert looks_at_data(digits) == []


def test_leakage_duplicates_blank_pictures_and_lost_balance_are_counted(tmp_path: Path) -> None:  # DA-12, DA-15
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 256, (101, 5, 5), np.uint8), rng.integers(0, 256, (31, 5, 5), np.uint8)
    train[:3] = 9
    train[50:57] = train[49]
    test[4:6] = train[60:62]
    labels = np.r_[np.zeros(97, int), np.ones(4, int)]
    found = looks_at_data(prepared(tmp_path, train, labels, test, np.arange(31) % 2))
    assert keys(found) == ["leakage", "duplicates", "blank-pictures", "unbalanced-classes"]
    leak, copies, blank, balance = (finding.evidence for finding in found)
    assert leak.startswith("2 of 31 held-out pictures (6.5%)")
    assert copies.startswith("9 of 101 training pictures (8.9%)") and "occurs 8 times" in copies
    assert blank.startswith("3 of 101") and balance.startswith("24.2 times")


# Logs


def test_a_not_a_number_is_traced_to_its_origin(digits: Data, tmp_path: Path) -> None:  # NF-01
    calls = [0]

    def spoil(gradient: Tensor) -> Tensor:
        calls[0] += 1
        return gradient * math.nan if calls[0] in (7, 8) else gradient  # the step, and when it is looked at again

    def poison(family: Family) -> None:
        assert isinstance(family, nn.Module)
        family.get_parameter("decoder.layers.0.weight").register_hook(spoil)

    sick = trained(tmp_path / "sick", TINY["vae-mlp"], digits, change=poison)
    found = {finding.key: finding for finding in diagnose(sick, digits).findings}
    assert "step 6 was not applied" in found["not-finite"].evidence
    assert "the gradient of decoder.layers.0.weight is not finite" in found["not-finite"].evidence
    well = trained(tmp_path / "well", TINY["vae-mlp"], digits)
    assert not {"not-finite", "failed"} & set(keys(diagnose(well, digits).findings))


def test_a_run_that_diverged_is_diagnosed_by_the_command(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # NF-02
    monkeypatch.setenv("GENERAMA_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    words = ["train", "vae-mlp", "--data", "digits", "--run", "far", "--train.previews", "0", "--train.steps", "20"]
    assert main([*words, "--train.rate", "1e30"]) == Diverged.exit_code
    assert main(["diagnose", "far"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "PROBLEM: The run failed seen: the vae's" in shown
    assert "PROBLEM: The loss was not a number" in shown and "went back to a checkpoint 2 time(s)" in shown
    assert "--train.rate 2.5e+29" in shown and "2 problems" in shown
    assert "there are no samples yet: generama evaluate runs/far" in shown
    assert len(json.loads(Path("runs/far/diagnosis.json").read_bytes())["findings"]) == 2


def test_noise_is_no_swing() -> None:
    alarms = 0
    for seed in range(200):  # noise as strong as the loss itself, around a fall
        rng, share = np.random.default_rng(seed), np.arange(1, 201) / 200
        values = np.exp(-3 * share) + rng.lognormal(0, 1, 200)
        log = [{"progress": p, "loss/net": v} for p, v in zip(share, values, strict=True)]
        alarms += len(list(training_log.oscillating(log)))
    assert alarms == 0


def test_a_run_that_still_improves_is_told_from_one_that_does_not(digits: Data, tmp_path: Path) -> None:
    short = replace(PLAIN, batch=128, steps=60)
    for name, rate, expected in (("improving", 1e-3, ["under-trained"]), ("at rest", 1e-12, [])):
        run = trained(tmp_path / name, TINY["vae-mlp"], digits, replace(short, rate=rate))
        found = list(training_log.undertrained(log_of(run), [], 1.3))
        assert keys(found) == expected, name
    with pytest.raises(Unseen, match="several players"):
        list(training_log.undertrained([{"loss/a": 1.0, "loss/b": 2.0}], [], None))


def test_a_loss_without_a_trend_seldom_seems_to_improve() -> None:
    alarms = 0
    for seed in range(500):
        values = 1 + 0.5 * np.random.default_rng(seed).standard_normal(200)
        log = [{"progress": (i + 1) / 200, "loss/net": v} for i, v in enumerate(values)]
        alarms += len(list(training_log.undertrained(log, [], None)))
    assert alarms <= 5  # 0.13 % are expected


@pytest.mark.parametrize(
    ("values", "improving"),
    [([9.0, 5.0, 3.0, 2.0, 1.5], True), ([9.0, 2.0, 2.1, 1.9, 2.0], False), ([9.0, 3.0, 2.0, 1.95, 1.9], False)],
)
def test_quality_over_time_is_preferred_to_the_loss(values: list[float], improving: bool) -> None:
    points = [{"share": (i + 1) / 5, "kid": value} for i, value in enumerate(values)]
    assert bool(list(training_log.undertrained([], points, None))) == improving


def test_kendalls_chance_is_counted_out() -> None:
    assert training_log.kendall([3, 2, 1]) == pytest.approx(1 / 6)
    assert training_log.kendall([1, 2, 3]) == 1
    assert training_log.kendall([5, 4, 3, 1, 2]) == pytest.approx(5 / 120)  # one order of 10 falls, four of 9


# Runs as a whole


@pytest.mark.parametrize("name", ["vae", "gan", "flow", "autoregressive", "diffusion"])
def test_every_family_is_diagnosed_while_it_trains_and_when_it_is_done(name: str, digits: Data, tmp_path: Path) -> None:
    settings = replace(PLAIN, steps=3)
    run = trained(tmp_path / "run", TINY[name], digits, settings)
    early = diagnose(run, digits)
    assert "mode collapse" in early.not_seen and "leakage between the splits" in early.looked_at
    sample_run(load(run), range(20))
    found = diagnose(run, digits)
    assert "mode collapse" in found.looked_at and "memorisation" in found.not_seen
    assert all(f.evidence and f.advice and f.severity in ("problem", "warning", "note") for f in found.findings)
    written = json.loads((run / "diagnosis.json").read_bytes())
    assert [finding["key"] for finding in written["findings"]] == keys(found.findings)


def test_pictures_of_another_program_and_empty_folders_are_looked_at_as_far_as_they_go(
    digits: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = tmp_path / "judged"
    (judged / "samples" / "main").mkdir(parents=True)
    images = digits.train.pixels(slice(0, 97)).permute(0, 2, 3, 1).numpy()
    np.savez(judged / "samples" / "main" / "samples.npz", images=images)
    (judged / "recipe.json").write_text(json.dumps({"name": "theirs", "kind": "judged", "data": digits.describe()}))
    (judged / "status.json").write_text('{"state": "done"}')
    found = diagnose(judged, digits)
    assert found.findings == [] and "mode collapse" in found.looked_at
    assert "another program" in found.not_seen["the weights"]
    assert found.not_seen["losses that swing"] == "there is no training log"

    (tmp_path / "empty").mkdir()
    assert main(["diagnose", str(tmp_path / "empty")]) == 0
    assert "nothing found" in capsys.readouterr().out
    assert main(["diagnose", str(tmp_path / "nowhere")]) == UsageError.exit_code


def test_damaged_files_are_reasons_not_tracebacks(digits: Data, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", TINY["vae-mlp"], digits, replace(PLAIN, steps=3))
    (run / "metrics.json").write_text("{")
    (run / "log.jsonl").write_text('{"step": 1, "loss/vae": 3.5}\n{"step": 2, "lo')
    shutil.rmtree(run / "checkpoints")
    found = diagnose(run, digits)
    assert "metrics.json is damaged" in found.not_seen["memorisation"]
    assert "no checkpoint" in found.not_seen["the weights"]
