"""What a model paints into the gaps of a pair, while masks, sensors and checkpoints change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_bounds

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Patch
from fusmae_lite.data.archives.names import file_in
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.model.masking import STRATEGIES
from fusmae_lite.show.panels import draw_panels
from fusmae_lite.show.recipes import absolute_error, mean_error, paste, reconstruction_panels
from fusmae_lite.show.viewers.base import PairViewer, Source, button, choice, look_choices, slider
from fusmae_lite.show.viewers.models import cross_choices, draw_masks, load_models, physical, predict


class ReconstructionViewer(PairViewer):
    """Input, what the encoder sees, reconstruction and error; one model, or two side by side.

    Args:
        archive: an archive or its folder; the bundled patches if absent.
        models: one or two shipped names, checkpoints or models with the same sensors and patches; a mapping names
            them, ``{"mine": "runs/laptop", "shipped": "xae-lite"}``.
        pair: row of the archive to begin with.
        folder: where the save buttons write.

    Raises:
        InputError: no such archive, model or pair, or models that do not fit together.
    """

    def __init__(
        self,
        archive: Source = None,
        models: Sequence[str | FusMAE] | Mapping[str, str | FusMAE] = ("xae-lite",),
        *,
        pair: int = 0,
        folder: Path | str = ".",
    ) -> None:
        super().__init__("Reconstruction", archive, pair)
        self.models, self.folder = load_models(models), Path(folder)
        self.config = next(iter(self.models.values())).config
        self.use(self.config)
        self.percent = slider("hidden, %", 0, 99, round(100 * self.config.mask_ratio))
        self.seed = slider("seed", 0, 99, 0)
        self.strategy = choice("masking", STRATEGIES, self.config.masking)
        self.cross = choice("sensors", cross_choices(self.config.modalities))
        self.looks = look_choices(self.config.modalities)
        self.save_png_button = button(
            "Save PNG", lambda: self._save(self.save_png), icon="image", tooltip="write this picture"
        )
        self.save_tiff_button = button(
            "Save GeoTIFF", lambda: self._save(self.save_geotiff), icon="globe", tooltip="write the reconstruction"
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
            original = self.originals[name]
            made = {model: images[name] for model, images in self.predictions.items()}
            look = self.looks[name].value if name in self.looks else None
            rows.append(reconstruction_panels(name, look, original, made, mask))
            words.append(f"{get_modality(name).title}: the encoder sees {int((~mask).sum())} of {mask.size} patches.")
            for model, image in made.items():
                error = mean_error(absolute_error(original, image, mask, name), name)
                words.append(f"Mean absolute error of {model} at hidden patches: {error}.")
        if any(model.config.normalize_target for model in self.models.values()):
            words.append("Mean and deviation of each patch are the true ones: this model predicts only structure.")
        return draw_panels(rows, title), " ".join(words)

    def pasted(self, model: str) -> dict[str, np.ndarray]:
        """A model's predictions with the input at visible patches: modality -> (C, H, W)."""
        images = self.predictions[model]
        return {name: paste(image, images[name], self.masks[name]) for name, image in self.originals.items()}

    def save_png(self, path: Path | str | None = None) -> Path:
        """Write the picture as it is shown; returns its path."""
        path = self._path(path, "png")
        try:
            path.write_bytes(self.picture())
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}", "choose a folder that exists and can be written") from None
        return path

    def save_geotiff(self, path: Path | str | None = None, model: str | None = None) -> Path:
        """Write the reconstruction, visible patches pasted back, with the pair's place on the map; returns its path.

        By default of the first model, named after the patch, in the viewer's folder.
        """
        model = model or next(iter(self.models))
        if model not in self.predictions:
            raise InputError(f"no model {model!r} in this viewer", f"choose one of {', '.join(self.models)}")
        path = self._path(path, "tif")
        write_geotiff(path, self.pasted(model), self.archive.read(self.pair.value, self.config.modalities))
        return path

    def _path(self, path: Path | str | None, ending: str) -> Path:
        name = self.archive.names[self.pair.value]
        return Path(path) if path else file_in(self.folder, name, f"_reconstruction.{ending}")

    def _save(self, save: Callable[[], Path]) -> None:
        try:
            self.say(f"wrote {save()}")
        except InputError as error:
            self.say(f"error: {error}")


def write_geotiff(path: Path, images: Mapping[str, np.ndarray], patch: Patch) -> None:
    """Images (C, H, W) of one size as a float32 GeoTIFF where `patch` lies: a named layer for each band, in its units.

    A patch without coordinates gives a file without them.
    """
    sensors = [get_modality(name) for name in images]
    layers = [(sensor, band) for sensor in sensors for band in sensor.bands]
    values = np.concatenate(list(images.values())).astype(np.float32)
    count, height, width = values.shape
    options = {"driver": "GTiff", "dtype": "float32", "count": count, "height": height, "width": width}
    if patch.crs and patch.bounds:
        options |= {"crs": patch.crs, "transform": from_bounds(*patch.bounds, width, height)}
    try:
        with rasterio.open(path, "w", compress="deflate", **options) as file:
            file.write(values)
            file.descriptions = [f"{sensor.name.upper()} {band}" for sensor, band in layers]
            file.units = [sensor.units for sensor, _ in layers]
    except (OSError, rasterio.errors.RasterioError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be written ({line})", "choose a folder that exists") from None
