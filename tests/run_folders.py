"""Run folders as train, sample and evaluate leave them, made by hand: for tests of the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 3
FRECHET = {"vae": 31.0, "dcgan": 24.0, "ddpm": 14.0}


def measure(
    value: float | None, floor: float | None = None, note: str = "", ends: tuple[float, float] | None = None
) -> dict:
    low, high = ends or (None, None)
    return {"value": value, "floor": floor, "note": note, "low": low, "high": high}


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def make_run(
    folder: Path, recipe: str = "vae", seed: int = 0, frechet: float = 20.0, seconds: float = 0.01, epochs: float = 10
) -> Path:
    """A whole run folder of 7x7 pictures, as train, sample and evaluate leave it."""
    run = folder / f"{recipe}-{epochs}-s{seed}"
    family = {"kind": recipe, "conditional": recipe != "dcgan"}
    data = {"source": str(folder / "gone"), "name": "tiny", "hash": "abc", "class_names": ["a", "b", "c"], "train": 11}
    spec = {"channels": 1, "size": 7, "classes": CLASSES, "levels": 256}
    train = {"seed": seed, "epochs": epochs}
    write(
        run / "recipe.json",
        {"name": recipe, "recipe": {"family": family, "train": train}, "spec": spec, "data": data,
         "machine": {"processor": "abacus", "cores": 2, "generama": "0.0.1"}, "command": f"generama train {recipe}"},
    )  # fmt: skip
    write(run / "status.json", {"state": "done", "error": None, "images": 110, "seconds": 5.0, "parameters": 1700})
    losses = [{"step": i, "images": 11 * i, "loss/model": 1 / (i + 1)} for i in range(13)]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in losses))
    pixels = np.random.default_rng(seed).integers(0, 256, (17, 7, 7, 1), np.uint8)
    samples = run / "samples" / "main"
    write(samples / "manifest.json", {"n": 17, "options": {"steps": 5}, "evaluations": 5, "seconds_per_image": seconds})
    np.savez(samples / "samples.npz", images=pixels, seeds=np.arange(17), labels=np.arange(17) % CLASSES)
    np.savez(samples / "trajectory.npz", frames=pixels[:6].reshape(3, 2, 7, 7, 1))
    (run / "previews").mkdir()
    for images in (11, 55, 110):
        Image.fromarray(pixels[0, :, :, 0]).save(run / "previews" / f"{images:09d}.png")
    measures = {
        "frechet": measure(frechet, 3.0),
        "recall": measure(0.5, 0.9),
        "missing_classes": measure(1 if recipe == "dcgan" else 0, 0),
        "bits_per_dim": measure(None, None, "a GAN gives no density")
        if recipe == "dcgan"
        else measure(1.5, None, "exact"),
    }
    write(run / "metrics.json", {"n": 17, "extractor": "classifier", "measures": measures, "histogram": [9, 8, 0],
                                 "nearest": [{"sample": 1, "train": 5, "distance": 2.0}]})  # fmt: skip
    return run


def change(path: Path, **entries: object) -> None:
    write(path, json.loads(path.read_text()) | entries)


def set_measure(run: Path, key: str, entry: dict) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["measures"][key] = entry
    write(run / "metrics.json", metrics)


def enrich(run: Path, width: float = 0.1) -> Path:
    """Add everything that a metrics.json may hold (intervals are `width` wide either way) and a diagnosis."""
    metrics = json.loads((run / "metrics.json").read_text())
    frechet = metrics["measures"]["frechet"]["value"]
    values = {"frechet": (frechet, 3.0), "kid": (frechet / 300, 0.0), "precision": (0.7, 0.8), "recall": (0.5, 0.8),
              "coverage": (0.6, 0.9), "conditional_accuracy": (0.9, 0.98), "memorised": (0.0, 0.0),
              "authentic": (0.8, 0.8), "duplicates": (0.1, 0.0)}  # fmt: skip
    for key, (value, floor) in values.items():
        metrics["measures"][key] = measure(value, floor, "", ((1 - width) * value, (1 + width) * value))
    per_class = {"conditional_accuracy": [0.9, 0.8, None], "kid": [0.1, 0.02, 0.3]}
    points = [
        {"seconds": 5 * share, "images": 110 * share, "share": share, "frechet": frechet / share, "kid": 0.1 / share}
        for share in (0.25, 0.5, 1.0)
    ]
    protocol = {"n": 17, "extractor": "classifier:1", "data": "abc", "size": 7, "channels": 1, "split": "train"}
    metrics |= {"per_class": per_class, "duplicates": [{"a": 2, "b": 11, "distance": 0.5}], "protocol": protocol,
                "progress": {"n": 13, "points": points}}  # fmt: skip
    write(run / "metrics.json", metrics)
    finding = {"key": "stalled", "severity": "warning", "title": "It stopped learning"}
    finding |= {"evidence": "The loss is flat since step 3.", "advice": "--rate 1e-3"}
    write(run / "diagnosis.json", {"findings": [finding]})
    return run


def make_judged(folder: Path, name: str = "theirs") -> Path:
    """A folder of pictures from another program, as `generama evaluate` leaves it: no log, no status of a training."""
    run = make_run(folder, name)
    made = json.loads((run / "recipe.json").read_text())
    del made["recipe"]
    write(run / "recipe.json", made | {"kind": "judged"})
    write(run / "status.json", {"state": "done"})
    (run / "log.jsonl").unlink()
    (run / "samples" / "main" / "trajectory.npz").unlink()
    for preview in (run / "previews").iterdir():
        preview.unlink()
    return run


def make_comparison(folder: Path, runs: list[Path], **entries: object) -> Path:
    """A compare.json for runs that are there."""
    recipes = list(dict.fromkeys(run.name.split("-")[0] for run in runs))
    about = {
        "data": {"name": "tiny"}, "budget": "10 epochs each", "recipes": recipes,
        "seeds": [0], "n": 17, "command": "generama compare vae dcgan ddpm", "runs": [run.name for run in runs],
        "failed": {}, "seconds": 21.0,
    }  # fmt: skip
    write(folder / "compare.json", about | entries)
    return folder
