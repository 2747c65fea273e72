"""Guidance by a classifier and by an earlier state of the model: identities, linearity, refusals, and what it does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import TINY, UNET
from torch import Tensor

import generama
from generama.core import Batch, Condition, Guided, Rng, Spec
from generama.errors import UsageError
from generama.families.diffusion import Diffusion, DiffusionConfig
from generama.families.gan import GANConfig
from generama.gaussian.formulations import DDPM, EDM, Formulation, RectifiedFlow
from generama.gaussian.options import Sampling
from generama.nets.mlp import MLPGANConfig
from generama.nets.noisy_classifier import NoisyClassifier
from generama.recipes import Recipe
from generama.settings import TrainSettings
from generama.state import start
from generama.turns import play_round

SPEC = Spec(1, 8, 3)
CENTRES = torch.tensor([[0.8, 0.0], [-0.4, 0.7], [-0.4, -0.7]])


def untrained(seed: int, classifier: int | None = None, formulation: Formulation | None = None) -> Diffusion:
    """A model whose zero layers are not zero, so that it does something."""
    torch.manual_seed(seed)
    config = DiffusionConfig(net=UNET, classifier=classifier, formulation=formulation or RectifiedFlow())
    family = Diffusion(config, SPEC).eval()
    for parameter in family.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return family


def velocity_under(family: Diffusion, y: Tensor, t: Tensor, **options: float) -> Tensor:
    with torch.no_grad():
        return family._guided(Condition(torch.tensor([0, 1, 2])), Sampling(clip=False, **options))(y, t)  # type: ignore[arg-type]


@pytest.mark.parametrize("formulation", [RectifiedFlow(), DDPM(), EDM()], ids=["rectified-flow", "eps", "edm"])
@pytest.mark.parametrize("t", [0.3, 0.9])
def test_both_guidances_are_linear_in_their_scale(formulation: Formulation, t: float) -> None:  # NU-09
    family, worse = untrained(0, 8, formulation).double(), untrained(1, 8, formulation).double()
    family.guide_by(worse)
    y, at = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.tensor(t, dtype=torch.float64)
    plain = velocity_under(family, y, at)
    for name, none, unit in (("classifier_guidance", 0.0, 1.0), ("autoguidance", 1.0, 0.0)):
        assert torch.equal(velocity_under(family, y, at, **{name: none}), plain)
        whole = velocity_under(family, y, at, **{name: unit}) - plain
        assert float(whole.abs().max()) > 1e-6
        for scale in (-0.5, 2.0, 7.5):
            found = velocity_under(family, y, at, **{name: scale}) - plain
            assert torch.allclose(found, whole * (scale - none) / (unit - none), atol=1e-10)
    assert torch.allclose(velocity_under(family, y, at, autoguidance=0.0), velocity_under(worse, y, at), atol=1e-12)


def test_the_gradient_is_that_of_the_classifiers_log_probability() -> None:
    family = untrained(0, 8).double()
    y, t, step = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64), 1e-5
    direction = torch.randn_like(y)
    slope = (velocity_under(family, y, t) - velocity_under(family, y, t, classifier_guidance=1.0)) * (1 - t) / t
    label = torch.tensor([0, 1, 2])
    assert family.classifier is not None
    ends = [
        family.classifier(y + side * step * direction, torch.full((3,), 600.0).double()).log_softmax(1)[range(3), label]
        for side in (-1, 1)
    ]
    difference = (ends[1] - ends[0]) / (2 * step)
    assert torch.allclose((slope * direction).sum((1, 2, 3)), difference, rtol=1e-5)


def test_a_worse_state_is_held_without_becoming_part_of_the_model() -> None:
    family, worse = untrained(0), untrained(1)
    before = set(family.state_dict())
    family.guide_by(worse)
    assert set(family.state_dict()) == before and isinstance(family, Guided)
    rng = lambda: Rng([3, 4])  # noqa: E731
    assert torch.equal(family.sample(rng()), family.sample(rng(), autoguidance=1.0))
    assert torch.allclose(family.sample(rng(), autoguidance=0.0), worse.sample(rng()), atol=1e-5)


def test_evaluations_count_every_denoiser_and_no_classifier() -> None:
    family = untrained(0, 8)
    assert family.evaluations(steps=7, sampler="euler") == 7
    assert family.evaluations(steps=7, sampler="euler", autoguidance=2.0) == 14
    assert family.evaluations(steps=7, sampler="heun", autoguidance=2.0) == 26
    assert family.evaluations(steps=7, sampler="euler", classifier_guidance=3.0) == 7
    assert family.evaluations(steps=7, sampler="euler", guidance=2.0, classifier_guidance=3.0) == 14
    assert family.evaluations(steps=7, sampler="adaptive", autoguidance=2.0) is None
    counted = {"calls": 0}
    worse = untrained(1)
    for model in (family, worse):
        model.net.register_forward_hook(lambda *_: counted.update(calls=counted["calls"] + 1))
    family.guide_by(worse)
    family.sample(Rng([1, 2]), steps=7, sampler="euler", autoguidance=2.0, classifier_guidance=1.0)
    assert counted["calls"] == 14


def test_guidance_that_cannot_be_had_is_refused_with_what_to_type() -> None:
    family = untrained(0)
    with pytest.raises(UsageError, match=r"--family\.classifier 16"):
        family.sample(Rng([1]), classifier_guidance=1.0)
    with pytest.raises(UsageError, match=r"--earlier 0\.25"):
        family.sample(Rng([1]), autoguidance=2.0)
    with pytest.raises(UsageError, match="--guidance 1"):
        family.sample(Rng([1]), autoguidance=2.0, guidance=3.0)


def test_a_classifier_is_a_second_player_only_where_there_are_classes() -> None:
    config = DiffusionConfig(net=UNET, classifier=8)
    assert [player.name for player in Diffusion(config, SPEC).players()] == ["denoiser", "classifier"]
    assert [player.name for player in Diffusion(config, Spec(1, 8)).players()] == ["denoiser"]
    net = NoisyClassifier(8, Spec(3, 28, 7))
    assert net(torch.randn(2, 3, 28, 28), torch.tensor([3.0, 900.0])).shape == (2, 7)


def test_classifier_guidance_raises_the_share_of_the_asked_class() -> None:
    """An unconditional model of three spots (guidance 0), led to one of them by the classifier that learned beside."""
    torch.manual_seed(0)
    formulation = RectifiedFlow()
    config = DiffusionConfig(net=UNET, classifier=16, formulation=formulation, drop=1.0)
    family = Diffusion(config, Spec(2, 1, 3, 0))
    state = start(family.train(), TrainSettings())
    for _ in range(250):
        label = torch.randint(3, (256,))
        points = CENTRES[label] + 0.15 * torch.randn(256, 2)
        play_round(state, Batch(points.view(-1, 2, 1, 1), Condition(label)), TrainSettings(), rate=3e-3)
    family.eval()
    asked = torch.arange(300) % 3
    shares = []
    for scale in (0.0, 1.0, 3.0):
        drawn = family.sample(
            Rng(range(300)), Condition(asked), steps=20, guidance=0.0, sampler="euler", classifier_guidance=scale
        ).flatten(1)
        shares.append(float((torch.cdist(drawn, CENTRES).argmin(1) == asked).float().mean()))
    assert 0.2 < shares[0] < 0.5, shares
    assert 0.6 < shares[1] < shares[2] and shares[2] > 0.85, shares


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few rounds that kept four snapshots."""
    folder = tmp_path_factory.mktemp("runs") / "guided"
    settings = TrainSettings(batch=16, images=320, previews=0, snapshots=4, precision="float32", layout="contiguous")
    recipe = Recipe(DiffusionConfig(net=UNET, formulation=RectifiedFlow()), settings, sample={"steps": 3})
    return generama.train(recipe, data="digits", run=str(folder)).run.folder


