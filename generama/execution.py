"""How a family is computed: in which precision, with its weights in which order in memory, compiled or not.

None of the three is to change what is learned, only how fast; which is fastest depends on the network and the machine,
so `tuning.py` measures it. Mixed precision: Micikevicius et al. (2018), arXiv:1710.03740; bfloat16: Kalamkar et al.
(2019), arXiv:1905.12322.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from generama.core import Family

Precision = Literal["float32", "bfloat16"]
Layout = Literal["contiguous", "channels_last"]

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
LAYOUTS: dict[Layout, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


@dataclass(frozen=True)
class Execution:
    """One way of computing a family; `Execution(**asdict(execution))` gives it back from a checkpoint's facts."""

    precision: Precision = "float32"  # of convolutions and matrix products; weights and optimiser stay float32
    layout: Layout = "contiguous"  # channels_last: the channels of a pixel side by side, as many convolutions like it
    compile: bool = False  # fused by torch.compile, which takes a C++ compiler and 30 to 90 seconds on two cores

    def __str__(self) -> str:
        """In words: "bfloat16, channels last, compiled"."""
        words = [self.precision, self.layout.replace("_", " "), "compiled" if self.compile else ""]
        return ", ".join(word for word in words if word)


def plain(family: Family) -> Execution:
    """The execution of whoever measures nothing: float32, and channels last where there are convolutions."""
    return Execution(layout="channels_last" if has_convolutions(family) else "contiguous")


def prepare(family: Family, execution: Execution) -> Family:
    """Lay out the weights and compile the networks, in place, and return the family.

    The parameters remain the same objects under the same names, so optimisers and checkpoints notice nothing; but the
    moments of an optimiser must be as its parameters are, so prepare before its first step. Activations take their
    layout from the weights. What is compiled stays so; a deep copy (the moving average) is not compiled.
    """
    family.to(memory_format=LAYOUTS[execution.layout])
    if execution.compile:
        for network in networks(family):
            network.compile()
    return family


def autocast(device: torch.device, execution: Execution) -> AbstractContextManager:
    """The context in which a loss is to be computed."""
    return torch.autocast(device.type, torch.bfloat16) if execution.precision == "bfloat16" else nullcontext()


def networks(family: Family) -> Iterator[nn.Module]:
    """The modules that a family calls and that have work worth compiling: its children, or the members of a list."""
    assert isinstance(family, nn.Module)
    for child in family.children():
        for module in child.children() if isinstance(child, nn.ModuleList) else [child]:
            if any(isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) for part in module.modules()):
                yield module


def has_convolutions(family: Family) -> bool:
    """Whether the layout makes any difference."""
    assert isinstance(family, nn.Module)
    return any(isinstance(part, nn.Conv2d | nn.ConvTranspose2d) for part in family.modules())


def bfloat16_works(device: torch.device) -> bool:
    """Whether the device has it at all. (A CPU always has: whether in hardware, the trial's speed will tell.)"""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        ones = torch.ones(2, 2, dtype=torch.bfloat16, device=device)
        return bool((ones @ ones == 2).all())
    except (RuntimeError, TypeError):
        return False


def compiler_found(device: torch.device) -> bool:
    """Whether torch.compile has what it needs: a C++ compiler, and Triton for a GPU."""
    known = (os.environ.get("CXX", "g++"), "clang++", "cl")
    triton = device.type != "cuda" or importlib.util.find_spec("triton") is not None
    return triton and any(shutil.which(name) for name in known)
