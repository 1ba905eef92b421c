"""Search in an archive: a pair, chosen on a map of vectors or by its number, and the pairs most like it."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import product
from textwrap import shorten

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw
from sklearn.decomposition import PCA

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Archive, open_archive
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation.retrieval import cosines, jaccard, search
from fusmae_lite.show.panels import INK, PALE, Panel, font
from fusmae_lite.show.pictures import COLOURS, colour_of, composite
from fusmae_lite.show.viewers.base import Rows, Source, Viewer, choice, slider

#: Side of the map on the screen, fields along it that can be clicked, pairs shown beside the query, radius of a dot.
GRID_SIDE, FIELDS, FOUND, DOT = 300, 100, 3, 4
OTHERS, ANY = "left out", "may be found"
Vectors = Mapping[str, ArrayLike]


class SearchViewer(Viewer):
    """Click a dot of the map or move the slider; below stand the pairs most like that one, in both sensors.

    `vectors` are (n, D) by what the encoder saw, ``"s1"``, ``"s2"`` or ``"s1+s2"``, standardised; those of two are
    searched with each other. Row i is of row `rows[i]` of the archive, or of row i. What shares its entry in
    `groups` (n,), its tile, can be left out. `pair` is the row of `vectors` to begin with.
    """

    def __init__(
        self, archive: Source, vectors: Vectors, *, rows: ArrayLike = (), groups: ArrayLike = (), pair: int = 0
    ) -> None:
        super().__init__("Search")
        self.archive = archive if isinstance(archive, Archive) else open_archive(archive)
        self.vectors = {name: np.asarray(x, dtype=np.float64) for name, x in vectors.items()}
        count = len(next(iter(self.vectors.values()), ()))
        self.rows, self.groups = (np.asarray(x) if len(x) else np.arange(count) for x in (rows, groups))
        if not count or {*map(len, self.vectors.values()), len(self.rows), len(self.groups)} != {count}:
            raise InputError(f"{count} vectors, {len(self.rows)} rows", "give a vector, row and group for each pair")
        if not 0 <= pair < count:
            raise InputError(f"no pair {pair} among {count}", f"choose 0 to {count - 1}")
        names = list(dict.fromkeys("+".join(self.vectors).split("+")))
        data = PairDataset(self.archive, indices=self.rows, modalities=names, normalise=False)
        self._rgbs = lru_cache(32)(lambda i: {n: composite(None, n, x.numpy()) for n, x in data[i]["images"].items()})
        self._places = lru_cache(8)(self._project)
        self.pair = slider("pair", 0, count - 1, pair)
        ways = [(a, b) for a, b in product(self.vectors, repeat=2) if a == b or "+" not in a + b]
        self.way = choice("search", [(f"{a.upper()} finds {b.upper()}", (a, b)) for a, b in ways])
        self.own = choice("its tile", (OTHERS, ANY))
        self.assemble([self.pair, self.way, self.own])

    def paint(self, _name: str, cells: Sequence[int]) -> None:
        """Choose the pair whose dot is nearest to the middle of the field that was clicked."""
        row, column = divmod(cells[0], FIELDS)
        away = self._places(self.way.value[0]) - (np.array([column, row]) + 0.5) * GRID_SIDE / FIELDS
        self.pair.value = int(np.square(away).sum(axis=1).argmin())

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the pairs most like the chosen one, best first, and all cosines (n,)."""
        (query, database), i = self.way.value, self.pair.value
        similar = cosines(self.vectors[query][[i]], self.vectors[database])
        allowed = self.groups != self.groups[i]
        if self.own.value == ANY:  # in the other sensor its partner is what is looked for
            allowed = (np.arange(len(self.rows)) != i) | (query != database)
        found = search(similar, FOUND, allowed[None])[0]
        return found[found >= 0], similar[0]

    def draw(self) -> tuple[Rows, str, str]:
        (query, database), i = self.way.value, self.pair.value
        found, similar = self.found()
        likeness = jaccard((labels := self.archive.labels[self.rows])[[i]], labels)[0]
        panels: dict[str, list[Panel]] = {name: [] for name in self._rgbs(i)}
        words = []
        for place, j in enumerate([i, *found.tolist()]):
            title = f"{place}: pair {self.rows[j]}{', its partner' * (i == j)}" if place else f"pair {self.rows[i]}"
            told = f"cosine {similar[j]:.2f}, likeness {likeness[j]:.2f}" if place else "the query"
            for name, rgb in self._rgbs(j).items():
                used = name in (database if place else query).split("+")
                caption = f"{told}\n{shorten(self._labels(j), 32, placeholder='…')}" if used else ""
                heading = title if place else f"{get_modality(name).title}, {title}"
                panels[name].append(Panel(rgb, heading, caption, colour_of(name) if used else INK, ground=False))
            words += [f"{title} ({self._labels(j)}), {told}"] if place else []
        asked = f"{query.upper()} of {self._told(i)} finds in {database.upper()}, its own tile {self.own.value}: "
        return [[self._map(i, found)], *panels.values()], self._told(i), asked + ("; ".join(words) or "nothing") + "."

    def _labels(self, i: int) -> str:
        on = np.flatnonzero(self.archive.labels[self.rows[i]])
        return ", ".join(self.archive.classes[c].split(",")[0] for c in on) or "no labels"

    def _told(self, i: int) -> str:
        return f"{self.archive.kind_of_pairs[:-1]} {(r := self.rows[i])}: {self.archive.names[r]} ({self._labels(i)})"

    def _project(self, name: str) -> np.ndarray:
        """Vectors by their two main components, in pixels of the map (n, 2)."""
        x = self.vectors[name]
        flat = PCA(min(2, *x.shape), random_state=0).fit_transform(x)
        flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
        flat = (flat - flat.min(axis=0)) / np.maximum(np.ptp(flat, axis=0), 1e-12)
        return 3 * DOT + flat * [1, -1] * (GRID_SIDE - 6 * DOT) + [0, GRID_SIDE - 6 * DOT]

    def _map(self, i: int, found: np.ndarray) -> Panel:
        side, places = 2 * GRID_SIDE, 2 * self._places(self.way.value[0])
        pen = ImageDraw.Draw(page := Image.new("RGB", (side, side), "white"))
        pen.rectangle((0, 0, side - 1, side - 1), outline="#BBBBBB", width=2)
        for text, place, anchor in (("component 1", (side - 8, side - 6), "rd"), ("component 2", (8, 6), "la")):
            pen.text(place, text, PALE, font(22), anchor=anchor)
        marks = *((j, 2, "#BBBBBB") for j in range(len(places))), *((j, 3, COLOURS["s2"]) for j in found)
        for j, size, colour in (*marks, (i, 3, COLOURS["s1"])):
            pen.circle(tuple(places[j]), size * DOT, colour, "white")
        told = "two main components of the vectors;\nblue: the query, orange: what it finds"
        return Panel(
            np.asarray(page) / 255, "Map: click a dot", told, name="map", grid=FIELDS, side=GRID_SIDE, ground=False
        )
