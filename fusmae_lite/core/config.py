"""One typed, flat configuration. Presets are TOML files of it; notebooks and the console override single fields.

Values may come as strings (papermill's ``-p`` delivers ``true`` and ``1e-4`` as text); they are converted where the
conversion is exact and refused, in one line, where it is not.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fusmae_lite.core.errors import InputError, choose
from fusmae_lite.core.sensors import get_modality

Fusion = Literal["xae", "xad", "both", "none"]
Masking = Literal["independent", "consistent"]
System = Literal["fusmae", "late", "satvit", "dino", "imagenet"]
PRESETS = ("smoke", "laptop", "paper")

#: What a baseline's own method sets where nobody says otherwise, whatever the preset says; see
#: :mod:`fusmae_lite.systems`.
SYSTEM_DEFAULTS: dict[str, dict[str, Any]] = {
    "late": {"fusion": "none", "sensor_dropout": 0.0},
    "satvit": {"fusion": "none", "masking": "consistent", "normalize_target": True},
    "dino": {
        "fusion": "none", "positions": "learned", "drop_path": 0.1, "augment": "none", "jitter": 0.0,
        "sensor_dropout": 0.0, "betas": (0.9, 0.999),
        "min_learning_rate": 1e-6, "weight_decay": 0.04, "weight_decay_end": 0.4, "clip_grad": 3.0,
    },
    "imagenet": {"fusion": "none"},
}  # fmt: skip

#: Bounds above anything that is of use: beyond them there are only typing errors, and machines that hang.
MOST_WIDTH, MANY = 65_536, 1_000_000
Beta = Annotated[float, Field(ge=0, lt=1)]

#: In a notebook's parameters cell these mean "as the preset says".
UNSET = ("", -1, "-1", None)


class ModelConfig(BaseModel):
    """Architecture of a :class:`FusMAE` or a baseline. Defaults: the paper's; symbols in brackets.

    Raises :class:`InputError` (never pydantic's own error) on a bad field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    system: System = Field("fusmae", description="fusmae, or a baseline: late, satvit, dino; imagenet only to evaluate")
    modalities: tuple[str, ...] = Field(("s1", "s2"), description="sensors, in the order of the concatenation in eq. 2")
    image_size: int = Field(120, gt=0, le=10_000, description="side of the input in pixels [H = W]")
    patch_size: int = Field(8, gt=0, le=10_000, description="side of a patch in pixels [P]; must divide image_size")
    width: int = Field(768, gt=0, le=MOST_WIDTH, description="token width [D]; a multiple of 4 and of heads")
    depth: int = Field(12, gt=0, le=1000, description="encoder blocks, XAttnEncoder included [N of eq. 7]")
    heads: int = Field(12, gt=0, le=MOST_WIDTH, description="attention heads [H]")
    mlp_ratio: float = Field(4.0, gt=0, le=64, description="hidden width of an MLP over D")
    fusion: Fusion = Field("xae", description="xae: early; xad: feature level; both; none: plain self-attention")
    positions: Literal["sincos", "learned"] = Field("sincos", description="E_emb of eq. 1; sincos is fixed")
    position_temperature: float = Field(
        10_000, gt=1, le=1e9, description="of sincos; 20 tells patches of a small grid apart"
    )
    masking: Masking = Field("independent", description="section 3.3")
    mask_ratio: float = Field(0.75, gt=0, lt=1, description="share of each modality's patches that is removed")
    decoder_width: int = Field(256, gt=0, le=MOST_WIDTH, description="width of the decoders D_i")
    decoder_depth: int = Field(2, ge=0, le=1000, description="blocks of each decoder D_i")
    decoder_heads: int = Field(8, gt=0, le=MOST_WIDTH, description="attention heads of the decoders")
    normalize_target: bool = Field(False, description="normalise each target patch by its own mean and deviation")
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth of the encoder (fine-tuning)")
    head_outputs: int = Field(
        0, ge=0, le=10_000_000, description="dino: numbers compared [K]; 0: 65,536 from width 384 on, else 8 D"
    )
    global_crops: int = Field(2, gt=0, le=100, description="dino: views of 40 to 100 % of the area, for both networks")
    local_crops: int = Field(8, ge=0, le=100, description="dino: views of 5 to 40 % of the area, for the student only")
    sensor_drop: float = Field(0.5, ge=0, le=1, description="dino: chance that a view loses one of its sensors")
    teacher_momentum: float = Field(0.996, ge=0, le=1, description="dino: share the teacher keeps; rises to 1")
    teacher_temperature: float = Field(0.04, ge=1e-3, le=10, description="dino: below the student's 0.1, to sharpen")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _one_line(error, type(self)) from None

    @model_validator(mode="before")
    @classmethod
    def _as_the_system_does(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        defaults = SYSTEM_DEFAULTS.get(str(values.get("system")), {})
        return {**{name: value for name, value in defaults.items() if name in cls.model_fields}, **values}

    @field_validator("modalities", mode="before")
    @classmethod
    def _known_modalities(cls, value: Any) -> Any:
        names = as_tuple(value)
        if not all(isinstance(name, str) for name in names):
            raise ValueError("needs names of sensors, as in s1,s2")
        if not names or len(set(names)) != len(names):
            raise ValueError("needs at least one sensor, each once")
        for name in names:
            get_modality(name)
        return names

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.image_size % self.patch_size:
            sides = [p for p in range(2, min(self.image_size, 40) + 1) if self.image_size % p == 0]
            raise ValueError(
                f"patch_size {self.patch_size} does not divide image_size {self.image_size}; use one of {sides}"
            )
        for width, heads in (("width", "heads"), ("decoder_width", "decoder_heads")):
            if getattr(self, width) % getattr(self, heads) or getattr(self, width) % 4:
                raise ValueError(
                    f"{width} {getattr(self, width)} must be a multiple of 4 and of {heads} {getattr(self, heads)}"
                )
        for width in (self.width, self.decoder_width):
            if int(width * self.mlp_ratio) < 1:
                raise ValueError(f"mlp_ratio {self.mlp_ratio} leaves an MLP of width {width} without a hidden number")
        if not 0 < self.kept < self.tokens:
            raise ValueError(
                f"mask_ratio {self.mask_ratio} leaves {self.kept} of {self.tokens} patches; keep and mask at least one"
            )
        return self

    @model_validator(mode="after")
    def _system_allows(self) -> Self:
        if self.system != "fusmae" and self.fusion != "none":
            raise ValueError(f"system {self.system} has no fusion {self.fusion}; leave fusion out, or set it to none")
        if self.system == "satvit" and self.masking != "consistent":
            raise ValueError("system satvit has one token for all sensors; leave masking out, or set it to consistent")
        if self.system == "dino" and self.global_crops + self.local_crops < 2:
            raise ValueError("system dino compares views; set global_crops and local_crops to 2 in all or more")
        return self

    @property
    def grid(self) -> int:
        """Patches along one side, H / P."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """N, patches of one modality: (H / P) squared."""
        return self.grid**2

    @property
    def kept(self) -> int:
        """Visible patches of one modality: int(N * (1 - mask_ratio)), as in MAE."""
        return int(self.tokens * (1 - self.mask_ratio))


class RunConfig(ModelConfig):
    """Everything a run depends on: the architecture and what is done with it. Load one with :func:`load_preset`."""

    preset: str = Field("smoke", description="which preset the run started from")
    data_dir: str = Field("", description="folder of an archive; empty: the bundled patches")
    split: Literal["official", "random"] = Field("official", description="random: 60/20/20 of all pairs, by the seed")
    partial: bool = Field(
        False, description="leave out what is missing or damaged instead of refusing it; first reads all"
    )
    snow_and_clouds: bool = Field(False, description="also the patches set apart for snow, clouds or their shadow")
    run_dir: str = Field("", description="where results go; empty: runs/<preset> in the project")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="every random choice follows from it")

    epochs: int = Field(100, gt=0, le=MANY, description="passes over the training split")
    batch_size: int = Field(200, gt=0, le=MANY, description="pairs per optimiser step, on all devices together")
    accumulate: int = Field(
        1, gt=0, le=MANY, description="pieces each device's share of a batch is cut into, for memory"
    )
    learning_rate: float = Field(1.5625e-4, gt=0, le=10, description="peak of the schedule")
    min_learning_rate: float = Field(0.0, ge=0, le=10, description="end of the cosine")
    warmup_epochs: float = Field(5.0, ge=0, le=MANY, description="epochs of linear warm-up; fractions are legal")
    weight_decay: float = Field(
        0.05, ge=0, le=10, description="on matrices only, never on norms, biases, positions, tokens"
    )
    weight_decay_end: float | None = Field(
        None, ge=0, le=10, description="where a cosine takes weight_decay; none: constant"
    )
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="of AdamW")
    clip_grad: float = Field(0.0, ge=0, le=MANY, description="largest gradient norm; 0: no clipping")
    augment: Literal["none", "flips", "crops"] = Field("flips", description="applied to both sensors alike")
    jitter: float = Field(
        0.0, ge=0, le=10, description="strength of a random gain, offset and offset of each band; 1: usual"
    )
    synthetic: bool = Field(False, description="half of each batch are synthetic scenes, each seen once")
    sensor_dropout: float = Field(0.0, ge=0, le=1, description="chance that a step shows each sensor alone (not dino)")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the hardware has it")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto: cuda, then mps, then cpu")
    compile: Literal["auto", "on", "off"] = Field("auto", description="torch.compile each block; auto: on CUDA")
    recompute: bool = Field(False, description="recompute activations in the backward pass: less memory, more time")
    fsdp: bool = Field(False, description="shard weights and moments over the devices, for models larger than one")
    processes: int = Field(1, gt=0, le=64, description="processes that share each batch, one for each GPU")
    workers: int = Field(
        0, ge=0, le=256, description="processes that read data, per device; 0: in the training process"
    )
    cache: bool = Field(False, description="keep decoded patches in memory (small archives)")
    max_steps: int = Field(0, ge=0, le=10**12, description="stop after so many optimiser steps; 0: run every epoch")
    checkpoint_every: int = Field(1, gt=0, le=MANY, description="epochs between checkpoints")
    keep_checkpoints: int = Field(2, gt=0, le=MANY, description="how many of the latest checkpoints stay on disk")

    tensorboard: bool = Field(False, description="also write the metrics for TensorBoard, to pretrain/tensorboard")

    probe_epochs: int = Field(20, gt=0, le=MANY, description="epochs of the linear probe")
    probe_batch_size: int = Field(128, gt=0, le=MANY, description="batch of the linear probe")
    probe_learning_rate: float = Field(1e-3, gt=0, le=10, description="of the linear probe (the paper is silent)")
    label_fraction: float = Field(1.0, gt=0, le=1, description="share of the training labels the probe may use")
    probe_seeds: int = Field(
        3, gt=0, le=1000, description="label draws and head initialisations a figure is averaged over"
    )
    protocol: Literal["linear", "finetune"] = Field(
        "linear", description="of evaluation: train the head, or everything"
    )
    finetune_epochs: int = Field(10, gt=0, le=MANY, description="epochs of fine-tuning")
    finetune_batch_size: int = Field(128, gt=0, le=MANY, description="patches per step of fine-tuning")
    finetune_learning_rate: float = Field(
        5e-4, gt=0, le=10, description="peak, of the head; deeper layers learn slower"
    )

    def architecture(self) -> ModelConfig:
        """Only the fields that decide the shape and loss of the model."""
        return ModelConfig(**{name: getattr(self, name) for name in ModelConfig.model_fields})

    def folder(self) -> Path:
        """Folder of this run: `run_dir`, or ``runs/<preset>`` beside the notebooks. Not created here."""
        return Path(self.run_dir).expanduser() if self.run_dir else project_root() / "runs" / self.preset

    @field_validator("betas", mode="before")
    @classmethod
    def _as_pair(cls, value: Any) -> Any:
        return as_tuple(value)

    @field_validator("weight_decay_end", mode="before")
    @classmethod
    def _none_as_text(cls, value: Any) -> Any:
        return None if isinstance(value, str) and value.strip().lower() in ("none", "null") else value

    @model_validator(mode="after")
    def _accumulate_divides(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}")
        return self

    @model_validator(mode="after")
    def _dino_drops_its_own(self) -> Self:
        if self.system == "dino" and self.sensor_dropout:
            raise ValueError("system dino drops sensors from its views; set sensor_drop instead of sensor_dropout")
        return self


def load_preset(preset: str = "smoke", **overrides: Any) -> RunConfig:
    """The configuration called `preset` (smoke, laptop, paper) with single fields replaced.

    An override of ``""``, ``-1`` or ``None`` means "as the preset says", so that a notebook's parameters cell can name
    a field without deciding it. What a baseline's method sets (``SYSTEM_DEFAULTS``) comes before the preset, a given
    value before both. ``model_fields_set`` of the result names the given fields alone, so that evaluation knows what
    was asked for. Raises :class:`InputError` for an unknown preset, field or value.
    """
    if preset not in PRESETS:
        raise InputError(
            f"unknown preset {_short(preset)}",
            choose(preset if isinstance(preset, str) else "", PRESETS, "choose one of"),
        )
    text = resources.files("fusmae_lite.core").joinpath(f"presets/{preset}.toml").read_text(encoding="utf-8")
    given = {name: value for name, value in overrides.items() if value not in UNSET}
    method = SYSTEM_DEFAULTS.get(str(given.get("system")), {})
    config = RunConfig(**{**tomllib.loads(text), **method, "preset": preset, **given})
    return RunConfig.model_construct(set(given), **dict(config))


def as_tuple(value: Any) -> Any:
    """``0.9,0.95``, ``(0.9, 0.95)``, ``[0.9, 0.95]``, ``("s1", "s2")`` as texts, or a sequence, as a tuple."""
    if isinstance(value, str):
        text = value.strip()
        text = text[1:-1] if text[:1] + text[-1:] in ("()", "[]") else text
        return tuple(part.strip().strip("\"'") for part in text.rstrip().removesuffix(",").split(","))
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def project_root() -> Path:
    """Folder that holds ``notebooks/`` and ``data_samples/``; raises :class:`InputError` outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "data_samples").is_dir():
        raise InputError(
            f"no data_samples folder in {root}",
            "work in a clone of the repository (pip install -e .), or pass data_dir and run_dir",
        )
    return root


def describe_fields(config: type[BaseModel] = RunConfig) -> str:
    """One line per field: name, default, meaning. For ``--help`` and error messages."""
    return "\n".join(
        f"  {name} = {field.default!r}  {field.description}" for name, field in config.model_fields.items()
    )


def _one_line(error: ValidationError, config: type[BaseModel]) -> InputError:
    """Turn pydantic's report into one line that names the field and the cure."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    message = message if len(message) <= 300 else f"{message[:297]}..."
    if first["type"] == "extra_forbidden":
        return InputError(f"unknown parameter {_short(name)}", choose(name, config.model_fields))
    if not name:
        what, _, cure = message.partition("; ")
        return InputError(f"configuration: {what}", cure or "change one of the named fields")
    field = config.model_fields.get(str(first["loc"][0]))
    meaning = f" ({field.description})" if field is not None else ""
    given = _short(first["input"])
    return InputError(f"parameter {name!r}: {given} is refused: {message}", f"set {name}{meaning}")


def _short(value: object, most: int = 80) -> str:
    """A value as a message shows it."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= most else f"{text[: most - 3]}..."
