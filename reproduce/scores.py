"""From the scores that tracks kept to cells of a table: means over seeds, intervals over patches and seeds, gaps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import read_object
from fusmae_lite.evaluation.metrics import Comparison, accuracy, average_precision, interval, micro_ap, redraw_values
from fusmae_lite.evaluation.single_label import SingleLabelScores, class_numbers, single_label_scores
from fusmae_lite.systems.weights import read_tensors

Array = NDArray[np.floating]
Labels = NDArray[np.bool_]


def cell_key(protocol: str, sensors: str, fraction: float = 1.0, variant: str = "") -> str:
    """Name of a cell among the scores of a track, for example ``linear|S1+S2|0.01|``."""
    return f"{protocol}|{sensors}|{fraction:g}|{variant}"


def deviation(values: Array) -> float:
    """Standard deviation over seeds; NaN for one seed, which no table prints."""
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


class Cell:
    """One cell of a table: a score of each seed, and on demand the interval of their mean.

    Args:
        labels: (test patches, classes).
        logits: (seeds, test patches, classes).
        score: of labels and one seed's logits.
        train: patches trained on.
        draws: redraws of patches and seeds for the interval, the same ones for every system.
    """

    def __init__(
        self, labels: Labels, logits: Array, score: Callable[[Labels, Array], float], train: int, draws: int
    ) -> None:
        self._labels, self._logits, self._score, self._draws = labels, logits, score, draws
        self.train, self.test, self.seeds = train, len(labels), len(logits)
        self.each = np.array([score(labels, one) for one in logits])
        self.mean = float(self.each.mean())

    @cached_property
    def redraws(self) -> Array:
        """(1 + draws,) means over seeds: of the test set, then of redrawn patches and seeds."""
        return redraw_values(self._labels, self._logits, self._score, self._draws)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the redraws lie between these."""
        return interval(self.redraws)

    def minus(self, other: Cell) -> Comparison:
        """This cell minus another of the same patches and seeds, paired."""
        if (self.test, self.seeds) != (other.test, other.seeds):
            what = f"cells of {self.test} patches and {self.seeds} seeds, and of {other.test} and {other.seeds}"
            raise InputError(what, "compare systems on the same patches with the same seeds")
        return Comparison.of(self.redraws, other.redraws)


class Scores:
    """The finished tracks of one archive.

    Args:
        folder: where :func:`~reproduce.track.run_track` wrote.
        data: short name of the archive.
        redraws: for intervals.

    Raises:
        InputError: no track of that archive is finished.
    """

    def __init__(self, folder: Path, data: str, redraws: int = 300) -> None:
        self.folder, self.data, self.draws = folder, data, redraws
        paths = sorted(folder.glob(f"{data}-*.json"))
        self.facts = [read_object(path, "remove it, and its track runs again") for path in paths]
        if not self.facts:
            raise InputError(f"{folder} holds no finished track on {data}", "run `fusmae results` first")
        self.keys = list(dict.fromkeys(fact["key"] for fact in self.facts))

    def of(self, key: str) -> list[dict]:
        """Facts of a system's tracks, by seed."""
        return sorted((fact for fact in self.facts if fact["key"] == key), key=lambda fact: fact["seed"])

    def logits(self, key: str, cell: str) -> Array | None:
        """(seeds, patches, classes) of a cell; None if the system has none."""
        kept = [tensors[cell] for fact in self.of(key) if cell in (tensors := self._tensors(key, fact["seed"]))]
        return np.stack(kept) if kept else None

    def labels(self, which: str = "labels") -> Labels:
        """(test patches, classes) that the scores are of; ``land cover`` for SEN12MS."""
        return self._first(which) > 0

    def classes(self, which: str = "labels") -> list[str]:
        """Names of the columns."""
        return next(fact["classes"][which] for fact in self.facts if which in fact["classes"])

    @cache  # noqa: B019 - as long-lived as the few objects of one report
    def micro(self, key: str, cell: str, columns: tuple[int, ...] | None = None) -> Cell | None:
        """Micro average precision, over some classes or all."""
        labels, logits = self.labels(), self.logits(key, cell)
        if logits is None:
            return None
        chosen = np.arange(labels.shape[1]) if columns is None else np.array(columns)
        chosen = chosen[labels[:, chosen].any(axis=0)]  # classes without a positive are left out of everything
        return self._cell(key, cell, labels[:, chosen], logits[..., chosen], micro_ap)

    def macro(self, key: str, cell: str) -> Array | None:
        """(seeds,) macro average precision, see :func:`average_precision`."""
        each = self.per_class(key, cell)
        return None if each is None else np.nanmean(each, axis=1)

    @cache  # noqa: B019
    def per_class(self, key: str, cell: str) -> Array | None:
        """(seeds, classes) average precision; NaN for a class without a positive."""
        logits, labels = self.logits(key, cell), self.labels()
        return None if logits is None else np.array([average_precision(labels, s).per_class for s in logits])

    def accuracy(self, key: str, cell: str) -> Cell | None:
        """Top-1 accuracy of the transfer."""
        logits = self.logits(key, cell)
        return None if logits is None else self._cell(key, cell, self.labels("land cover"), logits, accuracy)

    def single_label(self, key: str, cell: str) -> list[SingleLabelScores] | None:
        """The columns of Table 2, a seed each."""
        logits = self.logits(key, cell)
        if logits is None:
            return None
        truth, classes = class_numbers(self.labels("land cover")), self.classes("land cover")
        return [single_label_scores(truth, seed, classes) for seed in logits]

    def prior(self) -> float:
        """Micro average precision of the class frequencies of all training labels."""
        labels = self.labels()
        frequencies = self._first("training labels").mean(axis=0)
        return average_precision(labels, np.broadcast_to(frequencies, labels.shape)).micro

    def _cell(
        self, key: str, cell: str, labels: Labels, logits: Array, score: Callable[[Labels, Array], float]
    ) -> Cell:
        train = next(fact["counts"][cell][0] for fact in self.of(key) if cell in fact["counts"])
        return Cell(labels, logits, score, train, self.draws)

    def _first(self, name: str) -> Array:
        """A tensor of the first track that kept it."""
        for fact in self.facts:
            if name in (tensors := self._tensors(fact["key"], fact["seed"])):
                return tensors[name]
        raise InputError(f"{self.folder}: no track on {self.data} kept {name}", "remove its files and run again")

    @cache  # noqa: B019
    def _tensors(self, key: str, seed: int) -> dict[str, Array]:
        path = self.folder / f"{self.data}-{key}-seed{seed}.safetensors"
        return {name: tensor.numpy() for name, tensor in read_tensors(path)[0].items()}
