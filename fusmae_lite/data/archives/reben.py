"""reBEN (BigEarthNet v2): one GeoTIFF per band, patches gathered in a folder per acquisition, one metadata table."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives.geotiff import GeoTiffArchive
from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.archives.listing import refuse_both_versions, subfolders
from fusmae_lite.data.archives.metadata import METADATA, read_reben_table
from fusmae_lite.data.archives.names import check_s1_names, check_s2_names, place_and_day, version
from fusmae_lite.data.archives.pairing import TableArchive
from fusmae_lite.data.archives.pixels import first_with_offset

FOLDERS = {"s1": "BigEarthNet-S1", "s2": "BigEarthNet-S2"}
#: Trailing fields of a patch name that its acquisition's folder does not have.
_OWN_FIELDS = {"s1": 3, "s2": 2}


class ReBEN(TableArchive, GeoTiffArchive):
    """reBEN in its own layout.

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
    folders: ClassVar[tuple[str, ...]] = tuple(FOLDERS.values())
    classes: tuple[str, ...] = BEN19

    def __init__(self, root: Path | str, *, partial: bool = False, snow_and_clouds: bool = False) -> None:
        self.root = Path(root)
        refuse_both_versions(self.root)
        table = read_reben_table(self.root, snow_and_clouds)
        columns = {"s1": table.keys["s1_name"], "s2": table.names}
        check_s2_names(columns["s2"], table.where, 2)
        check_s1_names(columns["s1"], table.where)
        on_disk = {modality: self._on_disk(modality) for modality in FOLDERS}
        self._take(table, columns, on_disk, self.root, "has files but no row in the tables", partial)
        late = first_with_offset(self.names)
        if late and not partial:
            self._bands("s2", late)  # refuses an offset that its files do not declare

    def files(self, index: int, modality: str) -> list[str]:
        """The bands of one sensor."""
        name = self.keys(index)[modality]
        return [f"{self._path(modality, name)}/{name}_{band}.tif" for band in get_modality(modality).bands]

    def meta(self, index: int) -> dict[str, str]:
        """Split, tile and acquisition_date (from the names) and every further column of the table as text."""
        known = {"split": str(self.splits[index]), **place_and_day(self.names[index], self.columns["s1"][index])}
        return {**known, **self.table.row(index)}

    def _path(self, modality: str, name: str) -> Path:
        return self.root / FOLDERS[modality] / name.rsplit("_", _OWN_FIELDS[modality])[0] / name

    def _on_disk(self, modality: str) -> set[str]:
        """Names of the patch folders that lie in the folder of their acquisition."""
        top = self.root / FOLDERS[modality]
        names: set[str] = set()
        for acquisition in self._subfolders(top.name):
            if version(acquisition) or version(f"{acquisition}_0_0") == 1:
                raise InputError(
                    f"{top / acquisition} is a folder of BigEarthNet v1 or lies one level too high",
                    "keep v1 and reBEN in two folders, and unpack the archive again",
                )
            names.update(name for name in subfolders(top / acquisition) if name.startswith(f"{acquisition}_"))
        return names
