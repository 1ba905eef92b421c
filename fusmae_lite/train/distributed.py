"""One process or many: what Accelerate is asked for, and which part of a batch is whose.

A batch, its masks, augmentation and stochastic depth are drawn for all processes alike and then divided, so the number
of devices changes how fast a run is and not what it computes (but for the order in which floats are added).
"""

from __future__ import annotations

import os
import re
import warnings
from typing import TYPE_CHECKING

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.model.cross_attention import XAttnDecoder, XAttnEncoder
from fusmae_lite.train.optimise import build_optimizer, choose_device

if TYPE_CHECKING:
    from accelerate import Accelerator


#: What each process of several is told by the launcher that started it, and other names for how many there are.
LAUNCHER_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
LAUNCHER_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def place_among_processes() -> tuple[int, int]:
    """(rank, processes) of this process, as the launcher that started it says in the environment; (0, 1) if none did.

    Raises:
        InputError: the environment speaks of several processes but does not say all that they need to find each
            other. Half of it, as clusters set it, would make each of them train alone, all into one folder.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    told = {name: os.environ[name] for name in LAUNCHER_VARIABLES if os.environ.get(name)}
    numbers = {n: os.environ[n] for n in (*LAUNCHER_VARIABLES[:3], *LAUNCHER_SIZES) if os.environ.get(n)}
    cure = f"unset {' '.join([*told, *(n for n in numbers if n in LAUNCHER_SIZES)])}, or start with `accelerate launch`"
    for name, text in numbers.items():
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise InputError(f"environment variable {name}={text[:40]!r} is no number", cure)
    size, rank = int(numbers.get("WORLD_SIZE", 1)), int(numbers.get("RANK", 0))
    several = [name for name in ("WORLD_SIZE", *LAUNCHER_SIZES) if int(numbers.get(name, 1)) != 1]
    if several or "LOCAL_RANK" in told or ("RANK" in told and "WORLD_SIZE" not in told):
        missing = [name for name in LAUNCHER_VARIABLES if name not in told]
        if missing:
            found = several[0] if several else "LOCAL_RANK" if "LOCAL_RANK" in told else "RANK"
            raise InputError(f"{found}={numbers[found]} is set in the environment without {', '.join(missing)}", cure)
        if odd := [name for name in several if int(numbers[name]) != size or size < 1]:
            raise InputError(f"{odd[0]}={numbers[odd[0]]} and WORLD_SIZE={size} do not fit", cure)
    if rank >= size:
        raise InputError(f"RANK={rank} is set in the environment for WORLD_SIZE={size} processes", cure)
    return rank, size


def make_accelerator(config: RunConfig) -> Accelerator:
    """Accelerate for this process: joins the others if ``accelerate launch``, torchrun or a launcher started several.

    Raises:
        InputError: the configured device is absent, the batch cannot be divided by processes and `accumulate`, or
            see :func:`place_among_processes`.
        RunError: the processes do not find each other.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs  # a second to import, so only where one trains
    from accelerate.state import AcceleratorState

    device = choose_device(config)
    _, size = place_among_processes()
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run of this process used another device
    # A step that shows each sensor alone leaves cross-attention without a gradient
    sharing = DistributedDataParallelKwargs(find_unused_parameters=config.sensor_dropout > 0)
    try:
        accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=[sharing])
    except (RuntimeError, ValueError) as error:
        if size == 1:
            raise
        raise RunError(f"{size} processes do not find each other: {str(error).splitlines()[0]}") from None
    if accelerator.num_processes != size:
        raise InputError(
            f"{size} processes were started, {accelerator.num_processes} would train", "start with `accelerate launch`"
        )
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
