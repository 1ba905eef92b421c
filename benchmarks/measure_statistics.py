"""Measure on the bundled real patches what synthetic ones are drawn from; writes them for the package.

    python benchmarks/measure_statistics.py

Training split only, without the patches marked as snowy or bright in data_samples/index.csv. Radar is measured in dB
and optics in ln of the stored value. Letters: 14 features, VV VH and the 12 optical bands in sensor order; K classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusmae_lite.core.files import write_text
from fusmae_lite.data.archives import Archive, open_archive
from fusmae_lite.data.archives.labels import BEN19
from fusmae_lite.data.synthetic.scene import CELL_GRID, TO_DB, block_mean, detrend

ROOT = Path(__file__).resolve().parents[1]
ABOUT = (
    "Measured by benchmarks/measure_statistics.py on the training patches of data_samples that are neither snowy nor "
    "bright (contains modified Copernicus Sentinel data 2017-2018). Features: VV, VH in dB; B01 B02 B03 B04 B05 B06 "
    "B07 B08 B8A B09 B11 B12 in ln of reflectance x 10,000. texture_level: ln of a class's texture over that of all "
    "land, radar and optics."
)
WINDOW = 8  # pixels: side of the windows in which speckle is measured
TEN_METRE = ("B02", "B03", "B04", "B08")
#: Class without a training patch -> the class whose statistics it gets, displaced by `DISPLACED` deviations.
BORROWED = {
    "Permanent crops": "Complex cultivation patterns",
    "Natural grassland and sparsely vegetated areas": "Pastures",
    "Moors, heathland and sclerophyllous vegetation": "Transitional woodland, shrub",
    "Coastal wetlands": "Inland wetlands",
}
DISPLACED = 2.0
RIDGE = 0.3  # in patches: a class seen on one patch keeps 1 / 1.3 of its own deviation from the overall mean
PRIOR = 5.0  # in patches: weight of the pooled covariance beside a class's own

Bands = Mapping[str, Mapping[str, np.ndarray]]


def band_means(bands: Bands) -> np.ndarray:
    """(14,): dB of the mean power, and ln of the mean stored value (at least 1)."""
    radar = [10 * np.log10(np.mean(10 ** (band.astype(np.float64) / 10))) for band in bands["s1"].values()]
    return np.array(radar + [np.log(max(band.mean(dtype=np.float64), 1)) for band in bands["s2"].values()])


def cell_texture(bands: Bands) -> np.ndarray:
    """(14, CELL_GRID squared) logarithms of the 60 m means, less their mean over 300 m."""
    power = [10 ** (band.astype(np.float64) / 10) for band in bands["s1"].values()]
    cells = [TO_DB * np.log(block_mean(band, len(band) // CELL_GRID)) for band in power]
    for band in bands["s2"].values():
        cells.append(np.log(np.maximum(block_mean(band.astype(np.float64), len(band) // CELL_GRID), 1)))
    return detrend(np.array(cells)).reshape(len(cells), -1)


def looks(bands: Bands) -> float:
    """Equivalent number of looks: mean squared over variance of the power, median over windows of 8 x 8 pixels."""
    ratios = []
    for band in bands["s1"].values():
        power = 10 ** (band.astype(np.float64) / 10)
        n = len(power) // WINDOW
        windows = power.reshape(n, WINDOW, n, WINDOW).swapaxes(1, 2).reshape(n * n, -1)
        ratios.append(windows.mean(axis=1) ** 2 / windows.var(axis=1, ddof=1))
    return float(np.median(ratios))


def correlation_length(bands: Bands) -> float:
    """Metres after which the autocorrelation of ln reflectance falls below 1 / e, mean of the four 10 m bands."""
    lengths = [_falls_below(np.log(np.maximum(bands["s2"][band], 1).astype(np.float64))) for band in TEN_METRE]
    return 10 * float(np.mean(lengths))


def _falls_below(image: np.ndarray) -> float:
    """Pixels at which the autocorrelation along rows and columns crosses 1 / e, linear between two pixels."""
    image, n = image - image.mean(), len(image)
    padded = (2 * n, 2 * n)
    products = np.fft.irfft2(np.abs(np.fft.rfft2(image, s=padded)) ** 2, s=padded)
    overlap = n * (n - np.arange(n))
    curve = (products[0, :n] + products[:n, 0]) / 2 / overlap
    curve /= max(curve[0], 1e-12)
    after = int(np.argmax(curve < 1 / np.e)) or n - 1
    before = curve[after - 1]
    return after - 1 + float(np.clip((before - 1 / np.e) / max(before - curve[after], 1e-12), 0, 1))


def measure(archive: Archive, rows: Sequence[int]) -> dict[str, Any]:
    """Everything the synthetic patches need, as plain numbers; the file's own keys say what each is.

    A patch has several classes and only its means are known, so that the mean of a class is estimated by ridge
    regression of the patch means on equal shares of the patch's classes, and its covariance from the residuals,
    weighted by the shares and drawn towards the pooled one.
    """
    patches = [archive.read(row).bands for row in rows]
    labels = archive.labels[rows]
    sea = np.array([set(np.array(BEN19)[row]) == {"Marine waters"} for row in labels])
    features = np.array([band_means(bands) for bands in patches])
    texture = np.array([np.cov(cell_texture(bands)) for bands in patches])
    # what radar shows over the open sea at 60 m is speckle and waves, not land: it comes on top of texture again
    noise = np.median([np.diag(cov)[:2] for cov in texture[sea]], axis=0)
    texture[:, [0, 1], [0, 1]] = np.maximum(texture[:, [0, 1], [0, 1]] - noise, 0.05)
    shape = _typical(texture[~sea])
    levels = np.stack([_level(texture, shape, part) for part in (slice(0, 2), slice(2, 14))], axis=1)
    shares = labels / np.maximum(labels.sum(axis=1, keepdims=True), 1)
    means, covariances, pooled = _unmix(np.hstack([features, levels]), shares)
    land = [bands for bands, wet in zip(patches, sea, strict=True) if not wet]
    return {
        "patches": len(rows),
        "classes": _classes(means, covariances, pooled, labels.sum(axis=0)),
        "pooled_mean": _rounded(features.mean(axis=0)),
        "pooled_covariance": _rounded(pooled),
        "texture_covariance": _rounded(shape),
        "correlation_length_metres": round(float(np.median([correlation_length(bands) for bands in land])), 1),
        "looks": round(float(np.median([looks(bands) for bands, wet in zip(patches, sea, strict=True) if wet])), 2),
        "labels_per_patch": np.bincount(labels.sum(axis=1), minlength=8).tolist(),
    }


def _typical(covariances: np.ndarray) -> np.ndarray:
    """(n, 14, 14) -> (14, 14): mean correlations with median deviations, which a coast or a cloud does not move."""
    deviations = np.sqrt(np.maximum(np.diagonal(covariances, axis1=1, axis2=2), 1e-6))  # a band may be 0 all over
    correlations = covariances / deviations[:, :, None] / deviations[:, None, :]
    typical = np.median(deviations, axis=0)
    return correlations.mean(axis=0) * np.outer(typical, typical)


def _level(texture: np.ndarray, shape: np.ndarray, part: slice) -> np.ndarray:
    """(n,) ln of a patch's texture deviation in one sensor over that of all land, from the mean variance."""
    own = np.diagonal(texture, axis1=1, axis2=2)[:, part].mean(axis=1)
    return np.log(own / np.diag(shape)[part].mean()) / 2


