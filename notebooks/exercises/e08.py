"""Exercises of notebook 08: the solutions, and a check beside each."""

from __future__ import annotations

import numpy as np
import torch
from judging import compare


def scene_label(codes: np.ndarray, groups: dict[str, tuple[int, ...]]) -> str:
    """Name of the merged class with the most pixels in `codes` (H, W); `groups` maps a name to its IGBP codes."""
    # solution
    return max(groups, key=lambda name: int(np.isin(codes, groups[name]).sum()))
    # end


def check_scene_label(answer):
    groups = {"Forest": (1, 2, 3), "Grassland": (10,), "Water": (17,)}
    codes = np.array([[1, 1, 2], [2, 3, 10], [10, 10, 17]])
    rng = np.random.default_rng(0)
    cases = [(codes, groups), (np.full((2, 2), 17), groups), (np.array([[10, 10, 10, 17]]), groups)]
    cases += [
        (rng.choice([1, 2, 3, 10, 17, 255], (4, 5), p=p), groups)
        for p in np.random.default_rng(1).dirichlet([1] * 6, 9)
    ]
    cases.append((np.array([[3, 17, 17], [1, 10, 2]]), dict(reversed(groups.items()))))
    cases.append((np.array([[255, 255, 255], [255, 17, 17]]), groups))

    def count(codes, group):
        return int(np.isin(codes, group).sum())

    def winner(score, choose=max):
        return lambda c, g: choose(g, key=lambda name: score(c, g, name))

    slips = {
        "merge first: three kinds of forest outvoted one by one may win together": winner(
            lambda c, g, n: max(count(c, [code]) for code in g[n])
        ),
        "that is the rarest class": winner(lambda c, g, n: count(c, g[n]), min),
        "count pixels, not codes that occur": winner(lambda c, g, n: sum(code in c for code in g[n])),
        "give the name, not the number of pixels": lambda c, g: max(count(c, group) for group in g.values()),
        "give the name, not the code": lambda c, g: int(np.bincount(c.ravel()).argmax()),
        "give the name, not its place": lambda c, g: list(g).index(scene_label(c, g)),
        "that takes the label of the first pixel": winner(lambda c, g, n: c.flat[0] in g[n]),
        "that takes the label of the middle pixel": winner(lambda c, g, n: c.flat[c.size // 2] in g[n]),
        "all pixels, not the first row": winner(lambda c, g, n: count(c[0], g[n])),
        "a group counts for its pixels, not for its number of codes": winner(lambda c, g, n: len(g[n])),
        "do not divide by the number of codes in a group": winner(lambda c, g, n: count(c, g[n]) / len(g[n])),
        "the first code of a group is not the group": winner(lambda c, g, n: count(c, g[n][:1])),
    }
    compare(answer, scene_label, cases, slips)


def smoothed(labels: torch.Tensor, classes: int, smoothing: float) -> torch.Tensor:
    """Targets (B, classes) of label smoothing for class numbers (B,): every row sums to 1."""
    # solution
    one_hot = torch.nn.functional.one_hot(labels, classes).float()
    return (1 - smoothing) * one_hot + smoothing / classes
    # end


def check_smoothed(answer):
    labels, logits = torch.tensor([0, 2, 1]), torch.tensor([[2.0, 0.1, -1.0], [0.3, 0.2, 0.9], [0.0, 1.0, 0.5]])
    targets = answer(labels, 3, 0.3)
    assert targets is not None, "the function returns nothing"
    assert tuple(targets.shape) == (3, 3), f"targets are {tuple(targets.shape)}, wanted (3, 3)"

    def hot(y, c):
        return torch.nn.functional.one_hot(y, c).float()

    slips = {
        "the true class gets its share of it, too": lambda y, c, s: hot(y, c) * (1 - s) + (1 - hot(y, c)) * s / (c - 1),
        "the true class gets its share of it, too, and rows must sum to 1": lambda y, c, s: (
            hot(y, c) * (1 - s) + (1 - hot(y, c)) * s / c
        ),
        "every row must sum to 1: take away from the true class what the others get": lambda y, c, s: hot(y, c) + s / c,
        "that is plain one-hot": lambda y, c, s: hot(y, c),
        "every row must sum to 1: what is taken away goes to all classes": lambda y, c, s: hot(y, c) * (1 - s),
        "share it among all classes: divide by their number": lambda y, c, s: hot(y, c) * (1 - s) + s,
        "smoothing and one minus smoothing are swapped": lambda y, c, s: hot(y, c) * s + (1 - s) / c,
        "the share goes to the classes, not to the samples": lambda y, c, s: hot(y, c) * (1 - s) + s / len(y),
        "divide by the number of classes, not by one less": lambda y, c, s: hot(y, c) * (1 - s) + s / (c - 1),
        "each sample has its own class: rows are in another order": lambda y, c, s: smoothed(y.flip(0), c, s),
        "that is the share alone": lambda y, c, s: torch.full((len(y), c), s / c),
    }
    more = torch.tensor([4, 0, 1, 1, 3, 2, 4])
    compare(answer, smoothed, [(labels, 3, 0.3), (more, 5, 0.1), (more, 6, 0.0), (more[:2], 5, 1.0)], slips)
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
    scenes, more = np.array(["a", "b", "a", "c", "b", "d"]), np.array(list("ppqrqpsrs"))

    def rows(scenes, held):
        return [np.flatnonzero(chosen) for chosen in (~np.isin(scenes, sorted(held)), np.isin(scenes, sorted(held)))]

    slips = {
        "training rows come first, the held-out ones second": lambda s, h: rows(s, h)[::-1],
        "no patch is held out: training rows hold tested scenes": lambda s, h: (np.arange(len(s)), rows(s, h)[1]),
        "a scene lies on both sides: all rows are tested": lambda s, h: (rows(s, h)[0], np.arange(len(s))),
        "give rows, not names": lambda s, h: tuple(s[r] for r in rows(s, h)),
        "give rows, not a mask": lambda s, h: (~np.isin(s, sorted(h)), np.isin(s, sorted(h))),
        "every patch belongs to one side: you gave one row a scene": lambda s, h: tuple(
            np.array([np.flatnonzero(s == name)[0] for name in np.unique(s[r])]) for r in rows(s, h)
        ),
        "rows are counted from 0, not from 1": lambda s, h: tuple(r + 1 for r in rows(s, h)),
        "all scenes in held_out, not the first alone": lambda s, h: rows(s, sorted(h)[:1]),
        "all scenes in held_out, not the last alone": lambda s, h: rows(s, sorted(h)[-1:]),
        "that cuts the list in two; go by scene": lambda s, h: (
            np.arange(len(s))[: len(rows(s, h)[0])],
            np.arange(len(s))[len(rows(s, h)[0]) :],
        ),
    }

    def ordered(held_out_answer):
        """An order of the rows is not asked for."""
        return lambda s, h: tuple(np.sort(np.asarray(part)) for part in held_out_answer(s, h))

    got = answer(scenes, {"b", "d"})
    assert got is not None and len(got) == 2, "give two arrays of rows: to train on, to test on"
    cases = [(scenes, {"b", "d"}), (more, {"q"}), (more, {"p", "s"}), (more, {"elsewhere"})]
    kinds = {np.asarray(part).dtype.kind for case in cases[:3] for part in answer(*case)}
    assert kinds != {"b"}, "give rows, not a mask"
    compare(ordered(answer), split_by_scene, cases, {hint: ordered(slip) for hint, slip in slips.items()})


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
    scenes, hits = np.repeat(np.arange(10), 50), np.repeat(np.arange(10) % 2 == 0, 50)
    got = answer(hits, scenes, 400, 0)
    assert got is not None and len(got) == 2, "give two numbers, the lower and the upper end"
    low, high = got
    assert low <= high, "the lower end comes first"
    assert low <= 0.5 <= high, "the accuracy is 0.5, and the interval should hold it"
    assert high - low > 0.2, "too narrow: draw scenes, not patches; here each scene is one observation"
    assert high - low < 0.75, "too wide: draw as many scenes as there are, and take 2.5 % off either end"
    assert tuple(answer(np.ones(20, bool), np.repeat([0, 1], 10), 50, 0)) == (1.0, 1.0), (
        "nothing varies if all are right"
    )
    rng = np.random.default_rng(0)
    names = np.array([f"scene {number}" for number in rng.permutation(np.repeat(np.arange(40), 10))])
    right = rng.random(400) < np.array([(int(name[6:]) % 4 + 1) / 5 for name in names])
    found, wanted = answer(right, names, 4000, 1), scene_interval(right, names, 4000, 0)
    few = [tuple(answer(right, names, 40, seed)) for seed in (1, 2, 3, 4, 5, 1, 2, 3)]
    assert few[:3] == few[5:], "the same seed must give the same interval"
    assert len(set(few)) > 1, "another seed must give another draw: use `seed`"
    width = np.subtract(*found[::-1]) / np.subtract(*wanted[::-1])
    assert 0.9 < width < 1.1, f"{width:.0%} of the width wanted: 95 % lie between the quantiles 0.025 and 0.975"
    off = np.abs(np.subtract(found, wanted)).max()
    assert off < 0.008, f"found {found[0]:.3f} to {found[1]:.3f}, wanted {wanted[0]:.3f} to {wanted[1]:.3f}"
    uneven = np.repeat(np.arange(20), [2] * 10 + [30] * 10)
    found, wanted = answer(uneven < 10, uneven, 2000, 1), scene_interval(uneven < 10, uneven, 2000, 0)
    assert found[1] < 0.4, "the accuracy is a mean over patches, not over scenes: join the drawn scenes first"
    off = np.abs(np.subtract(found, wanted)).max()
    assert off < 0.03, f"scenes of two sizes: found up to {found[1]:.3f}, wanted {wanted[1]:.3f}"
