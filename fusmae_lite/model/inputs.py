"""What every model checks of the images it is given, in one place: which sensors, what form, what values."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import Modality, get_modality
from fusmae_lite.model.masking import check_masks
from fusmae_lite.model.system import System

#: Deviations from the mean that any normalised image may have; beyond them the sensor's plausible range decides.
USUAL = 10.0
#: Deviations beyond that range that still pass: jitter, or statistics of another data set.
MARGIN = 3.0


class Checked(dict[str, Tensor]):
    """Images that have passed, so that a model inside another need not look again."""


def check_images(
    images: Mapping[str, Tensor], model: System, masks: Mapping[str, Tensor] | None = None
) -> Mapping[str, Tensor]:
    """Images as `model` can take them, in the order of its configuration.

    NumPy arrays become tensors, and floats of another precision the model's. Values are not looked at on a GPU in
    training, which would have to wait for the answer, nor while a graph is traced.
    Pixels that `masks` (modality -> bool (B, N)) hide are not checked.

    InputError for a wrong modality, shape, dtype or device, unequal or empty batches, values that are not finite or
    that no normalised image has.
    """
    if isinstance(images, Checked):
        return images
    config = model.config
    if not isinstance(images, Mapping):
        raise InputError(f"images are a {type(images).__name__}", "give a dict of modality -> (B, C, H, W)")
    unknown = [name for name in images if name not in config.modalities]
    if unknown or not images:
        what = f"images hold modality {unknown[0]!r}" if unknown else "images hold no modality"
        raise InputError(what, f"this model takes {', '.join(config.modalities)}")
    like = next(model.parameters())
    names = [name for name in config.modalities if name in images]
    checked = Checked({name: _as_tensor(images[name], name, config, like) for name in names})
    if masks is not None:
        check_masks(masks, checked[names[0]].shape[0], config.tokens, names)
    if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
        _check_batch(checked)
        if not (like.is_meta or (like.is_cuda and model.training)):
            for name, image in checked.items():
                _check_values(_visible(image, masks[name] if masks else None, config), get_modality(name))
    return checked


def stack(images: Mapping[str, Tensor], model: System) -> Tensor:
    """Checked images stacked along the channels, (B, sum of all C_i, H, W), in the order of the configuration.

    A sensor that is missing is filled with zeros, which in normalised units is every band at its mean: DINO-MM's
    choice, and the only one that a single patch projection leaves, unlike Fus-MAE's absent tokens.
    """
    checked = check_images(images, model)
    like = next(iter(checked.values()))
    absent = {name: count for name, count in model.config.channels.items() if name not in checked}
    zeros = {name: like.new_zeros(like.shape[0], count, *like.shape[2:]) for name, count in absent.items()}
    return torch.cat([(zeros | checked)[name] for name in model.config.modalities], dim=1)


def _as_tensor(image: Tensor | np.ndarray, name: str, config: ModelConfig, like: Tensor) -> Tensor:
    """In the precision of `like`; under autocast in float32, which autocast takes from there."""
    if not isinstance(image, Tensor | np.ndarray):
        raise InputError(f"images[{name!r}] is a {type(image).__name__}", "give a tensor or a NumPy array")
    wanted = (config.channels[name], config.image_size, config.image_size)
    if image.ndim != 4 or tuple(image.shape[1:]) != wanted:
        raise InputError(f"images[{name!r}] has shape {tuple(image.shape)}", f"give (B, {', '.join(map(str, wanted))})")
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
        counts = ", ".join(f"{size} of {name}" for name, size in sizes.items())
        raise InputError(f"images hold another number of samples for each sensor: {counts}", "give pairs")
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
