"""Several processes compute what one does: copied (DDP) and sharded (FSDP), by gloo on the CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import nbformat
import pytest
import torch
from conftest import TINY
from test_pretrain import variant

from fusmae_lite.core.config import UNSET, load_preset, project_root
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.systems.tensors import read_tensors
from fusmae_lite.systems.weights import load_model
from fusmae_lite.train.checkpoints import latest_checkpoint
from fusmae_lite.train.distributed import Processes, check_batch, place_among_processes
from fusmae_lite.train.launch import launch
from fusmae_lite.train.pretrain import pretrain

#: Pairs are few and steps tiny here: floats added in another order differ by less than this.
TOLERANCE = 1e-4


def weights(config):
    return load_model(
        latest_checkpoint(config.folder() / "pretrain" / "checkpoints") / "model.safetensors"
    ).state_dict()


def largest_difference(a, b) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


CHANGES = {"cache": False, "epochs": 1, "augment": "crops", "accumulate": 2, "normalize_target": True}  # no floor


@pytest.fixture
def config(tiny, tmp_path):
    return variant(tiny, **CHANGES, run_dir=str(tmp_path / "one"))


@pytest.fixture(scope="module")
def alone(archive, tmp_path_factory):
    """One process's run, for all that compare with it."""
    config = load_preset("smoke", **{**TINY, **CHANGES, "run_dir": str(tmp_path_factory.mktemp("alone"))})
    return config, pretrain(config, archive, quiet=True)


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_processes_share_out_every_row_once(processes):
    rows = torch.arange(13)
    parts = [Processes(rank, processes, torch.device("cpu")).own(rows) for rank in range(processes)]
    assert torch.equal(torch.cat(parts), rows)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.slow
def test_two_processes_train_to_the_same_loss_as_one(config, archive, tmp_path):
    config = variant(config, synthetic=True, jitter=1, sensor_dropout=0.5)
    one = pretrain(config, archive, quiet=True)
    two = launch(variant(config, run_dir=str(tmp_path / "two"), processes=2))
    assert two.history[0]["loss"] == pytest.approx(one.history[0]["loss"], abs=TOLERANCE)
    assert two.history[0]["grad_norm"] == pytest.approx(one.history[0]["grad_norm"], rel=1e-3)
    assert largest_difference(one.model.state_dict(), two.model.state_dict()) < TOLERANCE
    assert two.heldout == pytest.approx(one.heldout, abs=TOLERANCE) and two.resumed_from == 0
    again = launch(variant(config, run_dir=str(tmp_path / "two")), archive)  # finished: read, not trained
    assert largest_difference(again.model.state_dict(), two.model.state_dict()) == 0


@pytest.mark.slow
def test_a_run_begun_by_one_process_goes_on_in_two_with_sharded_weights(config, alone, archive, tmp_path):
    parts = variant(config, run_dir=str(tmp_path / "parts"))
    pretrain(variant(parts, max_steps=2), archive, quiet=True)
    launch(variant(parts, fsdp=True, accumulate=1, processes=2))
    assert largest_difference(alone[1].model.state_dict(), weights(parts)) < TOLERANCE
    ours, theirs = (
        read_tensors(latest_checkpoint(c.folder() / "pretrain/checkpoints") / "optimizer.safetensors")[0]
        for c in (alone[0], parts)
    )
    assert ours.keys() == theirs.keys() and largest_difference(ours, theirs) < TOLERANCE


def test_a_batch_that_processes_cannot_share_is_refused_before_any_is_started(config):
    with pytest.raises(InputError, match="batch_size 9 cannot be divided among 2 processes x accumulate 1"):
        launch(variant(config, batch_size=9, accumulate=1, processes=2))
    with pytest.raises(InputError, match="choose a multiple of 16"):  # what each process checks that torchrun started
        check_batch(variant(config, accumulate=2), 8)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 .* without RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT; unset WORLD_SIZE"),
        ({"RANK": "0"}, "RANK=0 .* without WORLD_SIZE"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK=0 .* without WORLD_SIZE"),
        ({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}, "without MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "two"}, "'two' is no number"),
        ({"WORLD_SIZE": "-2"}, "'-2' is no number"),
        ({"WORLD_SIZE": "1", "RANK": "3"}, "RANK=3 .* WORLD_SIZE=1"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE=4 .* without WORLD_SIZE, RANK"),
    ],
)
def test_half_of_what_a_cluster_says_is_refused(said, words, config, archive, monkeypatch):
    for name, text in said.items():
        monkeypatch.setenv(name, text)
    for start in (launch, pretrain):
        with pytest.raises(InputError, match=words) as caught:
            start(config, archive)
        assert "\n" not in str(caught.value) and not config.folder().exists()


def test_what_a_launcher_says_is_obeyed_and_one_process_is_one(config, monkeypatch):
    assert place_among_processes() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert place_among_processes() == (0, 1)
    told = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "here", "MASTER_PORT": "29500"}
    for name, text in told.items():
        monkeypatch.setenv(name, text)
    assert place_among_processes() == (1, 2)
    with pytest.raises(InputError, match="processes=4 in one of 2 processes"):
        launch(variant(config, processes=4))


def test_many_more_processes_than_processors_are_not_started(config, monkeypatch):
    monkeypatch.setattr("fusmae_lite.train.launch.spawn", lambda *a: pytest.fail("started"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("fusmae_lite.train.launch.processors", lambda: 2)
    with pytest.raises(InputError, match="64 processes for 2 processors and no GPU; ask for 8 at most"):
        launch(variant(config, processes=64, batch_size=64, accumulate=1))


def test_the_commands_we_print_for_many_cards_divide_the_batch():
    """README and notebook 05: each command's cards and pieces share the preset's batch."""
    pages = [(project_root() / "README.md").read_text(encoding="utf-8")]
    notebook = nbformat.read(project_root() / "notebooks" / "05_pretraining.ipynb", as_version=4)
    pages += [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    lines = "\n".join(pages).replace("\\\n", " ").splitlines()  # a command may go on in the next line
    seen = set()
    for line in lines:
        if re.match(r"(fusmae|torchrun|papermill) .*preset paper", line):
            said = dict(re.findall(r"(processes|accumulate|nnodes|nproc-per-node)[ =](\d+)", line))
            preset = load_preset("paper", accumulate=said.get("accumulate"))
            count = int(said.get("processes", said.get("nproc-per-node", 1))) * int(said.get("nnodes", 1))
            check_batch(preset, count)
            seen.add(count)
    assert {8, 16} <= seen


@pytest.mark.slow
def test_a_failing_process_is_one_line(config):
    with pytest.raises(RunError, match="belongs to a run on other patches|no patch|does not exist"):
        launch(variant(config, data_dir=str(config.folder() / "nowhere"), processes=2))


def test_torchrun_runs_the_command_line(config, alone):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    given = {name: value for name, value in config.model_dump().items() if value not in (*UNSET, (), "smoke")}
    said = [f"-p{name}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for name, v in given.items()]
    command = [*torchrun, "-m", "fusmae_lite.course.cli", "pretrain", "--preset=smoke", *said]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, timeout=300)
    assert largest_difference(alone[1].model.state_dict(), weights(config)) < TOLERANCE
