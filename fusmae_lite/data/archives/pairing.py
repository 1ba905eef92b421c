"""Rows against what lies on disk: every pair is one place and has everything it needs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from itertools import compress
from pathlib import Path

import numpy as np

from fusmae_lite.core.errors import InputError, printable
from fusmae_lite.data.archives.base import Archive
from fusmae_lite.data.archives.metadata import SNOW, Metadata, read_names
from fusmae_lite.data.archives.names import apart

#: Modality -> name of each row; modality -> names on disk.
Columns = Mapping[str, Sequence[str]]
OnDisk = Mapping[str, set[str]]
COMPLETE = "complete the download, correct the lists, or open with partial=True to use the whole pairs only"
#: rico-hdl also writes the land-cover map of a patch; nothing here reads it.
_MAP = "_reference_map"


class PairArchive(Archive):
    """Pairs whose files or keys go by names."""

    columns: dict[str, Sequence[str]]  # modality -> name of each pair's files, or key, in that modality

    def keep(self, rows: np.ndarray) -> None:
        """See :class:`Archive`."""
        super().keep(rows)
        self.columns = {modality: tuple(compress(names, rows)) for modality, names in self.columns.items()}

    def keys(self, index: int) -> dict[str, str]:
        """Names of the pair's files in each modality, or its keys."""
        return {modality: names[index] for modality, names in self.columns.items()}

    def _chosen(self, index: int, modalities: Sequence[str] | None) -> dict[str, str]:
        """The :meth:`keys` of these modalities, None for all; InputError for an unknown one."""
        keys = self.keys(index)
        for modality in modalities or ():
            if modality not in keys:
                raise InputError(f"{self.kind} has no modality {modality!r}", f"choose from {', '.join(keys)}")
        return {modality: keys[modality] for modality in modalities or keys}

    @abstractmethod
    def _path(self, modality: str, name: str) -> Path | str:
        """The file, folder or key of a name."""

    def _join(self, columns: Columns, on_disk: OnDisk, where: object, partial: bool) -> None:
        """Take the rows of `names` and `columns` that are one place and have everything they need.

        `where` is the table or lists that hold the rows. With `partial` other rows are left out, else the first of
        them is refused.
        """
        self.columns = dict(columns)
        elsewhere = {
            row: f"{where}: {columns['s2'][row]} is paired with {columns['s1'][row]}, taken {what}"
            for row, what in (apart(columns["s1"], columns["s2"]) if {"s1", "s2"} <= columns.keys() else {}).items()
        }
        _refuse(elsewhere.values(), "correct the S1 names: both of a pair have one tile, column and row", partial)
        # sound archives are the rule and half a million rows long: no set is built without need
        missing = {m: set(names) - on_disk[m] for m, names in columns.items() if not on_disk[m].issuperset(names)}
        rows = {row for m in missing for row, name in enumerate(columns[m]) if name in missing[m]}
        incomplete = {row: self._lacks(row, missing) for row in sorted(rows)}
        _refuse(incomplete.values(), COMPLETE, partial)
        if reasons := incomplete | {row: why for row, why in elsewhere.items() if row not in incomplete}:
            self.leave_out(reasons)

    def _lacks(self, row: int, missing: Mapping[str, set[str]]) -> str:
        keys = self.keys(row)
        absent = [modality for modality, name in keys.items() if name in missing.get(modality, ())]
        present = [self._path(modality, name) for modality, name in keys.items() if modality not in absent]
        lacks = " and ".join(f"{modality.upper()} {self._path(modality, keys[modality])}" for modality in absent)
        partner = f", partner of {present[-1]}" if present else ""
        return f"{lacks} {'is' if len(absent) == 1 else 'are'} missing{partner}"

    def _refuse_strays(
        self, columns: Columns, on_disk: OnDisk, reason: str, cure: str, partial: bool, spare: Path | None = None
    ) -> None:
        """Leave out, with `partial`, or refuse what lies on disk without a row, here or in the `spare` table."""
        in_rows = set().union(*columns.values())
        strays = {name: modality for modality, names in on_disk.items() for name in names - in_rows}
        spared = read_names(spare) if strays and spare else set()
        names = sorted(name for name in strays.keys() - spared if not name.endswith(_MAP))
        reasons = {name: f"{self._path(strays[name], name)} {reason}" for name in names}
        _refuse(reasons.values(), cure, partial)
        self.left_out += tuple((printable(name), printable(why)) for name, why in reasons.items())


class TableArchive(PairArchive):
    """Pairs whose labels, splits and names are columns of a `table`."""

    table: Metadata

    @property
    def labels(self) -> np.ndarray:
        """(len, n_classes) bool in the order of `classes`, from the table."""
        return self.table.labels

    @cached_property
    def splits(self) -> np.ndarray:  # type: ignore[override]
        """(len,) of ``"train"``, ``"val"``, ``"test"`` or ``""``, from the table."""
        return self.table.splits

    def keep(self, rows: np.ndarray) -> None:
        """See :class:`Archive`."""
        super().keep(rows)
        self.table = self.table.take(rows)

    def _labels_of(self, index: int) -> tuple[str, ...]:
        """Names of one pair's classes."""
        return tuple(compress(self.classes, self.labels[index]))

    def _take(
        self, table: Metadata, columns: Columns, on_disk: OnDisk, folder: Path, reason: str, partial: bool
    ) -> None:
        """The rows of a table of `folder` that are whole; files of the second table may lie there without a row."""
        self.table, self.names = table, table.names
        self._join(columns, on_disk, table.where, partial)
        spare, cure = folder / SNOW, "download the tables again, remove the files"
        if not spare.is_file():
            spare, cure = None, f"if it is one of the snowy or cloudy patches, put {SNOW} there"
        cure += ", or open with partial=True to leave it out"
        self._refuse_strays(columns, on_disk, reason, cure, partial, spare)
        if not self.names:
            raise InputError(
                f"{self.root} holds no patch that its table knows", "complete the archive, or encode it again"
            )


def _refuse(reasons: Collection[str], cure: str, partial: bool) -> None:
    """InputError for the first of the reasons, unless `partial`."""
    if reasons and not partial:
        more = f" (and {len(reasons) - 1} more like it)" if len(reasons) > 1 else ""
        raise InputError(next(iter(reasons)) + more, cure)
