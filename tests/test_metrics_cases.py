"""The measuring faults ME-01 to ME-11: what went wrong in other systems, by number, as tests of this one."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from prdc import compute_prdc
from sklearn.metrics.pairwise import polynomial_kernel
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from generama.core import Spec
from generama.data import open_data
from generama.errors import UsageError
from generama.evaluation import evaluate_images
from generama.metrics import pairs
from generama.metrics.checking import checked
from generama.metrics.classes import inception_score
from generama.metrics.distances import frechet, frechet_from_moments
from generama.metrics.extractors import extractor_for
from generama.metrics.kernel import kid
from generama.metrics.memorisation import memorised, nearest
from generama.metrics.neighbours import precision_recall_density_coverage
from generama.metrics.protocol import protocol
from generama.report.ranking import differences
from tests.toys import mixture


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Given(torch.nn.Module):
    """torchmetrics' extractor of features, given features."""

    def __init__(self, dims):
        super().__init__()
        self.num_features = dims

    def forward(self, x):
        return x


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return open_data("digits", cache=tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(("dims", "c"), [(1, 0.25), (7, 9.0), (61, 1.0)])
def test_me_01_frechet_closed_form(dims, c):
    mean, eye = normal(0, dims), torch.eye(dims, dtype=torch.float64)
    expected = mean.square().sum().item() + dims * (1 - c**0.5) ** 2
    assert frechet_from_moments(torch.zeros(dims), eye, mean, c * eye) == pytest.approx(expected, abs=1e-8)
    few = normal(1, 5, dims)  # fewer than dimensions: never imaginary, never NaN
    assert 0 <= frechet(few, few.clone()) < 1e-6
    assert math.isfinite(frechet(few, 1e6 * few))


def test_me_02_frechet_of_a_set_with_itself_in_any_order_and_tile(monkeypatch):
    a, b = normal(2, 211, 13), normal(3, 199, 13) + 0.2
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet(a.flip(0), b) == pytest.approx(frechet(a, b), rel=1e-9)
    assert frechet(b, a) == pytest.approx(frechet(a, b), rel=1e-9)
    whole = kid(a, b), precision_recall_density_coverage(a, b)
    monkeypatch.setattr(pairs, "TILE", 29)
    assert kid(a, b) == pytest.approx(whole[0], rel=1e-9)
    assert precision_recall_density_coverage(a.flip(0), b.flip(0)) == whole[1]


@pytest.fixture(scope="module")
def features():
    """Two sets of features as a network gives them: correlated, cut at 0."""
    mixed = normal(4, 37, 37) * torch.logspace(0, -2, 37, dtype=torch.float64)
    return (normal(5, 307, 37) @ mixed).relu(), (1.1 * normal(6, 307, 37) @ mixed + 0.02).relu()


def test_me_03_the_same_numbers_as_torchmetrics(features):
    real, fake = features
    distance = FrechetInceptionDistance(feature=Given(37), normalize=True, input_img_size=(37,)).set_dtype(
        torch.float64
    )
    kernel = KernelInceptionDistance(feature=Given(37), normalize=True, subsets=1, subset_size=307)
    score = InceptionScore(feature=Given(11), splits=1)
    for metric in (distance, kernel):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    score.update(fake[:, :11])
    assert frechet(real, fake) == pytest.approx(distance.compute().item(), rel=1e-6)
    assert kid(real, fake) == pytest.approx(kernel.compute()[0].item(), rel=1e-6)
    assert inception_score(fake[:, :11].softmax(1)) == pytest.approx(score.compute()[0].item(), rel=1e-6)


def test_me_03_the_same_numbers_as_prdc_scikit_learn_and_scipy(features):
    real, fake = features
    theirs = compute_prdc(real.numpy(), fake.numpy(), 5)
    assert vars(precision_recall_density_coverage(real, fake)) == pytest.approx(theirs, rel=1e-6)
    within = [polynomial_kernel(x.numpy()) for x in features]  # degree 3, coefficient 1, gamma 1 / D
    own = sum((table.sum() - np.trace(table)) / (307 * 306) for table in within)
    between = polynomial_kernel(real.numpy(), fake.numpy()).mean()
    assert kid(real, fake) == pytest.approx(own - 2 * between, rel=1e-6)
    covs = [np.cov(x.numpy(), rowvar=False) for x in features]
    gap = (real.mean(0) - fake.mean(0)).square().sum().item()
    root = scipy.linalg.sqrtm(covs[0] @ covs[1]).real
    assert frechet(real, fake) == pytest.approx(gap + np.trace(covs[0] + covs[1] - 2 * root), rel=1e-6)


def test_me_03_large_sets_in_float32_give_the_same(features, monkeypatch):
    real, fake = (side.float() for side in features)
    wanted = kid(real, fake), precision_recall_density_coverage(real, fake)
    monkeypatch.setattr(pairs, "EXACT", 0)
    assert pairs.sides(real, fake)[0].left.dtype == torch.float32
    assert kid(real, fake) == pytest.approx(wanted[0], rel=1e-4)  # of a small difference of large sums
    assert precision_recall_density_coverage(real, fake) == wanted[1]
    copies = torch.cat([fake[:53], real[:41]])
    assert bool(pairs.exact(copies[53:], real[:41]).eq(0).all())
    line, edges = torch.arange(4.0)[:, None], torch.tensor([[-1.0], [4.0], [100.0], [101.0]])  # balls of radius 1
    assert precision_recall_density_coverage(line, edges, 1).precision == 0  # the edge is outside in float32 as well


def test_me_04_too_few_or_unequal_are_refused_or_told(digits, tmp_path):
    with pytest.raises(UsageError, match="at least 2"):
        frechet(normal(7, 1, 3), normal(8, 5, 3))
    with pytest.raises(UsageError, match="at least 2"):
        evaluate_images(digits.train.pixels(slice(1)), None, digits, cache=tmp_path)
    pixels = extractor_for(digits, "pixels", cache=tmp_path)
    few = evaluate_images(digits.train.pixels(slice(0, 53)), None, digits, pixels, cache=tmp_path).measures
    assert few["frechet"].note == "unreliable: n = 53 < 64 feature dimensions"
    assert few["frechet_infinity"].value is None and "needs 768 samples" in few["frechet_infinity"].note
    row = protocol(digits, "weights-1", 1_000, 1_437)
    assert differences(row, dict(row)) == []
    other = replace(digits, spec=replace(digits.spec, size=16, channels=3))
    for changed, keys in (
        (protocol(digits, "weights-1", 997, 1_437), ["n"]),
        (protocol(digits, "weights-2", 1_000, 1_437), ["extractor"]),
        (protocol(digits, "weights-1", 1_000, 1_000), ["reference_n"]),
        (protocol(other, "weights-1", 1_000, 1_437), ["size", "channels"]),
        (row | {"split": "held-out"}, ["split"]),
        (row | {"data": "f00d"}, ["data"]),
    ):
        assert differences(row, changed) == keys  # test_uncertainty.py has what the page then says


def test_me_05_kid_is_unbiased():
    draws = torch.tensor([kid(normal(2 * i, 23, 5), normal(2 * i + 1, 29, 5)) for i in range(200)])
    assert abs(draws.mean()) < 3 * draws.std() / 200**0.5


def test_me_06_a_tight_cluster_is_precise_and_recalls_little():
    found = precision_recall_density_coverage(normal(9, 499, 5), normal(10, 499, 5) * 0.2)
    assert found.precision > 0.8 and found.recall < 0.3


def test_me_07_jpeg_and_resizing_move_the_distance_and_another_size_is_another_protocol(digits, tmp_path):
    pictures = digits.train.pixels(slice(0, 200))

    def through_jpeg(picture):
        buffer = io.BytesIO()
        Image.fromarray(picture[0].numpy()).save(buffer, "JPEG", quality=75)
        return torch.from_numpy(np.array(Image.open(buffer)))[None]

    pixels = extractor_for(digits, "pixels", cache=tmp_path)
    squeezed = torch.stack([through_jpeg(picture) for picture in pictures])
    plain, lossy = (evaluate_images(x, None, digits, pixels, cache=tmp_path).measures for x in (pictures, squeezed))
    assert lossy["frechet"].value != pytest.approx(plain["frechet"].value, rel=0.01)
    with pytest.raises(UsageError, match="--size 16"):  # both sides are measured at one size, or not at all
        checked(torch.zeros(5, 1, 16, 16, dtype=torch.uint8), digits.spec)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (torch.rand(5, 3, 8, 8), r"float32 from .* pass \(images \* 255\)"),
        (torch.rand(5, 3, 8, 8) * 2 - 1, r"from -0\.\d+ to 0\.\d+; pass generama.pixels.to_bytes"),
        (torch.zeros(5, 8, 8, 3, dtype=torch.uint8), "channels last"),
        (torch.zeros(5, 1, 8, 8, dtype=torch.uint8), "--grey"),
    ],
)
def test_me_08_wrong_ranges_and_layouts_are_refused(images, sentence):
    with pytest.raises(UsageError, match=sentence):
        checked(images, Spec(3, 8))


