"""The diagnosis: every question that is asked of a run, the findings, and what could not be looked at and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from generama.core import Examined, Finding, Noise, seed_of
from generama.data import Data
from generama.diagnosis import measured, pictures, samples, training_log
from generama.diagnosis.evidence import Evidence
from generama.errors import GeneramaError, Unseen, UsageError
from generama.files import write_json
from generama.run import draw

SEVERITY = ("problem", "warning", "note")
DRAWN = 8  # images that are drawn where there are no samples


@dataclass(frozen=True)
class Diagnosis:
    """What diagnosis.json says."""

    findings: list[Finding]  # the gravest first
    looked_at: list[str]  # in words
    not_seen: dict[str, str]  # what could not be looked at, and why


def diagnose(folder: Path, data: Data | None = None) -> Diagnosis:
    """Look at all that a run folder has to show, and write diagnosis.json there.

    Works on runs that are unfinished, failed or empty as far as they go. UsageError where there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no run {folder}; 'generama train' makes one")
    evidence = Evidence(folder, data)
    found: list[Finding] = []
    looked_at, not_seen = [], {}
    for what, look in LOOKS.items():
        try:
            found += list(look(evidence))
            looked_at.append(what)
        except GeneramaError as reason:
            not_seen[what] = str(reason)
    try:
        family = evidence.trained.generator
        if isinstance(family, Examined):
            found += examined(evidence, family)
            looked_at += family.ailments
    except GeneramaError as reason:
        not_seen["the weights"] = str(reason)
    found.sort(key=lambda finding: SEVERITY.index(finding.severity))
    diagnosis = Diagnosis(found, looked_at, not_seen)
    write_json(folder / "diagnosis.json", asdict(diagnosis))
    return diagnosis


def examined(evidence: Evidence, family: Examined) -> Sequence[Finding]:
    """A family's own findings on held-out pictures."""
    batch = evidence.batch
    noise = Noise(seed_of("diagnosis"), len(batch), batch.images.device)
    with torch.no_grad():
        return family.examine(batch, noise, evidence.log_so_far)


def not_finite(e: Evidence) -> Iterable[Finding]:
    """Steps that were not applied, from log and events."""
    return training_log.not_finite(e.log_so_far, e.events, e.rate)


def failed(e: Evidence) -> Iterable[Finding]:
    """A run that ended with an error."""
    if not e.status:
        raise Unseen("training has not saved anything yet")
    return training_log.failed(e.status)


def undertrained(e: Evidence) -> Iterable[Finding]:
    """A budget that ended too early."""
    if e.status.get("state") != "done":
        raise Unseen("its budget has not ended yet")
    try:
        points = e.metrics.get("progress", {}).get("points", [])
    except Unseen:
        points = []
    pictures_seen, passes = e.status.get("images"), e.recipe.get("data", {}).get("train")
    return training_log.undertrained(e.log, points, pictures_seen / passes if pictures_seen and passes else None)


def collapsed_classes(e: Evidence) -> Iterable[Finding]:
    """Classes whose samples are nearly one picture."""
    (images, labels), (real, real_labels) = e.samples, e.held_out
    if labels is None or real_labels is None:
        raise Unseen("the samples were not asked for a class")
    return samples.collapsed_classes(images, labels, real, real_labels, e.classes)


def dropped_classes(e: Evidence) -> Iterable[Finding]:
    """Classes that are not drawn, expected as they were asked for, or as they are in the data."""
    if not e.classes:
        raise Unseen("the data has no labels")
    labels = e.samples[1]
    known = e.data.train.labels(slice(None)) if labels is None else labels
    assert known is not None
    counts = torch.bincount(known, minlength=len(e.classes)).double()
    return measured.dropped_classes(e.metrics, (counts / counts.sum()).tolist(), e.classes, labels is not None)


def blank_pictures(e: Evidence) -> Iterable[Finding]:
    """Training pictures without contrast."""
    if not e.data.spec.levels:
        raise Unseen("points have no pixels")
    return pictures.blank(e.contents[0])


def can_be_drawn(e: Evidence) -> Iterable[Finding]:
    """Samples that are numbers. Those that are kept are: so a few are drawn where there are none."""
    if (e.folder / "samples" / "main" / "samples.npz").exists():
        return ()
    options = e.trained.run.record.recipe.sample
    images = draw(e.trained.generator, range(DRAWN), None, DRAWN, e.trained.device, **options)
    return samples.not_numbers(images)


LOOKS: dict[str, Callable[[Evidence], Iterable[Finding]]] = {
    "whether it failed": failed,
    "numbers that are not finite": not_finite,
    "losses that swing": lambda e: training_log.oscillating(e.log),
    "an end that came too early": undertrained,
    "what was not the same for both sides": lambda e: e.unfair,
    "samples that are not numbers": can_be_drawn,
    "samples unlike the data": lambda e: measured.unlike(e.metrics),
    "mode collapse": lambda e: samples.mode_collapse(e.samples[0], e.held_out[0]),
    "mode collapse within classes": collapsed_classes,
    "dropped classes": dropped_classes,
    "blank samples": lambda e: samples.blank(e.samples[0], e.held_out[0]),
    "burnt-out samples": lambda e: samples.burnt_out(e.samples[0], e.held_out[0]),
    "memorisation": lambda e: measured.memorised(e.metrics),
    "leakage between the splits": lambda e: pictures.leaked(*e.contents),
    "duplicates in the data": lambda e: pictures.duplicated(e.contents[0]),
    "blank pictures in the data": blank_pictures,
    "balance of the classes": lambda e: pictures.unbalanced(e.data.train, e.classes),
}
