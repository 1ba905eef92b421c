"""Masks, drawn by a strategy or painted by hand, and what models put into their gaps."""

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio.errors
import torch
from torch import Tensor

from fusmae_lite.core.config import ModelConfig, project_root
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.archives.names import file_in
from fusmae_lite.data.pairs import denormalise
from fusmae_lite.model.fusmae import FusMAE
from fusmae_lite.model.masking import STRATEGIES, sample_masks
from fusmae_lite.model.tokens import patchify, unpatchify
from fusmae_lite.show.figures import reconstruction_panels
from fusmae_lite.show.geotiff import write_geotiff
from fusmae_lite.show.pictures import mask_pixels
from fusmae_lite.show.viewers.base import PairViewer, Rows, Source, choice, look_choices, slider
from fusmae_lite.show.viewers.models import Models, load_models
from fusmae_lite.systems.weights import digest_of

#: The choice of the cross-sensor control that leaves masks alone.
AS_DRAWN = "as drawn"


def cross_choices(modalities: Sequence[str]) -> dict[str, tuple[str, str]]:
    """What the cross-sensor control offers -> (what happens to a sensor, its name)."""
    ways = {"hidden but one patch": "reduced", "shown whole": "whole", "encoded alone": "alone"}
    return {AS_DRAWN: ("", ""), **{f"{m.upper()} {title}": (way, m) for title, way in ways.items() for m in modalities}}


def draw_masks(config: ModelConfig, strategy: str, percent: int, seed: int, cross: str = AS_DRAWN) -> dict[str, Tensor]:
    """Masks of a single pair: modality -> bool (1, N), True where hidden.

    `percent` of each sensor's patches are hidden, but one always stays; `cross` is a key of :func:`cross_choices`.
    """
    names, choices = config.modalities, cross_choices(config.modalities)
    if cross not in choices:
        raise InputError(f"no choice {cross!r} for {', '.join(names)}", f"choose one of {', '.join(choices)}")
    way, chosen = choices[cross]
    kept = max(1, round(config.tokens * (100 - percent) / 100))
    masks = sample_masks(strategy, 1, config.tokens, kept, names, torch.Generator().manual_seed(seed))
    if way in ("reduced", "whole"):
        first = int((~masks[chosen][0]).nonzero()[0])
        masks[chosen] = torch.full_like(masks[chosen], way == "reduced")
        masks[chosen][0, first] = False
    return {name: mask for name, mask in masks.items() if way != "alone" or name == chosen}


