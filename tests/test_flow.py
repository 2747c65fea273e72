"""RealNVP against what must hold exactly: inverse, log-determinant, total probability, the bits of a uniform model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from generama.core import Batch, Condition, Noise, Rng, Spec
from generama.errors import UsageError
from generama.families.flow import PRIOR_SPEED, Flow, FlowConfig, dequantise, from_logit, to_logit
from generama.nets.couplings import AffineCoupling, Chain, DenseNet, Normalise, Squeeze, mask
from generama.pixels import from_levels

TINY = FlowConfig(whole=2, couplings=2, width=7, coarse=4, dense=11)


def flow_of(spec: Spec, config: FlowConfig = TINY, spread: float = 0.05) -> Flow:
    """A flow far from the identity: every parameter, zero or not at the start, is moved at random."""
    torch.manual_seed(4)
    flow = Flow(config, spec).eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
        flow.prior.weight.div_(PRIOR_SPEED)
    return flow


def labels_of(spec: Spec, count: int) -> torch.Tensor | None:
    return torch.arange(count) % spec.classes if spec.classes else None


SPECS = [Spec(1, 8, 3, 17), Spec(1, 28, 10), Spec(3, 32), Spec(3, 7), Spec(2, 1, levels=0)]


@pytest.mark.parametrize("spec", SPECS)
def test_inverse(spec):
    """NU-12, both ways: to 1e-10 in float64 and to 1e-4 in float32."""
    x = torch.randn(3, *spec.shape, dtype=torch.float64)
    label = labels_of(spec, 3)
    flow = flow_of(spec).double()
    with torch.no_grad():
        z, log_det = flow.encode(x, label)
        assert (z - x.flatten(1)).abs().max() > 0.1  # no identity
        assert log_det.abs().min() > 0.01
        assert (flow.decode(z, label) - x).abs().max() < 1e-10
        noise = torch.randn_like(z)
        assert (flow.encode(flow.decode(noise, label), label)[0] - noise).abs().max() < 1e-10
        flow = flow.float()
        x = x.float()
        assert (flow.decode(flow.encode(x, label)[0], label) - x).abs().max() < 1e-4
    assert flow.inverse_error(x.clamp(-1, 1), None if label is None else Condition(label)).max() < 1e-4


@pytest.mark.parametrize("spec", [Spec(1, 8, 3, 17), Spec(3, 4), Spec(2, 1, levels=0)])
def test_log_determinant_is_that_of_the_jacobian(spec):
    """NU-12: against autograd, at random weights."""
    flow = flow_of(spec).double()
    x = torch.randn(1, *spec.shape, dtype=torch.float64)
    label = labels_of(spec, 1)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow.encode(x, label)[0][0], x)
    _, expected = torch.linalg.slogdet(jacobian.view(spec.dims, spec.dims))
    assert flow.encode(x, label)[1].item() == pytest.approx(expected.item(), abs=1e-8)


def test_each_layer_alone():
    """Inverse and log-determinant, layer by layer, so that a failure has a name; s > 0 as well as s < 0."""
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    normalise, coupling = Normalise((2, 1, 1)), AffineCoupling(DenseNet(2, 4, 5, 0), mask("channel", 2, 4, True))
    for layer in (normalise, coupling, Squeeze(), Chain([normalise, coupling, Squeeze()])):
        for scale in (1.0, -1.0):
            for parameter in layer.parameters():
                nn.init.normal_(parameter, mean=0.3 * scale, std=0.1)
            layer = layer.double()
            jacobian = torch.autograd.functional.jacobian(lambda x, f=layer: f(x, None)[0], x).view(32, 32)
            y, log_det = layer(x, None)
            assert log_det.item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-10)
            assert (layer.inverse(y, None) - x).abs().max() < 1e-12


def test_a_coupling_changes_what_its_mask_does_not_keep():
    b = mask("checkerboard", 1, 3, False)
    assert b[0, 0].tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    coupling = AffineCoupling(DenseNet(1, 3, 5, 0), b)
    nn.init.normal_(coupling.net.leave.weight)
    x = torch.randn(2, 1, 3, 3)
    moved = coupling(x, None)[0] != x
    assert torch.equal(moved, (b == 0).expand_as(moved))
    assert mask("channel", 4, 1, True).flatten().tolist() == [0, 0, 1, 1]


def test_a_density_of_points_integrates_to_one():
    """NU-13, on a grid, for each class and for their mixture."""
    spec = Spec(2, 1, 2, levels=0)
    flow = flow_of(spec, FlowConfig(whole=2, coarse=2, dense=11), spread=0.2).double()
    axis = torch.linspace(-12, 12, 301, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis).view(-1, 2, 1, 1)
    cell = (axis[1] - axis[0]) ** 2
    with torch.no_grad():
        for cond in (None, Condition(torch.zeros(len(points), dtype=torch.long))):
            density = flow.log_prob(points, cond).exp()
            assert (density.sum() * cell).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_uniform_density_costs_the_bits_of_its_levels(levels):
    """NU-15: p(y) = 1 on [0, 1) written as a density of the logits: log-determinants cancel, log2(levels) bits stay.

    A logistic law cut at the logits of alpha and 1 - alpha is what uniform y become; with the family's own formula
    log p(image) = log p(x) + log |dx/dy| - D log(levels).
    """
    alpha, dims = 0.05, 5 * 5
    level = torch.randint(levels, (7, 1, 5, 5))
    images = from_levels(level, levels).double()
    y = dequantise(images, torch.rand_like(images), levels)
    assert torch.equal((y * levels).floor().long(), level)
    x, log_det = to_logit(y, alpha)
    logistic = (-x - 2 * nn.functional.softplus(-x) - math.log(1 - 2 * alpha)).flatten(1).sum(1)
    bits = -(logistic + log_det - dims * math.log(levels)) / dims / math.log(2)
    assert bits.tolist() == pytest.approx([math.log2(levels)] * 7, abs=1e-10)
    assert (from_logit(x, alpha) - y).abs().max() < 1e-12


def test_log_prob_counts_what_its_parts_say():
    """The identity flow: log p = N(logit) + log |dx/dy| - D log 256, term by term, for each image."""
    spec = Spec(1, 8)
    flow = Flow(TINY, spec).double().eval()
    images = torch.rand(3, *spec.shape, dtype=torch.float64) * 2 - 1
    torch.manual_seed(6)
    found = flow.log_prob(images)
    torch.manual_seed(6)
    x, log_det = to_logit(dequantise(images, torch.rand_like(images), 256), flow.config.alpha)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(x).flatten(1).sum(1)
    assert (found - (normal + log_det - 64 * math.log(256))).abs().max() < 1e-9


def test_the_total_probability_of_a_one_pixel_image_is_one():
    """All 5 levels of one pixel: the mean of exp(log_prob) over the noise is P(level), and the five sum to one."""
    spec = Spec(1, 1, levels=5)
    flow = flow_of(spec, spread=0.3).double()
    images = from_levels(torch.arange(5), 5).double().view(5, 1, 1, 1).repeat_interleave(20_000, dim=0)
    torch.manual_seed(7)
    with torch.no_grad():
        total = flow.log_prob(images).exp().view(5, 20_000).mean(1).sum().item()
        outside = 1 - logistic_share(flow)
    assert total + outside == pytest.approx(1, abs=0.01)


def logistic_share(flow: Flow) -> float:
    """The flow's own probability that x falls between the logits of alpha and 1 - alpha, on a fine grid."""
    edge = math.log((1 - flow.config.alpha) / flow.config.alpha)
    grid = torch.linspace(-edge, edge, 20_001, dtype=torch.float64).view(-1, 1, 1, 1)
    return float(flow.log_density(grid, None).exp().mean() * 2 * edge)


