"""Exercises of notebook 02: patches and masking."""

from __future__ import annotations

import torch


def token_of_pixel(row: int, column: int, patch_size: int, side: int) -> int:
    """Index of the token that holds the pixel (row, column) of a square image of `side` pixels.

    Tokens are counted row by row, as `patchify` does. For P = 8 and 120 px the pixel (0, 8) lies in token 1.
    """
    # solution
    return (row // patch_size) * (side // patch_size) + column // patch_size
    # end


def check_token_of_pixel(answer):
    from fusmae_lite.model.tokens import patchify

    assert answer(0, 0, 8, 120) == 0, "the first pixel lies in the first token"
    assert answer(0, 8, 8, 120) == 1, "one patch to the right is the next token"
    assert answer(8, 0, 8, 120) == 15, "one patch down is a whole row of 15 tokens further"
    for side, patch_size in ((120, 8), (60, 10), (12, 3)):
        pixels = torch.arange(side**2).reshape(1, 1, side, side)
        owner = {int(p): token for token, patch in enumerate(patchify(pixels, patch_size)[0]) for p in patch}
        for row, column in ((side - 1, 0), (side // 2, side - 1), (side - 1, side - 1)):
            got, right = answer(row, column, patch_size, side), owner[row * side + column]
            assert got == right, f"pixel ({row}, {column}) of {side} px at P = {patch_size}: {got}, not {right}"


def seen_by_any(tokens: int, kept: int, sensors: int) -> float:
    """Expected number of places that at least one of several sensors shows under independent masking.

    Every sensor keeps `kept` of `tokens` patches, uniformly and independently of the others.
    """
    # solution
    hidden = 1 - kept / tokens
    return tokens * (1 - hidden**sensors)
    # end


def check_seen_by_any(answer):
    assert abs(answer(225, 56, 1) - 56) < 1e-9, "one sensor alone shows exactly the patches it keeps"
    assert abs(answer(4, 2, 2) - 3) < 1e-9, "two coin tosses a place: three of four places show at least one head"
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(4000, 3, 225, generator=generator).argsort(dim=2)
    drawn = float((order < 56).any(dim=1).sum(dim=1).double().mean())  # ranks below 56: a uniform choice of 56
    assert abs(answer(225, 56, 3) - drawn) < 1, f"4,000 draws with three sensors average {drawn:.1f}"


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
    assert set(masks) == {"s1", "s2"}, "return a dict with the keys s1 and s2"
    for name, mask in masks.items():
        assert mask.dtype == torch.bool and tuple(mask.shape) == (6, 225), f"{name}: give a bool tensor (batch, tokens)"
        counts = (~mask).sum(dim=1).tolist()
        assert counts == [56] * 6, f"{name} keeps {counts}, not 56 in every sample"
        assert not bool((mask == mask[0]).all()), f"{name}: every sample of the batch got the same mask"
    both = int((~masks["s1"] & ~masks["s2"]).sum())
    assert both == 0, f"{both} places are visible in both sensors"
    other = answer(6, 225, 56, torch.Generator().manual_seed(1))
    assert not torch.equal(masks["s1"], other["s1"]), "another seed must give another draw"


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

    def leaky(x, m):
        return tight(x, m) + x.mean()

    def subtle(x, m):
        return tight(x, m) + x[:, 0, -1, -1].view(-1, 1, 1)  # one pixel of the last patch, hidden in both samples

    before = images.clone()
    assert answer(tight, images, mask, 8) is False, "an encoder that only gathers visible patches does not leak"
    assert answer(leaky, images, mask, 8) is True, "an encoder that adds the mean of the whole image leaks"
    assert answer(subtle, images, mask, 8) is True, "one pixel of the last patch leaked unnoticed: change them all"
    assert torch.equal(images, before), "the images that were passed in have changed: work on a copy"
