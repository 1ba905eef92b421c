"""Others' encoders, and the vectors they have written, as the protocols of evaluation take them.

The protocol of an encoder: a torch module whose ``forward`` takes images, modality -> (B, C, H, W) float32, normalised
as :mod:`~fusmae_lite.core.sensors` says, and returns one vector for each pair, (B, D).
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.progress import line
from fusmae_lite.core.seeding import derive, generator
from fusmae_lite.data.archives.metadata import read_columns
from fusmae_lite.data.archives.names import refuse_duplicates, require_file
from fusmae_lite.model.system import Images, Latents, System

PROTOCOL = "forward takes {'s1': (B, 2, H, W), 's2': (B, 12, H, W)}, those of `modalities`, and returns floats (B, D)"
#: Columns of a table of vectors: the patch, as ``archive.names`` has it, and its vector where several hold lists.
NAMES, VECTORS = ("name", "patch_id"), ("embedding", "features", "vector")


class Own(System):
    """Any torch module that follows the protocol; it stays on its device, its weights and modes as they are.

    Raises InputError if it fails on two noise images, before an archive is read.
    """

    def __init__(self, module: nn.Module, config: ModelConfig) -> None:
        super().__init__(config)
        first = next(chain(module.parameters(), module.buffers()), torch.empty(0))
        self.place = nn.Parameter(torch.empty(0, device=first.device), requires_grad=False)
        self.module, self.title, self._features = module, type(module).__name__, None
        rng, side = torch.Generator().manual_seed(0), config.image_size
        noise = {s: torch.randn(2, c, side, side, generator=rng) for s, c in config.channels.items()}
        with evaluating(self):
            self.encode({sensor: image.to(first.device) for sensor, image in noise.items()})

    @torch.no_grad()
    def encode(self, images: Images) -> Latents:
        """Vectors of whole images, called ``mean``; the same for the same images, also if the module draws numbers."""
        device, batch = self.place.device, len(next(iter(images.values())))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive("initialise", 0, 97))
            try:
                x = self.module(dict(images))
            except Exception as error:  # somebody else's code
                shapes = ", ".join(f"{sensor} {tuple(image.shape)}" for sensor, image in images.items())
                what = f"{self.title} fails on {shapes} ({type(error).__name__}: {error})"
                raise InputError(what, PROTOCOL) from error
        if not isinstance(x, Tensor):
            raise InputError(f"{self.title} returns {type(x).__name__}, not a tensor", PROTOCOL)
        if x.ndim != 2 or len(x) != batch or not x.shape[1] or not x.is_floating_point():
            kind = str(x.dtype).removeprefix("torch.")
            raise InputError(f"{self.title} returns {kind} {tuple(x.shape)} for {batch} pairs", PROTOCOL)
        self._features = self._features or x.shape[1]
        if x.shape[1] != self._features:
            raise InputError(f"{self.title} returns {x.shape[1]} numbers, before {self._features}", PROTOCOL)
        return Latents({}, {"mean": x.clone()})  # a module may fill the same tensor again

    @torch.no_grad()
    def shuffled(self, seed: int) -> "Own | None":
        """Its control: a copy, the entries of each weight in a random order; None if there are no weights, or no copy.

        What is left is the architecture and the size of the weights. How others draw untrained ones is not known here.
        """
        if not any(parameter.numel() for parameter in self.module.parameters()):
            return None
        try:
            control = copy.deepcopy(self)
        except Exception as error:  # such as a weight that another one computes
            line(f"note: {self.title} cannot be copied ({error}): no row of shuffled weights")
            return None
        rng = generator("initialise", seed, 96)
        for weight in control.module.parameters():
            order = torch.randperm(weight.numel(), generator=rng).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
        return control


class Given(System):
    """Vectors by the name of the patch, read from the columns ``name`` or ``patch_id``, and lists of one length.

    Raises InputError for a file that is not Parquet, a column that is missing, a patch that occurs twice, and a vector
    that is missing, of another length, or not finite.
    """

    def __init__(self, path: Path, config: ModelConfig) -> None:
        super().__init__(config)
        self.path, self.title, self.place = path, path.name, nn.Parameter(torch.empty(0), requires_grad=False)
        names, vectors = _read(path)
        refuse_duplicates(names, path, "patch")
        self._rows = {name: row for row, name in enumerate(names)}
        self.register_buffer("vectors", vectors)
        bad = (~vectors.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise InputError(f"{path}: the vector of {names[bad[0]]} is not finite", "check its encoder and that patch")

    def of(self, names: Sequence[str]) -> Tensor:
        """(patches, D) of these patches; InputError if one has no row."""
        if absent := [name for name in names if name not in self._rows]:
            what = f"{self.path}: no row for {len(absent)} of {len(names)} patches, first {absent[0]}"
            raise InputError(what, f"write one for each of archive.names, named in the column {' or '.join(NAMES)}")
        return self.vectors[[self._rows[name] for name in names]]


def _read(path: Path) -> tuple[list[str], Tensor]:
    """Names and vectors (rows, D) float32 of a Parquet file."""
    require_file(path, f"write it: a column {' or '.join(NAMES)}, and one of lists of numbers")
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise InputError(f"{path} is not a Parquet file ({error})", "write the table again") from None
    lists = [field.name for field in schema if _holds_numbers(field.type)]
    key = next((name for name in NAMES if name in schema.names), None)
    column = lists[0] if len(lists) == 1 else next((name for name in VECTORS if name in lists), None)
    if not key or not column:
        cure = f"call them {' or '.join(NAMES)}, and {', '.join(VECTORS)} if there are several columns of lists"
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise InputError(f"{path}: no column of names, or of lists of numbers, among {columns}", cure)
    table = read_columns(path, (key, column), only=True)
    names, vectors = table[key].cast(pa.string()).to_pylist(), table[column]
    if not names:
        raise InputError(f"{path} has no rows", "write one for each patch")
    widths = np.array([width or 0 for width in pc.list_value_length(vectors).to_pylist()])
    wrong = np.flatnonzero((widths != widths[0]) | (widths == 0) | [name is None for name in names])
    if len(wrong):
        what = f"{path}: row {wrong[0]} ({names[wrong[0]]}) has {widths[wrong[0]]} numbers, row 0 {widths[0]}"
        raise InputError(what, "give each patch its name and a vector of one length")
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        return names, torch.from_numpy(flat.astype(np.float32, copy=True).reshape(len(names), -1))


def _holds_numbers(kind: pa.DataType) -> bool:
    """Whether a type is of lists of numbers."""
    value = getattr(kind, "value_type", None)
    return value is not None and (pa.types.is_floating(value) or pa.types.is_integer(value))


def as_system(model: object, config: ModelConfig) -> System:
    """A system as it is, any other torch module as :class:`Own`, the path of a Parquet file as :class:`Given`."""
    if isinstance(model, System):
        return model
    if isinstance(model, nn.Module):
        return Own(model, config)
    if isinstance(model, str | Path):
        return Given(Path(model).expanduser(), config)
    cure = "give a torch module, the name or path of weights, or the path of a .parquet file of vectors"
    raise InputError(f"a {type(model).__name__} cannot be evaluated", cure)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards each of its modules is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
