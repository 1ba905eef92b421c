"""A training step against MultiMAE's and against lightly's MAE: equal width, depth, P, visible tokens and decoder.

    git clone https://github.com/EPFL-VILAB/MultiMAE /elsewhere/MultiMAE
    python -m pip install lightly einops
    python benchmarks/against_peers.py --multimae /elsewhere/MultiMAE --record benchmarks/against_peers.json

Steps of all models alternate in one process; medians and ratios of medians are reported. MultiMAE sees what Fus-MAE
sees: 2 + 12 bands as two modalities, 112 visible of 450 tokens, one decoder of 256 x 2 a modality. lightly's MAE sees
the 14 bands as one stacked image, so it has half the tokens and does about half the work. No peer's code is part of
this project: a peer that is not given or installed is left out, and said to be.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from fusmae_lite import FusMAE, RunConfig, load_preset
from fusmae_lite.core.files import write_text
from fusmae_lite.train.optimise import autocast, build_optimizer, choose_device, uses_bf16

Loss = Callable[[dict[str, torch.Tensor]], torch.Tensor]


def ours(config: RunConfig, fusion: str) -> tuple[nn.Module, Loss]:
    """Fus-MAE as notebook 05 trains it."""
    model = FusMAE(load_preset(config.preset, fusion=fusion, **SIZE).architecture())
    return model, lambda images: model(images).loss


def multimae(config: RunConfig, checkout: Path) -> tuple[nn.Module, Loss]:
    """MultiMAE from its own checkout, with its pretraining defaults for the decoders."""
    sys.path.insert(0, str(checkout))
    utils = types.ModuleType("utils")  # its own __init__ imports what recent versions of torch no longer have
    utils.__path__ = [str(checkout / "utils")]
    sys.modules["utils"] = utils
    from multimae import MaskedMSELoss, MultiMAE, PatchedInputAdapter, SpatialOutputAdapter

    channels = {"s1": 2, "s2": 12}
    shape = {"stride_level": 1, "patch_size_full": config.patch_size, "image_size": config.image_size}
    model = MultiMAE(
        {name: PatchedInputAdapter(num_channels=count, **shape) for name, count in channels.items()},
        {
            name: SpatialOutputAdapter(
                num_channels=count, dim_tokens=config.decoder_width, depth=config.decoder_depth,
                num_heads=config.decoder_heads, use_task_queries=True, use_xattn=True, task=name,
                context_tasks=list(channels), **shape,
            )
            for name, count in channels.items()
        },
        dim_tokens=config.width, depth=config.depth, num_heads=config.heads, mlp_ratio=config.mlp_ratio,
    )  # fmt: skip
    criterion = MaskedMSELoss(patch_size=config.patch_size, stride=1)

    def loss(images: dict[str, torch.Tensor]) -> torch.Tensor:
        predictions, masks = model(images, num_encoded_tokens=2 * config.kept, alphas=1.0)
        return sum(criterion(predictions[name].float(), images[name], mask=masks.get(name)) for name in images)

    return model, loss


def lightly_mae(config: RunConfig) -> tuple[nn.Module, Loss]:
    """lightly's MAE over the 14 bands as one image: half the tokens, since a patch holds both sensors."""
    from lightly.models import utils
    from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
    from timm.models.vision_transformer import VisionTransformer

    vit = VisionTransformer(
        img_size=config.image_size, patch_size=config.patch_size, in_chans=14, embed_dim=config.width,
        depth=config.depth, num_heads=config.heads, mlp_ratio=config.mlp_ratio, num_classes=0,
    )  # fmt: skip
    backbone = MaskedVisionTransformerTIMM(vit=vit)
    decoder = MAEDecoderTIMM(
        num_patches=config.tokens, patch_size=config.patch_size, in_chans=14, embed_dim=config.width,
        decoder_embed_dim=config.decoder_width, decoder_depth=config.decoder_depth,
        decoder_num_heads=config.decoder_heads, mlp_ratio=config.mlp_ratio,
    )  # fmt: skip

    def loss(images: dict[str, torch.Tensor]) -> torch.Tensor:
        stacked = torch.cat([images["s1"], images["s2"]], dim=1)
        batch, length = len(stacked), backbone.sequence_length
        keep, mask = utils.random_token_mask((batch, length), mask_ratio=config.mask_ratio, device=stacked.device)
        encoded = decoder.embed(backbone.encode(images=stacked, idx_keep=keep))
        tokens = utils.repeat_token(decoder.mask_token, (batch, length))
        tokens = utils.set_at_index(tokens, keep, encoded.type_as(tokens))
        predicted = decoder.predict(utils.get_at_index(decoder.decode(tokens), mask))
        target = utils.get_at_index(utils.patchify(stacked, config.patch_size), mask - 1)
        return nn.functional.mse_loss(predicted, target)

    return nn.ModuleList([backbone, decoder]), loss


def make_step(model: nn.Module, loss: Loss, config: RunConfig, images: dict[str, torch.Tensor]) -> Callable[[], None]:
    """One optimiser step: the same optimiser and precision for every model."""
    device = next(iter(images.values())).device
    model.to(device)
    optimizer = build_optimizer(model, config)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, config):
            value = loss(images)
        value.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


SIZE: dict[str, int] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--multimae", type=Path, help="a checkout of MultiMAE")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    SIZE.update(width=given.width, depth=given.depth, heads=given.heads)
    config = load_preset("paper", **SIZE)
    device = choose_device(config)
    makers: dict[str, Callable[[], tuple[nn.Module, Loss]]] = {
        f"Fus-MAE {fusion}": partial(ours, config, fusion) for fusion in ("xae", "xad", "none")
    }
    if given.multimae:
        makers["MultiMAE"] = partial(multimae, config, given.multimae)
    else:
        print("MultiMAE: left out, give --multimae a checkout")
    if importlib.util.find_spec("lightly"):
        makers["lightly MAE, 14 channels stacked"] = partial(lightly_mae, config)
    else:
        print("lightly: left out, python -m pip install lightly")
    torch.manual_seed(0)
    images = {name: torch.randn(given.batch, c, 120, 120, device=device) for name, c in (("s1", 2), ("s2", 12))}
    steps = {name: make_step(*make(), config, images) for name, make in makers.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(given.steps + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if repeat:  # the first warms caches up
                times[name].append(time.perf_counter() - started)
    rates = {name: given.batch / statistics.median(values) for name, values in times.items()}
    rows = [
        {"model": name, "pairs_per_second": round(rate, 3), "xae_is_faster_by": round(rates["Fus-MAE xae"] / rate, 2)}
        for name, rate in rates.items()
    ]
    report = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "precision": "bf16" if uses_bf16(device, config) else "fp32",
        "torch": torch.__version__,
        "batch": given.batch, "steps": given.steps, **SIZE, "rows": rows,
    }  # fmt: skip
    print(json.dumps(report, indent=1))
    if given.record:
        write_text(given.record, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
