"""One process or many: what Accelerate is asked for, and which part of a batch is whose.

A batch, its masks and its augmentation are drawn for all processes alike and then divided, so the number of devices
changes how fast a run is and not what it computes (but for the order in which floats are added).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import warnings
from typing import TYPE_CHECKING

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from fusmae_lite.config import RunConfig
from fusmae_lite.cross_attention import XAttnDecoder, XAttnEncoder
from fusmae_lite.errors import InputError, RunError
from fusmae_lite.optimise import build_optimizer, choose_device
from fusmae_lite.progress import line

if TYPE_CHECKING:
    from accelerate import Accelerator

    from fusmae_lite.archives import Archive
    from fusmae_lite.pretrain import PretrainResult


def make_accelerator(config: RunConfig) -> Accelerator:
    """Accelerate for this process: joins the others if ``accelerate launch``, torchrun or a launcher started several.

    Raises:
        InputError: the configured device is absent, or the batch cannot be divided by processes and `accumulate`.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs  # a second to import, so only where one trains
    from accelerate.state import AcceleratorState

    device = choose_device(config)
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run of this process used another device
    # A sensor that a step does not show leaves parameters without a gradient
    sharing = DistributedDataParallelKwargs(find_unused_parameters=config.sensor_dropout > 0)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=[sharing])
    check_batch(config, accelerator.num_processes)
    return accelerator


def check_batch(config: RunConfig, processes: int) -> None:
    """Raise InputError unless the batch can be divided by processes and `accumulate`."""
    parts = processes * config.accumulate
    halves = 2 if config.synthetic and parts > 1 else 1  # pairs and synthetic scenes are divided each
    if config.batch_size % (parts * halves):
        raise InputError(
            f"batch_size {config.batch_size} cannot be divided among {processes} processes x accumulate "
            f"{config.accumulate}{' x 2 (pairs, synthetic scenes)' if halves > 1 else ''}",
            f"choose a multiple of {parts * halves}",
        )


def divide_model(
    model: nn.Module, config: RunConfig, accelerator: Accelerator
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model as the processes share it, and its optimiser: copied to each (DDP), or sharded over them (FSDP).

    FSDP is PyTorch's own ``fully_shard``, block by block: Accelerate offers it on GPUs only, and what cannot be
    tested on a processor is not tested everywhere. A single process has nothing to share.
    """
    if config.fsdp and accelerator.num_processes > 1:
        # It warns that outputs must not be changed in place; they are only read here
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        for module in [*(m for m in model.modules() if isinstance(m, Block)), model]:
            fully_shard(module, mesh=mesh)
        return model, build_optimizer(model, config)
    model, optimizer = accelerator.prepare(model, build_optimizer(model, config))
    return model, optimizer.optimizer


def own_rows(rows: Tensor, accelerator: Accelerator) -> Tensor:
    """This process's part of something that has a row per sample of the whole batch."""
    return rows.tensor_split(accelerator.num_processes)[accelerator.process_index]


def compile_blocks(model: nn.Module, config: RunConfig, device: torch.device) -> None:
    """torch.compile every Transformer block and attention module in place: they repeat, so that compiling is short."""
    if config.compile == "on" or (config.compile == "auto" and device.type == "cuda"):
        for module in model.modules():
            if isinstance(module, Block | XAttnEncoder | XAttnDecoder):
                module.compile()


def launch(config: RunConfig, archive: Archive | None = None) -> PretrainResult:
    """Pretrain in ``config.processes`` processes: one per GPU, or on a machine without one, on the CPU.

    One process is :func:`~fusmae_lite.pretrain.pretrain` here and now. More are started afresh, as ``torchrun`` does,
    so that it works in a notebook whatever ran there before. (Accelerate's ``notebook_launcher(pretrain, (config,))``
    forks instead: good in a kernel that has computed nothing yet, refused or stuck in any other.) In a process that
    ``accelerate launch`` or torchrun started, it only joins.

    Args:
        config: as for :func:`~fusmae_lite.pretrain.pretrain`.
        archive: for a single process, the patches if they are open already.

    Returns:
        The result; of several processes, read back from the run's folder.

    Raises:
        InputError: more processes than GPUs, or whatever the run refuses.
        RunError: a process failed; the message is the first one's.
    """
    from fusmae_lite.pretrain import pretrain

    check_batch(config, config.processes)
    if config.processes > 1 and "WORLD_SIZE" not in os.environ:
        gpus = torch.cuda.device_count() if config.device != "cpu" else 0
        if gpus and config.processes > gpus:
            raise InputError(f"{config.processes} processes for {gpus} GPUs", "ask for one per GPU")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(config.processes)]
        run_command([*torchrun, "-m", "fusmae_lite.worker", config.model_dump_json()], config.processes)
    return pretrain(config, archive)  # after a launch the run is finished, and only read


def run_command(command: list[str], processes: int) -> None:
    """Run it and pass on what it prints, line by line; each process gets its share of the cores as threads."""
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    environment = {"OMP_NUM_THREADS": threads, **os.environ, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+") as complaints:  # a file, because a pipe that nobody empties would stop them
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment)
        try:
            assert process.stdout is not None
            for text in process.stdout:
                line(text.rstrip())
            if process.wait():
                complaints.seek(0)
                raise RunError(_first_complaint(complaints.read()))
        finally:
            process.terminate()  # torchrun takes its processes along; does nothing to one that has ended
            process.wait()


def _first_complaint(text: str) -> str:
    """The line that says why: our own, or the first exception."""
    own = re.search(r"^error: (.+)$", text, re.MULTILINE)
    other = re.search(r"^(?:\[rank\d+\]: )?([\w.]+(?:Error|Exception): .+)$", text, re.MULTILINE)
    return own[1] if own else f"a launched process failed: {other[1] if other else 'it was killed'}"
