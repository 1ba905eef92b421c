"""What a model paints into the gaps of a pair, while masks, sensors and checkpoints change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ipywidgets as w
import numpy as np
import rasterio
from rasterio.transform import from_bounds

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives import Archive
from fusmae_lite.data.archives.names import file_in
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.model.masking import STRATEGIES
from fusmae_lite.show import pictures
from fusmae_lite.show.figures import ERROR_LIMITS, ERROR_MAP, UNITS, absolute_error
from fusmae_lite.show.panels import Panel, Scale, draw_panels
from fusmae_lite.show.pictures import COMPOSITES, colour_of
from fusmae_lite.show.viewers.base import Viewer, archive_or_bundled, check_index, choice, pair_title, slider
from fusmae_lite.show.viewers.models import Pairs, Prediction, cross_choices, draw_masks, load_models, predict


class ReconstructionViewer(Viewer):
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
        archive: Archive | Path | str | None = None,
        models: Sequence[str | FusMAE] | Mapping[str, str | FusMAE] = ("xae-lite",),
        *,
        pair: int = 0,
        folder: Path | str = ".",
    ) -> None:
        super().__init__("Reconstruction")
        self.archive = archive_or_bundled(archive)
        self.models = load_models(models)
        self.config = next(iter(self.models.values())).config
        self.pairs, self.folder = Pairs(self.archive, self.config), Path(folder)
        self.predictions: dict[str, Prediction] = {}
        self.pair = slider("pair", 0, len(self.archive) - 1, check_index(self.archive, pair))
        self.percent = slider("hidden, %", 0, 99, round(100 * self.config.mask_ratio))
        self.seed = slider("seed", 0, 99, 0)
        self.strategy = choice("masking", STRATEGIES, self.config.masking)
        self.cross = choice("sensors", cross_choices(self.config.modalities))
        self.looks = {
            name: choice(name.upper(), [(c.title, key) for key, c in COMPOSITES.items() if c.modality == name])
            for name in self.config.modalities
            if any(c.modality == name for c in COMPOSITES.values())
        }
        self.save_png_button = w.Button(description="Save PNG", icon="image", tooltip="write this picture")
        self.save_tiff_button = w.Button(description="Save GeoTIFF", icon="globe", tooltip="write the reconstruction")
        self.save_png_button.on_click(lambda _button: self._save(self.save_png))
        self.save_tiff_button.on_click(lambda _button: self._save(self.save_geotiff))
        watched = [self.pair, self.percent, self.seed, self.strategy, self.cross, *self.looks.values()]
        self.assemble(
            watched,
            w.HBox([self.pair, self.percent, self.seed], layout=w.Layout(flex_flow="row wrap")),
            w.HBox([self.strategy, self.cross, *self.looks.values()], layout=w.Layout(flex_flow="row wrap")),
            w.HBox([self.save_png_button, self.save_tiff_button]),
        )

    def draw(self) -> tuple[bytes, str]:
        images = self.pairs[self.pair.value]
        masks = draw_masks(self.config, self.strategy.value, self.percent.value, self.seed.value, self.cross.value)
        self.predictions = {name: predict(model, images, masks) for name, model in self.models.items()}
        title = pair_title(self.archive, self.pair.value)
        looks = {name: control.value for name, control in self.looks.items()}
        words = f"{title}. {reconstruction_words(self.predictions)}"
        if any(model.config.normalize_target for model in self.models.values()):
            words += " Mean and deviation of each patch are the true ones: this model predicts only structure."
        return draw_panels(reconstruction_panels(self.predictions, looks), title), words

    def save_png(self, path: Path | str | None = None) -> Path:
        """Write the picture as it is shown; returns its path."""
        path = Path(path) if path else file_in(self.folder, self._name(), "_reconstruction.png")
        try:
            path.write_bytes(self.picture())
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}", "choose a folder that exists and can be written") from None
        return path

    def save_geotiff(self, path: Path | str | None = None, model: str | None = None) -> Path:
        """Write the reconstruction, visible patches pasted back, with the pair's place on the map; returns its path.

        Args:
            path: ``.tif`` to write; named after the patch in the viewer's folder if absent.
            model: which of the two models; the first if absent.
        """
        model = model or next(iter(self.models))
        if model not in self.predictions:
            raise InputError(f"no model {model!r} in this viewer", f"choose one of {', '.join(self.models)}")
        path = Path(path) if path else file_in(self.folder, self._name(), "_reconstruction.tif")
        patch = self.archive.read(self.pair.value, self.config.modalities)
        write_geotiff(path, self.predictions[model].pasted, patch.crs, patch.bounds)
        return path

    def _name(self) -> str:
        return self.archive.names[self.pair.value]

    def _save(self, save: Callable[[], Path]) -> None:
        try:
            self.say(f"wrote {save()}")
        except InputError as error:
            self.say(f"error: {error}")


def reconstruction_panels(predictions: Mapping[str, Prediction], looks: Mapping[str, str]) -> list[list[Panel]]:
    """A row for each sensor: input, what the encoder sees, then reconstruction and error of each model."""
    rows = []
    first = next(iter(predictions.values()))
    for name, original in first.original.items():
        mask, colour = first.masks[name], colour_of(name)
        look = looks.get(name) or pictures.default_composite(name)
        rgb = pictures.composite(look, name, original)
        seen = f"{int((~mask).sum())} of {mask.size} patches"
        row = [
            Panel(rgb, f"{get_modality(name).title}: {COMPOSITES[look].title}", "input", colour),
            Panel(pictures.show_mask(rgb, mask), "the encoder sees", seen),
        ]
        for model, made in predictions.items():
            pasted = pictures.composite(look, name, made.pasted[name])
            scale = Scale(ERROR_MAP, 0, ERROR_LIMITS.get(name, 1.0), UNITS.get(name, get_modality(name).units))
            error = absolute_error(made.original[name], made.raw[name], mask, name)
            caption = f"hidden, mean of bands:\n{mean_error(error)} {scale.unit}"
            row += [
                Panel(pasted, model, "reconstruction,\nvisible patches pasted back"),
                Panel(scale.paint(error), "absolute error", caption, scale=scale),
            ]
        rows.append(row)
    return rows


def mean_error(error: np.ndarray) -> str:
    """Mean of an error map over hidden pixels, as text."""
    return "nothing hidden" if np.isnan(error).all() else f"{np.nanmean(error):.2g}"


def reconstruction_words(predictions: Mapping[str, Prediction]) -> str:
    """What :func:`reconstruction_panels` shows, in words."""
    first = next(iter(predictions.values()))
    parts = []
    for name, mask in first.masks.items():
        parts.append(f"{get_modality(name).title}: the encoder sees {int((~mask).sum())} of {mask.size} patches.")
        for model, made in predictions.items():
            error = mean_error(absolute_error(made.original[name], made.raw[name], mask, name))
            unit = "" if error == "nothing hidden" else f" {UNITS.get(name, get_modality(name).units)}"
            parts.append(f"Mean absolute error of {model} at hidden patches: {error}{unit}.")
    return " ".join(parts)


def write_geotiff(
    path: Path,
    images: Mapping[str, np.ndarray],
    crs: str | None = None,
    bounds: tuple[float, float, float, float] | None = None,
) -> None:
    """Images of one size as a float32 GeoTIFF, a layer for each band, named and in the sensor's units.

    Args:
        path: file to write.
        images: modality -> (C, H, W).
        crs, bounds: place on the map; a file without them has none.
    """
    layers = [
        (name, band, image[i]) for name, image in images.items() for i, band in enumerate(get_modality(name).bands)
    ]
    high, wide = layers[0][2].shape
    place = {"crs": crs, "transform": from_bounds(*bounds, wide, high)} if crs and bounds else {}
    options = {"driver": "GTiff", "dtype": "float32", "count": len(layers), "height": high, "width": wide, **place}
    try:
        with rasterio.open(path, "w", compress="deflate", **options) as file:
            for number, (name, band, layer) in enumerate(layers, start=1):
                file.write(layer.astype(np.float32), number)
                file.set_band_description(number, f"{name.upper()} {band}")
                file.set_band_unit(number, get_modality(name).units)
    except (OSError, rasterio.errors.RasterioError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be written ({line})", "choose a folder that exists") from None
