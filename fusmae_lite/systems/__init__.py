"""The systems Fus-MAE is compared with, each a :class:`System`: late fusion, SatViT, DINO-MM, ImageNet."""

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.model.system import System
from fusmae_lite.systems.dino import DINO
from fusmae_lite.systems.imagenet import ImageNetViT, imagenet_encoder
from fusmae_lite.systems.masked import LateFusion, SatViT

__all__ = ["DINO", "ImageNetViT", "LateFusion", "SatViT", "System", "build_model", "imagenet_encoder"]

MODELS: dict[str, type[System]] = {"fusmae": FusMAE, "late": LateFusion, "satvit": SatViT, "dino": DINO}


def build_model(config: ModelConfig) -> System:
    """The untrained model of ``config.system``, initialised from torch's global generator; takes a whole run's too."""
    if config.system not in MODELS:
        raise InputError(f"system {config.system!r} is not pretrained here", f"choose one of {', '.join(MODELS)}")
    return MODELS[config.system](config.architecture())
