"""A training run, running or finished, as its metrics file tells it."""

import math
from functools import lru_cache
from pathlib import Path

import ipywidgets as w

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import parse_object
from fusmae_lite.show.charts import show_loss_curves
from fusmae_lite.show.pictures import png
from fusmae_lite.show.viewers.base import Viewer, choice, slider


class TrainingMonitor(Viewer):
    """Loss curves of a run, its folder or metrics.jsonl, even before it begins; Play looks every `every` seconds."""

    def __init__(self, run: Path | str, *, every: float = 2.0) -> None:
        super().__init__("Training")
        if not every > 0:
            raise InputError(f"every={every:g} seconds", "give a positive number")
        path = Path(run).expanduser()
        below = [path / "metrics.jsonl", path / "pretrain" / "metrics.jsonl"]
        self.path = path if path.suffix == ".jsonl" else next((file for file in below if file.is_file()), below[1])
        self._draw = lru_cache(1)(self._draw)  # an unchanged file costs one look at its date
        self.play = w.Play(max=10**6, interval=round(1000 * every), layout=w.Layout(display="none"))
        self.follow = w.ToggleButton(description="Follow the run", icon="play", tooltip="read it again and again")
        self.follow.observe(lambda change: setattr(self.play, "playing", change["new"]), "value")
        self.again = self.button("Read again", self.refresh, icon="refresh", tooltip="read the metrics file now")
        self.x = choice("across", ["step", "epoch"])
        self.logarithmic = w.Checkbox(description="logarithmic", indent=False, layout=w.Layout(width="120px"))
        self.skip = slider("leave out first, %", 0, 95, 0, step=5, style={"description_width": "initial"})
        self.assemble([self.x, self.logarithmic, self.skip], [self.follow, self.play, self.again])

    def draw(self) -> tuple[bytes, str, str]:
        try:
            state = self.path.stat()
        except OSError:
            raise InputError(f"no {self.path}", "start training (notebook 05), or give the run's folder") from None
        return self._draw((state.st_mtime_ns, state.st_size), self.x.value, self.skip.value, self.logarithmic.value)

    def _draw(self, _state: tuple[int, int], x: str, skip: int, log: bool) -> tuple[bytes, str, str]:
        rows = read_metrics(self.path)
        shown = rows[min(len(rows) * skip // 100, len(rows) - 1) :]
        figure = show_loss_curves(shown, x=x, y="training loss", log=log)
        first, last = rows[0], rows[-1]
        losses = "; ".join(
            f"{key.removeprefix('loss_').upper()} {first.get(key, math.nan):.3f} to {value:.3f}"
            for key, value in last.items()
            if key.startswith("loss_")
        )
        speed = f", {last['pairs_per_second']:.0f} pairs a second" if "pairs_per_second" in last else ""
        where = f"Epoch {last.get('epoch', '?')}, step {last.get('step', '?')}{speed}"
        words = f"{where}. Training loss, first to last epoch: {losses}."
        if seen := {key: value for row in rows for key, value in row.items() if key.startswith("val_loss_")}:
            told = "; ".join(f"{key.removeprefix('val_loss_').upper()} {value:.3f}" for key, value in seen.items())
            words += f" Last validation loss: {told}."
        return png(figure, dpi=180), f"{len(rows)} epochs written", words


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows with a finite loss; half a row at the end, of a run that is writing, is left for the next time."""
    lines, rows = path.read_text(encoding="utf-8", errors="replace").splitlines(), []
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_object(line)
            losses = [float(value) for key, value in row.items() if key.startswith("loss")]
        except (ValueError, TypeError):
            if number == len(lines):
                break
            raise InputError(f"{path}: line {number} is no row of metrics", "give the metrics.jsonl of a run") from None
        if losses and all(map(math.isfinite, losses)):
            rows.append(row)
    if not rows:
        raise InputError(f"{path}: no epoch with a finite loss yet", "wait for the first epoch, then read again")
    return rows
