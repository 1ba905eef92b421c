"""Exercises of notebook 08: the solutions, and a check beside each."""

from __future__ import annotations

import numpy as np
import torch


def scene_label(codes: np.ndarray, groups: dict[str, tuple[int, ...]]) -> str:
    """Name of the merged class with the most pixels in `codes` (H, W); `groups` maps a name to its IGBP codes."""
    # solution
    return max(groups, key=lambda name: int(np.isin(codes, groups[name]).sum()))
    # end


def check_scene_label(answer):
    """Three kinds of forest outvoted one by one, but not together."""
    groups = {"Forest": (1, 2, 3), "Grassland": (10,), "Water": (17,)}
    codes = np.array([[1, 1, 2], [2, 3, 10], [10, 10, 17]])
    assert answer(codes, groups) != "Grassland", "code 10 has most pixels of its own, but the forests are merged first"
    assert answer(codes, groups) == "Forest", "codes 1, 2 and 3 together cover five of nine pixels"
    assert answer(np.full((2, 2), 17), groups) == "Water", "a scene of one class has that class"


def smoothed(labels: torch.Tensor, classes: int, smoothing: float) -> torch.Tensor:
    """Targets (B, classes) of label smoothing for class numbers (B,): every row sums to 1."""
    # solution
    one_hot = torch.nn.functional.one_hot(labels, classes).float()
    return (1 - smoothing) * one_hot + smoothing / classes
    # end


def check_smoothed(answer):
    """Rows sum to 1, and the loss is PyTorch's."""
    labels, logits = torch.tensor([0, 2, 1]), torch.tensor([[2.0, 0.1, -1.0], [0.3, 0.2, 0.9], [0.0, 1.0, 0.5]])
    targets = answer(labels, 3, 0.3)
    assert tuple(targets.shape) == (3, 3), f"targets are {tuple(targets.shape)}, wanted (3, 3)"
    assert torch.allclose(targets.sum(dim=1), torch.ones(3)), "every row must sum to 1"
    assert not torch.allclose(targets[0], torch.tensor([0.7, 0.15, 0.15])), "the true class gets its share of it, too"
    loss = -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert torch.allclose(loss, torch.nn.CrossEntropyLoss(label_smoothing=0.3)(logits, labels)), "not PyTorch's loss"


def split_by_scene(scenes: np.ndarray, held_out: set[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to test on: patches of the scenes in `held_out` are tested, all others trained on.

    `scenes` (patches,) names the scene of each patch.
    """
    # solution
    tested = np.isin(scenes, sorted(held_out))
    return np.flatnonzero(~tested), np.flatnonzero(tested)
    # end


def check_split_by_scene(answer):
    """No scene on both sides, no patch lost."""
    scenes = np.array(["a", "b", "a", "c", "b", "d"])
    train, test = (np.asarray(rows) for rows in answer(scenes, {"b", "d"}))
    assert not set(scenes[train]) & set(scenes[test]), "a scene lies on both sides"
    assert sorted([*train, *test]) == list(range(6)), "every patch belongs to exactly one side"
    assert set(scenes[test]) == {"b", "d"}, "the held-out scenes are the ones to test on"


def scene_interval(hits: np.ndarray, scenes: np.ndarray, draws: int, seed: int) -> tuple[float, float]:
    """95 % interval of the accuracy when whole scenes are drawn again, with replacement, as many as there are.

    `hits` (patches,) is True where the prediction was right, `scenes` (patches,) names each patch's scene.
    """
    # solution
    rng, groups = np.random.default_rng(seed), [hits[scenes == scene] for scene in np.unique(scenes)]
    drawn = [rng.integers(0, len(groups), len(groups)) for _ in range(draws)]
    values = [np.concatenate([groups[g] for g in chosen]).mean() for chosen in drawn]
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))
    # end


def check_scene_interval(answer):
    """Scenes that are all right or all wrong: the interval must be wide."""
    scenes, hits = np.repeat(np.arange(10), 50), np.repeat(np.arange(10) % 2 == 0, 50)
    low, high = answer(hits, scenes, 300, 0)
    assert low <= 0.5 <= high, "the accuracy is 0.5, and the interval should hold it"
    assert high - low > 0.2, "too narrow: draw scenes, not patches; here each scene is one observation"
    assert answer(np.ones(20, bool), np.repeat([0, 1], 10), 50, 0) == (1.0, 1.0), "nothing varies if all are right"
