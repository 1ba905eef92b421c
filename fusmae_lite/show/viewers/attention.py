"""Where a patch looks: cross-attention and self-attention of a model, patch by patch and as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Archive
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.show import pictures
from fusmae_lite.show.charts import block_shares
from fusmae_lite.show.figures import MATRIX_MAP, WEIGHT_MAP
from fusmae_lite.show.panels import Panel, Scale, draw_panels
from fusmae_lite.show.pictures import colour_of
from fusmae_lite.show.viewers.base import (
    PatchGrid,
    Viewer,
    archive_or_bundled,
    check_index,
    choice,
    pair_title,
    side_by_side,
    slider,
)
from fusmae_lite.show.viewers.models import Pairs, load_models, physical

Layer = tuple[str, int]  # ("cross", 0), ("self", number of the plain block) or ("decoder", 0)


class AttentionViewer(Viewer):
    """Click a patch in one sensor and see where it looks in the other; nothing is hidden from the encoder here.

    Args:
        archive: an archive or its folder; the bundled patches if absent.
        model: a shipped name, a checkpoint or a model with at least two sensors.
        pair: row of the archive to begin with.
        plain: a model with ``fusion="none"`` whose first block, self-attention over all sensors, is drawn beside.

    Raises:
        InputError: no such archive, model or pair; one sensor; a `plain` model that fuses, or with other patches.
    """

    def __init__(
        self,
        archive: Archive | Path | str | None = None,
        model: str | FusMAE = "xae-lite",
        *,
        pair: int = 0,
        plain: str | FusMAE | None = None,
    ) -> None:
        super().__init__("Attention")
        self.archive = archive_or_bundled(archive)
        ((self.name, self.model), *others) = load_models([model] if plain is None else [model, plain]).items()
        self.plain = others[0][1] if others else None
        if self.plain is not None and self.plain.config.fusion != "none":
            raise InputError(f"the plain model has fusion={self.plain.config.fusion!r}", 'give one with fusion="none"')
        config, names = self.model.config, self.model.config.modalities
        if len(names) < 2:
            raise InputError(f"{self.name} has one sensor, {names[0]}", "choose a model with two sensors")
        self.pairs, self.grid = Pairs(self.archive, config), config.grid
        self._maps: tuple[int, dict[str, Any], dict[str, Any]] = -1, {}, {}
        self.pair = slider("pair", 0, len(self.archive) - 1, check_index(self.archive, pair))
        self.direction = choice(
            "direction", [(f"{q.upper()} looks at {k.upper()}", (q, k)) for q in names for k in names if q != k]
        )
        self.layer = choice("layer", layers_of(self.model))
        self.head = choice("head", [("mean of heads", -1), *((f"head {h + 1}", h) for h in range(config.heads))])
        middle = self.grid // 2
        self.row, self.column = (slider(label, 0, self.grid - 1, middle, live=True) for label in ("row", "column"))
        self.grids = {
            name: PatchGrid(self.grid, get_modality(name).title, lambda index, name=name: self.ask(name, index))
            for name in names
        }
        wrap = w.Layout(flex_flow="row wrap")
        self.assemble(
            [self.pair, self.direction, self.layer, self.head, self.row, self.column],
            w.HBox([self.pair, self.row, self.column], layout=wrap),
            w.HBox([self.direction, self.layer, self.head], layout=wrap),
            side_by_side(self.grids),
        )

    @property
    def query(self) -> int:
        """Index of the patch that asks."""
        return self.row.value * self.grid + self.column.value

    def ask(self, name: str, index: int) -> None:
        """Let patch `index` of sensor `name` ask another sensor."""
        with self.hold():
            if self.direction.value[0] != name:
                self.direction.value = next(pair for _, pair in self.direction.options if pair[0] == name)
            self.row.value, self.column.value = divmod(index, self.grid)

    @property
    def maps(self) -> dict[str, Any]:
        """``FusMAE.attention_maps`` of the pair on show, computed once a pair."""
        return self._both_maps()[0]

    def _both_maps(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Maps of the model and of the plain one, empty if there is none."""
        if self._maps[0] != self.pair.value:
            images = self.pairs[self.pair.value]
            plain = self.plain.attention_maps(images) if self.plain is not None else {}
            self._maps = self.pair.value, self.model.attention_maps(images), plain
        return self._maps[1:]

    def draw(self) -> tuple[bytes, str]:
        (query, key), head = self.direction.value, None if self.head.value < 0 else self.head.value
        rgbs = {
            name: pictures.composite(None, name, physical(image, name))
            for name, image in self.pairs[self.pair.value].items()
        }
        for name, rgb in rgbs.items():
            self.grids[name].show(framed(rgb, self.query, self.grid), f"{get_modality(name).title}, click a patch")
        weights = weights_between(self.maps, self.layer.value, query, key, head)
        rows = [
            attention_panels(rgbs, weights, self.query, query, key),
            matrix_panels(self.maps, self.layer.value, head),
        ]
        plain = self._both_maps()[1]
        if plain:
            rows[1].append(self_attention_panel(plain, 0, None, "no fusion: self-attention, block 1"))
        title = pair_title(self.archive, self.pair.value)
        labels = {value: label for label, value in (*self.layer.options, *self.head.options)}
        how = f"{self.name}, {labels[self.layer.value]}, {labels[self.head.value]}"
        words = attention_words(weights, self.query, query, key)
        words += f" {matrix_words(self.maps, plain, self.layer.value, head)}"
        return draw_panels(rows, f"{how}; {title}"), f"{how}; pair {title}. {words}"


