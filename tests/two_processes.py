"""Run by torchrun from test_world.py: every family for 20 steps, with copied (DDP) and with shared weights (FSDP2)."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tiny import TINY
from torch.distributed.elastic.multiprocessing.errors import record

from generama import machine, world
from generama.data import open_data
from generama.families import build
from generama.recipes import Recipe
from generama.run import Record, Run
from generama.settings import TrainSettings
from generama.training import train

CPU = torch.device("cpu")
NAMES = ["vae", "gan", "gan-mlp", "flow", "autoregressive", "diffusion-rectified-flow", "meanflow"]


def train_tiny(folder: Path, name: str, shard: bool, cache: Path) -> None:
    """20 steps of a tiny family on 8x8 digits; every step is logged."""
    data = world.first_then_all(lambda: open_data("digits", cache=cache))
    recipe = Recipe(TINY[name], TrainSettings(batch=26, steps=20, previews=1, snapshots=1, shard=shard, save_minutes=0))
    made = Record(name, recipe, data.spec, data.describe(), machine.describe(CPU), "test")
    world.by_first("making the run folder", lambda: Run.create(folder, made))
    torch.manual_seed(0)
    train(build(recipe.family, data.spec), data.train, recipe.train, Run.open(folder), CPU)


@record
def main() -> None:
    """Both ways, one family after the other."""
    out, cache = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    with world.joined(CPU):
        for name in NAMES:
            for shard in (False, True):
                train_tiny(out / f"{name}-{'shared' if shard else 'copied'}", name, shard, cache)


if __name__ == "__main__":
    main()
