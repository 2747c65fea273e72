"""Editing without retraining: exact answers on Gaussian data, and the words as a user types them."""

from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, UNET
from torch import Tensor

import generama
from generama.__main__ import main
from generama.core import Batch, Condition, Denoiser, Editable, Noise, Rng, Spec
from generama.errors import UsageError
from generama.families import build
from generama.families.diffusion import DiffusionConfig
from generama.gaussian.editing import image_to_image, inpaint, invert, noised, slerp
from generama.gaussian.formulations import DDPM, EDM, Formulation, RectifiedFlow, Velocity, column
from generama.gaussian.grids import GRIDS
from generama.gaussian.samplers import SAMPLERS, foreseen, start

MEAN, STD = 0.4, 0.3
FORMULATIONS: dict[str, Formulation] = {"rectified-flow": RectifiedFlow(), "eps": DDPM(), "edm": EDM()}
DETERMINISTIC = [name for name in SAMPLERS if name != "ancestral"]
each_formulation = pytest.mark.parametrize("formulation", FORMULATIONS.values(), ids=FORMULATIONS)


def gaussian_velocity(y: Tensor, t: Tensor) -> Tensor:
    """The exact velocity where the data is N(MEAN, STD^2)."""
    t = column(t)
    variance = (1 - t) ** 2 * STD**2 + t**2
    return (t - (1 - t) * STD**2) / variance * (y - (1 - t) * MEAN) - MEAN


def rng_of(count: int) -> Rng:
    return Rng(range(count), dtype=torch.float64)


def uniform(formulation: Formulation, steps: int) -> Tensor:
    return GRIDS["uniform"](formulation, steps)


PICTURES = torch.linspace(-0.9, 1.3, 7, dtype=torch.float64).view(7, 1, 1, 1)


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("ddim", 1), ("heun", 2)])
def test_inversion_gives_the_noise_and_the_picture_back_with_the_order_of_the_sampler(sampler: str, order: int) -> None:
    """The flow of the Gaussian is known: y at t = 1 is (x0 - mean) / std."""
    lost, missed = [], []
    for steps in (40, 80, 160, 320):
        times, sample = uniform(RectifiedFlow(), steps), SAMPLERS[sampler]
        noise = invert(sample, gaussian_velocity, times, rng_of(7), PICTURES, near=1e-9)
        again = sample(gaussian_velocity, noise, times, rng_of(7))
        missed.append(float((noise - (PICTURES - MEAN) / STD).abs().max()))
        lost.append(float((again - PICTURES).abs().max()))
    for errors in (missed, lost):
        orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
        assert all(abs(found - order) < 0.2 for found in orders[1:]), (orders, errors)


@each_formulation
@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_every_sampler_inverts_in_the_mirror_from_the_least_time_that_the_model_knows(
    formulation: Formulation, sampler: str
) -> None:
    missed, lost = [], []
    for steps in (100, 400):
        times = uniform(formulation, steps)
        noise = invert(SAMPLERS[sampler], gaussian_velocity, times, rng_of(7), PICTURES, formulation.last)
        t0 = times[0]
        truth = (1 - t0) * MEAN + torch.hypot((1 - t0) * STD, t0) * (PICTURES - MEAN) / STD
        missed.append(float((noise - truth).abs().max()))  # of up to 4.3
        lost.append(float((SAMPLERS[sampler](gaussian_velocity, noise, times, rng_of(7)) - PICTURES).abs().max()))
    assert missed[0] < 0.2 and missed[1] < missed[0] / 3 + 0.01  # at the least time there is some noise already
    assert lost[0] < 0.12 and lost[1] < lost[0] / 3 + 0.003


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_strength_one_is_plain_sampling_and_strength_zero_the_picture(sampler: str) -> None:
    times, sample = uniform(RectifiedFlow(), 13), SAMPLERS[sampler]
    rng = rng_of(7)
    plain = sample(gaussian_velocity, start(times, rng, (1, 1, 1)), times, rng)
    assert torch.equal(image_to_image(sample, gaussian_velocity, times, rng_of(7), PICTURES, 1.0), plain)
    assert torch.equal(image_to_image(sample, gaussian_velocity, times, rng_of(7), PICTURES, 0.0), PICTURES)
    assert torch.equal(image_to_image(sample, gaussian_velocity, times, rng_of(7), PICTURES, 0.05), PICTURES)


