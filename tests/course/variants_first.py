"""Answers of readers to the exercises of 01 to 04: right in other ways, and wrong with the hint they need."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import torch

from fusmae_lite import S2

RIGHT, WRONG = {}, {}


def db_in_a_loop(db):
    powers = [10 ** (float(value) / 10) for value in np.ravel(db)]
    return 10 * math.log10(sum(powers) / len(powers))


RIGHT["average_db"] = (
    db_in_a_loop,
    lambda db: 10 * np.log(np.exp(np.asarray(db) * np.log(10) / 10).mean()) / np.log(10),
    lambda db: (
        torch.logsumexp(torch.tensor(np.asarray(db, float)).ravel() * math.log(10) / 10, 0).item() * 10 / math.log(10)
        - 10 * math.log10(np.size(db))
    ),
)
WRONG["average_db"] = {
    "mean of the decibels": lambda db: sum(np.ravel(db)) / np.size(db),
    "median": lambda db: np.quantile(db, 0.5),
    "bring it back to dB": lambda db: np.power(10, np.asarray(db) / 10).mean(),
    "amplitude": lambda db: 10 * np.log10(np.mean(10 ** (np.asarray(db) / 20)) ** 2),
    "base 10": lambda db: 10 * math.log(np.mean(10 ** (np.asarray(db) / 10))),
}


def ndvi_in_a_loop(image):
    out = np.zeros(image.shape[1:])
    for place in product(*map(range, out.shape)):
        near, red = (float(image[(S2.band_index(band), *place)]) for band in ("B08", "B04"))
        out[place] = (near - red) / (near + red) if near + red else 0.0
    return out


def ndvi_nan(image):
    near, red = image[7].astype(float), image[3].astype(float)
    with np.errstate(all="ignore"):
        return np.nan_to_num((near - red) / (near + red))


def ndvi_torch(image):
    near, red = (torch.from_numpy(np.asarray(image)[i].astype("float32")) for i in (7, 3))
    return ((near - red) / (near + red).clamp_min(1)).numpy()


RIGHT["ndvi"] = (ndvi_in_a_loop, ndvi_nan, ndvi_torch)
WRONG["ndvi"] = {
    "infrared minus red": lambda x: -ndvi_nan(x),
    "B8A": lambda x: ndvi_nan(x[[0, 1, 2, 3, 4, 5, 6, 8, 7, 9, 10, 11]]),
    "green": lambda x: ndvi_nan(x[[0, 1, 3, 2, 4, 5, 6, 7]]),
    "not NaN": lambda x: np.where(x[7] + x[3] == 0, np.nan, 0),
    "transposed": lambda x: ndvi_nan(x).T if x.shape[1] != x.shape[2] else ndvi_nan(x),
    "wrap around": lambda x: ndvi_nan(x) if x.dtype.kind == "f" else ((x[7] - x[3]) / np.maximum(x[7] + x[3], 1)),
}
RIGHT["twelve_of_thirteen"] = (
    lambda image: np.stack([band for number, band in enumerate(image) if number != 10]),
    lambda image: np.concatenate([image[:10], image[11:]]),
    lambda image: image[np.arange(13) != 10],
)
WRONG["twelve_of_thirteen"] = {
    "channel 10 is B10": lambda image: image[:12],
    "channel 9 is B10": lambda image: np.delete(image, 9, axis=0),
    "channel 8 is B09": lambda image: np.delete(image, 8, axis=0),
    "give (12, H, W)": lambda image: np.delete(image, 10, axis=1),
    "channel 0 is B12": lambda image: np.delete(image, 10, axis=0)[::-1],
}
RIGHT["looks"] = (
    lambda power: 1 / (np.std(power) / np.mean(power)) ** 2,
    lambda power: np.mean(power) ** 2 / (np.mean(np.square(power)) - np.mean(power) ** 2),
    lambda power: float((t := torch.tensor(np.asarray(power, float))).mean() ** 2 / t.var()),
)
WRONG["looks"] = {
    "both are squared": lambda power: power.mean() / power.std(),
    "the other way round": lambda power: power.var() / power.mean() ** 2,
    "not the squared mean": lambda power: (power**2).mean() / power.var(),
    "not in decibels": lambda power: (db := 10 * np.log10(power)).mean() ** 2 / db.var(),
    "square the mean": lambda power: power.mean() / power.var(),
}


def token_by_walking(row, column, patch_size, side):
    return [
        (top, left) for top in range(0, side, patch_size) for left in range(0, side, patch_size)
    ].index((row - row % patch_size, column - column % patch_size))  # fmt: skip


RIGHT["token_of_pixel"] = (
    token_by_walking,
    lambda row, column, p, side: int(np.ravel_multi_index((row // p, column // p), (side // p, side // p))),
    lambda row, column, p, side: math.floor(column / p) + math.floor(row / p) * math.floor(side / p),
)
WRONG["token_of_pixel"] = {
    "swapped": lambda row, column, p, side: (column // p) * (side // p) + row // p,
    "not from 1": lambda row, column, p, side: 1 + column // p + row // p * (side // p),
    "not side pixels": lambda row, column, p, side: row // p * side + column // p,
    "not patch_size": lambda row, column, p, side: row // p * p + column // p,
    "number of the pixel": lambda row, column, p, side: row * side + column,
}


def seen_by_counting(tokens, kept, sensors):
    seen = 0.0
    for _ in range(sensors):
        seen += (tokens - seen) * kept / tokens
    return seen


RIGHT["seen_by_any"] = (
    seen_by_counting,
    lambda n, k, m: sum(math.comb(m, i) * (k / n) ** i * (1 - k / n) ** (m - i) for i in range(1, m + 1)) * n,
    lambda n, k, m: n - (n - k) ** m / n ** (m - 1),
)
WRONG["seen_by_any"] = {
    "counted twice": lambda n, k, m: float(m * k),
    "multiply by the number": lambda n, k, m: 1 - ((n - k) / n) ** m,
    "no sensor shows": lambda n, k, m: n * ((n - k) / n) ** m,
    "all sensors show": lambda n, k, m: n * (k / n) ** m,
    "not only two": lambda n, k, m: n - (n - k) ** 2 / n,
}


def complementary_by_permutation(batch, tokens, kept, generator):
    masks = {name: torch.ones(batch, tokens, dtype=torch.bool) for name in ("s1", "s2")}
    for row in range(batch):
        places = torch.randperm(tokens, generator=generator)
        masks["s1"][row, places[:kept]], masks["s2"][row, places[kept : 2 * kept]] = False, False
    return masks


def complementary_by_rank(batch, tokens, kept, generator):
    rank = torch.rand(batch, tokens, generator=generator).argsort(1).argsort(1)
    return {"s1": rank >= kept, "s2": (rank < kept) | (rank >= 2 * kept)}


def complementary_from_the_end(batch, tokens, kept, generator):
    order = torch.randn(batch, tokens, generator=generator).topk(tokens)[1]
    visible = {"s2": order[:, :kept], "s1": order[:, tokens - kept :]}
    return {n: ~torch.zeros(batch, tokens, dtype=torch.bool).scatter(1, i, True) for n, i in visible.items()}


def same_for_all(batch, tokens, kept, generator):
    one = complementary_by_rank(1, tokens, kept, generator)
    return {name: mask.expand(batch, -1) for name, mask in one.items()}


def both_on_their_own(batch, tokens, kept, generator):
    return {n: torch.rand(batch, tokens, generator=generator).argsort(1).argsort(1) >= kept for n in ("s1", "s2")}


RIGHT["complementary_masks"] = (
    complementary_by_permutation, complementary_by_rank, complementary_from_the_end,
)  # fmt: skip
WRONG["complementary_masks"] = {
    "True means hidden": lambda *a: {name: ~mask for name, mask in complementary_by_rank(*a).items()},
    "same mask": same_for_all,
    "visible in both": both_on_their_own,
    "both sensors got the same": lambda *a: dict.fromkeys(("s1", "s2"), complementary_by_rank(*a)["s1"]),
    "bool": lambda *a: {name: mask.float() for name, mask in complementary_by_rank(*a).items()},
    "use the generator": lambda b, n, k, g: complementary_by_rank(b, n, k, None),
    "another seed": lambda b, n, k, g: complementary_by_rank(b, n, k, torch.Generator().manual_seed(0)),
}


def leaks_in_a_loop(encode, images, mask, patch_size):
    changed, side = images.clone(), images.shape[-1] // patch_size
    for row, patch in product(range(mask.shape[0]), range(mask.shape[1])):
        if mask[row, patch]:
            top, left = patch // side * patch_size, patch % side * patch_size
            changed[row, :, top : top + patch_size, left : left + patch_size] = torch.rand(1)
    return not bool((encode(images, mask) == encode(changed, mask)).all())


def leaks_by_kron(encode, images, mask, patch_size):
    side = images.shape[-1] // patch_size
    hidden = torch.kron(mask.reshape(-1, side, side).float(), torch.ones(patch_size, patch_size))
    return bool((encode(images, mask) != encode(images + 3 * hidden[:, None], mask)).any())


def leaks_by_interpolation(encode, images, mask, patch_size):
    side = images.shape[-1] // patch_size
    hidden = torch.nn.functional.interpolate(mask.view(-1, 1, side, side).float(), scale_factor=patch_size)
    return not torch.equal(encode(images.masked_fill(hidden.bool(), 1e3), mask), encode(images, mask))


def leaks_in_place(encode, images, mask, patch_size):
    before, side = encode(images, mask), images.shape[-1] // patch_size
    images += torch.kron(mask.reshape(-1, 1, side, side).float(), torch.ones(patch_size, patch_size))
    return not torch.equal(before, encode(images, mask))


RIGHT["leaks"] = (leaks_in_a_loop, leaks_by_kron, leaks_by_interpolation)
WRONG["leaks"] = {
    "does not leak": lambda *a: not leaks_by_kron(*a),
    "change hidden pixels only": lambda e, x, m, p: not torch.equal(e(x, m), e(x + 1, m)),
    "images that were passed in": leaks_in_place,
    "visible pixels were changed": lambda e, x, m, p: leaks_by_kron(e, x, ~m, p),
    "mean of the whole image": lambda e, x, m, p: not torch.allclose(e(x, m), e(x, m)),
    "unnoticed": lambda e, x, m, p: leaks_by_kron(e, x, m & (torch.arange(m.shape[1]) > 1), p),
}


def attention_in_loops(q, k, v):
    rows = []
    for query in q:
        scores = torch.stack([(query * key).sum() for key in k]) / math.sqrt(len(query))
        weights = (scores - scores.max()).exp()
        rows.append(sum(w * value for w, value in zip(weights / weights.sum(), v, strict=True)))
    return torch.stack(rows)


def attention_numpy(q, k, v):
    scores = q.numpy() @ k.numpy().T / np.sqrt(q.shape[1])
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return torch.from_numpy(weights / weights.sum(axis=1, keepdims=True) @ v.numpy())


RIGHT["attention"] = (
    attention_in_loops,
    attention_numpy,
    lambda q, k, v: torch.einsum(
        "nm,me->ne", torch.softmax(torch.einsum("nd,md->nm", q / math.sqrt(q.size(1)), k), 1), v
    ),
)
WRONG["attention"] = {
    "scale 1 / sqrt(d) is missing": lambda q, k, v: torch.softmax(q @ k.T, 1) @ v,
    "axis of the keys": lambda q, k, v: torch.softmax(q @ k.T / q.shape[1] ** 0.5, 0) @ v,
    "not by d": lambda q, k, v: torch.softmax(q @ k.T / q.shape[1], 1) @ v,
    "softmax is missing": lambda q, k, v: q @ k.T @ v / math.sqrt(q.shape[1]),
    "weigh the same": lambda q, k, v: v.mean(0, keepdim=True).repeat(len(q), 1),
    "wanted one row": lambda q, k, v: (torch.softmax(q @ k.T / q.shape[1] ** 0.5, 1) @ v).T,
}


def keys_in_a_loop(weights):
    flat = [
        math.exp(-sum(w * math.log(w) for w in row.tolist() if w > 0)) for row in weights.reshape(-1, weights.size(-1))
    ]
    return torch.tensor(flat).reshape(weights.shape[:-1])


RIGHT["effective_keys"] = (
    keys_in_a_loop,
    lambda w: 2 ** -(w * w.clamp_min(1e-30).log2()).sum(-1),
    lambda w: torch.distributions.Categorical(probs=w).entropy().exp(),
)
WRONG["effective_keys"] = {
    "take exp of it": lambda w: torch.special.entr(w).sum(-1),
    "NaN": lambda w: (-(w * w.log()).sum(-1)).exp(),
    "last axis": lambda w: torch.special.entr(w).sum().exp(),
    "above 0": lambda w: w.count_nonzero(-1),
    "sum of squares": lambda w: 1 / (w**2).sum(-1),
    "sign": lambda w: torch.special.xlogy(w, w).sum(-1).exp(),
}


def share_in_loops(matrix, slices, name):
    sums = {key: 0.0 for key in slices if key != "cls"}
    for query in range(*slices[name].indices(len(matrix))):
        for key in sums:
            sums[key] += float(matrix[query, slices[key]].sum())
    return sums[name] / sum(sums.values())


RIGHT["own_share"] = (
    share_in_loops,
    lambda m, s, n: float(m[s[n], s[n]].sum() / sum(m[s[n], part].sum() for key, part in s.items() if key != "cls")),
    lambda m, s, n: float(m[s[n], s[n]].sum(1).mean() / (m[s[n]].sum(1) - m[s[n], s["cls"]].sum(1)).mean()),
)
WRONG["own_share"] = {
    "leave CLS out": lambda m, s, n: float(m[s[n], s[n]].sum() / m[s[n]].sum()),
    "took columns": lambda m, s, n: share_in_loops(m.T, s, n),
    "share of the others": lambda m, s, n: 1 - share_in_loops(m, s, n),
    "not by the others alone": lambda m, s, n: (r := share_in_loops(m, s, n)) / (1 - r),
    "average over the queries first": lambda m, s, n: float(
        (m[s[n], s[n]].sum(1) / (m[s[n]].sum(1) - m[s[n], s["cls"]].sum(1))).mean()
    ),
}
RIGHT["attention_cost"] = (
    lambda tokens: (
        sum(a * b for one, a in tokens.items() for other, b in tokens.items() if one != other),
        sum(a * b for a in tokens.values() for b in tokens.values()),
    ),
    lambda tokens: (sum(tokens.values()) ** 2 - sum(n**2 for n in tokens.values()), sum(tokens.values()) ** 2),
    lambda tokens: (
        int(np.outer(n := list(tokens.values()), n).sum() - np.trace(np.outer(n, n))),
        int(np.outer(n, n).sum()),
    ),
)
WRONG["attention_cost"] = {
    "swapped": lambda t: (sum(t.values()) ** 2, sum(t.values()) ** 2 - sum(n**2 for n in t.values())),
    "none of its own": lambda t: (sum(t.values()) ** 2, sum(t.values()) ** 2),
    "one direction": lambda t: ((sum(t.values()) ** 2 - sum(n**2 for n in t.values())) // 2, sum(t.values()) ** 2),
    "each modality with itself": lambda t: (sum(n**2 for n in t.values()), sum(t.values()) ** 2),
    "CLS": lambda t: (sum(t.values()) ** 2 - sum(n**2 for n in t.values()), (sum(t.values()) + 1) ** 2),
}


def layout_in_a_loop(latents, index, mask_token, n_patches):
    rows = []
    for row, places in enumerate(index.tolist()):
        rows.append(
            torch.stack([latents[row, places.index(p)] if p in places else mask_token for p in range(n_patches)])
        )
    return torch.stack(rows)


def layout_by_one_hot(latents, index, mask_token, n_patches):
    hot = torch.nn.functional.one_hot(index, n_patches).to(latents.dtype)
    return torch.einsum("bnp,bnd->bpd", hot, latents) + (1 - hot.sum(1))[..., None] * mask_token


def layout_by_rows(latents, index, mask_token, n_patches):
    canvas = mask_token.repeat(len(latents), n_patches, 1)
    canvas[torch.arange(len(latents))[:, None], index] = latents
    return canvas


RIGHT["lay_out"] = (layout_in_a_loop, layout_by_one_hot, layout_by_rows)
WRONG["lay_out"] = {
    "not 0": lambda x, i, t, n: layout_by_rows(x, i, torch.zeros_like(t), n),
    "that of sample 0": lambda x, i, t, n: layout_by_rows(x, i[0].repeat(len(i), 1), t, n),
    "one after the other": lambda x, i, t, n: torch.cat([x, t.repeat(len(x), n - x.shape[1], 1)], 1),
    "do not sort": lambda x, i, t, n: layout_by_rows(x, i.sort(1)[0], t, n),
    "the shape is": lambda x, i, t, n: layout_by_rows(x, i, t, n).mT,
    "off by one": lambda x, i, t, n: layout_by_rows(x, (i + 1) % n, t, n),
    "of the batch are swapped": lambda x, i, t, n: layout_by_rows(x.flip(0), i, t, n),
}


def error_in_loops(prediction, target, mask):
    found = [
        ((prediction[b, n] - target[b, n]) ** 2).mean()
        for b, n in product(range(mask.shape[0]), range(mask.shape[1]))
        if mask[b, n]
    ]
    return sum(found) / len(found)


RIGHT["hidden_error"] = (
    error_in_loops,
    lambda p, t, m: torch.nn.functional.mse_loss(p[m], t[m]),
    lambda p, t, m: torch.einsum("bnk,bnk,bn->", p - t, p - t, m.float()) / m.sum() / p.shape[-1],
)
WRONG["hidden_error"] = {
    "the visible ones are not asked for": lambda p, t, m: ((p - t) ** 2).mean(),
    "True means hidden": lambda p, t, m: torch.nn.functional.mse_loss(p[~m], t[~m]),
    "not of all": lambda p, t, m: ((p - t) ** 2 * m[..., None]).mean(),
    "each sample's mean": lambda p, t, m: (((p - t) ** 2).mean(-1) * m).sum(1).div(m.sum(1)).mean(),
    "absolute": lambda p, t, m: torch.nn.functional.l1_loss(p[m], t[m]),
    "root": lambda p, t, m: torch.nn.functional.mse_loss(p[m], t[m]).sqrt(),
    "one for each sample": lambda p, t, m: (((p - t) ** 2).mean(-1) * m).sum(1) / m.sum(1),
}


def count_by_hand(width, sensors=2, mlp_ratio=4):
    linear = [(width, width)] * 4 + [(width, mlp_ratio * width), (mlp_ratio * width, width)]
    return sensors * (sum(a * b + b for a, b in linear) + 2 * 2 * width)


def count_modules(width, sensors=2, mlp_ratio=4):
    hidden = mlp_ratio * width
    layers = [torch.nn.LayerNorm(width) for _ in range(2)] + [torch.nn.Linear(width, width) for _ in range(4)]
    layers += [torch.nn.Linear(width, hidden), torch.nn.Linear(hidden, width)]
    return sensors * sum(p.numel() for layer in layers for p in layer.parameters())


RIGHT["xattn_decoder_parameters"] = (
    count_by_hand,
    count_modules,
    lambda width, sensors=2, mlp_ratio=4: sensors * ((4 + 2 * mlp_ratio) * width**2 + (9 + mlp_ratio) * width),
)
WRONG["xattn_decoder_parameters"] = {
    "for every sensor": lambda width, sensors=2, mlp_ratio=4: count_by_hand(width, 1, mlp_ratio),
    "not for two": lambda width, sensors=2, mlp_ratio=4: count_by_hand(width, 2, mlp_ratio),
    "not always 4": lambda width, sensors=2, mlp_ratio=4: count_by_hand(width, sensors),
    "the last is missing": lambda w, sensors=2, r=4: count_by_hand(w, sensors, r) - sensors * (w + w**2),
    "LayerNorms are missing": lambda w, sensors=2, r=4: sensors * ((4 + 2 * r) * w**2 + (5 + r) * w),
    "no bias": lambda w, sensors=2, r=4: sensors * ((4 + 2 * r) * w**2 + 4 * w),
}


def neither_by_cases(mask_ratio, consistent):
    if consistent:
        return mask_ratio
    return mask_ratio * mask_ratio


RIGHT["seen_by_neither"] = (
    neither_by_cases,
    lambda mask_ratio, consistent: mask_ratio ** (2 - consistent),
    lambda mask_ratio, consistent: 1 - (1 - mask_ratio) * (1 if consistent else 1 + mask_ratio),
)
WRONG["seen_by_neither"] = {
    "swapped": lambda r, c: r * r if c else r,
    "seen by both": lambda r, c: (1 - r) ** (2 - c),
    "both must hide it": lambda r, c: r,
    "once is twice": lambda r, c: r * r,
    "at least one": lambda r, c: 1 - r if c else 1 - r * r,
}
