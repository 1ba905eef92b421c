"""How sure a reconstruction is: the spread over what else might have been hidden, and whether it can be believed.

Each draw hides some more of what is visible; predictions deviate. That knows nothing of what no prediction can have
(speckle, texture), so widths are fitted on other pairs: quantiles of the errors in deviations (split conformal).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

from fusmae_lite.core.errors import InputError
from fusmae_lite.evaluation.metrics import redraw_groups
from fusmae_lite.model.fusmae import FusMAE, Masks
from fusmae_lite.model.system import Images

LEVELS = (0.5, 0.8, 0.9, 0.95)


def hide_more(masks: Mapping[str, Tensor], share: float, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Masks (B, N) that also hide `share` of the visible patches, one or more; one stays. Rows see equally many."""
    more = {}
    for name, mask in masks.items():
        visible = int((~mask[0]).sum())
        if visible < 2:
            raise InputError(f"{visible} patch of {name} is visible", "leave two or more: a draw hides some of them")
        kept = min(max(round(visible * (1 - share)), 1), visible - 1)
        order = torch.rand(mask.shape, generator=generator).masked_fill(mask, 2.0).argsort(dim=1)
        more[name] = torch.ones_like(mask).scatter_(1, order[:, :kept], False)
    return more


@torch.no_grad()
def spread(
    model: FusMAE,
    images: Images,
    masks: Masks,
    draws: int = 8,
    share: float = 0.3,
    generator: torch.Generator | None = None,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and deviation over `draws` predictions, two or more: sensor -> (B, N, K) each, in normalised units."""
    if draws < 2:
        raise InputError(f"a spread over {draws} draws", "draw two or more")
    made = [model(images, hide_more(masks, share, generator)).patches for _ in range(draws)]
    stacked = {name: torch.stack([patches[name] for patches in made]) for name in images}
    return {name: (patches.mean(dim=0), patches.std(dim=0)) for name, patches in stacked.items()}


def stated_widths(levels: Sequence[float] = LEVELS) -> NDArray[np.float64]:
    """Half widths of the intervals in deviations, were errors normal and the spread their deviation: 0.67 for 50 %."""
    return norm.ppf((1 + np.asarray(levels)) / 2)


def fit_widths(ratios: Tensor, levels: Sequence[float] = LEVELS) -> NDArray[np.float64]:
    """Half widths that cover each level of `ratios`, absolute errors in deviations at hidden pixels of any shape."""
    return np.quantile(ratios.double().numpy(), levels)


def coverage(ratios: Tensor, widths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each pair's truth within the intervals: `ratios` (B, pixels) -> (B, levels)."""
    return np.stack([(ratios.numpy() <= width).mean(axis=1) for width in widths], axis=1)


def cross_fitted(ratios: Tensor, half: NDArray[np.bool_], levels: Sequence[float] = LEVELS) -> NDArray[np.float64]:
    """:func:`coverage` of each pair by widths fitted on the pairs of the other half; `half` is (B,)."""
    shares = np.empty((len(ratios), len(levels)))
    for fit in (half, ~half):
        shares[~fit] = coverage(ratios[~fit], fit_widths(ratios[fit], levels))
    return shares


def over_groups(
    shares: NDArray[np.float64], groups: Sequence[object], redraws: int = 500
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean of (B, levels), low and high of its 95 % interval: groups (B,), such as tiles, are redrawn whole."""
    means = np.array([redraw_groups(level[None], groups, redraws) for level in shares.T])
    return means[:, 0], *np.quantile(means[:, 1:], [0.025, 0.975], axis=1)
