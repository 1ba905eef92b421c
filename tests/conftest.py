"""Shared by all tests: few threads, so that times are alike on every machine, and tiny configurations."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest

from fusmae_lite.config import RunConfig, load_preset, project_root

#: Small enough to train in a second.
TINY = {
    "width": 16, "depth": 2, "heads": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2, "patch_size": 24,
    "epochs": 3, "batch_size": 8, "cache": True, "augment": "flips", "precision": "fp32", "device": "cpu",
    "probe_epochs": 3, "probe_seeds": 2,
}  # fmt: skip


@pytest.fixture
def tiny(tmp_path) -> RunConfig:
    """A run configuration that trains in about a second and writes below tmp_path."""
    return load_preset("smoke", run_dir=str(tmp_path / "run"), **TINY)


@pytest.fixture(scope="session")
def archive():
    """The bundled real patches; what one test has read from disk, the next need not read again."""
    from fusmae_lite.archives import open_archive

    opened = open_archive(project_root() / "data_samples")
    read, kept = opened.read, {}

    def read_once(index, modalities=None):
        key = int(index), None if modalities is None else tuple(modalities)
        if key not in kept:
            kept[key] = read(index, modalities)
        return kept[key]

    opened.read = read_once
    return opened


#: Modules that run whole notebooks: after everything that fails faster.
LAST = ("test_course", "test_browser", "test_nbval", "test_smoke_course")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first."""
    items.sort(key=lambda item: LAST.index(item.path.stem) + 1 if item.path.stem in LAST else 0)
