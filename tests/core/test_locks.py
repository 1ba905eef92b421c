"""Two jobs in one folder: the second is refused in one line that names the first, and a lock dies with its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusmae_lite.core import locks
from fusmae_lite.core.config import load_preset
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.locks import LOCK, only_job
from fusmae_lite.course.cli import main
from fusmae_lite.evaluation import evaluate

HOLD = """\
import os, sys
from pathlib import Path
from fusmae_lite.core.locks import only_job
with only_job(Path(sys.argv[1])):
    if len(sys.argv) > 2 and os.fork() == 0:  # a worker that outlives its parent
        print("held", os.getpid(), flush=True)
        sys.stdin.readline()
        os._exit(0)
    if len(sys.argv) <= 2:
        print("held", os.getpid(), flush=True)
    sys.stdin.readline() if len(sys.argv) <= 2 else os.wait()
"""


def start(folder: Path, *more: str) -> tuple[subprocess.Popen[str], int]:
    """A process that holds the folder, and its number (with an argument more, that of a process it forked)."""
    command = [sys.executable, "-c", HOLD, str(folder), *more]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline().split()[1])


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Another process holds the folder while the block runs; gives its number."""
    process, number = start(folder)
    try:
        yield number
    finally:
        process.communicate("\n", timeout=60)


def test_the_second_is_told_who_holds_the_folder_and_the_lock_goes_with_its_holder(tmp_path):
    refused = pytest.raises(InputError, match=r"run: another job writes there: process \d+ on .*, since 20\d\d-")
    with held(tmp_path / "run") as pid, refused as caught, only_job(tmp_path / "run"):
        pass
    assert "\n" not in str(caught.value) and f"process {pid} on" in str(caught.value)
    assert not list((tmp_path / "run").iterdir())
    with only_job(tmp_path / "run"), only_job(tmp_path):  # another folder is another lock
        assert (tmp_path / "run" / LOCK).is_file()
        with pytest.raises(InputError, match="this process writes there already"), only_job(tmp_path / "run"):
            pass
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to fork")
def test_a_killed_holder_holds_nothing_even_if_a_process_it_forked_lives_on(tmp_path):
    process, worker = start(tmp_path, "forks")
    process.send_signal(signal.SIGKILL)
    process.wait()
    try:
        os.kill(worker, 0)  # alive
        assert (tmp_path / LOCK).is_file()
        with only_job(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "_lock", lambda file: (_ for _ in ()).throw(OSError(37, "No locks available")))
    with only_job(tmp_path):
        assert "no lock on" in capsys.readouterr().out
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"), only_job(tmp_path / "file" / "run"):
        pass


def test_every_job_that_writes_a_run_folder_asks(tiny, archive, tmp_path, capsys):
    run, refused = tiny.folder(), "another job writes there: process"
    for below, command in (
        ("pretrain", ["pretrain", "-p", "device=cpu"]),
        ("evaluation", ["evaluate", "--weights", "xae-lite"]),
        ("", ["course", "--only", "00"]),
    ):
        given = ["--run-dir", str(run)] if not below else ["-p", f"run_dir={run}"]
        with held(run / below):
            assert main([*command, *given]) == 2
            error = capsys.readouterr().err
            assert refused in error and error.count("\n") == 1 and str(run / below) in error
    with held(run):
        assert main(["results", "--preset", "smoke", "--run-dir", str(run)]) == 2
        assert refused in capsys.readouterr().err
        with pytest.raises(InputError, match=refused), held(run / "evaluation"):  # the course's own jobs go on below it
            evaluate(load_preset("smoke", run_dir=str(run)), archive, "xae-lite")
