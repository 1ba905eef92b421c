"""Where patches lie: places told by their names, and a small map of dots with one of them marked.

No coast lines: they would be one more file to carry. The map is a graticule, the archive's patches and a cross.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw
from rasterio.warp import transform

from fusmae_lite.data.archives import Archive, Patch
from fusmae_lite.show.panels import INK, PALE, SIDE, font

#: Patches of a larger archive are taken evenly: more dots than this would only cover each other.
MOST_DOTS = 2000
#: Colours of the dots and of the one on show (Okabe and Ito's blue and vermilion); the latter has a cross as well.
DOT, MARK = "#56B4E9", "#D55E00"
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
    found = re.fullmatch(r"(\d\d)([C-HJ-NP-X])([A-HJ-NP-Z])([A-HJ-NP-V])", tile)
    if not found or not 1 <= int(found[1]) <= 60:
        raise ValueError(f"{tile!r} is no tile")
    zone, band = int(found[1]), found[2]
    column = COLUMNS.index(found[3]) % 8 + 1
    row = (ROWS.index(found[4]) - (5 if zone % 2 == 0 else 0)) % 20
    south = band < "N"
    middle = (-80 + 8 * BANDS.index(band) + 4) * 111_000 + (10_000_000 if south else 0)
    turns = round((middle - 100_000 * row) / 2_000_000)
    upper = 100_000 * (row + 1) + 2_000_000 * turns
    return f"EPSG:{327 if south else 326}{zone:02d}", 100_000 * column + RIM[0], upper + RIM[1]


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
    found = [np.transpose(transform(crs, "EPSG:4326", *np.transpose(centres))) for crs, centres in zones.items()]
    return np.concatenate(found) if found else np.empty((0, 2))


class Locator:
    """The map of an archive: a graticule over the extent of its patches, each of them a dot.

    Args:
        archive: whose patches; places come from their names, of at most :data:`MOST_DOTS`.
    """

    def __init__(self, archive: Archive) -> None:
        rows = np.unique(np.linspace(0, len(archive) - 1, MOST_DOTS).round().astype(int))
        self.places = places_by_name(archive, rows)
        self.low, self.high = _extent(self.places)
        self._page = self._graticule()

    @property
    def caption(self) -> str:
        """What the dots are, in two short lines."""
        if not len(self.places):
            return "the whole Earth; names of\nthis archive tell no places"
        return f"dots: {len(self.places)} patches, placed\nby their names; no coast lines"

    def picture(self, here: Place | None) -> np.ndarray:
        """The map with a cross and a dot at `here`: (SIDE, SIDE, 3) in 0..1."""
        page = self._page.copy()
        pen = ImageDraw.Draw(page)
        if here is None:
            pen.text(
                (SIDE / 2, SIDE / 2), "no map position", INK, font(12), anchor="mm", stroke_width=3, stroke_fill="white"
            )
        else:
            x, y = self.pixel(here)
            for line in ([(x, 0), (x, y - 7)], [(x, y + 7), (x, SIDE)], [(0, y), (x - 7, y)], [(x + 7, y), (SIDE, y)]):
                pen.line(line, MARK)
            pen.ellipse([x - 4, y - 4, x + 4, y + 4], MARK, INK)
        return np.asarray(page, dtype=np.float64) / 255

    def pixel(self, place: Sequence[float]) -> tuple[float, float]:
        """Column and row of a place; one beyond the edge of the map is put at the edge."""
        share = np.clip((np.asarray(place) - self.low) / (self.high - self.low), 0, 1)
        return float(share[0] * (SIDE - 1)), float((1 - share[1]) * (SIDE - 1))

    def _graticule(self) -> Image.Image:
        page = Image.new("RGB", (SIDE, SIDE), "white")
        pen, small = ImageDraw.Draw(page), font(10)
        marks = [
            MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(*ends) for ends in zip(self.low, self.high, strict=True)
        ]
        for east in marks[0]:
            x = self.pixel((east, self.low[1]))[0]
            if self.low[0] < east < self.high[0]:
                pen.line([(x, 0), (x, SIDE)], "#DDDDDD")
                pen.text((x + 2, SIDE - 13), _degrees(east, "EW"), PALE, small)
        for north in marks[1]:
            y = self.pixel((self.low[0], north))[1]
            if 14 < y < SIDE - 16:
                pen.line([(0, y), (SIDE, y)], "#DDDDDD")
                pen.text((3, y - 12), _degrees(north, "NS"), PALE, small)
        for place in self.places:
            x, y = self.pixel(place)
            pen.ellipse([x - 2, y - 2, x + 2, y + 2], DOT)
        pen.rectangle([0, 0, SIDE - 1, SIDE - 1], outline="#AAAAAA")
        return page


def _extent(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(west, south) and (east, north) of a map as wide as it is high in kilometres; the Earth if no places."""
    if not len(places):
        return np.array([-180.0, -90.0]), np.array([180.0, 90.0])
    low, high = places.min(axis=0), places.max(axis=0)
    middle = (low + high) / 2
    stretch = np.array([np.cos(np.radians(middle[1])), 1])  # a degree east is shorter than one north
    reach = max(0.6, 0.56 * ((high - low) * stretch).max()) / stretch
    return middle - reach, middle + reach


def _degrees(value: float, letters: str) -> str:
    return f"{abs(value):g}°{letters[int(value < 0)] if value else ''}"
