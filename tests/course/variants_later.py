"""Answers of readers to the exercises of 05 to 09: right in other ways, and wrong with the hint they need."""

from __future__ import annotations

import math

import numpy as np
import torch
from sklearn.metrics import average_precision_score

RIGHT, WRONG = {}, {}


def schedule_branches(step, total, warmup, peak):
    if step >= warmup:
        done = (step - warmup) / (total - warmup)
        return peak * math.cos(math.pi * done / 2) ** 2
    return (1 + step) / (1 + warmup) * peak


RIGHT["schedule_at"] = (
    schedule_branches,
    lambda s, t, w, p: float(
        p * np.where(s < w, (s + 1) / (w + 1), (1 + np.cos(np.pi * (max(s, w) - w) / (t - w))) / 2)
    ),
    lambda s, t, w, p: p * min((s + 1) / (w + 1), 1) * (0.5 + 0.5 * math.cos(math.pi * max(0, s - w) / (t - w))),
)
WRONG["schedule_at"] = {
    "step + 1 over warmup + 1": lambda s, t, w, p: p * s / w if s < w else schedule_branches(s, t, w, p),
    "subtract warmup from step": lambda s, t, w, p: (
        p * (s + 1) / (w + 1) if s < w else p / 2 * (1 + math.cos(math.pi * s / t))
    ),
    "no warm-up": lambda s, t, w, p: p if s < w else schedule_branches(s, t, w, p),
    "straight line": lambda s, t, w, p: p * (s + 1) / (w + 1) if s < w else p * (t - s) / (t - w),
    "not total": lambda s, t, w, p: p * (s + 1) / (w + 1) if s < w else p / 2 * (1 + math.cos(math.pi * (s - w) / t)),
}


def decays_by_parts(name, ndim):
    parts = name.split(".")
    if ndim == 1 or "positions" in parts:
        return False
    return not parts[-1].endswith("token")


RIGHT["decays"] = (
    decays_by_parts,
    lambda name, ndim: ndim > 1 and "token" not in name and "positions" not in name,
    lambda name, ndim: ndim in (2, 4) and name.rsplit(".", 1)[-1] == "weight",
)
WRONG["decays"] = {
    "other way round": lambda name, ndim: not decays_by_parts(name, ndim),
    "tokens have more than one": lambda name, ndim: ndim > 1,
    "called weight": lambda name, ndim: name.endswith("weight"),
    "four dimensions": lambda name, ndim: decays_by_parts(name, ndim) and ndim == 2,
    "the mask token": lambda name, ndim: decays_by_parts(name, ndim) or name.endswith("mask_token"),
    "learned positions": lambda name, ndim: ndim > 1 and "token" not in name,
}
RIGHT["hours"] = (
    lambda pairs, epochs, rate: sum(pairs / (rate * 3600) for _ in range(epochs)),
    lambda pairs, epochs, rate: float(np.divide(np.multiply(pairs, epochs), rate * 60 * 60)),
    lambda pairs, epochs, rate: epochs * (pairs / rate / 60) / 60,
)
WRONG["hours"] = {
    "seconds": lambda n, e, r: n * e / r,
    "minutes": lambda n, e, r: n * e / (r * 60),
    "every epoch": lambda n, e, r: n / (r * 3600),
    "days": lambda n, e, r: n * e / r / 3600 / 24,
    "divide by the rate": lambda n, e, r: n * e * r / 3600,
}


def loss_in_a_loop(means, sizes):
    whole, count = 0.0, 0
    for mean, size in zip(means, sizes, strict=True):
        whole, count = whole + mean * size, count + size
    return whole / count


