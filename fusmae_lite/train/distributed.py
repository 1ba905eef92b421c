"""One process or many: how they find each other, and which part of a batch is whose.

A batch and everything random about it is drawn for all processes alike and then divided, so the number of devices
changes how fast a run is and not what it computes (but for the order in which floats are added).
"""

import os
import re
import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.model.cross_attention import XAttnDecoder, XAttnEncoder
from fusmae_lite.train.optimise import build_optimizer, choose_device

#: What a launcher tells each process of several, and other names for how many there are.
LAUNCHER_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
LAUNCHER_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def place_among_processes() -> tuple[int, int]:
    """(rank, processes) of this process, as its launcher says in the environment; (0, 1) if none did.

    InputError where the environment tells only half of it, as clusters do: each would train alone in the same folder.
    """
    if dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    told = {name: os.environ[name] for name in (*LAUNCHER_VARIABLES, *LAUNCHER_SIZES) if os.environ.get(name)}
    cure = f"unset {' '.join(told)}, or start with `torchrun`"
    numbers = {name: text for name, text in told.items() if not name.startswith("MASTER_")}
    for name, text in numbers.items():
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise InputError(f"environment variable {name}={text[:40]!r} is no number", cure)
    size, rank = int(numbers.get("WORLD_SIZE", 1)), int(numbers.get("RANK", 0))
    missing = [name for name in LAUNCHER_VARIABLES if name not in told]
    for name, text in numbers.items():
        several = name in LAUNCHER_SIZES and int(text) != 1
        if missing and (several or name == "LOCAL_RANK" or (name == "RANK" and "WORLD_SIZE" not in told)):
            raise InputError(f"{name}={text} is set in the environment without {', '.join(missing)}", cure)
        if several and int(text) != size:
            raise InputError(f"{name}={text} and WORLD_SIZE={size} do not fit", cure)
    if rank >= size:
        raise InputError(f"RANK={rank} is set in the environment for WORLD_SIZE={size} processes", cure)
    return rank, size


@dataclass(frozen=True)
class Processes:
    """This process among those that share each batch."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this one writes and prints."""
        return self.rank == 0

    def own(self, rows: Tensor) -> Tensor:
        """This process's part of something that has a row per sample of the whole batch."""
        return rows.tensor_split(self.size)[self.rank]

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def agree(self, stop: bool) -> bool:
        """Whether any of them is to stop; every process asks at the same step, one alone asks no device."""
        return stop if self.size == 1 else bool(self.sum(torch.tensor(float(stop), device=self.device)))

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()


def join_processes(config: RunConfig, **place: Any) -> Processes:
    """This process's device and place, connected with the others if there are any; RunError if they are not found.

    `place` is what ``init_process_group`` needs where no launcher has set the environment: rank, world_size,
    init_method.
    """
    device = choose_device(config)
    rank, size = (place["rank"], place["world_size"]) if place else place_among_processes()
    check_batch(config, size)
    if size == 1:
        return Processes(rank, size, device)
    try:
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)))
            torch.cuda.set_device(device)
        else:
            device = torch.device("cpu")  # gloo knows no MPS
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", **place)
    except (RuntimeError, ValueError) as error:
        raise RunError(f"{size} processes do not find each other: {str(error).splitlines()[0]}") from None
    return Processes(rank, size, device)


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


def divide_model(model: nn.Module, config: RunConfig, processes: Processes) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model as processes share it, and its optimiser: copied to each (DDP), or sharded block by block (FSDP)."""
    device = processes.device
    if processes.size > 1 and config.fsdp:
        # It warns that outputs must not be changed in place; they are only read here
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
        mesh = init_device_mesh(device.type, (processes.size,))
        for module in [*(m for m in model.modules() if isinstance(m, Block)), model]:
            fully_shard(module, mesh=mesh)
    elif processes.size > 1:
        # A step that shows each sensor alone leaves cross-attention without a gradient
        unused = config.sensor_dropout > 0
        cards = [device] if device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=cards, find_unused_parameters=unused)
    return model, build_optimizer(model, config)


def compile_blocks(model: nn.Module, config: RunConfig, device: torch.device) -> None:
    """torch.compile every Transformer block and attention module in place: they repeat, so that compiling is short."""
    if config.compile == "on" or (config.compile == "auto" and device.type == "cuda"):
        for module in model.modules():
            if isinstance(module, Block | XAttnEncoder | XAttnDecoder):
                module.compile()
