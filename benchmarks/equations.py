"""Largest deviation of the package from the independent NumPy computation of equations 1-11, in float64.

python benchmarks/equations.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "model"))

import paper_reference as paper
from test_equations import FUSIONS, build, sample


def main() -> None:
    for fusion in FUSIONS:
        largest, relative = 0.0, 0.0
        for masking in ("independent", "consistent"):
            model, images, masks, weights = build(fusion, masking)
            result = model(images, masks)
            for b in range(2):
                predictions, _ = paper.forward(weights, *sample(images, masks, b), model.config)
                for name, expected in predictions.items():
                    difference = np.abs(result.patches[name][b].detach().numpy() - expected)
                    largest = max(largest, float(difference.max()))
                    relative = max(relative, float(difference.max() / np.abs(expected).max()))
        print(f"{fusion:5s} largest deviation {largest:.1e} absolute, {relative:.1e} of the largest prediction")


if __name__ == "__main__":
    main()
