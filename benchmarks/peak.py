"""How many operations a second this machine's convolutions reach: the best of several shapes, layouts and directions.

`python -m benchmarks.peak` prints GFLOP/s in float32 and in bfloat16. What a network reaches is held against this.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator

import torch
import tyro
from torch import Tensor
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_input, conv2d_weight
from torch.utils.benchmark import Timer

SHAPES = (
    (32, 64, 28),
    (64, 64, 28),
    (32, 128, 14),
    (64, 128, 14),
    (64, 256, 14),
    (64, 256, 7),
)  # batch, channels, size


def peak(dtype: torch.dtype, seconds: float) -> float:
    """The most GFLOP/s of any 3x3 convolution tried, forward or backward, each given some seconds."""
    return max(speed(run, flops, seconds) for run, flops in convolutions(dtype))


def convolutions(dtype: torch.dtype) -> Iterator[tuple[Callable[[], Tensor], int]]:
    """Convolutions to run, with their numbers of operations: a multiplication and an addition count as two."""
    layouts = (torch.contiguous_format, torch.channels_last)
    for (batch, channels, size), layout in itertools.product(SHAPES, layouts):
        x = torch.randn(batch, channels, size, size).to(dtype=dtype, memory_format=layout)
        w = torch.randn(channels, channels, 3, 3).to(dtype=dtype, memory_format=layout)
        flops = 2 * 9 * batch * channels * channels * size * size
        yield lambda x=x, w=w: conv2d(x, w, padding=1), flops
        yield lambda x=x, w=w: conv2d_input(x.shape, w, x, padding=1), flops
        yield lambda x=x, w=w: conv2d_weight(x, w.shape, x, padding=1), flops


def speed(run: Callable[[], Tensor], flops: int, seconds: float) -> float:
    """GFLOP/s of the fastest of the blocks that fit into so many seconds."""
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return flops / min(timer.blocked_autorange(min_run_time=seconds).times) / 1e9


def main(seconds: float = 0.3) -> None:
    """Print the peaks; `seconds` for each shape, layout and direction."""
    torch.manual_seed(0)
    with torch.no_grad():
        print(json.dumps({name: peak(getattr(torch, name), seconds) for name in ("float32", "bfloat16")}))


if __name__ == "__main__":
    tyro.cli(main)
