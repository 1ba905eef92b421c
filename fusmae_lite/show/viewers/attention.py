"""Where a patch looks: cross-attention and self-attention of a model, patch by patch and as a whole."""

from collections.abc import Mapping
from functools import lru_cache
from itertools import permutations
from typing import Any

import numpy as np
from torch import Tensor

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.show.charts import attention_panels, block_shares
from fusmae_lite.show.panels import ERROR_MAP, MATRIX_MAP, Panel, Scale, draw_panels
from fusmae_lite.show.pictures import outline
from fusmae_lite.show.viewers.base import Model, PairViewer, PatchGrid, Source, choice, load_models, slider

Layer = tuple[str, int]  # ("cross", 0), ("self", number of the plain block) or ("decoder", 0)
Maps = Mapping[str, Any]  # of one pair, from FusMAE.attention_maps


class AttentionViewer(PairViewer):
    """Click a patch in one sensor and see where it looks in the other; nothing is hidden from the encoder here.

    `model` is a shipped name, a checkpoint or a model; the first block of `plain`, one with ``fusion="none"`` and so
    with self-attention over all sensors, is drawn beside it.
    """

    def __init__(
        self, archive: Source = None, model: Model = "xae-lite", *, pair: int = 0, plain: Model | None = None
    ) -> None:
        models = load_models([model] if plain is None else [model, plain])
        self.name, (config, *others) = next(iter(models)), [each.config for each in models.values()]
        if others and others[0].fusion != "none":
            raise InputError(f"the plain model has fusion={others[0].fusion!r}", 'give one with fusion="none"')
        names = config.modalities
        if len(names) < 2:
            raise InputError(f"{self.name} has one sensor, {names[0]}", "choose a model with two sensors")
        super().__init__("Attention", archive, pair, config)
        self.grid = config.grid
        self._maps = lru_cache(1)(lambda _pair: [each.attention_maps(self.images) for each in models.values()])
        pairs = permutations(names, 2)
        self.direction = choice("direction", [(f"{q.upper()} looks at {k.upper()}", (q, k)) for q, k in pairs])
        layers = {"cross-attention, block 0": ("cross", 0)} if self.maps["cross"] else {}
        first = len(layers)  # XAttnEncoder is block 0
        layers |= {f"self-attention, block {n + first}": ("self", n) for n in range(len(self.maps["self"]))}
        layers |= {"cross-attention before the decoders": ("decoder", 0)} if self.maps["decoder"] else {}
        self.layer = choice("layer", layers.items())
        self.head = choice("head", [("mean of heads", -1), *((f"head {h}", h) for h in range(config.heads))])
        middle = self.grid // 2
        self.row, self.column = (slider(label, 0, self.grid - 1, middle, live=True) for label in ("row", "column"))
        self.grids = {name: PatchGrid(name, self.grid, self.ask) for name in names}
        places, hows = [self.pair, self.row, self.column], [self.direction, self.layer, self.head]
        self.assemble(places, hows, list(self.grids.values()))

    def ask(self, name: str, index: int) -> None:
        """Let patch `index` of sensor `name` ask another sensor."""
        self.held = True
        if self.direction.value[0] != name:
            self.direction.value = next(pair for _, pair in self.direction.options if pair[0] == name)
        self.row.value, self.column.value = divmod(index, self.grid)
        self.held = False
        self.refresh()

    @property
    def maps(self) -> Maps:
        """``FusMAE.attention_maps`` of the pair on show, computed once a pair."""
        return self._maps(self.pair.value)[0]

    def draw(self) -> tuple[bytes, str]:
        (query, key), head = self.direction.value, None if self.head.value < 0 else self.head.value
        index, rgbs = self.row.value * self.grid + self.column.value, self.rgbs
        for name, rgb in rgbs.items():
            self.grids[name].show(outline(rgb, index, self.grid), f"{get_modality(name).title}, click a patch")
        tokens = self.maps["slices"]
        weights = attention_matrix(self.maps, self.layer.value, head)[tokens[query], tokens[key]]
        top = max(2.0, round(float(np.quantile(weights, 0.995)), 1))
        panels = attention_panels(rgbs[query], rgbs[key], weights[index], index, query, key, top)
        asks, answers = get_modality(query).title, get_modality(key).title
        spread, most, bits = entropy(weights), int(weights[index].argmax()), float(np.log2(weights.shape[1]))
        scale, square = Scale(ERROR_MAP, round(bits, 1), "bits"), (self.grid, self.grid)
        mean, times = weights.mean(axis=0).reshape(square), panels[-1].scale
        own = f"{spread[index]:.2f} bits, mean {spread.mean():.2f}"
        panels += [
            Panel(times.paint(mean), "where all look", "mean of all patches", scale=times),
            Panel(scale.paint(spread.reshape(square)), "entropy of each patch", own, scale=scale),
        ]
        matrices, shares = matrix_panels(*self._maps(self.pair.value), layer=self.layer.value, head=head)
        title, (row, column) = self.pair_title(), divmod(most, self.grid)
        how = f"{self.name}, {self.layer.label}, {self.head.label}"
        words = (
            f"{how}; pair {title}. The patch in {panels[0].caption} of {asks} looks at {answers}: most at row {row}, "
            f"column {column}, {weights[index, most]:.2g} times uniform attention. Entropy {spread[index]:.2f} of at "
            f"most {bits:.2f} bits; all patches on average {spread.mean():.2f}. {shares}"
        )
        return draw_panels([panels, matrices], f"{how}; {title}"), words


