"""Speed of a paper-size training step, as a share of this machine's own matrix-multiplication rate.

    python benchmarks/train_step.py --batch 16 --steps 5 --record benchmarks/train_step.json
    python benchmarks/train_step.py --batch 200 --steps 20 --compile off on --profile profile.txt     # on a GPU

Matrix multiplications and training steps alternate in one process, so that a machine whose speed drifts slows both.
Medians are reported. A precision that the hardware does not multiply natively is named and skipped: emulated, one
2048-cube product can take minutes.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from fusmae_lite import FusMAE, load_preset
from fusmae_lite.core.files import write_text
from fusmae_lite.train.distributed import compile_blocks
from fusmae_lite.train.optimise import build_optimizer, choose_device, has_fast_bf16


def gemm_rate(dtype: torch.dtype, device: torch.device, side: int = 2048) -> float:
    """Floating-point operations a second of one `side`-cubed matrix product."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    a @ b
    _wait(device)
    started = time.perf_counter()
    a @ b
    _wait(device)
    return 2 * side**3 / (time.perf_counter() - started)


def make_step(fusion: str, batch: int, dtype: torch.dtype, device: torch.device, compiled: str):
    """A function that runs one optimiser step of the paper's model, and the operations it counts for one pair."""
    config = load_preset("paper", fusion=fusion, compile=compiled)
    torch.manual_seed(0)
    model = FusMAE(config.architecture()).to(device)
    flops = count_flops(model, device)
    compile_blocks(model, config, device)
    optimizer = build_optimizer(model, config)
    images = {
        "s1": torch.randn(batch, 2, 120, 120, device=device),
        "s2": torch.randn(batch, 12, 120, 120, device=device),
    }

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(images).loss
        loss.backward()
        optimizer.step()

    return step, flops


def count_flops(model: FusMAE, device: torch.device) -> int:
    """Floating-point operations of one pair, forward and backward, as torch counts them."""
    one = {name: torch.randn(1, bands, 120, 120, device=device) for name, bands in (("s1", 2), ("s2", 12))}
    with FlopCounterMode(display=False) as counter:
        model(one).loss.backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def measure(
    fusion: str, batch: int, dtype: torch.dtype, device: torch.device, steps: int, compiled: str, profile: Path | None
) -> dict[str, object]:
    """Medians of `steps` interleaved products and training steps."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step, flops = make_step(fusion, batch, dtype, device, compiled)
    for _ in range(3 if device.type == "cuda" else 1):  # compiles, fills caches
        step()
    gemms, times = [], []
    for _ in range(steps):
        gemms.append(gemm_rate(dtype, device))
        started = time.perf_counter()
        step()
        _wait(device)
        times.append(time.perf_counter() - started)
    if profile is not None:
        write_text(profile, f"{fusion} {dtype} compile {compiled}\n{profiled(step, device)}\n")
    pairs = batch / statistics.median(times)
    gemm = statistics.median(gemms)
    return {
        "fusion": fusion,
        "precision": str(dtype).removeprefix("torch."),
        "pairs_per_second": round(pairs, 3),
        "gflop_per_pair": round(flops / 1e9, 1),
        "gflops_step": round(pairs * flops / 1e9, 1),
        "gflops_gemm": round(gemm / 1e9, 1),
        "share_of_gemm": round(pairs * flops / gemm, 3),
        "compile": compiled,
        "device_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if device.type == "cuda" else 0.0,
    }


def profiled(step: Callable[[], None], device: torch.device) -> str:
    """The operations that take most of a step's time, as torch's profiler lists them."""
    with torch.profiler.profile() as profile:
        step()
        _wait(device)
    key = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return profile.key_averages().table(sort_by=key, row_limit=20, max_name_column_width=60)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--fusions", nargs="+", default=["xae", "xad"])
    parser.add_argument("--compile", nargs="+", choices=["off", "on"], default=["off"])
    parser.add_argument("--profile", type=Path, help="write the last model's most expensive operations to this file")
    parser.add_argument("--record", type=Path, help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    device = choose_device(load_preset("paper"))
    rows: list[dict[str, object]] = []
    for fusion in arguments.fusions:
        for dtype in (torch.float32, torch.bfloat16):
            if dtype == torch.bfloat16 and not has_fast_bf16(device):
                print(f"{fusion} bfloat16: skipped, this processor does not multiply bf16 natively", flush=True)
                continue
            for compiled in arguments.compile:
                rows.append(
                    measure(fusion, arguments.batch, dtype, device, arguments.steps, compiled, arguments.profile)
                )
                print(json.dumps(rows[-1]), flush=True)
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    machine = {
        "processor": torch.cuda.get_device_name()
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "native_bf16": has_fast_bf16(device),
        "peak_memory_gib": round(gib, 2),
    }
    print(json.dumps(machine))
    if arguments.record:
        report = {"machine": machine, "batch": arguments.batch, "steps": arguments.steps, "rows": rows}
        write_text(arguments.record, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