def test_a_small_strength_moves_little_and_a_larger_one_more() -> None:
    times = uniform(RectifiedFlow(), 100)
    moved = [
        float(
            (image_to_image(SAMPLERS["heun"], gaussian_velocity, times, rng_of(7), PICTURES, s) - PICTURES).abs().max()
        )
        for s in (0.01, 0.1, 0.5, 0.99)
    ]
    assert moved[0] < 0.05 and all(a < b for a, b in itertools.pairwise(moved))


@each_formulation
@pytest.mark.parametrize("strength", [0.3, 0.7])
def test_image_to_image_has_the_mean_and_spread_that_bayes_gives(formulation: Formulation, strength: float) -> None:
    """Noised to t and led back along the flow: an affine map of the picture, known in closed form."""
    count, x0, times = 4_000, 0.9, uniform(formulation, 200)
    picture = torch.full((1, 1, 1, 1), x0, dtype=torch.float64)
    found = image_to_image(
        SAMPLERS["heun"], gaussian_velocity, times, Rng(range(count), dtype=torch.float64), picture, strength
    )
    t = times[times <= strength + 1e-6][0]
    scale = STD / torch.hypot((1 - t) * STD, t)
    mean, std = MEAN + scale * (1 - t) * (x0 - MEAN), scale * t
    assert found.shape == (count, 1, 1, 1)  # variations of one picture
    assert abs(float((found.mean() - mean) / (std / count**0.5))) < 4
    assert abs(float(found.std() / std - 1)) < 4 / (2 * count) ** 0.5


@pytest.mark.parametrize("strength", [-0.1, 1.5, math.nan])
def test_a_strength_that_is_none_is_refused(strength: float) -> None:
    with pytest.raises(UsageError, match="strength runs from 0"):
        image_to_image(SAMPLERS["euler"], gaussian_velocity, uniform(DDPM(), 3), rng_of(7), PICTURES, strength)


def test_going_back_to_noise_keeps_the_law_of_the_noisy_picture() -> None:
    s, t, x0 = torch.tensor(0.3), torch.tensor(0.8), torch.tensor(0.7)
    y = noised(torch.lerp(x0, torch.tensor(0.0), s), s, t, torch.tensor(0.0))
    assert torch.allclose(y, (1 - t) * x0)
    shrunk = (1 - t) / (1 - s)
    fresh = noised(torch.tensor(0.0), s, t, torch.tensor(1.0))
    assert torch.allclose((shrunk * s) ** 2 + fresh**2, t**2)
    assert noised(torch.tensor(5.0), s, torch.tensor(1.0), torch.tensor(0.2)) == 0.2


@each_formulation
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_known_pixels_come_out_exactly(formulation: Formulation, sampler: str) -> None:
    picture = Rng([3, 4]).normal(1, 3, 3)
    unknown = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    times = uniform(formulation, 5).float()

    def edit(where: Tensor) -> Tensor:
        return inpaint(SAMPLERS[sampler], gaussian_velocity, times, Rng([1, 2]), picture, where, 3)

    assert torch.equal(edit(unknown), picture)
    unknown[..., 1, 1] = True
    found = edit(unknown)
    assert torch.equal(found[..., 0, :], picture[..., 0, :]) and found.isfinite().all()
    assert (found[..., 1, 1] != picture[..., 1, 1]).all()


