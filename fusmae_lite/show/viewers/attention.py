"""Where a patch looks: cross-attention and self-attention of a model, patch by patch and as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import permutations
from typing import Any

import numpy as np

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.show.charts import attention_panels, block_shares
from fusmae_lite.show.panels import ERROR_MAP, MATRIX_MAP, Panel, Scale, draw_panels
from fusmae_lite.show.pictures import outline
from fusmae_lite.show.viewers.base import PairViewer, PatchGrid, Source, choice, load_models, slider

Layer = tuple[str, int]  # ("cross", 0), ("self", number of the plain block) or ("decoder", 0)
Maps = Mapping[str, Any]  # of one pair, from FusMAE.attention_maps


class AttentionViewer(PairViewer):
    """Click a patch in one sensor and see where it looks in the other; nothing is hidden from the encoder here.

    Args:
        model: a shipped name, a checkpoint or a model with at least two sensors.
        plain: a model with ``fusion="none"`` whose first block, self-attention over all sensors, is drawn beside.
    """

    def __init__(
        self,
        archive: Source = None,
        model: str | FusMAE = "xae-lite",
        *,
        pair: int = 0,
        plain: str | FusMAE | None = None,
    ) -> None:
        models = load_models([model] if plain is None else [model, plain])
        (self.name, self.model), *others = models.items()
        if others and (fusion := others[0][1].config.fusion) != "none":
            raise InputError(f"the plain model has fusion={fusion!r}", 'give one with fusion="none"')
        config, names = self.model.config, self.model.config.modalities
        if len(names) < 2:
            raise InputError(f"{self.name} has one sensor, {names[0]}", "choose a model with two sensors")
        super().__init__("Attention", archive, pair, config)
        self.grid = config.grid
        self._maps = lru_cache(1)(lambda _pair: [each.attention_maps(self.images) for each in models.values()])
        pairs = permutations(names, 2)
        self.direction = choice("direction", [(f"{q.upper()} looks at {k.upper()}", (q, k)) for q, k in pairs])
        self.layer = choice("layer", layers_of(self.model))
        self.head = choice("head", [("mean of heads", -1), *((f"head {h + 1}", h) for h in range(config.heads))])
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
        weights = weights_between(self.maps, self.layer.value, query, key, head)
        top = max(2.0, round(float(np.quantile(weights, 0.995)), 1))
        panels = attention_panels(rgbs[query], rgbs[key], weights[index], index, query, key, top)
        asks, answers = get_modality(query).title, get_modality(key).title
        spread, most, bits = entropy(weights), int(weights[index].argmax()), float(np.log2(weights.shape[1]))
        scale, square = Scale(ERROR_MAP, 0, round(bits, 1), "bits"), (self.grid, self.grid)
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


def layers_of(model: FusMAE) -> list[tuple[str, Layer]]:
    """(label, layer) of each attention of the encoder and the XAttnDecoder."""
    first, last = int(model.xattn_encoder is not None), int(model.xattn_decoder is not None)
    return (
        [("cross-attention, block 1", ("cross", 0))] * first
        + [(f"self-attention, block {n + 1 + first}", ("self", n)) for n in range(len(model.blocks))]
        + [("cross-attention before the decoders", ("decoder", 0))] * last
    )


def weights_between(maps: Maps, layer: Layer, query: str, key: str, head: int | None) -> np.ndarray:
    """Attention from each patch of `query` to each of `key`, (n_query, n_key) in multiples of uniform attention.

    `layer` says which softmax, `head` which head; None is the mean of all.
    """
    kind, number = layer
    rows, columns = maps["slices"][query], maps["slices"][key]
    if kind == "self":
        return _of_head(maps["self"][number], head)[rows, columns] * maps["self"][number].shape[-1]
    matrix = _of_head(maps[kind][query], head)
    before = rows.stop - rows.start if rows.start < columns.start else 0  # the query's own tokens are no keys
    return matrix[:, columns.start - before : columns.stop - before] * matrix.shape[1]


def _of_head(matrix: Any, head: int | None) -> np.ndarray:
    """(1, H, n, m) -> (n, m), of one head or the mean of all."""
    return (matrix[0].mean(dim=0) if head is None else matrix[0, head]).numpy().astype(np.float64)


def entropy(weights: np.ndarray) -> np.ndarray:
    """Entropy in bits of each row of (n, m), rows scaled to sum to 1 first: 0 looks at one patch, log2 m everywhere."""
    share = weights / weights.sum(axis=1, keepdims=True)
    return -(share * np.log2(np.clip(share, 1e-12, None))).sum(axis=1)


def matrix_panels(maps: Maps, plain: Maps | None = None, *, layer: Layer, head: int | None) -> tuple[list[Panel], str]:
    """Cross-attention as the block matrix it is, with nothing on the diagonal, beside plain self-attention matrices.

    What each sensor keeps to itself is told in words, too.
    """
    names = [name for name in maps["slices"] if name != "cls"]
    scale = Scale(MATRIX_MAP, 0, 3, "times uniform")
    order = f"rows and columns: {', '.join(name.upper() for name in names)}"
    panels, words = [], []
    kind, number = layer if layer[0] != "self" else (next((k for k in ("cross", "decoder") if maps[k]), None), layer[1])
    if kind is not None:
        cross = np.full((maps["slices"]["cls"].start,) * 2, np.nan)  # no sensor to itself
        for query, key in permutations(names, 2):
            block = maps["slices"][query], maps["slices"][key]
            cross[block] = weights_between(maps, (kind, 0), query, key, head)
        panels.append(Panel(scale.paint(cross), "cross-attention", order, scale=scale))
    block = number + 1 + bool(maps["cross"])
    sources = [(f"self-attention, block {block}", f"self-attention of block {block}", maps, number, head)]
    if plain:
        said = "the first block of the model without fusion"
        sources.append(("no fusion: self-attention, block 1", said, plain, 0, None))
    for title, said, source, number, head in sources:
        matrix = _of_head(source["self"][number], head)
        shares = block_shares(matrix, source["slices"])
        kept = {name.upper(): f"{shares[name, name]:.0%}" for name in names}
        inside = ", ".join(f"{name} to itself {share}" for name, share in kept.items())
        panels.append(Panel(scale.paint(matrix * len(matrix)), title, f"{order}\n{inside}", scale=scale))
        keeps = " and ".join(f"{name} keeps {share}" for name, share in kept.items())
        words.append(f"In {said} {keeps} of its attention to itself.")
    return panels, " ".join(words)
