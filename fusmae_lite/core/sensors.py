"""What a sensor delivers: its bands in order, their resolution, units and statistics.

To add a third sensor, build one more :class:`Modality` and call :func:`register`.
"""

import math
import re
from dataclasses import dataclass

from fusmae_lite.core.errors import InputError

#: Side of a BigEarthNet patch on the ground, in metres (120 pixels of 10 m).
PATCH_METRES = 1200
#: Units whose meaning is known: how images are averaged, and what values in other units look like, follows from them.
DECIBEL, REFLECTANCE = "dB", "reflectance x 10,000"


@dataclass(frozen=True)
class Modality:
    """One sensor as the model is told about it; :class:`InputError` for a field that contradicts another."""

    name: str  # key in every `images` dict, for example "s1"
    title: str  # what a figure calls it
    bands: tuple[str, ...]  # in the order of the channels
    resolution: tuple[int, ...]  # ground sampling distance of each band, in metres
    units: str  # what a pixel value means on disk
    dtype: str  # NumPy's, of a band on disk
    mean: tuple[float, ...]  # of each band, in `units`
    std: tuple[float, ...]
    valid: tuple[float, float] | None = None  # plausible values; others are refused. None: values are not checked

    def __post_init__(self) -> None:
        for field in ("resolution", "mean", "std"):
            entries, bands = len(getattr(self, field)), len(self.bands)
            self._need(entries == bands, f"{field} has {entries} entries for {bands} bands", "give one each")
        key = re.fullmatch(r"[A-Za-z0-9_-]+", self.name) and self.name != "cls"
        self._need(key, "this name cannot be a key", "choose letters, digits, - and _, and not 'cls'")
        unique = 0 < len(self.bands) == len(set(self.bands))
        self._need(unique, "no band, or one name twice", "give each band its own name")
        for r in self.resolution:
            fills = isinstance(r, int) and r > 0 and PATCH_METRES % r == 0
            self._need(fills, f"pixels of {r} m do not fill a patch of {PATCH_METRES} m", "choose a divisor, in metres")
        low, high = self.valid or (-math.inf, math.inf)
        for mean, std in zip(self.mean, self.std, strict=True):
            self._need(0 < std < math.inf, f"a standard deviation of {std}", "give one above 0 for each band")
            self._need(math.isfinite(mean), f"a mean of {mean}", "give a finite one for each band")
            inside = low < mean < high
            self._need(inside, f"a mean of {mean} outside valid={self.valid}", "give least and largest value")
        numeric = re.fullmatch(r"u?int(8|16|32|64)|float(16|32|64)", str(self.dtype))
        self._need(numeric, f"dtype {self.dtype!r} holds no numbers", "give NumPy's name of one that does")

    def _need(self, fine: object, what: str, cure: str) -> None:
        if not fine:
            raise InputError(f"modality {self.name!r}: {what}", cure)

    @property
    def channels(self) -> int:
        """C, the number of bands."""
        return len(self.bands)

    @property
    def unit(self) -> str:
        """What figures write beside a value: ``reflectance``, or `units`."""
        return "reflectance" if self.units == REFLECTANCE else self.units

    @property
    def scale(self) -> int:
        """A value on disk divided by this is in `unit`."""
        return 10_000 if self.units == REFLECTANCE else 1

    def band_index(self, band: str) -> int:
        """Channel of a band; raises :class:`InputError` for a band this sensor lacks."""
        if band not in self.bands:
            raise InputError(f"{self.title} has no band {band!r}", f"choose one of {', '.join(self.bands)}")
        return self.bands.index(band)

    def native_side(self, band: str) -> int:
        """Side in pixels of a 1200 m patch of this band: 120, 60 or 20."""
        return PATCH_METRES // self.resolution[self.band_index(band)]


#: Sentinel-1 C-band SAR, ground-range detected, dB. Statistics: BigEarthNet-MM v1.
S1 = Modality(
    name="s1",
    title="Sentinel-1",
    bands=("VV", "VH"),
    resolution=(10, 10),
    units=DECIBEL,
    dtype="float32",
    mean=(-12.620, -19.290),
    std=(5.116, 5.464),
    valid=(-90.0, 50.0),  # still water and ships in the bundled pairs: -54 to 18
)

#: Sentinel-2 level 2A (surface reflectance x 10,000; no B10). Statistics: BigEarthNet v1.
S2 = Modality(
    name="s2",
    title="Sentinel-2",
    bands=("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"),
    resolution=(60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 20, 20),
    units=REFLECTANCE,
    dtype="uint16",
    mean=(340.77, 429.94, 614.22, 590.24, 950.68, 1792.46, 2075.47, 2218.95, 2266.46, 2246.06, 1594.43, 1009.33),
    std=(554.81, 572.42, 582.88, 675.89, 729.90, 1096.01, 1273.45, 1365.46, 1356.14, 1302.33, 1079.19, 818.87),
    valid=(0.0, 50_000.0),  # clouds and glint in the bundled pairs: 16,224
)

_KNOWN: dict[str, Modality] = {S1.name: S1, S2.name: S2}


def register(modality: Modality, replace: bool = False) -> Modality:
    """Make a further sensor known under its name; returns it. A name is taken once, unless `replace` corrects it."""
    if not replace and modality.name in _KNOWN and _KNOWN[modality.name] != modality:
        raise InputError(f"modality name {modality.name!r} is taken", "choose another name, or pass replace=True")
    _KNOWN[modality.name] = modality
    return modality


def get_modality(name: str) -> Modality:
    """The :class:`Modality` called `name`; raises :class:`InputError` that lists the known ones."""
    if name not in _KNOWN:
        raise InputError(f"unknown modality {name!r}", f"choose one of {', '.join(_KNOWN)} or register it first")
    return _KNOWN[name]


def known_modality(name: str) -> Modality | None:
    """The :class:`Modality` called `name`, or None."""
    return _KNOWN.get(name)
