"""Evaluation as a whole: planted faults are found, real pictures reach the floor, wrong input is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from generama.core import Spec
from generama.data import open_data
from generama.errors import DataError, UsageError
from generama.evaluation import evaluate_images, evaluate_run
from generama.metrics.checking import checked
from generama.metrics.choice import choose
from generama.metrics.extractors import extractor_for
from generama.metrics.features import Features
from generama.metrics.quality import distance_measures
from generama.metrics.recognised import published_score
from generama.recipes import recipe
from generama.report.ranking import differences
from generama.run import Record, Run

DISTANCES = {"frechet", "frechet_infinity", "kid", "mind", "precision", "recall", "density", "coverage"}
COPIES = {"memorised", "authentic", "duplicates"}
CLASSES = {"inception_score", "class_entropy", "missing_classes", "confidence", "conditional_accuracy"}
COST = {"seconds_per_image", "seconds_one", "evaluations", "parameters", "train_seconds", "images_seen"}
COST |= {"train_flops", "peak_memory"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def digits(cache):
    return open_data("digits", cache=cache / "data")


@pytest.fixture(scope="module")
def extractor(digits, cache):
    return extractor_for(digits, cache=cache)


@pytest.fixture(scope="module")
def measured(digits, extractor, cache):
    """evaluate_images against digits, with or without labels."""
    return lambda images, labels=None: evaluate_images(images, labels, digits, extractor, cache=cache)


def test_the_classifier_is_good_enough(extractor):
    assert extractor.accuracy > 0.97


def test_held_out_pictures_reach_the_floor_exactly(digits, measured):
    every = choose(len(digits.held_out), len(digits.held_out))
    found = measured(digits.held_out.pixels(every), digits.held_out.labels(every))
    assert found.n == len(digits.held_out) and sum(found.histogram) == found.n
    for name, measure in found.measures.items():
        if measure.value is None:
            assert name == "frechet_infinity" and "needs 768 samples" in measure.note
            continue
        assert measure.value == pytest.approx(measure.floor, abs=1e-9), name
        if name in {"missing_classes", "duplicates"}:
            assert measure.low is None and measure.high is None
        else:
            assert measure.low <= measure.value <= measure.high and measure.low < measure.high, name
    assert found.measures["missing_classes"].value == 0
    assert found.measures["conditional_accuracy"].value > 0.97
    assert found.measures["memorised"].value < 0.01


def test_a_dropped_mode_is_seen(digits, measured):
    labels = digits.train.labels(slice(None))
    low = digits.train.pixels((labels < 5).nonzero()[:400, 0])
    found = measured(low).measures
    assert found["missing_classes"].value == 5 and found["missing_classes"].floor == 0
    for name in ("recall", "coverage", "inception_score", "class_entropy"):
        assert found[name].value < 0.75 * found[name].floor, name
    assert found["precision"].value > 0.9 * found["precision"].floor
    assert found["frechet"].value > 10 * found["frechet"].floor
    assert found["conditional_accuracy"].value is None
    assert found["memorised"].value == 1  # they are training pictures
    assert found["frechet"].low > 10 * found["frechet"].floor and found["coverage"].high < found["coverage"].floor


def test_a_memoriser_is_named_by_memorised_and_authentic_and_by_no_distance(digits, measured):
    noise = 4 * torch.randn(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = choose(len(digits.train), 300)
    noisy = (digits.train.pixels(rows) + noise).round().clamp(0, 255).to(torch.uint8)
    found = measured(noisy)
    assert found.measures["memorised"].low > 0.95 and found.measures["memorised"].floor < 0.01
    assert found.measures["authentic"].high < 0.02 and found.measures["authentic"].floor > 0.4
    for name in ("precision", "recall", "density", "coverage", "inception_score"):
        assert found.measures[name].value > 0.95 * found.measures[name].floor, name
    assert found.measures["frechet"].value < 2 * found.measures["frechet"].floor
    assert found.measures["duplicates"].value < 0.02
    assert [pair["train"] for pair in found.nearest] == [rows[pair["sample"]] for pair in found.nearest]


def test_a_blurrer_is_named_by_precision_density_and_confidence(digits, measured):
    every = choose(len(digits.held_out), len(digits.held_out))
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    blurred = torch.nn.functional.conv2d(digits.held_out.pixels(every).float(), kernel[None, None], padding=1)
    found = measured(blurred.round().to(torch.uint8)).measures
    for name in ("precision", "density", "confidence"):
        assert found[name].high < 0.9 * found[name].floor, name
    assert found["missing_classes"].value <= 1 and found["memorised"].value < 0.01
    assert found["authentic"].low > found["authentic"].floor


def test_a_repeater_is_named_by_duplicates(digits, measured):
    few = digits.held_out.pixels(slice(0, 73)).repeat(4, 1, 1, 1)
    found = measured(few)
    assert found.measures["duplicates"].value == 1 and found.measures["duplicates"].floor < 0.02
    assert found.measures["precision"].value > 0.9 * found.measures["precision"].floor
    assert found.measures["coverage"].high < found.measures["coverage"].floor
    assert len(found.duplicates) == 16
    assert all(pair["distance"] == 0 and (pair["b"] - pair["a"]) % 73 == 0 < pair["b"] for pair in found.duplicates)


def test_copies_are_shown_with_their_originals(digits, measured):
    found = measured(digits.train.pixels(slice(7, 307)))
    assert found.measures["memorised"].value == 1 and found.measures["memorised"].floor < 0.01
    assert len(found.nearest) == 16
    assert all(pair["distance"] == 0 < pair["held_out_distance"] for pair in found.nearest)
    assert all(pair["train"] == pair["sample"] + 7 for pair in found.nearest)


def test_noise_is_worse_than_the_floor_everywhere(measured):
    noise = torch.randint(256, (400, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = measured(noise, torch.arange(400) % 10).measures
    for name in ("frechet", "kid"):
        assert found[name].value > 5 * max(found[name].floor, 0.01), name
    for name in ("precision", "density", "coverage", "confidence", "conditional_accuracy"):
        assert found[name].value < found[name].floor, name


def test_one_n_for_both_sides(digits, measured):
    pictures = digits.train.pixels(slice(None))
    assert measured(pictures).n == len(digits.held_out)  # the first of too many samples
    few = measured(pictures[:53])
    assert few.n == 53 and "floor: 53 held-out" in few.reference
    assert few.measures["frechet"].note == "unreliable: n = 53 < 64 feature dimensions"
    assert measured(pictures[:67]).measures["frechet"].note == ""
    tiny = measured(pictures[:3]).measures
    assert tiny["precision"].value is None and "more than 5" in tiny["precision"].note
    assert tiny["frechet"].value is not None


def test_inceptions_own_classes_give_the_inception_score_alone():
    even = torch.full((6, 4), 0.25)
    sure = torch.eye(4)[[0, 1, 2, 3, 0, 1]]
    fake, real = Features(torch.zeros(6, 2), scores=even), Features(torch.zeros(6, 2), scores=sure[:4])
    found = published_score(fake.scores, real.scores)["inception_score"]
    assert (found.value, found.floor) == (pytest.approx(1), pytest.approx(4)) and "Inception's own" in found.note
    assert published_score(None, real.scores) == {}


def test_each_class_is_measured_by_itself(digits, measured):
    every = choose(len(digits.held_out), len(digits.held_out))
    pictures, labels = digits.held_out.pixels(every), digits.held_out.labels(every)
    pictures[labels == 3] = 255 - pictures[labels == 3]
    found = measured(pictures, labels).per_class
    assert set(found) == {"kid", "precision", "recall", "coverage", "conditional_accuracy"}
    assert all(len(values) == 10 for values in found.values())
    for key in ("precision", "recall", "coverage", "conditional_accuracy"):
        assert found[key][3] < 0.5 < min(value for c, value in enumerate(found[key]) if c != 3), key
    assert found["kid"][3] > 5 * max(value for c, value in enumerate(found["kid"]) if c != 3)
    some = measured(pictures[labels < 2], labels[labels < 2]).per_class
    assert some["kid"][2:] == some["precision"][2:] == some["conditional_accuracy"][2:] == [None] * 8
    seen = measured(pictures[labels != 3]).per_class  # nobody asked: as the classifier sees them
    assert "conditional_accuracy" not in seen and min(x for c, x in enumerate(seen["precision"]) if c != 3) > 0.5


def test_classes_are_seen_by_the_classifier_whatever_measures_the_distances(digits, cache, measured):
    pictures = digits.held_out.pixels(slice(0, 101))
    pixels = evaluate_images(pictures, None, digits, extractor_for(digits, "pixels", cache=cache), cache=cache)
    own = measured(pictures)
    assert (pixels.extractor, own.extractor) == ("pixels", "classifier")
    assert pixels.histogram == own.histogram and sum(own.histogram) == 101
    assert pixels.measures["inception_score"] == own.measures["inception_score"]
    assert pixels.measures["frechet"].value != own.measures["frechet"].value
    assert differences(pixels.protocol, own.protocol) == ["extractor"]
    assert own.protocol["split"] == "train" and own.protocol["n"] == 101 and own.protocol["data"] == digits.meta.hash


def test_distances_do_not_depend_on_order(digits, measured):
    pictures = digits.train.pixels(slice(0, 211))
    first, second = measured(pictures).measures, measured(pictures.flip(0)).measures
    for name, measure in first.items():
        assert measure.value is None or measure.value == pytest.approx(second[name].value, abs=1e-5), name


def test_fewer_samples_than_dimensions_are_called_unreliable():
    a = torch.randn(53, 97, generator=torch.Generator().manual_seed(0))
    found = distance_measures(a, a + 0.1, a.flip(1), 5)["frechet"]
    assert "unreliable" in found.note and math.isfinite(found.value)


def test_points_are_measured_by_their_coordinates(cache):
    moons = open_data("moons", cache=cache / "data")
    real = moons.held_out.pixels(slice(0, 307))
    good, bad = (evaluate_images(points, None, moons, cache=cache) for points in (real, real * 0.2))
    assert good.extractor == "pixels" and good.histogram is None
    assert bad.measures["frechet"].value > 10 * good.measures["frechet"].value
    assert good.measures["inception_score"].value is None


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (torch.rand(5, 1, 8, 8), r"float32 from .* pass \(images \* 255\)"),
        (torch.rand(5, 1, 8, 8) * 2 - 1, r"from -0\.\d+ to 0\.\d+; pass generama.pixels.to_bytes"),
        (torch.rand(5, 1, 8, 8).double() * 255, r"float64 .* pass images.round\(\)"),
        (torch.full((5, 1, 8, 8), torch.nan), "NaN"),
        (torch.zeros(5, 1, 8, 8, dtype=torch.int64), "uint8 in 0..255; these are int64"),
        (np.zeros((5, 8, 8, 1), np.uint8), "channels last"),
        (np.zeros((5, 3, 8, 8), np.uint8), "open the data as they are: --size 8$"),
        (np.zeros((5, 1, 28, 28), np.uint8), "--size 28 --grey"),
        (np.zeros((5, 64), np.uint8), "pass a batch of that shape"),
        (np.zeros((1, 1, 8, 8), np.uint8), "at least 2"),
    ],
)
def test_wrong_images_are_refused_with_what_to_do(images, sentence):
    with pytest.raises(UsageError, match=sentence):
        checked(images, Spec(1, 8))


def test_points_that_diverged_are_refused():
    points = torch.zeros(5, 2, 1, 1)
    assert torch.equal(checked(points, Spec(2, 1, levels=0)), points)
    with pytest.raises(UsageError, match="diverged"):
        checked(points / 0, Spec(2, 1, levels=0))


class Uniform:
    """A generator of uniform bytes that knows its probability."""

    likelihood, dequantisation = "exact", "none"

    def __init__(self, spec):
        self.spec = spec

    def sample(self, rng, cond=None):
        return rng.uniform(*self.spec.shape) * 2 - 1

    def log_prob(self, images, cond=None):
        return torch.full((len(images),), -self.spec.dims * math.log(256), dtype=torch.float64)


@pytest.fixture
def run(tmp_path, digits):
    """A finished run folder with 101 samples, as training and sampling leave it."""
    rng = np.random.default_rng(0)
    (tmp_path / "samples" / "main").mkdir(parents=True)
    images, labels = rng.integers(0, 256, (101, 8, 8, 1), np.uint8), np.arange(101) % 10
    np.savez(tmp_path / "samples" / "main" / "samples.npz", images=images, seeds=np.arange(101), labels=labels)
    manifest = {"n": 101, "seconds_per_image": 0.25, "evaluations": 7, "batch": 32}
    status = {"state": "done", "parameters": 11, "seconds": 13.5, "images": 1700, "peak_memory": None}
    (tmp_path / "samples" / "main" / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "status.json").write_text(json.dumps(status))
    Run.create(tmp_path, Record("vae", recipe("vae"), digits.spec, digits.describe(), {}, "test"))
    return tmp_path


def test_a_run_is_measured_and_written(run, digits, extractor, cache):
    found = evaluate_run(run, data=digits, generator=Uniform(digits.spec), cache=cache)
    written = json.loads((run / "metrics.json").read_bytes())
    told = {"n", "extractor", "extractor_note", "reference", "protocol", "histogram", "nearest", "duplicates"}
    assert set(written) == told | {"measures", "per_class"}
    assert set(written["measures"]) == DISTANCES | CLASSES | COPIES | COST | {"bits_per_dim"}
    assert written["measures"]["bits_per_dim"]["value"] == pytest.approx(8, abs=1e-12)
    assert written["measures"]["frechet"]["value"] == found.measures["frechet"].value
    assert written["measures"]["train_seconds"]["value"] == 13.5
    nothing = {"value": None, "floor": None, "note": "not recorded", "low": None, "high": None}
    assert written["measures"]["peak_memory"] == nothing
    assert written["n"] == 101 and "accuracy" in written["extractor_note"]


def test_the_data_is_opened_from_what_the_run_says(run, extractor, cache, monkeypatch):
    monkeypatch.setenv("GENERAMA_CACHE", str(cache))
    found = evaluate_run(run, generator=Uniform(Spec(1, 8, 10)), cache=cache)
    assert found.extractor == "classifier"


def test_a_run_without_samples_or_with_other_data_is_refused(run, digits, extractor, cache):
    other = replace(digits, meta=replace(digits.meta, hash="0" * 64))
    with pytest.raises(DataError, match="trained on other content"):
        evaluate_run(run, data=other, cache=cache)
    samples = run / "samples" / "main" / "samples.npz"
    samples.write_bytes(samples.read_bytes()[:100])
    with pytest.raises(DataError, match="damaged"):
        evaluate_run(run, data=digits, cache=cache)
    samples.unlink()
    with pytest.raises(UsageError, match="generama sample"):
        evaluate_run(run, data=digits, cache=cache)
    assert not (run / "metrics.json").exists()
