"""One system's rows of Table 1 or 2 on whatever archive is given, with the rows a reader needs to judge it by."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import fusmae_lite
from fusmae_lite.core.config import RunConfig, load_preset
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import shorten, write_text
from fusmae_lite.core.locks import only_job
from fusmae_lite.core.progress import doing, line
from fusmae_lite.core.seeding import derive
from fusmae_lite.data.archives import Archive, open_archive, open_data
from fusmae_lite.data.archives.sen12ms import IGBP10
from fusmae_lite.data.loader import told_when_killed
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.evaluation.chosen import Chosen, choose_weights, is_others
from fusmae_lite.evaluation.features import Features, frozen_features
from fusmae_lite.evaluation.finetune import FineTuneSettings, fine_tune
from fusmae_lite.evaluation.floors import floors
from fusmae_lite.evaluation.metrics import class_numbers, interval, redraw_scores, single_label_scores
from fusmae_lite.evaluation.own import Given, Own
from fusmae_lite.evaluation.probe import class_prior, labelled_subset, probe, single_label_probe
from fusmae_lite.systems import System, build_model
from fusmae_lite.train.optimise import choose_device

OVER = "over test patches and seeds"
#: Heading of a printed column -> its field, or the two ends of an interval.
HEADINGS = {
    "system": "system", "sensors": "sensors",
    "micro AP": "micro", f"95 % interval of micro, {OVER}": "low high",
    "macro AP": "macro", f"95 % interval of macro, {OVER}": "macro_low macro_high",
    "Top-1": "top1", f"95 % interval of Top-1, {OVER}": "low high",
    "Top-3": "top3", "precision": "precision", "recall": "recall", "F1": "f1",
    "seeds": "seeds", "train": "train", "test": "test",
}  # fmt: skip
ABOUT = """
Weights {weights} (fusion {fusion}, SHA-256 {digest}); archive {archive}; protocol {protocol}; {share:g} % of the \
training labels; fusmae-lite {version}.
"""


@told_when_killed()
def evaluate(
    subject: RunConfig | nn.Module | Path | str,
    archive: Archive | Path | str | None = None,
    weights: nn.Module | Path | str | None = None,
    **fields: object,
) -> pd.DataFrame:
    """Class prior, band statistics, random encoder and the pretrained system, by ``config.protocol``.

    ``evaluate(module, archive, modalities="s2", image_size=224)`` scores any torch module that takes images, a dict of
    these sensors -> (B, C, H, W), normalised, and returns (B, D), see :mod:`~fusmae_lite.evaluation.own`. Its control
    is its own architecture with shuffled weights. ``evaluate("vectors.parquet", archive)`` scores vectors by the name
    of the patch. Then nothing is written unless ``run_dir`` says where.

    ``linear`` trains the head that ``config.probe`` names on frozen features, which are cached; on an archive with one
    class a patch, such as SEN12MS, it gives the columns of Table 2. ``finetune`` trains everything: the random encoder
    is then a supervised model from scratch, and band statistics keep their linear head. With ``label_fraction`` below 1
    every seed draws its own labelled patches, the same for all systems. ``modalities`` may name some sensors of the
    weights. Writes ``evaluation/table-<protocol>.{json,md,csv}`` below ``config.folder()``.

    Args:
        subject: the configuration of a run; or what is scored, by the smoke preset's configuration with `fields`.
        archive: patches with labels, or its folder; by default those at ``config.data_dir``, or the bundled ones.
        weights: by default this run's latest checkpoint; else ``xae-lite`` or ``xad-lite``, a file, or the folder of a
            run or a checkpoint, or what `subject` may be. Fields of the model that :func:`load_preset` was given must
            be those of the weights.
        fields: of :class:`RunConfig`, such as ``data_dir``, ``label_fraction`` or ``probe``; without a configuration.

    Returns:
        A row for each system and set of sensors: ``micro`` and ``macro`` average precision in [0, 1], means over
        ``seeds``, with 95 % intervals ``low``, ``high``, ``macro_low``, ``macro_high`` (or ``top1``, ``top3``,
        ``precision``, ``recall``, ``f1``), and the patches in ``train`` and ``test``. ``attrs`` say what it rests on.

    Raises:
        InputError: no checkpoint, weights of another model than was asked for, an empty split, or nothing to evaluate.
    """
    if not (named := isinstance(subject, RunConfig)):
        # no patches, no fusion: any side in pixels is legal
        subject, weights = load_preset(**{**({"patch_size": 1} if is_others(subject) else {}), **fields}), subject
    elif fields:
        raise InputError(f"a configuration and {', '.join(fields)}", "give it the fields: load_preset(.., name=value)")
    config = subject
    if archive is None or isinstance(archive, str | Path):
        archive = open_archive(archive) if archive else open_data(config)
    chosen = choose_weights(config, weights)
    if archive.left_out:
        line(f"of {archive.root} {archive.said_left_out}")
    for split in ("train", "test"):
        if not len(archive.split(split)):
            raise InputError(f"{archive.root} has no patch in the split {split!r}", "add its split files")
    if not (named or config.run_dir):
        return _Evaluation(chosen, archive, config, None).table()
    folder = config.folder() / "evaluation"
    with only_job(folder):
        return write_table(_Evaluation(chosen, archive, config, folder).table(), folder)


def random_encoder(like: System | RunConfig, seed: int) -> System | None:
    """The same architecture with untrained weights: what the features owe to the architecture alone.

    Others' encoders: :meth:`~fusmae_lite.evaluation.own.Own.shuffled`; None where there can be no control.
    """
    if isinstance(like, Given | Own):
        return like.shuffled(seed) if isinstance(like, Own) else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("initialise", seed, 99))
        return build_model(getattr(like, "config", like)).eval()


def sensor_sets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Columns of Table 1: each sensor alone, then all together."""
    alone = [(name,) for name in modalities]
    return [*alone, tuple(modalities)] if len(alone) > 1 else alone


