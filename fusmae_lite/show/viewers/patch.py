"""An archive, patch by patch: composites, single bands, what normalisation makes of them, labels, place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ipywidgets as w
import numpy as np

from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Archive, Patch
from fusmae_lite.show import pictures
from fusmae_lite.show.figures import UNITS
from fusmae_lite.show.locator import Locator, Place, place_of, places_by_name
from fusmae_lite.show.panels import Panel, draw_panels, histogram
from fusmae_lite.show.pictures import COMPOSITES, colour_of
from fusmae_lite.show.viewers.base import Viewer, archive_or_bundled, check_index, choice, pair_title, slider


class PatchViewer(Viewer):
    """Each pair of an archive: composites, one band as it lies on disk and its histogram, labels, place on a map.

    Args:
        archive: an archive of any format, or its folder; the bundled patches if absent.
        pair: row of the archive to begin with.
    """

    def __init__(self, archive: Archive | Path | str | None = None, *, pair: int = 0) -> None:
        super().__init__("Patch")
        self.archive = archive_or_bundled(archive)
        self.pair = slider("pair", 0, len(self.archive) - 1, check_index(self.archive, pair), live=True)
        self.locator = Locator(self.archive)
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

    @property
    def place(self) -> tuple[Place | None, str]:
        """Where the pair lies, by its files or else by its name, and the same in words."""
        place = place_of(self.patch)
        if place is not None:
            return place, f"Centre {in_degrees(place)} ({self.patch.crs}, {extent(self.patch)} m)"
        by_name = places_by_name(self.archive, [self.pair.value])
        if not len(by_name):
            return None, "No map position: neither the files nor the names of this archive tell one"
        place = float(by_name[0, 0]), float(by_name[0, 1])
        return place, f"Centre {in_degrees(place)}, by its name: the files carry no coordinates"

    def draw(self) -> tuple[bytes, str]:
        patch, (name, band) = self.patch, self.band.value
        looks = {sensor: control.value for sensor, control in self.looks.items()}
        place, said = self.place
        panels = [*composite_panels(patch.bands, looks), *band_panels(patch.bands[name][band], name, band)]
        panels.append(Panel(self.locator.picture(place), "where it lies", self.locator.caption))
        known = ", ".join(f"{key} {value}" for key, value in patch.meta.items() if value and key in TOLD)
        labels = ", ".join(patch.labels) or "no labels"
        told = [patch.name, f"Labels: {labels}", said, known, band_words(patch.bands[name][band], name, band)]
        title = pair_title(self.archive, self.pair.value, patch.labels)
        return draw_panels([panels], title), ". ".join(text for text in told if text)


#: What is told of a patch's meta.
TOLD = ("split", "country", "season", "scene", "acquisition_date", "tile")


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


def in_degrees(place: Place) -> str:
    """Degrees east and north as people write them: ``48.1172 N, 12.7469 E``."""
    east, north = place
    return f"{abs(north):.4f} {'N' if north >= 0 else 'S'}, {abs(east):.4f} {'E' if east >= 0 else 'W'}"


def extent(patch: Patch) -> str:
    """Width and height of a patch that has bounds, in the units of its coordinates."""
    left, bottom, right, top = patch.bounds
    return f"{right - left:g} x {top - bottom:g}"


def _two_lines(text: str) -> str:
    """Break a caption after the comma or the space nearest to its middle."""
    if len(text) < 30:
        return text
    breaks = [i + 1 for i, letter in enumerate(text) if letter == "," and i + 1 < len(text)]
    middle = min(breaks or [len(text)], key=lambda i: abs(i - len(text) / 2))
    return f"{text[:middle]}\n{text[middle:].strip()}"
