"""SEN12MS: triplets of radar, optics and a land-cover map, 256 px, a multi-band GeoTIFF each, by season and scene.

Source: Schmitt et al., "SEN12MS", ISPRS Annals 2019; the split lists are those of its repository, schmitt-muc/SEN12MS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.progress import track
from fusmae_lite.core.sensors import S2, get_modality
from fusmae_lite.data.archives.base import Archive, Patch
from fusmae_lite.data.archives.geotiff import as_fields, read_stack
from fusmae_lite.data.archives.pairing import listed, subfolders

SIDE = 256
#: Season folder -> its scenes in the official hold-out list (SEN12MS_holdOutScenes.txt): 26, and 18,106 triplets.
HELD_OUT: dict[str, frozenset[int]] = {
    "ROIs1158_spring": frozenset({15, 17, 63, 97, 124, 146}),
    "ROIs1868_summer": frozenset({15, 19, 43, 72, 79, 104, 131}),
    "ROIs1970_fall": frozenset({30, 35, 39, 47, 61, 120, 141, 144}),
    "ROIs2017_winter": frozenset({32, 64, 107, 135, 146}),
}
#: Merged class -> the IGBP codes it is made of (band 1 of the land-cover file).
IGBP10: dict[str, tuple[int, ...]] = {
    "Forest": (1, 2, 3, 4, 5),
    "Shrubland": (6, 7),
    "Savanna": (8, 9),
    "Grassland": (10,),
    "Wetlands": (11,),
    "Croplands": (12, 14),
    "Urban": (13,),
    "Snow/Ice": (15,),
    "Barren": (16,),
    "Water": (17,),
}
#: What work after the 2020 data fusion contest leaves out.
DROPPED_OF_8 = ("Savanna", "Snow/Ice")
UNCLASSIFIED = (0, 255)
BANDS_ON_DISK = {"s1": ("VV", "VH"), "s2": (*S2.bands[:10], "B10", *S2.bands[10:]), "lc": ("IGBP", "LCCS1", "2", "3")}
#: Its radar image holds NaN; the authors leave it out everywhere, and so do we.
NAN_TRIPLET = "ROIs1868_summer_s2_146_p202"
_NUMBER = re.compile("[0-9]{1,6}")
COMPLETE = "complete the download, remove the triplet, or pass partial=True"


class SEN12MS(Archive):
    """SEN12MS in its own layout; a patch is named by the stem of its Sentinel-2 file.

    ::

        root/ROIs1158_spring/s1_<scene>/ROIs1158_spring_s1_<scene>_p<k>.tif   float32 dB, VV VH
                            /s2_<scene>/ROIs1158_spring_s2_<scene>_p<k>.tif   uint16, 13 bands; B10 is dropped
                            /lc_<scene>/ROIs1158_spring_lc_<scene>_p<k>.tif   uint16, 4 bands; the first is IGBP
        root/ROIs1868_summer, root/ROIs1970_fall, root/ROIs2017_winter        any of the four seasons is enough

    ``test`` is the 26 official held-out scenes, ``train`` all others; the official split has no validation set, so
    ``split("val")`` is empty: take whole scenes out of ``train`` if you need one. Each triplet has one label, the
    class most frequent after merging the 17 IGBP classes to 10; the lower class number wins a tie.

    Args:
        root: the folder of the season folders.
        partial: leave incomplete triplets out, listed in `left_out`, instead of refusing them.
        snow_and_clouds: nothing here: these authors set nothing apart.
        n_classes: 10, or 8 to leave out Savanna and Snow/Ice: their pixels then count for nothing, and a triplet
            that has no others carries no label (our reading; the papers do not say).

    Raises:
        InputError: a triplet is incomplete, a GeoTIFF lies in another's folder, `n_classes` is neither 10 nor 8.
    """

    kind: ClassVar[str] = "SEN12MS"
    layout: ClassVar[str] = f"one of the folders {', '.join(HELD_OUT)}"

    def __init__(
        self, root: Path | str, *, partial: bool = False, snow_and_clouds: bool = False, n_classes: int = 10
    ) -> None:
        if n_classes not in (8, 10):
            raise InputError(f"{self.kind} has no scheme of {n_classes} classes", "choose n_classes 10 or 8")
        self.root = Path(root)
        self.classes = tuple(name for name in IGBP10 if n_classes == 10 or name not in DROPPED_OF_8)
        names: list[str] = []
        left_out: list[tuple[str, str]] = []
        for season in HELD_OUT:
            for scene, patches in _scenes(self.root / season):
                complete, missing = _match(self.root / season, scene, patches)
                if missing and not partial:
                    raise InputError(missing[0][1], COMPLETE)
                left_out += missing
                names += [f"{season}_s2_{scene}_p{number}" for number in complete]
        if NAN_TRIPLET in names:
            names.remove(NAN_TRIPLET)
            left_out.append((NAN_TRIPLET, "its radar image holds NaN; the authors leave it out too"))
        if not names:
            raise InputError(f"{self.root} holds no complete triplet", "unpack s1, s2 and lc of a season there")
        self.names: Sequence[str] = tuple(names)
        self.left_out = tuple(left_out)

    @classmethod
    def matches(cls, root: Path) -> bool:
        """Whether a season's folder is there."""
        return any((root / season).is_dir() for season in HELD_OUT)

    def read(self, index: int, modalities: Sequence[str] | None = None) -> Patch:
        """Decode one triplet; every band (256, 256), S1 float32 dB, S2 uint16 without B10. See :class:`Archive`."""
        bands: dict[str, dict[str, np.ndarray]] = {}
        places = []
        for key in modalities or ("s1", "s2"):
            if key not in ("s1", "s2"):
                raise InputError(f"{self.kind} has no modality {key!r}", "choose from s1, s2")
            modality = get_modality(key)
            path = self._path(index, key)
            bands[key], place = read_stack(path, BANDS_ON_DISK[key], modality.bands, SIDE, modality.dtype, modality)
            places.append(place)
        column = self._column(index)
        labels = () if column < 0 else (self.classes[column],)
        return Patch(name=self.names[index], bands=bands, labels=labels, meta=self.meta(index), **as_fields(places))

    @cached_property
    def labels(self) -> np.ndarray:  # type: ignore[override]
        """(len, n_classes) bool, at most one True a row. Reads every land-cover map the first time (1 ms each)."""
        table = np.zeros((len(self), len(self.classes)), dtype=bool)
        for row in track(range(len(self)), "land-cover maps"):
            column = self._column(row)
            if column >= 0:
                table[row, column] = True
        return table

    @cached_property
    def splits(self) -> np.ndarray:  # type: ignore[override]
        """(len,) of ``"train"`` or ``"test"``, from the scene alone."""
        held = {f"{season}_s2_{scene}" for season, scenes in HELD_OUT.items() for scene in scenes}
        return np.array(["test" if name.rpartition("_")[0] in held else "train" for name in self.names], dtype="<U5")

    def meta(self, index: int) -> dict[str, str]:
        """split, season, scene and the name of the radar file (s1_name)."""
        roi, season, _, scene, _ = self.names[index].split("_")
        split = "test" if int(scene) in HELD_OUT[f"{roi}_{season}"] else "train"
        return {"split": split, "season": season, "scene": scene, "s1_name": self._stem(index, "s1")}

    def keys(self, index: int) -> dict[str, str]:
        """Stems of the two files."""
        return {"s1": self._stem(index, "s1"), "s2": self.names[index]}

    def files(self, index: int, modality: str) -> list[str]:
        """The image of one sensor, and the land-cover map."""
        return [str(self._path(index, kind)) for kind in (modality, "lc")]

    def _stem(self, index: int, kind: str) -> str:
        return self.names[index].replace("_s2_", f"_{kind}_")

    def _path(self, index: int, kind: str) -> Path:
        stem = self._stem(index, kind)
        roi, season, _, scene, _ = stem.split("_")
        return self.root / f"{roi}_{season}" / f"{kind}_{scene}" / f"{stem}.tif"

    def _column(self, index: int) -> int:
        """Column of the scene's label, -1 where it has none."""
        if "labels" in self.__dict__:
            row = self.labels[index]
            return int(row.argmax()) if row.any() else -1
        path = self._path(index, "lc")
        codes = read_stack(path, BANDS_ON_DISK["lc"], ("IGBP",), SIDE, "uint16")[0]["IGBP"]
        counts = np.bincount(codes.ravel(), minlength=256)
        known = {code for members in IGBP10.values() for code in members}
        strange = set(np.flatnonzero(counts).tolist()) - known - set(UNCLASSIFIED)
        if strange:
            raise InputError(f"{path}: IGBP code {min(strange)} is not one of 1 to 17", "download the file again")
        merged = np.array([counts[list(IGBP10[name])].sum() for name in self.classes])
        return int(merged.argmax()) if merged.any() else -1


