"""An archive, patch by patch: composites, single bands, what normalisation makes of them, labels, place on a map."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import ipywidgets as w
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rasterio.warp import transform

from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Archive, Patch
from fusmae_lite.show.figures import band_panel, composite_panel
from fusmae_lite.show.panels import PALE, SIDE, Panel
from fusmae_lite.show.pictures import SPARE_COLOURS, band_statistics, draw_coast, histogram
from fusmae_lite.show.viewers.base import PairViewer, Rows, Source, look_choices

#: What is told of a patch's meta.
TOLD = ("split", "country", "season", "scene", "acquisition_date", "tile")
#: Patches of a larger archive are taken evenly: more dots on the map than this would only cover each other.
MOST_DOTS = 2000
HERE = SPARE_COLOURS[1]  # colour of the cross on the map
Place = tuple[float, float]  # degrees east, degrees north


class PatchViewer(PairViewer):
    """Each pair of an archive: composites, one band as it lies on disk and its histogram, labels, place on a map."""

    def __init__(self, archive: Source = None, *, pair: int | None = None) -> None:
        super().__init__("Patch", archive, pair)
        self.locator = Locator(self.archive)
        self._read = lru_cache(1)(self.archive.read)
        shown = self._read(self.pair.value).bands
        self.looks = look_choices(list(shown))
        bands = [(f"{name.upper()} {band}", (name, band)) for name in shown for band in shown[name]]
        self.band = w.SelectionSlider(options=bands, description="band", layout=w.Layout(width="270px"))
        self.assemble([self.band, *self.looks.values()])

    @property
    def place(self) -> tuple[Place | None, str]:
        """Where the pair lies, by its files or else by its name, and the same in words."""
        patch = self._read(self.pair.value)
        if place := place_of(patch):
            left, bottom, right, top = patch.bounds
            return place, f"Centre {in_degrees(place)} ({patch.crs}, {right - left:g} x {top - bottom:g} m)"
        for place in places_by_name(self.archive, [self.pair.value]).tolist():
            return place, f"Centre {in_degrees(place)}, by its name: the files carry no coordinates"
        return None, "No map position: neither the files nor the names of this archive tell one"

    @property
    def originals(self) -> dict[str, np.ndarray]:
        """See :class:`PairViewer`; as the pair lies on disk, coarse pixels repeated."""
        bands = self._read(self.pair.value).bands
        return {name: same_side(bands[name], get_modality(name).bands) for name in bands}

    def read(self, across: float, down: float) -> str:
        """See :class:`PairViewer`; and the band that stands alone, in its own pixels."""
        name, band = self.band.value
        sensor, values = get_modality(name), self._read(self.pair.value).bands[name][band]
        value = values[int(down * len(values)), int(across * len(values))] / sensor.scale
        return f"{super().read(across, down)}; {band} {value:.3g} {sensor.unit}"

    def draw(self) -> tuple[Rows, str, str]:
        patch, (name, band) = self._read(self.pair.value), self.band.value
        originals = self.originals
        panels = [composite_panel(control.value, sensor, originals[sensor]) for sensor, control in self.looks.items()]
        values = patch.bands[name][band] / get_modality(name).scale
        mean, std, low, high = band_statistics(name, band)
        unit, here = get_modality(name).unit, float(values.mean())
        alone = band_panel(values, name, band)
        height, width = values.shape
        panels.append(replace(alone, title=f"{band} alone", caption=f"{height} x {width} px, {alone.caption}"))
        ends = f"{low:.2g} to {high:.2g} {unit}\nline: mean, grey: 1 deviation"
        panels.append(Panel(histogram(values, name, band, SIDE), f"{band}: histogram", ends, ground=False))
        place, where = self.place
        panels.append(Panel(self.locator.picture(place), "where it lies", self.locator.caption, ground=False))
        facts = ", ".join(f"{key} {value}" for key, value in patch.meta.items() if value and key in TOLD)
        compared = f"mean {here:.3g} {unit} here, {mean:.3g} in the statistics"
        normalised = f"{band}: {compared}; normalised it is {(here - mean) / std:+.2f}."
        words = [patch.name, f"Labels: {', '.join(patch.labels) or 'no labels'}", where, facts, normalised]
        return [panels], self.pair_title(patch.labels), ". ".join(text for text in words if text)


def same_side(bands: Mapping[str, np.ndarray], order: Sequence[str]) -> np.ndarray:
    """Bands of any side -> (C, H, W) at the largest, by repeating pixels."""
    side = max(map(len, bands.values()))
    places = {name: np.arange(side) * len(band) // side for name, band in bands.items()}
    return np.stack([bands[name][np.ix_(places[name], places[name])] for name in order])


def in_degrees(place: Place) -> str:
    """Degrees as people write them: ``48.1172 N, 12.7469 E``."""
    east, north = place
    return f"{abs(north):.4f} {'N' if north >= 0 else 'S'}, {abs(east):.4f} {'E' if east >= 0 else 'W'}"


def place_of(patch: Patch) -> Place | None:
    """Centre of a patch by the coordinates of its files; None where they have none."""
    if patch.crs is None or patch.bounds is None:
        return None
    left, bottom, right, top = patch.bounds
    (east,), (north,) = transform(patch.crs, "EPSG:4326", [(left + right) / 2], [(bottom + top) / 2])
    return east, north


def places_by_name(archive: Archive, rows: Sequence[int]) -> np.ndarray:
    """Centres of patches whose S1 names tell them, ``..._<tile>_<column>_<row>``: (n, 2) degrees east and north."""
    zones: dict[str, list[Place]] = {}
    for row in rows:
        try:
            tile, *cell = archive.keys(int(row)).get("s1", "").split("_")[-3:]
            crs, left, top = tile_corner(tile)
            across, down = (1200 * (int(number) + 0.5) for number in cell)
        except ValueError:
            continue
        zones.setdefault(crs, []).append((left + across, top - down))
    places = [np.transpose(transform(crs, "EPSG:4326", *np.transpose(centres))) for crs, centres in zones.items()]
    return np.concatenate([np.empty((0, 2)), *places])


def tile_corner(tile: str) -> tuple[str, float, float]:
    """Coordinate system, left and upper edge in metres, of a Sentinel-2 tile such as ``34VER``; ValueError for others.

    The letters name a 100 km square of MGRS: columns repeat every three zones, rows every 2,000 km and begin at F in
    even zones. A tile begins 20 m west and 40 m north of its square.
    """
    parts = re.fullmatch(r"(\d\d)([C-HJ-NP-X])([A-HJ-NP-Z])([A-HJ-NP-V])", tile)
    if not parts or not 1 <= int(parts[1]) <= 60:
        raise ValueError(f"{tile!r} is no tile")
    letters, zone, south = "ABCDEFGHJKLMNPQRSTUVWXYZ", int(parts[1]), parts[2] < "N"
    band, column, row = (letters.index(letter) for letter in parts.groups()[1:])
    row = (row - (5 if zone % 2 == 0 else 0)) % 20
    middle = (8 * (band - 2) - 76) * 111_000 + (10_000_000 if south else 0)
    upper = 100_000 * (row + 1) + 2_000_000 * round((middle - 100_000 * row) / 2_000_000)
    return f"EPSG:{327 if south else 326}{zone:02d}", 100_000 * (column % 8 + 1) - 20, upper + 40


class Locator:
    """The map of an archive: each patch a dot placed by its name, over the coasts."""

    def __init__(self, archive: Archive) -> None:
        rows = np.unique(np.linspace(0, len(archive) - 1, MOST_DOTS).round().astype(int))
        self.places = places_by_name(archive, rows)
        self.low, self.high = np.array([-180.0, -90.0]), np.array([180.0, 90.0])
        self.caption = "the whole Earth; names of\nthis archive tell no places"
        if len(self.places):
            self.caption = f"dots: {len(self.places)} patches, placed by\ntheir names; lines: coasts"
            low, high = self.places.min(axis=0), self.places.max(axis=0)
            middle = (low + high) / 2
            stretch = np.array([np.cos(np.radians(middle[1])), 1])  # a degree east is shorter than one north
            reach = max(0.6, 0.56 * ((high - low) * stretch).max()) / stretch
            self.low, self.high = middle - reach, middle + reach
        figure = Figure(figsize=(SIDE / 100, SIDE / 100), dpi=100)
        canvas, axes = FigureCanvasAgg(figure), figure.add_axes((0, 0, 1, 1))
        draw_coast(axes)
        axes.scatter(*self.places.T, s=9, color=SPARE_COLOURS[3], lw=0)
        axes.set(xlim=(self.low[0], self.high[0]), ylim=(self.low[1], self.high[1]), axisbelow=True)
        axes.spines[:].set_color("#AAAAAA")
        axes.grid(color="#DDDDDD")
        for axis, letters, pad in ((axes.xaxis, ("", "E", "W"), -12), (axes.yaxis, ("", "N", "S"), -24)):
            axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], prune="both"))
            axis.set_major_formatter(lambda value, _, ends=letters: f"{abs(value):g}°{ends[int(np.sign(value))]}")
            axis.set_tick_params(length=0, pad=pad, labelsize=7, labelcolor=PALE)
        canvas.draw()
        self._page = np.asarray(canvas.buffer_rgba())[..., :3] / 255

    def picture(self, here: Place | None) -> np.ndarray:
        """The map with a cross at `here`, (SIDE, SIDE, 3) in 0..1; faded where no place is known."""
        if here is None:
            return 0.7 + 0.3 * self._page
        page = self._page.copy()
        column, row = (round(place) for place in self.pixel(here))
        page[row, :] = page[:, column] = to_rgb(HERE)
        for reach, colour in ((4, "black"), (3, HERE)):
            page[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1] = to_rgb(colour)
        return page

    def pixel(self, place: Sequence[float]) -> tuple[float, float]:
        """Column and row of a place; one beyond the edge of the map is put at the edge."""
        share = np.clip((np.asarray(place) - self.low) / (self.high - self.low), 0, 1)
        return float(share[0] * (SIDE - 1)), float((1 - share[1]) * (SIDE - 1))
