"""fusmae-lite: understand, run and extend Fus-MAE, a SAR-optical masked autoencoder."""

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