class ReconstructionViewer(PairViewer):
    """Input, what the encoder sees, reconstruction and error; one model, or two side by side.

    Strategy, share and seed draw the masks; a stroke over what the encoder sees hides or shows its patches, in all
    sensors where masks are consistent. `models` are shipped names, checkpoints or models with the same sensors and
    patches; a mapping names them, ``{"mine": "runs/laptop", "shipped": "xae-lite"}``. Files go into `folder`,
    by default ``runs/pictures``.
    """

    def __init__(
        self,
        archive: Source = None,
        models: Models = ("xae-lite",),
        *,
        pair: int | None = None,
        folder: Path | str = "",
    ) -> None:
        self.models, self.own_folder = load_models(models), project_root() / "runs" / "pictures"
        self.folder = Path(folder or self.own_folder)
        self.config = next(iter(self.models.values())).config
        names, grid = self.config.modalities, self.config.grid
        super().__init__("Reconstruction", archive, pair, self.config)
        self.percent = slider("hidden, %", 0, 99, round(100 * self.config.mask_ratio))
        self.seed = slider("seed", 0, 99, 0)
        self.strategy = choice("masking", STRATEGIES, value=self.config.masking)
        self.cross = choice("sensors", cross_choices(names))
        for control in (self.percent, self.seed, self.strategy, self.cross):
            control.observe(self._draw_masks, "value")
        self._draw_masks()
        self.looks = look_choices(names)
        self.row, self.column = (slider(label, 0, grid - 1, 0) for label in ("row", "column"))
        here, told = (lambda: [self.row.value * grid + self.column.value]), "the patch at this row and column"
        flips = [  # for those who use no mouse
            self.button(f"hide/show in {name.upper()}", lambda name=name: self.paint(name, here()), tooltip=told)
            for name in names
        ]
        self.save_png_button = self.button("Save PNG", self.save_png, icon="image", tooltip="write this picture")
        self.save_tiff_button = self.button("Save GeoTIFF", self.save_geotiff, icon="globe", tooltip="write the bands")
        self.assemble(
            [self.percent, self.seed, self.strategy, self.cross, *self.looks.values()],
            [self.row, self.column, *flips, self.save_png_button, self.save_tiff_button],
        )

    def paint(self, name: str, cells: Sequence[int]) -> None:
        """Hide these patches of sensor `name`, or show them if the first is hidden. The last visible patch stays."""
        painted = self.masks if self.strategy.value == "consistent" else [name]
        changed = {other: self.masks[other].copy() for other in painted if other in self.masks}
        for mask in changed.values():
            mask[list(cells)] = not self.masks[name][cells[0]]
        if not changed or any(mask.all() for mask in changed.values()):
            raise InputError("the last visible patch of a sensor stays, the encoder needs one", "show another first")
        self.masks |= changed
        self.painting = True
        self.refresh()

    def draw(self) -> tuple[Rows, str, str]:
        masks = {name: torch.from_numpy(mask)[None] for name, mask in self.masks.items()}
        # of the sensors that are encoded: (C, H, W) in physical units for each model
        self.predictions = {name: predict(model, self.images, masks) for name, model in self.models.items()}
        title, originals, rows = self.pair_title(), self.originals, []
        words = [f"{title}."]
        for name, mask in self.masks.items():
            made = {model: images[name] for model, images in self.predictions.items()}
            look = self.looks[name].value if name in self.looks else None
            whole, seen, *others = reconstruction_panels(name, look, originals[name], made, mask, False)
            seen = replace(seen, caption=f"{seen.caption},\ndrag to hide or show", name=name, grid=self.config.grid)
            rows.append([whole, seen, *others])
            words.append(f"{get_modality(name).title}: the encoder sees {int((~mask).sum())} of {mask.size} patches.")
            for model, panel in zip(made, others[1::2], strict=True):
                words.append(f"Mean absolute error of {model} at hidden patches: {panel.caption.splitlines()[1]}.")
        tokens = " + ".join(str(int((~mask).sum())) for mask in self.masks.values())
        words.append(f"The encoder receives {tokens} + 1 (CLS) tokens.")
        if any(model.config.normalize_target for model in self.models.values()):
            words.append("Mean and deviation of each patch are the true ones: this model predicts only structure.")
        return rows, title, " ".join(words)

    def measured(self) -> list[tuple[str, str, np.ndarray]]:
        """See :class:`PairViewer`; and what each model predicts there, hidden or not."""
        made = [
            (f"{m} predicts", name, image) for m, images in self.predictions.items() for name, image in images.items()
        ]
        return super().measured() + made

    def _draw_masks(self, _change: object = None) -> None:
        drawn = draw_masks(self.config, self.strategy.value, self.percent.value, self.seed.value, self.cross.value)
        self.masks = {name: mask[0].numpy().copy() for name, mask in drawn.items()}  # bool (N,), True where hidden
        self.painting = False

    def pasted(self, model: str) -> dict[str, np.ndarray]:
        """A model's predictions with the input at visible patches: modality -> (C, H, W)."""
        made, originals = self.predictions[model], self.originals
        hidden = {name: mask_pixels(mask, *made[name].shape[1:]) for name, mask in self.masks.items()}
        return {name: np.where(pixels, made[name], originals[name]) for name, pixels in hidden.items()}

    def save_png(self, path: Path | str | None = None) -> Path:
        """Write the picture as it is shown; returns its path."""
        return self._save(path, "png", lambda path: path.write_bytes(self.picture()))

    def save_geotiff(self, path: Path | str | None = None, model: str | None = None) -> Path:
        """Write the reconstruction of a model (the first), visible patches pasted back, where the pair lies."""
        model = model or next(iter(self.models))
        if model not in self.predictions:
            raise InputError(f"no model {model!r} in this viewer", f"choose one of {', '.join(self.models)}")
        patch = self.archive.read(self.pair.value, self.config.modalities)
        originals = {name: self.originals[name] for name in self.masks}
        share = {name: f"{mask.mean():.4f}" for name, mask in self.masks.items()}
        tags = {"model": model, "weights_sha256": digest_of(self.models[model].state_dict()), "masking": self._drawn(),
                "seed": self.seed.value, **{f"hidden_share_{name}": value for name, value in share.items()},
                "georeference": "of the pair" if patch.crs else "none: the pair has no coordinates"}  # fmt: skip
        return self._save(
            path, "tif", lambda path: write_geotiff(path, self.pasted(model), originals, self.masks, patch, tags), model
        )

    def _drawn(self) -> str:
        """How the masks came about, for names and tags."""
        cross = "" if self.cross.value == AS_DRAWN else f" {self.cross.value}"
        if not self.painting:
            return f"{self.strategy.value} {self.percent.value} %{cross}"
        return f"painted {zlib.crc32(b''.join(mask.tobytes() for mask in self.masks.values())):08x}"

    def _save(self, path: Path | str | None, ending: str, write: Callable[[Path], object], model: str = "") -> Path:
        """Write to `path`, by default a file of the viewer's folder called after patch, model and masks."""
        name = self.archive.names[self.pair.value]
        made = re.sub(r"[^\w-]+", "-", f"{model or '+'.join(self.models)} {self._drawn()} seed {self.seed.value}")
        path = Path(path) if path else file_in(self.folder, name, f"_{made}.{ending}")
        try:
            if path.parent == self.own_folder:
                path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
        except (OSError, rasterio.errors.RasterioError) as error:
            line = str(error).splitlines()[0]
            raise InputError(f"{path} cannot be written ({line})", "choose a folder that exists") from None
        self.say(f"wrote {path}")
        return path


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
        made = unpatchify(patches, model.config.patch_size, inputs[name].shape[1])
        predictions[name] = denormalise(made, name)[0].numpy()
    return predictions
