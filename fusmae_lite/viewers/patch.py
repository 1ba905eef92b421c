"""An archive, patch by patch: composites, single bands, what normalisation makes of them, labels, place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ipywidgets as w
import numpy as np
from rasterio.warp import transform

from fusmae_lite import pictures
from fusmae_lite.archives import Archive, Patch
from fusmae_lite.figures import UNITS
from fusmae_lite.panels import Panel, draw_panels, histogram
from fusmae_lite.pictures import COMPOSITES, colour_of
from fusmae_lite.sensors import get_modality
from fusmae_lite.viewers.base import Viewer, archive_or_bundled, check_index, choice, pair_title, slider


class PatchViewer(Viewer):
    """Each pair of an archive: a composite of each sensor, one band as it lies on disk, its histogram, its labels.

    Args:
        archive: an archive of any format, or its folder; the bundled patches if absent.
        pair: row of the archive to begin with.
    """

    def __init__(self, archive: Archive | Path | str | None = None, *, pair: int = 0) -> None:
        super().__init__("Patch")
        self.archive = archive_or_bundled(archive)
        self.pair = slider("pair", 0, len(self.archive) - 1, check_index(self.archive, pair), live=True)
        self._read: tuple[int, Patch] = self.pair.value, self.archive.read(self.pair.value)
        shown = self._read[1].bands
        self.looks = {
            name: choice(name.upper(), [(c.title, key) for key, c in COMPOSITES.items() if c.modality == name])
            for name in shown
            if any(c.modality == name for c in COMPOSITES.values())
        }
        bands = [(f"{name.upper()} {band}", (name, band)) for name in shown for band in shown[name]]
        self.band = w.SelectionSlider(
            options=bands, description="band", continuous_update=True, layout=w.Layout(width="270px")
        )
        wrap = w.Layout(flex_flow="row wrap")
        self.assemble(
            [self.pair, *self.looks.values(), self.band],
            w.HBox([self.pair, self.band], layout=wrap),
            w.HBox(list(self.looks.values()), layout=wrap),
        )

    @property
    def patch(self) -> Patch:
        """The pair on show, read once."""
        if self._read[0] != self.pair.value:
            self._read = self.pair.value, self.archive.read(self.pair.value)
        return self._read[1]

    def draw(self) -> tuple[bytes, str]:
        patch, (name, band) = self.patch, self.band.value
        looks = {sensor: control.value for sensor, control in self.looks.items()}
        place = position(patch)
        panels = [*composite_panels(patch.bands, looks), *band_panels(patch.bands[name][band], name, band)]
        known = ", ".join(f"{key} {value}" for key, value in patch.meta.items() if value and key in TOLD)
        labels = ", ".join(patch.labels) or "no labels"
        words = f"{patch.name}. Labels: {labels}. {place}. {known}. {band_words(patch.bands[name][band], name, band)}"
        return draw_panels([panels], pair_title(self.archive, self.pair.value)), words


#: What is told of a patch's meta.
TOLD = ("split", "country", "season", "acquisition_date", "tile")


def composite_panels(bands: Mapping[str, Mapping[str, np.ndarray]], looks: Mapping[str, str]) -> list[Panel]:
    """A composite of each sensor in `looks` (modality -> key of COMPOSITES) from bands of any side."""
    panels = []
    for name, look in looks.items():
        recipe = COMPOSITES[look]
        picture = pictures.composite(look, name, same_side(bands[name], get_modality(name).bands))
        title = f"{get_modality(name).title}: {recipe.title}"
        panels.append(Panel(picture, title, _two_lines(recipe.caption), colour_of(name)))
    return panels


def same_side(bands: Mapping[str, np.ndarray], order: Sequence[str]) -> np.ndarray:
    """Bands of any side -> (C, H, W) at the largest; pixels are repeated, for looking at and nothing else."""
    side = max(band.shape[0] for band in bands.values())
    places = {len(band): np.arange(side) * len(band) // side for band in bands.values()}
    return np.stack([bands[name][np.ix_(places[len(bands[name])], places[len(bands[name])])] for name in order])


def band_panels(values: np.ndarray, name: str, band: str) -> list[Panel]:
    """One band (h, w) as it lies on disk, and its histogram with the mean and deviation of the normalisation."""
    sensor, scale = get_modality(name), 10_000 if name == "s2" else 1
    low, high = pictures.band_limits(name, band)
    unit, values = UNITS.get(name, sensor.units), values / scale
    index = sensor.band_index(band)
    mean, std = sensor.mean[index] / scale, sensor.std[index] / scale
    left, right = (mean - 4 * std, mean + 4 * std) if name == "s1" else (0.0, mean + 3.5 * std)
    bars = histogram(values, (left, right), mean, std, colour_of(name))
    size = f"{values.shape[0]} x {values.shape[1]} px, {sensor.resolution[index]} m"
    return [
        Panel(pictures.sar(values, low, high), f"{band} alone", f"{size}\n{low:g} to {high:g} {unit}", colour_of(name)),
        Panel(bars, f"{band}: histogram", f"{left:.2g} to {right:.2g} {unit}\nline: mean, grey: 1 deviation"),
    ]


def band_words(values: np.ndarray, name: str, band: str) -> str:
    """Mean of a band here and in the statistics that normalise it, and what the first becomes."""
    sensor, scale = get_modality(name), 10_000 if name == "s2" else 1
    index = sensor.band_index(band)
    mean, std = sensor.mean[index] / scale, sensor.std[index] / scale
    here, unit = float(np.mean(values)) / scale, UNITS.get(name, sensor.units)
    compared = f"mean {here:.3g} {unit} here, {mean:.3g} in the statistics"
    return f"{band}: {compared}; normalised it is {(here - mean) / std:+.2f}."


def position(patch: Patch) -> str:
    """Centre of a patch as latitude and longitude in degrees, and its projection; or that none is known."""
    if patch.crs is None or patch.bounds is None:
        return "No map position in the files"
    left, bottom, right, top = patch.bounds
    (east,), (north,) = transform(patch.crs, "EPSG:4326", [(left + right) / 2], [(bottom + top) / 2])
    sides = f"{abs(north):.4f} {'N' if north >= 0 else 'S'}, {abs(east):.4f} {'E' if east >= 0 else 'W'}"
    return f"Centre {sides} ({patch.crs}, {right - left:g} x {top - bottom:g} m)"


def _two_lines(text: str) -> str:
    """Break a caption after the comma or the space nearest to its middle."""
    if len(text) < 30:
        return text
    breaks = [i + 1 for i, letter in enumerate(text) if letter == "," and i + 1 < len(text)]
    middle = min(breaks or [len(text)], key=lambda i: abs(i - len(text) / 2))
    return f"{text[:middle]}\n{text[middle:].strip()}"
