"""What is written is whole or invisible, whatever kills the process or fills the disk; a run has one trainer."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TINY

import generama
from generama import checkpoints, commands, comparison, machine, plans
from generama.__main__ import main
from generama.data import Data, open_data
from generama.errors import Busy, CheckpointError, DataError, ResourceError, UsageError
from generama.files import tidy, write_json
from generama.recipes import Recipe
from generama.retries import Retries
from generama.run import Record, Run, load
from generama.sampling import sample_run
from generama.settings import CompareSettings, TrainSettings

CPU = torch.device("cpu")
KILL = Path(__file__).with_name("kill.py")
ENV = os.environ | {"PYTHONPATH": str(Path(generama.__file__).parents[1])}  # other processes test this very package


def save(folder: Path, step: int, keep: int = 2, size: int = 11) -> Path:
    return checkpoints.save(folder, step, {"weights": {"a": torch.full((size,), float(step))}}, {"step": step}, keep)


def step_of(folder: Path) -> int:
    found = checkpoints.newest(folder)
    assert found is not None and found.tensors["weights"]["a"][0] == found.facts["step"]
    return found.facts["step"]


def steps_in(folder: Path) -> list[int]:
    return [checkpoints.read(path).facts["step"] for path in checkpoints.complete(folder)]


def hidden(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith((".incomplete", ".trash"))]


def kills(what: str, folder: Path) -> list[dict]:
    folder.mkdir()
    done = subprocess.run([sys.executable, KILL, what, folder], env=ENV, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> list[dict]:
    """What is left after a kill at each file-system call of a save, in several situations."""
    return kills("calls", tmp_path_factory.mktemp("killed") / "work")


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Data:
    return open_data("digits", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def run(digits: Data, tmp_path: Path) -> Run:
    """A run whose checkpoint holds the weights of its family, untrained."""
    return trained_run(tmp_path / "run", digits)


def trained_run(folder: Path, data: Data) -> Run:
    from generama.families import build

    recipe = Recipe(TINY["vae-mlp"], TrainSettings(batch=13))
    run = Run.create(folder, Record("vae-mlp", recipe, data.spec, data.describe(), machine.describe(CPU), "test"))
    weights = build(recipe.family, data.spec).state_dict()
    checkpoints.save(run.checkpoints, 1, {"weights": weights, "average": weights}, {"step": 1})
    return run


# A process that dies


def test_a_kill_at_any_call_of_a_save_costs_nothing_saved_before(killed: list[dict]) -> None:  # CK-01, CK-03
    found = [row for row in killed if row["scenario"] != "samples"]
    least = {"purge": 5, "keep-one": 7, "same-step": 7, "after-damage": 3}
    last = {"purge": 7, "keep-one": 9, "same-step": 7, "after-damage": 5}
    assert {row["scenario"] for row in found} == set(least) and len(found) > 100
    for row in found:
        untouched = row["scenario"] == "after-damage" and row["step"] == 9  # killed before the test did its damage
        assert least[row["scenario"]] <= row["step"] <= last[row["scenario"]] or untouched, row
        assert row["broken"] == [] or (row["scenario"] == "after-damage" and row["broken"] == ["000000009"]), row
        assert row["stray"] == row["left"] == [], row  # CK-04: and what was left over could be cleared away
        if not row["killed"]:
            assert row["step"] == last[row["scenario"]] and row["broken"] == []


def test_samples_and_their_manifest_agree_after_any_kill(killed: list[dict]) -> None:
    found = [row for row in killed if row["scenario"] == "samples"]
    assert len(found) > 15
    assert all(row["tags"] in (["old", "old"], ["new", "new"], []) and row["left"] == [] for row in found)
    assert not found[-1]["killed"] and found[-1]["tags"] == ["new", "new"]


@pytest.mark.slow
def test_sixty_random_kills_break_and_lose_nothing(tmp_path: Path) -> None:  # CK-02
    found, reached = kills("random", tmp_path / "kills"), 0
    for row in found:
        assert row["broken"] == row["stray"] == row["left"] == [], row
        assert (row["step"] or 0) >= max(reached, row["saved"] or 0), row
        reached = row["step"] or 0
    print(f"{len(found)} kills, {sum(row['hidden'] > 0 for row in found)} of them in a save, {reached} steps saved")
    assert len(found) == 60 and reached > 20


def test_leftovers_of_dead_processes_are_removed_and_those_of_live_ones_kept(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:  # CK-04
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for kind in ("incomplete", "trash"):
        for i in range(25):
            folder = run.checkpoints / f".{kind}-{dead.pid}-{i}"
            folder.mkdir()
            (folder / "weights.safetensors").write_bytes(bytes(1_000))
    living = run.checkpoints / f".incomplete-{os.getppid()}-0"
    living.mkdir()
    reborn = run.checkpoints / f".trash-{os.getpid()}-0"  # our number, but of a process before us
    reborn.mkdir()
    with run.lock():
        pass
    assert "removed 50,000 bytes" in capfd.readouterr().err
    assert hidden(run.checkpoints) == [living.name]
    assert tidy(run.checkpoints) == 0


# A disk that refuses


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], capture_output=True
    )
    if not made or made.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_leaves_the_old_checkpoint_and_is_tried_again(
    small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:  # CK-05
    save(small_disk, 3, size=500_000)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(5_000_000))
    with pytest.raises(ResourceError, match=r"2,000,000 bytes are needed, [\d,]+ bytes are free there") as refusal:
        save(small_disk, 7, size=500_000)
    assert "the disk is full" in str(refusal.value) and refusal.value.exit_code == 5
    assert step_of(small_disk) == 3 and hidden(small_disk) == []
    disk = Retries(most=3, wait=0.0)
    assert not disk.attempt(lambda: save(small_disk, 7, size=500_000))
    assert "the run goes on" in capfd.readouterr().err
    filler.unlink()
    assert disk.attempt(lambda: save(small_disk, 9, size=500_000)) and step_of(small_disk) == 9


def test_a_file_that_may_not_grow_leaves_the_old_checkpoint(tmp_path: Path) -> None:  # CK-05
    save(tmp_path, 3)
    with largest_file(100_000), pytest.raises(ResourceError, match="ulimit -f"):
        save(tmp_path, 7, size=100_003)
    assert steps_in(tmp_path) == [3] and hidden(tmp_path) == []


def test_refusals_are_retried_with_a_pause_and_the_last_one_ends_the_run(tmp_path: Path) -> None:  # CK-05
    tries = 0

    def write() -> None:
        nonlocal tries
        tries += 1
        save(tmp_path / "no" / "way", tries, size=100_003)

    waits, disk = Retries(wait=1000.0), Retries(most=3, wait=0.0)
    with largest_file(1000):
        assert not waits.attempt(write) and not waits.attempt(write) and tries == 1
        assert not disk.attempt(write) and not disk.attempt(write) and tries == 3
        with pytest.raises(ResourceError):
            disk.attempt(write)


REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "quota is used up",
    errno.EROFS: "read-only",
    errno.EACCES: "access is denied",
    errno.EIO: "input/output error",
    errno.EFBIG: "larger than is allowed",
}


@pytest.mark.parametrize("call", ["mkdir", "fsync", "rename"])
@pytest.mark.parametrize("number", REFUSALS)
def test_every_refusal_of_the_disk_has_its_own_sentence(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # CK-07
    save(tmp_path, 3, keep=1)
    with monkeypatch.context() as broken:

        def refuse(*args: object, **options: object) -> None:
            raise OSError(number, os.strerror(number), str(args[0]))

        broken.setattr(os, call, refuse)
        with pytest.raises(ResourceError, match=REFUSALS[number]) as refusal:
            save(tmp_path, 7, keep=1)
    assert str(tmp_path) in str(refusal.value) and "bytes are needed" in str(refusal.value)
    assert steps_in(tmp_path) == [3] and hidden(tmp_path) == []


def test_a_refusal_anywhere_in_a_command_ends_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # CK-07
    (tmp_path / "page.html.partial").symlink_to("/dev/full")
    (tmp_path / "runs").mkdir()
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "page.html")]) == 5
    assert "the disk is full" in capsys.readouterr().err


def test_a_run_does_not_start_where_two_checkpoints_have_no_room(small_disk: Path, tmp_path: Path) -> None:  # CK-06
    checkpoints.room_for(small_disk, 3_000_000)
    with pytest.raises(ResourceError, match="two checkpoints of 5,000,000 bytes must fit"):
        checkpoints.room_for(small_disk, 5_000_000)
    with pytest.raises(ResourceError, match="must fit"):
        checkpoints.room_for(small_disk / "not" / "yet" / "there", 5_000_000)
    (tmp_path / "link").symlink_to(small_disk)  # the volume that holds the checkpoints counts, not the link's
    with pytest.raises(ResourceError, match="must fit"):
        checkpoints.room_for(tmp_path / "link" / "checkpoints", 5_000_000)
    checkpoints.room_for(tmp_path, 5_000_000)


# Files that are damaged


@pytest.mark.parametrize("file", ["weights.safetensors", "state.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone"])
def test_damage_is_named_and_the_checkpoint_before_it_used(
    file: str, harm: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:  # CK-08, CK-10
    for step in (3, 7):
        save(tmp_path, step)
    for step, name in ((7, "000000007"), (3, "000000003")):
        assert step_of(tmp_path) == step
        path = tmp_path / name / file
        content = path.read_bytes()
        flipped = content[:30] + bytes([content[30] ^ 1]) + content[31:]
        path.write_bytes({"flip": flipped, "cut": content[:-1], "empty": b"", "gone": b""}[harm])
        if harm == "gone":
            path.unlink()
        if step == 7:
            assert step_of(tmp_path) == 3
            told = capfd.readouterr().err
            seen = (harm, file) != ("gone", "state.json")  # a folder without its manifest was never published
            assert ("warning" in told and f"{name}/{file}" in told and "going back" in told) == seen
    if (harm, file) == ("gone", "state.json"):
        assert checkpoints.newest(tmp_path) is None
        return
    with pytest.raises(CheckpointError, match="none is whole") as error:
        checkpoints.newest(tmp_path)
    assert error.value.exit_code == 4


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:  # CK-08
    folder = checkpoints.save(tmp_path, 7, {"weights": {"a": torch.ones(3)}}, {"step": 7, "spent": {"seconds": 0.5}})
    for name in ("state.json", "weights.safetensors"):
        content = (folder / name).read_bytes()
        for i in range(len(content)):
            (folder / name).write_bytes(content[:i] + bytes([content[i] ^ (1 << i % 8)]) + content[i + 1 :])
            with pytest.raises(CheckpointError, match="000000007"):
                checkpoints.read(folder)
        (folder / name).write_bytes(content)
    assert checkpoints.read(folder).facts["step"] == 7


def test_a_newest_folder_of_empty_files_is_passed_over(tmp_path: Path) -> None:  # CK-09
    save(tmp_path, 3)
    save(tmp_path, 7)
    for path in (tmp_path / "000000007").iterdir():
        path.write_bytes(b"")
    assert step_of(tmp_path) == 3


def test_files_that_no_manifest_lists_are_ignored_with_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:  # CK-10
    (save(tmp_path, 7) / "optimisers.pt").write_bytes(b"\x80\x04K\x01.")
    assert step_of(tmp_path) == 7
    assert "also holds 'optimisers.pt', which it never saved; ignored" in capfd.readouterr().err


def test_with_one_checkpoint_kept_a_damaged_newer_one_never_costs_the_whole_one(tmp_path: Path) -> None:  # CK-16
    save(tmp_path, 3)
    (save(tmp_path, 9) / "weights.safetensors").write_bytes(b"")
    save(tmp_path, 5, keep=1)
    assert steps_in(tmp_path) == [5]
    save(tmp_path, 7, keep=1)
    save(tmp_path, 7, keep=1)
    assert steps_in(tmp_path) == [7] and len(list(tmp_path.iterdir())) == 1


def test_a_disk_that_gives_back_something_else_is_noticed_before_anything_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # CK-16
    save(tmp_path, 3, keep=1)
    original = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: original(path, bytes(len(content))))
    with pytest.raises(ResourceError, match="reads back as something else"):
        save(tmp_path, 7, keep=1)
    monkeypatch.undo()
    assert steps_in(tmp_path) == [3] and hidden(tmp_path) == []


def test_a_checkpoint_of_the_first_format_is_read(tmp_path: Path) -> None:  # CK-17
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} '
    content = struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1.5, -2.0)
    (tmp_path / "000000017").mkdir()
    (tmp_path / "000000017" / "weights.safetensors").write_bytes(content)
    digest = "a1f461bded57f6dda8cb74dccb67dedb8aba57e05dc5824a9b6fcd30fabfbc4b"
    facts = "2a0a3b1e20ac5fc29a0fb2d9d786df2fa43559b099b91a5b45b064bd84399d6a"
    state = {"format": "generama-checkpoint-1", "facts": {"spent": {"step": 17}}, "sha256": {"weights": digest}}
    state["facts_sha256"] = facts
    write_json(tmp_path / "000000017" / "state.json", state)
    found = checkpoints.newest(tmp_path)
    assert found is not None and found.facts == {"spent": {"step": 17}}
    assert found.tensors["weights"]["a"].tolist() == [1.5, -2.0]
    write_json(tmp_path / "000000017" / "state.json", {**state, "format": "generama-checkpoint-9"})
    with pytest.raises(CheckpointError, match="of the format 'generama-checkpoint-9'"):
        checkpoints.newest(tmp_path)


# Odd places


def test_links_out_of_the_run_are_never_followed_by_a_purge(tmp_path: Path) -> None:  # CK-18
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    folder = tmp_path / "checkpoints"
    save(folder, 3)
    (folder / "000000003" / "link").symlink_to(outside)
    shutil.copytree(folder / "000000003", outside / "linked", symlinks=True)
    (folder / "000000002").symlink_to(outside / "linked")
    (folder / ".trash-999999999-0").symlink_to(outside)
    save(folder, 5, keep=1)
    tidy(folder)
    assert [p.name for p in folder.iterdir()] == ["000000005"]
    assert (outside / "precious").read_text() == "mine" and (outside / "linked" / "state.json").exists()


@pytest.mark.parametrize("name", ["with spaces and 'quotes'", "größe-日本語-🙂", "x" * 250, "[bold]100%"])
def test_odd_names_work(name: str, digits: Data, tmp_path: Path) -> None:  # CK-18
    run = trained_run(tmp_path / name, digits)
    with run.lock():
        save(run.checkpoints, 5)
        run.log({"step": 1})
    assert steps_in(run.checkpoints)[-1] == 5
    run.rewind(0, 0)
    assert (run.folder / "log.jsonl").read_text() == ""


# One run, one trainer, one data set


def test_a_second_trainer_is_refused_and_a_dead_ones_lock_is_free(run: Run) -> None:  # CK-13
    hold = f"import sys, time; from pathlib import Path; from generama.locks import locked\n\
with locked(Path({str(run.folder)!r})): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", hold], env=ENV, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(Busy, match=rf"process {holder.pid} on \S+ since 20\d\d-\d\d-\d\d \d\d:\d\d") as busy:
            commands.resume(str(run.folder))
        assert busy.value.exit_code == 2
        assert run.read_status() == {}  # the holder's run is not called failed
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with run.lock(), pytest.raises(Busy, match=f"process {os.getpid()} "), run.lock():
        pass


def test_a_comparison_never_calls_a_run_failed_that_another_process_trains(
    digits: Data, tmp_path: Path
) -> None:  # CK-13
    [plan] = plans.plan(CompareSettings(recipes=("vae-mlp",), budget="640 images"))
    shared = comparison.Shared(tmp_path, digits.folder, digits.meta.hash, tmp_path, 7, "cpu", "test")
    run = comparison.open_run(plan, shared, digits, CPU)
    with run.lock(), pytest.raises(Busy):
        comparison.attempt(plan, shared)
    assert run.read_status() == {}


def test_a_run_goes_on_only_with_the_data_it_began_on(run: Run, digits: Data) -> None:  # CK-11
    other = replace(digits, meta=replace(digits.meta, hash="0" * 64, train=1_000))
    with pytest.raises(CheckpointError, match=rf"hash {digits.meta.hash} -> 0+, train {digits.meta.train} -> 1000"):
        run.check(other, CPU)


def test_another_machine_is_told_once_and_not_refused(
    run: Run, digits: Data, capfd: pytest.CaptureFixture[str]
) -> None:  # RS-10
    run.check(digits, CPU)
    assert capfd.readouterr().err == ""
    before = replace(run.record, machine=run.record.machine | {"torch": "2.0.1", "threads": 97})
    replace(run, record=before).check(digits, CPU)
    assert f"torch 2.0.1 -> {torch.__version__}, threads 97 -> " in capfd.readouterr().err


def test_weights_of_another_recipe_are_refused_by_name_and_shape(run: Run) -> None:  # CK-11
    weights = load(run.folder).generator.state_dict()
    name = next(iter(weights))
    del weights[list(weights)[-1]]
    checkpoints.save(run.checkpoints, 2, {"weights": weights | {name: torch.zeros(7, 5), "odd": torch.zeros(3)}}, {})
    with pytest.raises(CheckpointError, match=rf"missing: .*unknown to the recipe: odd; other: {name} \(saved float32"):
        load(run.folder)
    double = {key: value.double() for key, value in load_weights(run, 1).items()}
    checkpoints.save(run.checkpoints, 3, {"weights": double}, {})
    with pytest.raises(CheckpointError, match="saved float64"):
        load(run.folder)


def load_weights(run: Run, step: int) -> dict[str, torch.Tensor]:
    return checkpoints.read(run.checkpoints / f"{step:09d}").tensors["weights"]


def test_a_damaged_status_or_log_does_not_stop_a_run(run: Run) -> None:
    for content in (b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000):
        (run.folder / "status.json").write_bytes(content)
        assert run.read_status() == {}
    (run.folder / "log.jsonl").write_bytes(b'{"step": 1}\n{"step": 2}\n{"ste\xff\n{"step": 3}\n{"st')
    run.rewind(2, 0)
    assert (run.folder / "log.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_new_samples_replace_the_old_ones_whole(run: Run) -> None:
    trained = load(run.folder)
    folder = sample_run(trained, range(5), singles=True)
    assert (folder / "000004.png").exists() and run.samples_made() == 5
    sample_run(trained, range(3))
    assert sorted(p.name for p in folder.iterdir()) == ["grid.png", "manifest.json", "samples.npz"]
    assert run.samples_made() == 3 and hidden(folder.parent) == []
    for name in ("../main", "a/b", "..", ".x", ""):
        with pytest.raises(UsageError, match="plain word"):
            sample_run(trained, range(3), name=name)


def test_a_damaged_sample_file_is_data_that_cannot_be_measured(run: Run) -> None:
    from generama.evaluation import read_samples

    folder = sample_run(load(run.folder), range(3))
    (folder / "samples.npz").write_bytes((folder / "samples.npz").read_bytes()[:-30])
    with pytest.raises(DataError, match="damaged"):
        read_samples(folder / "samples.npz")
