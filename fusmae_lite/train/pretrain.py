"""Pretraining: one loop for a laptop, a GPU, and many of them.

Every random choice of step t is drawn from a seed derived from (seed, t), so the state of a run is its weights,
AdamW's moments and t. That is all a checkpoint holds, and a resumed run repeats the undisturbed one exactly.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError, RunError
from fusmae_lite.core.locks import only_job
from fusmae_lite.core.progress import line
from fusmae_lite.core.seeding import derive, generator
from fusmae_lite.data.archives import Archive, open_data
from fusmae_lite.data.identity import identity_of
from fusmae_lite.data.loader import load, told_when_killed
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.model.drop_path import draw_by_place, place
from fusmae_lite.model.masking import draw_together
from fusmae_lite.systems import System, build_model
from fusmae_lite.systems.weights import load_model
from fusmae_lite.train.checkpoints import Progress, kept, latest_checkpoint, read_progress, restore, save_checkpoint
from fusmae_lite.train.distributed import (
    compile_blocks,
    divide_model,
    make_accelerator,
    own_rows,
    place_among_processes,
)
from fusmae_lite.train.heldout import heldout_losses
from fusmae_lite.train.log import Rows, TrainingLog
from fusmae_lite.train.optimise import autocast, learning_rate_at, uses_bf16, weight_decay_at
from fusmae_lite.train.showing import Showing

if TYPE_CHECKING:
    from accelerate import Accelerator

Drawn = dict[str, Tensor]  # a row per sample


@dataclass
class PretrainResult:
    """A finished (or deliberately stopped) run.

    Args:
        model: the trained model, in evaluation mode on the CPU.
        history: one row an epoch: step, epoch, loss, loss_<modality> (or the system's own parts), grad_norm,
            learning_rate, pairs_per_second, waiting_for_data (share of the time), device_memory_gib (the most it ever
            held; 0 on the CPU).
        heldout: loss_<modality> on the validation split, and mean_<modality>, what predicting each band's mean costs;
            only in the main process.
        checkpoint: folder of the last checkpoint.
        resumed_from: step the run was continued from, 0 for a fresh one.
    """

    model: System
    history: Rows
    heldout: dict[str, float]
    checkpoint: Path
    resumed_from: int = 0


@dataclass
class _Run:
    """The parts a step needs, gathered once: `system` is the model itself, `model` as the processes share it."""

    config: RunConfig
    accelerator: Accelerator
    dataset: PairDataset
    showing: Showing
    system: System
    model: nn.Module
    optimizer: torch.optim.Optimizer
    log: TrainingLog
    progress: Progress

    @property
    def steps_per_epoch(self) -> int:
        return len(self.dataset) // self.showing.pairs

    @property
    def batch(self) -> int:
        return self.showing.batch

    def own(self, rows: Tensor) -> Tensor:
        """This process's part of what was drawn for a batch: of its pairs, then of its synthetic scenes."""
        halves = rows.split([self.showing.pairs, self.showing.made])
        return torch.cat([own_rows(half, self.accelerator) for half in halves])

    @property
    def planned_steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch

    @property
    def last_step(self) -> int:
        return min(self.planned_steps, self.config.max_steps) if self.config.max_steps else self.planned_steps


def pretrain(config: RunConfig, archive: Archive | None = None, quiet: bool = False) -> PretrainResult:
    """Train a Fus-MAE, or the baseline that ``config.system`` names, continuing a run found in the same folder.

    Writes ``pretrain/metrics.jsonl`` (a row an epoch) and ``pretrain/checkpoints/`` below ``config.folder()``. Under
    ``accelerate launch`` every process calls it, and they share each batch.

    Args:
        config: everything; see :func:`~fusmae_lite.core.config.load_preset`.
        archive: patches; by default those at ``config.data_dir``, or the bundled ones.
        quiet: print nothing.

    Raises:
        InputError: an empty split, a batch that processes cannot share, a patch that cannot be read, or a folder that
            belongs to another run or that another job holds.
        RunError: the loss or its gradient is no longer finite (names the step and the patches), or weights or held-out
            losses are not, a checkpoint cannot be written, or a process that reads was killed; the last good checkpoint
            stays.
    """
    archive = archive or open_data(config)
    folder = config.folder() / "pretrain"
    main = place_among_processes()[0] == 0
    # the caller's own random state is none of our business
    with only_job(folder) if main else nullcontext(), torch.random.fork_rng(), told_when_killed():
        run = _prepare(config, archive, folder, quiet)
        if archive.left_out and not quiet and run.accelerator.is_main_process:
            line(f"of {archive.root} {archive.said_left_out}")
        found = latest_checkpoint(folder / "checkpoints")
        if found is not None:
            run.progress = read_progress(found, config, run.progress)
            restore(found, run.model, run.optimizer, config)
        start = run.progress.step
        run.log.continue_from(start, run.progress.sums)
        checkpoint = _train(run, folder / "checkpoints") if start < run.last_step else found
        assert checkpoint is not None  # a run has at least one step
        run.log.close()
        model = load_model(checkpoint / "model.safetensors", config).to(run.accelerator.device)
        heldout = heldout_losses(model, archive, config) if run.accelerator.is_main_process else {}
        _check_heldout(heldout, checkpoint, new=start < run.last_step)
    return PretrainResult(model.to("cpu"), run.log.history, heldout, checkpoint, start)


def _prepare(config: RunConfig, archive: Archive, folder: Path, quiet: bool) -> _Run:
    """Model, optimiser and data in their initial state, which follows from the seed alone."""
    accelerator = make_accelerator(config)
    device = accelerator.device
    dataset = PairDataset(
        archive, split="train", modalities=config.modalities, size=config.image_size, cache=config.cache, native=True
    )
    if len(dataset) < accelerator.num_processes:
        raise InputError(
            f"{archive.root} has {len(dataset)} patches in the split 'train' for {accelerator.num_processes} process"
            f"{'es' if accelerator.num_processes > 1 else ''}",
            "add its split files, or open another archive",
        )
    torch.manual_seed(derive("initialise", config.seed))
    system = build_model(config)
    draw_by_place(system)
    system.recompute(config.recompute)
    system.to(device)
    compile_blocks(system, config, device)
    model, optimizer = divide_model(system.train(), config, accelerator)
    precision = "bf16" if uses_bf16(device, config) else "fp32"
    log = TrainingLog(folder, config, device, accelerator.is_main_process, quiet, system.loss_names)
    progress = Progress(0, {}, precision, identity_of(dataset))
    showing = Showing(config, dataset)
    return _Run(config, accelerator, dataset, showing, system, model, optimizer, log, progress)


def _train(run: _Run, folder: Path) -> Path:
    """Step after step from where the run stands; returns the folder of the last checkpoint.

    A step's metrics are read when the next one is under way: asking a GPU earlier would make both wait.
    """
    config, log, steps = run.config, run.log, run.steps_per_epoch
    checkpoint = folder
    unread: tuple[int, Tensor, float] | None = None
    for step, bands, waited in _batches(run):
        metrics = _step(run, bands, step)
        _read(run, unread)
        unread = (step, metrics, waited)
        run.progress.step = step + 1
        ends_epoch, ends = (step + 1) % steps == 0, step + 1 == run.last_step
        if not (ends_epoch or ends):
            continue
        _read(run, unread)
        unread = None
        if ends_epoch:
            log.end_epoch(step // steps, step + 1, steps, learning_rate_at(step, steps, config))
        if ends or (step + 1) // steps % config.checkpoint_every == 0:
            run.progress.sums = log.sums
            main = run.accelerator.is_main_process
            checkpoint = save_checkpoint(folder, run.model, run.optimizer, run.progress, config, main)
    run.accelerator.wait_for_everyone()  # nobody reads the last checkpoint before it is there
    return checkpoint


def _check_heldout(losses: dict[str, float], checkpoint: Path, new: bool) -> None:
    """RunError if weights that are finite give held-out losses that are not; `new` weights of that kind are dropped."""
    odd = next((name for name, value in losses.items() if not math.isfinite(value)), None)
    if odd is None:
        return
    if new:
        shutil.rmtree(checkpoint)
    raise RunError(
        f"held-out {odd} is {losses[odd]} at {checkpoint.name}{', which is not kept' if new else ''}; "
        f"{kept(checkpoint.parent)}; lower learning_rate and choose another run_dir"
    )


def _read(run: _Run, unread: tuple[int, Tensor, float] | None) -> None:
    """Take a step's metrics from the device; any that is not finite ends the run before anything is saved."""
    if unread is None:
        return
    step, metrics, waited = unread
    values = metrics.tolist()
    odd = next((name for name, value in zip(run.log.names, values, strict=True) if not math.isfinite(value)), None)
    if odd is not None:
        names = [run.dataset.name(int(i)) for i in _rows(run, step)]
        raise RunError(
            f"{odd} is {values[run.log.names.index(odd)]} at step {step} on patches {', '.join(names)}; "
            "look at them in notebook 01, or lower learning_rate; the last checkpoint is intact"
        )
    run.log.add(values, run.batch, waited)


def _rows(run: _Run, step: int) -> Tensor:
    """Which pairs of the training split step `step` sees, in all processes together; incomplete batches are dropped."""
    epoch, position = divmod(step, run.steps_per_epoch)
    order = _order(len(run.dataset), run.config.seed, epoch)
    return order[position * run.showing.pairs : (position + 1) * run.showing.pairs]


@lru_cache(maxsize=2)
def _order(length: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(length, generator=generator("order", seed, epoch))


class _OwnBatches:
    """Batch sampler over all steps that are left, across epochs, so that reading never starts anew."""

    def __init__(self, run: _Run) -> None:
        self.run = run

    def __len__(self) -> int:
        return self.run.last_step - self.run.progress.step

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.run.progress.step, self.run.last_step):
            yield own_rows(_rows(self.run, step), self.run.accelerator).tolist()


def _batches(run: _Run) -> Iterator[tuple[int, dict[str, Any], float]]:
    """(step, this process's bands of the batch, seconds waited for them) for each step that is left."""
    loader = load(
        run.dataset,
        workers=run.config.workers,
        batch_sampler=_OwnBatches(run),
        pin_memory=run.accelerator.device.type == "cuda",
    )
    asked = time.perf_counter()
    for step, sample in enumerate(loader, run.progress.step):
        yield step, sample["bands"], time.perf_counter() - asked
        asked = time.perf_counter()


def _step(run: _Run, bands: dict[str, dict[int, Tensor]], step: int) -> Tensor:
    """One optimiser step; returns loss, its parts and the gradient's norm, on the device.

    Everything random is drawn for the whole batch; each process then takes its rows.
    """
    config, device = run.config, run.accelerator.device
    masks = run.system.draw(run.batch, generator("masks", config.seed, step), config)
    masks = {name: run.own(mask) for name, mask in masks.items()}
    images = run.showing.images(bands, step, run.own, device)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate_at(step, run.steps_per_epoch, config)
    run.optimizer.param_groups[0]["weight_decay"] = weight_decay_at(step, run.steps_per_epoch, config)
    run.optimizer.zero_grad(set_to_none=True)
    losses = _accumulate(run, images, masks, step)
    for parameter in run.model.parameters() if config.sensor_dropout else ():
        if parameter.requires_grad and parameter.grad is None:  # of cross-attention, in a step of sensors alone
            parameter.grad = torch.zeros_like(parameter)
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), config.clip_grad or math.inf)
    run.optimizer.step()
    run.system.after_step(step, run.planned_steps, lambda tensor: run.accelerator.reduce(tensor, "sum"))
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # sharded gradients have a sharded norm
    return torch.cat([losses, norm[None]])


