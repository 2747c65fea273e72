"""Bits per dimension: a uniform model has exactly 8, and who has no likelihood says so."""

from __future__ import annotations

import math

import pytest
import torch

from generama.core import Spec
from generama.data import open_data
from generama.errors import NotDefined
from generama.metrics.choice import choose
from generama.metrics.likelihood import bits_per_dim, held_out_bits


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return open_data("digits", cache=tmp_path_factory.mktemp("data")).held_out


class Model:
    """A generator whose log-probability is given as a function of the images."""

    spec = Spec(1, 8, classes=0)
    likelihood, dequantisation = "exact", "none"

    def __init__(self, log_prob):
        self.function = log_prob
        self.labels = []

    def sample(self, rng, cond=None):
        return rng.uniform(1, 8, 8) * 2 - 1

    def log_prob(self, images, cond=None):
        self.labels.append(None if cond is None else cond.label)
        return self.function(images)


def uniform(images):
    return torch.full((len(images),), -64 * math.log(256), dtype=torch.float64)


def test_a_uniform_model_has_exactly_eight_bits(held_out):
    assert bits_per_dim(-784 * math.log(256), 784) == pytest.approx(8, abs=1e-12)
    found = held_out_bits(Model(uniform), held_out)
    assert found.value == pytest.approx(8, abs=1e-12)
    assert found.note.startswith("exact") and f"n = {len(held_out)}" in found.note


def test_a_bound_is_called_a_bound(held_out):
    model = Model(uniform)
    model.likelihood = "bound"
    assert held_out_bits(model, held_out, most=7).note.startswith("bound: the true value is lower; no dequantisation")


@pytest.mark.parametrize(
    ("kind", "dequantisation", "said"),
    [
        ("exact", "none", "exact; no dequantisation; ± "),
        ("exact", "uniform", "exact, of the picture with uniform noise added (uniform dequantisation); ± "),
        (
            "importance-weighted",
            "none",
            "importance-weighted: the true value is lower, and nearer than the bound; no",
        ),
        ("probability-flow ODE", "uniform", "by the probability-flow ODE, of the picture with uniform noise added"),
    ],
)
def test_it_is_said_what_kind_of_number_it_is(held_out, kind, dequantisation, said):
    model = Model(lambda images: uniform(images) + torch.randn(len(images)))
    model.likelihood, model.dequantisation = kind, dequantisation
    found = held_out_bits(model, held_out, most=53)
    assert found.note.startswith(said)
    assert found.low < found.value < found.high
    error = 1 / math.sqrt(53) / (64 * math.log(2))  # of a standard normal number added to the nats of each picture
    assert found.high - found.value == pytest.approx(1.96 * error, rel=0.3)


def test_estimates_repeat_and_leave_the_random_state_alone(held_out):
    model = Model(lambda images: uniform(images) + torch.randn(len(images)))
    state = torch.get_rng_state()
    first = held_out_bits(model, held_out, most=101)
    assert torch.equal(state, torch.get_rng_state()) and first.value != pytest.approx(8, abs=1e-9)
    torch.rand(1)
    assert held_out_bits(model, held_out, most=101) == first


def test_labels_are_given_to_those_who_know_them(held_out):
    blind, seeing = Model(uniform), Model(uniform)
    seeing.spec = Spec(1, 8, classes=10)
    assert "label given" not in held_out_bits(blind, held_out, most=7).note
    assert "label given" in held_out_bits(seeing, held_out, most=7).note
    assert blind.labels == [None] and torch.equal(seeing.labels[0], held_out.labels(choose(len(held_out), 7)))


def test_no_likelihood_is_a_reason_not_a_number(held_out):
    def refuse(images):
        raise NotDefined("the tanh has no inverse")

    found = held_out_bits(Model(refuse), held_out)
    assert found.value is None and "the tanh has no inverse" in found.note

    class Sampler:
        spec = Spec(1, 8)

        def sample(self, rng, cond=None):
            return rng.uniform(1, 8, 8)

    assert held_out_bits(Sampler(), held_out).value is None
    broken = held_out_bits(Model(lambda images: uniform(images) / 0), held_out, most=7)
    assert broken.value is None and "7 of 7" in broken.note


def test_an_impatient_caller_gets_the_first_batch(held_out):
    assert "n = 50 " in held_out_bits(Model(uniform), held_out, patience=0).note


def test_points_have_nats_in_the_note(tmp_path):
    model = Model(lambda images: torch.full((len(images),), -1.25))
    model.spec = Spec(2, 1, levels=0)
    found = held_out_bits(model, open_data("moons", cache=tmp_path).held_out)
    assert found.value is None and found.note.startswith("-1.250 ± 0.000 nats per point")
