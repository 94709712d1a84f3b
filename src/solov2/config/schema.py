"""Every setting of the package: its name, unit, range and default.

No other module writes a default; the part about pictures is in `schema_data.py`. The tree is made of frozen
models that refuse unknown names. `paddle.py` fills it from recipes; a resolved `Config` also travels as JSON
inside weights files, so it survives `model_dump_json` and `model_validate_json`. It knows nothing of torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from solov2.config.schema_conflicts import find_conflicts
from solov2.config.schema_data import DataConfig as DataConfig
from solov2.config.schema_data import NormalizeConfig as NormalizeConfig
from solov2.config.schema_data import ReaderConfig as ReaderConfig
from solov2.config.schema_data import SourceConfig as SourceConfig
from solov2.config.schema_data import SplitConfig as SplitConfig
from solov2.config.schema_data import TransformConfig as TransformConfig
from solov2.config.schema_types import ConflictError, Positive, Settings, Share

PYRAMID_STRIDES = (4, 8, 16, 32, 64, 128)
"""Input pixels per cell of p2..p7."""

NORM_GROUPS = 32
"""Groups of the group normalisation in both heads: their widths are multiples of it."""

DcnVersion = Literal[1, 2]
HeadNorm = Literal["gn", "bn", "sync_bn"]


# ---------------------------------------------------------------------------------------------- model


class ResNetConfig(Settings):
    """ResNet; variants as PaddleDetection names them (b: stride in the 3x3; d: deep stem and pooled shortcut)."""

    kind: Literal["resnet"] = Field(default="resnet", description="Tells the backbones apart.")
    depth: Literal[18, 34, 50, 101, 152] = Field(default=50, description="Number of weighted layers.")
    variant: Literal["a", "b", "c", "d"] = Field(default="b", description="Form of the stem and of the strided blocks.")
    freeze_at: int = Field(
        default=0, ge=-1, le=3, description="Stem and stages 0..freeze_at (res2 is 0) are not trained; -1: all are."
    )
    freeze_norm: bool = Field(default=True, description="Batch norms keep their stored statistics, scale and shift.")
    norm_eval: bool = Field(
        default=False, description="Batch norms keep their stored statistics only; scale and shift are trained."
    )
    sync_norm: bool = Field(default=False, description="Batch norms that are not frozen share statistics over devices.")
    groups: Positive = Field(default=1, description="Channel groups of the bottlenecks' 3x3; above 1: ResNeXt.")
    base_width: Positive = Field(default=64, description="Channels of one group in the first stage (ResNeXt: 4).")
    project_first: bool = Field(
        default=True, description="A projection also in a first block whose shapes agree (depth 18 and 34)."
    )
    dcn_stages: tuple[Annotated[int, Field(ge=0, le=3)], ...] = Field(
        default=(), description="Stages, 0..3 for c2..c5, whose 3x3 convolutions are deformable."
    )
    dcn_version: DcnVersion = Field(default=2, description="2: offsets and a factor per sample; 1: offsets only.")


class ShuffleNetConfig(Settings):
    """ShuffleNetV2 with c2 taken after the max-pool's 4-pixel stride."""

    kind: Literal["shufflenetv2"] = Field(default="shufflenetv2", description="Tells the backbones apart.")
    width: float = Field(default=1.0, ge=1, le=1, description="Channel multiplier; only 1.0 exists here.")
    freeze_at: int = Field(
        default=-1, ge=-1, le=3, description="Stem and stages 0..freeze_at are not trained; -1: all are."
    )
    freeze_norm: bool = Field(default=False, description="Batch norms keep their stored statistics, scale and shift.")


BackboneConfig = Annotated[ResNetConfig | ShuffleNetConfig, Field(discriminator="kind")]


class FPNConfig(Settings):
    """Feature pyramid."""

    kind: Literal["fpn", "ghost_pan"] = Field(default="fpn", description="Top-down, or NanoDet-Plus's ghost neck.")
    channels: Positive = Field(default=256, description="Channels of every pyramid level.")
    extra_levels: int = Field(default=1, ge=0, le=2, description="Levels coarser than p5, by subsampling.")


