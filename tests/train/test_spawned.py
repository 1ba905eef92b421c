"""macOS and Windows: worker processes are spawned, not forked, and nobody says which processors a process may use."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_archives import make_v1

from fusmae_lite.core.config import RunConfig
from fusmae_lite.data.archives import Archive, open_archive
from fusmae_lite.data.encode import encode
from fusmae_lite.data.encoded import verify
from fusmae_lite.data.loader import processors
from fusmae_lite.data.synthetic import synthesise
from fusmae_lite.train.pretrain import pretrain


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on macOS, with two processors."""
    before = multiprocessing.get_start_method()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def test_processors_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processors() == 2
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processors() == 1


def test_encode_by_default(archive: Archive, tmp_path: Path) -> None:
    source = open_archive(make_v1(tmp_path / "source", archive))
    assert encode(source, tmp_path / "lmdb").pairs == verify(tmp_path / "lmdb") == len(source)


def test_synthesise(tmp_path: Path) -> None:
    spawned, alone = (synthesise(tmp_path / str(n), 40, seed=1, workers=n) for n in (2, 1))
    files = sorted(path.relative_to(alone) for path in alone.rglob("*") if path.is_file())
    assert len(files) > 2 and all((spawned / name).read_bytes() == (alone / name).read_bytes() for name in files)


@pytest.mark.slow
def test_pretrain_reads_in_spawned_processes(tiny: RunConfig, tmp_path: Path) -> None:
    weights = []
    for workers in (0, 1):
        config = tiny.model_copy(update={"run_dir": str(tmp_path / str(workers)), "workers": workers, "max_steps": 2})
        weights.append(pretrain(config, open_archive(), quiet=True).model.state_dict())
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