def layers_of(model: FusMAE) -> list[tuple[str, Layer]]:
    """Label -> layer, for each attention of the encoder and the XAttnDecoder."""
    first = int(model.xattn_encoder is not None)
    layers: list[tuple[str, Layer]] = [("cross-attention, block 1", ("cross", 0))] if first else []
    layers += [(f"self-attention, block {n + 1 + first}", ("self", n)) for n in range(len(model.blocks))]
    return layers + (
        [("cross-attention before the decoders", ("decoder", 0))] if model.xattn_decoder is not None else []
    )


def weights_between(maps: Mapping[str, Any], layer: Layer, query: str, key: str, head: int | None) -> np.ndarray:
    """Attention from each patch of `query` to each of `key`, in multiples of uniform attention: (n_query, n_key).

    Args:
        maps: what ``FusMAE.attention_maps`` returned for one pair.
        layer: which softmax.
        query, key: two sensors.
        head: number of the head; the mean of all if None.
    """
    kind, number = layer
    slices = {name: part for name, part in maps["slices"].items() if name != "cls"}
    if kind == "self":
        matrix = maps["self"][number][0][:, slices[query], slices[key]]
        uniform = maps["self"][number].shape[-1]
    else:
        others = [name for name in slices if name != query]
        start = sum(slices[name].stop - slices[name].start for name in others[: others.index(key)])
        matrix = maps[kind][query][0]
        uniform = matrix.shape[-1]
        matrix = matrix[:, :, start : start + slices[key].stop - slices[key].start]
    chosen = matrix.mean(dim=0) if head is None else matrix[head]
    return chosen.numpy().astype(np.float64) * uniform


def entropy(weights: np.ndarray) -> np.ndarray:
    """Entropy in bits of each row of (n, m), rows scaled to sum to 1 first: 0 looks at one patch, log2 m everywhere."""
    share = weights / weights.sum(axis=1, keepdims=True)
    return -(share * np.log2(np.clip(share, 1e-12, None))).sum(axis=1)


def attention_panels(
    rgbs: Mapping[str, np.ndarray], weights: np.ndarray, index: int, query: str, key: str
) -> list[Panel]:
    """The patch that asks, the sensor that answers, the weights; then the mean over all patches and their entropy."""
    grid = round(len(weights) ** 0.5)
    scale = Scale(WEIGHT_MAP, 0, max(2.0, round(float(np.quantile(weights, 0.995)), 1)), "times uniform")
    bits = Scale("cividis", 0, round(float(np.log2(weights.shape[1])), 1), "bits")
    spread = entropy(weights)
    square = (grid, grid)
    row, column = divmod(index, grid)
    own = f"{spread[index]:.2f} bits, mean {spread.mean():.2f}"
    asks, answers = get_modality(query).title, get_modality(key).title
    return [
        Panel(framed(rgbs[query], index, grid), f"{asks} asks", f"row {row}, column {column}", colour_of(query)),
        Panel(framed(rgbs[key], index, grid), f"{answers} answers", "same place framed", colour_of(key)),
        Panel(scale.paint(weights[index].reshape(square)), "where it looks", f"in {answers}", scale=scale),
        Panel(scale.paint(weights.mean(axis=0).reshape(square)), "where all look", "mean of all patches", scale=scale),
        Panel(bits.paint(spread.reshape(square)), "entropy of each patch", own, scale=bits),
    ]


