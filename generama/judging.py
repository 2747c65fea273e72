"""Judge anything: runs and the pictures of any program, against any real pictures, at one n, in one table, on one page.

A run is measured against the pictures it learned from. Everything else is brought to the size of the real pictures by
their own rule, measured against those of them that are not held out, and set beside those that are. What was not the
same for both sides is a finding that stands under the numbers. It is written as folders that a report is made from.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from generama import machine, pictures, world
from generama.comparison import typed_command
from generama.core import Finding
from generama.data import Data
from generama.diagnosis import diagnose
from generama.errors import UsageError
from generama.evaluation import Evaluation, as_json, evaluate_images, evaluate_run
from generama.fairness import colours, copies, differences
from generama.files import whole_folder, write_json, write_whole
from generama.metrics.cache import cache_folder
from generama.metrics.choice import choose
from generama.metrics.extractors import extractor_for
from generama.progress import tell, track
from generama.report import write_report
from generama.run import Run, load
from generama.sampling import sample_run
from generama.settings import EvaluateSettings
from generama.subjects import (
    Form,
    Subject,
    asked_labels,
    drawn_from,
    find_subjects,
    in_colour,
    is_judged,
    open_real,
    open_subject,
    pixels_of,
)

DRAWN = 1_000  # samples that a run draws where no n was asked for
MOST = 10_000  # pictures that are measured where no n was asked for


@dataclass(frozen=True)
class Judged:
    """One subject: its numbers, and what to know before them."""

    name: str
    source: str
    folder: Path  # with metrics.json
    evaluation: Evaluation
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Judgement:
    """What `evaluate` found: a row a subject, all of the same n against the same real pictures."""

    real: dict[str, Any]  # what the data say of themselves
    n: int
    rows: list[Judged]
    notes: list[str]  # sentences about all rows
    report: Path | None = None  # of pictures that are not in a run; a run has its own page

    def as_json(self) -> dict[str, Any]:
        """All of it for machines; a number that is not finite is null."""
        subjects = [
            {"name": row.name, "source": row.source, "folder": str(row.folder)}
            | as_json(row.evaluation)
            | {"findings": [asdict(finding) for finding in row.findings]}
            for row in self.rows
        ]
        report = None if self.report is None else str(self.report)
        return {"n": self.n, "against": self.real, "notes": self.notes, "subjects": subjects, "report": report}


@dataclass(frozen=True)
class Entry:
    """A subject with its pictures opened in the form of the real ones."""

    subject: Subject
    data: Data
    grey: bool  # before the other side was looked at

    def __len__(self) -> int:
        return len(self.data.train.images)


def evaluate(wanted: EvaluateSettings) -> Judgement:
    """What `generama.commands.evaluate` promises."""
    subjects = find_subjects(wanted.subjects)
    runs = [Run.open(subject.run) for subject in subjects if subject.run]
    if wanted.average is not None and len(runs) < len(subjects):
        raise UsageError("--average is for runs; the pictures of other programs are measured as they are")
    if wanted.against is None and len(runs) < len(subjects):
        strange = next(subject.typed for subject in subjects if not subject.run)
        raise UsageError(
            f"{strange} is no run, so say what to measure it against: --against D, where D is a folder or zip of real "
            "pictures, an .npz, or a name such as mnist5k"
        )
    with world.joined(machine.pick_device()):
        real = world.first_then_all(lambda: _real(wanted, runs))
        own = len(runs) == len(subjects) and all(run.record.data["hash"] == real.meta.hash for run in runs)
        if wanted.against is None or (own and wanted.out is None):  # changed data are evaluate_run's to refuse
            return _measure_runs(runs, real, wanted)
        subjects = [_with_samples(subject, wanted) if subject.run else subject for subject in subjects]
        return world.by_first("measuring", lambda: _judge(subjects, real, wanted))


def _real(wanted: EvaluateSettings, runs: Sequence[Run]) -> Data:
    """The real side, at the size and in the colour of the runs where there are some and nothing else is asked for."""
    if wanted.against is None:
        if (wanted.size, wanted.grey, wanted.out) != (None, None, None):
            raise UsageError("--size, --grey and --out go with --against: a run is measured as it is, in its folder")
        if len({run.record.data["hash"] for run in runs}) > 1:
            kinds = ", ".join(f"{run.folder.name}: {run.record.data['name']}" for run in runs)
            raise UsageError(f"the runs learned from different pictures ({kinds}); name those to measure: --against D")
        return runs[0].data()
    learned = next((run.record.spec for run in runs if run.record.spec.levels), None)  # 2-D points have no size
    size = learned.size if learned and wanted.size is None else wanted.size
    grey = learned.channels == 1 if learned and wanted.grey is None else wanted.grey
    return open_real(wanted.against, Form(size, grey, wanted.on_bad, wanted.bad_limit))


def _measure_runs(runs: Sequence[Run], data: Data, wanted: EvaluateSettings) -> Judgement:
    """Measure runs against what they learned from; each keeps its numbers in its own folder."""
    rows = []
    for run in runs:
        name = "main" if wanted.average is None else f"average-{wanted.average:g}"
        made = run.samples_made(name)
        n = wanted.n or (made if len(runs) == 1 and made > DRAWN else DRAWN)
        trained = load(run.folder, average=wanted.average)
        if made != n:
            sample_run(trained, range(n), name=name)

        def measure(run: Run = run, generator: Any = trained.generator, name: str = name) -> Evaluation:
            return evaluate_run(run.folder, data=data, extractor=wanted.extractor, generator=generator, samples=name)

        found = world.by_first("measuring", measure)
        folder = run.folder if name == "main" else run.folder / "samples" / name
        rows.append(Judged(run.folder.name, str(run.folder), folder, found))
    first = rows[0].evaluation
    return Judgement(data.describe(), first.n, rows, [first.reference, f"features: {first.extractor_note}"])


def _with_samples(subject: Subject, wanted: EvaluateSettings) -> Subject:
    """A run with enough samples to be judged: its main ones, or others that are drawn now and leave those alone."""
    assert subject.run is not None
    run, n = Run.open(subject.run), wanted.n or DRAWN
    name = "main" if wanted.average is None else f"average-{wanted.average:g}"
    if run.samples_made(name) < n:
        name = "judged" if name == "main" else name
        if run.samples_made(name) < n:
            sample_run(load(run.folder, average=wanted.average), range(n), name=name)
    return replace(subject, source=run.folder / "samples" / name / "samples.npz")


def _judge(subjects: Sequence[Subject], real: Data, wanted: EvaluateSettings) -> Judgement:
    """Measure the pictures of all subjects alike, write the folders and the page."""
    if not real.spec.levels:
        raise UsageError(f"{wanted.against} is made of 2-D points; only a run of these very points is measured there")
    out = _place(subjects, real, wanted)
    entries, real, grey = _alike(subjects, real, wanted)
    n, why = common_n({entry.subject.name: len(entry) for entry in entries}, real, wanted.n)
    tell(f"{real.meta.name}: preparing the features that all will be measured in, once for this data")
    extractor = extractor_for(real, wanted.extractor, cache=cache_folder())
    size = real.spec.size
    notes = [why, f"all at {size}x{size} pixels, {'grey' if real.spec.channels == 1 else 'colour'}"]
    notes += [f"features: {extractor.note}", *(f"{real.meta.name}: {note}" for note in real.meta.notes)]
    if extractor.name == "pixels":
        notes.append(
            "to see more than layout and colour: pip install 'generama[features]' and --extractor efficientnet"
        )
    rows, drawn = [], {}
    for entry in track("measuring", entries, len(entries)):
        chosen = choose(len(entry), n)
        asked, why_not = asked_labels(entry.subject, entry.data, real, chosen)
        images = pixels_of(entry.data, chosen)
        found = evaluate_images(images, asked, real, extractor)
        findings = [*_findings(entry, real, grey), *_unused(why_not), *_unreliable(found)]
        name = entry.subject.name
        rows.append(Judged(name, entry.subject.typed, out / name, found, findings))
        drawn[name] = (chosen, asked, entry)
    with whole_folder(out) as draft:
        rows = [_write(draft / row.name, row, real, *drawn[row.name]) for row in rows]
        write_json(draft / "compare.json", _about(rows, real, n, notes))
    return Judgement(real.describe(), n, rows, notes, write_report(out))


def _place(subjects: Sequence[Subject], real: Data, wanted: EvaluateSettings) -> Path:
    """The folder that all is written to, once it is sure that nothing else is overwritten."""
    names = f"{'-'.join(subject.name for subject in subjects)[:60]}-against-{real.meta.name}"
    out = wanted.out or Path("runs") / f"judged-{re.sub(r'[^A-Za-z0-9._-]+', '_', names)}"
    sides = [Path(str(one)).resolve() for one in (*(s.source for s in subjects), wanted.against)]
    if any(out.resolve().is_relative_to(side) for side in sides):
        raise UsageError(f"{out} lies in the pictures that are judged; name another folder with --out")
    if out.exists() and not is_judged(out) and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and holds something else; name another folder with --out")
    return out


def _alike(subjects: Sequence[Subject], real: Data, wanted: EvaluateSettings) -> tuple[list[Entry], Data, bool]:
    """All subjects and the real side with the same number of channels, and whether the real side was grey."""
    form = Form(real.spec.size, wanted.grey, wanted.on_bad, wanted.bad_limit)
    opened = [(subject, open_subject(subject, real.spec.size, form)) for subject in subjects]
    entries = [Entry(subject, data, data.spec.channels == 1) for subject, data in opened]
    grey = real.spec.channels == 1
    bright = next((entry.subject.typed for entry in entries if not entry.grey), wanted.against if not grey else None)
    if bright is None:
        return entries, real, grey
    assert wanted.against is not None
    entries = [
        replace(entry, data=in_colour(entry.subject.source, entry.data, form, bright)) if entry.grey else entry
        for entry in entries
    ]
    return entries, in_colour(wanted.against, real, form, bright) if grey else real, grey


def common_n(counts: dict[str, int], real: Data, asked: int | None) -> tuple[int, str]:
    """The number of pictures that is measured of every subject, and the sentence that says why.

    Distances depend on n, so it is one for all, and no larger than what is held out, because the floor needs as many.
    Raises UsageError where more were asked for than there are.
    """
    name, fewest = min(counts.items(), key=lambda item: item[1])
    held_out = len(real.held_out)
    rule = "its own test split" if real.meta.split == "the source's own" else "a fifth of it, which is the floor"
    if asked is not None and asked < 2:
        raise UsageError(f"--n {asked}: a distribution needs at least 2 pictures, better 1,000")
    if asked is not None and asked > min(fewest, held_out):
        short = f"{name} has {fewest:,}" if fewest <= held_out else f"{real.meta.name} holds out {held_out:,} ({rule})"
        raise UsageError(f"--n {asked:,} pictures are more than there are: {short}; leave --n out")
    if asked is not None:
        return asked, f"n = {asked:,} pictures of each, as asked"
    n = min(fewest, held_out, MOST)
    if n == MOST:
        return n, f"n = {n:,} pictures of each, the most that are measured unless --n says otherwise"
    if n == fewest:
        return n, f"n = {n:,} pictures of each: {name} has no more"
    return n, f"n = {n:,} pictures of each: {real.meta.name} holds out no more ({rule})"


def _findings(entry: Entry, real: Data, grey: bool) -> Iterator[Finding]:
    """What is to be known of a subject before its numbers."""
    if drawn_from(entry.subject).get("hash") != real.meta.hash:  # a run's samples went through what its data did
        yield from differences(entry.data, real)
        yield from colours(entry.grey, grey, real.meta.name)
    yield from copies(entry.data, real)
    for note in entry.data.meta.notes:
        yield Finding("pictures", "warning", note, f"found while reading {entry.subject.typed}", "look at the pictures")


def _unused(why: str) -> Iterator[Finding]:
    if why:
        yield Finding("labels", "note", why, "conditional accuracy is therefore not measured", "rename the classes")


def _unreliable(found: Evaluation) -> Iterator[Finding]:
    note = found.measures["frechet"].note
    if note.startswith("unreliable"):
        advice = "judge more pictures, or choose features with fewer dimensions: --extractor pixels"
        yield Finding(
            "few", "warning", f"The Fréchet distance is {note}", "a covariance needs more rows than columns", advice
        )


def _write(folder: Path, row: Judged, real: Data, chosen: Tensor, asked: Tensor | None, entry: Entry) -> Judged:
    """A judged folder: what a run folder has, but for the training; its diagnosis is added to the row's findings."""
    meta = entry.data.meta
    stored = pixels_of(entry.data, chosen).permute(0, 2, 3, 1).numpy()
    arrays: dict[str, Any] = {"images": stored}
    if asked is not None:
        arrays["labels"] = asked.numpy()
    samples = folder / "samples" / "main"
    samples.mkdir(parents=True)
    np.savez_compressed(samples / "samples.npz", **arrays)
    drawing = io.BytesIO()  # without the mark "AI-generated": nobody knows what these pictures are
    Image.fromarray(pictures.sheet(stored[:64], 8).squeeze()).save(drawing, "PNG")
    write_whole(samples / "grid.png", drawing.getvalue(), lasting=False)
    facts = {"source": row.source, "of": len(entry), "sizes": meta.sizes, "formats": meta.formats}
    write_json(samples / "manifest.json", {"n": len(chosen), **facts})
    about = {"name": row.name, "kind": "judged", "data": _real_facts(real), "spec": asdict(real.spec)}
    device = machine.describe(machine.pick_device())
    write_json(folder / "recipe.json", {**about, "machine": device, "command": typed_command()})
    write_json(folder / "metrics.json", as_json(row.evaluation))
    write_json(folder / "status.json", {"state": "done"})
    write_json(folder / "fairness.json", [asdict(finding) for finding in row.findings])
    return replace(row, findings=diagnose(folder, real).findings)


def _about(rows: Sequence[Judged], real: Data, n: int, notes: Sequence[str]) -> dict[str, Any]:
    """compare.json of judged pictures."""
    names = [row.name for row in rows]
    about = {"generama": machine.__version__, "kind": "judged", "recipes": names, "data": _real_facts(real)}
    facts = {"n": n, "notes": list(notes), "command": typed_command(), "started": time.strftime("%Y-%m-%d %H:%M")}
    return {**about, **facts, "runs": names, "failed": {}}


def _real_facts(real: Data) -> dict[str, Any]:
    """What the real side says of itself; its source is the prepared folder, which opens as it was measured."""
    return real.describe() | {"source": str(real.folder.resolve())}
