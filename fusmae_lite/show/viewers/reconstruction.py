"""What a model paints into the gaps of a pair, while masks, sensors and checkpoints change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import from_bounds
from torch import Tensor

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Patch
from fusmae_lite.data.archives.names import file_in
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.model.masking import STRATEGIES
from fusmae_lite.model.tokens import patchify, unpatchify
from fusmae_lite.show.figures import reconstruction_panels
from fusmae_lite.show.panels import draw_panels
from fusmae_lite.show.pictures import mask_pixels
from fusmae_lite.show.viewers.base import PairViewer, Source, choice, load_models, look_choices, physical, slider
from fusmae_lite.show.viewers.mask import cross_choices, draw_masks


class ReconstructionViewer(PairViewer):
    """Input, what the encoder sees, reconstruction and error; one model, or two side by side.

    `models` are shipped names, checkpoints or models with the same sensors and patches; a mapping names them,
    ``{"mine": "runs/laptop", "shipped": "xae-lite"}``. The save buttons write into `folder`.
    """

    def __init__(
        self,
        archive: Source = None,
        models: Sequence[str | FusMAE] | Mapping[str, str | FusMAE] = ("xae-lite",),
        *,
        pair: int = 0,
        folder: Path | str = ".",
    ) -> None:
        self.models, self.folder = load_models(models), Path(folder)
        self.config = next(iter(self.models.values())).config
        super().__init__("Reconstruction", archive, pair, self.config)
        self.percent = slider("hidden, %", 0, 99, round(100 * self.config.mask_ratio))
        self.seed = slider("seed", 0, 99, 0)
        self.strategy = choice("masking", STRATEGIES, value=self.config.masking)
        self.cross = choice("sensors", cross_choices(self.config.modalities))
        self.looks = look_choices(self.config.modalities)
        self.save_png_button = self.button("Save PNG", self.save_png, icon="image", tooltip="write this picture")
        self.save_tiff_button = self.button(
            "Save GeoTIFF", self.save_geotiff, icon="globe", tooltip="write the reconstruction"
        )
        self.assemble(
            [self.pair, self.percent, self.seed],
            [self.strategy, self.cross, *self.looks.values()],
            [self.save_png_button, self.save_tiff_button],
        )

    def draw(self) -> tuple[bytes, str]:
        masks = draw_masks(self.config, self.strategy.value, self.percent.value, self.seed.value, self.cross.value)
        # of the sensors that are encoded: (C, H, W) in physical units for each model, and bool (N,), True where hidden
        self.predictions = {name: predict(model, self.images, masks) for name, model in self.models.items()}
        self.masks = {name: mask[0].numpy() for name, mask in masks.items()}
        self.originals = {name: physical(self.images[name], name) for name in masks}
        title, rows = self.pair_title(), []
        words = [f"{title}."]
        for name, mask in self.masks.items():
            made = {model: images[name] for model, images in self.predictions.items()}
            look = self.looks[name].value if name in self.looks else None
            rows.append(reconstruction_panels(name, look, self.originals[name], made, mask))
            words.append(f"{get_modality(name).title}: the encoder sees {int((~mask).sum())} of {mask.size} patches.")
            for model, panel in zip(made, rows[-1][3::2], strict=True):
                words.append(f"Mean absolute error of {model} at hidden patches: {panel.caption.splitlines()[1]}.")
        if any(model.config.normalize_target for model in self.models.values()):
            words.append("Mean and deviation of each patch are the true ones: this model predicts only structure.")
        return draw_panels(rows, title), " ".join(words)

    def pasted(self, model: str) -> dict[str, np.ndarray]:
        """A model's predictions with the input at visible patches: modality -> (C, H, W)."""
        hidden = {name: mask_pixels(mask, *self.originals[name].shape[1:]) for name, mask in self.masks.items()}
        return {n: np.where(hidden[n], self.predictions[model][n], image) for n, image in self.originals.items()}

    def save_png(self, path: Path | str | None = None) -> Path:
        """Write the picture as it is shown; returns its path."""
        path = self._path(path, "png")
        try:
            path.write_bytes(self.picture())
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}", "choose a folder that exists and can be written") from None
        return path

    def save_geotiff(self, path: Path | str | None = None, model: str | None = None) -> Path:
        """Write the reconstruction of a model (the first), visible patches pasted back, where the pair lies."""
        model = model or next(iter(self.models))
        if model not in self.predictions:
            raise InputError(f"no model {model!r} in this viewer", f"choose one of {', '.join(self.models)}")
        path = self._path(path, "tif")
        write_geotiff(path, self.pasted(model), self.archive.read(self.pair.value, self.config.modalities))
        return path

    def _path(self, path: Path | str | None, ending: str) -> Path:
        name = self.archive.names[self.pair.value]
        return Path(path) if path else file_in(self.folder, name, f"_reconstruction.{ending}")


@torch.inference_mode()
def predict(model: FusMAE, images: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """A model's prediction of one pair at every patch, from the sensors in `masks`: (C, H, W) in physical units.

    A model trained on patch-normalised targets predicts only structure: mean and deviation are those of the true patch.
    """
    inputs = {name: images[name] for name in masks}
    predictions = {}
    for name, patches in model(inputs, dict(masks)).patches.items():
        if model.config.normalize_target:
            truth = patchify(inputs[name], model.config.patch_size)
            mean, var = truth.mean(dim=-1, keepdim=True), truth.var(dim=-1, keepdim=True)
            patches = patches * (var + 1e-6).sqrt() + mean
        predictions[name] = physical(unpatchify(patches, model.config.patch_size, inputs[name].shape[1]), name)
    return predictions


def write_geotiff(path: Path, images: Mapping[str, np.ndarray], patch: Patch) -> None:
    """Images (C, H, W) of one size as float32 GeoTIFF where `patch` lies, if it tells: a named layer for each band."""
    sensors = [get_modality(name) for name in images]
    values = np.concatenate(list(images.values())).astype(np.float32)
    count, height, width = values.shape
    options = {"driver": "GTiff", "dtype": "float32", "count": count, "height": height, "width": width}
    if patch.crs and patch.bounds:
        options |= {"crs": patch.crs, "transform": from_bounds(*patch.bounds, width, height)}
    try:
        with rasterio.open(path, "w", compress="deflate", **options) as file:
            file.write(values)
            file.descriptions = [f"{sensor.name.upper()} {band}" for sensor in sensors for band in sensor.bands]
            file.units = [sensor.units for sensor in sensors for _ in sensor.bands]
    except (OSError, rasterio.errors.RasterioError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be written ({line})", "choose a folder that exists") from None
