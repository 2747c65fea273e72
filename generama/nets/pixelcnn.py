"""The network of the gated PixelCNN (van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders").

Two stacks of convolutions predict each pixel from those before it in reading order. The vertical stack sees all rows
above, the horizontal stack the pixels to the left and, through the vertical one, everything above: no blind spot.
The paper gets there with masks A and B. Here the picture is first shifted, one row down for the vertical stack and
one column right for the horizontal one (mask A); from then on every convolution ends at its own position (mask B).

Shapes: B images, C channels, W features, K levels, N = height = width; (r, c) is the pixel being predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generama.core import Spec
from generama.errors import UsageError
from generama.pixels import from_levels

CLASS_MAPS = 4  # learned pictures of each class
DILATIONS = (1, 2, 4)  # of the layers in turn (van den Oord et al. 2016, WaveNet): far sight at no cost


@dataclass(frozen=True)
class PixelCNNConfig:
    """The size of the network; the defaults train on two cores at 28-32 pixels."""

    width: int = 24  # features W of each stack
    layers: int = 6  # gated layers after the first
    kernel: int = 3  # a layer sees kernel // 2 pixels up, left and right, 1, 2 or 4 apart
    first: int = 7  # the same for the first layer, which is cheap
    head: int = 64  # hidden features behind the logits


def gate(features: Tensor) -> Tensor:
    """tanh(first half) * sigmoid(second half), the paper's equation 2: (B, 2W, ...) -> (B, W, ...)."""
    signal, opening = features.chunk(2, dim=1)
    # tanh(x) = 2 sigmoid(2x) - 1, written so because torch's tanh is eight times slower than its sigmoid on a CPU
    return (2 * (2 * signal).sigmoid() - 1) * opening.sigmoid()


