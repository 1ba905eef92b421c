"""How a command ends: what it was told to stop, what could not be written, who has read enough."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY

from fusmae_lite.core.errors import InputError, Terminated, exit_status
from fusmae_lite.core.files import write_folder, write_text
from fusmae_lite.core.locks import only_job
from fusmae_lite.course.cli import main
from fusmae_lite.systems.weights import save_tensors
from fusmae_lite.train.checkpoints import list_checkpoints

COMMAND = [sys.executable, "-m", "fusmae_lite.course.cli"]
LONG = [word for name, value in {**TINY, "epochs": 5000, "image_size": 48}.items()
        for word in ("-p", f"{name}={','.join(value) if isinstance(value, tuple) else value}")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_saves_a_checkpoint_and_the_same_command_goes_on(tmp_path, processes):
    command = [*COMMAND, "pretrain", "-p", f"run_dir={tmp_path}", *LONG, "-p", f"processes={processes}",
               "-p", "checkpoint_every=5000"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "pretrain" / "metrics.jsonl"
    while not metrics.is_file() and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 143, error
    assert error.splitlines()[-1] == "error: terminated; the same command continues"
    assert "million weights" in out.splitlines()[0] and str(tmp_path) in out.splitlines()[0]
    (saved,) = list_checkpoints(tmp_path / "pretrain" / "checkpoints")
    again = [*command, "-p", f"max_steps={int(saved.name[5:]) + 1}"]
    done = subprocess.run(again, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and f"continues at step {int(saved.name[5:]):,} of" in done.stdout
    finished = subprocess.run(again, capture_output=True, text=True, timeout=300)
    assert "was finished before" in finished.stdout


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