@pytest.mark.parametrize("sampler", ["euler", "heun", "ddim"])
def test_nothing_known_and_each_step_once_is_plain_sampling(sampler: str) -> None:
    times, sample = uniform(DDPM(), 7), SAMPLERS[sampler]
    plain = sample(gaussian_velocity, start(times, rng_of(7), (1, 1, 1)), times, rng_of(7))
    everywhere = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    found = inpaint(sample, gaussian_velocity, times, rng_of(7), PICTURES, everywhere, repeats=1)
    assert torch.allclose(found, plain, atol=1e-14, rtol=0)
    with pytest.raises(UsageError, match="at least once"):
        inpaint(sample, gaussian_velocity, times, rng_of(7), PICTURES, everywhere, repeats=0)


COV = torch.tensor([[0.25, 0.18], [0.18, 0.20]], dtype=torch.float64)
PAIR_MEAN = torch.tensor([0.3, -0.2], dtype=torch.float64)


def pair_velocity(y: Tensor, t: Tensor) -> Tensor:
    """The exact velocity of two correlated pixels, (B, 1, 1, 2)."""
    rest = (y.flatten(1) - (1 - t) * PAIR_MEAN) @ torch.linalg.inv((1 - t) ** 2 * COV + t**2 * torch.eye(2))
    return (t * rest - PAIR_MEAN - (1 - t) * rest @ COV).view_as(y)


class Together:
    """One stream for many images, where thousands of streams would be slow."""

    def __init__(self, count: int) -> None:
        self.noise = Noise(5, count)

    def normal(self, *shape: int) -> Tensor:
        return self.noise.normal(*shape).double()


def test_an_inpainted_pixel_follows_its_exact_conditional_distribution_given_enough_repeats() -> None:
    count, known, unknown = 4_000, 0.9, torch.tensor([False, True]).view(1, 1, 1, 2)
    slope = COV[0, 1] / COV[0, 0]
    mean, variance = PAIR_MEAN[1] + slope * (known - PAIR_MEAN[0]), COV[1, 1] - slope * COV[0, 1]
    picture = torch.tensor([known, -7.0], dtype=torch.float64).view(1, 1, 1, 2).expand(count, 1, 1, 2)
    times = GRIDS["quadratic"](RectifiedFlow(), 40)

    def errors(repeats: int) -> tuple[float, float]:
        """Of mean and variance, in standard errors."""
        rng: Any = Together(count)
        pixel = inpaint(SAMPLERS["heun"], pair_velocity, times, rng, picture, unknown, repeats)[..., 1]
        return (
            abs(float((pixel.mean() - mean) / (variance / count).sqrt())),
            abs(float((pixel.var() - variance) / (variance * (2 / count) ** 0.5))),
        )

    assert max(errors(40)) < 4
    assert min(errors(1)) > 10  # without repeats the two pixels do not agree


def test_slerp_keeps_norms_and_ends_and_turns_evenly() -> None:
    a, b = Rng([1, 2, 3]).normal(1, 5, 5), Rng([4, 5, 6]).normal(1, 5, 5)
    unit = [x / x.square().sum((1, 2, 3), keepdim=True).sqrt() * 5 for x in (a, b)]
    for share in (0.0, 0.25, 0.5, 1.0):
        middle = slerp(*unit, torch.full((3,), share))
        assert torch.allclose(middle.square().sum((1, 2, 3)).sqrt(), torch.full((3,), 5.0), rtol=1e-5)
    assert torch.allclose(slerp(a, b, torch.zeros(3)), a, atol=1e-5)
    assert torch.allclose(slerp(a, b, torch.ones(3)), b, atol=1e-5)
    angles = [
        torch.linalg.vecdot(unit[0].flatten(1), slerp(*unit, torch.full((3,), share)).flatten(1))
        .div(25)
        .clamp(-1, 1)
        .arccos()
        for share in (0.25, 0.5, 1.0)
    ]
    assert torch.allclose(4 * angles[0], angles[2], rtol=1e-3) and torch.allclose(2 * angles[1], angles[2], rtol=1e-3)
    assert torch.allclose(slerp(a, 2 * a, torch.full((3,), 0.5)), 1.5 * a, atol=1e-5)  # parallel
    quarter = slerp(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([1 / 3]))
    assert torch.allclose(quarter.flatten(), torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)]))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_edited_image_depends_on_its_row_and_its_seed_alone(sampler: str) -> None:  # NU-10
    times, sample = uniform(RectifiedFlow(), 5).float(), SAMPLERS[sampler]
    picture, seeds = Rng([7, 8, 9]).normal(1, 3, 3), [11, 2, 5]
    unknown = torch.eye(3, dtype=torch.bool).view(1, 1, 3, 3)

    def edits(rows: slice) -> list[Tensor]:
        taken = picture[rows]
        return [
            image_to_image(sample, gaussian_velocity, times, Rng(seeds[rows]), taken, 0.7),
            inpaint(sample, gaussian_velocity, times, Rng(seeds[rows]), taken, unknown, 2),
            invert(sample, gaussian_velocity, times, Rng(seeds[rows]), taken, 0.002),
        ]

    for together, alone in zip(edits(slice(0, 3)), edits(slice(1, 2)), strict=True):
        assert torch.allclose(together[1:2], alone, atol=1e-6)


