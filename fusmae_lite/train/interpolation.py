"""What hidden patches cost without any training: interpolation from the visible ones, the floor a model must pass.

All of it fills in patch means, a value a band; pixels then get their patch's mean, or the bilinear surface through the
patches' centres. B pairs, N patches, C bands, K = C * P * P.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.seeding import generator
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.loader import load
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.model.masking import sample_masks
from fusmae_lite.model.tokens import patchify

WIDTHS, POWERS = (0.5, 0.7, 1.0, 1.4, 2.0), (2, 3, 4)  # of a Gaussian, in patches; of inverse distance
OTHER_WIDTH = 0.5  # through which the other sensor is seen: its own patch where visible, otherwise those around it
RIDGE = 1e-3

Fill = Callable[["Hidden", str], Tensor]  # -> means (B, N, C), those of visible patches as they are


@dataclass(frozen=True)
class Hidden:
    """Some pairs with some of their patches hidden."""

    images: dict[str, Tensor]  # modality -> (B, C, H, W), normalised
    masks: dict[str, Tensor]  # modality -> (B, N), True where hidden
    side: int  # P

    @cached_property
    def patches(self) -> dict[str, Tensor]:
        """Modality -> (B, N, K)."""
        return {name: patchify(image, self.side) for name, image in self.images.items()}

    @cached_property
    def means(self) -> dict[str, Tensor]:
        """Modality -> (B, N, C), of hidden patches too: whoever fills in must not look at those."""
        return {name: patches.unflatten(-1, (-1, self.side**2)).mean(dim=-1) for name, patches in self.patches.items()}

    def errors(self, name: str, predicted: Tensor) -> Tensor:
        """(B,) mean squared error over hidden patches of a prediction (B, N, K)."""
        squares = (predicted - self.patches[name]).square().mean(dim=-1) * self.masks[name]
        return squares.sum(dim=1) / self.masks[name].sum(dim=1)


@dataclass(frozen=True)
class Interpolation:
    """How patch means are filled in, and whether pixels lie on a surface through them."""

    fill: Fill
    smooth: bool

    def predict(self, pairs: Hidden, name: str) -> Tensor:
        """Patches (B, N, K), hidden ones filled in."""
        means = self.fill(pairs, name)
        if not self.smooth:
            return means.repeat_interleave(pairs.side**2, dim=-1)
        grid = round(means.shape[1] ** 0.5)
        surface = means.transpose(1, 2).unflatten(-1, (grid, grid))
        surface = F.interpolate(surface, scale_factor=pairs.side, mode="bilinear", align_corners=False)
        return patchify(surface, pairs.side)

    def errors(self, pairs: Hidden, name: str) -> Tensor:
        """(B,) mean squared error over hidden patches."""
        return pairs.errors(name, self.predict(pairs, name))

    def loss(self, pairs: list[Hidden], name: str) -> float:
        """Mean of :meth:`errors`."""
        return float(torch.cat([self.errors(some, name) for some in pairs]).mean())


def hidden_pairs(archive: Archive, config: RunConfig, rows: np.ndarray) -> Iterator[Hidden]:
    """Pairs with the masks that :func:`~fusmae_lite.train.heldout.heldout_losses` draws for them from the seed."""
    dataset = PairDataset(archive, indices=rows, modalities=config.modalities, size=config.image_size)
    for number, sample in enumerate(load(dataset, batch_size=min(64, max(len(dataset), 1)))):
        rng, batch = generator("validate", config.seed, number), len(sample["index"])
        masks = sample_masks(config.masking, batch, config.tokens, config.kept, config.modalities, rng)
        yield Hidden(sample["images"], masks, config.patch_size)


def choose_interpolations(train: list[Hidden], name: str) -> dict[str, Interpolation]:
    """Every method for one sensor, with the width, power and regression that do best on pairs of the training split.

    ``nearest``, ``kernel``, ``inverse distance`` and ``harmonic`` know one sensor, ``ridge`` the other as well; each is
    there ``per patch`` and ``per pixel``.
    """
    chosen: dict[str, Interpolation] = {}
    for smooth, how in ((False, "per patch"), (True, "per pixel")):
        kernel = best_kernel(train, name, smooth)
        chosen[f"nearest {how}"] = Interpolation(_nearest, smooth)
        chosen[f"kernel {how}"] = kernel
        chosen[f"inverse distance {how}"] = _best([partial(_inverse, power=p) for p in POWERS], train, name, smooth)
        chosen[f"harmonic {how}"] = Interpolation(_harmonic, smooth)
        chosen[f"ridge {how}"] = Interpolation(_fit_ridge(train, name, kernel.fill), smooth)
    return chosen


def best_kernel(train: list[Hidden], name: str, smooth: bool = True) -> Interpolation:
    """Gaussian weights of the width that does best on `train`: cheap, and seldom far from the best method."""
    return _best([partial(_gaussian, width=w) for w in WIDTHS], train, name, smooth)


def _best(weights: list[Callable[[Tensor], Tensor]], train: list[Hidden], name: str, smooth: bool) -> Interpolation:
    ways = [Interpolation(partial(_weighted, weights=each), smooth) for each in weights]
    return min(ways, key=lambda way: way.loss(train, name))


def image_mean() -> Interpolation:
    """Each image's own mean of the visible patches: what a masked autoencoder finds first."""
    return Interpolation(partial(_weighted, weights=torch.ones_like), smooth=False)


