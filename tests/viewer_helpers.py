"""What the tests of the viewers share: a tiny model, and ways to move controls and to look at pictures."""

from __future__ import annotations

import gc
import io
import tracemalloc
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import ipywidgets as w
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from fusmae_lite import FusMAE, ModelConfig
from fusmae_lite.show.viewers.base import Viewer

SMALL = {"width": 16, "depth": 2, "heads": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}


@cache
def small_model(**options: Any) -> FusMAE:
    """An untrained model of 25 patches; the same one for the same options."""
    torch.manual_seed(0)
    return FusMAE(ModelConfig(patch_size=24, **SMALL, **options))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def holds_still(viewer: Viewer, control: w.Widget, values: Sequence[Any]) -> None:
    """Every one of these values gives a picture of its own, the same one again, and leaves nothing behind."""
    start, seen = control.value, [viewer.picture()]
    for value in values:
        control.value = value
        assert viewer.said == ""
        assert viewer.picture() not in seen, f"{control.description} {value} changed nothing"
        assert viewer.description
        seen.append(viewer.picture())
    control.value = start
    assert viewer.picture() == seen[0]
    assert not plt.get_fignums(), "no figure stays alive"


def memory_is_flat(control: w.Widget, values: Sequence[Any], updates: int = 30) -> None:
    """Bytes that Python and NumPy hold after many updates, beside those after a few."""
    tracemalloc.start()
    for number in range(updates + 6):
        control.value = values[number % len(values)]
        if number == 5:
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 200_000, f"{after - before} bytes more after {updates} updates"


def walk(widget: w.Widget) -> Iterator[w.Widget]:
    """A widget and all below it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)