def test_what_is_foreseen_of_one_point_data_is_the_point_at_every_call() -> None:
    point, seen = torch.full((1, 1, 2, 3), 0.37, dtype=torch.float64), []
    towards: Velocity = lambda y, t: (y - point) / column(t)  # noqa: E731
    times = uniform(RectifiedFlow(), 7)
    SAMPLERS["heun"](foreseen(towards, seen), Rng([1, 2], dtype=torch.float64).normal(1, 2, 3), times, rng_of(2))
    assert len(seen) == 13 and all((estimate - point).abs().max() < 1e-8 for estimate in seen)


@each_formulation
def test_the_error_of_the_guessed_image_is_that_of_the_network_on_the_scale_of_the_formulation(
    formulation: Formulation,
) -> None:
    """x0 - x0_hat is t (rectified flow), t / (1 - t) (eps) or c_out (EDM) times the error of the network."""
    torch.manual_seed(0)
    family = build(DiffusionConfig(formulation=formulation, net=UNET), Spec(1, 8, 3))
    assert isinstance(family, Denoiser) and isinstance(family, Editable)
    batch = Batch(torch.rand(5, 1, 8, 8) * 2 - 1, Condition(torch.tensor([0, 1, 2, 0, 1])))
    for t in (0.1, 0.5, 0.9):
        d = 0.5
        scale = {"rectified-flow": t, "ddpm": t / (1 - t), "edm": d * t / math.hypot(t, d * (1 - t))}[formulation.kind]
        image, loss = family.errors(batch, Noise(3, 5), t)
        assert image.shape == loss.shape == (5,) and image.min() > 0
        assert torch.allclose(image, scale**2 * loss, rtol=1e-3)


@pytest.mark.parametrize("name", TINY)
def test_a_family_that_can_be_edited_samples_by_the_way_it_gives_away(name: str) -> None:
    torch.manual_seed(0)
    family = build(TINY[name], Spec(1, 8, 3)).eval()
    if not isinstance(family, Editable):
        return
    cond = Condition(torch.tensor([1, 2]))
    way = family.process(Rng([4, 5]), cond, steps=3)
    with torch.no_grad():
        rng = Rng([4, 5])
        images = way.sampler(way.velocity, start(way.times, rng, (1, 8, 8)), way.times, rng).clamp(-1, 1)
        assert torch.equal(images, family.sample(Rng([4, 5]), cond, steps=3))
    assert not way.random and family.process(Rng([4]), cond, steps=3, sampler="ancestral").random
    assert not family.process(Rng([4]), cond, **family.traceable).random


