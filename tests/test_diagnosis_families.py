"""What a family finds in itself: on weights trained to have the ailment, or given it by hand, and on healthy ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import TINY
from torch import nn

from generama.adversarial.balance import told_apart, unbalanced
from generama.core import Batch, Family, Finding, Noise
from generama.data import Data, batches, open_data
from generama.diagnosis import training_log
from generama.families import FamilyConfig, build
from generama.families.flow import Flow, FlowConfig
from generama.families.gan import GAN, GANConfig
from generama.families.vae import VAE, VAEConfig
from generama.nets.couplings import Normalise
from generama.nets.mlp import MLPAutoencoderConfig, MLPGANConfig
from generama.settings import TrainSettings
from generama.state import begin, start
from generama.turns import play_round

SETTINGS = TrainSettings(batch=64, clip=10.0)
MLP = MLPAutoencoderConfig(hidden=(67,))


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Data:
    return open_data("digits", cache=tmp_path_factory.mktemp("cache"))


def learned(
    config: FamilyConfig,
    data: Data,
    rounds: int,
    rate: float = 3e-3,
    change=lambda family: None,
    settings: TrainSettings = SETTINGS,
) -> tuple[Family, list[dict[str, float]]]:
    """A family after some rounds of real training, and a log with a line a round; `change` may spoil it first."""
    torch.manual_seed(0)
    family = build(config, data.spec)
    stream = batches(data.train, settings.batch, seed=0)
    begin(family, settings, next(stream))
    change(family)
    state = start(family.train(), settings)
    log = [
        {"progress": (i + 1) / rounds}
        | {k: v.item() for k, v in play_round(state, next(stream), settings, rate).items()}
        for i in range(rounds)
    ]
    return family.eval(), log


def findings(family: VAE | Flow | GAN, data: Data, log: list[dict[str, float]]) -> list[Finding]:
    with torch.no_grad():
        return list(family.examine(data.held_out.batch(slice(0, 211)), Noise(0, 211), log))


def keys(found: list[Finding]) -> list[str]:
    return [finding.key for finding in found]


# Posterior collapse (NF-06)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_vae_whose_kl_weighs_too_much_has_a_collapsed_posterior(digits: Data, conditional: bool) -> None:
    config = VAEConfig(net=MLP, latent=5, beta=1e4, conditional=conditional)
    sick, log = learned(config, digits, 70)
    assert isinstance(sick, VAE)
    (found,) = findings(sick, digits, log)
    assert found.key == "posterior-collapse" and "0 of 5 latents" in found.evidence and "now 10000" in found.advice
    well, log = learned(replace(config, beta=1.0), digits, 70)
    assert isinstance(well, VAE) and findings(well, digits, log) == []


def test_latents_that_are_not_used_are_counted(digits: Data) -> None:
    family, log = learned(VAEConfig(net=MLP, latent=7, conditional=False), digits, 70)
    assert isinstance(family, VAE)
    last = [m for m in family.encoder.modules() if isinstance(m, nn.Linear)][-1]  # 7 means, then 7 log-variances
    with torch.no_grad():
        for latent in (0, 2, 3, 6):
            last.weight[[latent, latent + 7]] = 0
            last.bias[[latent, latent + 7]] = 0
    (found,) = findings(family, digits, log)
    assert found.key == "unused-latents" and found.severity == "note" and "3 of 7 latents" in found.evidence


# A flow and its inverse (NF-07)


@pytest.fixture(scope="module")
def flow(digits: Data) -> Flow:
    family, _ = learned(FlowConfig(), digits, 20)
    assert isinstance(family, Flow)
    return family


def set_scale(flow: Flow, layer: int, s: float) -> str:
    name, module = [(n, m) for n, m in flow.named_modules() if isinstance(m, Normalise)][layer]
    with torch.no_grad():
        module.s.fill_(s)
    return name


def test_a_flow_that_returns_has_no_finding(flow: Flow, digits: Data) -> None:
    assert findings(flow, digits, []) == []


@pytest.mark.parametrize(("s", "key"), [(-60.0, "inverse-does-not-return"), (200.0, "flow-not-finite")])
def test_a_singular_or_overflowing_layer_is_found(flow: Flow, digits: Data, s: float, key: str) -> None:
    saved = {name: value.clone() for name, value in flow.state_dict().items()}
    layer = set_scale(flow, 2, s)
    (found,) = findings(flow, digits, [])
    flow.load_state_dict(saved)
    assert found.key == key
    assert layer in found.title or "held-out pictures is off by" in found.evidence


def test_a_flow_of_points_returns(tmp_path) -> None:
    moons = open_data("moons", cache=tmp_path)
    family, log = learned(FlowConfig(dense=67), moons, 30)
    assert isinstance(family, Flow) and findings(family, moons, log) == []
    set_scale(family, 1, -60.0)
    assert keys(findings(family, moons, log)) == ["inverse-does-not-return"]


# The game of a GAN (NF-05)


def standing_still(player: str):
    """Zero gradients for one player, as of a rate that is far too small."""

    def change(family: Family) -> None:
        assert isinstance(family, GAN)
        for parameter in family.get_submodule(player).parameters():
            parameter.register_hook(torch.zeros_like)

    return change


GAME = GANConfig(net=MLPGANConfig(generator=(67,), discriminator=(67,)), latent=7, smoothing=0.0, conditional=False)


@pytest.mark.parametrize(
    ("player", "key"), [("generator", "discriminator-too-strong"), ("discriminator", "discriminator-too-weak")]
)
def test_a_player_that_stands_still_loses(digits: Data, player: str, key: str) -> None:
    family, log = learned(GAME, digits, 120, change=standing_still(player))
    assert isinstance(family, GAN)
    (found,) = findings(family, digits, log)
    assert found.key == key and "in the last quarter of the training it was right about" in found.evidence


def test_a_game_with_much_momentum_and_rate_swings(tmp_path) -> None:
    ring = open_data("ring", cache=tmp_path)
    small = replace(GAME, net=MLPGANConfig(generator=(16,), discriminator=(16,)), latent=2)
    _, log = learned(small, ring, 300, rate=8e-2, settings=TrainSettings(batch=32, clip=0, betas=(0.9, 0.9)))
    (found,) = training_log.oscillating(log)
    assert found.key == "oscillation" and "the generator's went between" in found.evidence
    _, log = learned(small, ring, 60, rate=1e-3, settings=TrainSettings(batch=32, clip=0, betas=(0.5, 0.999)))
    assert list(training_log.oscillating(log)) == []


def test_a_fair_game_is_not_called_unfair(digits: Data) -> None:
    family, log = learned(GAME, digits, 200, rate=1e-3)
    assert isinstance(family, GAN) and findings(family, digits, log) == []
    even = [{f"discriminator/{kind}_accuracy": 0.5 for kind in ("real", "fake")} | {"loss/generator": 0.7}] * 20
    assert unbalanced(even, told=0.52) == []  # nobody can tell: this is the optimum
    assert unbalanced([], told=1.0) == []


def test_pictures_are_told_apart_as_far_as_they_differ() -> None:
    stream = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 301, 1, 3, 3, generator=stream)
    assert abs(told_apart(a, b) - 0.5) < 0.08
    assert told_apart(a, b + 9) == 1


@pytest.mark.parametrize("name", ["vae", "gan", "flow"])
def test_a_family_examines_itself_before_it_has_learned_anything(name: str, digits: Data) -> None:
    torch.manual_seed(0)
    family = build(TINY[name], digits.spec)
    assert isinstance(family, VAE | GAN | Flow)
    batch: Batch = digits.held_out.batch(slice(0, 13))
    with torch.no_grad():
        assert all(isinstance(finding, Finding) for finding in family.eval().examine(batch, Noise(0, 13), []))
