"""Pretraining: one loop for a laptop and a GPU.

Every random choice of step t is drawn from a seed derived from (seed, t), so the state of a run is its weights,
AdamW's moments and t. That is all a checkpoint holds, and a resumed run repeats the undisturbed one exactly.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fusmae_lite.archives import Archive, open_data
from fusmae_lite.checkpoints import Progress, latest_checkpoint, resume, save_checkpoint
from fusmae_lite.config import RunConfig
from fusmae_lite.errors import InputError, RunError
from fusmae_lite.evaluate.heldout import heldout_losses
from fusmae_lite.masking import sample_masks
from fusmae_lite.model import FusMAE
from fusmae_lite.optimise import autocast, build_optimizer, choose_device, learning_rate_at
from fusmae_lite.pairs import PairDataset, augment
from fusmae_lite.seeding import derive, generator

Rows = list[dict[str, float]]


@dataclass
class PretrainResult:
    """A finished (or deliberately stopped) run.

    Args:
        model: the trained model, in evaluation mode on the CPU.
        history: one row an epoch: step, epoch, loss, loss_<modality>, learning_rate, grad_norm, pairs_per_second.
        heldout: loss_<modality> on the validation split, and mean_<modality>, what predicting each band's mean costs.
        checkpoint: folder of the last checkpoint.
        resumed_from: step the run was continued from, 0 for a fresh one.
    """

    model: FusMAE
    history: Rows
    heldout: dict[str, float]
    checkpoint: Path
    resumed_from: int = 0


@dataclass
class _Run:
    """The parts a step needs, gathered once."""

    config: RunConfig
    dataset: PairDataset
    folder: Path
    device: torch.device
    model: FusMAE
    optimizer: torch.optim.Optimizer
    steps_per_epoch: int
    batch: int
    data: str
    history: Rows = field(default_factory=list)

    @property
    def last_step(self) -> int:
        planned = self.config.epochs * self.steps_per_epoch
        return min(planned, self.config.max_steps) if self.config.max_steps else planned


def pretrain(config: RunConfig, archive: Archive | None = None, quiet: bool = False) -> PretrainResult:
    """Train a Fus-MAE as configured, continuing a run found in the same folder.

    Writes ``pretrain/metrics.jsonl`` (a row an epoch) and ``pretrain/checkpoints/`` below ``config.folder()``.

    Args:
        config: everything; see :func:`~fusmae_lite.config.load_preset`.
        archive: patches; by default those at ``config.data_dir``, or the bundled ones.
        quiet: print nothing.

    Raises:
        InputError: an empty split, or a folder that belongs to another run.
        RunError: the loss is no longer finite; names the step and the patches, the last checkpoint stays.
    """
    archive = archive or open_data(config)
    with torch.random.fork_rng():  # the caller's own random state is none of our business
        run = _prepare(config, archive)
        found = latest_checkpoint(run.folder / "checkpoints")
        progress = Progress(0, {})
        if found is not None:
            progress = resume(found, run.model, run.optimizer, config, run.data)
        run.history = _metrics_until(run.folder / "metrics.jsonl", progress.step)
        start = progress.step
        checkpoint = _train(run, progress, found, quiet)
        model = run.model.to("cpu").eval()
        heldout = heldout_losses(model, archive, config)
    return PretrainResult(model, run.history, heldout, checkpoint, start)


def _prepare(config: RunConfig, archive: Archive) -> _Run:
    """Model, optimiser and data in their initial state, which follows from the seed alone."""
    dataset = PairDataset(
        archive, split="train", modalities=config.modalities, size=config.image_size, cache=config.cache
    )
    if not len(dataset):
        raise InputError(
            f"{archive.root} has no patch in the split 'train'", "add its split files, or open another archive"
        )
    torch.manual_seed(derive("initialise", config.seed))
    model = FusMAE(config.architecture())
    device = choose_device(config)
    model.to(device)
    batch = min(config.batch_size, len(dataset))
    names = "\n".join(dataset.name(i) for i in range(len(dataset)))
    fingerprint = hashlib.sha256(names.encode()).hexdigest()[:16]
    folder = config.folder() / "pretrain"
    optimizer = build_optimizer(model, config)
    return _Run(config, dataset, folder, device, model, optimizer, len(dataset) // batch, batch, fingerprint)


def _train(run: _Run, progress: Progress, checkpoint: Path | None, quiet: bool) -> Path:
    """Run epoch after epoch from `progress`; returns the folder of the last checkpoint."""
    started, done_before = time.perf_counter(), progress.step
    run.model.train()
    for epoch in range(progress.step // run.steps_per_epoch, run.config.epochs):
        for images, names in _batches(run, epoch, progress.step % run.steps_per_epoch):
            if progress.step >= run.last_step:
                break
            metrics = _step(run, images, names, progress.step)
            progress.step += 1
            for key, value in metrics.items():
                progress.sums[key] = progress.sums.get(key, 0.0) + value
        else:
            rate = (progress.step - done_before) * run.batch / (time.perf_counter() - started)
            _end_epoch(run, progress, epoch, rate, quiet)
        ends = progress.step >= run.last_step
        if ends or (epoch + 1) % run.config.checkpoint_every == 0:
            checkpoint = save_checkpoint(
                run.folder / "checkpoints", run.model, run.optimizer, progress, run.config, run.data
            )
        if ends:
            break
    assert checkpoint is not None  # a run has at least one step
    return checkpoint


def _batches(run: _Run, epoch: int, skip: int) -> Iterator[tuple[dict[str, Tensor], list[str]]]:
    """Batches of an epoch, ordered by (seed, epoch), without the first `skip`; an incomplete one is dropped."""
    order = torch.randperm(len(run.dataset), generator=generator("order", run.config.seed, epoch))
    batches = order[: run.steps_per_epoch * run.batch].split(run.batch)[skip:]
    loader = DataLoader(
        run.dataset,
        batch_sampler=[batch.tolist() for batch in batches],
        num_workers=min(run.config.workers, os.cpu_count() or 1),  # more would only wait for each other, and warn
        pin_memory=run.device.type == "cuda",
    )
    for batch, sample in zip(batches, loader, strict=True):
        yield sample["images"], [run.dataset.name(int(i)) for i in batch]


def _step(run: _Run, images: dict[str, Tensor], names: list[str], step: int) -> dict[str, float]:
    """One optimiser step: augment, mask, accumulate the gradient over micro-batches, update."""
    config = run.config
    torch.manual_seed(derive("dropout", config.seed, step))
    images = augment(images, config.augment, generator("augment", config.seed, step))
    masks = sample_masks(
        config.masking, len(names), config.tokens, config.kept, config.modalities, generator("masks", config.seed, step)
    )
    rate = learning_rate_at(step, run.steps_per_epoch, config)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.zero_grad(set_to_none=True)
    totals: dict[str, float] = {}
    for rows in torch.arange(len(names)).chunk(config.accumulate):
        parts = [{k: v[rows].to(run.device, non_blocking=True) for k, v in part.items()} for part in (images, masks)]
        with autocast(run.device, config):
            result = run.model(*parts)
        share = len(rows) / len(names)
        (result.loss * share).backward()
        for name, loss in {"": result.loss, **{f"_{k}": v for k, v in result.losses.items()}}.items():
            totals[f"loss{name}"] = totals.get(f"loss{name}", 0.0) + loss.item() * share
    if not math.isfinite(totals["loss"]):
        raise RunError(
            f"loss is {totals['loss']} at step {step} on patches {', '.join(names)}; "
            "look at them in notebook 01, or lower learning_rate; the last checkpoint is intact"
        )
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), config.clip_grad or math.inf)
    run.optimizer.step()
    return {**totals, "grad_norm": float(norm)}


def _end_epoch(run: _Run, progress: Progress, epoch: int, rate: float, quiet: bool) -> None:
    """Turn the sums into a row of the history, and say so: twenty lines a run, or one an epoch for short runs."""
    row: dict[str, float] = {"step": progress.step, "epoch": epoch + 1}
    row |= {key: value / run.steps_per_epoch for key, value in progress.sums.items()}
    row |= {"learning_rate": learning_rate_at(progress.step - 1, run.steps_per_epoch, run.config)}
    row |= {"pairs_per_second": rate}
    progress.sums.clear()
    run.history.append(row)
    _write_metrics(run)
    if not quiet and ((epoch + 1) % max(1, run.config.epochs // 20) == 0 or epoch + 1 == run.config.epochs):
        losses = "  ".join(f"{name} {row[f'loss_{name}']:.3f}" for name in run.config.modalities)
        print(f"epoch {epoch + 1:4d}/{run.config.epochs}  {losses}  lr {row['learning_rate']:.2e}  {rate:.0f} pairs/s")


def _write_metrics(run: _Run) -> None:
    """The whole history, replaced in one step; rows past the last checkpoint are dropped when a run is continued."""
    metrics = run.folder / "metrics.jsonl"
    metrics.parent.mkdir(parents=True, exist_ok=True)
    temporary = metrics.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in run.history), encoding="utf-8")
    os.replace(temporary, metrics)


def _metrics_until(path: Path, step: int) -> Rows:
    """Rows of an earlier part of this run, up to the checkpoint it is continued from."""
    if not path.is_file():
        return []
    return [row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()) if row["step"] <= step]
