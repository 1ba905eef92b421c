"""What every archive offers, whatever lies on disk: patches by index, labels, splits. No torch, no resampling here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import ClassVar

import numpy as np

from fusmae_lite.core.errors import InputError, printable

SPLITS = ("train", "val", "test")
#: A file of this name in an archive's folder says that no satellite took its images.
SYNTHETIC = "SYNTHETIC.txt"


def is_synthetic(root: Path) -> bool:
    """Whether a folder carries the mark of a synthetic archive."""
    return (root / SYNTHETIC).is_file()


@dataclass(frozen=True)
class Patch:
    """One place seen by each sensor, as it lies on disk: native resolution, physical units, nothing resampled."""

    name: str  # BigEarthNet: the Sentinel-2 name
    bands: dict[str, dict[str, np.ndarray]]  # modality -> band -> (h, w): {"s1": {"VV": (120, 120) float32 dB, ...}}
    labels: tuple[str, ...]  # of the archive's classes; may be empty
    meta: dict[str, str]  # split, country, season, s1_name, tile, acquisition_date
    crs: str | None = None  # "EPSG:32633"; None where the file has none
    bounds: tuple[float, float, float, float] | None = None  # left, bottom, right, top in the units of crs


class Archive(ABC):
    """A folder of patches. Opening one reads names and lists, never pixels.

    A new format is a subclass in a sibling module, listed in ``FORMATS`` of ``archives/__init__.py``. It sets `kind`,
    `layout` and `classes`, fills `root` and `names` in ``__init__``, implements the abstract methods, and passes what
    it reads through the checks of :mod:`~fusmae_lite.data.archives.pixels`. ``tests/data/test_archives.py`` tests it.
    """

    kind: ClassVar[str]  # what messages call the format
    layout: ClassVar[str]  # what `matches` looks for, in words
    root: Path
    names: Sequence[str]  # the position of a patch is its index everywhere else
    classes: tuple[str, ...]  # label names, in the order of the columns of `labels`
    left_out: tuple[tuple[str, str], ...] = ()  # (name, reason) of what was not taken, with partial=True
    store: str | None = None  # the one file that holds all pairs, if there is one

    @abstractmethod
    def __init__(self, root: Path | str, *, partial: bool = False, snow_and_clouds: bool = False) -> None: ...

    @classmethod
    @abstractmethod
    def matches(cls, root: Path) -> bool:
        """Whether the folder looks like this format. Cheap: looks at names, opens nothing."""

    @abstractmethod
    def read(self, index: int, modalities: Sequence[str] | None = None) -> Patch:
        """Decode one patch, or only the given modalities of it. Raises InputError for damaged files."""

    @property
    @abstractmethod
    def labels(self) -> np.ndarray:
        """(len, n_classes) bool, columns in the order of `classes`. May read one small file per patch, once."""

    @abstractmethod
    def meta(self, index: int) -> dict[str, str]:
        """What is known of a patch without opening its files; ``"split"`` is ``""`` outside every split."""

    @abstractmethod
    def keys(self, index: int) -> dict[str, str]:
        """Modality -> the name its bands go by: the stem of its files, and its key in an LMDB."""

    def files(self, index: int, modality: str) -> list[str]:
        """Paths that :meth:`read` opens for one sensor of a pair, labels included; [] where pairs share files."""
        return []

    def stored_crc32(self, modality: str) -> np.ndarray | None:
        """(len,) uint32, a checksum of each pair's pixels in one sensor, where they are stored beside them."""
        return None

    @cached_property
    def splits(self) -> np.ndarray:
        """(len,) of ``"train"``, ``"val"``, ``"test"`` or ``""``."""
        return np.array([self.meta(index)["split"] for index in range(len(self))], dtype="<U5")

    @property
    def kind_of_pairs(self) -> str:
        """``"pairs"`` or ``"synthetic pairs"``, so that nobody takes one for the other."""
        return "synthetic pairs" if is_synthetic(self.root) else "pairs"

    def keep(self, rows: np.ndarray) -> None:
        """Forget all pairs but those of a (len,) bool mask. A format that holds more by row than names extends it."""
        self.names = tuple(compress(self.names, rows))
        for cached in ("splits", "labels"):
            self.__dict__.pop(cached, None)

    def leave_out(self, reasons: Mapping[int, str]) -> None:
        """Forget these rows and note the reasons in `left_out`."""
        self.left_out += tuple((printable(self.names[row]), printable(why)) for row, why in reasons.items())
        rows = np.ones(len(self), dtype=bool)
        rows[list(reasons)] = False
        self.keep(rows)

    @property
    def said_left_out(self) -> str:
        """How many were left out, and the first reason; empty where none was."""
        return f"{len(self.left_out)} left out, first {self.left_out[0][1]}" if self.left_out else ""

    def __len__(self) -> int:
        return len(self.names)

    def split(self, name: str) -> np.ndarray:
        """Indices, int64, ascending, of the patches of ``"train"``, ``"val"``, ``"test"`` or ``"all"``."""
        if name == "all":
            return np.arange(len(self))
        if name not in SPLITS:
            raise InputError(f"unknown split {name!r}", f"choose one of {', '.join(SPLITS)}, all")
        if not (self.splits != "").any():
            raise InputError(
                f"{self.root}: no split lists found", "add splits/{train,val,test}.csv, or use split 'all'"
            )
        return np.flatnonzero(self.splits == name)

    def describe(self) -> str:
        """A few lines for people: format, folder, pairs per split, patches without a label, most frequent classes."""
        splits = Counter(self.splits.tolist())
        sizes = ", ".join(f"{splits[name]} {name or 'in no split'}" for name in (*SPLITS, "") if splits[name])
        counts = self.labels.sum(axis=0)
        common = [f"{self.classes[c]} {counts[c]}" for c in np.argsort(-counts, kind="stable")[:3]]
        lines = (
            f"{self.kind} in {self.root}",
            f"{len(self)} {self.kind_of_pairs}: {sizes}",
            f"{int((counts > 0).sum())} of {len(self.classes)} classes occur; most frequent: {', '.join(common)}",
            f"{int((~self.labels.any(axis=1)).sum())} pairs carry no label (legal for pretraining)",
        )
        return "\n".join(lines)
