"""From the scores that tracks kept to cells of a table: means over seeds, intervals over patches and seeds, gaps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import read_object
from fusmae_lite.evaluation.metrics import average_precision, micro_ap, redraw_values
from fusmae_lite.evaluation.single_label import SingleLabelScores, class_numbers, single_label_scores
from fusmae_lite.evaluation.transfer import accuracy
from fusmae_lite.systems.weights import read_tensors

Array = NDArray[np.floating]
Score = Callable[[NDArray[np.bool_], Array], float]


class Cell:
    """One cell of a table: a score of each seed, and on demand the interval of their mean.

    Args:
        labels: (test patches, classes).
        logits: (seeds, test patches, classes).
        score: of labels and one seed's logits.
        train: patches trained on.
        draws: redraws of patches and seeds for the interval.
    """

    def __init__(self, labels: NDArray[np.bool_], logits: Array, score: Score, train: int, draws: int) -> None:
        self._labels, self._logits, self._score, self._draws = labels, logits, score, draws
        self.train, self.test, self.seeds = train, len(labels), len(logits)
        self.each = np.array([score(labels, one) for one in logits])

    @property
    def mean(self) -> float:
        """Of the seeds' scores on the test set as it is."""
        return float(self.each.mean())

    @property
    def deviation(self) -> float:
        """Of the seeds' scores; NaN for one seed, which no table prints."""
        return float(self.each.std(ddof=1)) if self.seeds > 1 else float("nan")

    @cached_property
    def redraws(self) -> Array:
        """(draws,) means over redrawn seeds on redrawn patches, the same ones for every system."""
        return redraw_values(self._labels, self._logits, self._score, self._draws)[1:]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the redraws lie between these."""
        low, high = np.quantile(self.redraws, [0.025, 0.975])
        return float(low), float(high)

    def minus(self, other: Cell) -> tuple[float, float, float]:
        """This cell minus another of the same patches and seeds: difference, and its 95 % interval, paired."""
        if (self.test, self.seeds) != (other.test, other.seeds):
            raise InputError(
                f"cells of {self.test} patches and {self.seeds} seeds, and of {other.test} and {other.seeds}",
                "compare systems on the same patches with the same seeds",
            )
        gaps = self.redraws - other.redraws
        return self.mean - other.mean, *(float(v) for v in np.quantile(gaps, [0.025, 0.975]))


def verdict(low: float, high: float) -> str:
    """``better`` or ``worse`` only where the interval of a difference excludes 0."""
    return "better" if low > 0 else "worse" if high < 0 else "not told apart"


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
        self.facts = [
            read_object(path, "remove it, and its track runs again") for path in sorted(folder.glob(f"{data}-*.json"))
        ]
        if not self.facts:
            raise InputError(f"{folder} holds no finished track on {data}", "run `fusmae results` first")
        self.keys = list(dict.fromkeys(fact["key"] for fact in self.facts))

    def of(self, key: str) -> list[dict]:
        """Facts of a system's tracks, by seed."""
        return sorted((fact for fact in self.facts if fact["key"] == key), key=lambda fact: fact["seed"])

    def logits(self, key: str, cell: str) -> Array | None:
        """(seeds, patches, classes) of a cell; None if the system has none."""
        found = [t[cell] for t in map(self._tensors, self._stems(key)) if cell in t]
        return np.stack(found) if found else None

    def labels(self, which: str = "labels") -> NDArray[np.bool_]:
        """(test patches, classes) that the scores are of; ``land cover`` for SEN12MS."""
        tensors = (self._tensors(stem) for fact in self.facts for stem in self._stems(fact["key"]))
        found = next((t[which] for t in tensors if which in t), None)
        if found is None:
            raise InputError(f"{self.folder}: no track on {self.data} kept {which}", "remove its files and run again")
        return found > 0

    def classes(self, which: str = "labels") -> list[str]:
        """Names of the columns."""
        return next(fact["classes"][which] for fact in self.facts if which in fact["classes"])

    def count(self, key: str, cell: str) -> tuple[int, int]:
        """Patches trained on and scored."""
        return tuple(next(fact["counts"][cell] for fact in self.of(key) if cell in fact["counts"]))

    def refusal(self, key: str, cell: str) -> str:
        """Why a cell could not be computed, or ''."""
        return next((fact["refused"][cell] for fact in self.of(key) if cell in fact["refused"]), "")

    @cache  # noqa: B019 - as long-lived as the few objects of one report
    def micro(self, key: str, cell: str, columns: tuple[int, ...] | None = None) -> Cell | None:
        """Micro average precision, over some classes or all."""
        labels, chosen = self.labels(), list(columns) if columns is not None else slice(None)
        occurs = labels[:, chosen].any(axis=0)  # classes without a positive are left out of everything
        return self._cell(
            key, cell, labels[:, chosen][:, occurs], micro_ap, lambda logits: logits[..., chosen][..., occurs]
        )

    def macro(self, key: str, cell: str) -> tuple[float, float] | None:
        """Mean and deviation over seeds of macro average precision; see :func:`average_precision`."""
        each = self.per_class(key, cell)
        if each is None:
            return None
        values = np.nanmean(each, axis=1)
        return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")

    @cache  # noqa: B019
    def per_class(self, key: str, cell: str) -> Array | None:
        """(seeds, classes) average precision; NaN for a class without a positive."""
        logits = self.logits(key, cell)
        labels = self.labels()
        return None if logits is None else np.array([average_precision(labels, s).per_class for s in logits])

    def accuracy(self, key: str, cell: str) -> Cell | None:
        """Top-1 accuracy of the transfer."""
        return self._cell(key, cell, self.labels("land cover"), accuracy, lambda logits: logits)

    def single_label(self, key: str, cell: str) -> list[SingleLabelScores] | None:
        """The columns of Table 2, a seed each."""
        logits = self.logits(key, cell)
        if logits is None:
            return None
        truth, classes = class_numbers(self.labels("land cover")), self.classes("land cover")
        return [single_label_scores(truth, seed, classes) for seed in logits]

    def prior(self) -> float:
        """Micro average precision of the class frequencies of all training labels."""
        first = next(t for fact in self.facts for t in map(self._tensors, self._stems(fact["key"])))
        labels = self.labels()
        return average_precision(labels, np.broadcast_to(first["training labels"].mean(axis=0), labels.shape)).micro

    def _cell(
        self, key: str, cell: str, labels: NDArray[np.bool_], score: Score, pick: Callable[[Array], Array]
    ) -> Cell | None:
        logits = self.logits(key, cell)
        return None if logits is None else Cell(labels, pick(logits), score, self.count(key, cell)[0], self.draws)

    def _stems(self, key: str) -> list[str]:
        return [f"{self.data}-{key}-seed{fact['seed']}" for fact in self.of(key)]

    @cache  # noqa: B019
    def _tensors(self, stem: str) -> dict[str, Array]:
        return {name: tensor.numpy() for name, tensor in read_tensors(self.folder / f"{stem}.safetensors")[0].items()}
