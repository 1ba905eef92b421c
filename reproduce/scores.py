"""The long table: every score of every track a row, with the logits behind it, so that differences can be paired."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import read_object
from fusmae_lite.evaluation.metrics import Comparison, interval, redraw_scores
from fusmae_lite.systems.tensors import read_tensors

Where = Mapping[str, Any]


class Scores:
    """The finished tracks of a run.

    Args:
        folder: where :func:`~reproduce.track.run_track` wrote.
        redraws: of test pairs and seeds, the same ones for every system.

    Raises:
        InputError: no track is finished.
    """

    def __init__(self, folder: Path, redraws: int = 300) -> None:
        self.redraws = redraws
        paths = sorted(folder.glob("*.json"))
        self.facts = {path: read_object(path, "remove it, and its track runs again") for path in paths}
        if not self.facts:
            raise InputError(f"{folder} holds no finished track", "run `fusmae results` first")
        rows = [{**row, "path": path} for path, fact in self.facts.items() for row in fact["rows"]]
        self.table = pd.DataFrame(rows)

    def where(self, **facts: Any) -> pd.DataFrame:
        """Rows with these values, by seed."""
        rows = self.table
        for column, value in facts.items():
            rows = rows[rows[column] == value]
        return rows.sort_values("seed")

    @cached_property
    def main(self) -> str:
        """The archive of the main tables: scenes, or one that was given."""
        return "given" if (self.table["data"] == "given").any() else "scenes"

    def cell(self, **facts: Any) -> Cell | None:
        """All seeds of one cell; None if there is none."""
        return self._cell(tuple(sorted(facts.items())))

    @cache  # noqa: B019 - as long-lived as the few objects of one report
    def _cell(self, facts: tuple[tuple[str, Any], ...]) -> Cell | None:
        rows = self.where(**dict(facts))
        return Cell(self, rows, dict(facts)) if len(rows) else None

    @cache  # noqa: B019
    def tensors(self, path: Path) -> dict[str, NDArray]:
        """Test labels and logits of one track."""
        return {name: tensor.numpy() for name, tensor in read_tensors(path.with_suffix(".safetensors"))[0].items()}


class Cell:
    """One cell of a table: a score of each seed, and on demand the interval of their mean."""

    def __init__(self, scores: Scores, rows: pd.DataFrame, facts: Where) -> None:
        if rows["seed"].duplicated().any():
            raise ValueError(f"{facts} name more than one cell")
        self._scores, self.rows = scores, rows
        self.each, self.seeds = rows["micro"].to_numpy(), tuple(rows["seed"])
        self.mean = float(self.each.mean())

    def redraws(self, columns: tuple[int, ...] | None = None) -> NDArray[np.float64]:
        """(1 + draws,) means over seeds: of the test set, then of redrawn pairs and seeds; of some classes or all."""
        if not hasattr(self, "_redraws"):
            self._redraws: dict[Any, NDArray] = {}
        if columns not in self._redraws:
            kept = [self._scores.tensors(path) for path in self.rows["path"]]
            chosen = slice(None) if columns is None else list(columns)
            labels = kept[0]["labels"][:, chosen] > 0
            logits = np.stack([one[cell][:, chosen] for one, cell in zip(kept, self.rows["cell"], strict=True)])
            self._redraws[columns] = redraw_scores(labels, logits, "micro", self._scores.redraws)
        return self._redraws[columns]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the redraws lie between these."""
        return interval(self.redraws())

    def minus(self, other: Cell, columns: tuple[int, ...] | None = None) -> Comparison:
        """This cell minus another of the same pairs and seeds, paired by both."""
        if self.seeds != other.seeds:
            what = f"cells of seeds {self.seeds} and {other.seeds}"
            raise InputError(what, "compare systems with the same seeds")
        return Comparison.of(self.redraws(columns), other.redraws(columns))
