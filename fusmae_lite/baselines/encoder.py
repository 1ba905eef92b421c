"""What a protocol in :mod:`fusmae_lite.evaluate` needs of a system: images in, one vector per sample out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from fusmae_lite.config import ModelConfig


class Pooled(Protocol):
    """What `encode` returns; :class:`~fusmae_lite.model.Latents` is one."""

    def pooled(self, how: str = "mean") -> Tensor:
        """(B, width of the features); InputError for a pooling the system does not have."""
        ...


class Encoder(Protocol):
    """A system as the protocols see it: an ``nn.Module`` that says what it takes and encodes it.

    `config` names the sensors and the side of the images. The systems trained here take any non-empty subset of their
    sensors; what one does about a sensor that is missing (leave its tokens out, fill zeros in) is its method's choice.
    """

    config: ModelConfig

    def encode(self, images: Mapping[str, Tensor]) -> Pooled:
        """Modality -> (B, C, H, W), normalised; nothing is masked."""
        ...

    def train(self, mode: bool = True) -> nn.Module: ...
    def eval(self) -> nn.Module: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def state_dict(self) -> dict[str, Any]: ...


TITLES = {"late": "late fusion", "satvit": "SatViT", "imagenet": "ImageNet"}


def system_title(config: ModelConfig) -> str:
    """What a table calls the system of this configuration, for example ``Fus-MAE XAE``."""
    if config.system != "fusmae":
        return TITLES[config.system]
    return "MultiMAE-style" if config.fusion == "none" else f"Fus-MAE {config.fusion.upper()}"
