"""BigEarthNet-MM v1: one GeoTIFF per band, one folder per patch and sensor, as the official tar files unpack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives.base import Patch
from fusmae_lite.data.archives.geotiff import GeoTiffArchive
from fusmae_lite.data.archives.labels import BEN19, convert_43_to_19
from fusmae_lite.data.archives.listing import is_file, refuse_both_versions
from fusmae_lite.data.archives.names import check_s1_names, check_s2_names, place_and_day
from fusmae_lite.data.archives.pairing import COMPLETE
from fusmae_lite.data.archives.v1_lists import read_json, read_lists

S2_FOLDER = "BigEarthNet-v1.0"
S1_FOLDER = "BigEarthNet-S1-v1.0"
_FOLDERS = {"s1": S1_FOLDER, "s2": S2_FOLDER}
#: How many pairs are asked for their partner when an archive is opened; every other one when it is read.
_ASKED = 16


class BigEarthNetV1(GeoTiffArchive):
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
    Opening looks at folder names only. `labels` reads the json of every S2 patch, once, when first asked for.

    Raises:
        InputError: a sensor's folder is missing, a patch lacks its partner, a patch is in two splits or listed twice,
            names of reBEN lie among those of v1, or snow_and_clouds is asked for (v1 marks no such patches).
    """

    kind: ClassVar[str] = "BigEarthNet-MM v1"
    layout: ClassVar[str] = f"folders {S2_FOLDER} and {S1_FOLDER}"
    folders: ClassVar[tuple[str, ...]] = (S2_FOLDER, S1_FOLDER)
    classes: tuple[str, ...] = BEN19

    def __init__(self, root: Path | str, *, partial: bool = False, snow_and_clouds: bool = False) -> None:
        self.root = Path(root)
        if snow_and_clouds:
            raise InputError(
                f"{self.root}: {self.kind} keeps no table of patches with snow or clouds", "leave snow_and_clouds out"
            )
        refuse_both_versions(self.root)
        on_disk = {modality: self._on_disk(folder) for modality, folder in _FOLDERS.items()}
        self._rows = read_lists(self.root)
        partners = {s2: row["s1_name"] for s2, row in self._rows.items()} or self._partners_from_json(on_disk, partial)
        self.names = tuple(partners)
        columns = {"s1": tuple(partners.values()), "s2": self.names}
        check_s2_names(columns["s2"], self.root, 1)
        check_s1_names(columns["s1"], self.root)
        self._join(columns, on_disk, self.root, partial)
        if not self._rows:
            self._refuse_strays(columns, on_disk, "is named as partner by no S1 patch", COMPLETE, partial)
        if not self.names:
            raise InputError(f"{self.root / S2_FOLDER} holds no patch with its partner", "unpack the archive there")
        if self._rows and not partial:
            self._ask_partners()

    def read(self, index: int, modalities: Sequence[str] | None = None) -> Patch:
        """Decode one patch: S1 (120, 120) float32 dB, S2 uint16 at 120, 60 and 20 px."""
        patch = super().read(index, modalities)
        if "s1" in patch.bands:
            self._check_partner(index)
        return patch

    @cached_property
    def splits(self) -> np.ndarray:  # type: ignore[override]
        """(len,) of ``"train"``, ``"val"``, ``"test"`` or ``""``, from the lists."""
        return np.array([self._rows.get(name, {}).get("split", "") for name in self.names], dtype="<U5")

    def files(self, index: int, modality: str) -> list[str]:
        """The bands of one sensor, its json and that of the labels."""
        stems = {key: f"{self._path(key, name)}/{name}" for key, name in self.keys(index).items()}
        bands = [f"{stems[modality]}_{band}.tif" for band in get_modality(modality).bands]
        return bands + [f"{stems[key]}_labels_metadata.json" for key in {modality: 0, "s2": 0}]

    def meta(self, index: int) -> dict[str, str]:
        """s1_name, split, tile and acquisition_date (both from the names), and every further column of index.csv."""
        name, s1_name = self.names[index], self.columns["s1"][index]
        known = {"s1_name": s1_name, "split": "", **place_and_day(name, s1_name)}
        return {**known, **self._rows.get(name, {}), "split": str(self.splits[index])}

    def _path(self, modality: str, name: str) -> Path:
        return self.root / _FOLDERS[modality] / name

    def _json(self, modality: str, name: str) -> Path:
        return self._path(modality, name) / f"{name}_labels_metadata.json"

    def _on_disk(self, folder: str) -> set[str]:
        names = set(self._subfolders(folder))
        check_s2_names(sorted(names), self.root / folder, 1, others=True)
        return names

    def _partners_from_json(self, on_disk: dict[str, set[str]], partial: bool) -> dict[str, str]:
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
                self.left_out += ((s1_name, str(error)),)
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
