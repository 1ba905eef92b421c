"""Models on disk: one safetensors file that carries its own configuration, bands and statistics.

A folder in the manner of the Hugging Face hub has them in ``config.json`` beside its ``model.safetensors``.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed

from fusmae_lite import __version__
from fusmae_lite.core.architecture import DinoConfig, LossOnly, ModelConfig
from fusmae_lite.core.config import fields_that
from fusmae_lite.core.errors import InputError, choose
from fusmae_lite.core.files import parse_object, read_object, write_folder, write_text
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.model.system import System
from fusmae_lite.model.tokens import Positions
from fusmae_lite.systems import build_model
from fusmae_lite.systems.tensors import (
    DAMAGED,
    Tensors,
    check_digest,
    check_tensors,
    read_tensors,
    save_tensors,
    sha256_of,
)

FORMAT = "fusmae-lite 1"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"  # of a folder as the Hugging Face hub has them
HUB = "hf-hub:"  # as timm writes it; without it a mistyped path would ask the network


def digest_of(tensors: Tensors) -> str:
    """Twelve hexadecimal digits that change with any name, dtype, shape or byte of the tensors, e.g. a state dict."""
    return sha256_of(tensors)[:12]


def describe_sensors(names: Sequence[str]) -> dict[str, dict[str, list]]:
    """Band order and statistics of each sensor: what weights depend on beside their architecture."""
    return {n: {part: list(getattr(get_modality(n), part)) for part in ("bands", "mean", "std")} for n in names}


def save_model(path: Path, model: System, extra: Mapping[str, object] | None = None) -> None:
    """Save weights with everything needed to load them again, and `extra` facts, such as their command (JSON)."""
    save_model_tensors(path, model.state_dict(), model.config, extra or {})


def save_model_tensors(path: Path, weights: Tensors, config: ModelConfig, extra: Mapping[str, object]) -> None:
    """:func:`save_model` for weights that were gathered from several processes and have no module."""
    save_tensors(path, weights, {**describe_model(config), "extra": json.dumps(extra)})


def describe_model(config: ModelConfig) -> dict[str, str]:
    """What weights are of no use without: format, and as JSON configuration and sensors."""
    sensors = json.dumps(describe_sensors(config.modalities))
    return {"format": FORMAT, "config": config.model_dump_json(), "sensors": sensors}


def save_folder(path: Path, model: System) -> Path:
    """Write the whole model, decoders included, as a folder that must not exist yet; returns `path`.

    The weights carry the metadata that others' tools look for, ``config.json`` what ours need, ``README.md`` a card.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"{path} exists", "name a new folder")
    described = describe_model(model.config).items()
    facts = {name: value if name == "format" else json.loads(value) for name, value in described}

    def fill(folder: Path) -> None:
        write_text(folder / CONFIG, json.dumps({"model_type": "fusmae-lite", **facts}, indent=2))
        save_tensors(folder / WEIGHTS, model.state_dict(), {"format": "pt"})
        write_text(folder / CARD, _card(path.name, model))

    return write_folder(path, fill)


def _card(title: str, model: System) -> str:
    rows = []
    for sensor in map(get_modality, model.config.modalities):
        numbers = [" ".join(f"{number:g}" for number in column) for column in (sensor.mean, sensor.std)]
        rows.append(f"| {' | '.join([sensor.name, sensor.units, ' '.join(sensor.bands), *numbers])} |")
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    return Path(__file__).with_name("card.md").read_text(encoding="utf-8").format(
        title=title, kind=model.title, parameters=parameters, version=__version__, side=model.config.image_size,
        sensors="\n".join(rows),
    )  # fmt: skip


def load_model(path: Path, expected: ModelConfig | None = None) -> System:
    """The model that :func:`save_model` wrote to `path`, in evaluation mode on the CPU.

    InputError: no such file, not ours, another architecture than `expected`, another band order or other statistics,
    changed since it was written, or weights missing, of another shape or dtype than float32, or not finite.
    """
    tensors, metadata = read_tensors(path)
    facts, source = metadata, path
    if "config" not in metadata and (beside := Path(path).with_name(CONFIG)).is_file():
        facts, source = read_object(beside, "export the model again"), beside
    model = _skeleton(source, facts, len(tensors))
    for name in () if expected is None else type(model.config).model_fields:
        trained, wanted = getattr(model.config, name), getattr(expected, name)
        if trained != wanted and name not in fields_that(LossOnly):
            cure = f"set {name} to that of the checkpoint, or choose another checkpoint"
            raise InputError(f"{path} was trained with {name}={trained!r}, not {wanted!r}", cure)
    if _part(source, facts, "sensors") != describe_sensors(model.config.modalities):
        cure = "load it with the sensors it was trained with"
        raise InputError(f"{source}: band order or statistics differ from those in sensors.py", cure)
    _check_weights(path, model, tensors)
    check_digest(path, tensors, metadata)
    model.to_empty(device="cpu").load_state_dict(tensors)
    return model.eval()