def as_markdown(table: pd.DataFrame) -> str:
    """The table as Markdown, scores in percent with one decimal, and what it rests on below."""
    other = "micro" if "top1" in table else "Top-1"
    headings = {h: f.split() for h, f in HEADINGS.items() if set(f.split()) <= set(table) and other not in h}
    shown = table.map(lambda value: f"{100 * value:.1f}" if isinstance(value, float) else str(value))
    lines = [[*headings], ["---"] * len(headings)]
    lines += [[" - ".join(row[f] for f in pair) for pair in headings.values()] for _, row in shown.iterrows()]
    text = "".join("| " + " | ".join(fields) + " |\n" for fields in lines)
    return text + ABOUT.format(**table.attrs, share=100 * table.attrs["label_fraction"])


def write_table(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Write ``table-<protocol>.json``, ``.md`` and ``.csv`` into `folder`, each in one step; returns the table."""
    contents = {
        "json": json.dumps({**table.attrs, "rows": table.to_dict("records")}, indent=1),
        "md": as_markdown(table),
        "csv": table.assign(**table.attrs).to_csv(index=False),
    }
    for suffix, content in contents.items():
        write_text(folder / f"table-{table.attrs['protocol']}.{suffix}", content)
    return table


class _Evaluation:
    """What the rows of one table share: the pairs, which of them are labelled, the protocol."""

    def __init__(self, chosen: Chosen, archive: Archive, config: RunConfig, folder: Path | None) -> None:
        self.chosen, self.archive, self.config, self.folder = chosen, archive, config, folder
        self.model, self.others = chosen.model, isinstance(chosen.model, Given | Own)
        self.single, self.protocol = set(archive.classes) <= set(IGBP10), config.protocol
        if self.others and self.protocol != "linear":
            raise InputError(
                f"protocol {self.protocol} trains this package's systems, not others'", "use protocol=linear"
            )
        if self.single and self.protocol != "linear":
            raise InputError(f"{archive.root} has one class a patch", "Table 2 is linear evaluation: protocol=linear")
        self.protocol = "transfer" if self.single else self.protocol
        splits = ["train", "test", *(["val"] if self.protocol == "linear" and len(archive.split("val")) else [])]
        options = {"modalities": chosen.sensors, "size": self.model.config.image_size, "cache": config.cache}
        self.pairs = {split: PairDataset(archive, split, native=True, **options) for split in splits}
        self.seeds, self.labels = range(config.probe_seeds), archive.labels[archive.split("train")]
        draws, share = [derive("probe", config.seed, seed, 2) for seed in self.seeds], config.label_fraction
        of_a_class = np.flatnonzero(self.labels.any(axis=1))
        self.labelled = [
            of_a_class if self.single else labelled_subset(self.labels, share, draw, archive.classes) for draw in draws
        ]
        self._kept: tuple[object, list[Features]] = (None, [])

    def table(self) -> pd.DataFrame:
        """All rows, and in ``attrs`` what they rest on."""
        table = pd.DataFrame(self._rows())
        table.insert(table.columns.get_loc("test"), "train", len(self.labelled[0]))
        table.attrs = {
            "weights": self.chosen.name, "fusion": "unknown" if self.others else self.model.config.fusion,
            "digest": self.chosen.digest, "archive": f"{self.archive.kind}, {shorten(Path(self.archive.root))}",
            "protocol": self.protocol, "label_fraction": self.config.label_fraction, "version": fusmae_lite.__version__,
        }  # fmt: skip
        return table

    def _rows(self) -> Iterator[dict[str, Any]]:
        if not self.single:
            labels = torch.from_numpy(self.labels[self.labelled[0]]).float()
            prior = class_prior(labels, len(self.archive.split("test")))
            yield {"system": "class prior", "sensors": "none", **self._measured([prior])}
        device = next(self.model.parameters()).device if self.others else choose_device(self.config)
        untrained = [random_encoder(self.model, seed) for seed in self.seeds]
        tunes, sets = self.protocol == "finetune", sensor_sets(self.chosen.sensors)
        control = "supervised from scratch" if tunes else "shuffled weights" if self.others else "random encoder"
        if self.others or self.single:  # vectors of all sensors; Table 2 has each alone
            sets = [self.chosen.sensors] if self.others else sets[: len(self.chosen.sensors)]
        for sensors in sets:
            floor, named = floors(self.model.config, sensors)["statistics"], "+".join(sensors).upper()
            for title, models, tuned in (
                (floor.title, [floor] * len(self.seeds), False),
                (control, untrained, tunes),
                (self.model.title, [self.model] * len(self.seeds), tunes),
            ):
                if None not in models:
                    doing(f"{title} on {named}")
                    score = self._fine_tuned if tuned else self._probed
                    logits = [score(model.to(device), sensors, seed) for seed, model in enumerate(models)]
                    yield {"system": title, "sensors": named, **self._measured(logits)}

    def _fine_tuned(self, model: System, sensors: Sequence[str], seed: int) -> torch.Tensor:
        """Logits of the test pairs."""
        config = self.config
        settings = FineTuneSettings(
            config.finetune_epochs, config.finetune_batch_size, config.finetune_learning_rate,
            augment=config.augment, pooling=model.pooling,
        )  # fmt: skip
        pairs, rows = self.pairs, self.labelled[seed]
        return fine_tune(model, pairs["train"], pairs["test"], sensors, settings, rows, seed, config).scores

    def _probed(self, model: System, sensors: Sequence[str], seed: int) -> torch.Tensor:
        """Logits of a head on frozen features, those of the last model being kept: the next seed has the same."""
        if self._kept[0] != (model, sensors):
            self._kept = (None, [])
            cache = self.folder and self.folder / "features"
            features = [
                frozen_features(
                    model, self.archive, split, sensors, cache, model.pooling, dataset=part, config=self.config
                )
                for split, part in self.pairs.items()
            ]
            self._kept = (model, sensors), features
        features, rows = self._kept[1], self.labelled[seed]
        if not self.single:
            return probe(features, rows, self.config, seed)
        train, test = features
        return single_label_probe(train.x[rows], train.y[rows], test.x, self.config, seed)

    def _measured(self, scores: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Fields of a row: means over seeds and their intervals."""
        labels, logits = self.archive.labels[self.archive.split("test")], np.stack([one.numpy() for one in scores])
        numbers, drawn = {}, {"micro": "", "macro": "macro_"}
        if self.single:
            truth = class_numbers(labels)
            each = [single_label_scores(truth, one, self.archive.classes) for one in logits]
            names = ("top1", "top3", "precision", "recall", "f1")
            numbers = {name: float(np.mean([getattr(one, name) for one in each])) for name in names}
            labels, logits, drawn = labels[truth >= 0], logits[:, truth >= 0], {"top1": ""}
        for which, prefix in drawn.items():
            values = redraw_scores(labels, logits, which, seed=self.config.seed)
            numbers.setdefault(which, float(values[0]))
            numbers[f"{prefix}low"], numbers[f"{prefix}high"] = interval(values)
        return {**numbers, "seeds": len(scores), "test": len(labels)}
