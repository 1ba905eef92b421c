"""How a command ends: what it was told to stop, what could not be written, who has read enough."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import TINY

from fusmae_lite.core import progress
from fusmae_lite.core.errors import InputError, Terminated, exit_status
from fusmae_lite.core.files import write_folder, write_text
from fusmae_lite.core.locks import only_job
from fusmae_lite.course.cli import main
from fusmae_lite.data.loader import load
from fusmae_lite.systems.tensors import save_tensors
from fusmae_lite.train.checkpoints import list_checkpoints

COMMAND = [sys.executable, "-m", "fusmae_lite.course.cli"]
LONG = [word for name, value in {**TINY, "epochs": 5000, "image_size": 48}.items()
        for word in ("-p", f"{name}={','.join(value) if isinstance(value, tuple) else value}")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "asked", "status", "word"),
    [
        (1, signal.SIGTERM, 143, "terminated"),
        (2, signal.SIGTERM, 143, "terminated"),
        (2, signal.SIGINT, 130, "interrupted"),  # as a terminal sends it: to all of them
    ],
)
def test_a_run_that_is_asked_to_stop_saves_a_checkpoint_and_goes_on(tmp_path, capfd, processes, asked, status, word):
    given = ["pretrain", "-p", f"run_dir={tmp_path}", *LONG, "-p", "checkpoint_every=5000"]
    process = subprocess.Popen([*COMMAND, *given, "-p", f"processes={processes}"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip
    metrics = tmp_path / "pretrain" / "metrics.jsonl"
    while not metrics.is_file() and process.poll() is None:
        time.sleep(0.2)
    family = psutil.Process(process.pid).children(recursive=True)
    (os.killpg if asked == signal.SIGINT else os.kill)(process.pid, asked)
    out, error = process.communicate(timeout=120)
    assert process.returncode == status, error
    assert error.splitlines() == [f"error: {word}; the same command continues"]
    assert not psutil.wait_procs(family, timeout=10)[1], "a process goes on"
    assert any("million weights" in text and str(tmp_path) in text for text in out.splitlines())
    (saved,) = list_checkpoints(tmp_path / "pretrain" / "checkpoints")
    capfd.readouterr()
    again = [*given, "-p", f"max_steps={int(saved.name[5:]) + 1}"]  # in this process: torch is imported already
    assert main(again) == 0 and f"continues at step {int(saved.name[5:]):,} of" in capfd.readouterr().out
    assert main(again) == 0 and "was finished before" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command continues"),
        (Terminated(), 143, "terminated; the same command continues"),
        (OSError(errno.ENOSPC, "No space left on device", "out.json"), 1, "out.json: No space left on device; free"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), 1, "File name too long"),
        (RuntimeError("Could not determine home directory."), 2, "no user of that name"),
    ],
)
def test_an_ending_is_one_line_and_a_status(error, status, said, capsys):
    def run() -> None:
        raise error

    assert exit_status(run) == status
    text = capsys.readouterr().err
    assert text.startswith("error: ") and said in text and text.count("\n") == 1


def test_errors_in_our_code_are_not_hidden():
    with pytest.raises(RuntimeError, match="a bug"):
        exit_status(lambda: (_ for _ in ()).throw(RuntimeError("a bug")))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_device_and_a_closed_pipe_behind_the_output():
    with open("/dev/full", "w") as device:
        full = subprocess.run([*COMMAND, "--help"], stdout=device, stderr=subprocess.PIPE, text=True)
    assert full.returncode == 1 and full.stderr.splitlines() == [full.stderr.strip()] and "No space" in full.stderr
    reading, writing = os.pipe()
    os.close(reading)
    closed = subprocess.run([*COMMAND, "doctor"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert closed.returncode == 1 and "Traceback" not in closed.stderr and "Exception" not in closed.stderr


def test_a_folder_is_tried_before_the_work(tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fusmae_lite.core.locks.tempfile.TemporaryFile", full)
    with pytest.raises(InputError, match=r"cannot be written to \(No space left"), only_job(tmp_path / "run"):
        raise AssertionError("the work began")
    assert main(["evaluate", "--weights", "xae-lite", "-p", f"run_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bands of a batch are open files on Linux")
def test_too_few_open_files_for_the_processes_that_read_are_told_and_do_not_wait_for_ever(monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    monkeypatch.setattr("fusmae_lite.data.loader.processors", lambda: 2)
    with pytest.raises(InputError, match=r"2 processes that read need 160 open files, .* allows 40; .*ulimit -n 160"):
        next(load([1, 2, 3], workers=2))


def test_a_silent_command_says_what_it_does(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_FIRST_LINE", 0.5)
    monkeypatch.setitem(progress._now, "doing", "")
    with progress.pulse("fusmae evaluate"):
        progress.doing("random encoder on S1")
        time.sleep(2.5)
    assert capsys.readouterr().out.splitlines()[0].startswith("fusmae evaluate, random encoder on S1: ")
    time.sleep(1.5)
    assert not capsys.readouterr().out


def test_the_clock_of_a_bar_goes_on_while_one_item_takes_long(monkeypatch):
    monkeypatch.setattr(progress, "interactive", lambda: True)
    with progress.tqdm(total=2, file=io.StringIO(), mininterval=99) as bar, progress.pulse("fusmae course"):
        before = bar.fp.getvalue().count("0/2")
        time.sleep(2.5)
        assert bar.fp.getvalue().count("0/2") > before


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    import socket

    host, dead = socket.gethostname(), subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    own, left = (tmp_path / f".a.json.{host}-{pid}.tmp" for pid in (os.getppid(), dead.pid))
    far = tmp_path / f".a.json.elsewhere-{dead.pid}.tmp"
    folder = tmp_path / f".b.{host}-{dead.pid}.tmp"
    for path in (own, left, far):
        path.touch()
    folder.mkdir()
    write_text(tmp_path / "a.json", "{}")
    write_folder(tmp_path / "b", lambda place: None)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([own.name, far.name, "a.json", "b"])


def test_equal_weights_are_equal_files(tmp_path):
    import torch

    facts = {name: name * 3 for name in "qwertyuiop"}
    for number in range(5):
        save_tensors(tmp_path / str(number), {"a": torch.ones(3), "b": torch.zeros(2, 2)}, facts)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
