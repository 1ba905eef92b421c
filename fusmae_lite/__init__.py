"""fusmae-lite: understand, run and extend Fus-MAE, a SAR-optical masked autoencoder.

Eight rooms, each importing only from those before it::

    core   data   model   systems   train   evaluation   show   course

Each public name is loaded when first used: opening an archive or asking for help needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusmae_lite.core.config import ModelConfig, RunConfig, load_preset
    from fusmae_lite.core.errors import InputError, RunError
    from fusmae_lite.core.sensors import S1, S2, Modality
    from fusmae_lite.data.archives import open_archive
    from fusmae_lite.data.pairs import PairDataset
    from fusmae_lite.evaluation import evaluate
    from fusmae_lite.model.fusmae import FusMAE, Latents, Reconstruction
    from fusmae_lite.systems.weights import load_pretrained
    from fusmae_lite.train.pretrain import pretrain

__version__ = "0.1.0"
__all__ = [
    "S1", "S2", "FusMAE", "InputError", "Latents", "Modality", "ModelConfig", "PairDataset", "Reconstruction",
    "RunConfig", "RunError", "evaluate", "load_preset", "load_pretrained", "open_archive", "pretrain",
]  # fmt: skip

_WHERE = {
    "core.sensors": "S1 S2 Modality",
    "core.errors": "InputError RunError",
    "core.config": "ModelConfig RunConfig load_preset",
    "data.archives": "open_archive",
    "data.pairs": "PairDataset",
    "model.fusmae": "FusMAE Latents Reconstruction",
    "systems.weights": "load_pretrained",
    "train.pretrain": "pretrain",
    "evaluation": "evaluate",
}


def __getattr__(name: str) -> Any:
    for module, names in _WHERE.items():
        if name in names.split():
            return getattr(import_module(f"fusmae_lite.{module}"), name)
    raise AttributeError(f"module 'fusmae_lite' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