RIGHT["accumulated_loss"] = (
    loss_in_a_loop,
    lambda means, sizes: float(np.average(means, weights=sizes)),
    lambda means, sizes: float(torch.einsum("i,i->", torch.tensor(means), torch.tensor(sizes).float()) / sum(sizes)),
)
WRONG["accumulated_loss"] = {
    "by its size": lambda means, sizes: float(np.mean(means)),
    "number of samples": lambda means, sizes: float(np.dot(means, sizes)),
    "not of pieces": lambda means, sizes: float(np.dot(means, sizes)) / len(means),
    "sum of the means": lambda means, sizes: sum(means),
    "not with their squares": lambda means, sizes: loss_in_a_loop(means, [s * s for s in sizes]),
}


def paste_in_place(original, prediction, mask):
    pasted = prediction.clone()
    pasted[~mask] = original[~mask]
    return pasted


def paste_in_loops(original, prediction, mask):
    return torch.stack([
        torch.stack([p if hidden else o for o, p, hidden in zip(*row, strict=True)])
        for row in zip(original, prediction, mask.tolist(), strict=True)
    ])  # fmt: skip


def paste_over_the_input(original, prediction, mask):
    prediction[~mask] = original[~mask]
    return prediction


RIGHT["paste_visible"] = (
    paste_in_place,
    paste_in_loops,
    lambda o, p, m: torch.einsum("bnk,bn->bnk", p, m.to(p)) + torch.einsum("bnk,bn->bnk", o, 1 - m.to(p)),
)
WRONG["paste_visible"] = {
    "swap the two": lambda o, p, m: paste_in_place(p, o, m),
    "prediction alone": lambda o, p, m: p.clone(),
    "original alone": lambda o, p, m: o.clone(),
    "work on a copy": paste_over_the_input,
    "that of sample 0": lambda o, p, m: paste_in_place(o, p, m[:1].repeat(len(m), 1)),
    "not 0": lambda o, p, m: p * m.unsqueeze(-1).float(),
}
RIGHT["only_one_visible"] = (
    lambda tokens, patch: (torch.arange(tokens) != patch).unsqueeze(0),
    lambda tokens, patch: torch.tensor([[index != patch for index in range(tokens)]]),
    lambda tokens, patch: ~torch.nn.functional.one_hot(torch.tensor([patch]), tokens).bool(),
)
WRONG["only_one_visible"] = {
    "True means hidden": lambda tokens, patch: (torch.arange(tokens) == patch)[None],
    "off by one": lambda tokens, patch: (torch.arange(tokens) != (patch + 1) % tokens)[None],
    "not from 1": lambda tokens, patch: (torch.arange(tokens) != (patch - 1) % tokens)[None],
    "shape": lambda tokens, patch: torch.arange(tokens) != patch,
    "dtype": lambda tokens, patch: (torch.arange(tokens) != patch)[None].float(),
    "all are hidden": lambda tokens, patch: torch.ones(1, tokens, dtype=torch.bool),
}


def rmse_in_a_loop(prediction, target, std):
    errors = []
    for band, deviation in enumerate(std):
        errors.append(math.sqrt(np.mean((deviation * (prediction[:, band] - target[:, band])) ** 2)))
    return np.array(errors)


