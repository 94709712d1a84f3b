"""The data part of the schema: where pictures lie and what happens to them on their way into a batch."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from solov2.config.schema_types import Positive, Settings, Share

Triple = tuple[float, float, float]
ShortLong = tuple[Positive, Positive]
Factor = Annotated[float, Field(ge=0)]
Hue = Annotated[float, Field(ge=-255, le=255)]
Scale = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(gt=0)]
Level = Annotated[int, Field(ge=0, le=255)]
Files = Annotated[tuple[str, ...], Field(min_length=1)]


class _SizeArgs(Settings):
    keep_ratio: bool = Field(default=True, description="One scale for both sides; false: to exactly height, width.")
    min_scale: float | None = Field(
        default=None, gt=0, description="Never scale below this factor unless the long side would pass its size."
    )
    interp: int = Field(
        default=1, ge=0, le=4, description="Of the pixels: 0 nearest, 1 linear, 2 cubic, 3 area, 4 Lanczos."
    )


class ResizeArgs(_SizeArgs):
    """Scale so that the short side reaches the first size, unless the long side would pass the second."""

    target_size: ShortLong = Field(default=(800, 1333), description="Short and long side, pixels.")


class RandomResizeArgs(_SizeArgs):
    """Resize to one size drawn from a list, or with a short side drawn from a range."""

    target_size: tuple[ShortLong, ...] = Field(min_length=1, description="Short and long sides, pixels.")
    random_range: bool = Field(default=False, description="Draw the short side from between those of two sizes.")
    random_interp: bool = Field(default=False, description="Draw the interpolation of the pixels too.")

    @field_validator("random_range")
    @classmethod
    def _between_two(cls, random_range: bool, info: ValidationInfo) -> bool:
        sizes = info.data.get("target_size", ())
        if random_range and sizes and len(sizes) != 2:
            raise ValueError(f"a range has two ends, but target_size lists {len(sizes)}: list two, or use false")
        return random_range


class RandomFlipArgs(Settings):
    """Mirror the picture."""

    prob: Share = Field(default=0.5, description="Probability of a left-right flip.")
    vertical_prob: Share = Field(default=0.0, description="Probability of an up-down flip.")


class RandomRotate90Args(Settings):
    """Turn the picture by a quarter."""

    prob: Share = Field(default=0.5, description="Probability of the turn.")


class RandomDistortArgs(Settings):
    """Change the picture's colours. Each range is low, high and the probability that the step is left out."""

    hue: tuple[Hue, Hue, Share] = Field(default=(-18.0, 18.0, 0.5), description="Shift, 256ths of a turn.")
    saturation: tuple[Factor, Factor, Share] = Field(default=(0.5, 1.5, 0.5), description="Factor; 0: grey.")
    contrast: tuple[Factor, Factor, Share] = Field(default=(0.5, 1.5, 0.5), description="Factor; 0: the mean grey.")
    brightness: tuple[Factor, Factor, Share] = Field(default=(0.5, 1.5, 0.5), description="Factor; 0: black.")
    random_apply: bool = Field(default=True, description="In random order; false: in that of the SSD detector.")
    count: int = Field(default=4, ge=0, le=4, description="Steps taken of a random order.")
    prob: Share = Field(default=1.0, description="Probability that anything is done.")
    random_channel: bool = Field(default=False, description="Exchange channels in half of the pictures; SSD's order.")

    @field_validator("hue", "saturation", "contrast", "brightness")
    @classmethod
    def _ascending(cls, value: Triple) -> Triple:
        _check_ascending(value[0], value[1])
        return value


