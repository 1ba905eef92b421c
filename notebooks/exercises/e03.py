"""Exercises of notebook 03: cross-attention."""

from __future__ import annotations

import torch


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
    ones = answer(q, k, torch.ones(5, 2))
    assert torch.allclose(ones, torch.ones(3, 2)), "values that are all 1 must give 1: the weights of a row sum to 1"
    right = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None])[0]
    assert torch.allclose(got, right, atol=1e-5), "the weights are off: is the scale sqrt(d), d the length of a query?"


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
    assert torch.allclose(even, torch.full((2, 3), 4.0)), "four equal weights are four keys"
    one = answer(torch.tensor([0.0, 1.0, 0.0]))
    assert not bool(torch.isnan(one).any()), "a weight of 0 gave NaN: 0 log 0 counts as 0"
    assert torch.allclose(one, torch.tensor(1.0)), "all weight on one key is one key"
    assert torch.allclose(answer(torch.tensor([0.5, 0.5, 0.0, 0.0])), torch.tensor(2.0)), (
        "two equal weights are two keys"
    )


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
    even = torch.full((5, 5), 0.2)
    assert abs(answer(even, slices, "s1") - 0.5) < 1e-6, "uniform attention over equal counts is 50 %, CLS left out"
    block = torch.zeros(5, 5)
    block[:2, :2] = block[2:4, 2:4] = 0.5
    assert abs(answer(block, slices, "s2") - 1) < 1e-6, "a block-diagonal matrix keeps everything at home"
    mixed = torch.tensor([[0.3, 0.3, 0.1, 0.1, 0.2]] * 2 + [[0.1, 0.1, 0.1, 0.1, 0.6]] * 3)
    assert abs(answer(mixed, slices, "s1") - 0.75) < 1e-6, "rows 0.6 own, 0.2 other, 0.2 CLS: 0.6 / 0.8"
    three = {"a": slice(0, 2), "b": slice(2, 3), "c": slice(3, 4), "cls": slice(4, 5)}
    assert abs(answer(even, three, "a") - 0.5) < 1e-6, "with three modalities divide by the weight on all three"


def attention_cost(tokens: dict[str, int]) -> tuple[int, int]:
    """Number of query-key products, without CLS: (XAttnEncoder, one plain self-attention block over all tokens).

    In the XAttnEncoder every token of a modality meets every token of the others, none of its own.
    """
    # solution
    total = sum(tokens.values())
    return sum(n * (total - n) for n in tokens.values()), total**2
    # end


def check_attention_cost(answer):
    assert tuple(answer({"s1": 1, "s2": 1})) == (2, 4), "one token each: each meets the other, that is 2 of 4 products"
    assert tuple(answer({"s1": 56, "s2": 56})) == (6272, 12544), (
        "56 and 56: two maps of 56 x 56, against one of 112 x 112"
    )
    assert tuple(answer({"a": 10, "b": 20, "c": 30})) == (2200, 3600), "three modalities of different sizes"
    assert tuple(answer({"s1": 225})) == (0, 50625), "a sensor alone has nobody to attend to"
