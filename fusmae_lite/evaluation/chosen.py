"""Which weights are evaluated: those of this run or those asked for, and never others in their place."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from fusmae_lite.core.architecture import Free
from fusmae_lite.core.config import RunConfig, fields_that
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import read_object, shorten
from fusmae_lite.evaluation.own import as_system
from fusmae_lite.systems import System
from fusmae_lite.systems.weights import digest_of, find_named, load_model, shipped_weights
from fusmae_lite.train.checkpoints import latest_checkpoint

#: Fields that say nothing about the weights wanted: evaluation uses them for itself.
FREE = fields_that(Free) | {"seed", "augment", "precision"}


@dataclass(frozen=True)
class Chosen:
    """Weights to evaluate."""

    model: System  # in evaluation mode on the CPU; one that was given as a module: as it is, where it is
    name: str  # xae-lite, or the file's path, relative where it can be
    digest: str  # see digest_of
    sensors: tuple[str, ...]  # those of the weights that the configuration asks for, in the order of the weights


def is_others(weights: object) -> bool:
    """Whether no weights of ours are meant: a torch module of others, or a Parquet file of vectors."""
    if isinstance(weights, str | Path):
        return Path(weights).suffix == ".parquet"
    return weights is not None and not isinstance(weights, System)


def choose_weights(config: RunConfig, weights: nn.Module | Path | str | None = None) -> Chosen:
    """Load the weights that `evaluate` is about; InputError if another value of a field was given than they have."""
    if is_others(weights) or isinstance(weights, System):
        model = as_system(weights, config.architecture())
        state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
        sensors = tuple(s for s in model.config.modalities if s in config.modalities)
        return Chosen(model, model.title, digest_of(state), sensors)
    path = find_weights(config) if weights is None else weights_file(weights)
    model, state = load_model(path), path.parent / "state.json"
    shipped = {file.resolve(): name for name, file in shipped_weights().items()}
    place = path.parent if path.name == "model.safetensors" else path
    name, sensors = shipped.get(path.resolve()) or shorten(place, config.folder()), model.config.modalities
    trained = read_object(state, f"remove {path.parent}").get("config") if state.is_file() else {}
    if not isinstance(trained, dict):
        raise InputError(f"{state} holds no configuration", f"remove {path.parent}")
    trained |= model.config.model_dump(mode="json")
    wanted = config.model_dump(mode="json", include=config.model_fields_set - FREE)
    asked = wanted.pop("modalities", sensors)
    if set(asked) - set(sensors):
        trained["modalities"], wanted["modalities"] = ",".join(sensors), ",".join(asked)
    for field in wanted:
        if field in trained and trained[field] != wanted[field]:
            cure = f"leave {field} out, or choose weights trained with {field}={wanted[field]}"
            raise InputError(f"{name}: the weights are of {field} {trained[field]!r}, not {wanted[field]!r}", cure)
    return Chosen(model, name, digest_of(model.state_dict()), tuple(s for s in sensors if s in asked))


def find_weights(config: RunConfig, otherwise: str = "") -> Path:
    """The file of this run's latest checkpoint; without one that of `otherwise`, e.g. ``xae-lite``, or InputError."""
    checkpoint = latest_checkpoint(config.folder() / "pretrain" / "checkpoints")
    if checkpoint is not None:
        return checkpoint / "model.safetensors"
    if otherwise:
        return weights_file(otherwise)
    cure = f"pretrain there first, or say whose weights: --weights PATH, {' or '.join(shipped_weights())}"
    raise InputError(f"no checkpoint in {config.folder()}", cure)


def weights_file(weights: Path | str) -> Path:
    """A shipped model's name, a file, a checkpoint's folder or a run's (its latest checkpoint) -> the file."""
    path = find_named(weights)
    if not path.is_dir():
        return path
    for place in (path, *(latest_checkpoint(path / inner) for inner in ("pretrain/checkpoints", "checkpoints", "."))):
        if place is not None and (place / "model.safetensors").is_file():
            return place / "model.safetensors"
    raise InputError(f"no checkpoint in {path}", "give a run's folder, one checkpoint's, or a .safetensors file")
