"""One process or many: what Accelerate is asked for, and which part of a batch is whose.

A batch, its masks, augmentation and stochastic depth are drawn for all processes alike and then divided, so the number
of devices changes how fast a run is and not what it computes (but for the order in which floats are added).
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
from fusmae_lite.decode import processors
from fusmae_lite.errors import InputError, RunError
from fusmae_lite.locks import only_job
from fusmae_lite.optimise import build_optimizer, choose_device
from fusmae_lite.progress import line

if TYPE_CHECKING:
    from accelerate import Accelerator

    from fusmae_lite.archives import Archive
    from fusmae_lite.pretrain import PretrainResult


#: What each process of several is told by the launcher that started it, and other names for how many there are.
_TOLD = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
#: More processes than processors only wait for each other; so many are allowed anyway, to try things out.
FEW = 8


def place_among_processes() -> tuple[int, int]:
    """(rank, processes) of this process, as the launcher that started it says in the environment; (0, 1) if none did.

    Raises:
        InputError: the environment speaks of several processes but does not say all that they need to find each
            other. Half of it, as clusters set it, would make each of them train alone, all into one folder.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    told = {name: os.environ[name] for name in _TOLD if os.environ.get(name)}
    numbers = {n: os.environ[n] for n in (*_TOLD[:3], *_SIZES) if os.environ.get(n)}
    cure = f"unset {' '.join([*told, *(n for n in numbers if n in _SIZES)])}, or start with `accelerate launch`"
    for name, text in numbers.items():
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise InputError(f"environment variable {name}={text[:40]!r} is no number", cure)
    size, rank = int(numbers.get("WORLD_SIZE", 1)), int(numbers.get("RANK", 0))
    several = [name for name in ("WORLD_SIZE", *_SIZES) if int(numbers.get(name, 1)) != 1]
    if several or "LOCAL_RANK" in told or ("RANK" in told and "WORLD_SIZE" not in told):
        missing = [name for name in _TOLD if name not in told]
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
        InputError: more processes than GPUs, or whatever the run refuses; an environment that tells half of what
            several processes need.
        RunError: a process failed; the message is the first one's.
    """
    from fusmae_lite.pretrain import pretrain

    _, size = place_among_processes()
    if size > 1 and config.processes not in (1, size):
        raise InputError(f"processes={config.processes} in one of {size} processes", "leave processes out")
    if size == 1 and config.processes > 1:
        _check_processes(config)
        with only_job(config.folder() / "pretrain"):  # says so here rather than through a launcher; then it is theirs
            pass
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]  # a free port: others may run, too
        torchrun += ["--nproc-per-node", str(config.processes), "-m", "fusmae_lite.worker", config.model_dump_json()]
        run_command(torchrun, config.processes)
    return pretrain(config, archive)  # after a launch the run is finished, and only read


def _check_processes(config: RunConfig) -> None:
    gpus = torch.cuda.device_count() if config.device != "cpu" else 0
    if gpus and config.processes > gpus:
        raise InputError(f"{config.processes} processes for {gpus} GPUs", "ask for one per GPU")
    if not gpus and config.processes > max(FEW, processors()):
        what = f"{config.processes} processes for {processors()} processors and no GPU"
        raise InputError(what, f"ask for {max(FEW, processors())} at most")
    check_batch(config, config.processes)


def run_command(command: list[str], processes: int) -> None:
    """Run it and pass on what it prints, line by line; each process gets its share of the cores as threads."""
    threads = str(max(1, processors() // processes))
    inherited = {name: value for name, value in os.environ.items() if name not in (*_TOLD, *_SIZES)}
    environment = {"OMP_NUM_THREADS": threads, **inherited, "PYTHONUNBUFFERED": "1"}
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