RIGHT["rmse_in_units"] = (
    rmse_in_a_loop,
    lambda p, t, s: np.sqrt(np.einsum("bchw,bchw->c", p - t, p - t) / p[:, 0].size) * s,
    lambda p, t, s: (
        np.linalg.norm(np.moveaxis((p - t) * s[:, None, None], 1, 0).reshape(len(s), -1), axis=1)
        / np.sqrt(p.size / len(s))
    ),
)
WRONG["rmse_in_units"] = {
    "or scale by its square": lambda p, t, s: np.sqrt(((p - t) ** 2).mean(axis=(0, 2, 3))) * s * s,
    "multiply by each band's deviation": lambda p, t, s: rmse_in_a_loop(p, t, np.ones_like(s)),
    "average the squares": lambda p, t, s: np.mean([rmse_in_a_loop(a[None], b[None], s) for a, b in zip(p, t)], 0),  # noqa: B905
    "absolute": lambda p, t, s: np.abs(p - t).mean(axis=(0, 2, 3)) * s,
    "cancel": lambda p, t, s: abs((p - t).mean(axis=(0, 2, 3))) * s,
    "one value a band": lambda p, t, s: np.sqrt(((p - t) ** 2).mean(axis=(1, 2, 3))),
    "root is missing": lambda p, t, s: ((p - t) ** 2).mean(axis=(0, 2, 3)) * s,
}
RIGHT["power_factor"] = (
    lambda error_db: math.exp(error_db * math.log(10) / 10),
    lambda error_db: float(np.power(10.0, np.divide(error_db, 10))),
    lambda error_db: 1.2589254117941673**error_db,
)
WRONG["power_factor"] = {
    "amplitudes": lambda error_db: 10 ** (error_db / 20),
    "10 in the denominator is missing": lambda error_db: 10.0**error_db,
    "sign is wrong": lambda error_db: 10 ** (-error_db / 10),
    "not of e": lambda error_db: math.exp(error_db / 10),
    "not a tenth": lambda error_db: error_db / 10,
}


def precision_in_a_loop(labels, scores, k):
    best = sorted(zip(scores.tolist(), labels.tolist(), strict=True), reverse=True)[:k]
    return sum(label for _, label in best) / k


RIGHT["precision_at"] = (
    precision_in_a_loop,
    lambda labels, scores, k: labels[np.argpartition(scores, -k)[-k:]].mean(),
    lambda labels, scores, k: float(torch.tensor(labels)[torch.tensor(scores).topk(k).indices].double().mean()),
)
WRONG["precision_at"] = {
    "sort downwards": lambda labels, scores, k: labels[scores.argsort()[:k]].mean(),
    "sort by score": lambda labels, scores, k: labels[:k].mean(),
    "recall": lambda labels, scores, k: labels[scores.argsort()[::-1][:k]].sum() / labels.sum(),
    "counts positives": lambda labels, scores, k: k * precision_in_a_loop(labels, scores, k),
    "k + 1": lambda labels, scores, k: labels[scores.argsort()[::-1][: k + 1]].mean(),
    "not the share": lambda labels, scores, k: np.sort(scores)[-k:].mean(),
    "negatives": lambda labels, scores, k: 1 - precision_in_a_loop(labels, scores, k),
}


def ap_by_hand(labels, scores):
    values = []
    for column, score in zip(labels.T, scores.T, strict=True):
        hits = column[np.argsort(-score, kind="stable")]
        if hits.any():
            values.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
    return sum(values) / len(values)


RIGHT["macro_ap"] = (
    ap_by_hand,
    lambda y, s: average_precision_score(y[:, y.any(0)], s[:, y.any(0)], average="macro"),
    lambda y, s: np.nanmean([
        average_precision_score(y[:, c], s[:, c]) if y[:, c].sum() else np.nan for c in range(y.shape[1])
    ]),
)  # fmt: skip
WRONG["macro_ap"] = {
    "counting it as 0": lambda y, s: ap_by_hand(y, s) * y.any(0).mean(),
    "micro": lambda y, s: average_precision_score(y, s, average="micro"),
    "by their frequency": lambda y, s: average_precision_score(y[:, y.any(0)], s[:, y.any(0)], average="weighted"),
    "classes are columns": lambda y, s: average_precision_score(y[y.any(1)].T, s[y.any(1)].T, average="macro"),
    "sign is wrong": lambda y, s: average_precision_score(y[:, y.any(0)], -s[:, y.any(0)], average="macro"),
}
RIGHT["label_subset"] = (
    lambda n, fraction, seed: np.random.default_rng(seed).permutation(n)[: max(1, int(np.ceil(n * fraction)))],
    lambda n, fraction, seed: torch.randperm(n, generator=torch.Generator().manual_seed(seed))[
        : max(round(fraction * n), 1)
    ].numpy(),
    lambda n, fraction, seed: np.argsort(np.random.RandomState(seed).rand(n))[: int(n * fraction) or 1],
)
WRONG["label_subset"] = {
    "drawn twice": lambda n, f, seed: np.random.default_rng(seed).choice(n, max(1, round(n * f))),
    "the same seed": lambda n, f, seed: np.random.default_rng().permutation(n)[: max(1, round(n * f))],
    "another seed": lambda n, f, seed: np.random.default_rng(0).permutation(n)[: max(1, round(n * f))],
    "at least one": lambda n, f, seed: np.random.default_rng(seed).permutation(n)[: int(n * f)],
    "rows must lie in": lambda n, f, seed: -1 - np.random.default_rng(seed).permutation(n)[: max(1, round(n * f))],
    "is 2,697": lambda n, f, seed: np.flatnonzero(np.random.default_rng(seed).random(n) < 2 * f),
    "equally often": lambda n, f, seed: (np.arange(max(1, round(n * f))) + seed % 7) % n,
}