class GatedLayer(nn.Module):
    """One layer of both stacks (the paper's figure 2), with the class as a bias in the gates (equation 4)."""

    def __init__(self, inputs: int, width: int, kernel: int, dilation: int, classes: int) -> None:
        super().__init__()
        self.reach = dilation * (kernel // 2)
        self.residual = inputs == width
        self.vertical = nn.Conv2d(inputs, 2 * width, (kernel // 2 + 1, kernel), dilation=dilation)
        self.horizontal = nn.Conv2d(inputs, 2 * width, (1, kernel // 2 + 1), dilation=dilation)
        self.down = nn.Conv2d(2 * width, 2 * width, 1)  # from the vertical stack to the horizontal one
        self.out = nn.Conv2d(width, width, 1)
        self.label = nn.Embedding(classes, 4 * width) if classes else None

    def biases(self, label: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """What the class adds in the gates of the vertical and of the horizontal stack, (B, 2W, 1, 1) each."""
        if self.label is None:
            return 0.0, 0.0
        vertical, horizontal = self.label(label)[:, :, None, None].chunk(2, dim=1)
        return vertical, horizontal

    def forward(self, v: Tensor, h: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both stacks one layer on, (B, W, N, N) each: v at (r, c) sees rows to r, h at (r, c) columns to c as well."""
        for_v, for_h = self.biases(label)
        above = self.vertical(F.pad(v, (self.reach, self.reach, self.reach, 0))) + for_v
        ahead = self.horizontal(F.pad(h, (self.reach, 0, 0, 0))) + self.down(above) + for_h
        return self.rise(v, above), self.step(h, ahead)

    def rise(self, v: Tensor, above: Tensor) -> Tensor:
        """The vertical stack's way out of its gate; the paper has no residual connection here, ours learns faster."""
        return v + gate(above) if self.residual else gate(above)

    def step(self, h: Tensor, ahead: Tensor) -> Tensor:
        """The horizontal stack's way out of its gate, with the residual connection."""
        out = self.out(gate(ahead))
        return h + out if self.residual else out


class Head(nn.Module):
    """The logits of one colour channel, from the features of its pixel and the levels of the channels before it."""

    def __init__(self, width: int, hidden: int, levels: int, earlier: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(width, hidden, 1)
        self.earlier = nn.ModuleList(nn.Embedding(levels, hidden) for _ in range(earlier))
        self.logits = nn.Conv2d(hidden, levels, 1)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        """(B, W, N, N) features and (B, C, N, N) levels, of which only the earlier channels are read: (B, K, N, N)."""
        hidden = self.features(h)
        for channel, table in enumerate(self.earlier):
            hidden = hidden + table(level[:, channel]).movedim(-1, 1)
        return self.logits(hidden.relu())


class PixelCNN(nn.Module):
    """Logits of every level of every pixel, each given the pixels before it.

    Three deviations from the paper. Colour: the paper splits all features into three groups by masks; here the stacks
    see whole pixels, and a small head a channel adds what is known of the pixel itself (R, then G given R, then B
    given both): exact as well, and the stacks run once a pixel. Place: two more input channels tell row and column,
    which a shallow network cannot count, and four more are learned pictures of the class (a condition with a place,
    the paper's equation 5). Sight: layers are dilated, so that seven of them see 17 pixels far.
    """

    place: Tensor

    def __init__(self, config: PixelCNNConfig, spec: Spec) -> None:
        super().__init__()
        for kernel in (config.kernel, config.first):
            if kernel < 3 or kernel % 2 == 0:
                raise UsageError(f"kernels of a PixelCNN are odd, from 3 on, not even or smaller: got {kernel}; try 3")
        self.levels = spec.levels
        inputs = spec.channels + 2 + (CLASS_MAPS if spec.classes else 0)
        first = GatedLayer(inputs, config.width, config.first, 1, spec.classes)
        rest = (
            GatedLayer(config.width, config.width, config.kernel, DILATIONS[i % len(DILATIONS)], spec.classes)
            for i in range(config.layers)
        )
        self.layers = nn.ModuleList([first, *rest])
        self.heads = nn.ModuleList(
            Head(config.width, config.head, spec.levels, earlier) for earlier in range(spec.channels)
        )
        place = torch.linspace(-1, 1, spec.size)
        rows, columns = torch.meshgrid(place, place, indexing="ij")
        self.register_buffer("place", torch.stack([rows, columns])[None], persistent=False)  # (1, 2, N, N)
        self.maps = nn.Embedding(spec.classes, CLASS_MAPS * spec.size**2) if spec.classes else None
        if self.maps is not None:
            nn.init.zeros_(self.maps.weight)

    def places(self, label: Tensor | None, batch: int) -> Tensor:
        """Row, column and the class's own maps at every place, (B, P, N, N)."""
        place = self.place.expand(batch, -1, -1, -1)
        if self.maps is None:
            return place
        size = self.place.shape[-1]
        return torch.cat([place, self.maps(label).view(batch, CLASS_MAPS, size, size)], dim=1)

    def gated(self) -> list[GatedLayer]:
        """The gated layers, in order."""
        return [layer for layer in self.layers if isinstance(layer, GatedLayer)]

    def forward(self, level: Tensor, label: Tensor | None = None) -> Tensor:
        """Levels (B, C, N, N) int64 -> logits (B, K, C, N, N); those of a pixel depend on earlier ones alone."""
        x = from_levels(level, self.levels).to(self.place.dtype)
        place = self.places(label, len(x))
        v = torch.cat([F.pad(x, (0, 0, 1, 0))[:, :, :-1], place], dim=1)  # row r holds row r - 1
        h = torch.cat([F.pad(x, (1, 0))[:, :, :, :-1], place], dim=1)  # column c holds column c - 1
        for layer in self.layers:
            v, h = layer(v, h, label)
        return torch.stack([head(h, level) for head in self.heads], dim=2)


def draw(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """The level whose stretch of the cumulative distribution holds `uniform`: (B, K, ...) and (B, ...) -> (B, ...)."""
    cumulative = (logits / temperature).softmax(dim=1).cumsum(dim=1)
    return (cumulative <= uniform.unsqueeze(1)).sum(dim=1).clamp(max=logits.shape[1] - 1)


class VerticalRows:
    """The vertical stack while sampling: it keeps the rows of every layer's input that the next row reaches back to."""

    def __init__(self, net: PixelCNN, batch: int, label: Tensor | None) -> None:
        self.net, self.label, self.places = net, label, net.places(label, batch)
        size = net.place.shape[-1]
        self.kept = [
            net.place.new_zeros(batch, layer.vertical.in_channels, layer.reach + 1, size + 2 * layer.reach)
            for layer in net.gated()
        ]

    def next(self, above: Tensor, r: int) -> list[Tensor]:
        """Row r - 1 of the picture, (B, C, 1, N) -> what each horizontal layer hears from above, (B, 2W, 1, N)."""
        v = torch.cat([above, self.places[:, :, r : r + 1]], dim=1)
        heard = []
        for layer, kept in zip(self.net.gated(), self.kept, strict=True):
            kept[:, :, :-1] = kept[:, :, 1:].clone()
            kept[:, :, -1:, layer.reach : -layer.reach] = v
            for_v, for_h = layer.biases(self.label)
            features = layer.vertical(kept) + for_v
            heard.append(layer.down(features) + for_h)
            v = layer.rise(v, features)
        return heard


class HorizontalPixels:
    """The horizontal stack along one row: it keeps the columns that every layer's next pixel reaches back to."""

    def __init__(self, net: PixelCNN, places: Tensor, heard: list[Tensor]) -> None:
        self.net, self.places, self.heard = net, places, heard
        self.kept = [
            net.place.new_zeros(len(heard[0]), layer.horizontal.in_channels, 1, layer.reach + 1)
            for layer in net.gated()
        ]

    def next(self, left: Tensor, c: int) -> Tensor:
        """The pixel left of column c, (B, C, 1, 1) -> the features that predict column c, (B, W, 1, 1)."""
        h = torch.cat([left, self.places[:, :, :, c : c + 1]], dim=1)
        for i, layer in enumerate(self.net.gated()):
            self.kept[i] = torch.cat([self.kept[i][..., 1:], h], dim=-1)
            h = layer.step(h, layer.horizontal(self.kept[i]) + self.heard[i][..., c : c + 1])
        return h


@torch.no_grad()
def generate(net: PixelCNN, uniform: Tensor, label: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Levels (B, C, N, N) int64 drawn pixel by pixel, each from its own uniform number (Ramachandran et al. 2017).

    The vertical stack moves a row at a time and the horizontal stack a pixel at a time, each keeping only the few
    inputs that its convolutions reach back to. The result is that of running the whole network for every pixel, for
    about the price of running it once.
    """
    dtype = net.place.dtype
    level = torch.zeros_like(uniform, dtype=torch.long)
    rows = VerticalRows(net, len(uniform), label)
    above = torch.zeros_like(uniform[:, :, :1], dtype=dtype)  # row r - 1; zeros before the first, as in forward
    for r in range(uniform.shape[2]):
        pixels = HorizontalPixels(net, rows.places[:, :, r : r + 1], rows.next(above, r))
        left = torch.zeros_like(uniform[:, :, :1, :1], dtype=dtype)  # pixel (r, c - 1)
        for c in range(uniform.shape[3]):
            h = pixels.next(left, c)
            here = level[:, :, r : r + 1, c : c + 1]  # a view: each head sees the channels drawn before it
            for channel, head in enumerate(net.heads):
                here[:, channel] = draw(head(h, here), uniform[:, channel, r : r + 1, c : c + 1], temperature)
            left = from_levels(here, net.levels).to(dtype)
        above = from_levels(level[:, :, r : r + 1], net.levels).to(dtype)
    return level
