"""Section 4's recipe: AdamW without decay where it does not belong, warm-up then cosine, and a step's precision."""

from typing import Any

import torch
from torch import nn

from fusmae_lite.core.config import RunConfig
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.schedule import cosine


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices and kernels decay; norms, biases, positions and learned tokens do not."""
    decay, rest = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_token = name.endswith(("cls_token", "mask_token", "positions.table"))
            (rest if parameter.ndim < 2 or is_token else decay).append(parameter)
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def build_optimizer(model: nn.Module, config: RunConfig) -> torch.optim.AdamW:
    """AdamW with the configuration's learning rate, betas and decay; the fused kernel (CPU and CUDA have one)."""
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def learning_rate_at(step: int, steps_per_epoch: int, config: RunConfig) -> float:
    """Learning rate of optimiser step `step` (from 0): linear warm-up, then half a cosine to the minimum.

    It depends on the planned number of steps alone, so a run stopped early or resumed follows the same curve.
    """
    total = config.epochs * steps_per_epoch
    warmup = min(config.warmup_epochs * steps_per_epoch, total)
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    share = cosine((step - warmup) / max(total - warmup, 1))
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * share


def weight_decay_at(step: int, steps_per_epoch: int, config: RunConfig) -> float:
    """Weight decay of optimiser step `step`: constant, or half a cosine to ``weight_decay_end`` (DINO), no warm-up."""
    if config.weight_decay_end is None:
        return config.weight_decay
    share = 1 - cosine(step / (config.epochs * steps_per_epoch))
    return config.weight_decay + (config.weight_decay_end - config.weight_decay) * share


def choose_device(config: RunConfig) -> torch.device:
    """The configured device; ``auto`` takes CUDA, then Apple's MPS, then the CPU. InputError if it is not there."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    names = [name for name, is_present in present.items() if is_present]
    if config.device not in ("auto", *names):
        cure = f"choose auto, or one of those found: {', '.join(names)}"
        raise InputError(f"device {config.device!r} is not available", cure)
    return torch.device(names[0] if config.device == "auto" else config.device)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether this hardware multiplies bf16 matrices faster than fp32 ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cpu" and native


def uses_bf16(device: torch.device, config: RunConfig) -> bool:
    """Whether a step runs in bf16: as configured; ``auto`` where :func:`has_fast_bf16` says so."""
    return config.precision == "bf16" or (config.precision == "auto" and has_fast_bf16(device))


def autocast(device: torch.device, config: RunConfig) -> torch.autocast:
    """bf16 autocast where :func:`uses_bf16` says so, otherwise none."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(device, config))
