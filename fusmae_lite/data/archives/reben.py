"""reBEN (BigEarthNet v2): one GeoTIFF per band, patches gathered in a folder per acquisition, one metadata table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import ClassVar

import numpy as np

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives.base import Patch
from fusmae_lite.data.archives.bigearthnet_v1 import refuse_both_versions
from fusmae_lite.data.archives.geotiff import as_fields, read_bands, refuse_offset
from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.archives.metadata import METADATA, SNOW, Metadata, TableArchive, read_metadata, read_names
from fusmae_lite.data.archives.names import check_s1_names, check_s2_names, place_and_day, version
from fusmae_lite.data.archives.pairing import match, subfolders
from fusmae_lite.data.archives.pixels import first_with_offset

FOLDERS = {"s1": "BigEarthNet-S1", "s2": "BigEarthNet-S2"}
#: Trailing fields of a patch name that its acquisition's folder does not have.
_OWN_FIELDS = {"s1": 3, "s2": 2}


class ReBEN(TableArchive):
    """reBEN in its own layout; see :class:`Archive`.

    ::

        root/BigEarthNet-S2/<acquisition>/<s2>/<s2>_<band>.tif     uint16, reflectance x 10,000; 120, 60 or 20 px
        root/BigEarthNet-S1/<acquisition>/<s1>/<s1>_{VV,VH}.tif    float32 dB, 120 px
        root/metadata.parquet                                      patch_id, labels, split, s1_name and more
        root/metadata_for_patches_with_snow_cloud_or_shadow.parquet    optional

    An acquisition is the patch name less its last two fields (S2) or three (S1). The table decides which patches
    belong to the archive. Opening reads the table and the folders' names. Patches of the second table are used with
    ``snow_and_clouds=True`` only; where that table lies, their files may lie there without being used.

    Raises:
        InputError: a folder or table is missing or damaged, a row misses its files, files have no row, names of
            BigEarthNet v1 are among them.
    """

    kind: ClassVar[str] = "reBEN (BigEarthNet v2)"
    layout: ClassVar[str] = f"folders {FOLDERS['s2']} and {FOLDERS['s1']} with {METADATA}"
    classes: tuple[str, ...] = BEN19

    def __init__(self, root: Path | str, *, partial: bool = False, snow_and_clouds: bool = False) -> None:
        self.root = Path(root)
        refuse_both_versions(self.root)
        table = read_reben_table(self.root, snow_and_clouds)
        check_s2_names(table.names, table.where, 2)
        s1_names = table.column("s1_name")
        check_s1_names(s1_names, table.where)
        whole, self.left_out = match(
            {"s1": s1_names, "s2": table.names},
            {modality: self._on_disk(modality) for modality in FOLDERS},
            self._folder,
            table.where,
            partial=partial,
            extra=("has files but no row in the tables", snow_cure(self.root)),
            spare=lambda: snow_names(self.root),
        )
        self.table, self._s1_names, self.names = table, tuple(s1_names), table.names
        self.keep(whole)
        if not self.names:
            raise InputError(f"{self.root} holds no patch with its partner", "unpack the archive there")
        if late := first_with_offset(self.names):
            refuse_offset(self._folder("s2", late), get_modality("s2"))

    def keep(self, rows: np.ndarray) -> None:
        """See :class:`Archive`."""
        super().keep(rows)
        self._s1_names = tuple(compress(self._s1_names, rows))

    @classmethod
    def matches(cls, root: Path) -> bool:
        """Either sensor's folder is enough; what is missing is reported when opening."""
        return any((root / folder).is_dir() for folder in FOLDERS.values())

    def read(self, index: int, modalities: Sequence[str] | None = None) -> Patch:
        """Decode one patch. See :class:`Archive`; S1 (120, 120) float32 dB, S2 uint16 at 120, 60 and 20 px."""
        bands: dict[str, dict[str, np.ndarray]] = {}
        places = []
        keys = self.keys(index)
        for modality in modalities or FOLDERS:
            if modality not in FOLDERS:
                raise InputError(f"{self.kind} has no modality {modality!r}", f"choose from {', '.join(FOLDERS)}")
            bands[modality], place = read_bands(self._folder(modality, keys[modality]), get_modality(modality))
            places.append(place)
        labels = tuple(compress(BEN19, self.labels[index]))
        return Patch(name=self.names[index], bands=bands, labels=labels, meta=self.meta(index), **as_fields(places))

    def keys(self, index: int) -> dict[str, str]:
        """S1 name and S2 name."""
        return {"s1": self._s1_names[index], "s2": self.names[index]}

    def files(self, index: int, modality: str) -> list[str]:
        """The bands of one sensor."""
        name = self.keys(index)[modality]
        folder = self._folder(modality, name)
        return [f"{folder}/{name}_{band}.tif" for band in get_modality(modality).bands]

    def meta(self, index: int) -> dict[str, str]:
        """Split, tile and acquisition_date (from the names) and every further column of the table as text."""
        known = {"split": str(self.splits[index]), **place_and_day(self.names[index], self._s1_names[index])}
        return {**known, **self.table.row(index)}

    def _folder(self, modality: str, name: str) -> Path:
        return self.root / FOLDERS[modality] / name.rsplit("_", _OWN_FIELDS[modality])[0] / name

    def _on_disk(self, modality: str) -> set[str]:
        """Names of the patch folders that lie in the folder of their acquisition."""
        top = self.root / FOLDERS[modality]
        if not top.is_dir():
            raise InputError(
                f"{self.root} has no folder {top.name}", "download and unpack both sensors into one folder"
            )
        names: set[str] = set()
        for acquisition in subfolders(top):
            if version(acquisition) or version(f"{acquisition}_0_0") == 1:
                raise InputError(
                    f"{top / acquisition} is a folder of BigEarthNet v1 or lies one level too high",
                    "keep v1 and reBEN in two folders, and unpack the archive again",
                )
            within = f"{acquisition}_"
            names.update([name for name in subfolders(top / acquisition) if name.startswith(within)])
        return names


def read_reben_table(folder: Path, snow_and_clouds: bool, table: Path | None = None) -> Metadata:
    """The official table in a folder, with the rows of the second one if they are asked for."""
    if snow_and_clouds and not (folder / SNOW).is_file():
        raise InputError(f"{folder / SNOW} is missing", f"put {SNOW} there, or leave snow_and_clouds out")
    second = folder / SNOW if snow_and_clouds else None
    return read_metadata(table or folder / METADATA, BEN19, second=second)


def snow_names(folder: Path) -> set[str]:
    """Names in the second table; none where it does not lie."""
    return read_names(folder / SNOW) if (folder / SNOW).is_file() else set()


def snow_cure(folder: Path) -> str:
    """What to do about files without a row."""
    if (folder / SNOW).is_file():
        return "download the tables again, remove the files, or open with partial=True to leave them out"
    return f"if it is one of the snowy or cloudy patches, put {SNOW} there; or open with partial=True to leave it out"
