"""Models on disk: one safetensors file that carries its own configuration, bands and statistics."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fusmae_lite.baselines import Encoder, build_model
from fusmae_lite.config import ModelConfig
from fusmae_lite.errors import InputError
from fusmae_lite.sensors import get_modality


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file under a temporary name, flush it and rename it: it exists whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, dict(metadata))
        temporary.chmod(0o644)  # safetensors creates files that only their owner can read
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; :class:`InputError` if it is absent or damaged."""
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"no weights at {path}", "check the path, or train a model with notebook 05 or `fusmae pretrain`"
        )
    try:
        with safe_open(path, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}, handle.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, struct.error) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error})", "copy it again or retrain it"
        ) from None


def describe_sensors(names: tuple[str, ...]) -> dict[str, dict[str, list]]:
    """Band order and statistics of each sensor: what weights depend on beside their architecture."""
    sensors = {name: get_modality(name) for name in names}
    return {k: {"bands": list(m.bands), "mean": list(m.mean), "std": list(m.std)} for k, m in sensors.items()}


def save_model(path: Path, model: Encoder, extra: Mapping[str, object] | None = None) -> None:
    """Save weights with everything needed to load them again.

    Args:
        path: a ``.safetensors`` file; replaced in one step if it exists.
        model: any system of :mod:`fusmae_lite.baselines`, or a Fus-MAE.
        extra: facts to keep with the weights, for example the step or the command that trained them (JSON).
    """
    save_model_tensors(path, model.state_dict(), model.config, extra or {})


def save_model_tensors(
    path: Path, weights: Mapping[str, torch.Tensor], config: ModelConfig, extra: Mapping[str, object]
) -> None:
    """:func:`save_model` for weights that were gathered from several processes and have no module."""
    metadata = {
        "format": "fusmae-lite 1",
        "config": config.model_dump_json(),
        "sensors": json.dumps(describe_sensors(config.modalities)),
        "extra": json.dumps(extra),
    }
    save_tensors(path, weights, metadata)


def load_model(path: Path, expected: ModelConfig | None = None) -> Encoder:
    """The model saved at `path`, in evaluation mode on the CPU.

    Args:
        path: a file that :func:`save_model` wrote.
        expected: refuse weights of any other architecture.

    Raises:
        InputError: no such file, not ours, another configuration, another band order or other statistics, or weights
            missing, for example a checkpoint without its decoders (which would otherwise draw noise).
    """
    tensors, metadata = read_tensors(path)
    if "config" not in metadata:
        raise InputError(f"{path} carries no configuration", "use a checkpoint written by fusmae-lite")
    config = ModelConfig(**json.loads(metadata["config"]))
    if expected is not None:
        _same_architecture(path, config, ModelConfig(**expected.model_dump(include=set(ModelConfig.model_fields))))
    if json.loads(metadata.get("sensors", "null")) != json.loads(json.dumps(describe_sensors(config.modalities))):
        raise InputError(
            f"{path}: band order or statistics differ from those in sensors.py",
            "load it with the sensors it was trained with",
        )
    model = build_model(config)
    _same_tensors(path, tensors, model.state_dict())
    model.load_state_dict(tensors)
    return model.eval()


def read_extra(path: Path) -> dict[str, object]:
    """The facts kept with the weights by :func:`save_model`."""
    return json.loads(read_tensors(path)[1].get("extra", "{}"))


def shipped_weights() -> dict[str, Path]:
    """Name -> file of the models that come with the package."""
    folder = Path(str(resources.files("fusmae_lite").joinpath("weights")))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def load_pretrained(name: str) -> Encoder:
    """A model by the name it is shipped under (``"xae-lite"``) or by the path of a checkpoint.

    Raises:
        InputError: neither a shipped name nor a file.
    """
    shipped = shipped_weights()
    if name in shipped:
        return load_model(shipped[name])
    path = Path(name).expanduser()
    if not path.exists():
        raise InputError(
            f"no pretrained model {name!r}", f"choose one of {', '.join(shipped)} or give a .safetensors file"
        )
    return load_model(path / "model.safetensors" if path.is_dir() else path)


def _same_architecture(path: Path, config: ModelConfig, expected: ModelConfig) -> None:
    loss_only = {  # no shape depends on them
        "masking", "mask_ratio", "normalize_target", "drop_path", "global_crops", "local_crops", "sensor_drop",
        "teacher_momentum", "teacher_temperature",
    }  # fmt: skip
    for name in ModelConfig.model_fields:
        if name not in loss_only and getattr(config, name) != getattr(expected, name):
            raise InputError(
                f"{path} was trained with {name}={getattr(config, name)!r}, not {getattr(expected, name)!r}",
                f"set {name} to that of the checkpoint, or choose another checkpoint",
            )


def _same_tensors(path: Path, found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    missing = sorted(set(wanted) - set(found))
    if any(name.startswith(("decoders.", "decoder.")) for name in missing):
        raise InputError(
            f"{path} has no decoder weights ({missing[0]} is missing)", "use the full checkpoint of pretraining"
        )
    if missing or set(found) - set(wanted):
        odd = (missing or sorted(set(found) - set(wanted)))[0]
        raise InputError(
            f"{path}: tensor {odd} is {'missing' if missing else 'unknown'}", "use a checkpoint of this version"
        )
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            raise InputError(
                f"{path}: {name} has shape {tuple(found[name].shape)}, not {tuple(tensor.shape)}",
                "its configuration does not fit its weights; retrain it",
            )
