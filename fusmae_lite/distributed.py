"""One process or many: what Accelerate is asked for, and which part of a batch is whose.

A batch, its masks and its augmentation are drawn for all processes alike and then divided, so the number of devices
changes how fast a run is and not what it computes (but for the order in which floats are added).
"""

from __future__ import annotations

import os
import subprocess
import sys
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

    from fusmae_lite.pretrain import PretrainResult


def make_accelerator(config: RunConfig) -> Accelerator:
    """Accelerate for this process: joins the others if ``accelerate launch``, torchrun or a launcher started several.

    Raises:
        InputError: the configured device is absent, or the batch cannot be divided by processes and `accumulate`.
    """
    from accelerate import Accelerator  # a second to import, so only where one trains
    from accelerate.state import AcceleratorState

    device = choose_device(config)
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run of this process used another device
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    world = accelerator.num_processes
    if config.batch_size % (world * config.accumulate):
        raise InputError(
            f"batch_size {config.batch_size} cannot be divided among {world} processes x accumulate "
            f"{config.accumulate}",
            f"choose a multiple of {world * config.accumulate}",
        )
    return accelerator


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


def launch(config: RunConfig, processes: int) -> PretrainResult:
    """Pretrain in several processes from a notebook: one per GPU, or on a machine without one, on the CPU.

    They are started afresh, as ``torchrun`` does. Accelerate's ``notebook_launcher(pretrain, (config,))`` forks
    instead: it is good for a kernel that has computed nothing yet, and hangs or refuses in any other.

    Args:
        config: as for :func:`~fusmae_lite.pretrain.pretrain`.
        processes: how many; on GPUs at most as many as there are.

    Returns:
        The result, read back from the run's folder by the calling process.

    Raises:
        InputError: more processes than GPUs, or whatever the run refuses.
        RunError: a process failed; its own line is printed above.
    """
    from fusmae_lite.pretrain import pretrain

    gpus = torch.cuda.device_count() if config.device != "cpu" else 0
    if gpus and processes > gpus:
        raise InputError(f"{processes} processes for {gpus} GPUs", "ask for one per GPU")
    if processes > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        run_command([*torchrun, "-m", "fusmae_lite.worker", config.model_dump_json()], processes)
    return pretrain(config)  # trains if one process was asked for; otherwise the run is finished, and only read


def run_command(command: list[str], processes: int) -> None:
    """Run it and pass on what it prints, line by line; each process gets its share of the cores as threads."""
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    environment = {"OMP_NUM_THREADS": threads, **os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None and process.stderr is not None
        for text in process.stdout:
            line(text.rstrip())
        complaints = [text for text in process.stderr.read().splitlines() if text.startswith("error: ")]
        if process.wait():
            raise RunError(complaints[0].removeprefix("error: ") if complaints else "a launched process failed")
    finally:
        process.kill()
