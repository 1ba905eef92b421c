"""What hidden patches of pairs never seen cost: a model, and interpolation from the visible ones without any training.

Interpolation fills in patch means, a value a band; pixels then get their patch's mean, or the bilinear surface through
the patches' centres. B pairs, N patches, C bands, K = C * P * P.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.seeding import derive, generator
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.loader import load
from fusmae_lite.data.pairs import PairDataset
from fusmae_lite.model.masking import sample_masks
from fusmae_lite.model.tokens import patchify
from fusmae_lite.systems import System

#: Training pairs on which the width of the kernel is chosen, at most.
CHOSEN_ON = 200
WIDTHS = (0.5, 0.7, 1.0, 1.4, 2.0)  # of kernels that are tried, in patches
OTHER_WIDTH = 0.5  # of the kernel through which ridge sees the other sensor, in patches
RIDGE = 1e-3


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
        """Modality -> (B, N, C), of hidden patches too: a method that fills in must not look at those."""
        return {name: patches.unflatten(-1, (-1, self.side**2)).mean(dim=-1) for name, patches in self.patches.items()}

    @cached_property
    def distances(self) -> Tensor:
        """(N, N) squared distances between patches' centres, in patches."""
        grid = round(next(iter(self.masks.values())).shape[1] ** 0.5)
        places = torch.cartesian_prod(torch.arange(grid), torch.arange(grid)).double()
        return torch.cdist(places, places).square()

    def errors(self, name: str, predicted: Tensor) -> Tensor:
        """(B,) mean squared error over hidden patches of a prediction (B, N, K)."""
        squares = (predicted - self.patches[name]).square().mean(dim=-1) * self.masks[name]
        return squares.sum(dim=1) / self.masks[name].sum(dim=1)


#: Means (B, N, C) for one sensor's hidden patches; those of visible ones are not looked at.
Way = Callable[[Hidden, str], Tensor]


def draw_masks(batch: int, rng: torch.Generator, config: RunConfig) -> dict[str, Tensor]:
    """Masks of ``config.masking``, a row a pair."""
    return sample_masks(config.masking, batch, config.tokens, config.kept, config.modalities, rng)


def hidden_pairs(
    archive: Archive, config: RunConfig, rows: NDArray[np.int64], draw: Callable[..., dict[str, Tensor]] = draw_masks
) -> Iterator[Hidden]:
    """Rows of an archive, 64 at a time, with what `draw` (a system's, or masks alone) draws from the seed."""
    dataset = PairDataset(archive, indices=rows, modalities=config.modalities, size=config.image_size)
    for number, sample in enumerate(load(dataset, batch_size=min(64, max(len(dataset), 1)))):
        rng = generator("validate", config.seed, number)
        yield Hidden(sample["images"], draw(len(sample["index"]), rng, config), config.patch_size)