def matrix_panels(maps: Mapping[str, Any], layer: Layer, head: int | None) -> list[Panel]:
    """Cross-attention as the block matrix it is, with nothing on the diagonal, beside a plain self-attention matrix."""
    slices = maps["slices"]
    names = [name for name in slices if name != "cls"]
    scale = Scale(MATRIX_MAP, 0, 3, "times uniform")
    panels = []
    kind = layer[0] if layer[0] != "self" else next((kind for kind in ("cross", "decoder") if maps[kind]), None)
    if kind is not None:
        blocks = [
            [
                np.full((slices[q].stop - slices[q].start, slices[k].stop - slices[k].start), np.nan)
                if q == k
                else weights_between(maps, (kind, 0), q, k, head)
                for k in names
            ]
            for q in names
        ]
        panels.append(Panel(scale.paint(np.block(blocks)), "cross-attention", _order(names), scale=scale))
    number = layer[1] if layer[0] == "self" else 0
    title = f"self-attention, block {number + 1 + bool(maps['cross'])}"
    return [*panels, self_attention_panel(maps, number, head, title)]


def self_matrix(maps: Mapping[str, Any], number: int, head: int | None) -> np.ndarray:
    """Self-attention of one plain block for the first pair: (L, L), rows sum to 1; the mean of all heads if None."""
    matrix = maps["self"][number][0]
    return (matrix.mean(dim=0) if head is None else matrix[head]).numpy().astype(np.float64)


def self_attention_panel(maps: Mapping[str, Any], number: int, head: int | None, title: str) -> Panel:
    """The matrix of one plain block, in multiples of uniform attention, and what each sensor keeps to itself."""
    matrix, names = self_matrix(maps, number, head), [name for name in maps["slices"] if name != "cls"]
    scale, shares = Scale(MATRIX_MAP, 0, 3, "times uniform"), block_shares(matrix, maps["slices"])
    inside = ", ".join(f"{name.upper()} to itself {shares[name, name]:.0%}" for name in names)
    return Panel(scale.paint(matrix * len(matrix)), title, f"{_order(names)}\n{inside}", scale=scale)


def matrix_words(maps: Mapping[str, Any], plain: Mapping[str, Any], layer: Layer, head: int | None) -> str:
    """What the matrices of :func:`matrix_panels` and the plain model's show, in words."""
    number = layer[1] if layer[0] == "self" else 0
    parts = {f"self-attention of block {number + 1 + bool(maps['cross'])}": (maps, number, head)}
    if plain:
        parts["the first block of the model without fusion"] = (plain, 0, None)
    told = []
    for title, (source, block, of_head) in parts.items():
        shares = block_shares(self_matrix(source, block, of_head), source["slices"])
        kept = (f"{name.upper()} keeps {shares[name, name]:.0%}" for name in source["slices"] if name != "cls")
        told.append(f"In {title} {' and '.join(kept)} of its attention to itself.")
    return " ".join(told)


def framed(rgb: np.ndarray, index: int, grid: int) -> np.ndarray:
    """(H, W, 3) with a frame around patch `index`, white on dark ground and black on bright."""
    row, column, side = index // grid, index % grid, rgb.shape[0] // grid
    patch = rgb[row * side : (row + 1) * side, column * side : (column + 1) * side]
    return pictures.outline(rgb, index, grid, "#FFFFFF" if patch.mean() < 0.55 else "#000000")


def attention_words(weights: np.ndarray, index: int, query: str, key: str) -> str:
    """What one patch looks at, in words."""
    grid, spread, most = round(len(weights) ** 0.5), entropy(weights), int(weights[index].argmax())
    (row, column), (to, left) = divmod(index, grid), divmod(most, grid)
    asks, answers = get_modality(query).title, get_modality(key).title
    return (
        f"The patch in row {row}, column {column} of {asks} looks at {answers}: most at row {to}, column {left}, "
        f"{weights[index, most]:.2g} times uniform attention. Entropy {spread[index]:.2f} of at most "
        f"{np.log2(weights.shape[1]):.2f} bits; all patches on average {spread.mean():.2f}."
    )


def _order(names: Sequence[str]) -> str:
    return f"rows and columns: {', '.join(name.upper() for name in names)}"