def test_a_run_is_guided_by_an_earlier_state_of_itself(run: Path) -> None:
    made = generama.sample(str(run), range(4), name="guided", earlier=0.25, autoguidance=3.0)
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["earlier"] == 80 and manifest["evaluations"] == 6
    assert manifest["options"]["autoguidance"] == 3.0
    alone, guided = generama.load(run), generama.load(run, earlier=0.25)
    assert torch.equal(alone.sample(range(4)), guided.sample(range(4)))
    assert not torch.allclose(guided.sample(range(4)), guided.sample(range(4), autoguidance=3.0), atol=1e-3)
    # scale 0 is the earlier state alone, which is not the newest average
    assert not torch.allclose(guided.sample(range(4)), guided.sample(range(4), autoguidance=0.0), atol=1e-3)
    assert (alone.earlier, guided.earlier, generama.load(run, earlier=0.9).earlier) == (None, 80, 240)


def test_earlier_states_that_are_not_there_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="from 0 to below 1, not 1"):
        generama.load(run, earlier=1.0)
    small = TrainSettings(batch=16, images=32, previews=0, precision="float32", layout="contiguous")
    plain = generama.train(Recipe(TINY["diffusion"], small), data="digits", run=str(tmp_path / "plain"))
    with pytest.raises(UsageError, match=r"--train\.snapshots 8"):
        generama.load(plain.run.folder, earlier=0.25)
    gan = Recipe(GANConfig(net=MLPGANConfig()), small)
    other = generama.train(gan, data="digits", run=str(tmp_path / "gan"), name="gan")
    with pytest.raises(UsageError, match="gan cannot be guided by an earlier state"):
        generama.load(other.run.folder, earlier=0.25)
