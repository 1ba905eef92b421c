"""One system's rows of Table 1 or 2 on whatever archive is given, with the rows a reader needs to judge it by."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from fusmae_lite.archives import Archive, open_data
from fusmae_lite.archives.sen12ms import IGBP10
from fusmae_lite.baselines import Encoder, build_model, pooling_of, system_title
from fusmae_lite.checkpoints import latest_checkpoint
from fusmae_lite.config import RunConfig
from fusmae_lite.errors import InputError
from fusmae_lite.evaluate.features import frozen_features
from fusmae_lite.evaluate.finetune import FineTuneSettings, fine_tune
from fusmae_lite.evaluate.metrics import average_precision, bootstrap_interval, micro_ap, redraw_values
from fusmae_lite.evaluate.probe import class_prior, linear_probe
from fusmae_lite.evaluate.subsets import labelled_subset
from fusmae_lite.evaluate.transfer import TransferRow, transfer_markdown, transfer_rows
from fusmae_lite.files import write_text
from fusmae_lite.pairs import PairDataset
from fusmae_lite.seeding import derive
from fusmae_lite.weights import load_model, shipped_weights

#: Columns of Table 1.
SENSOR_SETS = (("s1",), ("s2",), ("s1", "s2"))


@dataclass(frozen=True)
class Row:
    """One cell of the table: a system seen through some sensors.

    Args:
        system: what produced the features.
        sensors: ``S1``, ``S2``, ``S1+S2``, or ``none``.
        micro: micro average precision, mean over `seeds`.
        macro: macro average precision, mean over `seeds`.
        low: lower end of the 95 % bootstrap interval of `micro` over test patches and seeds.
        high: its upper end.
        seeds: how many head initialisations (and random encoders) were averaged.
        train: labelled patches trained on.
        test: patches scored.
    """

    system: str
    sensors: str
    micro: float
    macro: float
    low: float
    high: float
    seeds: int
    train: int
    test: int


def evaluate(
    config: RunConfig, archive: Archive | None = None, weights: Path | None = None
) -> list[Row] | list[TransferRow]:
    """Class prior, random encoder and the pretrained system, Fus-MAE or a baseline, by ``config.protocol``.

    ``linear`` trains a head on frozen features, which are cached; on an archive with one class a patch, such as
    SEN12MS, it gives the columns of Table 2. ``finetune`` trains everything; the random encoder is then a supervised
    model from scratch. With ``label_fraction`` below 1 every seed draws its own labelled patches, the same for all
    systems. Writes ``evaluation/table.{json,md,csv}`` below ``config.folder()``. All systems at once:
    :func:`fusmae_lite.results.run_results`.

    Args:
        config: preset with its probe settings.
        archive: patches with labels; by default those at ``config.data_dir``, or the bundled ones.
        weights: a checkpoint file; by default this run's latest checkpoint, else the shipped ``xae-lite``.

    Raises:
        InputError: an empty split, or nothing to evaluate.
    """
    archive = archive or open_data(config)
    for split in ("train", "test"):
        if not len(archive.split(split)):
            raise InputError(f"{archive.root} has no patch in the split {split!r}", "add its split files")
    pretrained = load_model(weights or find_weights(config))
    if pretrained.config.system != config.system:
        raise InputError(
            f"the weights are of system {pretrained.config.system!r}, not {config.system!r}",
            f"pretrain with system={config.system} in this run_dir first, or set system={pretrained.config.system}",
        )
    random = [random_encoder(pretrained, seed) for seed in range(config.probe_seeds)]
    systems = {
        "random encoder": random,
        system_title(pretrained.config): [pretrained] * config.probe_seeds,
    }
    names = pretrained.config.modalities
    size = pretrained.config.image_size
    pairs = {s: PairDataset(archive, s, modalities=names, size=size, cache=config.cache) for s in ("train", "test")}
    possible = [sensors for sensors in SENSOR_SETS if set(sensors) <= set(names)]
    if set(archive.classes) <= set(IGBP10):
        if config.protocol != "linear":
            raise InputError(f"{archive.root} has one class a patch", "Table 2 is linear evaluation: protocol=linear")
        rows = transfer_rows(systems, [s for s in possible if len(s) == 1], pairs, config)
    else:
        row = _row if config.protocol == "linear" else _finetuned_row
        rows = [_prior_row(archive, config)]
        rows += [row(system, models, s, pairs, config) for s in possible for system, models in systems.items()]
    write_table(rows, config.folder() / "evaluation")
    return rows


def find_weights(config: RunConfig) -> Path:
    """The checkpoint this run trained, or else the shipped model; :class:`InputError` if there is neither."""
    found = latest_checkpoint(config.folder() / "pretrain" / "checkpoints")
    if found is not None:
        return found / "model.safetensors"
    shipped = shipped_weights()
    if "xae-lite" not in shipped:
        raise InputError(f"no checkpoint in {config.folder()}", "run notebook 05 or `fusmae pretrain` first")
    return shipped["xae-lite"]


def random_encoder(like: Encoder, seed: int) -> Encoder:
    """The same architecture with untrained weights: what the features owe to the architecture alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("initialise", seed, 99))
        return build_model(like.config).eval()


