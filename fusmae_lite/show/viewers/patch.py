"""An archive, patch by patch: composites, single bands, what normalisation makes of them, labels, place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import ipywidgets as w
import numpy as np

from fusmae_lite.core.sensors import get_modality
from fusmae_lite.show import pictures
from fusmae_lite.show.locator import Locator, Place, place_of, places_by_name
from fusmae_lite.show.panels import SIDE, Panel, draw_panels
from fusmae_lite.show.recipes import band_panel, composite_panel
from fusmae_lite.show.viewers.base import PairViewer, Source, look_choices

#: What is told of a patch's meta.
TOLD = ("split", "country", "season", "scene", "acquisition_date", "tile")


class PatchViewer(PairViewer):
    """Each pair of an archive: composites, one band as it lies on disk and its histogram, labels, place on a map.

    Args:
        archive: an archive of any format, or its folder; the bundled patches if absent.
        pair: row of the archive to begin with.
    """

    def __init__(self, archive: Source = None, *, pair: int = 0) -> None:
        super().__init__("Patch", archive, pair, live=True)
        self.locator = Locator(self.archive)
        self._read = lru_cache(1)(self.archive.read)
        shown = self._read(pair).bands
        self.looks = look_choices(list(shown))
        bands = [(f"{name.upper()} {band}", (name, band)) for name in shown for band in shown[name]]
        self.band = w.SelectionSlider(
            options=bands, description="band", continuous_update=True, layout=w.Layout(width="270px")
        )
        self.assemble([self.pair, self.band], list(self.looks.values()))

    @property
    def place(self) -> tuple[Place | None, str]:
        """Where the pair lies, by its files or else by its name, and the same in words."""
        patch = self._read(self.pair.value)
        place = place_of(patch)
        if place is not None:
            left, bottom, right, top = patch.bounds
            return place, f"Centre {in_degrees(place)} ({patch.crs}, {right - left:g} x {top - bottom:g} m)"
        for place in places_by_name(self.archive, [self.pair.value]).tolist():
            return place, f"Centre {in_degrees(place)}, by its name: the files carry no coordinates"
        return None, "No map position: neither the files nor the names of this archive tell one"

    def draw(self) -> tuple[bytes, str]:
        patch, (name, band) = self._read(self.pair.value), self.band.value
        panels = []
        for sensor, control in self.looks.items():
            image = same_side(patch.bands[sensor], get_modality(sensor).bands)
            panels.append(composite_panel(control.value, sensor, image))
        values = patch.bands[name][band] / get_modality(name).scale
        mean, std, low, high = pictures.band_statistics(name, band)
        unit, here = get_modality(name).unit, float(values.mean())
        alone = band_panel(values, name, band)
        height, width = values.shape
        panels.append(replace(alone, title=f"{band} alone", caption=f"{height} x {width} px, {alone.caption}"))
        ends = f"{low:.2g} to {high:.2g} {unit}\nline: mean, grey: 1 deviation"
        panels.append(Panel(pictures.histogram(values, name, band, SIDE), f"{band}: histogram", ends))
        place, where = self.place
        panels.append(Panel(self.locator.picture(place), "where it lies", self.locator.caption))
        facts = ", ".join(f"{key} {value}" for key, value in patch.meta.items() if value and key in TOLD)
        compared = f"mean {here:.3g} {unit} here, {mean:.3g} in the statistics"
        words = [
            patch.name,
            f"Labels: {', '.join(patch.labels) or 'no labels'}",
            where,
            facts,
            f"{band}: {compared}; normalised it is {(here - mean) / std:+.2f}.",
        ]
        return draw_panels([panels], self.pair_title(patch.labels)), ". ".join(text for text in words if text)


def same_side(bands: Mapping[str, np.ndarray], order: Sequence[str]) -> np.ndarray:
    """Bands of any side -> (C, H, W) at the largest; pixels are repeated, for looking at and nothing else."""
    side = max(band.shape[0] for band in bands.values())
    places = {len(band): np.arange(side) * len(band) // side for band in bands.values()}
    return np.stack([bands[name][np.ix_(places[len(bands[name])], places[len(bands[name])])] for name in order])


def in_degrees(place: Place) -> str:
    """Degrees as people write them: ``48.1172 N, 12.7469 E``."""
    east, north = place
    return f"{abs(north):.4f} {'N' if north >= 0 else 'S'}, {abs(east):.4f} {'E' if east >= 0 else 'W'}"