# The words, on a run that hardly learned.


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory):
    """An empty folder with a run, a picture in colour of 23x17 with transparency, and a mask of that size."""
    before, cache = Path.cwd(), os.environ.get("GENERAMA_CACHE")
    os.chdir(tmp_path_factory.mktemp("work"))
    os.environ["GENERAMA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    generama.train("rectified-flow", data="digits", run="flowing", images=320, batch=32)
    pixels = np.random.default_rng(0).integers(0, 256, (17, 23, 4), np.uint8)
    Image.fromarray(pixels).save("cat.png")
    Image.fromarray(np.repeat([[0] * 12 + [255] * 11], 17, axis=0).astype(np.uint8)).save("mask.png")
    yield
    os.chdir(before)
    os.environ.pop("GENERAMA_CACHE")
    if cache:
        os.environ["GENERAMA_CACHE"] = cache


def manifest(name: str) -> dict[str, Any]:
    return json.loads(Path("runs/flowing/edits", name, "manifest.json").read_text())


def drawn(name: str, single: str) -> np.ndarray:
    return np.asarray(Image.open(Path("runs/flowing/edits", name, f"{single}.png")))


def test_inpainting_files_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["edit", "flowing", "cat.png", "--how", "inpaint", "--mask", "mask.png", "--seeds", "3,5"]
    assert main([*words, "--repeats", "2", "--steps", "4", "--label", "7"]) == 0
    path = Path(capsys.readouterr().out.strip().splitlines()[-1])
    assert path == Path("runs/flowing/edits/inpaint")
    assert sorted(p.name for p in path.iterdir()) == ["000-seed-3.png", "000-seed-5.png", "grid.png", "manifest.json"]
    found = manifest("inpaint")
    assert found["options"]["steps"] == 4 and found["repeats"] == 2 and found["label"] == [7]
    assert found["seeds"] == [3, 5] and found["columns"] == ["picture", "what is known", "seed 3", "seed 5"]
    three, five = drawn("inpaint", "000-seed-3"), drawn("inpaint", "000-seed-5")
    assert three.shape == (8, 8) and 16 <= found["unknown_pixels"] <= 40
    assert (three[:, :3] == five[:, :3]).all() and (three[:, 5:] != five[:, 5:]).any()
    single = Image.open(path / "000-seed-3.png")
    assert json.loads(single.text["generama"])["ai_generated"] is True  # type: ignore[attr-defined]
    assert Image.open(path / "grid.png").text["Source"] == "AI-generated"  # type: ignore[attr-defined]


def test_image_to_image_and_variations_of_held_out_pictures() -> None:
    whole = generama.edit("flowing", held_out=3, strength=0.0, steps=4)
    assert whole == Path("runs/flowing/edits/img2img") and manifest("img2img")["pictures"][0].startswith("held-out ")
    data = generama.load("runs/flowing").run.data()
    rows = torch.tensor([int(name.split()[1]) for name in manifest("img2img")["pictures"]])
    pixels = data.held_out.pixels(rows)
    for i in range(3):  # strength 0 returns the picture, to the last level
        assert (drawn("img2img", f"{i:03d}-seed-0") == pixels[i, 0].numpy()).all()
    labels = data.held_out.labels(rows)
    assert labels is not None and manifest("img2img")["label"] == labels.tolist()
    generama.edit("flowing", ["cat.png"], how="variations", steps=4, batch=3, name="many")
    assert manifest("many")["seeds"] == list(range(8)) and manifest("many")["label"] is None
    generama.edit("flowing", "cat.png", how="variations", steps=4, seeds=(5,), name="one")
    difference = drawn("many", "000-seed-5").astype(int) - drawn("one", "000-seed-5")
    assert np.abs(difference).max() <= 1 and (drawn("many", "000-seed-5") != drawn("many", "000-seed-4")).any()


def test_reconstruction_returns_the_pictures_and_interpolation_joins_them() -> None:
    generama.edit("flowing", held_out=3, how="reconstruct")
    found = manifest("reconstruct")
    assert found["options"]["sampler"] == "heun" and found["options"]["clip"] is False
    assert max(found["mean_error_in_grey_levels"]) < 3
    generama.edit("flowing", held_out=3, how="interpolate", frames=4, steps=40)
    assert manifest("interpolate")["columns"] == ["picture", "0.00", "0.33", "0.67", "1.00", "next picture"]
    assert np.abs(drawn("interpolate", "000-003").astype(int) - drawn("interpolate", "001-000")).max() <= 1
    generama.edit("flowing", how="interpolate", seeds=(3, 4), frames=3, label=2, steps=5, name="seeds")
    own = generama.load("runs/flowing").sample([3], 2, steps=5, sampler="heun", guidance=1.0, clip=False)
    own_bytes = ((own[0, 0] + 1) * 127.5).round().numpy()
    assert np.abs(drawn("seeds", "000-000") - own_bytes).max() <= 1  # an end is that seed's sample


def test_what_does_not_fit_together_is_refused_and_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    refusals = {
        ("cat.png", "--how", "inpaint"): (2, "--mask FILE"),
        ("cat.png", "--how", "inpaint", "--box", "0,0,9,3"): (2, "x0,y0,x1,y1"),
        ("cat.png", "--box", "0,0,3,3"): (2, "for --how inpaint"),
        (): (2, "name a picture"),
        ("cat.png", "--held-out", "2"): (2, "not both"),
        ("--held-out", "100000"): (2, "--held-out takes"),
        ("cat.png", "--how", "interpolate"): (2, "between two pictures"),
        ("cat.png", "--how", "reconstruct", "--sampler", "ancestral"): (2, "draws no noise"),
        ("cat.png", "--strength", "2"): (2, "strength runs"),
        ("cat.png", "--label", "10"): (2, "labels run from 0 to 9"),
        ("cat.png", "--name", "../elsewhere"): (2, "no name for an edit"),
        ("dog.png",): (3, "dog.png cannot be read"),
    }
    for i, (flags, (code, sentence)) in enumerate(refusals.items()):
        name = [] if "--name" in flags else ["--name", f"refused-{i}"]
        assert main(["edit", "flowing", *flags, *name]) == code, flags
        assert sentence in capsys.readouterr().err, flags
    assert not [p for p in Path("runs/flowing").rglob("*") if "refused" in p.name or ".incomplete" in p.name]
    with pytest.raises(UsageError, match="unknown sampling option 'stepps'"):
        generama.edit("flowing", "cat.png", stepps=3)


def test_a_family_that_has_no_way_to_enter_is_refused_with_the_recipes_that_have(
    capsys: pytest.CaptureFixture[str],
) -> None:
    generama.train("vae", data="digits", run="other", images=64, batch=32)
    generama.train("rectified-flow", data="moons", run="points", images=64, batch=32)
    assert main(["edit", "other", "cat.png"]) == 2
    said = capsys.readouterr().err
    assert "other cannot edit" in said and "rectified-flow" in said and "dcgan" not in said
    assert main(["show", "other"]) == 2 and "no noise levels" in capsys.readouterr().err
    assert main(["edit", "points", "--held-out", "3"]) == 2 and "points" in capsys.readouterr().err


def test_the_process_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "flowing"]) == 0
    shown = capsys.readouterr().out
    assert "noise level t" in shown and shown.strip().endswith("noise-levels.png")
    found = json.loads(Path("runs/flowing/process/noise-levels.json").read_text())
    assert len(found["times"]) == len(found["image_error"]) == len(found["loss"]) == 25
    squares = [t**2 * loss for t, loss in zip(found["times"], found["loss"], strict=True)]
    assert np.allclose(found["image_error"], squares, rtol=1e-3)  # rectified flow
    assert Image.open("runs/flowing/process/noise-levels.png").size[0] > 500
    made = generama.sample("flowing", seeds=range(3), steps=4, name="watched", singles=True)
    assert Image.open(made / "000002.png").size == (8, 8)
    strip, estimates = (Image.open(made / f"{name}.png").size for name in ("trajectory", "estimates"))
    assert strip[1] == estimates[1] and strip[0] == estimates[0] + 10  # four calls, and the sample itself