def drawn_rows(rows: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """At most `limit` of `rows`, drawn by the seed, in their order: the first ones often lie in one place."""
    if len(rows) <= limit:
        return rows
    drawn = np.random.default_rng(derive("validate", seed, 0, 1)).choice(len(rows), limit, replace=False)
    return rows[np.sort(drawn)]


def band_means(archive: Archive, config: RunConfig, limit: int = 1000) -> dict[str, Tensor]:
    """Mean of each normalised band over the training split, or `limit` of it: modality -> (1, C, 1, 1)."""
    rows = drawn_rows(archive.split("train"), limit, config.seed)
    pairs = PairDataset(archive, indices=rows, modalities=config.modalities, size=config.image_size)
    sums: dict[str, Any] = dict.fromkeys(config.modalities, 0)
    for i in range(len(pairs)):
        sums = {name: sums[name] + image.double().mean(dim=(1, 2)) for name, image in pairs[i]["images"].items()}
    return {name: (total / len(pairs)).float().view(1, -1, 1, 1) for name, total in sums.items()}


@torch.no_grad()
def heldout_losses(
    model: System, archive: Archive, config: RunConfig, split: str = "val", limit: int = 1000, against: bool = True
) -> dict[str, float]:
    """The pretraining loss on at most `limit` pairs of a split, drawn by the seed, as are the masks.

    ``loss_<modality>`` is the mean squared error over masked patches, in units of one standard deviation squared. The
    same masks without a model: ``mean_<modality>``, predicting each band's mean over the training split, and
    ``interpolation_<modality>``, a kernel over the visible patches. DINO-MM, which reconstructs nothing, has the parts
    of its loss: ``loss_entropy``, ``loss_kl``. Empty where the split is. Without `against` the model's losses alone.
    """
    rows = drawn_rows(archive.split(split), limit, config.seed)
    if not len(rows):
        return {}
    device = next(model.parameters()).device
    predicts = against and model.reconstructs and not config.normalize_target
    ways: dict[str, dict[str, Interpolation]] = {}
    if predicts:  # pixels, in units a constant can be given in
        means = band_means(archive, config, limit)
        constant = Interpolation(lambda _, name: means[name].flatten(), smooth=False)
        train = list(hidden_pairs(archive, config, drawn_rows(archive.split("train"), CHOSEN_ON, config.seed)))
        kernels = {name: best("kernel", train, name) for name in config.modalities}
        ways = {"mean": dict.fromkeys(kernels, constant), "interpolation": kernels}
    sums: dict[str, float] = defaultdict(float)
    for hidden in hidden_pairs(archive, config, rows, model.draw):
        result = model({name: image.to(device) for name, image in hidden.images.items()}, hidden.masks)
        for name, loss in result.losses.items():
            for kind, way in ways.items():
                sums[f"{kind}_{name}"] += float(way[name].errors(hidden, name).sum())
            sums[f"loss_{name}"] += float(loss) * len(next(iter(hidden.images.values())))
    return {key: value / len(rows) for key, value in sums.items()}


@dataclass(frozen=True)
class Interpolation:
    """How hidden patches' means are filled in, and whether pixels lie on a surface through the means."""

    way: Way
    smooth: bool

    def fill(self, pairs: Hidden, name: str) -> Tensor:
        """Means (B, N, C), those of visible patches as they are."""
        means = pairs.means[name]
        return torch.where(pairs.masks[name][..., None], self.way(pairs, name).to(means), means)

    def predict(self, pairs: Hidden, name: str) -> Tensor:
        """Patches (B, N, K), hidden ones filled in."""
        means = self.fill(pairs, name)
        if not self.smooth:
            return means.repeat_interleave(pairs.side**2, dim=-1)
        surface = means.transpose(1, 2).unflatten(-1, (round(means.shape[1] ** 0.5), -1))
        surface = F.interpolate(surface, scale_factor=pairs.side, mode="bilinear", align_corners=False)
        return patchify(surface, pairs.side)

    def errors(self, pairs: Hidden, name: str) -> Tensor:
        """(B,) mean squared error over hidden patches."""
        return pairs.errors(name, self.predict(pairs, name))

    def loss(self, pairs: list[Hidden], name: str) -> float:
        """Mean of :meth:`errors`."""
        return float(torch.cat([self.errors(some, name) for some in pairs]).mean())


def choose_interpolations(train: list[Hidden], name: str) -> dict[str, Interpolation]:
    """Every method for one sensor, per patch and per pixel, with the parameter that does best on training pairs.

    Those of :data:`METHODS` know one sensor, ``ridge`` the other as well.
    """
    chosen: dict[str, Interpolation] = {}
    for smooth, how in ((False, "per patch"), (True, "per pixel")):
        chosen |= {f"{method} {how}": best(method, train, name, smooth) for method in METHODS}
        chosen[f"ridge {how}"] = Interpolation(_fit_ridge(train, name, chosen[f"kernel {how}"]), smooth)
    return chosen


def best(method: str, train: list[Hidden], name: str, smooth: bool = True) -> Interpolation:
    """A method with the parameter that does best on `train`; ``kernel`` is cheap and seldom far from the best one."""
    ways = [Interpolation(way, smooth) for way in METHODS[method]]
    return min(ways, key=lambda way: way.loss(train, name)) if len(ways) > 1 else ways[0]


def _weighted(pairs: Hidden, name: str, weights: Callable[[Tensor], Tensor]) -> Tensor:
    """Means of the visible patches, weighted by squared distance."""
    means = pairs.means[name]
    seen = (~pairs.masks[name])[:, None] * weights(pairs.distances)  # (B, N, N): how much each patch takes from each
    return ((seen / seen.sum(dim=-1, keepdim=True)) @ means.double()).to(means)


def _gaussian(width: float) -> Way:
    return partial(_weighted, weights=lambda squared: torch.exp(-squared / (2 * width**2)))


def _inverse(power: float) -> Way:
    return partial(_weighted, weights=lambda squared: squared.clamp(min=1e-6) ** (-power / 2))


def _nearest(pairs: Hidden, name: str) -> Tensor:
    closest = (pairs.distances + 1e9 * pairs.masks[name][:, None]).argmin(dim=-1)
    return pairs.means[name].gather(1, closest[..., None].expand_as(pairs.means[name]))


def _harmonic(pairs: Hidden, name: str) -> Tensor:
    """Laplace's equation on the grid of patches: every hidden one is the mean of its neighbours."""
    hidden, beside = pairs.masks[name][..., None], (pairs.distances == 1).double()
    laplace, one = torch.diag(beside.sum(dim=1)) - beside, torch.eye(len(beside), dtype=torch.float64)
    equations, visible = torch.where(hidden, laplace, one), torch.where(hidden, 0.0, pairs.means[name].double())
    # NumPy's solver: torch's, of many systems at once, fails in MKL where several threads run
    return torch.from_numpy(np.linalg.solve(equations.numpy(), visible.numpy()))


def _fit_ridge(train: list[Hidden], name: str, own: Interpolation) -> Way:
    """A linear map to the true means from what `own` fills in, the other sensors' patch or those around it, and 1."""

    def shown(pairs: Hidden) -> Tensor:
        others = [_gaussian(OTHER_WIDTH)(pairs, other) for other in pairs.images if other != name]
        estimate = own.fill(pairs, name)
        return torch.cat([estimate, *others, torch.ones_like(estimate[..., :1])], dim=-1).double()

    x = torch.cat([shown(pairs)[pairs.masks[name]] for pairs in train])
    y = torch.cat([pairs.means[name][pairs.masks[name]].double() for pairs in train])
    solution = torch.linalg.solve(x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1]), x.T @ y)
    return lambda pairs, _: shown(pairs) @ solution


METHODS: dict[str, list[Way]] = {
    "nearest": [_nearest],
    "kernel": [_gaussian(width) for width in WIDTHS],
    "inverse distance": [_inverse(power) for power in (2, 3, 4)],
    "harmonic": [_harmonic],
}
#: Each image's own mean of the visible patches: what a masked autoencoder learns first.
IMAGE_MEAN = Interpolation(partial(_weighted, weights=torch.ones_like), smooth=False)
