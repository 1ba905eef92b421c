"""BigEarthNet-MM v1: one GeoTIFF per band, one folder per patch and sensor, as the official tar files unpack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import ClassVar

import numpy as np

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives.base import Archive, Patch
from fusmae_lite.data.archives.geotiff import as_fields, read_bands
from fusmae_lite.data.archives.labels import BEN19, convert_43_to_19
from fusmae_lite.data.archives.names import check_s1_names, check_s2_names, place_and_day
from fusmae_lite.data.archives.pairing import COMPLETE, LeftOut, is_file, match, subfolders
from fusmae_lite.data.archives.v1_lists import read_json, read_lists

S2_FOLDER = "BigEarthNet-v1.0"
S1_FOLDER = "BigEarthNet-S1-v1.0"
#: How many pairs are asked for their partner when an archive is opened; every other one when it is read.
_ASKED = 16


class BigEarthNetV1(Archive):
    """BigEarthNet-MM v1 in its own layout; see :class:`Archive` for how a sibling format joins.

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

    With ``partial=True`` pairs that miss a partner are left out and listed in `left_out`.

    Raises:
        InputError: a sensor's folder is missing, a patch lacks its partner, a patch is in two splits or listed twice,
            names of reBEN lie among those of v1, or snow_and_clouds is asked for (v1 marks no such patches).
    """

    kind: ClassVar[str] = "BigEarthNet-MM v1"
    layout: ClassVar[str] = f"folders {S2_FOLDER} and {S1_FOLDER}"
    classes: tuple[str, ...] = BEN19

    def __init__(self, root: Path | str, *, partial: bool = False, snow_and_clouds: bool = False) -> None:
        self.root = Path(root)
        if snow_and_clouds:
            raise InputError(
                f"{self.root}: {self.kind} keeps no table of patches with snow or clouds", "leave snow_and_clouds out"
            )
        refuse_both_versions(self.root)
        found = {"s1": self._folders(S1_FOLDER), "s2": self._folders(S2_FOLDER)}
        self._rows, self._split_of = read_lists(self.root)
        partners, unclear = {s2: row["s1_name"] for s2, row in self._rows.items()}, ()
        if not partners:
            partners, unclear = self._partners_from_json(found["s1"], partial)
        rows = {"s1": list(partners.values()), "s2": list(partners)}
        check_s2_names(rows["s2"], self.root, 1)
        check_s1_names(rows["s1"], self.root)
        # where lists exist, a folder in none of them is legal: the lists decide what belongs to the archive
        extra = None if self._rows else ("is named as partner by no S1 patch", COMPLETE)
        whole, left_out = match(rows, found, self._folder, self.root, partial=partial, extra=extra)
        self.names: Sequence[str] = tuple(rows["s2"])
        self._s1_names = tuple(rows["s1"])
        self.keep(whole)
        self.left_out = unclear + left_out
        if not self.names:
            raise InputError(f"{self.root / S2_FOLDER} holds no patch with its partner", "unpack the archive there")
        if self._rows and not partial:
            self._ask_partners()

    def keep(self, rows: np.ndarray) -> None:
        """See :class:`Archive`."""
        super().keep(rows)
        self._s1_names = tuple(compress(self._s1_names, rows))

    @classmethod
    def matches(cls, root: Path) -> bool:
        """Either sensor's folder is enough to recognise the format; a missing one is reported when opening."""
        return (root / S2_FOLDER).is_dir() or (root / S1_FOLDER).is_dir()

    def read(self, index: int, modalities: Sequence[str] | None = None) -> Patch:
        """Decode one patch. See :class:`Archive`; S1 (120, 120) float32 dB, S2 uint16 at 120, 60 and 20 px."""
        name, s1_name = self.names[index], self._s1_names[index]
        bands: dict[str, dict[str, np.ndarray]] = {}
        places = []
        for key in modalities or ("s1", "s2"):
            if key not in ("s1", "s2"):
                raise InputError(f"{self.kind} has no modality {key!r}", "choose from s1, s2")
            folder = self._folder(key, s1_name if key == "s1" else name)
            bands[key], place = read_bands(folder, get_modality(key))
            places.append(place)
        if "s1" in bands:
            self._check_partner(index)
        labels = convert_43_to_19(*self._labels43(name))
        return Patch(name=name, bands=bands, labels=labels, meta=self.meta(index), **as_fields(places))

    @cached_property
    def labels(self) -> np.ndarray:  # type: ignore[override]
        """(len, 19) bool in the order of BEN19. Reads one json per patch the first time."""
        table = np.zeros((len(self), len(BEN19)), dtype=bool)
        column = {name: number for number, name in enumerate(BEN19)}
        for row, name in enumerate(self.names):
            table[row, [column[label] for label in convert_43_to_19(*self._labels43(name))]] = True
        return table

    def keys(self, index: int) -> dict[str, str]:
        """Names of the two folders: the S1 name and the S2 name."""
        return {"s1": self._s1_names[index], "s2": self.names[index]}

    def files(self, index: int, modality: str) -> list[str]:
        """The bands of one sensor, its json and that of the labels."""
        keys = self.keys(index)
        stems = {key: f"{self._folder(key, name)}/{name}" for key, name in keys.items()}
        bands = [f"{stems[modality]}_{band}.tif" for band in get_modality(modality).bands]
        return bands + [f"{stems[key]}_labels_metadata.json" for key in {modality: 0, "s2": 0}]

    def meta(self, index: int) -> dict[str, str]:
        """s1_name, split, tile and acquisition_date (both from the names), and every further column of index.csv."""
        name, s1_name = self.names[index], self._s1_names[index]
        known = {"s1_name": s1_name, "split": self._split_of.get(name, ""), **place_and_day(name, s1_name)}
        row = {field: text for field, text in self._rows.get(name, {}).items() if field not in ("s1_name", "split")}
        return {**known, **row}

    def _folder(self, modality: str, name: str) -> Path:
        return self.root / (S1_FOLDER if modality == "s1" else S2_FOLDER) / name

    def _folders(self, folder: str) -> set[str]:
        if not (self.root / folder).is_dir():
            raise InputError(f"{self.root} has no folder {folder}", "download and unpack both sensors into one folder")
        names = set(subfolders(self.root / folder))
        check_s2_names(sorted(names), self.root / folder, 1, others=True)
        return names

    def _partners_from_json(self, s1_names: set[str], partial: bool) -> tuple[dict[str, str], LeftOut]:
        """S2 name -> S1 name, sorted, and the S1 patches whose json does not tell (with `partial` only)."""
        partners: dict[str, str] = {}
        unclear: list[tuple[str, str]] = []
        for s1_name in sorted(s1_names):
            path = self.root / S1_FOLDER / s1_name / f"{s1_name}_labels_metadata.json"
            try:
                s2_name = str(read_json(path, "corresponding_s2_patch"))
                if partners.setdefault(s2_name, s1_name) != s1_name:
                    raise InputError(f"{path}: {s2_name} is the partner of {partners[s2_name]} already", COMPLETE)
            except InputError as error:
                if not partial:
                    raise
                unclear.append((s1_name, str(error)))
        return dict(sorted(partners.items())), tuple(unclear)

    def _ask_partners(self) -> None:
        """Ask some of the pairs whose names agree whatever the pairing: v1's S2 names tell no tile."""
        cells = [name.rsplit("_", 2)[1:] for name in self.names]
        counts = Counter(map(tuple, cells))
        unsure = [index for index, cell in enumerate(cells) if counts[tuple(cell)] > 1]
        for index in unsure[:: -(-len(unsure) // _ASKED) or 1]:
            self._check_partner(index)

    def _check_partner(self, index: int) -> None:
        """InputError if the S1 patch's own json, where it lies, names another S2 patch than the lists."""
        name, s1_name = self.names[index], self._s1_names[index]
        path = self._folder("s1", s1_name) / f"{s1_name}_labels_metadata.json"
        if is_file(path) and (partner := read_json(path, "corresponding_s2_patch")) != name:
            raise InputError(f"{path}: is the partner of {partner}, in the lists of {name}", "correct the lists")

    def _labels43(self, name: str) -> tuple[list[str], str]:
        path = self.root / S2_FOLDER / name / f"{name}_labels_metadata.json"
        labels = read_json(path, "labels")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise InputError(f"{path}: 'labels' is no list of names", "download the patch again")
        return labels, str(path)


def refuse_both_versions(root: Path) -> None:
    """Raise InputError where folders of BigEarthNet v1 and of reBEN lie side by side: which one is meant?"""
    first = [name for name in (S2_FOLDER, S1_FOLDER) if (root / name).is_dir()]
    second = [name for name in ("BigEarthNet-S2", "BigEarthNet-S1") if (root / name).is_dir()]
    if first and second:
        raise InputError(
            f"{root} holds {first[0]} of BigEarthNet v1 beside {second[0]} of reBEN", "keep the versions in two folders"
        )
