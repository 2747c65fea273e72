"""RealNVP: an invertible network turns images into Gaussian noise (Dinh, Sohl-Dickstein and Bengio 2017).

log p(x) = log N(f(x)) + log |det df/dx| (the paper's equation 3), exact for the continuous variable x. 8-bit images
become continuous by uniform noise below their last bit (dequantisation), and unbounded by a logit (section 4.1).

Deviations from the paper, made for short training on a CPU: Glow's actnorm for batch norm; fully connected couplings
before the convolutional scales and at the coarsest one, because few small convolutions never see a whole digit; a
Gaussian whose mean and variance are learned for each class and place; the logit of alpha + (1 - 2 alpha) y, which
keeps clear of both ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from generama.core import Batch, Condition, Estimate, Finding, Noise, Player, Rng, Spec, wish
from generama.errors import UsageError
from generama.families.textbook import Claim, Textbook
from generama.nets.couplings import AffineCoupling, Chain, CouplingNet, DenseNet, Mask, Normalise, Squeeze, mask
from generama.pixels import from_levels, to_levels

PRIOR_SPEED = 10.0  # the prior's means must go far in few steps: they move at ten times the learning rate
OFF = 0.5  # grey levels that a picture may come back wrong: it is still the same 8-bit picture
OFF_POINT = 0.01  # the same of points, in their standard deviations
LARGEST_DENSE = 4096  # numbers that a fully connected coupling may see


@dataclass(frozen=True)
class FlowConfig:
    """Fully connected couplings of the whole image, scales of convolutional ones, fully connected ones of the rest."""

    kind: Literal["flow"] = "flow"
    whole: int = 4  # fully connected couplings of the whole image, if that has at most 4,096 numbers
    couplings: int = 2  # convolutional ones with each mask, checkerboard and then channel, at each scale
    width: int = 32  # features of the convolutions
    blocks: int = 1  # residual blocks in each of their nets
    coarse: int = 4  # fully connected couplings at the coarsest scale
    dense: int = 512  # features of the fully connected nets
    alpha: float = 0.05  # the logit's distance from 0 and 1
    conditional: bool = True  # on the class, where the data has classes


def dequantise(images: Tensor, u: Tensor, levels: int) -> Tensor:
    """Images in [-1, 1] -> (level + u) / levels, u uniform in [0, 1): each level's share of the unit interval."""
    return (to_levels(images, levels).to(images.dtype) + u) / levels


