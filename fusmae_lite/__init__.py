"""fusmae-lite: understand, run and extend Fus-MAE, a SAR-optical masked autoencoder.

What a notebook imports, and nothing else, is public. Each name is loaded when first used: opening an archive, asking
for help or encoding needs no torch, which takes seconds to import and most of a gigabyte.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusmae_lite.archives import open_archive
    from fusmae_lite.config import ModelConfig, RunConfig, load_preset
    from fusmae_lite.errors import InputError, RunError
    from fusmae_lite.evaluate import evaluate
    from fusmae_lite.model import FusMAE, Latents, Reconstruction
    from fusmae_lite.pairs import PairDataset
    from fusmae_lite.pretrain import pretrain
    from fusmae_lite.sensors import S1, S2, Modality
    from fusmae_lite.weights import load_pretrained

__version__ = "0.1.0"
__all__ = [
    "S1", "S2", "FusMAE", "InputError", "Latents", "Modality", "ModelConfig", "PairDataset", "Reconstruction",
    "RunConfig", "RunError", "evaluate", "load_preset", "load_pretrained", "open_archive", "pretrain",
]  # fmt: skip

_WHERE = {
    "S1": "sensors", "S2": "sensors", "Modality": "sensors", "InputError": "errors", "RunError": "errors",
    "ModelConfig": "config", "RunConfig": "config", "load_preset": "config", "open_archive": "archives",
    "PairDataset": "pairs", "FusMAE": "model", "Latents": "model", "Reconstruction": "model",
    "load_pretrained": "weights", "pretrain": "pretrain", "evaluate": "evaluate",
}  # fmt: skip


class _Package(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name not in _WHERE:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{self.__name__}.{_WHERE[name]}"), name)
        self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the module pretrain makes it an attribute of the package; the function of that name is public.
        if not (name in _WHERE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
