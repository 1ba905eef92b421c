"""What every archive offers, whatever lies on disk: patches by index, labels, splits. No torch, no resampling here."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import compress
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from fusmae_lite.core.errors import InputError, printable
from fusmae_lite.data.archives.names import apart

SPLITS = ("train", "val", "test")
#: A file of this name in an archive's folder says that no satellite took its images.
SYNTHETIC = "SYNTHETIC.txt"
#: Facts of a patch: texts and, for the flags of a table such as contains_seasonal_snow, truth values.
Meta = dict[str, str | bool]
COMPLETE = "complete the download, correct the lists, or open with partial=True to use the whole pairs only"


def is_synthetic(root: Path) -> bool:
    """Whether a folder carries the mark of a synthetic archive."""
    return (root / SYNTHETIC).is_file()


@dataclass(frozen=True)
class Patch:
    """One place seen by each sensor, as it lies on disk: native resolution, physical units, nothing resampled."""

    name: str  # BigEarthNet: the Sentinel-2 name
    bands: dict[str, dict[str, np.ndarray]]  # modality -> band -> (h, w): {"s1": {"VV": (120, 120) float32 dB, ...}}
    labels: tuple[str, ...]  # of the archive's classes; may be empty
    meta: Meta  # split, country, season, s1_name, tile, acquisition_date
    crs: str | None = None  # "EPSG:32633"; None where the file has none
    bounds: tuple[float, float, float, float] | None = None  # left, bottom, right, top in the units of crs


class Archive(ABC):
    """A folder of patches. Opening one reads names and lists, never pixels.

    A new format is a subclass in a sibling module, listed in ``FORMATS`` of ``archives/__init__.py``. It sets `kind`,
    `layout` and `classes`, fills `root`, `names`, `columns`, `splits` and `rest` in ``__init__``, where :meth:`_join`
    refuses or leaves out rows without their files, and implements the abstract methods. ``read`` asks :meth:`_chosen`
    for the names to read, and passes bands, in the order of ``get_modality(name).bands``, to ``check_form`` and
    ``check_pixels`` of :mod:`~fusmae_lite.data.archives.pixels`; :meth:`files` lets pairs be known by times and sizes.
    """

    kind: ClassVar[str]  # what messages call the format
    layout: ClassVar[str]  # what `matches` looks for, in words
    root: Path
    names: Sequence[str]  # the position of a patch is its index everywhere else
    columns: Mapping[str, Sequence[str]] = {}  # modality -> name of each pair's files, or key, in that modality
    rest: Mapping[str, pa.Array] = {}  # further facts of each pair, a column each
    untold: Collection[str] = ()  # those of them that are no facts of a patch
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

    def meta(self, index: int) -> Meta:
        """Facts of a patch that need no opening of its files; ``"split"`` is ``""`` outside every split."""
        row = ((name, column[index].as_py()) for name, column in self.rest.items() if name not in self.untold)
        told = {name: value if isinstance(value, bool) else str(value) for name, value in row if value is not None}
        return {"split": str(self.splits[index]), **told}

    def fact(self, name: str) -> np.ndarray:
        """(len,) text: one fact of every pair, as :meth:`meta` tells it; "" where it is not told."""
        column = self.rest[name].to_pylist() if name in self.rest else [None] * len(self)
        return np.array(["" if value is None else str(value) for value in column], dtype=str)

    def keys(self, index: int) -> dict[str, str]:
        """Modality -> the name its bands go by, each its own: the stem of its files, and its key in an LMDB."""
        return {modality: names[index] for modality, names in self.columns.items()}

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

    def remember(self) -> None:
        """Keep what :meth:`read` decodes in memory, 0.3 MB a pair: for few pairs that are read again and again."""
        read = cache(self.read)
        self.read = lambda index, modalities=None: read(int(index), modalities and tuple(modalities))

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "read"}  # each process remembers its own

    @property
    def kind_of_pairs(self) -> str:
        """``"pairs"`` or ``"synthetic pairs"``, so that neither passes for the other."""
        return "synthetic pairs" if is_synthetic(self.root) else "pairs"

    def keep(self, rows: np.ndarray) -> None:
        """Forget all pairs but those of a (len,) bool mask."""
        self.names = tuple(compress(self.names, rows))
        self.columns = {modality: tuple(compress(names, rows)) for modality, names in self.columns.items()}
        self.rest = {name: column.filter(pa.array(rows)) for name, column in self.rest.items()}
        for known in {"splits", "labels"} & self.__dict__.keys():
            setattr(self, known, getattr(self, known)[rows])

    def leave_out(self, reasons: Mapping[int, str], cure: str = "", partial: bool = True) -> None:
        """Forget these rows and note the reasons in `left_out`, or, unless `partial`, refuse the archive for them."""
        self._note({self.names[row]: why for row, why in reasons.items()}, cure, partial)
        if reasons:
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
            cure = "add splits/{train,val,test}.csv, or use split 'all'"
            raise InputError(f"{self.root}: no split lists found", cure)
        return np.flatnonzero(self.splits == name)

    def describe(self) -> str:
        """A few lines for people: format, folder, pairs per split, patches without a label, most frequent classes."""
        splits = Counter(self.splits.tolist())
        sizes = ", ".join(f"{splits[name]} {name or 'in no split'}" for name in (*SPLITS, "") if splits[name])
        counts = self.labels.sum(axis=0)
        common = [f"{self.classes[c]} {counts[c]}" for c in np.argsort(-counts, kind="stable")[:3]]
        return (
            f"{self.kind} in {self.root}\n"
            f"{len(self)} {self.kind_of_pairs}: {sizes}\n"
            f"{int((counts > 0).sum())} of {len(self.classes)} classes occur; most frequent: {', '.join(common)}\n"
            f"{int((~self.labels.any(axis=1)).sum())} pairs carry no label (legal for pretraining)"
        )

    def _path(self, modality: str, name: str) -> Path | str:
        """The file, folder or key of a name."""
        return f"{self.store or self.root}: {name}"

    def _chosen(self, index: int, modalities: Sequence[str] | None) -> dict[str, str]:
        """The :meth:`keys` of these modalities, None for all; InputError for an unknown one."""
        keys = self.keys(index)
        for modality in modalities or ():
            if modality not in keys:
                raise InputError(f"{self.kind} has no modality {modality!r}", f"choose from {', '.join(keys)}")
        return {modality: keys[modality] for modality in modalities or keys}

    def _join(self, on_disk: Mapping[str, set[str]], where: object, partial: bool) -> None:
        """Refuse, or leave out with `partial`, rows of `columns` that are two places or lack a name `on_disk`.

        `where` is the table or the lists that hold the rows.
        """
        s1, s2 = self.columns.get("s1"), self.columns.get("s2")
        different = apart(s1, s2) if s1 and s2 else {}
        elsewhere = {r: f"{where}: {s2[r]} is paired with {s1[r]}, taken {what}" for r, what in different.items()}
        self.leave_out(elsewhere, "correct the S1 names: both of a pair have one tile, column and row", partial)
        missing = {modality: set(names) - on_disk[modality] for modality, names in self.columns.items()}
        lost = {row for m in missing if missing[m] for row, n in enumerate(self.columns[m]) if n in missing[m]}
        self.leave_out({row: self._lacks(row, missing) for row in sorted(lost)}, COMPLETE, partial)

    def _lacks(self, row: int, missing: Mapping[str, set[str]]) -> str:
        keys = self.keys(row)
        absent = [f"{m.upper()} {self._path(m, name)}" for m, name in keys.items() if name in missing[m]]
        present = [self._path(m, name) for m, name in keys.items() if name not in missing[m]]
        partner = f", partner of {present[-1]}" if present else ""
        return f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing{partner}"

    def _refuse_strays(self, strays: Mapping[str, str], reason: str, cure: str, partial: bool) -> None:
        """Refuse, or leave out with `partial`, what lies on disk without a row: name -> modality."""
        self._note({name: f"{self._path(strays[name], name)} {reason}" for name in sorted(strays)}, cure, partial)

    def _note(self, reasons: Mapping[str, str], cure: str, partial: bool) -> None:
        if reasons and not partial:
            more = f" (and {len(reasons) - 1} more like it)" if len(reasons) > 1 else ""
            raise InputError(next(iter(reasons.values())) + more, cure)
        self.left_out += tuple((printable(name), printable(why)) for name, why in reasons.items())


def without_row(columns: Mapping[str, Sequence[str]], on_disk: Mapping[str, set[str]]) -> dict[str, str]:
    """Name on disk that no column has -> its modality."""
    in_rows = set().union(*columns.values())
    return {name: modality for modality, names in on_disk.items() for name in names - in_rows}
