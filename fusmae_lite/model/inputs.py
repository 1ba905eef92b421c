"""What every model checks of the images it is given, in one place: which sensors, what form, what values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import Modality, get_modality
from fusmae_lite.model.masking import check_masks

#: Deviations from the mean that any normalised image may have; beyond them the sensor's plausible range decides.
USUAL = 10.0
#: Deviations beyond that range that are let pass: jitter, or statistics of another data set.
MARGIN = 3.0


def check_images(
    images: Mapping[str, Tensor], model: nn.Module, masks: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Images as `model` can take them, in the order of its configuration.

    NumPy arrays become tensors, and floats of another precision the model's. Values are not looked at on a GPU in
    training, which would have to wait for the answer, nor while a graph is traced.

    Args:
        images: modality -> (B, C, H, W), normalised; any non-empty subset of the configured modalities.
        model: has a `config`, parameters and a mode.
        masks: modality -> bool (B, N), True where hidden: what is hidden may be anything.

    Raises:
        InputError: no modality or an unknown one, another shape, another number of samples for each sensor, none at
            all, whole numbers, values that are not finite or that no normalised image has.
    """
    config: ModelConfig = model.config  # type: ignore[assignment]
    if not isinstance(images, Mapping):
        raise InputError(f"images are a {type(images).__name__}", "give a dict of modality -> (B, C, H, W)")
    unknown = [name for name in images if name not in config.modalities]
    if unknown or not images:
        what = f"images hold modality {unknown[0]!r}" if unknown else "images hold no modality"
        raise InputError(what, f"this model takes {', '.join(config.modalities)}")
    names = [name for name in config.modalities if name in images]
    for name in names:
        _check_shape(images[name], name, config)
    like = next(model.parameters())
    given = {name: _as_tensor(images[name], name, like) for name in names}
    if masks is not None:
        check_masks(masks, given[names[0]].shape[0], config.tokens, names)
    if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
        _check_batch(given)
        if not (like.is_meta or (like.is_cuda and model.training)):
            for name, image in given.items():
                _check_values(_visible(image, masks[name] if masks else None, config), get_modality(name))
    return given


def _check_shape(image: Tensor, name: str, config: ModelConfig) -> None:
    if not isinstance(image, Tensor | np.ndarray):
        raise InputError(f"images[{name!r}] is a {type(image).__name__}", "give a tensor or a NumPy array")
    wanted = (get_modality(name).channels, config.image_size, config.image_size)
    if image.ndim != 4 or tuple(image.shape[1:]) != wanted:
        raise InputError(f"images[{name!r}] has shape {tuple(image.shape)}", f"give (B, {', '.join(map(str, wanted))})")


def _as_tensor(image: Tensor | np.ndarray, name: str, like: Tensor) -> Tensor:
    """On the device of `like`, in its precision; under autocast in float32, which that takes from there."""
    if isinstance(image, np.ndarray) and image.dtype.kind == "f":
        image = torch.from_numpy(np.ascontiguousarray(image, image.dtype.newbyteorder("="))).to(like.device)
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise InputError(
            f"images[{name!r}] holds {image.dtype} values: a model takes normalised ones",
            f"give fusmae_lite.data.pairs.normalise(images.float(), {name!r})",
        )
    if image.device != like.device:
        raise InputError(f"images[{name!r}] is on {image.device}, the model on {like.device}", "give both one device")
    mixed = not like.is_meta and torch.is_autocast_enabled(like.device.type)
    return image.to(torch.float32 if mixed else like.dtype)


def _check_batch(images: Mapping[str, Tensor]) -> None:
    sizes = {name: len(image) for name, image in images.items()}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{size} of {name}" for name, size in sizes.items())
        raise InputError(f"images hold another number of samples for each sensor: {found}", "give pairs")
    if 0 in sizes.values():
        raise InputError("images hold no sample", "give at least one")


def _visible(image: Tensor, mask: Tensor | None, config: ModelConfig) -> Tensor:
    """The image with 0 for what the mask hides."""
    if mask is None:
        return image
    grid, side = config.grid, config.patch_size
    hidden = mask.to(image.device).view(-1, 1, grid, 1, grid, 1).expand(-1, -1, -1, side, -1, side)
    return image.masked_fill(hidden.reshape(-1, 1, grid * side, grid * side), 0.0)


@torch.no_grad()
def _check_values(image: Tensor, modality: Modality) -> None:
    """Refuse (B, C, H, W) that holds NaN, infinity, or what the sensor cannot have measured."""
    low, high = torch.stack(image.aminmax()).tolist()
    if low >= -USUAL and high <= USUAL:
        return
    samples = (~image.isfinite()).flatten(1).any(dim=1).nonzero()
    if len(samples):
        what = f"images[{modality.name!r}] holds NaN or infinite values in sample {int(samples[0])}"
        raise InputError(what, "leave that sample out, or fill the gap in")
    if modality.valid is None:
        return
    for channel, band in enumerate(modality.bands):
        mean, std = modality.mean[channel], modality.std[channel]
        least, most = ((value - mean) / std for value in modality.valid)
        least, most = min(least - MARGIN, -USUAL), max(most + MARGIN, USUAL)
        low, high = torch.stack(image[:, channel].aminmax()).tolist()
        if low < least or high > most:
            what = (
                f"images[{modality.name!r}] holds {low if low < least else high:.4g} in band {band}, normalised images "
                f"{least:.1f} to {most:.1f}"
            )
            raise InputError(what, f"give fusmae_lite.data.pairs.normalise(images, {modality.name!r})")