def _skeleton(path: Path, metadata: Mapping[str, Any], count: int) -> System:
    """The model that the header of a file of `count` tensors describes, without memory for its weights."""
    if "config" not in metadata:
        cure = f"use a checkpoint written by fusmae-lite, or put the {CONFIG} of its export beside it"
        raise InputError(f"{path} carries no configuration", cure)
    if metadata.get("format", FORMAT) != FORMAT:
        raise InputError(f"{path} is in the format {metadata['format']!r}, not {FORMAT!r}", "update fusmae-lite")
    values = _part(path, metadata, "config")
    try:
        config = DinoConfig(**values).architecture()
        if config.depth + config.decoder_depth > count:  # before as many blocks are made
            raise InputError(f"depth {config.depth}, but {count} tensors", "lower depth or decoder_depth")
        with torch.device("meta"):
            return build_model(config)
    except (InputError, TypeError) as error:
        raise InputError(f"{path} carries a configuration that is refused ({error})", DAMAGED) from None


def _part(path: Path, metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One part of our metadata, a JSON object each: as text in a weights file, as it is in a ``config.json``."""
    part = metadata.get(name, "{}")
    try:
        return parse_object(part if isinstance(part, str) else json.dumps(part))
    except ValueError as error:
        raise InputError(f"{path}: its metadata {name!r} are unreadable ({error})", DAMAGED) from None


def _check_weights(path: Path, model: System, tensors: Tensors) -> None:
    """InputError unless the file holds exactly what the model needs, decoders and fixed tables included."""
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if absent := sorted(name for name in set(wanted) - set(tensors) if name.startswith("decoder")):
        what = f"{path} has no decoder weights ({absent[0]} is missing)"
        raise InputError(what, "use the full checkpoint of pretraining")
    check_tensors(path, tensors, wanted)
    for name in wanted if model.config.positions == "sincos" else ():
        # Not to the bit: sine and cosine differ by an ulp between processors, and large grids have large angles
        is_table = name.endswith("positions.table")
        if is_table and not tensors[name].allclose(Positions.of(model.config, wanted[name][1]).table, atol=1e-3):
            raise InputError(f"{path}: {name} is not the fixed sine-cosine table", DAMAGED)


def shipped_weights() -> dict[str, Path]:
    """Name -> file of the models that come with the package."""
    return {path.stem: path for path in sorted((Path(__file__).parents[1] / "weights").glob("*.safetensors"))}


def load_pretrained(name: str | Path, image_size: int | None = None) -> System:
    """A model by its name or place, see :func:`find_named`, a checkpoint or an exported folder.

    `image_size` in pixels, a multiple of its patch size, makes it take images of another size, see :func:`resized`.
    """
    path = find_named(name)
    model = load_model(_weights_in(path) if path.is_dir() else path)
    return model if image_size is None else resized(model, image_size)


def find_named(name: str | Path) -> Path:
    """The path of the model shipped under a name (``"xae-lite"``), a path itself, or what ``hf-hub:owner/name`` is
    in the local cache of the Hugging Face hub, fetched the first time. InputError if absent.
    """
    shipped = shipped_weights()
    path = shipped.get(str(name), Path(name).expanduser())
    if str(name).startswith(HUB):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(str(name).removeprefix(HUB), allow_patterns=[CONFIG, WEIGHTS]))
        except Exception as error:  # its client has a class for each of many reasons
            what = f"{name} is neither in the cache nor can it be fetched ({str(error).strip().partition(chr(10))[0]})"
            raise InputError(what, "check the id and the connection, or give the path of a folder") from None
    if not path.exists():
        cure = f"{choose(name, shipped, 'give one of')}, or give a .safetensors file, a folder, or hf-hub:owner/name"
        raise InputError(f"no pretrained model {str(name)!r}", cure)
    return path


def _weights_in(folder: Path) -> Path:
    """The weights of a folder; InputError that says so if there are only pickles, which run code when opened."""
    pickles = [file.name for end in ("bin", "pt", "pth", "ckpt") for file in sorted(folder.glob(f"*.{end}"))]
    if pickles and not (folder / WEIGHTS).exists():
        what = f"{folder} holds {pickles[0]}, a pickle, which may run any code when opened, and no {WEIGHTS}"
        raise InputError(what, "convert it with safetensors.torch.save_file where you trust it")
    return folder / WEIGHTS


def resized(model: System, image_size: int) -> System:
    """The model for square images of another size: sine-cosine positions computed anew, learned ones interpolated."""
    config = type(model.config)(**{**model.config.model_dump(), "image_size": image_size})
    if config == model.config:
        return model
    tensors = model.state_dict()
    for name in (name for name in tensors if name.endswith("positions.table")):
        old = tensors[name]
        if config.positions == "sincos":
            tensors[name] = Positions.of(config, old.shape[-1]).table
        else:
            tensors[name] = resample_abs_pos_embed(old[None], [config.grid] * 2, num_prefix_tokens=0)[0]
    with torch.device("meta"):
        other = build_model(config)
    other.to_empty(device=next(model.parameters()).device).load_state_dict(tensors)
    return other.train(model.training)
