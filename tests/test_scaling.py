"""The recipes for GPUs build and train in small, and the documents say of their cost what the code counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import gpu_recipes
from benchmarks.documents import fill, markdown
from benchmarks.gpu_recipes import PLANNED, Planned, cost
from benchmarks.scaling import steady_speed
from benchmarks.scaling_report import TABLES, power
from generama.core import Batch, Condition, Player, Rng, Spec
from generama.families import build
from generama.families.diffusion import DiffusionConfig
from generama.families.gan import GANConfig
from generama.nets.attention_unet import AttentionUNetConfig
from generama.nets.dcgan import DCGANConfig
from generama.plans import DEFAULT_RECIPES
from generama.recipes import Recipe, recipe
from generama.training import play_round, start

every_plan = pytest.mark.parametrize("plan", PLANNED, ids=[plan.recipe for plan in PLANNED])


def shrunken(chosen: Recipe) -> Recipe:
    """The recipe with narrow layers; everything else is as it is."""
    family = chosen.family
    if isinstance(family, DiffusionConfig) and isinstance(family.net, AttentionUNetConfig):
        return replace(chosen, family=replace(family, net=replace(family.net, width=8, head=family.net.head // 8)))
    assert isinstance(family, GANConfig)
    return replace(chosen, family=replace(family, net=DCGANConfig(width=4)))


@every_plan
def test_a_gpu_recipe_trains_and_samples_in_small(plan: Planned) -> None:
    torch.manual_seed(0)
    chosen = shrunken(recipe(plan.recipe))
    family = build(chosen.family, plan.spec)
    label = torch.tensor([0, plan.spec.classes - 1]) if plan.spec.classes else None
    state = start(family.train(), chosen.train)
    before = [p.clone() for p in family.parameters()]
    logs = play_round(state, Batch(torch.rand(2, *plan.spec.shape) * 2 - 1, Condition(label)), chosen.train, rate=1e-3)
    assert logs and all(value.isfinite() for value in logs.values())
    assert any(not torch.equal(a, b) for a, b in zip(before, family.parameters(), strict=True))
    options: dict[str, Any] = chosen.sample | ({"steps": 2} if "steps" in chosen.sample else {})
    images = family.eval().sample(Rng([1]), **options)
    assert images.shape == (1, *plan.spec.shape) and images.isfinite().all()


def test_gpu_recipes_are_no_part_of_the_default_comparison() -> None:
    assert not {plan.recipe for plan in PLANNED} & set(DEFAULT_RECIPES)


def test_counted_operations_are_those_of_the_layers() -> None:
    # DCGAN's generator at 64 pixels by hand: 2 * 100 * 16384 for the first layer; then, for each transposed
    # convolution, 2 * 16 * channels in * channels out * pixels in
    layers = [(1024, 512, 4), (512, 256, 8), (256, 128, 16), (128, 3, 32)]
    by_hand = 2 * 100 * 16_384 + sum(2 * 16 * into * out * size**2 for into, out, size in layers)
    dcgan = next(plan for plan in PLANNED if plan.recipe == "dcgan-celeba64")
    assert cost(dcgan).sampling == by_hand


def test_the_document_says_what_the_code_counts() -> None:
    text = gpu_recipes.DOCUMENT.read_text()
    assert gpu_recipes.planned_table() in text, "run: python -m benchmarks.gpu_recipes"
    assert gpu_recipes.reported_table() in text
    assert all(f"train {plan.recipe} " in text for plan in PLANNED)


def test_eight_gpus_are_as_fast_as_assumed() -> None:
    assert gpu_recipes.hours(312e12 * 0.35 * 3600, 1) == pytest.approx(1.0)
    assert gpu_recipes.hours(312e12 * 0.35 * 3600, 8) == pytest.approx(1 / 7.2)
    assert [gpu_recipes.in_words(hours) for hours in (0.25, 3.21, 1851.0)] == ["15 min", "3.2 h", "1,900 h"]


def test_speed_leaves_out_the_first_step() -> None:
    log = [{"images": 16, "seconds": 5.0}, {"images": 116, "seconds": 7.0}, {"images": 216, "seconds": 9.0}]
    assert steady_speed(log) == 50
    assert steady_speed(log[:1]) == 3.2


def test_a_power_law_is_found_exactly() -> None:
    rows = [{"size": size, "cost": 3.0 * (size**2) ** 1.5} for size in (16, 32, 64)]
    assert power(rows, lambda row: row["cost"]) == "1.50"
    assert power(rows[:1], lambda row: row["cost"]) == ""


def test_every_table_of_the_report_has_its_place_in_the_document(tmp_path) -> None:
    document = tmp_path / "scaling.md"
    document.write_bytes(gpu_recipes.DOCUMENT.read_bytes())
    for name in ("measured", *TABLES):
        fill(document, name, markdown(["a", "b"], [[name, "1"]]))
        fill(document, name, markdown(["a", "b"], [[name, "2"]]))  # what stood there is replaced
    text = document.read_text()
    assert text.count("| 2 |") == 1 + len(TABLES) and "| 1 |" not in text and "not run yet" not in text
    with pytest.raises(ValueError, match="no markers"):
        fill(document, "weather", "")


def test_what_is_kept_for_the_way_back_is_counted_once_and_without_weights() -> None:
    # a plain convolution keeps its input alone: 3 x 32 x 32 float32 an image
    with torch.device("meta"):
        layer: Any = nn.Conv2d(3, 7, 3, padding=1)
        player = Player("layer", layer, lambda batch, _noise: (layer(batch.images).sum(), {}))
        turn = gpu_recipes.count(layer, player, Spec(3, 32))
    assert turn.kept == 3 * 32 * 32 * 4
    assert turn.forward == 2 * 9 * 3 * 7 * 32 * 32
    assert turn.flops == 2 * turn.forward  # the images need no gradient, so the way back is one convolution
