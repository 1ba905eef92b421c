"""Measure on the bundled real patches what synthetic ones are drawn from; writes them for the package.

    python benchmarks/measure_statistics.py

Training split only, without the patches marked as snowy or bright in data_samples/index.csv.
"""

from __future__ import annotations

import json
from pathlib import Path

from fusmae_lite.core.files import write_text
from fusmae_lite.data.archives import open_archive
from fusmae_lite.data.synthetic.statistics import measure

ROOT = Path(__file__).resolve().parents[1]
ABOUT = (
    "Measured by benchmarks/measure_statistics.py on the training patches of data_samples that are neither snowy nor "
    "bright (contains modified Copernicus Sentinel data 2017-2018). Features: VV, VH in dB; B01 B02 B03 B04 B05 B06 "
    "B07 B08 B8A B09 B11 B12 in ln of reflectance x 10,000. texture_level: ln of a class's texture over that of all "
    "land, radar and optics."
)


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