def _accumulate(run: _Run, images: Drawn, masks: Drawn, step: int) -> Tensor:
    """Gradient of the whole batch, from this process's rows in pieces; returns the losses over all processes."""
    accelerator, config, world = run.accelerator, run.config, run.accelerator.num_processes
    together = draw_together(config.modalities, config.sensor_dropout, generator("sensors", config.seed, step))
    places, names = run.own(torch.arange(run.batch)), run.system.loss_names
    pieces = torch.arange(len(places)).chunk(config.accumulate)
    passes = [(piece, seen) for piece in pieces for seen in together]
    losses = torch.zeros(1 + len(names), device=accelerator.device)
    for number, (piece, seen) in enumerate(passes):
        here = slice(int(piece[0]), int(piece[-1]) + 1)
        share = len(piece) / run.batch
        place(run.system, places[here], run.batch, (config.seed, step))
        with accelerator.no_sync(run.model) if number + 1 < len(passes) else nullcontext():
            with autocast(accelerator.device, config):
                result = run.model({k: images[k][here] for k in seen}, {k: v[here] for k, v in masks.items()})
            (result.loss * (share * world)).backward()  # processes average their gradients, a batch adds its rows'
        parts = [result.losses.get(name, torch.zeros_like(result.loss)) for name in names]
        losses += torch.stack([result.loss, *parts]).detach() * share
    return accelerator.reduce(losses, "sum")
