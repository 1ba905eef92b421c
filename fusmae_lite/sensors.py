"""What a sensor delivers: its bands in order, their resolution, units and statistics.

The model never sees this module's files and the archives never see its statistics in action; it is only the
shared vocabulary. To add a third sensor, build one more :class:`Modality` and call :func:`register`.
"""

from __future__ import annotations

from dataclasses import dataclass

from fusmae_lite.errors import InputError

#: Side of a BigEarthNet patch on the ground, in metres (120 pixels of 10 m).
PATCH_METRES = 1200


@dataclass(frozen=True)
class Modality:
    """One sensor as the model is told about it.

    Args:
        name: key in every ``images`` dict, for example ``"s1"``.
        title: what a figure calls it.
        bands: band names; this order is the channel order, always.
        resolution: ground sampling distance of each band, in metres.
        units: what a pixel value means on disk.
        dtype: NumPy dtype of a band on disk.
        mean: mean of each band in `units`, used to normalise.
        std: standard deviation of each band in `units`.
    """

    name: str
    title: str
    bands: tuple[str, ...]
    resolution: tuple[int, ...]
    units: str
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for field in ("resolution", "mean", "std"):
            entries = len(getattr(self, field))
            if entries != len(self.bands):
                raise InputError(
                    f"modality {self.name!r}: {field} has {entries} entries for {len(self.bands)} bands",
                    "give one per band, in band order",
                )

    @property
    def channels(self) -> int:
        """C, the number of bands."""
        return len(self.bands)

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
    units="dB",
    dtype="float32",
    mean=(-12.620, -19.290),
    std=(5.116, 5.464),
)

#: Sentinel-2 level 2A (surface reflectance x 10,000; no B10). Statistics: BigEarthNet v1.
S2 = Modality(
    name="s2",
    title="Sentinel-2",
    bands=("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"),
    resolution=(60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 20, 20),
    units="reflectance x 10,000",
    dtype="uint16",
    mean=(340.77, 429.94, 614.22, 590.24, 950.68, 1792.46, 2075.47, 2218.95, 2266.46, 2246.06, 1594.43, 1009.33),
    std=(554.81, 572.42, 582.88, 675.89, 729.90, 1096.01, 1273.45, 1365.46, 1356.14, 1302.33, 1079.19, 818.87),
)

_KNOWN: dict[str, Modality] = {S1.name: S1, S2.name: S2}


def register(modality: Modality) -> Modality:
    """Make a further sensor known under its name; returns it. A name can be taken only once."""
    if modality.name in _KNOWN and _KNOWN[modality.name] != modality:
        raise InputError(f"modality name {modality.name!r} is taken", "choose another name")
    _KNOWN[modality.name] = modality
    return modality


def get_modality(name: str) -> Modality:
    """The :class:`Modality` called `name`; raises :class:`InputError` that lists the known ones."""
    if name not in _KNOWN:
        raise InputError(f"unknown modality {name!r}", f"choose one of {', '.join(_KNOWN)} or register it first")
    return _KNOWN[name]
