"""Section 4: what the frozen encoder is worth. Features once, a linear probe on them, average precision, a table."""

from fusmae_lite.evaluation.chosen import find_weights
from fusmae_lite.evaluation.converged import converged_probe, nearest_probe
from fusmae_lite.evaluation.features import Features, frozen_features, load_features
from fusmae_lite.evaluation.finetune import FineTuneSettings, fine_tune
from fusmae_lite.evaluation.floors import floors
from fusmae_lite.evaluation.metrics import average_precision, bootstrap_interval, paired_comparison, single_label_scores
from fusmae_lite.evaluation.probe import class_prior, labelled_subset, linear_probe, single_label_probe
from fusmae_lite.evaluation.table import as_markdown, evaluate, random_encoder
from fusmae_lite.train.heldout import band_means, heldout_losses

__all__ = [
    "Features", "FineTuneSettings", "as_markdown", "average_precision", "band_means", "bootstrap_interval",
    "class_prior", "converged_probe", "evaluate", "find_weights", "fine_tune", "floors", "frozen_features",
    "heldout_losses", "labelled_subset", "linear_probe", "load_features", "nearest_probe", "paired_comparison",
    "random_encoder", "single_label_probe", "single_label_scores",
]  # fmt: skip