def needed_by_steps(width, patches, wanted):
    count = 1
    while width * math.sqrt(patches / count) > wanted + 1e-12:
        count += 1
    return count


RIGHT["patches_needed"] = (
    needed_by_steps,
    lambda w, n, t: math.ceil(n * w * w / (t * t) - 1e-9),
    lambda w, n, t: -int(-n * (w / t) ** 2 // 1),
)
WRONG["patches_needed"] = {
    "square the ratio": lambda w, n, t: math.ceil(n * w / t),
    "width over wanted": lambda w, n, t: math.ceil(n * (t / w) ** 2),
    "too few": lambda w, n, t: math.floor(n * (w / t) ** 2),
    "multiply by patches": lambda w, n, t: math.ceil((w / t) ** 2),
    "in all, not in addition": lambda w, n, t: math.ceil(n * (w / t) ** 2) - n,
    "returns nothing": lambda w, n, t: None,
}


def impossible_in_a_loop(table):
    names = []
    for name in table:
        if round(10 * table[name]["accuracy"]) != round(10 * table[name]["recall"]):
            names.append(name)
    return names


RIGHT["impossible_rows"] = (
    impossible_in_a_loop,
    lambda table: [n for n, row in table.items() if not math.isclose(row["accuracy"], row["recall"], abs_tol=0.04)],
    lambda table: sorted({n for n, r in table.items() if f"{r['accuracy']:.1f}" != f"{r['recall']:.1f}"}),
)
WRONG["impossible_rows"] = {
    "that agree": lambda table: [n for n, row in table.items() if row["accuracy"] == row["recall"]],
    "recall may be the larger": lambda table: [n for n, row in table.items() if row["accuracy"] - row["recall"] > 0.05],
    "a tenth is a difference": lambda table: [n for n, r in table.items() if abs(r["accuracy"] - r["recall"]) > 0.15],
    "not their number": lambda table: len(impossible_in_a_loop(table)),
    "not the first": lambda table: impossible_in_a_loop(table)[:1],
    "all rows": lambda table: list(table),
}


def label_by_relabelling(codes, groups):
    counts = dict.fromkeys(groups, 0)
    for code in codes.ravel().tolist():
        for name, members in groups.items():
            counts[name] += code in members
    return max(counts, key=counts.get)


RIGHT["scene_label"] = (
    label_by_relabelling,
    lambda codes, groups: list(groups)[int(np.argmax([sum((codes == c).sum() for c in g) for g in groups.values()]))],
    lambda codes, groups: sorted(groups, key=lambda n: -np.bincount(codes.ravel(), minlength=256)[[*groups[n]]].sum())[
        0
    ],
)
WRONG["scene_label"] = {
    "merge first": lambda codes, groups: max(groups, key=lambda n: max((codes == c).sum() for c in groups[n])),
    "rarest": lambda codes, groups: min(groups, key=lambda n: np.isin(codes, groups[n]).sum()),
    "not the code": lambda codes, groups: int(np.bincount(codes.ravel()).argmax()),
    "middle pixel": lambda codes, groups: max(groups, key=lambda n: codes.ravel()[codes.size // 2] in groups[n]),
    "not the number of pixels": lambda codes, groups: max(np.isin(codes, g).sum() for g in groups.values()),
    "first row": lambda codes, groups: label_by_relabelling(codes[0], groups),
}


def smoothed_in_loops(labels, classes, smoothing):
    rows = torch.zeros(len(labels), classes) + smoothing / classes
    for row, label in enumerate(labels.tolist()):
        rows[row, label] += 1 - smoothing
    return rows


RIGHT["smoothed"] = (
    smoothed_in_loops,
    lambda y, c, s: torch.full((len(y), c), s / c).scatter_(1, y[:, None], 1 - s + s / c),
    lambda y, c, s: torch.lerp(torch.eye(c)[y], torch.full((len(y), c), 1 / c), s),
)
WRONG["smoothed"] = {
    "true class gets its share": lambda y, c, s: torch.full((len(y), c), s / (c - 1)).scatter(1, y[:, None], 1 - s),
    "plain one-hot": lambda y, c, s: torch.eye(c)[y],
    "take away from the true class": lambda y, c, s: torch.eye(c)[y] + s / c,
    "are swapped": lambda y, c, s: smoothed_in_loops(y, c, 1 - s),
    "returns nothing": lambda y, c, s: None,
    "goes to all classes": lambda y, c, s: torch.eye(c)[y] * (1 - s),
    "not to the samples": lambda y, c, s: torch.eye(c)[y] * (1 - s) + s / len(y),
}


def split_in_a_loop(scenes, held_out):
    train, test = [], []
    for row, scene in enumerate(scenes):
        (test if scene in held_out else train).append(row)
    return np.array(train, int), np.array(test, int)


RIGHT["split_by_scene"] = (
    split_in_a_loop,
    lambda scenes, held: tuple(np.where(np.array([s in held for s in scenes]) == side)[0] for side in (False, True)),
    lambda scenes, held: tuple(part[::-1] for part in split_in_a_loop(scenes, held)),
)
WRONG["split_by_scene"] = {
    "training rows come first": lambda s, h: split_in_a_loop(s, h)[::-1],
    "not a mask": lambda s, h: (~np.isin(s, list(h)), np.isin(s, list(h))),
    "not names": lambda s, h: tuple(s[part] for part in split_in_a_loop(s, h)),
    "not the first alone": lambda s, h: split_in_a_loop(s, {sorted(h)[0]}),
    "go by scene": lambda s, h: tuple(np.split(np.arange(len(s)), [len(split_in_a_loop(s, h)[0])])),
    "no patch is held out": lambda s, h: (np.arange(len(s)), split_in_a_loop(s, h)[1]),
    "not from 1": lambda s, h: tuple(part + 1 for part in split_in_a_loop(s, h)),
}


def interval_by_sums(hits, scenes, draws, seed, quantiles=(2.5, 97.5)):
    _, place = np.unique(scenes, return_inverse=True)
    right, size = np.bincount(place, weights=hits), np.bincount(place)
    chosen = np.random.default_rng(seed).choice(len(size), (draws, len(size)))
    return tuple(float(x) for x in np.percentile(right[chosen].sum(1) / size[chosen].sum(1), quantiles))


def interval_in_loops(hits, scenes, draws, seed):
    generator, values, names = torch.Generator().manual_seed(seed), [], sorted(set(scenes.tolist()))
    tally = [(int(hits[scenes == name].sum()), int((scenes == name).sum())) for name in names]
    for _ in range(draws):
        drawn = [tally[i] for i in torch.randint(len(names), (len(names),), generator=generator).tolist()]
        values.append(sum(a for a, _ in drawn) / sum(n for _, n in drawn))
    return tuple(np.quantile(values, [0.025, 0.975]).tolist())


def interval_by_weights(hits, scenes, draws, seed):
    _, place = np.unique(scenes, return_inverse=True)
    weights = np.random.default_rng(seed).multinomial(
        place.max() + 1, np.ones(place.max() + 1) / (place.max() + 1), draws
    )
    values = np.sort((weights[:, place] * hits).sum(1) / weights[:, place].sum(1))
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


def of_patches(hits, scenes, draws, seed):
    return interval_by_sums(hits, np.arange(len(hits)), draws, seed)


def of_scene_means(hits, scenes, draws, seed):
    means = np.array([hits[scenes == scene].mean() for scene in np.unique(scenes)])
    chosen = np.random.default_rng(seed).choice(len(means), (draws, len(means)))
    return tuple(np.quantile(means[chosen].mean(1), [0.025, 0.975]).tolist())


RIGHT["scene_interval"] = (interval_by_sums, interval_in_loops, interval_by_weights)
WRONG["scene_interval"] = {
    "draw scenes, not patches": of_patches,
    "not over scenes": of_scene_means,
    "of the width": lambda *a: interval_by_sums(*a, quantiles=(5, 95)),
    "lower end comes first": lambda *a: interval_by_sums(*a)[::-1],
    "the same seed": lambda hits, scenes, draws, seed: interval_by_sums(hits, scenes, draws, None),
    "another seed": lambda hits, scenes, draws, seed: interval_by_sums(hits, scenes, draws, 0),
    "two numbers": lambda hits, scenes, draws, seed: None,
}


def rest(tokens, name):
    return torch.cat([y for other, y in tokens.items() if other != name], 1)


def fuse_in_place(tokens, attentions):
    out, start = torch.cat(list(tokens.values()), 1).clone(), 0
    for name, x in tokens.items():
        out[:, start : start + x.shape[1]] += attentions[name](x, rest(tokens, name))
        start += x.shape[1]
    return out


def fuse_masked(tokens, attentions):
    everything = torch.cat(list(tokens.values()), 1)
    owner = [name for name, x in tokens.items() for _ in range(x.shape[1])]
    heard = [f(tokens[n], everything[:, [o != n for o in owner]]) for n in tokens for f in [attentions[n]]]
    return everything + torch.hstack(heard)


RIGHT["fuse_by_hand"] = (
    fuse_in_place,
    fuse_masked,
    lambda t, a: torch.hstack([a[n](t[n], rest(dict(reversed(t.items())), n)) + t[n] for n in t]),
)
WRONG["fuse_by_hand"] = {
    "residual is missing": lambda t, a: torch.hstack([a[n](t[n], rest(t, n)) for n in t]),
    "one softmax over all others": lambda t, a: torch.hstack(
        [t[n] + sum(a[n](t[n], t[o]) for o in t if o != n) for n in t]
    ),
    "not itself as well": lambda t, a: torch.hstack([t[n] + a[n](t[n], torch.hstack(list(t.values()))) for n in t]),
    "self-attention": lambda t, a: torch.hstack([t[n] + a[n](t[n], t[n]) for n in t]),
    "its own attention": lambda t, a: torch.hstack([t[n] + a[list(a)[0]](t[n], rest(t, n)) for n in t]),
    "order of the dict": lambda t, a: torch.hstack([t[n] + a[n](t[n], rest(t, n)) for n in list(t)[::-1]]),
    "samples of the batch": lambda t, a: torch.hstack([t[n] + a[n](t[n], rest(t, n)).mean(0) for n in t]),
}


def counts_one_by_one(shares, total, tokens):
    counts = np.ones(len(shares), int)
    for _ in range(total - len(shares)):
        short = np.where(counts < tokens, np.asarray(shares) * total - counts, -np.inf)
        counts[short.argmax()] += 1
    return counts


def counts_rounded(shares, total, tokens):
    counts = [min(max(round(share * total), 1), tokens) for share in shares]
    while (gap := total - sum(counts)) != 0:
        step = gap // abs(gap)
        open_ = [i for i, n in enumerate(counts) if 1 <= n + step <= tokens]
        best = max(open_, key=lambda i: step * (shares[i] * total - counts[i]))
        counts[best] += step
    return np.array(counts)


RIGHT["visible_counts"] = (
    counts_one_by_one, counts_rounded, lambda s, total, n: counts_one_by_one(np.array(s), total, n).tolist(),
)  # fmt: skip
WRONG["visible_counts"] = {
    "at least one patch": lambda s, total, n: np.r_[(c := np.floor(s * total).astype(int))[:-1], total - c[:-1].sum()],
    "patches in all": lambda s, total, n: np.clip(np.floor(s * total), 1, n),
    "away from the shares": lambda s, total, n: counts_one_by_one(s[::-1], total, n),
    "more than 225": lambda s, total, n: counts_one_by_one(s, total, 10**6),
    "counts are whole": lambda s, total, n: s * total if (s * total).min() >= 1 else counts_one_by_one(s, total, n),
    "one count for each": lambda s, total, n: counts_one_by_one(s, total, n).sum(),
}


def drop_by_keys(images, probability, rng):
    names = list(images)
    if len(names) > 1 and rng.uniform() < probability:
        names.remove(rng.choice(names))
    return {name: images[name] for name in names}


def drop_by_pop(images, probability, rng):
    left, gone = dict(images), rng.random() < probability
    if gone and len(left) > 1:
        left.pop(list(left)[int(rng.random() * len(left))])
    return left


def drop_in_place(images, probability, rng):
    if len(images) > 1 and rng.random() < probability:
        images.pop(rng.choice(sorted(images)))
    return images


def drop_each(images, probability, rng):
    return {name: image for name, image in images.items() if rng.random() >= probability} or dict(images)


RIGHT["drop_a_sensor"] = (
    drop_by_keys,
    drop_by_pop,
    lambda images, p, rng: drop_by_keys(images, 1.0, rng) if rng.binomial(1, p) else dict(images.items()),
)
WRONG["drop_a_sensor"] = {
    "return a new dict": drop_in_place,
    "expected 300": lambda images, p, rng: drop_by_keys(images, p / 2, rng),
    "equally often": lambda x, p, rng: {"s1": x["s1"]} if "s2" in x and rng.random() < p else dict(x),
    "chance to drop": lambda images, p, rng: drop_by_keys(images, 1 - p, rng),
    "three sensors: leave one out": drop_each,
    "never drop the last": lambda images, p, rng: {} if rng.random() < p / 2 else drop_by_keys(images, p, rng),
    "the same seed": lambda images, p, rng: drop_by_keys(images, p, np.random.default_rng()),
}


def products_in_loops(a, b):
    columns = [a, b]
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            columns.append((a[:, i] * b[:, j])[:, None])
    return np.concatenate(columns, axis=1)


RIGHT["with_products"] = (
    products_in_loops,
    lambda a, b: np.hstack([a, b, np.einsum("np,nq->npq", a, b).reshape(len(a), -1)]),
    lambda a, b: np.c_[a, b, np.array([np.kron(y, x) for x, y in zip(a, b, strict=True)])],
)
WRONG["with_products"] = {
    "products alone": lambda a, b: products_in_loops(a, b)[:, a.shape[1] + b.shape[1] :],
    "not multiplied": lambda a, b: np.hstack([a, b]),
    "swapped": lambda a, b: products_in_loops(b, a),
    "with itself": lambda a, b: np.hstack([a, b, products_in_loops(a, a)[:, 2 * a.shape[1] :]]),
    "not their sum": lambda a, b: np.hstack([a, b, a.sum(1, keepdims=True) * b.sum(1, keepdims=True)]),
    "sums, not products": lambda a, b: np.hstack([a, b, (a[:, :, None] + b[:, None]).reshape(len(a), -1)]),
}
