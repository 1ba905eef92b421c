"""The fields of a configuration that decide the model, and what every configuration does about a bad value.

Values may come as strings (papermill's ``-p`` delivers ``true`` and ``1e-4`` as text); they are converted where the
conversion is exact and refused, in one line, where it is not.
"""

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fusmae_lite.core.errors import InputError, choose, printable
from fusmae_lite.core.sensors import get_modality

#: What a baseline's own method sets, before any preset; see :mod:`fusmae_lite.systems`.
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

# The model finds each by its name: `<name>_masks` of model/masking.py, `<name>_positions` of model/tokens.py
Masking = Literal["independent", "consistent", "cloud"]
Embedding = Literal["sincos", "learned"]

# Bounds lie above anything of use: beyond them are typing errors, and machines that hang
Count = Annotated[int, Field(gt=0, le=1_000_000)]
Pixels = Annotated[int, Field(gt=0, le=10_000)]
Width = Annotated[int, Field(gt=0, le=65_536)]
Rate = Annotated[float, Field(gt=0, le=10)]
RateOrZero = Annotated[float, Field(ge=0, le=10)]
Chance = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]

# Further facts about a field, for :func:`fields_that`
T = TypeVar("T")
Free = Annotated[T, "may change within a run"]  # no number depends on it, or only by the order of additions
LossOnly = Annotated[T, "changes no shape"]
Folder = Annotated[str, "names a folder"]


def setting(default: Any, meaning: str, **bounds: float) -> Any:
    """A field with its default and its line of ``--help``."""
    return Field(default, description=meaning, **bounds)


class ModelConfig(BaseModel):
    """Architecture of a :class:`FusMAE` or a baseline. Defaults: the paper's; symbols in brackets.

    Raises :class:`InputError` (never pydantic's own error) on a bad field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    system: Literal["fusmae", "late", "satvit", "dino", "imagenet"] = setting(
        "fusmae", "fusmae, or a baseline: late, satvit, dino; imagenet only to evaluate"
    )
    modalities: tuple[str, ...] = setting(("s1", "s2"), "sensors, in the order of the concatenation in eq. 2")
    image_size: Pixels = setting(120, "side of the input in pixels [H = W]")
    patch_size: Pixels = setting(8, "side of a patch in pixels [P]; must divide image_size")
    width: Width = setting(768, "token width [D]; a multiple of 4 and of heads")
    depth: int = setting(12, "encoder blocks, XAttnEncoder included [N of eq. 7]", gt=0, le=1000)
    heads: Width = setting(12, "attention heads [H]")
    mlp_ratio: float = setting(4.0, "hidden width of an MLP over D", gt=0, le=64)
    fusion: Literal["xae", "xad", "both", "none"] = setting(
        "xae", "xae: early; xad: feature level; both; none: plain self-attention"
    )
    positions: Embedding = setting("sincos", "E_emb of eq. 1; sincos is fixed")
    position_temperature: float = setting(10_000, "of sincos; 20 tells patches of a small grid apart", gt=1, le=1e9)
    masking: LossOnly[Masking] = setting("independent", "section 3.3; cloud is ours")
    mask_ratio: LossOnly[float] = setting(0.75, "share of each modality's patches that is removed", gt=0, lt=1)
    decoder_width: Width = setting(256, "width of the decoders D_i")
    decoder_depth: int = setting(2, "blocks of each decoder D_i", ge=0, le=1000)
    decoder_heads: Width = setting(8, "attention heads of the decoders")
    normalize_target: LossOnly[bool] = setting(False, "normalise each target patch by its own mean and deviation")
    drop_path: LossOnly[Share] = setting(0.0, "stochastic depth of the encoder (fine-tuning)")

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
        for part in ("", "decoder_"):
            width, heads = getattr(self, f"{part}width"), getattr(self, f"{part}heads")
            if width % heads or width % 4:
                raise ValueError(f"{part}width {width} must be a multiple of 4 and of {part}heads {heads}")
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
        return self

    def architecture(self) -> "ModelConfig":
        """Only the fields that decide shape and loss of this system: a :class:`DinoConfig` for DINO-MM alone."""
        kind = DinoConfig if self.system == "dino" else ModelConfig
        return kind(**{name: value for name, value in dict(self).items() if name in kind.model_fields})

    @property
    def channels(self) -> dict[str, int]:
        """Bands of each sensor, in order."""
        return {name: get_modality(name).channels for name in self.modalities}

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


class DinoConfig(ModelConfig):
    """Of DINO-MM, or read from a file or a command line, where these fields stand whatever the system is."""

    head_outputs: int = setting(
        0, "dino: numbers compared [K]; 0: 65,536 from width 384 on, else 8 D", ge=0, le=10_000_000
    )
    global_crops: LossOnly[int] = setting(2, "dino: views of 40 to 100 % of the area, for both networks", gt=0, le=100)
    local_crops: LossOnly[int] = setting(8, "dino: views of 5 to 40 % of the area, for the student only", ge=0, le=100)
    sensor_drop: LossOnly[Chance] = setting(0.5, "dino: chance that a view loses one of its sensors")
    teacher_momentum: LossOnly[Chance] = setting(0.996, "dino: share the teacher keeps; rises to 1")
    teacher_temperature: LossOnly[float] = setting(0.04, "dino: below the student's 0.1, to sharpen", ge=1e-3, le=10)

    @model_validator(mode="after")
    def _views_to_compare(self) -> Self:
        if self.system == "dino" and self.global_crops + self.local_crops < 2:
            raise ValueError("system dino compares views; set global_crops and local_crops to 2 in all or more")
        return self


def as_tuple(value: Any) -> Any:
    """``0.9,0.95``, ``(0.9, 0.95)``, ``[0.9, 0.95]``, ``("s1", "s2")`` as texts, or a sequence, as a tuple."""
    if isinstance(value, str):
        text = value.strip()
        text = text[1:-1] if text[:1] + text[-1:] in ("()", "[]") else text
        return tuple(part.strip().strip("\"'") for part in text.rstrip().removesuffix(",").split(","))
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _one_line(error: ValidationError, config: type[BaseModel]) -> InputError:
    """Turn pydantic's report into one line that names the field and the cure."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    message = printable(first["msg"].removeprefix("Value error, "), 300)
    if first["type"] == "extra_forbidden":
        return InputError(f"unknown parameter {shown(name)}", choose(name, config.model_fields))
    if not name:
        what, _, cure = message.partition("; ")
        return InputError(f"configuration: {what}", cure or "change one of the named fields")
    field = config.model_fields.get(str(first["loc"][0]))
    meaning = f" ({field.description})" if field is not None else ""
    return InputError(f"parameter {name!r}: {shown(first['input'])} is refused: {message}", f"set {name}{meaning}")


def shown(value: object) -> str:
    """A value as a message shows it."""
    return printable(repr(value) if isinstance(value, str) else value, 80)
