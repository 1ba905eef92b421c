"""BigEarthNet-MM v1 and reBEN (v2): one GeoTIFF per band, one folder per patch and sensor, as the tar files unpack."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives.base import COMPLETE, Patch, without_row
from fusmae_lite.data.archives.geotiff import GeoTiffArchive, band_files, read_images
from fusmae_lite.data.archives.labels import BEN19, convert_43_to_19
from fusmae_lite.data.archives.metadata import METADATA, TableArchive, read_reben_table
from fusmae_lite.data.archives.names import (
    check_s1_names,
    check_s2_names,
    is_file,
    listed,
    told_by,
    version,
)
from fusmae_lite.data.archives.pixels import first_with_offset
from fusmae_lite.data.archives.v1_lists import read_json, read_lists

S1_FOLDER, S2_FOLDER = "BigEarthNet-S1-v1.0", "BigEarthNet-v1.0"
_V1 = {"s1": S1_FOLDER, "s2": S2_FOLDER}
_V2 = {"s1": "BigEarthNet-S1", "s2": "BigEarthNet-S2"}
#: Trailing fields of a patch name that its acquisition's folder in reBEN does not have.
_OWN_FIELDS = {"s1": 3, "s2": 2}
#: How many pairs are asked for their partner when an archive is opened; every other one when it is read.
_ASKED = 16


class BigEarthNet(GeoTiffArchive):
    """What both versions share."""

    classes: tuple[str, ...] = BEN19

    def _start(self, root: Path | str) -> None:
        """Set `root`; InputError where folders of both versions lie in it: which one is meant?"""
        self.root = Path(root)
        v1, v2 = ([name for name in names.values() if (self.root / name).is_dir()] for names in (_V1, _V2))
        if v1 and v2:
            what = f"{root} holds {v1[0]} of BigEarthNet v1 beside {v2[0]} of reBEN"
            raise InputError(what, "keep the versions in two folders")

    def _set_columns(self, s1: Sequence[str], s2: Sequence[str], where: object, wanted: int) -> None:
        check_s2_names(s2, where, wanted)
        check_s1_names(s1, where)
        self.columns = {"s1": s1, "s2": s2}

    def _images(self, modality: str, name: str) -> dict[Path, Sequence[str]]:
        return band_files(self._path(modality, name), get_modality(modality))


class BigEarthNetV1(BigEarthNet):
    """BigEarthNet-MM v1 in its own layout.

    ::

        root/BigEarthNet-v1.0/<s2>/<s2>_<band>.tif       uint16, reflectance x 10,000; 120, 60 or 20 px
                             /<s2>/<s2>_labels_metadata.json
        root/BigEarthNet-S1-v1.0/<s1>/<s1>_{VV,VH}.tif   float32 dB, 120 px
                                /<s1>/<s1>_labels_metadata.json
        root/splits/{train,val,test}.csv                 optional: s2_name,s1_name, no header (official lists)
        root/index.csv                                   optional: s2_name,s1_name and further columns, with header

    Where lists exist they decide which patches belong to the archive, and folders in no list are left out; without
    any list, all folders do, and the pairing is read from the json of every S1 patch (a minute for 590,326 of them).

    Raises:
        InputError: a sensor's folder is missing, a patch lacks its partner, is in two splits or listed twice, names
            of reBEN lie among those of v1, or snow_and_clouds is asked for (v1 marks no such patches).
    """

    kind: ClassVar[str] = "BigEarthNet-MM v1"
    layout: ClassVar[str] = f"folders {S2_FOLDER} and {S1_FOLDER}"
    folders: ClassVar[tuple[str, ...]] = tuple(_V1.values())

    def __init__(self, root: Path | str, *, partial: bool = False, snow_and_clouds: bool = False) -> None:
        if snow_and_clouds:
            raise InputError(
                f"{root}: {self.kind} keeps no table of patches with snow or clouds", "leave snow_and_clouds out"
            )
        self._start(root)
        on_disk = {modality: set(self._subfolders(folder)) for modality, folder in _V1.items()}
        for modality, names in on_disk.items():
            check_s2_names(sorted(names), self.root / _V1[modality], 1, others=True)
        rows = read_lists(self.root)
        partners = {s2: row["s1_name"] for s2, row in rows.items()} or self._partners_from_json(on_disk, partial)
        self.names = tuple(partners)
        self._set_columns(tuple(partners.values()), self.names, self.root, 1)
        self.splits = np.array([rows.get(name, {}).get("split", "") for name in self.names], dtype="<U5")
        further = dict.fromkeys(field for row in rows.values() for field in row if field != "split")
        own = {field: pa.array([row.get(field) for row in rows.values()], pa.string()) for field in further}
        self.rest = told_by(self.columns["s1"], self.names) | own
        strays = {} if rows else without_row(self.columns, on_disk)
        self._join(on_disk, self.root, partial)
        self._refuse_strays(strays, "is named as partner by no S1 patch", COMPLETE, partial)
        if not self.names:
            raise InputError(f"{self.root / S2_FOLDER} holds no patch with its partner", "unpack the archive there")
        if rows and not partial:
            self._ask_partners()

    def read(self, index: int, modalities: Sequence[str] | None = None) -> Patch:
        """Decode one patch: S1 (120, 120) float32 dB, S2 uint16 at 120, 60 and 20 px."""
        patch = super().read(index, modalities)
        if "s1" in patch.bands:
            self._check_partner(index)
        return patch

    def _path(self, modality: str, name: str) -> Path:
        return self.root / _V1[modality] / name

    def _json(self, modality: str, name: str) -> Path:
        return self._path(modality, name) / f"{name}_labels_metadata.json"

    def _beside(self, index: int, modality: str) -> list[Path]:
        return [self._json(key, self.columns[key][index]) for key in dict.fromkeys((modality, "s2"))]

    def _partners_from_json(self, on_disk: Mapping[str, set[str]], partial: bool) -> dict[str, str]:
        """S2 name -> S1 name, sorted; with `partial`, S1 patches whose json does not tell are left out."""
        partners: dict[str, str] = {}
        for s1_name in sorted(on_disk["s1"]):
            path = self._json("s1", s1_name)
            try:
                s2_name = str(read_json(path, "corresponding_s2_patch"))
                if partners.setdefault(s2_name, s1_name) != s1_name:
                    raise InputError(f"{path}: {s2_name} is the partner of {partners[s2_name]} already", COMPLETE)
            except InputError as error:
                if not partial:
                    raise
                self._note({s1_name: str(error)}, COMPLETE, partial)
        return dict(sorted(partners.items()))

    def _ask_partners(self) -> None:
        """Ask some of the pairs whose names agree whatever the pairing: v1's S2 names tell no tile."""
        cells = [tuple(name.rsplit("_", 2)[1:]) for name in self.names]
        counts = Counter(cells)
        unsure = [index for index, cell in enumerate(cells) if counts[cell] > 1]
        for index in unsure[:: -(-len(unsure) // _ASKED) or 1]:
            self._check_partner(index)

    def _check_partner(self, index: int) -> None:
        """InputError if the S1 patch's own json, where it lies, names another S2 patch than the lists."""
        path, name = self._json("s1", self.columns["s1"][index]), self.names[index]
        if is_file(path) and (partner := read_json(path, "corresponding_s2_patch")) != name:
            raise InputError(f"{path}: is the partner of {partner}, in the lists of {name}", "correct the lists")

    def _labels_of(self, index: int) -> tuple[str, ...]:
        path = self._json("s2", self.names[index])
        labels = read_json(path, "labels")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise InputError(f"{path}: 'labels' is no list of names", "download the patch again")
        return convert_43_to_19(labels, str(path))


class ReBEN(TableArchive, BigEarthNet):
    """reBEN in its own layout.

    ::

        root/BigEarthNet-S2/<acquisition>/<s2>/<s2>_<band>.tif     uint16, reflectance x 10,000; 120, 60 or 20 px
        root/BigEarthNet-S1/<acquisition>/<s1>/<s1>_{VV,VH}.tif    float32 dB, 120 px
        root/metadata.parquet                                      patch_id, labels, split, s1_name and more
        root/metadata_for_patches_with_snow_cloud_or_shadow.parquet    optional

    An acquisition is the patch name less its last two fields (S2) or three (S1). The table decides which patches
    belong to the archive. Patches of the second table are used with ``snow_and_clouds=True`` only; beside that table
    their files are no strays.

    Raises:
        InputError: a folder or table is missing or damaged, a row misses its files, files have no row, names of
            BigEarthNet v1 are among them.
    """

    kind: ClassVar[str] = "reBEN (BigEarthNet v2)"
    layout: ClassVar[str] = f"folders {_V2['s2']} and {_V2['s1']} with {METADATA}"
    folders: ClassVar[tuple[str, ...]] = tuple(_V2.values())

    def __init__(self, root: Path | str, *, partial: bool = False, snow_and_clouds: bool = False) -> None:
        self._start(root)
        table = read_reben_table(self.root, snow_and_clouds)
        self._set_columns(table.keys["s1_name"], table.names, table.where, 2)
        on_disk = {modality: self._on_disk(modality) for modality in _V2}
        self._take(table, on_disk, self.root, "has files but no row in the tables", partial)
        if (late := first_with_offset(self.names)) and not partial:
            read_images(self._images("s2", late), get_modality("s2"))  # refuses an offset that is not declared

    def _path(self, modality: str, name: str) -> Path:
        return self.root / _V2[modality] / name.rsplit("_", _OWN_FIELDS[modality])[0] / name

    def _on_disk(self, modality: str) -> set[str]:
        """Names of the patch folders that lie in the folder of their acquisition."""
        top = self.root / _V2[modality]
        names: set[str] = set()
        for acquisition in self._subfolders(top.name):
            if version(acquisition) or version(f"{acquisition}_0_0") == 1:
                raise InputError(
                    f"{top / acquisition} is a folder of BigEarthNet v1 or lies one level too high",
                    "keep v1 and reBEN in two folders, and unpack the archive again",
                )
            names.update(name for name in listed(top / acquisition, folders=True) if name.startswith(f"{acquisition}_"))
        return names