class RandomCropArgs(Settings):
    """Cut out a window that holds enough of the objects."""

    aspect_ratio: tuple[Ratio, Ratio] | None = Field(
        default=(0.5, 2.0), description="Width to height, the picture's own being 1; null: sides drawn independently."
    )
    thresholds: tuple[Share, ...] = Field(
        default=(0.0, 0.1, 0.3, 0.5, 0.7, 0.9), min_length=1, description="Least overlaps with an object; one is drawn."
    )
    scaling: tuple[Scale, Scale] = Field(default=(0.3, 1.0), description="Square root of the window's share of area.")
    num_attempts: int = Field(default=50, ge=1, le=10_000, description="Windows drawn per threshold.")
    allow_no_crop: bool = Field(default=True, description="Leaving the picture whole counts as one more threshold.")
    cover_all_box: bool = Field(default=False, description="Every object has to reach the threshold.")
    ioumode: Literal["iou", "iof"] = Field(default="iou", description="Overlap over the union or over the object.")
    prob: Share = Field(default=1.0, description="Probability that anything is done.")

    @field_validator("aspect_ratio", "scaling")
    @classmethod
    def _ascending(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None:
            _check_ascending(*value)
        return value


class LargeScaleJitterArgs(Settings):
    """Scale up or down by much, then cut or pad to one size."""

    target_size: tuple[Positive, Positive] = Field(default=(1024, 1024), description="Height and width, pixels.")
    scale: tuple[Ratio, Ratio] = Field(default=(0.1, 2.0), description="Lowest and highest; 1: just fits the size.")
    fill: tuple[Level, Level, Level] = Field(default=(124, 116, 104), description="RGB of the padding, 0..255.")

    @field_validator("scale")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        _check_ascending(*value)
        return value


class RandomPatchArgs(Settings):
    """Cut a patch out of the picture and scale it to one size."""

    target_size: tuple[Positive, Positive] = Field(default=(512, 512), description="Height and width, pixels.")
    scale: tuple[Ratio, Ratio] = Field(default=(1.0, 1.0), description="Lowest and highest scale of the pixels.")

    @field_validator("scale")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        _check_ascending(*value)
        return value


class CopyPasteArgs(Settings):
    """Paste objects of another training picture, which has gone through the steps before this one."""

    prob: Share = Field(default=0.5, description="Probability that anything is pasted.")
    max_pastes: Positive = Field(default=20, description="Most objects pasted; the number is drawn from 1 to it.")


def _check_ascending(low: float, high: float) -> None:
    if low > high:
        raise ValueError(f"expected the lower end first, got {low:g}, {high:g}")


TransformName = Literal[
    "Resize",
    "RandomResize",
    "LargeScaleJitter",
    "RandomFlip",
    "RandomRotate90",
    "RandomDistort",
    "RandomCrop",
    "RandomPatch",
    "CopyPaste",
]

_TRANSFORM_ARGS: dict[str, type[Settings]] = {
    "Resize": ResizeArgs,
    "RandomResize": RandomResizeArgs,
    "LargeScaleJitter": LargeScaleJitterArgs,
    "RandomFlip": RandomFlipArgs,
    "RandomRotate90": RandomRotate90Args,
    "RandomDistort": RandomDistortArgs,
    "RandomCrop": RandomCropArgs,
    "CopyPaste": CopyPasteArgs,
    "RandomPatch": RandomPatchArgs,
}


class TransformConfig(Settings):
    """One step between the decoded picture and the batch; its arguments are checked and completed."""

    name: TransformName = Field(description="Which step.")
    args: dict[str, Any] = Field(default_factory=dict, description="Its arguments; see the models named after it.")

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("name") not in _TRANSFORM_ARGS:
            return data
        # By way of JSON, so that arguments are as strict and as plain whether they come from code or a file.
        given = json.dumps(data.get("args", {}), default=str)
        args = _TRANSFORM_ARGS[data["name"]].model_validate_json(given, strict=True)
        return {**data, "args": args.model_dump()}

    def stated(self) -> dict[str, Any]:
        """The arguments that differ from their defaults, as a recipe would state them."""
        fields = _TRANSFORM_ARGS[self.name].model_fields
        return {key: value for key, value in self.args.items() if value != fields[key].default}


class SourceConfig(Settings):
    """Where pictures and annotations lie; relative paths are below dataset_dir."""

    kind: Literal["coco", "folder"] = Field(default="coco", description="COCO json with masks, or a bare folder.")
    dataset_dir: str = Field(default="", description="Folder of the data set.")
    image_dir: str | Files = Field(default="", description="Folder of the pictures, or one for each COCO json.")
    anno_path: str | Files | None = Field(
        default=None, description="COCO json, or several; for a folder only the class names are read."
    )
    allow_empty: bool = Field(default=False, description="Train on pictures without objects too.")
    sample_num: int = Field(default=-1, ge=-1, description="Use only the first pictures; -1: all.")

    @field_validator("anno_path")
    @classmethod
    def _folder_for_each(cls, anno_path: str | Files | None, info: ValidationInfo) -> str | Files | None:
        folders = info.data.get("image_dir", "")
        if isinstance(folders, tuple):
            files = anno_path if isinstance(anno_path, tuple) else () if anno_path is None else (anno_path,)
            if len(files) != len(folders):
                raise ValueError(
                    f"names {len(files)} annotation files, but image_dir {len(folders)} folders: "
                    "expected one folder for each, or one for all"
                )
        return anno_path


class ReaderConfig(Settings):
    """What happens to pictures on their way into a batch."""

    transforms: tuple[TransformConfig, ...] = Field(
        default=(TransformConfig(name="Resize"),), description="Steps in order; the picture stays uint8."
    )
    batch_size: Positive = Field(default=1, description="Pictures per device and step.")
    shuffle: bool = Field(default=False, description="A new order each epoch.")
    repeat_area: int | None = Field(
        default=None, ge=1, description="An epoch takes a picture once for every so many of its pixels; null: once."
    )
    drop_last: bool = Field(default=False, description="Leave out the last, smaller batch.")
    group_by_size: bool = Field(
        default=False, description="Put pictures of like size into one batch, so that little is padded; with shuffle."
    )


class SplitConfig(Settings):
    """One of the three uses of data."""

    source: SourceConfig = Field(default=SourceConfig(), description="Where it lies.")
    reader: ReaderConfig = Field(default=ReaderConfig(), description="How it is read.")


class PredictSourceConfig(SourceConfig):
    """Pictures of one's own: a folder unless a COCO json is asked for."""

    kind: Literal["coco", "folder"] = Field(default="folder", description="COCO json with masks, or a bare folder.")


class PredictSplitConfig(SplitConfig):
    """The split for prediction."""

    source: PredictSourceConfig = Field(default=PredictSourceConfig(), description="Where it lies.")


class NormalizeConfig(Settings):
    """(picture / 255 - mean) / std per RGB channel, on the device."""

    mean: Triple = Field(default=(0.485, 0.456, 0.406), description="RGB mean, 0..1.")
    std: Triple = Field(default=(0.229, 0.224, 0.225), description="RGB standard deviation, 0..1.")

    @field_validator("std")
    @classmethod
    def _divisible(cls, std: Triple) -> Triple:
        if min(std) <= 0:
            raise ValueError(f"each standard deviation must be greater than 0, got {list(std)}")
        return std


class DataConfig(Settings):
    """Pictures in, batches out."""

    train: SplitConfig = Field(default=SplitConfig(), description="Training.")
    eval: SplitConfig = Field(default=SplitConfig(), description="Evaluation.")
    test: PredictSplitConfig = Field(default=PredictSplitConfig(), description="Prediction on pictures of one's own.")
    normalize: NormalizeConfig = Field(default=NormalizeConfig(), description="The same in training and prediction.")
    pad_stride: int = Field(
        default=32, ge=32, multiple_of=32, description="Batches are padded to multiples of this, pixels."
    )