def test_actnorm_starts_from_the_first_batch_only():
    spec = Spec(1, 8, 3)
    flow = Flow(TINY, spec).train()
    batch = Batch(torch.rand(64, *spec.shape) - 1, Condition(labels_of(spec, 64)))
    x = to_logit(dequantise(batch.images, torch.rand_like(batch.images), 256), 0.05)[0]
    flow.begin(batch, Noise(0, 64))
    with torch.no_grad():
        z = flow.encode(x, batch.cond.label)[0]
    assert z.mean().abs() < 0.1
    assert z.std() == pytest.approx(1, abs=0.1)
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    flow.loss(Batch(-batch.images, batch.cond), Noise(1, 64))
    assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())


def test_every_parameter_gets_a_gradient():
    spec = Spec(3, 8, 3)
    flow = Flow(TINY, spec).train()
    loss, logged = flow.loss(Batch(torch.rand(5, *spec.shape) * 2 - 1, Condition(labels_of(spec, 5))), Noise(0, 5))
    loss.backward()
    assert all(p.grad is not None for p in flow.parameters())
    assert logged["bits_per_dim"].item() == pytest.approx(loss.item() / math.log(2))


@pytest.mark.parametrize("spec", SPECS)
def test_an_image_depends_on_its_own_seed_and_label_alone(spec):
    flow = flow_of(spec)
    label = labels_of(spec, 4)
    four = flow.sample(Rng([11, 12, 13, 14]), None if label is None else Condition(label), temperature=0.8)
    assert four.shape == (4, *spec.shape)
    assert spec.levels == 0 or four.abs().max() <= 1
    for i in range(4):
        one = flow.sample(Rng([11 + i]), None if label is None else Condition(label[i : i + 1]), temperature=0.8)
        assert (one - four[i]).abs().max() <= 1e-4 + (2.001 / (spec.levels - 1) if spec.levels else 0)


def test_wild_weights_never_give_nan():
    """s is bounded, so even absurd weights and far noise decode to pictures."""
    flow = flow_of(Spec(1, 28, 10), spread=1.0)
    assert flow.sample(Rng(range(4)), temperature=10.0).isfinite().all()


def test_the_label_changes_the_density_and_its_absence_averages():
    spec = Spec(2, 1, 3, levels=0)
    flow = flow_of(spec)
    x = torch.randn(5, 2, 1, 1)
    given = torch.stack([flow.log_prob(x, Condition(torch.full((5,), k))) for k in range(3)])
    assert (given[0] - given[1]).abs().min() > 1e-3
    assert torch.allclose(flow.log_prob(x).exp(), given.exp().mean(0))
    free = Flow(FlowConfig(conditional=False), spec)
    assert free.spec.classes == 0


def test_what_it_refuses():
    with pytest.raises(UsageError, match="size 32"):
        Flow(TINY, Spec(3, 99))
    with pytest.raises(UsageError, match="temperature"):
        flow_of(Spec(1, 8)).sample(Rng([0]), temperature=0.0)
