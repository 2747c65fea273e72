"""One run folder, or one folder of judged pictures -> a Run, whatever of it is there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from generama.report.lenient import (
    dict_in,
    finite_in,
    integer_in,
    list_in,
    number_in,
    objects_in,
    read_log,
    read_object,
    text_in,
)
from generama.report.records import JUDGED, Finding, Neighbour, Progress, Reading, Run, Twins

SEVERITIES = ("problem", "warning", "note")


def read_run(folder: Path) -> Run:
    """Read a run; what is missing, partial or garbled is said in its notes."""
    notes: list[str] = []
    made = read_object(folder / "recipe.json", notes)
    status = read_object(folder / "status.json", notes)
    metrics = read_object(folder / "metrics.json", notes)
    manifest = read_object(folder / "samples" / "main" / "manifest.json", notes)
    judged = text_in(made, "kind") == JUDGED
    log = [] if judged else read_log(folder / "log.jsonl", notes)
    config = dict_in(made, "recipe")
    family = dict_in(config, "family")
    spec, data = dict_in(made, "spec"), dict_in(made, "data")
    readings = _readings(metrics, manifest, status)
    notes += [f"{key} is not a number" for key, reading in readings.items() if reading.broken]
    if any(isinstance(x, float) and not math.isfinite(x) for line in log for x in line.values()):
        notes.append("the training log holds values that are not numbers: this run diverged")
    return Run(
        folder=folder,
        recipe=text_in(made, "name") or folder.name,
        family=JUDGED if judged else text_in(family, "kind"),
        config=config,
        seed=integer_in(made, "seed") if "seed" in made else integer_in(dict_in(config, "train"), "seed"),
        budget=text_in(status, "budget") or _budget(dict_in(config, "train")),
        state=text_in(status, "state") or "unknown",
        error=text_in(status, "error"),
        conditional=bool(family.get("conditional", True) and number_in(spec, "classes")) if spec and family else None,
        data=data,
        spec=spec,
        machine=dict_in(made, "machine"),
        command=text_in(made, "command"),
        version=text_in(made, "generama") or text_in(dict_in(made, "machine"), "generama"),
        readings=readings,
        extractor=text_in(metrics, "extractor"),
        extractor_note=text_in(metrics, "extractor_note"),
        n=integer_in(metrics, "n") or integer_in(manifest, "n"),
        protocol=_protocol(metrics, data, spec),
        options=dict_in(manifest, "options"),
        histogram=[number_in({"count": count}, "count") or 0.0 for count in list_in(metrics, "histogram")],
        per_class=_per_class(metrics),
        neighbours=_neighbours(metrics),
        twins=_twins(metrics),
        progress=_progress(dict_in(metrics, "progress")),
        findings=_findings(folder / "diagnosis.json", notes),
        log=log,
        previews=_previews(folder / "previews"),
        notes=notes,
    )


def _budget(train: dict[str, Any]) -> str:
    """The limits of the training settings in words: "10 epochs", "35 s"."""
    minutes = number_in(train, "minutes")
    limits = [f"{limit:,g} {name}" for name in ("epochs", "images", "steps") if (limit := number_in(train, name))]
    flops = number_in(train, "flops")
    time = [f"{60 * minutes:g} s" if minutes < 2 else f"{minutes:g} min"] if minutes else []
    return " or ".join(limits + time + ([f"{flops:.3g} FLOPs"] if flops else []))


def _readings(metrics: dict[str, Any], manifest: dict[str, Any], status: dict[str, Any]) -> dict[str, Reading]:
    """Measures by key; costs that metrics.json lacks are read from the manifest and the status."""
    found: dict[str, Reading] = {}
    for key, entry in dict_in(metrics, "measures").items():
        if isinstance(entry, dict):
            low, high = finite_in(entry, "low"), finite_in(entry, "high")
            ends = (low, high) if low is not None and high is not None and low <= high else (None, None)
            found[key] = Reading(number_in(entry, "value"), number_in(entry, "floor"), text_in(entry, "note"), *ends)
    elsewhere = {
        "seconds_per_image": number_in(manifest, "seconds_per_image"),
        "seconds_one": number_in(manifest, "seconds_one"),
        "evaluations": number_in(manifest, "evaluations"),
        "parameters": number_in(status, "parameters"),
        "train_seconds": number_in(status, "seconds"),
        "images_seen": number_in(status, "images"),
        "peak_memory": number_in(status, "peak_memory"),
    }
    for key, value in elsewhere.items():
        if value is not None and (key not in found or found[key].value is None):
            found[key] = Reading(value)
    return found


def _protocol(metrics: dict[str, Any], data: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """How the run was measured, {} where it was not; a metrics.json that does not say so is asked for what it knows."""
    said = dict_in(metrics, "protocol")
    if said or not dict_in(metrics, "measures"):
        return said
    known = {
        "n": integer_in(metrics, "n"),
        "extractor": text_in(metrics, "extractor"),
        "data": text_in(data, "hash"),
        "size": integer_in(spec, "size"),
        "channels": integer_in(spec, "channels"),
    }
    return {key: value for key, value in known.items() if value not in (None, "")}


def _per_class(metrics: dict[str, Any]) -> dict[str, list[float | None]]:
    """Measures of single classes by key, one value a class."""
    found = {}
    for key, values in dict_in(metrics, "per_class").items():
        if isinstance(values, list) and values:
            found[key] = [finite_in({"value": value}, "value") for value in values]
    return found


def _neighbours(metrics: dict[str, Any]) -> list[Neighbour]:
    """Samples beside their nearest training pictures, in the order they were measured: most like copies first."""
    found = []
    for entry in objects_in(metrics, "nearest"):
        sample, train, distance = integer_in(entry, "sample"), integer_in(entry, "train"), finite_in(entry, "distance")
        if sample is not None and train is not None and distance is not None:
            found.append(Neighbour(sample, train, distance, finite_in(entry, "held_out_distance")))
    return found


def _twins(metrics: dict[str, Any]) -> list[Twins]:
    """The pairs of samples that are most alike, nearest first."""
    found = []
    for entry in objects_in(metrics, "duplicates"):
        a, b, distance = integer_in(entry, "a"), integer_in(entry, "b"), finite_in(entry, "distance")
        if a is not None and b is not None and distance is not None:
            found.append(Twins(a, b, distance))
    return found


def _progress(about: dict[str, Any]) -> Progress:
    """Quality over training, in order of time."""
    points = []
    for entry in objects_in(about, "points"):
        point = {str(key): value for key in entry if (value := finite_in(entry, key)) is not None}
        if "seconds" in point:
            points.append(point)
    return Progress(integer_in(about, "n"), sorted(points, key=lambda point: point["seconds"]))


def _findings(path: Path, notes: list[str]) -> list[Finding] | None:
    """What diagnosis.json says, worst first; None where there is no such file."""
    about = read_object(path, notes, needed=False)
    if "findings" not in about:
        return None
    found = []
    for entry in objects_in(about, "findings"):
        severity = text_in(entry, "severity")
        severity = severity if severity in SEVERITIES else "note"
        title = text_in(entry, "title") or text_in(entry, "key") or "a finding without a title"
        said = (text_in(entry, name) for name in ("evidence", "advice"))
        found.append(Finding(text_in(entry, "key"), severity, title, *said))
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _previews(folder: Path) -> list[tuple[int, Path]]:
    """(images seen, picture), in order."""
    if not folder.is_dir():
        return []
    return sorted((int(path.stem), path) for path in folder.glob("*.png") if path.stem.isdecimal())