class MaskBranchConfig(Settings):
    """The branch that turns p2..p5 into the mask features (SOLOv2 paper, mask feature branch)."""

    mid_channels: int = Field(default=128, ge=1, multiple_of=NORM_GROUPS, description="Channels of its convolutions.")
    out_channels: int = Field(default=256, ge=1, multiple_of=NORM_GROUPS, description="Mask-feature channels E.")
    refinements: int = Field(
        default=0, ge=0, description="Residual blocks of two 3x3 convolutions over the sum of the levels; SOLOv2: none."
    )
    dcn: bool = Field(default=False, description="Its convolutions, the last 1x1 too, are deformable.")
    norm: HeadNorm = Field(default="gn", description="Group norm, batch norm, or batch norm over all devices.")


class GridHeadConfig(Settings):
    """The head that gives each cell category logits and a mask kernel (SOLOv2 paper, mask kernel branch).

    Lists have one entry per level.
    """

    grid_sizes: tuple[Positive, ...] = Field(
        default=(40, 36, 24, 16, 12),
        description="Cells per side S of each level's grid, finest first; empty: each level's map is its grid.",
    )
    separable: bool = Field(
        default=False, description="Each level has towers of its own, of 5x5 depthwise and 1x1 convolutions."
    )
    strides: tuple[int, ...] = Field(
        default=(8, 8, 16, 32, 32),
        min_length=1,
        description="Input pixels per cell of the map each grid is taken from; also the least mask area, in mask "
        "pixels, of a prediction.",
    )
    channels: int = Field(default=256, ge=1, multiple_of=NORM_GROUPS, description="Channels of the two towers.")
    depth: Positive = Field(default=4, description="3x3 convolutions in each tower.")
    kernel_channels: Positive = Field(default=256, description="Length E of a mask kernel.")
    drop_block: bool = Field(default=False, description="Drop 3x3 blocks of the towers' output while training.")
    dcn_stages: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(), description="Convolutions of each tower, from 0, that are deformable."
    )
    dcn_version: DcnVersion = Field(default=2, description="2: offsets and a factor per sample; 1: offsets only.")
    norm: HeadNorm = Field(default="gn", description="Group norm, batch norm, or batch norm over all devices.")

    @field_validator("strides")
    @classmethod
    def _strides_of_the_pyramid(cls, strides: tuple[int, ...]) -> tuple[int, ...]:
        if wrong := [stride for stride in strides if stride not in PYRAMID_STRIDES]:
            raise ValueError(f"strides must come from {list(PYRAMID_STRIDES)}, got {wrong}")
        return strides


class ModelConfig(Settings):
    """The network."""

    num_classes: Positive = Field(default=80, description="Categories C, without background.")
    backbone: BackboneConfig = Field(default=ResNetConfig(), description="Images to c2..c5.")
    fpn: FPNConfig = Field(default=FPNConfig(), description="c2..c5 to p2..p6.")
    mask_branch: MaskBranchConfig = Field(default=MaskBranchConfig(), description="p2..p5 to mask features.")
    grid_head: GridHeadConfig = Field(default=GridHeadConfig(), description="Pyramid to category logits and kernels.")
    position: Literal["absolute", "relative"] = Field(
        default="absolute",
        description="Masks know where they are by coordinates of the picture, or by an ellipse relative to their cell.",
    )


# ------------------------------------------------------------------------------- assign, loss, decode