def test_me_08_swapped_colours_are_another_distance():
    """Bytes in the order BGR cannot be told from RGB by looking; they do not pass as equal either."""
    rgb = mixture(3, 200)[:, :12]
    bgr = rgb.view(-1, 3, 4).flip(1).reshape(-1, 12)
    assert frechet(rgb, bgr) > 10 * frechet(rgb, mixture(4, 200)[:, :12])


def test_me_10_copies_of_training_pictures_are_flagged(digits):
    train = digits.train.pixels(slice(None))
    assert bool(memorised(nearest(train[:101], train)).all())
    assert memorised(nearest(digits.held_out.pixels(slice(0, 101)), train)).double().mean() < 0.02


@pytest.mark.parametrize("value", [0, 255])
def test_da_12_pictures_without_variance_divide_by_nothing(digits, tmp_path, value):
    flat = torch.full((61, 1, 8, 8), value, dtype=torch.uint8)
    found = evaluate_images(flat, None, digits, extractor_for(digits, "pixels", cache=tmp_path), cache=tmp_path)
    for name, measure in found.measures.items():
        numbers = [x for x in (measure.value, measure.low, measure.high) if x is not None]
        assert all(math.isfinite(x) for x in numbers), name
    assert found.measures["duplicates"].value == 1 and found.measures["duplicates"].floor < 0.02
    assert found.measures["recall"].value == 0
    assert frechet(torch.zeros(5, 3), torch.zeros(7, 3)) == kid(torch.zeros(5, 3), torch.zeros(7, 3)) == 0
