"""Does a fused model draw on the other sensor, and what do sensor dropout, loss weights and cloud masks change?

    python benchmarks/balance.py --run-dir runs/balance --record benchmarks/balance.json

Small models (the laptop preset's recipe, width 64; 400 epochs are 2,800 steps and seven minutes of one core for each,
an hour for all) on the bundled training pairs and as many synthetic scenes, and the shipped weights; run again, it goes
on where it was stopped. Errors are those of hidden patches of the
validation and test pairs in normalised units, the other sensor being right, wrong (a pair of another tile) or absent:

- ``usual``: 75 % of both sensors hidden at random, as in pretraining;
- ``cloud``: a synthetic cloud shape over 75 % of the optical image, 75 % of radar hidden at random;
- ``gap``: such a cloud over half of the optical image, radar whole.

Beside them stand untrained models, ridge regression that sees the other sensor, and a head on frozen features of
the training pairs (micro AP). Intervals are paired, 95 %, and redraw whole tiles; seeds are averaged, not redrawn.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from weights import gain

from fusmae_lite.core.config import RunConfig, load_preset
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import write_text
from fusmae_lite.core.seeding import derive
from fusmae_lite.data.archives import open_archive
from fusmae_lite.evaluation import average_precision, linear_probe
from fusmae_lite.model.masking import cloud_shapes, sample_masks
from fusmae_lite.systems import System, build_model
from fusmae_lite.systems.weights import load_pretrained
from fusmae_lite.train.heldout import Hidden, choose_interpolations, hidden_pairs
from fusmae_lite.train.pretrain import pretrain

SMALL = {"width": 64, "depth": 2, "decoder_width": 48, "probe_epochs": 200, "checkpoint_every": 1000}
ARMS: dict[str, dict[str, Any]] = {
    "dropout 0": {"sensor_dropout": 0.0},
    "dropout 0.2": {"sensor_dropout": 0.2},
    "s1 only": {"modalities": "s1", "fusion": "none", "sensor_dropout": 0.0},
    "s2 only": {"modalities": "s2", "fusion": "none", "sensor_dropout": 0.0},
    "dropout 0.5": {"sensor_dropout": 0.5},
    "clouds": {"sensor_dropout": 0.0, "masking": "cloud"},
    "s1 weighs 4": {"loss_weights": {"s1": 4.0}},
    "s2 weighs 4": {"loss_weights": {"s2": 4.0}},
}
EXAMS = {"usual": ("s1", "s2"), "cloud": ("s2",), "gap": ("s2",)}  # and which sensors' errors are looked at
PARTNERS = ("right", "wrong", "absent")
DRAWS = 2


def exam_masks(exam: str, batch: int, rng: torch.Generator, config: RunConfig) -> dict[str, Tensor]:
    """Masks of both sensors, (B, N) each."""
    if exam == "gap":
        cloud = cloud_shapes(batch, config.tokens, config.tokens // 2, rng)
        return {"s1": torch.zeros_like(cloud), "s2": cloud}
    strategy = "cloud" if exam == "cloud" else "independent"
    return sample_masks(strategy, batch, config.tokens, config.kept, ("s1", "s2"), rng)


def gather(rows: np.ndarray, exam: str, seed: int, config: RunConfig) -> Hidden:
    """These pairs as one batch, masked for an exam."""
    config = config.model_copy(update={"seed": seed})
    parts = list(hidden_pairs(open_archive(), config, rows, lambda n, rng, c: exam_masks(exam, n, rng, c)))
    images, masks = (
        {s: torch.cat([getattr(p, k)[s] for p in parts]) for s in ("s1", "s2")} for k in ("images", "masks")
    )
    return Hidden(images, masks, config.patch_size)


def strangers(tiles: np.ndarray) -> list[int]:
    """For each pair the next one that lies in another tile."""
    count = len(tiles)
    return [next(j % count for j in range(i + 1, i + count) if tiles[j % count] != tiles[i]) for i in range(count)]


def with_partner(hidden: Hidden, target: str, partner: str, other: list[int]) -> Hidden:
    """The same puzzle for `target` with the other sensor right, of another place, or left out."""
    images = {s: x if s == target or partner == "right" else x[other] for s, x in hidden.images.items()}
    shown = [s for s in images if s == target or partner != "absent"]
    return Hidden({s: images[s] for s in shown}, {s: hidden.masks[s] for s in shown}, hidden.side)


def examine(
    predict: Callable[[Hidden, str], Tensor], sensors: tuple[str, ...], draws: dict[str, list[Hidden]], other: list[int]
) -> dict[str, list[float]]:
    """``exam target partner`` -> error of each pair, averaged over draws of masks."""
    found: dict[str, list[float]] = {}
    for exam, targets in EXAMS.items():
        for target in (t for t in targets if t in sensors):
            for partner in PARTNERS if len(sensors) > 1 else ("absent",):
                asked = [with_partner(hidden, target, partner, other) for hidden in draws[exam]]
                errors = torch.stack([hidden.errors(target, predict(hidden, target)) for hidden in asked]).mean(dim=0)
                found[f"{exam} {target} {partner}"] = [round(float(error), 4) for error in errors]
    return found


@torch.no_grad()
def probe(model: System, train: Hidden, test: Hidden, y: list[Tensor], other: list[int], config: RunConfig) -> dict:
    """Micro AP of a head on frozen features, ``trained tested`` -> score; ``wrong``: the partner of another place."""
    sensors, scores = config.modalities, {}
    sets = [(s,) for s in sensors] + ([sensors] if len(sensors) > 1 else [])
    swapped = {"s1": test.images["s1"][other], "s2": test.images["s2"]}

    def features(images: dict[str, Tensor], chosen: tuple[str, ...]) -> Tensor:
        return model.encode({s: images[s] for s in chosen}).pooled("mean")

    for taught in sets:
        known = features(train.images, taught)
        tests = {"+".join(s): features(test.images, s) for s in sets}
        tests |= {"s1 wrong+s2": features(swapped, sensors)} if len(sensors) > 1 else {}
        for name, x in tests.items():
            with torch.enable_grad():
                scored = linear_probe(known, y[0], x, config)
            scores[f"{'+'.join(taught)} {name}"] = round(average_precision(y[1].numpy(), scored.numpy()).micro, 4)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, required=True, help="where the models go")
    parser.add_argument("--record", type=Path, required=True, help="JSON; what stands there already is kept")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=400)
    given = parser.parse_args()
    small = {**SMALL, "epochs": given.epochs}
    archive, base = open_archive(), load_preset("laptop", **small)
    train_rows, rows = archive.split("train"), np.concatenate([archive.split("val"), archive.split("test")])
    tiles = np.array([archive.meta(int(row))["tile"] for row in rows])
    other, draws = strangers(tiles), {e: [gather(rows, e, k, base) for k in range(DRAWS)] for e in EXAMS}
    train, y = gather(train_rows, "usual", 0, base), [torch.from_numpy(archive.labels[r]) for r in (train_rows, rows)]
    report = json.loads(given.record.read_text()) if given.record.exists() else {}
    if report.get("epochs", given.epochs) != given.epochs:
        raise InputError(f"{given.record} holds models of {report['epochs']} epochs", "give another file")
    report |= {"epochs": given.epochs, "pairs": len(rows), "tiles": tiles.tolist(), "runs": report.get("runs", {})}

    def keep(name: str, make: Callable[[], dict[str, Any]]) -> None:
        if name not in report["runs"]:
            report["runs"][name] = make()
            write_text(given.record, json.dumps(report) + "\n")
        print(name, json.dumps(report["runs"][name].get("probe")), flush=True)

    def measure(model: System) -> dict[str, Any]:
        config = base.model_copy(update={"modalities": model.config.modalities})
        errors = examine(lambda h, t: predict(model.eval(), h, t), config.modalities, draws, other)
        return {"errors": errors, "probe": probe(model, train, draws["usual"][0], y, other, config)}

    keep("ridge", lambda: {"errors": ridge(train_rows, base, draws, other)})
    for seed in range(given.seeds):
        for arm, fields in {"untrained": {"sensor_dropout": 0.0}, **ARMS}.items():
            folder = given.run_dir / f"{arm.replace(' ', '-')}-{seed}"
            config = load_preset("laptop", **small | fields, seed=seed, run_dir=str(folder))

            def make(arm: str = arm, config: RunConfig = config) -> dict[str, Any]:
                torch.manual_seed(derive("initialise", config.seed))
                return measure(build_model(config) if arm == "untrained" else pretrain(config, archive, True).model)

            keep(f"{arm}, {seed}", make)
    for name in ("xae-lite", "xad-lite"):
        keep(name, lambda name=name: measure(load_pretrained(name)))
    report["summary"] = summary(report)
    write_text(given.record, json.dumps(report) + "\n")
    print(json.dumps(report["summary"], indent=1))


@torch.no_grad()
def predict(model: System, hidden: Hidden, target: str) -> Tensor:
    return model(hidden.images, hidden.masks).patches[target]


def ridge(
    train_rows: np.ndarray, config: RunConfig, draws: dict[str, list[Hidden]], other: list[int]
) -> dict[str, list[float]]:
    """Errors of ridge regression per pixel, fitted for each exam; absent: the best that sees one sensor."""
    found: dict[str, list[float]] = {}
    for exam, targets in EXAMS.items():
        known = gather(train_rows, exam, 0, config)
        for target in targets:
            ways = choose_interpolations([known], target)
            alone = min((w for n, w in ways.items() if "ridge" not in n), key=lambda way: way.loss(draws[exam], target))
            for partner in PARTNERS:
                way = alone if partner == "absent" else ways["ridge per pixel"]
                asked = [
                    with_partner(h, target, "right" if partner == "absent" else partner, other) for h in draws[exam]
                ]
                errors = torch.stack([way.errors(hidden, target) for hidden in asked]).mean(dim=0)
                found[f"{exam} {target} {partner}"] = [round(float(error), 4) for error in errors]
    return found


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """Of each arm, over seeds: errors, what the right partner is worth, distance to the one-sensor model, AP."""
    tiles, arms, told = np.array(report["tiles"]), {}, {}
    for name, run in report["runs"].items():
        arms.setdefault(name.split(",")[0], []).append(run)
    errors = {
        arm: {key: np.mean([run["errors"][key] for run in runs], axis=0) for key in runs[0]["errors"]}
        for arm, runs in arms.items()
    }
    for arm, found in errors.items():
        row: dict[str, Any] = {
            "seeds": len(arms[arm]),
            "error": {k: round(float(e.mean()), 4) for k, e in found.items()},
        }
        for exam, target in [(e, t) for e, targets in EXAMS.items() for t in targets if f"{e} {t} right" in found]:
            key, single = f"{exam} {target}", errors.get(f"{target} only", {})
            right, wrong, absent = (found[f"{key} {partner}"] for partner in PARTNERS)
            row[f"{key}: below wrong, %"] = percent(gain(right, wrong, tiles))
            row[f"{key}: below absent, %"] = percent(gain(right, absent, tiles))
            if single and arm not in ("ridge", "untrained"):
                for partner, values in (("alone", absent), ("both", right)):
                    row[f"{key}: {partner} below the one-sensor model, %"] = percent(
                        gain(values, single[f"{key} absent"], tiles)
                    )
        if probes := [run["probe"] for run in arms[arm] if "probe" in run]:
            row["micro AP"] = {key: round(float(np.mean([p[key] for p in probes])), 3) for key in probes[0]}
        told[arm] = row
    return told


def percent(shares: tuple[float, float, float]) -> list[float]:
    return [round(100 * share, 1) for share in shares]


if __name__ == "__main__":
    main()