def _row(
    system: str, models: list[Encoder], sensors: tuple[str, ...], pairs: dict[str, PairDataset], config: RunConfig
) -> Row:
    """One cell of linear evaluation: a probe a seed on each model's frozen features."""
    archive, cache = pairs["train"].archive, config.folder() / "evaluation" / "features"
    scores = []
    for seed, model in enumerate(models):
        train, test = (
            frozen_features(model, archive, s, sensors, cache, pooling_of(model), dataset=pairs[s])
            for s in ("train", "test")
        )
        chosen = labelled_rows(train.y.numpy() > 0, config, seed, archive.classes)
        scores.append(linear_probe(train.x[chosen], train.y[chosen], test.x, config, seed).numpy())
    return _averaged(system, sensors, test.y.numpy() > 0, scores, len(chosen), archive, config)


def _finetuned_row(
    system: str, models: list[Encoder], sensors: tuple[str, ...], pairs: dict[str, PairDataset], config: RunConfig
) -> Row:
    """As :func:`_row`, with the encoder trained as well."""
    archive = pairs["train"].archive
    settings = FineTuneSettings(
        config.finetune_epochs, config.finetune_batch_size, config.finetune_learning_rate,
        augment=config.augment, pooling=pooling_of(models[0]),
    )  # fmt: skip
    truth = {s: archive.labels[archive.split(s)] for s in ("train", "test")}
    scores = []
    for seed, model in enumerate(models):
        chosen = labelled_rows(truth["train"], config, seed, archive.classes)
        tuned = fine_tune(model, pairs["train"], pairs["test"], sensors, settings, chosen, seed)
        scores.append(tuned.scores.numpy())
    title = "supervised from scratch" if system == "random encoder" else system
    return _averaged(title, sensors, truth["test"], scores, len(chosen), archive, config)


def _averaged(
    system: str,
    sensors: tuple[str, ...],
    labels: np.ndarray,
    scores: list[np.ndarray],
    train: int,
    archive: Archive,
    config: RunConfig,
) -> Row:
    """Means over the seeds' scores (patches, classes), and the interval of the micro one."""
    results = [average_precision(labels, one, archive.classes) for one in scores]
    micro, macro = (float(np.mean([getattr(r, which) for r in results])) for which in ("micro", "macro"))
    there = labels.any(axis=0)
    redraws = redraw_values(labels[:, there], np.stack(scores)[:, :, there], micro_ap, seed=config.seed)[1:]
    low, high = (float(v) for v in np.quantile(redraws, [0.025, 0.975]))
    return Row(system, "+".join(sensors).upper(), micro, macro, low, high, len(scores), train, len(labels))


def labelled_rows(labels: np.ndarray, config: RunConfig, seed: int, classes: tuple[str, ...] = ()) -> np.ndarray:
    """Positions of the training patches whose labels seed `seed` of the probe may use; see :func:`labelled_subset`."""
    return labelled_subset(labels, config.label_fraction, derive("probe", config.seed, seed, 2), classes)


def _prior_row(archive: Archive, config: RunConfig) -> Row:
    train, test = (archive.labels[archive.split(split)] for split in ("train", "test"))
    train = train[labelled_rows(train, config, 0, archive.classes)]
    scores = class_prior(torch.from_numpy(train).float(), len(test)).numpy()
    result = average_precision(test, scores, archive.classes)
    return Row(
        "class prior", "none", result.micro, result.macro, *bootstrap_interval(test, scores), 1, len(train), len(test)
    )


def as_markdown(rows: list[Row] | list[TransferRow]) -> str:
    """The table as Markdown, scores in percent with three digits."""
    if isinstance(rows[0], TransferRow):
        return transfer_markdown(rows)
    lines = [
        "| system | sensors | micro AP | 95 % interval | macro AP | seeds | train | test |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r.system} | {r.sensors} | {100 * r.micro:.1f} | {100 * r.low:.1f} - {100 * r.high:.1f} "
            f"| {100 * r.macro:.1f} | {r.seeds} | {r.train} | {r.test} |"
        )
    return "\n".join(lines) + "\n"


def write_table(rows: list[Row] | list[TransferRow], folder: Path) -> None:
    """Write ``table.json``, ``table.md`` and ``table.csv`` into `folder`, each in one step."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(asdict(rows[0])))
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    contents = {
        "json": json.dumps([asdict(row) for row in rows], indent=1),
        "md": as_markdown(rows),
        "csv": text.getvalue(),
    }
    for suffix, content in contents.items():
        write_text(folder / f"table.{suffix}", content)
