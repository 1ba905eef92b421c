"""Where patches lie: places told by their names, and a small map of dots with one of them marked.

No coast lines: they would be one more file to carry.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rasterio.warp import transform

from fusmae_lite.data.archives import Archive, Patch
from fusmae_lite.show.panels import PALE, SIDE
from fusmae_lite.show.pictures import COLOURS, SPARE_COLOURS

#: Patches of a larger archive are taken evenly: more dots than this would only cover each other.
MOST_DOTS = 2000
#: Metres along a patch of BigEarthNet, and what a Sentinel-2 tile reaches beyond its square of 100 km.
CELL, RIM = 1200, (-20, 40)
#: Letters of the grid of 100 km squares (MGRS); I and O are left out because they look like numbers.
COLUMNS, ROWS = "ABCDEFGHJKLMNPQRSTUVWXYZ", "ABCDEFGHJKLMNPQRSTUV"
BANDS = "CDEFGHJKLMNPQRSTUVWX"

Place = tuple[float, float]  # degrees east, degrees north


def tile_corner(tile: str) -> tuple[str, float, float]:
    """Coordinate system, left and upper edge in metres, to 60 m, of a Sentinel-2 tile such as ``34VER``.

    The letters name a 100 km square: columns repeat every three zones, rows every 2,000 km and begin at F in even
    zones. Raises ValueError for a text that is no tile.
    """
    parts = re.fullmatch(r"(\d\d)([C-HJ-NP-X])([A-HJ-NP-Z])([A-HJ-NP-V])", tile)
    if not parts or not 1 <= int(parts[1]) <= 60:
        raise ValueError(f"{tile!r} is no tile")
    zone, band, south = int(parts[1]), BANDS.index(parts[2]), parts[2] < "N"
    row = (ROWS.index(parts[4]) - (5 if zone % 2 == 0 else 0)) % 20
    middle = (8 * band - 76) * 111_000 + (10_000_000 if south else 0)
    turns = round((middle - 100_000 * row) / 2_000_000)
    left = 100_000 * (COLUMNS.index(parts[3]) % 8 + 1)
    upper = 100_000 * (row + 1) + 2_000_000 * turns
    return f"EPSG:{327 if south else 326}{zone:02d}", left + RIM[0], upper + RIM[1]


def place_of(patch: Patch) -> Place | None:
    """Centre of a patch by the coordinates of its files; None where they have none."""
    if patch.crs is None or patch.bounds is None:
        return None
    left, bottom, right, top = patch.bounds
    (east,), (north,) = transform(patch.crs, "EPSG:4326", [(left + right) / 2], [(bottom + top) / 2])
    return east, north


def places_by_name(archive: Archive, rows: Sequence[int]) -> np.ndarray:
    """Centres of patches as their names tell them, ``..._<tile>_<column>_<row>``: (n, 2) degrees east and north.

    Sentinel-1 names of BigEarthNet do, others are left out, so n may be 0. No file is opened.
    """
    zones: dict[str, list[Place]] = {}
    for row in rows:
        parts = archive.keys(int(row)).get("s1", "").split("_")[-3:]
        try:
            crs, left, top = tile_corner(parts[0])
            centre = left + (int(parts[1]) + 0.5) * CELL, top - (int(parts[2]) + 0.5) * CELL
        except (ValueError, IndexError):
            continue
        zones.setdefault(crs, []).append(centre)
    places = [np.transpose(transform(crs, "EPSG:4326", *np.transpose(centres))) for crs, centres in zones.items()]
    return np.concatenate(places) if places else np.empty((0, 2))


class Locator:
    """The map of an archive: a graticule over the extent of its patches, each of them a dot placed by its name."""

    def __init__(self, archive: Archive) -> None:
        rows = np.unique(np.linspace(0, len(archive) - 1, MOST_DOTS).round().astype(int))
        self.places = places_by_name(archive, rows)
        self.low, self.high = _extent(self.places)
        self._page = self._scatter()

    @property
    def caption(self) -> str:
        """What the dots are, in two short lines."""
        if not len(self.places):
            return "the whole Earth; names of\nthis archive tell no places"
        return f"dots: {len(self.places)} patches, placed\nby their names; no coast lines"

    def picture(self, here: Place | None) -> np.ndarray:
        """The map with a cross at `here`, (SIDE, SIDE, 3) in 0..1; faded where no place is known."""
        if here is None:
            return 0.7 + 0.3 * self._page
        page = self._page.copy()
        column, row = (round(place) for place in self.pixel(here))
        page[row, :] = page[:, column] = to_rgb(COLOURS["s2"])
        for reach, colour in ((4, "black"), (3, COLOURS["s2"])):
            page[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1] = to_rgb(colour)
        return page

    def pixel(self, place: Sequence[float]) -> tuple[float, float]:
        """Column and row of a place; one beyond the edge of the map is put at the edge."""
        share = np.clip((np.asarray(place) - self.low) / (self.high - self.low), 0, 1)
        return float(share[0] * (SIDE - 1)), float((1 - share[1]) * (SIDE - 1))

    def _scatter(self) -> np.ndarray:
        """The map without a mark."""
        figure = Figure(figsize=(SIDE / 100, SIDE / 100), dpi=100)
        canvas, axes = FigureCanvasAgg(figure), figure.add_axes((0, 0, 1, 1))
        axes.scatter(*self.places.T, s=9, color=SPARE_COLOURS[3], lw=0)
        axes.set(xlim=(self.low[0], self.high[0]), ylim=(self.low[1], self.high[1]), axisbelow=True)
        axes.spines[:].set_color("#AAAAAA")
        axes.grid(color="#DDDDDD")
        for axis, letters, pad in ((axes.xaxis, ("", "E", "W"), -12), (axes.yaxis, ("", "N", "S"), -24)):
            axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], prune="both"))
            axis.set_major_formatter(lambda value, _, ends=letters: f"{abs(value):g}°{ends[int(np.sign(value))]}")
            axis.set_tick_params(length=0, pad=pad, labelsize=7, labelcolor=PALE)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3] / 255


def _extent(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(west, south) and (east, north) of a map as wide as it is high in kilometres; the Earth if no places."""
    if not len(places):
        return np.array([-180.0, -90.0]), np.array([180.0, 90.0])
    low, high = places.min(axis=0), places.max(axis=0)
    middle = (low + high) / 2
    stretch = np.array([np.cos(np.radians(middle[1])), 1])  # a degree east is shorter than one north
    reach = max(0.6, 0.56 * ((high - low) * stretch).max()) / stretch
    return middle - reach, middle + reach
