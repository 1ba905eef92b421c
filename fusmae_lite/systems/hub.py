"""Folders in the manner of the Hugging Face hub, and the hub itself: ``config.json`` beside ``model.safetensors``."""

import json
from pathlib import Path

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import read_object

CONFIG, WEIGHTS = "config.json", "model.safetensors"
HUB = "hf-hub:"  # as timm writes it; without it a mistyped path would ask the network


def from_hub(name: str) -> Path | None:
    """The folder of ``hf-hub:owner/name`` in the local cache, fetched if need be; None for any other name."""
    if not name.startswith(HUB):
        return None
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name.removeprefix(HUB), allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # its client has a class for each of many reasons
        what = f"{name} is neither in the cache nor can it be fetched ({str(error).strip().partition(chr(10))[0]})"
        raise InputError(what, "check the id and the connection, or give the path of a folder") from None


def weights_in(folder: Path) -> Path:
    """The weights of a folder; InputError that says so if there are only pickles, which run code when opened."""
    pickles = [file.name for end in ("bin", "pt", "pth", "ckpt") for file in sorted(folder.glob(f"*.{end}"))]
    if pickles and not (folder / WEIGHTS).exists():
        what = f"{folder} holds {pickles[0]}, a pickle, which may run any code when opened, and no {WEIGHTS}"
        raise InputError(what, "convert it with safetensors.torch.save_file where you trust it")
    return folder / WEIGHTS


def read_config(path: Path) -> dict[str, str]:
    """Format, configuration and sensors of a ``config.json``, in the form of a weights file's metadata."""
    facts = read_object(path, "export the model again")
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