def _scenes(season: Path) -> Iterator[tuple[str, dict[str, set[str]]]]:
    """Scene -> kind (s1, s2, lc) -> patch numbers, from folder and file names alone, in order of the scenes."""
    if not season.is_dir():
        return
    folders = set(subfolders(season))
    scenes = {scene for kind, _, scene in (name.partition("_") for name in folders) if kind in BANDS_ON_DISK and scene}
    odd = sorted(scene for scene in scenes if not _NUMBER.fullmatch(scene))
    if odd:
        raise InputError(f"{season}: scene {odd[0]!r} is no number", "rename or remove its folders")
    for scene in sorted(scenes, key=lambda text: (len(text), text)):
        found: dict[str, set[str]] = {}
        for kind in BANDS_ON_DISK:
            folder = season / f"{kind}_{scene}"
            files = listed(folder) if folder.name in folders else []
            start = f"{season.name}_{folder.name}_p"
            tifs = [name for name in files if name.endswith(".tif")]
            numbers = {name: name[len(start) : -4] if name.startswith(start) else "" for name in tifs}
            strange = [name for name, number in numbers.items() if not _NUMBER.fullmatch(number)]
            if strange:
                raise InputError(f"{folder / strange[0]} is not named {start}<number>.tif", "unpack it into its folder")
            found[kind] = set(numbers.values())
        yield scene, found


def _match(season: Path, scene: str, patches: dict[str, set[str]]) -> tuple[list[str], list[tuple[str, str]]]:
    """Patch numbers that have all three files, ascending; and (name, reason) of the others."""
    complete = set.intersection(*patches.values())
    missing = []
    for number in sorted(set.union(*patches.values()) - complete, key=int):
        absent = next(kind for kind in patches if number not in patches[kind])
        present = next(kind for kind in patches if number in patches[kind])
        name = f"{season.name}_{{}}_{scene}_p{number}"
        path = season / f"{absent}_{scene}" / f"{name.format(absent)}.tif"
        missing.append((name.format("s2"), f"{path} is missing beside {name.format(present)}.tif"))
    return sorted(complete, key=int), missing
