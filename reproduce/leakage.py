"""What a split that leaks is worth, on the real pairs: neighbours in training and test, against whole patches apart.

The bundled pairs lie far from each other, so each is cut into its four quarters, which are neighbours of the same
place. A random split of quarters is what a random split of an archive cut from few scenes is; the disjoint one keeps
the quarters of a patch together. Same encoder, same probe, same number of quarters.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fusmae_lite.core.config import RunConfig, load_preset
from fusmae_lite.core.files import read_object, write_text
from fusmae_lite.data.archives import open_data
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation.metrics import average_precision
from fusmae_lite.evaluation.probe import linear_probe
from fusmae_lite.systems.weights import load_pretrained

TEST_SHARE = 0.25


def measure_leakage(path: Path, redraws: int = 20) -> dict[str, list[float]]:
    """Micro average precision of the shipped model's features under both splits, in `redraws` random draws.

    Returns ``random`` and ``disjoint``: (redraws,) values in [0, 1], draw i of one belonging to draw i of the other.
    Kept in the JSON `path`, and read from it if it is there.
    """
    if path.is_file():
        return read_object(path, "remove it, and it is measured again")
    config = load_preset("laptop")
    x, y, place = _quarters(config)
    measured: dict[str, list[float]] = {"random": [], "disjoint": []}
    for draw in range(redraws):
        rng = np.random.default_rng([draw, 3])
        places = rng.permutation(place.max() + 1)
        apart = np.isin(place, places[: round(TEST_SHARE * len(places))])
        mixed = np.zeros_like(apart)
        mixed[rng.permutation(len(place))[: int(apart.sum())]] = True
        for name, test in (("random", mixed), ("disjoint", apart)):
            scores = linear_probe(x[~test], y[~test], x[test], config, draw).numpy()
            measured[name].append(average_precision(y[test].numpy() > 0, scores).micro)
    write_text(path, json.dumps(measured) + "\n")
    return measured


@torch.no_grad()
def _quarters(config: RunConfig) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.int64]]:
    """Features (n, D), labels (n, classes) and patch number (n,) of every quarter of every bundled pair.

    A quarter carries the labels of its whole patch: nobody has labelled quarters, and neither split gains by that.
    """
    model = load_pretrained("xae-lite")
    side = model.config.image_size
    pairs = PairDataset(open_data(config), "all", size=2 * side)  # so that a quarter is as large as the model's input
    xs, ys, places = [], [], []
    for number in range(len(pairs)):
        item = pairs[number]
        cut = {
            name: torch.stack([image[:, i : i + side, j : j + side] for i in (0, side) for j in (0, side)])
            for name, image in item["images"].items()
        }
        xs.append(model.encode(cut).pooled("mean"))
        ys.append(item["labels"].expand(4, -1))
        places += [number] * 4
    return torch.cat(xs), torch.cat(ys), np.array(places)