class AssignConfig(Settings):
    """Which cells a ground-truth object trains (SOLO paper, label assignment; SOLOv2 keeps it)."""

    size_ranges: tuple[tuple[float, float], ...] = Field(
        default=((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048)),
        min_length=1,
        description="Per level the least and greatest square root of box area, inclusive, in pixels of the padded "
        "input; they overlap on purpose.",
    )
    center_scale: float = Field(default=0.2, gt=0, le=1, description="Centre region as a share of the box's sides.")

    @field_validator("size_ranges")
    @classmethod
    def _ordered(cls, ranges: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        if wrong := [list(pair) for pair in ranges if not 0 <= pair[0] <= pair[1]]:
            raise ValueError(f"each size range must be [least, greatest] with 0 <= least <= greatest, got {wrong}")
        return ranges


class LossConfig(Settings):
    """Focal loss on categories plus dice loss on masks (SOLOv2 paper, learning)."""

    mask_weight: float = Field(default=3.0, ge=0, description="Weight of the dice term; the focal term has 1.")
    focal_gamma: float = Field(default=2.0, ge=0, description="Focusing exponent.")
    focal_alpha: Share = Field(default=0.25, description="Weight of the positive class.")
    top_cells: int = Field(
        default=0, ge=0, description="Cells per instance whose masks are trained too: those that score best in its box."
    )


class DecodeConfig(Settings):
    """From predictions to instances (SOLOv2 paper, Matrix NMS)."""

    score_threshold: Share = Field(default=0.1, description="A cell's category score must be greater than this.")
    mask_threshold: Share = Field(default=0.5, description="A pixel's probability must be greater than this.")
    pre_nms_top_n: Positive = Field(default=500, description="Masks that enter Matrix NMS, best first.")
    post_nms_top_n: Positive = Field(default=100, description="Most instances kept per picture.")
    update_threshold: Share = Field(default=0.05, description="Least score after Matrix NMS, inclusive.")
    decay: Literal["gaussian", "linear"] = Field(default="gaussian", description="How overlap lowers a score.")
    sigma: float = Field(default=2.0, gt=0, description="Strength of the gaussian decay.")
    least_part: Share = Field(
        default=0.0, description="Connected parts of a mask below this share of its largest part's pixels are left out."
    )


# ---------------------------------------------------------------------------------------------- optim


class PiecewiseSchedule(Settings):
    """Constant learning rates that change at whole epochs."""

    kind: Literal["piecewise"] = Field(default="piecewise", description="Tells the schedules apart.")
    milestones: tuple[Positive, ...] = Field(default=(8, 11), description="Finished epochs at which the rate changes.")
    factors: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default=(0.1, 0.01), description="Multiples of base_lr from each milestone on (not of the rate before it)."
    )

    @model_validator(mode="after")
    def _one_factor_per_milestone(self) -> PiecewiseSchedule:
        if len(self.factors) != len(self.milestones):
            raise ValueError(
                f"{len(self.milestones)} milestones need as many factors, got {len(self.factors)}: {list(self.factors)}"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, got {list(self.milestones)}")
        return self


class CosineSchedule(Settings):
    """Half a cosine from base_lr, after the warm-up, to min_lr_ratio * base_lr."""

    kind: Literal["cosine"] = Field(default="cosine", description="Tells the schedules apart.")
    max_epochs: Positive = Field(description="Epochs until the lowest rate's plateau has ended.")
    min_lr_ratio: Share = Field(default=0.0, description="Lowest rate as a share of base_lr.")
    plateau_epochs: int = Field(default=0, ge=0, description="Last epochs, within max_epochs, at the lowest rate.")
    flat_epochs: int = Field(default=0, ge=0, description="First epochs, after the warm-up, at base_lr (flat-cosine).")

    @model_validator(mode="after")
    def _room_for_the_parts(self) -> CosineSchedule:
        if self.flat_epochs + self.plateau_epochs > self.max_epochs:
            raise ValueError(
                f"{self.flat_epochs} first epochs at base_lr and {self.plateau_epochs} last ones at the lowest rate "
                f"are more than max_epochs, {self.max_epochs}, which counts them: lower flat_epochs or "
                "last_plateau_epochs"
            )
        return self


ScheduleConfig = Annotated[PiecewiseSchedule | CosineSchedule, Field(discriminator="kind")]


class Warmup(Settings):
    """The first steps. linear: base_lr * (f + (1-f) t/n), f the start factor; exp: base_lr * (t/n)**power."""

    kind: Literal["linear", "exp"] = Field(default="linear", description="Which of the two.")
    steps: int = Field(default=500, ge=0, description="Optimizer steps n.")
    epochs: int | None = Field(default=None, ge=0, description="Length in epochs instead; wins over steps.")
    start_factor: Share = Field(default=1 / 3, description="Share of base_lr at step 0 (linear).")
    power: float = Field(default=2.0, gt=0, description="Exponent (exp).")

    def length(self, steps_per_epoch: int) -> int:
        """Optimizer steps, whichever way they are stated."""
        return self.steps if self.epochs is None else self.epochs * steps_per_epoch


class OptimConfig(Settings):
    """Optimizer, learning rate and gradient clipping."""

    kind: Literal["sgd", "adamw"] = Field(default="sgd", description="SGD with momentum, or AdamW.")
    base_lr: float = Field(default=0.01, gt=0, description="Learning rate for train.base_devices devices.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum (sgd).")
    weight_decay: float = Field(default=1e-4, ge=0, description="L2 factor (sgd) or decoupled decay (adamw).")
    stage_lr_multipliers: tuple[float, float, float, float] = Field(
        default=(1.0, 1.0, 1.0, 1.0), description="Learning-rate factor of the backbone's stages c2..c5."
    )
    uniform: bool = Field(
        default=False,
        description="One rate and one decay for every parameter, apart from the stages' factors; otherwise norms do "
        "not decay, nor do the biases of deformable convolutions in the heads, which learn twice as fast.",
    )
    clip_norm: float | None = Field(default=None, gt=0, description="Greatest global L2 norm of the gradients.")
    clip_value: float | None = Field(default=None, gt=0, description="Greatest magnitude of one gradient entry.")
    schedule: ScheduleConfig = Field(default=PiecewiseSchedule(), description="The rate after the warm-up.")
    warmup: Warmup | None = Field(default=Warmup(), description="The rate of the first steps.")


class TrainConfig(Settings):
    """The training run."""

    epochs: Positive = Field(default=12, description="Passes over the training pictures.")
    seed: int = Field(default=0, ge=0, description="Seed of weights, order and augmentation.")
    snapshot_epoch: Positive = Field(default=1, description="Epochs between two checkpoints.")
    checkpoint_minutes: float = Field(
        default=10.0, gt=0, description="Longest time without a checkpoint, minutes; epochs may take hours."
    )
    checkpoint_steps: int | None = Field(
        default=None, ge=1, description="Optimizer steps between two checkpoints; null goes by the clock alone."
    )
    accumulate: Positive = Field(default=1, description="Batches whose gradients are added up for one optimizer step.")
    log_every: Positive = Field(default=20, description="Steps between two log lines.")
    save_dir: str = Field(default="output", description="Folder under which runs are written.")
    run_name: str | None = Field(
        default=None, description="Name of the run's folder below save_dir; null takes the recipe's name."
    )
    init_weights: str | None = Field(default=None, description="Name, path or URL of weights to start training from.")
    freeze: tuple[str, ...] = Field(default=(), description="Parts of the network, by name, that are not trained.")
    weights: str | None = Field(default=None, description="Name, path or URL of weights to evaluate or predict with.")
    amp: bool = Field(default=False, description="Mixed precision.")
    amp_dtype: Literal["float16", "bfloat16", "auto"] = Field(
        default="auto", description="Its number format; auto takes bfloat16 where the device has it."
    )
    ema: bool = Field(default=False, description="Keep, save and evaluate an exponential moving average of weights.")
    ema_decay: Share = Field(default=0.9998, description="Share of the old average kept at each step.")
    ema_decay_type: Literal["threshold", "normal", "exponential"] = Field(
        default="threshold",
        description="Share at step k. threshold: min(decay, (1+k)/(10+k)); normal: decay; "
        "exponential: decay*(1-exp(-(k+1)/2000)).",
    )
    workers: int = Field(default=2, ge=0, description="Processes that read pictures.")
    base_devices: Positive = Field(
        default=8, description="Devices, each with the recipe's batch size, that base_lr is stated for."
    )


# ------------------------------------------------------------------------------------------------ root


class Config(Settings):
    """A resolved recipe."""

    name: str = Field(default="solov2", description="The recipe's file name without suffix; names the run's folder.")
    model: ModelConfig = Field(default=ModelConfig(), description="The network.")
    assign: AssignConfig = Field(default=AssignConfig(), description="Ground truth to cells.")
    loss: LossConfig = Field(default=LossConfig(), description="Training loss.")
    decode: DecodeConfig = Field(default=DecodeConfig(), description="Predictions to instances.")
    optim: OptimConfig = Field(default=OptimConfig(), description="Optimizer and learning rate.")
    train: TrainConfig = Field(default=TrainConfig(), description="The training run.")
    data: DataConfig = Field(default=DataConfig(), description="Pictures and their preparation.")
    metric: Literal["COCO"] = Field(default="COCO", description="COCO mask AP.")

    @model_validator(mode="after")
    def _no_conflicts(self) -> Config:
        if conflicts := find_conflicts(self):
            raise ConflictError(conflicts)
        return self
