"""Extractors: which one is chosen, what it computes, and that nothing is computed twice."""

from __future__ import annotations

import pytest
import torch

from generama.data import open_data
from generama.errors import UsageError
from generama.metrics import classifier
from generama.metrics.cache import content_hash, fetch, store
from generama.metrics.extractors import (
    EXTRACTORS,
    PixelFeatures,
    available,
    class_extractor,
    extractor_for,
    with_classes,
)
from generama.metrics.features import Features, features_of, kept_features
from generama.metrics.inception import PUBLISHED
from generama.metrics.names import distance_name, kernel_name, score_name
from generama.nets.classifier import Classifier


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return open_data("digits", cache=tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def moons(tmp_path_factory):
    return open_data("moons", cache=tmp_path_factory.mktemp("data"))


@pytest.fixture
def briefly(monkeypatch):
    """A classifier trained for ten steps: enough to test everything but its accuracy."""
    monkeypatch.setattr(classifier, "images_to_see", lambda count, size: 640)


@pytest.mark.parametrize("size", [8, 12, 28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_net_takes_every_size(size, channels):
    net = Classifier(channels, size, 5).eval()
    images = torch.rand(3, channels, size, size) * 2 - 1
    features = net.features(images)
    assert features.shape == (3, 64)
    assert torch.equal(net(images), net.logits(features)) and net(images).shape == (3, 5)


def test_training_length_is_bounded():
    assert classifier.images_to_see(4_000, 28) == 24_000
    assert classifier.images_to_see(7_000, 28) == 42_000
    assert classifier.images_to_see(10**6, 32) == 60_000
    assert classifier.images_to_see(10**6, 64) == 15_000


def test_shifts_move_pictures_without_changing_them():
    images = torch.zeros(257, 2, 9, 9)
    images[:, 1, 4, 4] = 1
    moved = classifier.shifted(images, 2)
    assert moved.shape == images.shape and bool((moved.sum((2, 3)) == torch.tensor([0.0, 1.0])).all())
    places = moved[:, 1].flatten(1).argmax(1).unique()
    assert len(places) == 25 and places.min() == 2 * 9 + 2 and places.max() == 6 * 9 + 6


def test_training_repeats_and_leaves_the_random_state_alone(digits, briefly):
    state = torch.get_rng_state()
    (first, facts), (second, _) = classifier.train_classifier(digits), classifier.train_classifier(digits)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert 0.1 < facts["accuracy"] < 1 and facts["images_seen"] == 640


def test_the_classifier_is_kept_and_made_again_where_damaged(digits, briefly, tmp_path, monkeypatch):
    made = extractor_for(digits, cache=tmp_path)
    monkeypatch.setattr(classifier, "train_classifier", lambda data: pytest.fail("trained twice"))
    kept = extractor_for(digits, "classifier", cache=tmp_path)
    assert (kept.key, kept.note) == (made.key, made.note) and "held-out accuracy" in made.note
    monkeypatch.undo()
    monkeypatch.setattr(classifier, "images_to_see", lambda count, size: 640)
    weights = next(tmp_path.glob("classifiers/*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-7])
    assert extractor_for(digits, cache=tmp_path).key == made.key


def test_classifier_features_do_not_depend_on_the_batch(digits, briefly, tmp_path):
    extractor, pixels = extractor_for(digits, cache=tmp_path), digits.held_out.pixels(slice(0, 301))
    whole = features_of(extractor, pixels)
    single = features_of(extractor, pixels[5:6])
    assert whole.values.shape == (301, 64) and whole.probs is not None and whole.probs.shape == (301, 10)
    assert torch.allclose(whole.values[5:6], single.values, atol=1e-5)
    assert torch.allclose(whole.probs.sum(1), torch.ones(301), atol=1e-5)


def test_the_right_extractor_is_chosen(digits, moons, briefly, tmp_path):
    assert extractor_for(digits, cache=tmp_path).name == "classifier"
    assert extractor_for(digits, "pixels", cache=tmp_path).name == "pixels"
    assert extractor_for(moons, cache=tmp_path).name == "pixels"
    with pytest.raises(UsageError, match="use the extractor 'pixels'"):
        extractor_for(moons, "classifier", cache=tmp_path)
    with pytest.raises(
        UsageError, match=r"unknown extractor 'inceptoin'; known: classifier, clip, .*did you mean 'inception'"
    ):
        extractor_for(digits, "inceptoin", cache=tmp_path)
    with pytest.raises(UsageError, match="made of the data and takes no path; write 'pixels'"):
        extractor_for(digits, "pixels:weights.pth", cache=tmp_path)
    assert EXTRACTORS == ("classifier", "pixels", "efficientnet", "inception", "dinov2", "clip")


@pytest.mark.parametrize("name", ["efficientnet", "inception", "dinov2", "clip"])
def test_points_have_no_pretrained_features(moons, tmp_path, name):
    with pytest.raises(UsageError, match="holds points, not pictures; use the extractor 'pixels'"):
        extractor_for(moons, name, cache=tmp_path)


def test_classes_are_the_classifiers_whatever_distances_are_taken_in(digits, moons, briefly, tmp_path):
    pixels = digits.held_out.pixels(slice(0, 29))
    own = features_of(extractor_for(digits, "classifier", cache=tmp_path), pixels)
    assert own.probs is not None and with_classes(own, pixels, digits, tmp_path) is own
    other = with_classes(features_of(extractor_for(digits, "pixels", cache=tmp_path), pixels), pixels, digits, tmp_path)
    assert other.probs is not None and torch.equal(other.probs, own.probs)
    points = Features(torch.zeros(3, 2))
    assert class_extractor(moons, tmp_path) is None
    assert with_classes(points, torch.zeros(3, 2, 1, 1), moons, tmp_path) is points


def test_only_the_published_inception_is_called_as_in_papers():
    names = [(distance_name(name), kernel_name(name), score_name(name)) for name in ("inception", "inception-0a1b2c3d")]
    assert names[0] == ("FID", "KID", "Inception score")
    assert names[1][:2] == ("Fréchet distance (inception-0a1b2c3d)", "Kernel distance (inception-0a1b2c3d)")
    others = [name for name in EXTRACTORS if name != "inception"]
    assert not any("FID" in distance_name(name) or "KID" in kernel_name(name) for name in others)
    assert {score_name(name) for name in others} == {"Inception-style score (classifier)"}


def test_doctor_says_of_every_extractor_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setenv("GENERAMA_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    found = dict(available(tmp_path))
    assert tuple(found) == EXTRACTORS and found["inception"] == "fetches 96 MB on first use"
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / PUBLISHED.file).touch()
    assert dict(available(tmp_path))["inception"] == f"works here: {tmp_path / 'weights' / PUBLISHED.file}"


def test_pixels_are_averaged_and_points_pass(moons, tmp_path):
    images = torch.arange(2 * 3 * 16 * 16, dtype=torch.float32).reshape(2, 3, 16, 16)
    values = PixelFeatures()(images).values
    assert values.shape == (2, 192) and values[0, 0] == images[0, 0, :2, :2].mean()
    assert PixelFeatures()(torch.zeros(5, 1, 7, 7)).values.shape == (5, 49)
    points = moons.held_out.pixels(slice(0, 11))
    assert torch.equal(features_of(extractor_for(moons, cache=tmp_path), points).values, points.flatten(1))


class Counting:
    """An extractor that counts its calls."""

    name, note = "counting", "the mean"

    def __init__(self, key="counting-1"):
        self.key, self.calls = key, 0

    def __call__(self, images):
        self.calls += 1
        return Features(images.mean((2, 3)), scores=images.mean(3).softmax(2)[:, 0])


def test_features_of_the_same_pictures_are_computed_once(digits, tmp_path):
    extractor, pixels = Counting(), digits.train.pixels(slice(0, 31))
    first, second = kept_features(extractor, pixels, tmp_path), kept_features(extractor, pixels.clone(), tmp_path)
    assert extractor.calls == 1 and torch.equal(first.values, second.values) and second.probs is None
    assert first.scores is not None and second.scores is not None and torch.equal(first.scores, second.scores)
    kept_features(extractor, pixels.flip(0), tmp_path)
    assert extractor.calls == 2
    other = Counting(key="counting-2")
    kept_features(other, pixels, tmp_path)
    assert other.calls == 1


def test_the_content_hash_sees_type_shape_and_values():
    zeros = torch.zeros(4, 6)
    others = [zeros.double(), zeros.reshape(6, 4), zeros + 1, torch.zeros(0, 6)]
    assert len({content_hash(tensor) for tensor in [zeros, *others]}) == 5
    assert content_hash(torch.arange(6).reshape(2, 3).T) == content_hash(torch.tensor([[0, 3], [1, 4], [2, 5]]))


def test_a_damaged_entry_is_no_entry(tmp_path):
    assert fetch(tmp_path / "a") is None
    store(tmp_path / "a", {"x": torch.arange(3)}, {"n": 3})
    kept = fetch(tmp_path / "a")
    assert kept is not None and kept[1]["n"] == 3 and torch.equal(kept[0]["x"], torch.arange(3))
    (tmp_path / "a.json").write_text("{")
    assert fetch(tmp_path / "a") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.safetensors"]
