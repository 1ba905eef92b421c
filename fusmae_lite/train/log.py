"""What a training run writes about itself: a row an epoch to metrics.jsonl, to TensorBoard if wanted, and to people."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import parse_object, write_text
from fusmae_lite.core.progress import line

Rows = list[dict[str, float]]


class TrainingLog:
    """Metrics of a run, summed over the steps of an epoch; only the main process writes.

    Args:
        folder: the run's ``pretrain`` folder.
        config: decides whether TensorBoard files are written.
        device: whose memory is reported.
        main: whether this process writes and prints.
        quiet: print nothing.
        losses: parts of the loss, by default one a modality.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        device: torch.device,
        main: bool,
        quiet: bool,
        losses: tuple[str, ...] | None = None,
    ) -> None:
        self.path = folder / "metrics.jsonl"
        self.config, self.device, self.main, self.quiet = config, device, main, quiet
        self.losses = losses or config.modalities
        self.names = ["loss", *(f"loss_{name}" for name in self.losses), "grad_norm"]
        self.history: Rows = []
        self.sums: dict[str, float] = {}
        self._started, self._pairs, self._waited = time.perf_counter(), 0, 0.0
        self._board: Any = _tensorboard(folder / "tensorboard") if config.tensorboard and main else None

    def continue_from(self, step: int, sums: dict[str, float]) -> None:
        """Take over the rows up to a checkpoint, and the sums of the epoch it lies in; later rows are dropped.

        Lines that are no row, of a file that something else wrote to, are left out, and that is said.

        Raises:
            InputError: sums of other metrics.
        """
        if sums and set(sums) != set(self.names):
            where = f"{self.path.parent / 'checkpoints'}/step-{step:08d}/state.json"
            raise InputError(f"{where}: sums of {', '.join(sums)}, not {', '.join(self.names)}", "remove its folder")
        self.sums = dict(sums)
        lines = self.path.read_bytes().splitlines() if self.path.is_file() else []
        rows = [row for row in map(self._row, lines) if row is not None]
        if len(rows) < len(lines) and self.main:
            line(f"{self.path}: {len(lines) - len(rows)} of {len(lines)} lines are no rows and are left out")
        self.history = [row for row in rows if row["step"] <= step]

    def _row(self, text: bytes) -> dict[str, float] | None:
        """A line of the file as a row; None if it is none."""
        try:
            row = parse_object(text)
        except ValueError:
            return None
        numbers = all(type(value) in (int, float) and abs(value) < math.inf for value in row.values())
        return row if numbers and {"step", "epoch", *self.names} <= row.keys() else None

    def add(self, values: list[float], pairs: int, waited: float) -> None:
        """One step: its metrics in the order of `names`, its pairs, and the seconds it waited for data."""
        for name, value in zip(self.names, values, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value
        self._pairs += pairs
        self._waited += waited

    def end_epoch(self, epoch: int, step: int, steps: int, learning_rate: float) -> None:
        """Turn the sums into a row and write it; twenty lines a run are printed, or one an epoch for short runs."""
        elapsed = time.perf_counter() - self._started
        row: dict[str, float] = {"step": step, "epoch": epoch + 1}
        row |= {name: value / steps for name, value in self.sums.items()}
        row |= {"learning_rate": learning_rate, "pairs_per_second": self._pairs / elapsed}
        row |= {"waiting_for_data": self._waited / elapsed, "device_memory_gib": self._memory()}
        self.sums.clear()
        self._started, self._pairs, self._waited = time.perf_counter(), 0, 0.0
        self.history.append(row)
        if not self.main:
            return
        # The whole history, replaced in one step: a reader never sees half a row
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.history))
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()
        epochs = self.config.epochs
        if not self.quiet and ((epoch + 1) % math.ceil(epochs / 20) == 0 or epoch + 1 == epochs):
            losses = "  ".join(f"{name} {row[f'loss_{name}']:.3f}" for name in self.losses)
            rates = f"lr {learning_rate:.2e}  {row['pairs_per_second']:.0f} pairs/s"
            waited = f"  {row['waiting_for_data']:.0%} waiting" if row["waiting_for_data"] >= 0.05 else ""
            line(f"epoch {epoch + 1:4d}/{epochs}  {losses}  {rates}{waited}")

    def close(self) -> None:
        """Flush what TensorBoard still holds."""
        if self._board is not None:
            self._board.close()

    def _memory(self) -> float:
        """Most memory the device ever held, in GiB; 0 on the CPU."""
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else 0.0


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "tensorboard=true, but the package is missing", "pip install tensorboard, or leave it out"
        ) from None
    return SummaryWriter(str(folder))
