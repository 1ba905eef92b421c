"""Exercises of notebook 03: cross-attention."""

from __future__ import annotations

import torch
from judging import compare


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Eq. 5 for one head: q (n, d), k (m, d), v (m, e) -> (n, e), without calling a function named attention.

    Every output row is a weighted mean of the rows of v; the weights are the softmax over the keys of q k^T / sqrt(d).
    """
    # solution
    scores = q @ k.T / q.shape[-1] ** 0.5
    return scores.softmax(dim=-1) @ v
    # end


def check_attention(answer):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(*shape, generator=generator) for shape in ((3, 8), (5, 8), (5, 2)))
    got = answer(q, k, v)
    assert tuple(got.shape) == (3, 2), f"a result of shape {tuple(got.shape)}, wanted one row for each of 3 queries"
    slips = {
        "the scale 1 / sqrt(d) is missing": lambda q, k, v: (q @ k.T).softmax(-1) @ v,
        "divide by sqrt(d), not by d": lambda q, k, v: (q @ k.T / q.shape[-1]).softmax(-1) @ v,
        "multiplied by sqrt(d): divide": lambda q, k, v: (q @ k.T * q.shape[-1] ** 0.5).softmax(-1) @ v,
        "the softmax runs over the queries; take the axis of the keys": lambda q, k, v: (
            (q @ k.T / q.shape[-1] ** 0.5).softmax(0) @ v
        ),
        "d is the length of a query, not of a value": lambda q, k, v: (q @ k.T / v.shape[-1] ** 0.5).softmax(-1) @ v,
        "d is the length of a query, not the number of keys": lambda q, k, v: (
            (q @ k.T / k.shape[0] ** 0.5).softmax(-1) @ v
        ),
        "d is the length of a query, not the number of queries": lambda q, k, v: (
            (q @ k.T / q.shape[0] ** 0.5).softmax(-1) @ v
        ),
        "the softmax is missing: weights must be positive and sum to 1": lambda q, k, v: (
            (q @ k.T / q.shape[-1] ** 0.5) @ v
        ),
        "the scale belongs inside the softmax": lambda q, k, v: (q @ k.T).softmax(-1) @ v / q.shape[-1] ** 0.5,
        "the sign is wrong: keys that match best weigh least": lambda q, k, v: (
            (-(q @ k.T) / q.shape[-1] ** 0.5).softmax(-1) @ v
        ),
        "all keys weigh the same": lambda q, k, v: v.mean(0).expand(len(q), -1),
        "the softmax is taken twice": lambda q, k, v: (q @ k.T / q.shape[-1] ** 0.5).softmax(-1).softmax(-1) @ v,
    }
    big = torch.randn(4, 3, generator=generator) * 40, torch.randn(6, 3, generator=generator), torch.randn(6, 7)
    compare(answer, attention, [(q, k, v), (q[:1], k, v[:, :1]), big], slips)


def effective_keys(weights: torch.Tensor) -> torch.Tensor:
    """How many keys each query really looks at: exp of the entropy of its weights, (..., m) -> (...).

    1 when all weight lies on one key, m when it is spread evenly. A weight of 0 adds nothing (and must not give NaN).
    """
    # solution
    entropy = -torch.special.xlogy(weights, weights).sum(dim=-1)
    return entropy.exp()
    # end


def check_effective_keys(answer):
    even = answer(torch.full((2, 3, 4), 0.25))
    assert tuple(even.shape) == (2, 3), f"shape {tuple(even.shape)}: the last axis, and only it, should be gone"
    one = answer(torch.tensor([0.0, 1.0, 0.0]))
    assert not bool(torch.isnan(one).any()), "a weight of 0 gave NaN: 0 log 0 counts as 0"

    def entropy(w):
        return -torch.special.xlogy(w, w).sum(-1)

    slips = {
        "that is the entropy; take exp of it": entropy,
        "the sign of the entropy is wrong": lambda w: (-entropy(w)).exp(),
        "exp belongs to the natural logarithm, 2 ** to log2": lambda w: (entropy(w) / torch.tensor(2.0).log()).exp(),
        "2 ** belongs to log2, exp to the natural logarithm": lambda w: 2 ** entropy(w),
        "average over nothing: the entropy is a sum": lambda w: (entropy(w) / w.shape[-1]).exp(),
        "that counts the weights above 0; weigh them": lambda w: (w > 0).sum(-1),
        "that is 1 / sum of squares, another count: take exp of the entropy": lambda w: 1 / w.square().sum(-1),
        "weigh each logarithm by its weight": lambda w: (-w.clamp_min(1e-12).log()).sum(-1).exp(),
        "that is one over the largest weight": lambda w: 1 / w.amax(-1),
    }
    rows = torch.rand(3, 2, 5, generator=torch.Generator().manual_seed(0))
    some = rows / rows.sum(-1, keepdim=True)
    holes = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.7, 0.1, 0.2, 0.0], [0.0, 0.0, 0.0, 1.0]])
    compare(answer, effective_keys, [(some,), (holes,), (torch.full((2, 3, 4), 0.25),), (holes[2],)], slips)


def own_share(matrix: torch.Tensor, slices: dict[str, slice], name: str) -> float:
    """Share of their attention that the tokens of `name` keep within their own modality; CLS is left out.

    `matrix` is (L, L) with rows that sum to 1, `slices` gives each modality's tokens and ``"cls"``. Average the weight
    on own tokens over the queries, and divide by the average weight on the tokens of all modalities.
    """
    # solution
    rows = matrix[slices[name]]
    weight = {key: float(rows[:, part].sum(dim=1).mean()) for key, part in slices.items() if key != "cls"}
    return weight[name] / sum(weight.values())
    # end


def check_own_share(answer):
    slices = {"s1": slice(0, 2), "s2": slice(2, 4), "cls": slice(4, 5)}
    mixed = torch.tensor([[0.3, 0.3, 0.1, 0.1, 0.2]] * 2 + [[0.1, 0.1, 0.1, 0.1, 0.6]] * 3)
    generator = torch.Generator().manual_seed(0)
    some = torch.rand(9, 9, generator=generator).softmax(-1)
    steep = (4 * torch.randn(9, 9, generator=generator)).softmax(-1)
    three = {"a": slice(0, 2), "b": slice(2, 5), "c": slice(5, 8), "cls": slice(8, 9)}
    cases = [(mixed, slices, "s1"), (mixed, slices, "s2"), *((steep, three, name) for name in "abc")]
    cases.append((some, {"s2": slice(0, 5), "s1": slice(5, 8), "cls": slice(8, 9)}, "s1"))

    def block(matrix, slices, one, other):
        return float(matrix[slices[one], slices[other]].sum(-1).mean())

    def against(matrix, slices, name, keys):
        return block(matrix, slices, name, name) / sum(block(matrix, slices, name, key) for key in keys)

    def ratio_of_each_row(m, s, n):
        others = sum(m[s[n], s[key]].sum(-1) for key in s if key != "cls")
        return float((m[s[n], s[n]].sum(-1) / others).mean())

    slips = {
        "leave CLS out of what you divide by": lambda m, s, n: against(m, s, n, s),
        "that is the weight on own tokens, not yet divided": lambda m, s, n: block(m, s, n, n),
        "rows are queries: you took columns": lambda m, s, n: own_share(m.T, s, n),
        "divide by own and other weights, not by the others alone": lambda m, s, n: against(
            m, s, n, [k for k in s if k not in ("cls", n)]
        ),
        "that is the share of the others": lambda m, s, n: 1 - against(m, s, n, [k for k in s if k != "cls"]),
        "sum the weights over the keys before you average": lambda m, s, n: (
            float(m[s[n], s[n]].mean()) / sum(float(m[s[n], s[key]].mean()) for key in s if key != "cls")
        ),
        "average over the queries first, then divide": ratio_of_each_row,
        "you averaged over all queries; take those of this modality": lambda m, s, n: (
            float(m[:, s[n]].sum()) / sum(float(m[:, s[key]].sum()) for key in s if key != "cls")
        ),
        "CLS is not a sensor: leave it out of the weights, and keep the own": lambda m, s, n: (
            block(m, s, n, n) / (block(m, s, n, n) + block(m, s, n, "cls"))
        ),
    }
    compare(answer, own_share, cases, slips)


def attention_cost(tokens: dict[str, int]) -> tuple[int, int]:
    """Number of query-key products, without CLS: (XAttnEncoder, one plain self-attention block over all tokens).

    In the XAttnEncoder every token of a modality meets every token of the others, none of its own.
    """
    # solution
    total = sum(tokens.values())
    return sum(n * (total - n) for n in tokens.values()), total**2
    # end


def check_attention_cost(answer):
    counts = ({"s1": 1, "s2": 1}, {"s1": 56, "s2": 56}, {"s1": 28, "s2": 84}, {"a": 10, "b": 20, "c": 30}, {"s1": 225})
    slips = {
        "the two counts are swapped": lambda t: attention_cost(t)[::-1],
        "only one direction: each modality asks the others, and is asked by them": lambda t: (
            attention_cost(t)[0] // 2,
            attention_cost(t)[1],
        ),
        "in the XAttnEncoder a token meets none of its own modality": lambda t: (attention_cost(t)[1],) * 2,
        "in the block over all tokens, every token meets every token": lambda t: (
            attention_cost(t)[0],
            sum(n * n for n in t.values()),
        ),
        "those are maps of each modality with itself": lambda t: (sum(n * n for n in t.values()), attention_cost(t)[1]),
        "the block over all tokens has one map of total x total": lambda t: (attention_cost(t)[0],) * 2,
        "that holds for two modalities of one size only": lambda t: (attention_cost(t)[1] // 2, attention_cost(t)[1]),
        "CLS is not counted": lambda t: (attention_cost(t)[0], (sum(t.values()) + 1) ** 2),
    }
    compare(answer, attention_cost, [(tokens,) for tokens in counts], slips)
