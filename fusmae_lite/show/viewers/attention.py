"""Where a patch looks: cross-attention and self-attention of a model, patch by patch and as a whole."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import permutations
from typing import Any

import numpy as np
from torch import Tensor

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.show.charts import attention_panels, block_shares
from fusmae_lite.show.panels import ERROR_MAP, MATRIX_MAP, Panel, Scale
from fusmae_lite.show.pictures import outline
from fusmae_lite.show.viewers.base import PairViewer, Rows, Source, choice, slider
from fusmae_lite.show.viewers.models import Model, load_models

Layer = tuple[str, int]  # ("cross", 0), ("self", number of the plain block) or ("decoder", 0)
#: Ends of the scales, the same for every pair, layer and head, so that colours can be compared: times uniform
#: attention, and bits of entropy below uniform attention. Side of the large pictures.
TOP, MISSING, LARGE = 5, 2.0, 360
Maps = Mapping[str, Any]  # of one pair, from FusMAE.attention_maps


class AttentionViewer(PairViewer):
    """Click a patch in one sensor and see where it looks in the other; nothing is hidden from the encoder here.

    `model` is a shipped name, a checkpoint or a model; the first block of `plain`, one with ``fusion="none"`` and so
    with self-attention over all sensors, is drawn beside it.
    """

    def __init__(
        self, archive: Source = None, model: Model = "xae-lite", *, pair: int | None = None, plain: Model | None = None
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
        self.row, self.column = (slider(label, 0, self.grid - 1, middle) for label in ("row", "column"))
        self.assemble([self.direction, self.layer, self.head], [self.row, self.column])

    def paint(self, name: str, cells: Sequence[int]) -> None:
        """Let the patch of sensor `name` where a stroke ends ask another sensor."""
        self.held = True
        if self.direction.value[0] != name:
            self.direction.value = next(pair for _, pair in self.direction.options if pair[0] == name)
        self.row.value, self.column.value = divmod(cells[-1], self.grid)
        self.held = False
        self.refresh()

    @property
    def maps(self) -> Maps:
        """``FusMAE.attention_maps`` of the pair on show, computed once a pair."""
        return self._maps(self.pair.value)[0]

    def read(self, across: float, down: float) -> str:
        """See :class:`PairViewer`; and the weight of the patch there."""
        weight = self.weights[int(down * self.grid) * self.grid + int(across * self.grid)]
        return f"{super().read(across, down)}; attention {weight:.2f} times uniform"

    def draw(self) -> tuple[Rows, str, str]:
        (query, key), head = self.direction.value, None if self.head.value < 0 else self.head.value
        index, rgbs = self.row.value * self.grid + self.column.value, self.rgbs
        tokens, square = self.maps["slices"], (self.grid, self.grid)
        weights = attention_matrix(self.maps, self.layer.value, head)[tokens[query], tokens[key]]
        self.weights = weights[index]
        large = {"grid": self.grid, "side": LARGE}
        asking, answering, looks = attention_panels(rgbs[query], rgbs[key], weights[index], index, query, key, TOP)
        asking = replace(asking, caption=f"{asking.caption}; click another patch", name=query, **large)
        above = f"{(weights > TOP).mean():.1%} of all are above"
        told = f"dark where the image is dark; the scale\nalways ends at {TOP}, {above}"
        over = outline(looks.picture * (0.3 + 0.7 * brightness(rgbs[key])), index, self.grid)
        looks = replace(looks, picture=over, title=f"where it looks {looks.caption}", caption=told, side=LARGE)
        answering = replace(answering, caption="same place framed; click a patch to ask", name=key, grid=self.grid)
        asks, answers = get_modality(query).title, get_modality(key).title
        spread, most, bits = entropy(weights), int(weights[index].argmax()), float(np.log2(weights.shape[1]))
        scale, mean = Scale(ERROR_MAP, MISSING, "bits"), weights.mean(axis=0).reshape(square)
        own = f"{bits - spread[index]:.2f} bits below {bits:.2f} here,\n{bits - spread.mean():.2f} on average"
        smaller = [
            answering,
            Panel(looks.scale.paint(mean), "where all look", "mean of all patches", scale=looks.scale),
            Panel(scale.paint(bits - spread.reshape(square)), "how narrowly each looks", own, scale=scale),
        ]
        matrices, shares = matrix_panels(*self._maps(self.pair.value), layer=self.layer.value, head=head)
        title, (row, column) = self.pair_title(), divmod(most, self.grid)
        how = f"{self.name}, {self.layer.label}, {self.head.label}"
        words = (
            f"{how}; pair {title}. The patch in row {self.row.value}, column {self.column.value} of {asks} looks at "
            f"{answers}: most at row {row}, column {column}, {weights[index, most]:.2g} times uniform attention. "
            f"Entropy {spread[index]:.2f} of at most {bits:.2f} bits; on average {spread.mean():.2f}. {shares}"
        )
        return [[asking, looks], smaller + matrices], f"{how}; {title}", words


def brightness(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> (H, W, 1) in 0..1, stretched so that a dark picture shows what is in it, too."""
    grey = rgb.mean(axis=-1, keepdims=True)
    low, high = np.quantile(grey, [0.02, 0.98])
    return np.clip((grey - low) / max(high - low, 1e-6), 0, 1)


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
        panels.append(Panel(scale.paint(matrix), title, caption, scale=scale, ground=False))
    return panels, " ".join(words)