def to_logit(y: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """y in [0, 1] -> x = logit(alpha + (1 - 2 alpha) y), and log |det dx/dy| (B,)."""
    q = alpha + (1 - 2 * alpha) * y
    log_det = math.log(1 - 2 * alpha) - q.log() - (1 - q).log()
    return q.log() - (1 - q).log(), log_det.flatten(1).sum(1)


def from_logit(x: Tensor, alpha: float) -> Tensor:
    """The inverse of `to_logit`; beyond [0, 1] for x that no image has."""
    return (x.sigmoid() - alpha) / (1 - 2 * alpha)


def halvings(size: int) -> int:
    """How often an image is squeezed: while its size is even and at least 8 (28 -> 14 -> 7, 32 -> 16 -> 8 -> 4)."""
    return 1 + halvings(size // 2) if size % 2 == 0 and size >= 8 else 0


class Flow(nn.Module):
    """One player, one loss: the negative log-likelihood. x is an image, z its D Gaussian numbers."""

    likelihood: Estimate = "exact"  # of the dequantised image, as this field counts it; a bound for the 8-bit one
    dequantisation = "uniform"
    ailments = ("layers whose numbers are not finite", "an inverse that does not return")
    textbook = Textbook(
        stability=Claim("stable: maximum likelihood", 3),
        sampling_speed=Claim("fast: one inverse pass", 3),
        quality=Claim("behind the others", 1),
        diversity=Claim("covers the data", 3),
        training_cost=Claim("high: deep, and as wide as the image", 1),
        likelihood="exact",
        latent_space="as large as the image, reached exactly",
        difficulty="invertible layers restrict the network, and must invert numerically",
        ailments=("flow-not-finite", "inverse-does-not-return"),
    )

    def __init__(self, config: FlowConfig, spec: Spec) -> None:
        super().__init__()
        self.spec = spec if config.conditional else replace(spec, classes=0)
        self.config = config
        channels, size = spec.channels, spec.size
        whole = config.whole if spec.dims <= LARGEST_DENSE else 0
        # Normalised place by place: a border that is always black starts at variance 1 as well.
        self.enter = Chain([Normalise(spec.shape), *self.dense_couplings(whole, channels, size)])
        self.scales = nn.ModuleList()
        self.sizes = []  # numbers that leave at each scale
        for _ in range(halvings(size)):
            before = self.couplings("checkerboard", channels, size)
            channels, size = channels * 4, size // 2
            self.scales.append(Chain([*before, Squeeze(), *self.couplings("channel", channels, size)]))
            channels //= 2  # half of the channels leave as noise, half go on (the paper's equation 14)
            self.sizes.append(channels * size**2)
        self.coarsest = (channels, size, size)
        self.sizes.append(channels * size**2)
        if self.sizes[-1] > LARGEST_DENSE:
            raise UsageError(f"a flow halves images, and {spec.size} cannot be halved often enough; try --size 32")
        self.last = Chain(self.dense_couplings(config.coarse, channels, size))
        self.prior = nn.Embedding(max(1, self.spec.classes), 2 * spec.dims)  # means, then log standard deviations
        nn.init.zeros_(self.prior.weight)

    def couplings(self, kind: Mask, channels: int, size: int) -> list[nn.Module]:
        """Convolutional couplings that keep and change the two halves of the mask in turn."""
        config, layers = self.config, []
        for i in range(config.couplings):
            net = CouplingNet(channels, size, config.width, config.blocks, self.spec.classes)
            layers += [AffineCoupling(net, mask(kind, channels, size, i % 2 == 1)), Normalise((channels, 1, 1))]
        return layers

    def dense_couplings(self, count: int, channels: int, size: int) -> list[nn.Module]:
        """Fully connected couplings: two with a checkerboard mask, two with a channel mask, and so on."""
        layers = []
        for i in range(count):
            kind: Mask = "channel" if size == 1 or (channels > 1 and i % 4 >= 2) else "checkerboard"
            net = DenseNet(channels, size, self.config.dense, self.spec.classes)
            layers += [AffineCoupling(net, mask(kind, channels, size, i % 2 == 1)), Normalise((channels, 1, 1))]
        return layers

    def encode(self, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """z = f(x), (B, C, H, W) -> (B, D), and log |det df/dx| (B,); x in logits where the data has levels."""
        x, log_det = self.enter(x, label)
        left = []
        for scale in self.scales:
            x, change = scale(x, label)
            x, z = x.chunk(2, dim=1)
            left.append(z.flatten(1))
            log_det = log_det + change
        x, change = self.last(x, label)
        return torch.cat([*left, x.flatten(1)], dim=1), log_det + change

    def decode(self, z: Tensor, label: Tensor | None) -> Tensor:
        """x = f^-1(z), (B, D) -> (B, C, H, W)."""
        *left, coarsest = z.split(self.sizes, dim=1)
        x = self.last.inverse(coarsest.reshape(-1, *self.coarsest), label)
        for scale, part in zip(reversed(self.scales), reversed(left), strict=True):
            x = scale.inverse(torch.cat([x, part.reshape(x.shape)], dim=1), label)  # type: ignore[operator]
        return self.enter.inverse(x, label)

    def gaussian(self, label: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of z, (B, D) each, for the B rows of `like`."""
        if label is None:
            label = torch.zeros(len(like), dtype=torch.long, device=like.device)
        mean, log_std = (PRIOR_SPEED * self.prior(label)).chunk(2, dim=1)
        return mean, log_std

    def log_density(self, x: Tensor, label: Tensor | None) -> Tensor:
        """log p(x | label) of the continuous x in nats, (B,): the change of variables."""
        z, log_det = self.encode(x, label)
        mean, log_std = self.gaussian(label, z)
        normal = -0.5 * ((z - mean) * (-log_std).exp()).square() - log_std - 0.5 * math.log(2 * math.pi)
        return normal.sum(1) + log_det

    def log_likelihood(self, images: Tensor, label: Tensor | None, u: Tensor) -> Tensor:
        """Nats per image, (B,): of the image dequantised by u, like it, in units of its levels; or of the point."""
        label = label if self.spec.classes else None
        if not self.spec.levels:
            return self.log_density(images, label)
        x, log_det = to_logit(dequantise(images, u, self.spec.levels), self.config.alpha)
        return self.log_density(x, label) + log_det - self.spec.dims * math.log(self.spec.levels)

    def log_prob(self, images: Tensor, cond: Condition | None = None) -> Tensor:
        """log p(image | label) in nats, (B,), with one draw of the noise; without a label, the mean of p over classes.

        The noise comes from torch's global generator, so seed that to repeat a number.
        """
        label, u = None if cond is None else cond.label, torch.rand_like(images)
        if label is None and self.spec.classes:
            every = [torch.full((len(images),), k, device=images.device) for k in range(self.spec.classes)]
            given = torch.stack([self.log_likelihood(images, label, u) for label in every])
            return given.logsumexp(0) - math.log(self.spec.classes)
        return self.log_likelihood(images, label, u)

    def players(self) -> Sequence[Player]:
        """The flow alone."""
        return [Player("flow", self, self.loss)]

    @torch.no_grad()
    def begin(self, batch: Batch, noise: Noise) -> None:
        """Let each actnorm set itself so that what it sees of the first batch leaves it with mean 0 and variance 1."""
        actnorms = [module for module in self.modules() if isinstance(module, Normalise)]
        for actnorm in actnorms:
            actnorm.starting = True
        self.loss(batch, noise)
        for actnorm in actnorms:
            actnorm.starting = False

    def loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Nats per number (the scale on which learning rates carry over between image sizes)."""
        u = noise.uniform(*batch.images.shape[1:])
        nats = -self.log_likelihood(batch.images, batch.cond.label, u).mean() / self.spec.dims
        return nats, {"bits_per_dim": nats.detach() / math.log(2)}

    @torch.no_grad()
    def sample(self, rng: Rng, cond: Condition | None = None, *, temperature: float = 1.0) -> Tensor:
        """Images (B, C, H, W) in [-1, 1], or points; temperature multiplies the standard deviation of z."""
        if not temperature > 0:
            raise UsageError(f"temperature must be above 0, got {temperature}; try 1.0")
        cond = wish(cond, rng, self.spec)
        noise = rng.normal(self.spec.dims)
        mean, log_std = self.gaussian(cond.label, noise)
        x = self.decode(mean + temperature * log_std.exp() * noise, cond.label)
        if not self.spec.levels:
            return x
        level = (from_logit(x, self.config.alpha) * self.spec.levels).floor().clamp(0, self.spec.levels - 1)
        return from_levels(level, self.spec.levels)

    @torch.no_grad()
    def inverse_error(self, images: Tensor, cond: Condition | None = None) -> Tensor:
        """max |x - f^-1(f(x))| per image, (B,): what rounding costs on the way to z and back."""
        label = cond.label if cond is not None and self.spec.classes else None
        x = images
        if self.spec.levels:
            x, _ = to_logit(dequantise(images, torch.rand_like(images), self.spec.levels), self.config.alpha)
        return (self.decode(self.encode(x, label)[0], label) - x).abs().flatten(1).amax(1)

    def evaluations(self, **options: Any) -> int:
        """One pass backwards through the network, whatever the options."""
        return 1

    def examine(self, batch: Batch, noise: Noise, log: Sequence[Mapping[str, float]]) -> Sequence[Finding]:
        """Layers that overflow on real pictures; real pictures and samples that do not come back from z."""
        label, x = batch.cond.label if self.spec.classes else None, batch.images
        if self.spec.levels:
            x, _ = to_logit(dequantise(x, noise.uniform(*self.spec.shape), self.spec.levels), self.config.alpha)
        if layer := self.overflowing(x, label):
            title = f"The flow's layer {layer} gives numbers that are not finite"
            seen = f"it is the first of its layers that does, on {len(x)} held-out pictures"
            return [
                Finding(
                    "flow-not-finite", "problem", title, seen, "train again with a lower --train.rate or --train.clip"
                )
            ]
        mean, log_std = self.gaussian(label, x)
        drawn = self.decode(mean + log_std.exp() * noise.normal(self.spec.dims), label)
        real, ours = (self.off(start, self.decode(self.encode(start, label)[0], label)) for start in (x, drawn))
        limit, unit = (OFF, "grey levels") if self.spec.levels else (OFF_POINT, "standard deviations")
        if real <= limit and ours <= limit:  # False for NaN
            return []
        title = "The flow's inverse does not return: a picture sent to z comes back as another one"
        seen = f"the worst number of {len(x)} held-out pictures is off by {real:.3g} {unit}, of samples by {ours:.3g}; "
        advice = (
            "likelihoods and samples do not belong together then: train again with a lower --train.rate or --train.clip"
        )
        return [Finding("inverse-does-not-return", "problem", title, f"{seen}up to {limit:g} is rounding", advice)]

    def off(self, x: Tensor, again: Tensor) -> float:
        """The largest difference of x (B, C, H, W) from what comes back: in levels, or in deviations of points."""
        if not self.spec.levels:
            return ((again - x).abs().max() / x.std()).item()
        y, y_again = (from_logit(value, self.config.alpha).clamp(0, 1) for value in (x, again))
        return self.spec.levels * (y_again - y).abs().max().item()

    def overflowing(self, x: Tensor, label: Tensor | None) -> str | None:
        """The name of the first layer whose output or log-determinant is not finite on x, if there is one."""
        found: list[str] = []

        def look(name: str) -> Callable[[nn.Module, Any, tuple[Tensor, Tensor]], None]:
            def hook(module: nn.Module, inputs: Any, out: tuple[Tensor, Tensor]) -> None:
                if not all(bool(value.isfinite().all()) for value in out):
                    found.append(name)

            return hook

        layers = [(n, m) for n, m in self.named_modules() if isinstance(m, AffineCoupling | Normalise)]
        hooks = [module.register_forward_hook(look(name)) for name, module in layers]
        self.encode(x, label)
        for hook in hooks:
            hook.remove()
        return found[0] if found else None
