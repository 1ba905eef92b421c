"""ImageNet: a ViT trained on photographs, which timm fits to 2, 12 or 14 channels. The paper's baseline without radar.

The RGB kernel of the patch projection is repeated over the channels and scaled to keep the size of its output, kernels
are resampled to patches of P pixels, positions to the grid of the images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.seeding import derive
from fusmae_lite.model.inputs import stack
from fusmae_lite.model.system import Images, Latents, System


class ImageNetViT(System):
    """timm's ViT as an encoder of exactly the sensors it was fitted to; the paper needs one for each column."""

    title = "ImageNet"

    def __init__(self, vit: VisionTransformer, config: ModelConfig) -> None:
        super().__init__(config)
        self.vit = vit

    def encode(self, images: Images) -> Latents:
        """Patch tokens and CLS of whole images, after the final norm."""
        names, stacked = self.config.modalities, stack(images, self)
        if set(images) != set(names):
            what = f"this ImageNet ViT is fitted to {', '.join(names)}, not {', '.join(images)}"
            raise InputError(what, "fit one to these")
        z = self.vit.forward_features(stacked)
        return Latents({"+".join(names): z[:, self.vit.num_prefix_tokens :]}, {"cls": z[:, 0]})


def imagenet_encoder(
    sensors: Sequence[str] = ("s1", "s2"),
    weights: str | Path = "imagenet",
    name: str = "vit_base_patch16_224",
    image_size: int = 120,
    patch_size: int = 8,
    seed: int = 0,
    size: tuple[int, int, int] | None = None,
) -> ImageNetViT:
    """A ViT with ImageNet's weights, or a local checkpoint's, fitted to these sensors.

    Args:
        weights: ``imagenet`` (timm finds them in its cache or fetches them), the path of a checkpoint of that
            architecture with 3 channels, or ``random``. Random ones are never taken unasked, but InputError is raised.
        name: timm's name of the architecture; this default is ViT-B, the size of the paper's models.
        seed: of random weights, and of whatever a checkpoint lacks.
        size: width, depth and heads instead of the architecture's own; random weights only.
    """
    if name not in timm.list_models("vit_*"):
        raise InputError(f"timm has no ViT {name!r}", "choose one of timm.list_models('vit_*')")
    if size is not None and str(weights) != "random":
        raise InputError(f"ImageNet's weights do not come in the size {size}", "leave size out, or ask for random ones")
    config = ModelConfig(system="imagenet", modalities=tuple(sensors), image_size=image_size, patch_size=patch_size)
    options = {"in_chans": sum(config.channels.values()), "img_size": image_size, "patch_size": patch_size}
    if size is not None:
        options |= dict(zip(("embed_dim", "depth", "num_heads"), size, strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("initialise", seed, 98))
        vit = _create(name, weights, options)
    sizes = {"width": vit.embed_dim, "depth": len(vit.blocks), "heads": vit.blocks[0].attn.num_heads}
    return ImageNetViT(vit, ModelConfig(**{**config.model_dump(), **sizes})).eval()


def _create(name: str, weights: str | Path, options: dict[str, Any]) -> VisionTransformer:
    """timm's model with the weights that were asked for, or InputError."""
    source, file = str(weights), Path(weights).expanduser()
    what = f"ImageNet weights of {name} can be neither found nor fetched"
    cure = "connect once so that timm keeps them, give a checkpoint's path, or ask for weights='random'"
    if source not in ("imagenet", "random"):
        if not file.is_file():
            raise InputError(f"no weights at {file}", "give imagenet, random, or the path of a checkpoint")
        options["pretrained_cfg_overlay"] = {"file": str(file)}
        what, cure = f"{file} does not hold the weights of {name}", "give a checkpoint that fits"
    try:
        return timm.create_model(name, pretrained=source != "random", num_classes=0, **options)
    except Exception as error:  # every version of the hub's client has its own for "offline"
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{what} ({reason})", cure) from None
