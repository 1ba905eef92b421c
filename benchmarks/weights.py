"""What weights are worth beside interpolation: error on hidden patches of pairs they never saw.

    python benchmarks/weights.py xae-lite xad-lite --record benchmarks/weights.json
    python benchmarks/weights.py xae-lite --other ~/BigEarthNet-v2          # pairs of another archive as well
    python benchmarks/weights.py runs/weights/xae/pretrain/checkpoints/*    # a learning curve

Mean squared error in normalised units over hidden patches, for three draws of masks. Gains are relative to the best
untrained interpolation, chosen for each sensor on the very pairs it is compared on; their intervals are paired and
redraw whole tiles. An oracle that knows the mean of every hidden patch tells what could be gained at most: the rest is
speckle and texture. Pairs of another archive that lie where a training pair lies are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fusmae_lite.core.config import RunConfig, load_preset, project_root
from fusmae_lite.core.files import write_text
from fusmae_lite.data.archives import Archive, open_archive
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.systems.weights import load_pretrained
from fusmae_lite.train.heldout import Hidden, choose_interpolations, hidden_pairs

DRAWS, REDRAWS = 3, 2000


@dataclass(frozen=True)
class Pairs:
    """Pairs to measure on: their hidden patches, draw by draw, what needs no training, and each pair's tile."""

    title: str
    draws: list[list[Hidden]]
    floor: dict[str, tuple[str, np.ndarray]]  # modality -> best interpolation, its error for each pair
    oracle: dict[str, float]
    tiles: np.ndarray

    def errors(self, error: Callable[[Hidden], Tensor]) -> np.ndarray:
        """(pairs,) errors, averaged over the draws of masks."""
        return _errors(self.draws, error)


def _errors(draws: list[list[Hidden]], error: Callable[[Hidden], Tensor]) -> np.ndarray:
    return np.mean([torch.cat([error(hidden) for hidden in draw]).numpy() for draw in draws], axis=0)


def place(archive: Archive, row: int) -> tuple[str, ...]:
    """Tile, column and row of a pair, as its S1 name has them in every version of the archive."""
    return tuple(archive.keys(row)["s1"].rsplit("_", 3)[1:])


def gather(title: str, archive: Archive, rows: np.ndarray, config: RunConfig, train: list[Hidden]) -> Pairs:
    """Everything about these pairs that no weights are needed for."""
    draws = [list(hidden_pairs(archive, config.model_copy(update={"seed": k}), rows)) for k in range(DRAWS)]
    floor, oracle = {}, {}
    for name in config.modalities:
        ways = choose_interpolations(train, name)
        found = {way: _errors(draws, lambda h, w=chosen, n=name: w.errors(h, n)) for way, chosen in ways.items()}
        print(title, name, json.dumps({way: round(float(error.mean()), 4) for way, error in found.items()}), flush=True)
        floor[name] = min(found.items(), key=lambda item: item[1].mean())
        means = _errors(draws, lambda h, n=name: h.errors(n, h.means[n].repeat_interleave(h.side**2, dim=-1)))
        oracle[name] = float(means.mean())
    return Pairs(title, draws, floor, oracle, np.array([archive.meta(int(row))["tile"] for row in rows]))


@torch.no_grad()
def model_error(model: FusMAE, hidden: Hidden, name: str, alone: bool = False) -> Tensor:
    """(B,) error on one sensor, the model seeing the other as well or not."""
    shown = (name,) if alone else tuple(hidden.images)
    predicted = model({k: hidden.images[k] for k in shown}, {k: hidden.masks[k] for k in shown}).patches[name]
    return hidden.errors(name, predicted)


def gain(model: np.ndarray, floor: np.ndarray, tiles: np.ndarray) -> tuple[float, float, float]:
    """Share by which the model's error is below the floor's, with its 95 % interval over redrawn tiles.

    Pairs of one tile are redrawn themselves: they are no independent places, and their interval is too narrow.
    """
    names, index = np.unique(tiles, return_inverse=True)
    if len(names) == 1:
        names, index = np.arange(len(tiles)), np.arange(len(tiles))
    sums = np.stack([np.bincount(index, values, len(names)) for values in (model, floor)])
    drawn = np.random.default_rng(0).integers(len(names), size=(REDRAWS, len(names)))
    below = 1 - sums[0][drawn].sum(axis=1) / sums[1][drawn].sum(axis=1)
    low, high = np.quantile(below, [0.025, 0.975])
    return float(1 - model.sum() / floor.sum()), float(low), float(high)


def measure(name: str, model: FusMAE, pairs: Pairs) -> list[dict[str, object]]:
    """A row a sensor."""
    rows: list[dict[str, object]] = []
    for sensor in model.config.modalities:
        both, alone = (
            pairs.errors(lambda hidden, s=sensor, a=alone: model_error(model, hidden, s, a)) for alone in (False, True)
        )
        way, floor = pairs.floor[sensor]
        below = [round(100 * share, 1) for share in gain(both, floor, pairs.tiles)]
        open_to_gain = float(floor.mean()) - pairs.oracle[sensor]
        row = {
            "weights": name, "pairs": pairs.title, "sensor": sensor, "error": float(both.mean()),
            "alone": float(alone.mean()), "interpolation": float(floor.mean()), "oracle": pairs.oracle[sensor],
            "share_of_possible": float(floor.mean() - both.mean()) / open_to_gain,
        }  # fmt: skip
        row = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        rows.append({**row, "gain_percent": below[0], "interval": below[1:], "best_interpolation": way})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", help="shipped names, files or checkpoint folders")
    parser.add_argument("--other", type=Path, help="another archive of BigEarthNet pairs, of any version")
    parser.add_argument("--record", type=Path, help="also write the figures to this JSON file")
    given = parser.parse_args()
    models = {name: load_pretrained(name) for name in given.weights}
    config = load_preset("laptop", **next(iter(models.values())).config.model_dump(exclude={"fusion"}))
    bundled = open_archive(project_root() / "data_samples")
    train = list(hidden_pairs(bundled, config, bundled.split("train")))
    rows = np.concatenate([bundled.split("val"), bundled.split("test")])
    sets = [gather("bundled val and test", bundled, rows, config, train)]
    if given.other:
        other, known = open_archive(given.other), {place(bundled, int(row)) for row in bundled.split("train")}
        rows = np.array([row for row in range(len(other)) if place(other, row) not in known])
        sets.append(gather("another archive", other, rows, config, train))
    found = [row for pairs in sets for name, model in models.items() for row in measure(name, model, pairs)]
    for row in found:
        print(json.dumps(row))
    if given.record:
        counts = {pairs.title: [len(pairs.tiles), len(set(pairs.tiles))] for pairs in sets}
        write_text(
            given.record, json.dumps({"draws": DRAWS, "pairs_and_tiles": counts, "rows": found}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
