"""Shared by all tests: few threads, no native bf16, so that every machine gives the same, and tiny configurations."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest
import torch

from fusmae_lite.core import sensors
from fusmae_lite.core.config import RunConfig, load_preset, project_root
from fusmae_lite.train.checkpoints import latest_checkpoint

#: Small enough to train in a second.
TINY = {
    "width": 16, "depth": 2, "heads": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2, "patch_size": 24,
    "epochs": 3, "batch_size": 8, "cache": True, "augment": "flips", "precision": "fp32", "device": "cpu",
    "probe_epochs": 3, "probe_seeds": 2,
}  # fmt: skip


def pretrain_and_kill(config: RunConfig) -> None:
    """Pretrain in another process and SIGKILL it a moment after its first checkpoint."""
    code = "import sys; import fusmae_lite as f; f.pretrain(f.RunConfig.model_validate_json(sys.argv[1]))"
    process = subprocess.Popen([sys.executable, "-c", code, config.model_dump_json()], stdout=subprocess.DEVNULL)
    folder, deadline = config.folder() / "pretrain" / "checkpoints", time.time() + 120
    while latest_checkpoint(folder) is None and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"


def multiplies_bf16(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    """Make torch report a processor that multiplies bf16 natively, or one that does not."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        assert hasattr(torch.cpu, name)
        monkeypatch.setattr(torch.cpu, name, lambda: native)


@pytest.fixture(scope="session", autouse=True)
def processor() -> Iterator[None]:
    """``precision=auto`` means fp32 on every processor, or bf16 on every one with ``FUSMAE_TEST_BF16=1``."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        multiplies_bf16(monkeypatch, os.environ.get("FUSMAE_TEST_BF16") == "1")
        yield


@pytest.fixture
def native_bf16(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """``native_bf16(True)``: from here on this test runs on a processor with native bf16."""
    return lambda native: multiplies_bf16(monkeypatch, native)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """A sensor that one test registers is unknown to the next."""
    before = dict(sensors._KNOWN)
    yield
    sensors._KNOWN.clear()
    sensors._KNOWN.update(before)


@pytest.fixture
def tiny(tmp_path) -> RunConfig:
    """A run configuration that trains in about a second and writes below tmp_path."""
    return load_preset("smoke", run_dir=str(tmp_path / "run"), **TINY)


@pytest.fixture(scope="session")
def archive():
    """The bundled real patches; what one test has read from disk, the next need not read again."""
    from fusmae_lite.data.archives import open_archive

    opened = open_archive(project_root() / "data_samples")
    opened.remember()
    return opened


#: Minutes of notebooks, for one worker each: `--dist loadscope` hands out modules in this order.
FIRST = ("test_smoke_course", "test_nbval")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests first: at the end no worker waits long for the other."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else 3 - (item.path in slow))
