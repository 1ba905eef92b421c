"""What this machine has and what would run on it: for ``fusmae doctor``, and for metrics.json."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil
import torch

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.data.archives import open_data
from fusmae_lite.data.decode import processors
from fusmae_lite.train.optimise import choose_device, has_fast_bf16, uses_bf16

PACKAGES = ("torch", "torchvision", "timm", "numpy", "rasterio", "safetensors", "accelerate", "papermill", "jupyterlab")


def machine() -> dict[str, Any]:
    """Versions, device, cores and memory; ``summary`` says it in one line. Names no host, user or path."""
    device = choose_device(RunConfig())
    cores = processors()
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{cores} {platform.machine()} cores"
    return {
        "summary": f"{name}, torch {torch.__version__}",
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
        "device": device.type,
        "device_name": name,
        "fast_bf16": has_fast_bf16(device),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def report(config: RunConfig) -> tuple[list[str], bool]:
    """Lines for people about the machine, the data, the weights and the configured run; and whether it could run."""
    facts = machine()
    versions = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    data, good = _data(config)
    device, problem = _device(config)
    return [
        f"python    {facts['python']}, {platform.system()} {platform.machine()}",
        f"packages  {versions}",
        f"machine   {facts['cores']} cores, {facts['memory_gib']} GiB memory, device {facts['device_name']}",
        f"data      {data}",
        f"weights   {_weights()}",
        f"results   {_folder(config)}",
        f"would run preset {config.preset} on {device}: {config.fusion}, width {config.width}, depth {config.depth}, "
        f"{config.epochs} epochs of batch {config.batch_size}",
    ], good and not problem


def _device(config: RunConfig) -> tuple[str, bool]:
    try:
        device = choose_device(config)
    except InputError as error:
        return f"no device ({error})", True
    return f"{device.type} in {'bf16' if uses_bf16(device, config) else 'fp32'}", False


def _data(config: RunConfig) -> tuple[str, bool]:
    """What lies in the data folder, without reading pixels or labels."""
    try:
        archive = open_data(config)
    except InputError as error:
        return f"none: {error}", False
    try:
        counts = ", ".join(f"{len(archive.split(name))} {name}" for name in ("train", "val", "test"))
    except InputError as error:
        return f"{len(archive)} {archive.kind_of_pairs} of {archive.kind}, but {error}", False
    left_out = f"; {archive.said_left_out}" if archive.left_out else ""
    return f"{len(archive)} {archive.kind_of_pairs} ({counts}) of {archive.kind} in {archive.root}{left_out}", True


def _weights() -> str:
    from fusmae_lite.systems.weights import shipped_weights

    shipped = shipped_weights()
    return ", ".join(f"{name} ({path.stat().st_size / 1e6:.1f} MB)" for name, path in shipped.items()) or "none shipped"


def _folder(config: RunConfig) -> str:
    try:
        return str(config.folder())
    except InputError as error:
        return str(error)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
