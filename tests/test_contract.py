"""One contract, run over every family: what a learner may rely on, whatever the mathematics inside."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import TINY

from generama.core import Batch, Condition, Family, Likelihood, Noise, Rng, Spec, check_options, sample_options
from generama.errors import NotDefined, UsageError
from generama.execution import plain, prepare
from generama.families import build
from generama.run import draw
from generama.settings import TrainSettings
from generama.state import begin, start
from generama.turns import learning, play_round

SPEC = Spec(channels=1, size=8, classes=3)
every_family = pytest.mark.parametrize("name", TINY)


def family_and_batch(name: str, spec: Spec = SPEC, count: int = 5) -> tuple[Family, Batch]:
    torch.manual_seed(0)
    family = build(TINY[name], spec)
    level = torch.randint(0, 256, (count, *spec.shape))
    label = torch.arange(count) % spec.classes if spec.classes else None
    return family, Batch(level / 127.5 - 1, Condition(label))


def moved(name: str, rounds: int = 3, spec: Spec = SPEC) -> Family:
    """A family a few rounds old, so that no parameter is at its special start."""
    family, batch = family_and_batch(name, spec)
    begin(family, TrainSettings(), batch)
    state = start(family.train(), TrainSettings())
    for _ in range(rounds):
        play_round(state, batch, TrainSettings(), rate=1e-3)
    return family.eval()


@every_family
def test_every_player_has_a_finite_loss_and_gradients_for_its_own_parameters_alone(name: str) -> None:
    family, batch = family_and_batch(name)
    begin(family, TrainSettings(), batch)
    state = start(family.train(), TrainSettings())
    for player in state.players:
        own = {id(p) for p in player.module.parameters()}
        with learning(state, player):
            loss, extras = player.loss(batch, Noise(0, 5))
            assert loss.shape == () and math.isfinite(loss.item())
            assert all(not value.requires_grad and value.isfinite().all() for value in extras.values())
            loss.backward()
        for parameter in family.parameters():
            assert (parameter.grad is not None) == (id(parameter) in own)
            parameter.grad = None


@every_family
def test_every_parameter_belongs_to_exactly_one_player(name: str) -> None:
    family, _ = family_and_batch(name)
    owned = [id(p) for player in family.players() for p in player.module.parameters()]
    assert sorted(owned) == sorted(id(p) for p in family.parameters())


@every_family
@pytest.mark.parametrize("spec", [SPEC, Spec(3, 8, 0), Spec(1, 28, 10)], ids=["8-grey", "8-colour", "28-grey"])
def test_samples_have_the_shape_and_range_of_the_data(name: str, spec: Spec) -> None:
    images = moved(name, 1, spec).sample(Rng([3, 5]))
    assert images.shape == (2, *spec.shape) and images.dtype == torch.float32
    assert images.isfinite().all() and images.abs().max() <= 1


@every_family
def test_an_image_depends_on_its_seed_and_not_on_its_batch(name: str) -> None:
    family = moved(name)
    seeds = [11, 2, 7, 5]
    together = draw(family, seeds, None, 4, torch.device("cpu"))
    alone = draw(family, seeds, None, 1, torch.device("cpu"))
    assert torch.allclose(together, alone, atol=1e-4)
    assert torch.equal(together, draw(family, seeds, None, 4, torch.device("cpu")))
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@every_family
def test_saved_weights_give_identical_samples(name: str) -> None:
    family = moved(name)
    again, _ = family_and_batch(name)
    prepare(again, plain(again)).load_state_dict(family.state_dict(), strict=True)
    assert torch.equal(family.sample(Rng([1, 2])), again.eval().sample(Rng([1, 2])))


@every_family
def test_unknown_options_are_refused_with_the_known_ones(name: str) -> None:
    family, _ = family_and_batch(name)
    with pytest.raises(UsageError, match="unknown sampling option 'temprature'"):
        check_options(family, {"temprature": 1.0})
    check_options(family, {option: p.default for option, p in sample_options(family).items()})


@every_family
def test_labels_reach_the_image_and_are_checked(name: str) -> None:
    family = moved(name, rounds=20)
    if not family.spec.classes:
        with pytest.raises(UsageError, match="without labels"):
            family.sample(Rng([1]), Condition(torch.tensor([0])))
        return
    zero, one = (family.sample(Rng([4]), Condition(torch.tensor([label]))) for label in (0, 1))
    assert not torch.equal(zero, one)
    with pytest.raises(UsageError, match="labels run from 0 to 2"):
        family.sample(Rng([1]), Condition(torch.tensor([3])))


@every_family
def test_likelihoods_are_finite_and_do_not_depend_on_the_batch(name: str) -> None:
    family = moved(name)
    _, batch = family_and_batch(name)
    if not isinstance(family, Likelihood):
        return
    try:
        torch.manual_seed(1)
        nats = family.log_prob(batch.images, batch.cond)
    except NotDefined as reason:
        assert len(str(reason)) > 20
        return
    assert nats.shape == (5,) and nats.isfinite().all()
    if SPEC.levels and family.likelihood != "exact":
        return
    torch.manual_seed(1)
    first = family.log_prob(batch.images[:1], batch.cond.map(lambda value: value[:1]))
    assert torch.allclose(first, nats[:1], rtol=1e-3)


@every_family
def test_a_family_says_what_an_image_costs(name: str) -> None:
    family, _ = family_and_batch(name)
    defaults = {option: p.default for option, p in sample_options(family).items()}
    assert family.evaluations(**defaults) >= 1


@every_family
def test_a_resumed_round_draws_the_noise_of_an_unbroken_one(name: str) -> None:
    results = []
    for broken in (False, True):
        family, batch = family_and_batch(name)
        begin(family, TrainSettings(), batch)
        state = start(family.train(), TrainSettings())
        for step in range(3):
            if broken and step == 2:
                torch.manual_seed(12345)  # another process has another history
            logs = play_round(state, batch, TrainSettings(), rate=1e-3)
        results.append((logs, [p.clone() for p in family.parameters()]))
    (logs, weights), (logs_again, weights_again) = results
    assert all(torch.equal(logs[key], logs_again[key]) for key in logs)
    assert all(torch.equal(a, b) for a, b in zip(weights, weights_again, strict=True))