def attention_matrix(maps: Maps, layer: Layer, head: int | None) -> np.ndarray:
    """Attention between all tokens in multiples of uniform attention, of one head or the mean of all (None).

    ``self`` includes CLS; the others, between sensors, are NaN from a sensor to itself.
    """

    def of_head(matrix: Tensor) -> np.ndarray:
        matrix = matrix[0].mean(dim=0) if head is None else matrix[0, head]
        return matrix.numpy().astype(np.float64) * matrix.shape[-1]

    kind, number = layer
    if kind == "self":
        return of_head(maps["self"][number])
    length = maps["slices"]["cls"].start
    matrix = np.full((length, length), np.nan)
    for query, weights in maps[kind].items():
        rows = maps["slices"][query]
        matrix[rows, np.r_[: rows.start, rows.stop : length]] = of_head(weights)
    return matrix


def entropy(weights: np.ndarray) -> np.ndarray:
    """Entropy in bits of each row of (n, m), rows scaled to sum to 1 first: 0 looks at one patch, log2 m everywhere."""
    share = weights / weights.sum(axis=1, keepdims=True)
    return -(share * np.log2(np.clip(share, 1e-12, None))).sum(axis=1)


def matrix_panels(maps: Maps, plain: Maps | None = None, *, layer: Layer, head: int | None) -> tuple[list[Panel], str]:
    """Cross-attention as the block matrix it is beside self-attention, and what each sensor keeps to itself in words.

    `plain`, of a model without fusion, is shown by its first block.
    """
    names = [name for name in maps["slices"] if name != "cls"]
    scale = Scale(MATRIX_MAP, 3, "times uniform")
    cross = layer if layer[0] != "self" else next(((kind, 0) for kind in ("cross", "decoder") if maps[kind]), None)
    block = layer[1] + bool(maps["cross"])
    sources = [("cross-attention", "", maps, cross, head)] if cross else []
    own = f"self-attention of block {block}"
    sources.append((f"self-attention, block {block}", own, maps, ("self", layer[1]), head))
    if plain:
        first = "the first block of the model without fusion"
        sources.append(("no fusion: self-attention, block 0", first, plain, ("self", 0), None))
    panels, words = [], []
    for title, told, source, layer, head in sources:
        matrix = attention_matrix(source, layer, head)
        caption = f"rows and columns: {', '.join(name.upper() for name in names)}"
        if told:
            shares = block_shares(matrix / len(matrix), source["slices"])
            kept = {name.upper(): f"{shares[name, name]:.0%}" for name in names}
            caption += "\n" + ", ".join(f"{name} to itself {share}" for name, share in kept.items())
            keeps = " and ".join(f"{name} keeps {share}" for name, share in kept.items())
            words.append(f"In {told} {keeps} of its attention to itself.")
        panels.append(Panel(scale.paint(matrix), title, caption, scale=scale))
    return panels, " ".join(words)
