"""Models for a viewer, by name, path or as they are."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from fusmae_lite.core.errors import InputError
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.systems.weights import load_pretrained

#: A shipped name, a checkpoint, or a model; and several, which a mapping names.
Model = str | FusMAE
Models = Sequence[Model] | Mapping[str, Model]


def load_models(models: Models) -> dict[str, FusMAE]:
    """Name -> model on the CPU, from shipped names, checkpoints or models, of the same sensors and patches."""
    if not models:
        raise InputError("no model to look at", 'give one, for example models=("xae-lite",)')
    loaded: dict[str, FusMAE] = {}
    named = models.items() if isinstance(models, Mapping) else ((name_of(model), model) for model in models)
    for number, (name, model) in enumerate(named, start=1):
        name = f"{name} ({number})" if name in loaded else name or f"model {number}"
        model = model if isinstance(model, FusMAE) else load_pretrained(str(model))
        if not isinstance(model, FusMAE):
            raise InputError(f"{name} is a {type(model).__name__}", "give a Fus-MAE: what this viewer shows is its own")
        loaded[name] = model.eval().cpu()
    for field in ("modalities", "image_size", "patch_size"):
        values = dict.fromkeys(repr(getattr(model.config, field)) for model in loaded.values())
        if len(values) > 1:
            raise InputError(f"models differ in {field}: {' and '.join(values)}", "compare models that share it")
    return loaded


def name_of(model: Model) -> str:
    """What a model is called that was given without a name: the end of its path, but not just ``model.safetensors``."""
    path = PurePath("" if isinstance(model, FusMAE) else model)
    return path.parent.name if path.name == "model.safetensors" else path.name
