"""Tensors on disk: safetensors files that exist whole or not at all and carry a digest of all they hold."""

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.files import write_whole

DAMAGED = "copy it again or retrain it"
Tensors = Mapping[str, torch.Tensor]


def sha256_of(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> str:
    """Of names, dtypes, shapes and bytes, and of metadata but for the digest itself."""
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
    signed = {**metadata, "digest": sha256_of(ready, metadata)}

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
    if metadata.get("digest") not in (None, sha256_of(tensors, metadata)):
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
