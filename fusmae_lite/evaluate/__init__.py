"""Section 4: what the frozen encoder is worth. Features once, a linear probe on them, average precision, a table."""

from fusmae_lite.evaluate.features import Features, frozen_features
from fusmae_lite.evaluate.heldout import band_means, heldout_losses
from fusmae_lite.evaluate.metrics import AveragePrecision, average_precision, bootstrap_interval
from fusmae_lite.evaluate.probe import class_prior, linear_probe
from fusmae_lite.evaluate.table import Row, as_markdown, evaluate, find_weights, random_encoder

__all__ = [
    "AveragePrecision", "Features", "Row", "as_markdown", "average_precision", "band_means", "bootstrap_interval",
    "class_prior", "evaluate", "find_weights", "frozen_features", "heldout_losses", "linear_probe", "random_encoder",
]  # fmt: skip