def _distances(patches: int) -> Tensor:
    """(N, N) squared distances between patches' centres, in patches."""
    grid = round(patches**0.5)
    places = torch.cartesian_prod(torch.arange(grid), torch.arange(grid)).double()
    return torch.cdist(places, places).square()


def _gaussian(squared: Tensor, width: float) -> Tensor:
    return torch.exp(-squared / (2 * width**2))


def _inverse(squared: Tensor, power: float) -> Tensor:
    return squared.clamp(min=1e-6) ** (-power / 2)


def _weighted(pairs: Hidden, name: str, weights: Callable[[Tensor], Tensor], keep: bool = True) -> Tensor:
    """Means of the visible patches, weighted by distance; with `keep` the visible ones stay what they are."""
    means, mask = pairs.means[name], pairs.masks[name]
    seen = (~mask)[:, None] * weights(_distances(mask.shape[1]))  # (B, N, N): how much each patch takes from each
    filled = ((seen / seen.sum(dim=-1, keepdim=True)) @ means.double()).to(means)
    return torch.where(mask[..., None], filled, means) if keep else filled


def _nearest(pairs: Hidden, name: str) -> Tensor:
    means, mask = pairs.means[name], pairs.masks[name]
    closest = (_distances(mask.shape[1]) + 1e9 * mask[:, None]).argmin(dim=-1)
    return means.gather(1, closest[..., None].expand_as(means))


def _harmonic(pairs: Hidden, name: str) -> Tensor:
    """Laplace's equation on the grid of patches: every hidden one is the mean of its neighbours."""
    means, mask = pairs.means[name], pairs.masks[name]
    beside = (_distances(mask.shape[1]) == 1).double()
    laplace, one = torch.diag(beside.sum(dim=1)) - beside, torch.eye(mask.shape[1], dtype=torch.float64)
    visible, equations = torch.where(mask[..., None], 0.0, means.double()), torch.where(mask[..., None], laplace, one)
    # NumPy's solver: torch's, of many systems at once, fails in MKL where several threads run
    return torch.from_numpy(np.linalg.solve(equations.numpy(), visible.numpy())).to(means)


def _fit_ridge(train: list[Hidden], name: str, own: Fill) -> Fill:
    """A linear map from what `own` fills in and what the other sensors show there, to the true means."""
    x = torch.cat([_shown(pairs, name, own)[pairs.masks[name]] for pairs in train])
    y = torch.cat([pairs.means[name][pairs.masks[name]].double() for pairs in train])
    solution = torch.linalg.solve(x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1]), x.T @ y)

    def fill(pairs: Hidden, name: str) -> Tensor:
        means = pairs.means[name]
        return torch.where(pairs.masks[name][..., None], (_shown(pairs, name, own) @ solution).to(means), means)

    return fill


def _shown(pairs: Hidden, name: str, own: Fill) -> Tensor:
    """(B, N, features) in float64: own estimate, the other sensors seen through a narrow kernel, and 1."""
    through = partial(_gaussian, width=OTHER_WIDTH)
    others = [_weighted(pairs, other, through, keep=False) for other in pairs.images if other != name]
    estimate = own(pairs, name)
    return torch.cat([estimate, *others, torch.ones_like(estimate[..., :1])], dim=-1).double()
