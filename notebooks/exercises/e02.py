"""Exercises of notebook 02: patches and masking."""

from __future__ import annotations

import torch
from judging import compare


def token_of_pixel(row: int, column: int, patch_size: int, side: int) -> int:
    """Index of the token that holds the pixel (row, column) of a square image of `side` pixels.

    Tokens are counted row by row, as `patchify` does. For P = 8 and 120 px the pixel (0, 8) lies in token 1.
    """
    # solution
    return (row // patch_size) * (side // patch_size) + column // patch_size
    # end


def check_token_of_pixel(answer):
    places = ((120, 8), (60, 10), (12, 3))
    cases = [(r, c, p, s) for s, p in places for r in (0, 1, p, s // 2, s - 1) for c in (0, p - 1, p, s - 1)]
    slips = {
        "row and column are swapped: tokens are counted row by row": lambda r, c, p, s: c // p * (s // p) + r // p,
        "a row holds side // patch_size tokens, not patch_size": lambda r, c, p, s: r // p * p + c // p,
        "a row holds side // patch_size tokens, not side pixels": lambda r, c, p, s: r // p * s + c // p,
        "tokens are counted from 0, not from 1": lambda r, c, p, s: r // p * (s // p) + c // p + 1,
        "divide row and column by the patch size first": lambda r, c, p, s: r * (s // p) + c,
        "the remainder is the place within a patch; the quotient names the patch": lambda r, c, p, s: (
            r % p * (s // p) + c % p
        ),
        "that is the number of the pixel, not of its token": lambda r, c, p, s: r * s + c,
        "an index is a whole number: use //": lambda r, c, p, s: r / p * (s / p) + c / p,
    }
    compare(answer, token_of_pixel, cases, slips)


def seen_by_any(tokens: int, kept: int, sensors: int) -> float:
    """Expected number of places that at least one of several sensors shows under independent masking.

    Every sensor keeps `kept` of `tokens` patches, uniformly and independently of the others.
    """
    # solution
    hidden = 1 - kept / tokens
    return tokens * (1 - hidden**sensors)
    # end


def check_seen_by_any(answer):
    cases = [(225, 56, 1), (4, 2, 2), (225, 56, 2), (225, 56, 3), (100, 10, 5), (9, 0, 2), (9, 9, 2)]
    slips = {
        "that is the share; multiply by the number of places": lambda n, k, m: 1 - (1 - k / n) ** m,
        "places seen twice are counted twice": lambda n, k, m: k * m,
        "places seen twice are counted twice; the cap hides it only in part": lambda n, k, m: min(k * m, n),
        "those are the places that no sensor shows": lambda n, k, m: n * (1 - k / n) ** m,
        "those are the places that all sensors show": lambda n, k, m: n * (k / n) ** m,
        "one minus the chance that all show it leaves out those that show it once": lambda n, k, m: (
            n * (1 - (k / n) ** m)
        ),
        "any number of sensors, not only two": lambda n, k, m: n * (1 - (1 - k / n) ** 2),
        "a chance for each sensor is multiplied, not added": lambda n, k, m: n * (1 - m * (1 - k / n)),
        "an expected number need not be whole: do not round": lambda n, k, m: round(n * (1 - (1 - k / n) ** m)),
    }
    compare(answer, seen_by_any, cases, slips)


def complementary_masks(batch: int, tokens: int, kept: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A third strategy: no place is ever visible in both sensors.

    Returns masks for "s1" and "s2", bool (B, N), True where hidden; every row keeps exactly `kept` patches.
    Which ones they are is random and differs between the samples of a batch.
    """
    # solution
    order = torch.rand(batch, tokens, generator=generator).argsort(dim=1)
    masks = {}
    for name, chosen in {"s1": order[:, :kept], "s2": order[:, kept : 2 * kept]}.items():
        masks[name] = torch.ones(batch, tokens, dtype=torch.bool).scatter_(1, chosen, False)
    return masks
    # end


def check_complementary_masks(answer):
    masks = answer(6, 225, 56, torch.Generator().manual_seed(0))
    assert isinstance(masks, dict) and set(masks) == {"s1", "s2"}, "return a dict with the keys s1 and s2"
    for name, mask in masks.items():
        assert mask.dtype == torch.bool and tuple(mask.shape) == (6, 225), f"{name}: give a bool tensor (batch, tokens)"
        counts = (~mask).sum(dim=1).tolist()
        assert counts != [169] * 6, f"{name} hides 56 patches: True means hidden, so the sense is the wrong way round"
        assert counts == [56] * 6, f"{name} keeps {counts}, not 56 in every sample"
        assert not bool((mask == mask[0]).all()), f"{name}: every sample of the batch got the same mask"
    both = int((~masks["s1"] & ~masks["s2"]).sum())
    assert both < 6 * 56, "both sensors got the same mask"
    assert both == 0, f"{both} places are visible in both sensors"
    again, other = (answer(6, 225, 56, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    for name, mask in masks.items():
        assert torch.equal(mask, again[name]), f"{name}: the same seed must give the same draw: use the generator"
        assert not torch.equal(mask, other[name]), f"{name}: another seed must give another draw"
    counted = {name: (~mask).float().mean(dim=0) for name, mask in answer(2000, 20, 5, torch.Generator()).items()}
    for name, share in counted.items():
        assert float((share - 0.25).abs().max()) < 0.06, f"{name}: some places are drawn more often than others"
    full = answer(3, 8, 4, torch.Generator())
    assert bool((full["s1"] ^ full["s2"]).all()), "with half of the places for each sensor all are seen exactly once"


def leaks(encode, images: torch.Tensor, mask: torch.Tensor, patch_size: int) -> bool:
    """Whether hidden pixels reach the result of `encode(images, mask)`.

    `images` is (B, C, H, W), `mask` is bool (B, N) and True where hidden. Change every hidden pixel and no other,
    encode both versions and compare the results bit for bit.
    """
    # solution
    batch, tokens = mask.shape
    grid = images.shape[-1] // patch_size
    hidden = mask.reshape(batch, 1, grid, grid).repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)
    changed = torch.where(hidden, images + 1, images)
    return not torch.equal(encode(images, mask), encode(changed, mask))
    # end


def check_leaks(answer):
    from fusmae_lite.model.masking import visible_indices
    from fusmae_lite.model.tokens import gather_tokens, patchify

    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, [0, 4, 5]] = mask[1, [1, 2, 6]] = False

    def tight(x, m):
        return gather_tokens(patchify(x, 8), visible_indices(m))

    def reads(sample, channel, row, column):
        return lambda x, m: tight(x, m) + x[sample, channel, row, column]

    before = images.clone()
    found = answer(tight, images, mask, 8)
    assert found is not None, "the function returns nothing"
    assert torch.equal(images, before), "the images that were passed in have changed: work on a copy"
    deaf = answer(lambda x, m: m, images, mask, 8)
    assert not deaf, "an encoder that never looks at the image does not leak: say True where the two results differ"
    seen = answer(reads(0, 1, 0, 0), images, mask, 8) and not answer(reads(0, 0, 0, 8), images, mask, 8)
    assert not seen, "visible pixels were changed instead of hidden pixels: True means hidden"
    assert not found, "an encoder that only gathers visible patches does not leak: change hidden pixels only"
    leaky = answer(lambda x, m: tight(x, m) + x.mean(), images, mask, 8)
    assert leaky, "an encoder that adds the mean of the whole image leaks: change what is hidden, compare both results"
    for sample, row, column in ((0, 0, 0), (0, 15, 23), (1, 7, 8), (1, 23, 0)):
        noticed = answer(reads(sample, 1, row, column), images, mask, 8)
        assert not noticed, "a visible pixel was changed: True means hidden, change hidden pixels only"
    # pixels of hidden patches: both samples, every channel, the corners of a patch
    for sample, channel, row, column in ((0, 0, 0, 8), (1, 2, 23, 23), (0, 1, 23, 0), (1, 0, 0, 7), (0, 2, 15, 7)):
        place = f"pixel ({row}, {column}), channel {channel}, sample {sample}"
        noticed = answer(reads(sample, channel, row, column), images, mask, 8)
        assert noticed, f"{place} leaked unnoticed: change every hidden pixel"
    faint = answer(lambda x, m: tight(x, m) + 1e-6 * x.mean(), images, mask, 8)
    assert faint, "a leak of one millionth went unnoticed: compare bit for bit"
    wide = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    part = torch.tensor([[True, True, False, True]])
    assert not answer(lambda x, m: x[:, :, 4:, :4], wide, part, 4), "P = 4: a visible pixel was changed"
    assert answer(lambda x, m: x[:, :, :4, 4:], wide, part, 4), "P = 4: a hidden pixel leaked unnoticed"
