"""Models on disk: one safetensors file that carries its own configuration, bands and statistics."""

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

from fusmae_lite.core.architecture import DinoConfig, LossOnly, ModelConfig
from fusmae_lite.core.config import fields_that
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import parse_object, write_whole
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.model.system import System
from fusmae_lite.model.tokens import Positions
from fusmae_lite.systems import build_model
from fusmae_lite.systems.hub import CONFIG, from_hub, read_config, weights_in

FORMAT = "fusmae-lite 1"
DAMAGED = "copy it again or retrain it"
Tensors = Mapping[str, torch.Tensor]


def digest_of(tensors: Tensors) -> str:
    """Twelve hexadecimal digits that change with any name, dtype, shape or byte of the tensors, e.g. a state dict."""
    return _sha256(tensors)[:12]


def _sha256(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    if metadata is not None:
        digest.update(json.dumps(sorted((k, v) for k, v in metadata.items() if k != "digest")).encode())
    return digest.hexdigest()


def save_tensors(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file that exists whole or not at all; its metadata gain a digest of everything in it."""
    ready = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    signed = {**metadata, "digest": _sha256(ready, metadata)}

    def write(temporary: Path) -> None:
        try:
            save_file(ready, temporary, signed)
        except SafetensorError as error:  # hides the system's own error in a text
            raise OSError(errno.ENOSPC, str(error), str(path)) from None
        _sort_header(temporary)

    write_whole(path, write)


def _sort_header(path: Path) -> None:
    """Metadata in the order of their names: safetensors writes them in any, and equal files would differ."""
    with open(path, "rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(
            {"__metadata__": header.pop("__metadata__"), **header}, separators=(",", ":"), ensure_ascii=False
        )
        file.seek(8)
        file.write(text.encode().ljust(size))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; :class:`InputError` if it is absent or damaged."""
    if not Path(path).is_file():
        raise InputError(f"no weights at {path}", "check the path, or train with notebook 05 or `fusmae pretrain`")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # a dtype that torch does not know raises a class of its own in every version
        what = f"{path} is not a readable safetensors file ({error or type(error).__name__})"
        raise InputError(what, DAMAGED) from None


def check_digest(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """InputError if the file was changed after it was written; files from before there were digests pass."""
    if metadata.get("digest") not in (None, _sha256(tensors, metadata)):
        raise InputError(f"{path} was changed after it was written: its digest is another", DAMAGED)


def check_tensors(path: Path, tensors: Tensors, wanted: Mapping[str, torch.Size], cure: str = DAMAGED) -> None:
    """InputError unless the tensors have these names and shapes, are float32 and finite."""
    if names := sorted(set(wanted) ^ set(tensors)):
        raise InputError(f"{path}: tensor {names[0]} is {'missing' if names[0] in wanted else 'unknown'}", cure)
    for name, shape in wanted.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise InputError(f"{path}: {name} has shape {tuple(tensor.shape)}, not {tuple(shape)}", cure)
        if tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(f"{path}: {name} holds {kind}, not float32", cure)
        if not tensor.isfinite().all():
            raise InputError(f"{path}: {name} holds NaN or infinite values", cure)


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


def load_model(path: Path, expected: ModelConfig | None = None) -> System:
    """The model that :func:`save_model` wrote to `path`, in evaluation mode on the CPU.

    InputError: no such file, not ours, another architecture than `expected`, another band order or other statistics,
    changed since it was written, or weights missing, of another shape or dtype than float32, or not finite.
    """
    tensors, metadata = read_tensors(path)
    facts, source = metadata, path
    if "config" not in metadata and (beside := Path(path).with_name(CONFIG)).is_file():
        facts, source = read_config(beside), beside
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


def _skeleton(path: Path, metadata: Mapping[str, str], count: int) -> System:
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


def _part(path: Path, metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    """One part of our metadata, a JSON object each."""
    try:
        return parse_object(metadata.get(name, "{}"))
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
    """A model by the name it is shipped under (``"xae-lite"``), by the path of a checkpoint or an exported folder, or
    by its id on the Hugging Face hub, ``hf-hub:owner/name``; this one needs a connection the first time.

    `image_size` in pixels, a multiple of its patch size, makes it take images of another size, see :func:`resized`.
    """
    shipped = shipped_weights()
    path = from_hub(str(name)) or shipped.get(str(name), Path(name).expanduser())
    if not path.exists():
        cure = f"choose one of {', '.join(shipped)}, or give a .safetensors file, a folder, or hf-hub:owner/name"
        raise InputError(f"no pretrained model {str(name)!r}", cure)
    model = load_model(weights_in(path) if path.is_dir() else path)
    return model if image_size is None else resized(model, image_size)


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
