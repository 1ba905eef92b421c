"""Which weights are evaluated: those of this run or those asked for, and never others in their place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusmae_lite.core.architecture import Free
from fusmae_lite.core.config import RunConfig, fields_that
from fusmae_lite.core.errors import InputError, choose
from fusmae_lite.systems import System
from fusmae_lite.systems.weights import digest_of, load_model, shipped_weights
from fusmae_lite.train.checkpoints import latest_checkpoint

#: Fields that say nothing about the weights wanted: evaluation uses them for itself.
FREE = fields_that(Free) | {"seed", "augment", "precision"}


@dataclass(frozen=True)
class Chosen:
    """Weights to evaluate."""

    model: System  # in evaluation mode on the CPU
    name: str  # xae-lite, or the file's path, relative where it can be
    digest: str  # see digest_of
    sensors: tuple[str, ...]  # those of the weights that the configuration asks for, in the order of the weights


def choose_weights(config: RunConfig, weights: Path | str | None = None) -> Chosen:
    """Load the weights that `evaluate` is about; InputError if another value of a field was given than they have."""
    path = find_weights(config) if weights is None else weights_file(weights)
    model = load_model(path)
    shipped = {file.resolve(): name for name, file in shipped_weights().items()}
    place = path.parent if path.name == "model.safetensors" else path
    name, sensors = shipped.get(path.resolve()) or shorten(place, config.folder()), model.config.modalities
    trained = {**_trained_with(path.parent / "state.json"), **model.config.model_dump(mode="json")}
    given = config.model_fields_set - FREE - {"modalities"}
    for field, wanted in config.model_dump(mode="json", include=given).items():
        if field in trained:
            _require_same(name, field, trained[field], wanted)
    if "modalities" in config.model_fields_set:
        if set(config.modalities) - set(sensors):
            _require_same(name, "modalities", ",".join(sensors), ",".join(config.modalities))
        sensors = tuple(s for s in sensors if s in config.modalities)
    return Chosen(model, name, digest_of(model.state_dict()), sensors)


def find_weights(config: RunConfig, otherwise: str = "") -> Path:
    """The file of the checkpoint that this run trained last.

    Args:
        config: of the run; decides the folder.
        otherwise: what to take if there is none, for example ``xae-lite``; empty: InputError.
    """
    checkpoint = latest_checkpoint(config.folder() / "pretrain" / "checkpoints")
    if checkpoint is not None:
        return checkpoint / "model.safetensors"
    if otherwise:
        return weights_file(otherwise)
    cure = f"pretrain there first, or say whose weights: --weights PATH, {' or '.join(shipped_weights())}"
    raise InputError(f"no checkpoint in {config.folder()}", cure)


def weights_file(weights: Path | str) -> Path:
    """A shipped model's name, a file, a checkpoint's folder or a run's (its latest checkpoint) -> the file."""
    shipped, path = shipped_weights(), Path(weights).expanduser()
    if str(weights) in shipped:
        return shipped[str(weights)]
    if not path.exists():
        cure = f"{choose(weights, shipped, 'give one of')} or give a file or the folder of a run"
        raise InputError(f"no weights {str(weights)!r}", cure)
    if not path.is_dir():
        return path
    places = [path, *(latest_checkpoint(path / inner) for inner in ("pretrain/checkpoints", "checkpoints", "."))]
    for place in places:
        if place is not None and (place / "model.safetensors").is_file():
            return place / "model.safetensors"
    raise InputError(f"no checkpoint in {path}", "give a run's folder, one checkpoint's, or a .safetensors file")


def shorten(path: Path, *bases: Path) -> str:
    """`path` relative to the first of `bases` (then to the project) that holds it, else as it is."""
    for base in (*bases, Path(__file__).resolve().parents[2]):
        if path.resolve().is_relative_to(base.resolve()):
            return path.resolve().relative_to(base.resolve()).as_posix() or "."
    return path.as_posix()


def _trained_with(path: Path) -> dict[str, Any]:
    """The configuration in a checkpoint's state; nothing for weights that lie alone."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is unreadable ({error})", f"remove {path.parent}") from None


def _require_same(name: str, field: str, trained: object, wanted: object) -> None:
    if trained != wanted:
        cure = f"leave {field} out, or choose weights trained with {field}={wanted}"
        raise InputError(f"{name}: the weights are of {field} {trained!r}, not {wanted!r}", cure)
