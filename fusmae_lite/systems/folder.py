"""A model as a folder for the Hugging Face hub: ``config.json``, ``model.safetensors``, and ``README.md``, its card."""

import json
from pathlib import Path

from fusmae_lite import __version__
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import write_folder, write_text
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.model.system import System
from fusmae_lite.systems.hub import CONFIG, WEIGHTS
from fusmae_lite.systems.weights import describe_model, save_tensors

CARD = """---
library_name: fusmae-lite
tags: [remote-sensing, sentinel-1, sentinel-2, masked-autoencoder]
---
# {title}

{kind}, {parameters:.1f} million parameters, for Sentinel-1 and Sentinel-2; written by fusmae-lite {version}.

```python
from fusmae_lite import load_pretrained

model = load_pretrained("path of this folder")  # or "hf-hub:owner/name"
features = model.encode(images).pooled()
```

`images` are a dict of these sensors, each (B, bands, {side}, {side}) float32: minus the mean, over the deviation:

| sensor | units | bands | mean | deviation |
|---|---|---|---|---|
{sensors}

What it was trained on, how good it is, and its licence: for you who publish it to write.
"""


def save_folder(path: Path, model: System) -> Path:
    """Write the whole model, decoders included, as a folder that must not exist yet; returns `path`.

    The weights carry the metadata that others' tools look for, ``config.json`` what ours need.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"{path} exists", "name a new folder")
    facts = {
        name: value if name == "format" else json.loads(value) for name, value in describe_model(model.config).items()
    }

    def fill(folder: Path) -> None:
        write_text(folder / CONFIG, json.dumps({"model_type": "fusmae-lite", **facts}, indent=2))
        save_tensors(folder / WEIGHTS, model.state_dict(), {"format": "pt"})
        write_text(folder / "README.md", _card(path.name, model))

    return write_folder(path, fill)


def _card(title: str, model: System) -> str:
    rows = []
    for sensor in map(get_modality, model.config.modalities):
        numbers = [" ".join(f"{number:g}" for number in column) for column in (sensor.mean, sensor.std)]
        rows.append(f"| {' | '.join([sensor.name, sensor.units, ' '.join(sensor.bands), *numbers])} |")
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return CARD.format(
        title=title, kind=model.title, parameters=parameters, version=__version__, side=model.config.image_size,
        sensors="\n".join(rows),
    )  # fmt: skip
