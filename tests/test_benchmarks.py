"""The benchmarks' arithmetic: rates, operations, verdicts, and the page. What is fast is measured by `make bench`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import page, rows, sampling_speed
from benchmarks.diffusion import compare as compare_calls
from benchmarks.peak import convolutions
from benchmarks.rows import Row, Sheet
from benchmarks.speed import contenders, report, shown
from benchmarks.time_to_quality import FIRST, OURS, RIVALS, SHARES, compare
from benchmarks.watching import Others, Watched, cpu_seconds, watch

MACHINE = {
    "processor": "abacus",
    "instructions": "BEADS",
    "cores": 2,
    "threads": 2,
    "platform": "wood",
    "others": 0.0,
    "date": "1202-01-01",
}


def row(what: str, whom: str, value: float, unit: str = "s", target: str = "") -> Row:
    return Row(what, whom, value, unit, [value], MACHINE, {"torch": "2.13.0"}, "make bench", target)


def test_the_speed_is_that_of_the_warm_part_of_the_log() -> None:
    cold = [(float(t), t) for t in range(10)]  # an image a second
    warm = [(10.0 + t, 9 + 7 * t) for t in range(31)]  # then seven
    assert Watched(marks=cold + warm).speed == pytest.approx(7)
    with pytest.raises(SystemExit, match="--seconds"):
        _ = Watched(marks=warm[:2]).speed


def test_a_process_is_watched_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    code = (
        "import json, sys, time\n"
        "kept = bytearray(b'x') * 60_000_000\n"
        "for n in (3, 5, 11):\n"
        "    print(json.dumps({'images': n}), file=open(sys.argv[1], 'a')); time.sleep(0.2)\n"
    )
    seen = watch([sys.executable, "-c", code, str(log)], log, threads=1)
    assert seen.marks[-1][1] == 11 and seen.seconds > 0.6
    if sys.platform == "linux":
        assert 60e6 < seen.peak_memory < 200e6
    endless = code + "while True: time.sleep(1)\n"
    assert watch([sys.executable, "-c", endless, str(log)], log, threads=1, seconds=0.3).seconds < 10
    with pytest.raises(SystemExit, match="no luck"):
        watch([sys.executable, "-c", "raise ValueError('no luck')"], None, threads=1)


def test_the_cpu_time_of_others_is_told_from_our_own() -> None:
    if not Path("/proc/stat").is_file():
        pytest.skip("no /proc")
    spin = "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end: pass"
    others, (there, busy, ours) = Others(), cpu_seconds() or (0.0, 0.0, 0.0)
    process = subprocess.Popen([sys.executable, "-c", spin])
    while Path(f"/proc/{process.pid}/stat").read_text().split()[2] != "Z":
        time.sleep(0.01)
    as_a_stranger, (there_then, busy_then, ours_then) = others.share(), cpu_seconds() or (0.0, 0.0, 0.0)
    process.wait()  # from now on it is an ended child of ours
    as_our_own, ours_now = others.share(), (cpu_seconds() or (0.0, 0.0, 0.0))[2]
    assert there_then - there >= busy_then - busy > 0.5 > ours_then - ours
    assert ours_now - ours_then > 0.5
    assert as_a_stranger is not None and as_our_own is not None and as_a_stranger > as_our_own
    share = watch([sys.executable, "-c", "pass"], None, threads=1).others
    assert share is not None and 0 <= share <= 1
    assert "these figures do not count" in page.company(0.051) and "do not" not in page.company(0.05)
    assert "not measured" in page.company(None)


def test_the_peak_counts_operations_as_the_contenders_are_counted() -> None:
    with FakeTensorMode(), torch.no_grad():  # shapes only: nothing is computed
        tried = list(convolutions(torch.bfloat16))
        assert len(tried) == 36
        for run, flops in tried:
            with FlopCounterMode(display=False) as counter:
                run()
            assert counter.get_total_flops() == flops


def test_a_target_is_met_or_missed_by_so_much() -> None:
    assert row("ratio", "a / b", 2.5, target=">= 2.5").met
    assert not row("start", "help", 0.4, target="< 0.4").met
    text = page.targets([row("start", "help", 0.5, target="< 0.4"), row("ratio", "a / b", 3.0, "x", ">= 2.5")])
    assert "| start | help | < 0.4 s | 0.5 s | **missed** by 25% |" in text
    assert "| ratio | a / b | >= 2.5 x | 3 x | met by 20% |" in text


def test_the_page_takes_its_figures_from_the_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "performance.md"
    document.write_text(page.DOCUMENT.read_text())
    monkeypatch.setattr(page, "DOCUMENT", document)
    for other in ("METRICS", "DIFFUSION", "FEW_STEPS"):
        (tmp_path / other).write_text(getattr(page, other).read_text())
        monkeypatch.setattr(page, other, tmp_path / other)
    monkeypatch.setattr(rows, "RESULTS", tmp_path / "results")
    sheet = Sheet("startup", "make bench", {**MACHINE, "others": None})
    for share in (0.013, 0.071, None):
        sheet.beside(share)
    assert sheet.add("start", "help", [0.7, 0.3, 0.5], "s", {"torch": "2.13.0"}, target="< 0.4") == 0.5
    sheet.save()
    page.write_page()
    written = document.read_text()
    assert "| start | help | 0.5 s | 0.3 to 0.7 | 3 |" in written and "abacus" in written
    assert "**Other processes took at most 7.1% of the machine: these figures do not count.**" in written
    here = [name for name in page.SECTIONS if page.document_of(name) == document]
    assert written.count(page.NOT_RUN) == len(here) - 1  # one ran
    page.write_page()
    assert document.read_text() == written  # and nothing else moves
    newer = Sheet("startup", "make bench", {**MACHINE, "instructions": "ROPES", "date": "1494-01-01"})
    newer.add("start", "help", [0.2], "s", {"torch": "2.13.0"}, target="< 0.4")
    newer.save()
    page.write_page()
    both = document.read_text()  # another kind of machine replaces nothing
    assert both.index("On 2 cores with ROPES") < both.index("On 2 cores with BEADS")


def test_distances_stand_by_way_and_network_calls() -> None:
    sheet = Sheet("diffusion_calls", "python -m benchmarks.diffusion", MACHINE)
    for whom, value in (
        (page.REAL, 0.2),
        ("euler, uniform: 1 calls", 9.0),
        ("heun, karras: 9 calls", 0.52),
        ("student: 1 calls", 1.5),
        ("ddpm ancestral: 1,000 calls", 0.5),
    ):
        sheet.add("Fréchet distance, n = 2,000", whom, [value], "", {})
    compare_calls(sheet, 0.5, 1_000, 10, "<= 1.1")
    compare_calls(sheet, 0.5, 1_000, 1, "<= 2")
    ratios = {(r.whom, r.met): r.value for r in sheet.rows if r.target}
    assert ratios == {("heun, karras: 9 calls", True): pytest.approx(1.04), ("student: 1 calls", False): 3.0}
    text = page.network_calls(sheet.rows)
    assert "| network calls | 1 | 9 | 1,000 |" in text and "| heun, karras |  | 0.52 |  |" in text


def test_a_scheduler_is_timed_at_the_fewest_steps_that_are_enough_or_at_its_best() -> None:
    tried = {
        sampling_speed.OURS: 0.4,
        "ddim: 5 steps": 0.9,
        "ddim: 10 steps": 0.41,
        "unipc: 5 steps": 0.6,
        "unipc: 10 steps": 0.5,
        "unipc: 15 steps": 0.55,
    }
    found = sampling_speed.enough_steps([row("Fréchet distance", whom, value, "") for whom, value in tried.items()])
    assert found == {"ddim": 10, "unipc": 10}


def test_speeds_become_operations_shares_and_ratios() -> None:
    entries = contenders("python")
    counts = {e.label: {"parameters": 1_800_000, "training": 2e9, "versions": {"torch": "2.13.0"}} for e in entries}
    for e in entries:
        speed = 300 if e.name == "generama" else 100 if e.name == "diffusers" else 50
        e.command = ["python", "-m", "some"]
        e.seen = [Watched([(float(t), speed * t) for t in range(11)], peak_memory=7 * 2**20)]
    entries[0].bfloat16 = True  # as it chose for itself
    sheet = Sheet("speed", "make bench", MACHINE)
    report(sheet, entries, counts, {"float32": [400, 480], "bfloat16": [1_000, 900]})
    found = {(r.what, r.whom): r for r in sheet.rows}
    ours = "generama, as its users get it"
    assert found["training operations", ours].value == pytest.approx(600)
    assert found["share of the convolution peak", ours].value == pytest.approx(0.6)  # of bfloat16's
    assert found["share of the convolution peak", "diffusers, as its users get it"].value == pytest.approx(200 / 480)
    aimed = {r.whom: (r.value, r.target) for r in sheet.rows if r.target and r.unit == "x"}
    assert aimed[f"{ours} / diffusers, as its users get it"] == (pytest.approx(3), ">= 2.5")
    assert aimed[f"{ours} / denoising-diffusion-pytorch, as its users get it"] == (pytest.approx(6), ">= 5")
    assert len(aimed) == 2
    text = page.speed(sheet.rows)
    assert (
        f"| {ours} | 2.13.0 | bfloat16 | 1,800,000 | 2,000 MFLOP | 300.0 images/s | 600 GFLOP/s | 60% | 7 MiB |" in text
    )
    assert "met by 33%" in text and "met by 20%" in text  # 0.6 of 0.45, 3 of 2.5 and 6 of 5


def test_ours_is_held_against_the_best_that_the_peer_reached() -> None:
    theirs = dict(zip([*RIVALS[FIRST].documented, *RIVALS[FIRST].tuned], (7.0, 5.0, 4.0), strict=True))
    reached = {(label, share): 9.0 for label in OURS for share in SHARES}
    reached |= {("ddpm", 4): 3.0, ("rectified-flow", 4): 5.0, ("rectified-flow", 8): 5.0}
    sheet = Sheet("time_to_quality", "make bench-quality", MACHINE)
    compare(sheet, FIRST, theirs, reached, minutes=8)
    found = {(r.what.split(",")[0], r.whom): r for r in sheet.rows}
    ratio = found["distance after a quarter of the time", f"ddpm / {FIRST} as documented"]
    assert ratio.value == pytest.approx(3 / 5) and ratio.met
    assert found["distance after a quarter of the time", f"ddpm / {FIRST}, best of all"].value == pytest.approx(3 / 4)
    times = {whom: r.value for (what, whom), r in found.items() if what.startswith("shortest")}
    assert times == {"ddpm": 120, "rectified-flow": 60}  # seconds; without labels it never got there
    assert "met by 40%" in page.with_targets(sheet.rows)


def test_a_command_is_shown_without_the_places_of_this_machine() -> None:
    words = ["/somewhere/bin/python", "-m", "generama", "train", "ddpm", "--run", "/tmp/made/run 1"]
    assert shown(words) == "python -m generama train ddpm --run 'run 1'"
