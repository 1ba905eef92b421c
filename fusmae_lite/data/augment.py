"""Random changes to a batch of images (B, C, H, W), H = W: the geometry of both sensors together, the level of each."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality

AUGMENTATIONS = ("none", "flips", "crops")
#: Smallest side of a random crop, as a share of the image's side.
SMALLEST_CROP = 0.5
#: Deviations of :func:`jitter`, in normalised units: an image's gain, its offset, each band's offset.
JITTER = (0.1, 0.2, 0.05)


def augment(
    images: Mapping[str, Tensor],
    kind: Literal["none", "flips", "crops"] = "flips",
    generator: torch.Generator | None = None,
    drawn: Sequence[Tensor] | None = None,
) -> dict[str, Tensor]:
    """Change the geometry of a batch: a draw per sample, the same for every modality, so that pairs stay registered.

    ``flips`` draws one of the 8 flips and quarter turns of the square; it moves pixels and changes none. ``crops``
    adds a random square of 50 to 100 % of the side, brought back to full size bilinearly, in one sampling step.

    The sides of two modalities may differ. `generator` lives on the CPU; `drawn` is what :func:`draw_augmentation`
    gave for these rows, instead of drawing here.
    """
    if kind == "none":
        return dict(images)
    if drawn is None:
        batch = next(iter(images.values())).shape[0] if images else 0
        drawn = draw_augmentation(batch, kind, generator)
    if kind == "flips":
        return {name: _turn(image, drawn[0]) for name, image in images.items()}
    return {name: _crop(image, *drawn) for name, image in images.items()}


def draw_augmentation(batch: int, kind: str, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
    """The random part of :func:`augment`: tensors with a row per sample, so that processes can share out a batch."""
    if kind not in AUGMENTATIONS:
        raise InputError(f"unknown augmentation {kind!r}", f"choose one of {', '.join(AUGMENTATIONS)}")
    if kind == "none":
        return ()
    states = torch.randint(8, (batch,), generator=generator)
    return (states,) if kind == "flips" else (states, torch.rand(batch, 3, generator=generator))


def draw_jitter(batch: int, modalities: Sequence[str], generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """The random part of :func:`jitter`: modality -> (B, 2 + C), standard normal."""
    return {name: torch.randn(batch, 2 + get_modality(name).channels, generator=generator) for name in modalities}


def jitter(images: Mapping[str, Tensor], drawn: Mapping[str, Tensor], strength: float = 1.0) -> dict[str, Tensor]:
    """Another gain and offset for each normalised image, an offset for each band: no scene is known by its level.

    `drawn` is what :func:`draw_jitter` gave for these rows; `strength` scales the deviations of :data:`JITTER`.
    """
    jittered = {}
    for name, image in images.items():
        gain, offset, bands = drawn[name].to(image)[:, :, None, None].split([1, 1, image.shape[1]], dim=1)
        jittered[name] = image * (1 + strength * JITTER[0] * gain)
        jittered[name] += strength * (JITTER[1] * offset + JITTER[2] * bands)
    return jittered


def _turn(images: Tensor, states: Tensor) -> Tensor:
    """Apply to each sample its element of the dihedral group: bit 2 transposes, bits 0 and 1 flip x and y."""
    turned = torch.empty_like(images)
    for state in states.unique().tolist():
        # the states are on the CPU: a boolean index on a GPU would make the processor wait for it
        chosen = (states == state).nonzero().squeeze(1).to(images.device, non_blocking=True)
        part = images[chosen]
        part = part.transpose(-1, -2) if state & 4 else part
        turned[chosen] = part.flip([axis for bit, axis in ((1, -1), (2, -2)) if state & bit])
    return turned


def _crop(images: Tensor, states: Tensor, draws: Tensor) -> Tensor:
    theta = _crop_matrices(states, draws).to(images)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    # "border": samples in the outer half pixel repeat the edge instead of mixing in zeros
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _crop_matrices(states: Tensor, draws: Tensor) -> Tensor:
    """(B, 2, 3): output coordinates -> input coordinates, both in [-1, 1]; the crop never leaves the image."""
    share = SMALLEST_CROP + (1 - SMALLEST_CROP) * draws[:, 0]
    centre = (1 - share)[:, None] * (2 * draws[:, 1:] - 1)
    flips = [torch.diag(draws.new_tensor([1 - 2 * (state & 1), 1 - (state & 2)])) for state in range(4)]
    turns = torch.stack([*flips, *(flip.flip(0) for flip in flips)])[states]  # on (x, y), what _turn does
    return torch.cat([share[:, None, None] * turns, centre[:, :, None]], dim=2)
