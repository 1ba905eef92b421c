"""What goes wrong in a process that reads data is one line, the same as without one."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass

import pytest
import torch
from small_archives import make_v1
from test_pretrain import variant

from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.course.cli import main
from fusmae_lite.data import loader as module
from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.loader import load
from fusmae_lite.train.pretrain import pretrain


@dataclass
class Numbers(torch.utils.data.Dataset):
    """0 to 7, but for what happens to number 5."""

    bad: str = ""

    def __len__(self):
        return 8

    def __getitem__(self, i):
        if i == 5 and self.bad == "damaged":
            raise InputError("number 5: truncated; or worse", "download it again")
        if i == 5 and self.bad == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if i == 5 and self.bad:
            raise RuntimeError("a fault of ours")
        return {"x": torch.tensor(i)}


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_and_what_stops_them(workers):
    assert torch.cat([b["x"] for b in load(Numbers(), workers=workers, batch_size=2)]).tolist() == list(range(8))
    with pytest.raises(InputError) as caught:
        list(load(Numbers("damaged"), workers=workers, batch_size=2))
    assert str(caught.value) == "number 5: truncated; or worse; download it again"
    with pytest.raises(RuntimeError, match="a fault of ours"):
        list(load(Numbers("ours"), workers=workers, batch_size=2))


def test_a_killed_process_is_one_line():
    with pytest.raises(RunError, match="a process that reads data was killed.*fewer workers") as caught:
        list(load(Numbers("killed"), workers=2, batch_size=2))
    assert "\n" not in str(caught.value)


def test_the_pipe_may_break_before_the_death_is_known(monkeypatch):
    def broken(*a, **k):
        yield from ()
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(module, "DataLoader", broken)
    with pytest.raises(RunError, match="a process that reads data was killed"):
        list(load(Numbers(), workers=2))


def test_never_more_processes_than_processors(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "processors", lambda: 1)
    monkeypatch.setattr(module, "DataLoader", lambda *a, num_workers, **k: asked.append(num_workers) or [])
    list(load(Numbers(), workers=8))
    assert asked == [1]


def test_pretrain_names_a_damaged_patch_and_a_killed_reader(tiny, archive, tmp_path, monkeypatch, capsys):
    root = make_v1(tmp_path / "a", archive, (0, 1, 2, 3))
    name = open_archive(root).names[open_archive(root).split("train")[0]]
    config = variant(tiny, workers=2, cache=False, batch_size=1, data_dir=str(root))
    damaged = root / "BigEarthNet-v1.0" / name / f"{name}_B05.tif"
    sound = damaged.read_bytes()
    damaged.write_bytes(sound[:300])
    given = {"data_dir": root, "run_dir": tmp_path / "r", "workers": 2, "batch_size": 1, "device": "cpu"}
    assert main(["pretrain", *(word for key, value in given.items() for word in ("-p", f"{key}={value}"))]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(damaged) in error and "download the patch again" in error
    damaged.write_bytes(sound)
    shutil.rmtree(tiny.folder(), ignore_errors=True)
    source, parent = open_archive(root), os.getpid()
    read = source.read
    source.read = lambda *a: os.kill(os.getpid(), signal.SIGKILL) if os.getpid() != parent else read(*a)
    with pytest.raises(RunError, match="a process that reads data was killed"):
        pretrain(config, source, quiet=True)