def _unmix(features: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, F) patch features, (n, K) shares -> (K, F) class means; (K, 14, 14) and pooled (14, 14) covariances."""
    overall = features.mean(axis=0)
    normal = shares.T @ shares + RIDGE * np.eye(shares.shape[1])
    deviations = np.linalg.solve(normal, shares.T @ (features - overall))
    residuals = (features - overall - shares @ deviations)[:, :14]
    pooled = residuals.T @ residuals / len(residuals)
    own = np.einsum("nk,ni,nj->kij", shares, residuals, residuals)
    covariances = (own + PRIOR * pooled) / (shares.sum(axis=0) + PRIOR)[:, None, None]
    return overall + deviations, covariances, pooled


def _classes(
    means: np.ndarray, covariances: np.ndarray, pooled: np.ndarray, counts: np.ndarray
) -> dict[str, dict[str, Any]]:
    table = {}
    for k, name in enumerate(BEN19):
        lender = BORROWED.get(name) if counts[k] == 0 else None
        row = BEN19.index(lender) if lender else k
        mean = means[row].copy()
        if lender:
            direction = np.random.default_rng(k).standard_normal(14)
            mean[:14] += DISPLACED * np.linalg.cholesky(pooled) @ direction / np.linalg.norm(direction)
        table[name] = {
            "patches": int(counts[k]),
            "source": f"borrowed from {lender}, displaced by {DISPLACED:g} deviations" if lender else "measured",
            "mean": _rounded(mean[:14]),
            "texture_level": _rounded(mean[14:]),
            "covariance": _rounded(covariances[row]),
        }
    return table


def _rounded(values: np.ndarray) -> Any:
    return np.round(values, 5).tolist()


def main() -> None:
    archive = open_archive(ROOT / "data_samples")
    clear = [row for row in archive.split("train") if {archive.meta(row)[c] for c in ("snow", "bright")} == {"False"}]
    found = {"about": ABOUT, **measure(archive, clear)}
    write_text(ROOT / "fusmae_lite/data/synthetic/statistics.json", json.dumps(found, separators=(",", ":")) + "\n")
    print(f"{found['patches']} patches, {found['looks']} looks, {found['correlation_length_metres']} m")
    for name, row in found["classes"].items():
        print(f"{row['patches']:3d}  {name[:40]:40s}  {row['source']}")


if __name__ == "__main__":
    main()
