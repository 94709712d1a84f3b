"""The message for each way of getting a recipe wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from solov2.config import load_config

Write = Callable[..., Path]
Problems = Callable[..., list[str]]
NORMALIZE = "{NormalizeImage: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], is_scale: true}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epohc: 3", "2: epohc: unknown key; did you mean epoch?"),
        ("qqqq: 3", "2: qqqq: unknown key"),
        ("SOLOv2Head:\n  num_grid: [1]", "3: SOLOv2Head.num_grid: unknown key; did you mean SOLOv2Head.num_grids?"),
        ("seg_feat_channels: 8", "2: seg_feat_channels: unknown key; did you mean SOLOv2Head.seg_feat_channels?"),
        ("resnet: {depth: 50}", "2: resnet: unknown key; did you mean ResNet?"),
        ("FPN: {zzz: 1}", "2: FPN.zzz: unknown key; known here are extra_stage, freeze_norm"),
        ("FPN: 3", "2: FPN: expected a mapping, got 3"),
        ("epoch: many", '2: epoch: expected a whole number, got "many"'),
        ("epoch: '12'", '2: epoch: expected a whole number, got "12"'),
        ("epoch: 12.5", "2: epoch: expected a whole number, got 12.5"),
        ("epoch: true", "2: epoch: expected a whole number, got true"),
        ("epoch:", "2: epoch: expected a whole number, got null"),
        ("epoch: 0", "2: epoch: expected a number greater than or equal to 1, got 0"),
        ("use_ema: 1", "2: use_ema: expected true or false, got 1"),
        ("save_dir: 5", "2: save_dir: expected text, got 5"),
        ("LearningRate: {base_lr: fast}", '2: LearningRate.base_lr: expected a number, got "fast"'),
        ("LearningRate: {base_lr: .inf}", "2: LearningRate.base_lr: expected a finite number"),
        ("ResNet: {depth: 51}", "2: ResNet.depth: expected one of 18, 34, 50, 101 or 152, got 51"),
        ("weights: [a, b]", '2: weights: expected text, got ["a", "b"]'),
        ("pretrain_weights: {a: b}", '2: pretrain_weights: expected text, got {"a": "b"}'),
        ("export: {post_proces: true}", "2: export.post_proces: unknown key; did you mean export.post_process?"),
        ("ResNet: {dcn_v2_stages: [1, 4]}", "2: ResNet.dcn_v2_stages[1]: expected a number less than or equal to 3"),
        ("ResNet: {dcn_version: 3}", "2: ResNet.dcn_version: expected one of 1 or 2, got 3"),
        ("ResNet: {norm_eval: 1}", "2: ResNet.norm_eval: expected true or false, got 1"),
        ("ResNet: {base_width: 0}", "2: ResNet.base_width: expected a number greater than or equal to 1, got 0"),
        ("SOLOv2Head: {dcn_version: 0}", "2: SOLOv2Head.dcn_version: expected one of 1 or 2, got 0"),
        ("SOLOv2Head: {norm_type: ln}", "2: SOLOv2Head.norm_type: expected one of 'gn', 'bn' or 'sync_bn'"),
        ("SOLOv2MaskHead: {norm_type: 1}", "2: SOLOv2MaskHead.norm_type: expected one of 'gn', 'bn' or 'sync_bn'"),
        ("SOLOv2MaskHead: {use_dcn_in_tower: [0]}", "2: SOLOv2MaskHead.use_dcn_in_tower: expected true or false"),
        ("OptimizerBuilder: {uniform: 1}", "2: OptimizerBuilder.uniform: expected true or false, got 1"),
        ("norm_type: gn", '2: norm_type: "gn" would also be the backbone\'s, which has batch norms: state ResNet.norm'),
        ("ResNet: {freeze_at: 4}", "2: ResNet.freeze_at: expected a number less than or equal to 3, got 4"),
        ("ResNet: {lr_mult_list: [1, 1, 1]}", "2: ResNet.lr_mult_list[3]: is required"),
        ("SOLOv2Head: {num_grids: 40}", "2: SOLOv2Head.num_grids: expected a list, got 40"),
        (
            "SOLOv2Head:\n  num_grids: [40, x, 24, 16, 12]",
            '3: SOLOv2Head.num_grids[1]: expected a whole number, got "x"',
        ),
        ("SOLOv2Head: {segm_strides: [8, 8, 16, 32, 33]}", "2: SOLOv2Head.segm_strides: strides must come from"),
        ("SOLOv2MaskHead: {mid_channels: 65}", "2: SOLOv2MaskHead.mid_channels: expected a multiple of 32, got 65"),
        (
            "ShuffleNetV2: {width: 1.5}\nSOLOv2: {backbone: ShuffleNetV2}",
            "2: ShuffleNetV2.width: expected a number less",
        ),
        ("OptimizerBuilder: {optimizer: {type: AdamW}}", "2: OptimizerBuilder.optimizer.type: AdamW needs"),
        (
            "OptimizerBuilder: {optimizer: {weight_decay: 1.0}}",
            "2: OptimizerBuilder.optimizer.weight_decay: belongs to AdamW",
        ),
        ("OptimizerBuilder: {regularizer: L2}", "2: OptimizerBuilder.regularizer: expected a mapping"),
    ],
)
def test_one_problem(problems: Problems, text: str, message: str) -> None:
    start = f"recipe.yml:{message}"
    [line] = problems(text)
    assert line[: len(start)] == start


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("architecture", "MaskRCNN", "SOLOv2 only"),
        ("metric", "VOC", "use COCO"),
        ("norm_type", "ln", "use bn or sync_bn or gn"),
        ("cycle_epoch", "40", "use -1"),
        ("amp_level", "O2", "use O1"),
        ("SOLOv2.backbone", "SwinTransformer", "ResNet or ShuffleNetV2"),
        ("SOLOv2.neck", "BiFPN", "use FPN"),
        ("ema_start_iters", "2000", "use 0"),
        ("ema_black_list", "[mask_head]", "every tensor"),
        ("slim", "Distill", "distilling"),
        ("unstructured_prune", "true", "pruning"),
        ("QAT", "{quant_config: {}}", "quantising"),
        ("ResNet.std_senet", "true", "squeeze-and-excitation"),
        ("ResNet.norm_type", "gn", "bn or sync_bn"),
        ("ResNet.return_idx", "[1, 2, 3]", "all four stages"),
        ("FPN.norm_type", "bn", "use null"),
        ("FPN.has_extra_convs", "true", "use false"),
        ("SOLOv2MaskHead.end_level", "2", "use 3"),
        ("SOLOv2Head.mask_nms", "MultiClassNMS", "use MaskMatrixNMS"),
        ("SOLOv2Head.mask_nms", "{name: MultiClassNMS}", "use MaskMatrixNMS"),
        ("SOLOv2Head.solov2_loss", "DiceLoss", "use SOLOv2Loss"),
        ("OptimizerBuilder.optimizer.type", "Adam", "SGD or Momentum or AdamW"),
        ("OptimizerBuilder.regularizer.type", "L1", "use L2"),
        ("TrainDataset.name", "VOCDataSet", "use COCODataSet"),
        ("TrainDataset.name", "ImageFolder", "use COCODataSet"),
        ("TestDataset.name", "VOCDataSet", "COCODataSet or ImageFolder"),
        ("TrainDataset.load_crowd", "true", "use false"),
        ("TrainReader.mixup_epoch", "30", "use -1"),
        ("OptimizerBuilder.optimizer.param_groups", "[{params: [backbone]}]", "lr_mult_list"),
    ],
)
def test_known_but_unsupported(problems: Problems, key: str, value: str, remedy: str) -> None:
    [line] = problems("", f"{key}={value}")
    assert line.startswith(f"-o: {key}: ")
    assert "is not supported" in line
    assert remedy in line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ResNet.dcn_v2_stages", "[-1]"),
        ("ResNet.dcn_v2_stages", "[]"),
        ("ResNet.dcn_v2_stages", "-1"),
        ("ResNet.dcn_version", "2"),
        ("SOLOv2Head.dcn_v2_stages", "[]"),
        ("SOLOv2Head.dcn_v2_stages", "[-1]"),
        ("SOLOv2Head.norm_type", "gn"),
        ("SOLOv2MaskHead.norm_type", "gn"),
        ("ema_start_iters", "0"),
        ("slim", "null"),
        ("norm_type", "null"),
        ("pretrain_weights", "''"),
        ("weights", ""),
        ("TrainReader.mosaic_epoch", "-1"),
        ("EvalReader.fuse_normalize", "true"),
        ("TestDataset.keep_ori_im", "false"),
        ("SOLOv2MaskHead.use_dcn_in_tower", "false"),
        ("ResNet.groups", "1"),
        ("cycle_epoch", "-1"),
        ("FPN.norm_type", "null"),
        ("FPN.in_channels", "[256, 512, 1024, 2048]"),
        ("ResNet.return_idx", "[0, 1, 2, 3]"),
        ("SOLOv2Head.in_channels", "256"),
        ("TrainDataset.empty_ratio", "1"),
        ("TestDataset.image_dir", "null"),
        ("SOLOv2Loss", "null"),
    ],
)
def test_the_supported_value_is_accepted(write: Write, key: str, value: str) -> None:
    config = load_config(write(), [f"{key}={value}"])
    assert config == load_config(write())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "SOLOv2Head: {num_grids: [40, 36, 24, 16, 12]}\n"
            "TrainReader: {batch_transforms: [Gt2Solov2Target: {num_grids: [40, 36, 24, 16, 10]}]}",
            "recipe.yml:3: TrainReader.batch_transforms[0].Gt2Solov2Target.num_grids: [40, 36, 24, 16, 10] here, but "
            "SOLOv2Head.num_grids (recipe.yml:2) says [40, 36, 24, 16, 12]: make them agree",
        ),
        (
            "SOLOv2Head: {num_grids: native}\n"
            "TrainReader: {batch_transforms: [Gt2Solov2Target: {num_grids: [40, 36, 24, 16, 10]}]}",
            "recipe.yml:3: TrainReader.batch_transforms[0].Gt2Solov2Target.num_grids: [40, 36, 24, 16, 10] here, but "
            'SOLOv2Head.num_grids (recipe.yml:2) says "native": make them agree',
        ),
        (
            "SOLOv2Head: {num_grids: [40, 36, 24, 16, 12]}\n"
            "TrainReader: {batch_transforms: [Gt2Solov2Target: {num_grids: native}]}",
            'recipe.yml:3: TrainReader.batch_transforms[0].Gt2Solov2Target.num_grids: "native" here, but '
            "SOLOv2Head.num_grids (recipe.yml:2) says [40, 36, 24, 16, 12]: make them agree",
        ),
        (
            "SOLOv2Head:\n  num_grids: native\n  segm_strides: [8, 16, 32, 64, 64]\nFPN: {extra_stage: 0}",
            "recipe.yml:3, recipe.yml:4, recipe.yml:5: SOLOv2Head.num_grids, SOLOv2Head.segm_strides, "
            "FPN.extra_stage: the grids are to be the pyramid's own maps, but none has stride 64: the coarsest has 32",
        ),
        (
            "SOLOv2Head: {separable: true}",
            "recipe.yml:2: SOLOv2Head.separable: separable towers read the pyramid's own maps: set num_grids to native",
        ),
        (
            "SOLOv2: {neck: GhostPAN}\nGhostPAN: {out_channel: 97}",
            "recipe.yml:3: GhostPAN.out_channel: half of a ghost module's channels are made of the other half: 97 is "
            "odd, use an even number",
        ),
        (
            f"TrainReader: {{sample_transforms: [{NORMALIZE}]}}\n"
            "TestReader: {sample_transforms: [NormalizeImage: {std: [1, 1, 1]}]}",
            "recipe.yml:3: TestReader.sample_transforms[0].NormalizeImage.std: [1, 1, 1] here, but "
            "TrainReader.sample_transforms[0].NormalizeImage.std (recipe.yml:2) says [0.229, 0.224, 0.225]: "
            "make them agree",
        ),
        (
            "FPN: {out_channel: 96}\nSOLOv2Head: {in_channels: 256}",
            "recipe.yml:3: SOLOv2Head.in_channels: 256 here, but FPN.out_channel (recipe.yml:2) says 96: "
            "make them agree",
        ),
        (
            "SOLOv2Head:\n  kernel_out_channels: 128",
            "recipe.yml:3: SOLOv2Head.kernel_out_channels: mask kernels have 128 channels and mask features 256: "
            "a kernel is applied to the features, make them equal",
        ),
        (
            "FPN: {extra_stage: 0}",
            "recipe.yml:2: FPN.extra_stage: 5 grids need as many pyramid levels, but there are 4: 4 of the backbone "
            "and 0 extra",
        ),
        (
            "ResNet:\n  depth: 18\n  groups: 64",
            "recipe.yml:3, recipe.yml:4: ResNet.depth, ResNet.groups: groups 64 of 64 channels need bottlenecks, "
            "which a ResNet of depth 18 does not have: use 50 or more",
        ),
        (
            "SOLOv2Head: {stacked_convs: 3, dcn_v2_stages: [2, 3]}",
            "recipe.yml:2: SOLOv2Head.dcn_v2_stages, SOLOv2Head.stacked_convs: the towers have convolutions 0 to 2, "
            "but 3 is to be deformable: name those there are",
        ),
        (
            "SOLOv2Head:\n  num_grids: [40, 36]\n  segm_strides: [8, 8, 16]",
            "recipe.yml:3, recipe.yml:4: SOLOv2Head.num_grids, SOLOv2Head.segm_strides: each level needs one grid, "
            "one stride and one size range, but there are 2 grids, 3 strides and 5 size ranges",
        ),
        (
            "ResNet: {norm_eval: true}",
            "recipe.yml:2: ResNet.norm_eval: norm_eval trains the norms' scale and shift, which freeze_norm: true (the "
            "default) keeps: state freeze_norm: false, or leave norm_eval out",
        ),
        (
            "ResNet:\n  norm_eval: true\n  freeze_norm: false\n  norm_type: sync_bn",
            "recipe.yml:3, recipe.yml:5: ResNet.norm_eval, ResNet.norm_type: norm_eval keeps the stored statistics, so "
            "that there are none for the devices to share: state ResNet.norm_type: bn, or leave norm_eval out",
        ),
        (
            "norm_type: sync_bn\nResNet: {norm_eval: true, freeze_norm: false}",
            "recipe.yml:3, recipe.yml:2: ResNet.norm_eval, norm_type: norm_eval keeps the stored statistics, so "
            "that there are none for the devices to share: state ResNet.norm_type: bn, or leave norm_eval out",
        ),
        (
            "OptimizerBuilder: {clip_grad_by_norm: 35, clip_grad_by_value: 1.5}",
            "recipe.yml:2: OptimizerBuilder.clip_grad_by_norm, OptimizerBuilder.clip_grad_by_value: gradients are "
            "clipped by their norm (35) or by value (1.5), not both: set one of them to null",
        ),
    ],
)
def test_settings_that_contradict_each_other(problems: Problems, text: str, message: str) -> None:
    assert problems(text) == [message]


def test_every_kind_of_problem_in_one_report(problems: Problems) -> None:
    text = (
        "epoch: 1\nepoch: 2\nnonsense_key: 1\nmetric: VOC\nnum_classes: many\n"
        "SOLOv2Head: {kernel_out_channels: 128}\na_tag: !Callable {}\nMaskMatrixNMS: {sigma: -1}"
    )
    report = "\n".join(problems(text))
    for part in (
        "recipe.yml:3: epoch is written twice",
        "recipe.yml:4: nonsense_key: unknown key",
        'recipe.yml:5: metric: "VOC" is not supported',
        "recipe.yml:6: num_classes: expected a whole number",
        "recipe.yml:7: SOLOv2Head.kernel_out_channels: mask kernels have 128 channels",
        "recipe.yml:8: unknown tag !Callable",
        "recipe.yml:9: MaskMatrixNMS.sigma: expected a number greater than 0, got -1",
    ):
        assert part in report


def test_a_refused_value_causes_no_false_conflict(problems: Problems) -> None:
    lines = problems("SOLOv2Head: {num_grids: [40, 24, x], segm_strides: [8, 16, 32]}")
    assert lines == ['recipe.yml:2: SOLOv2Head.num_grids[2]: expected a whole number, got "x"']


def test_native_grids_are_stated_twice(write: Write) -> None:
    twice = "SOLOv2Head: {num_grids: native}\nTrainReader: {batch_transforms: [Gt2Solov2Target: {num_grids: native}]}"
    assert load_config(write(twice)).model.grid_head.grid_sizes == ()


def test_only_the_chosen_neck_counts(write: Write, problems: Problems) -> None:
    both = "FPN: {out_channel: 128, extra_stage: 0}\nGhostPAN: {out_channel: 96}"
    assert load_config(write(f"{both}\nSOLOv2: {{neck: GhostPAN}}")).model.fpn.channels == 96
    few = "SOLOv2Head: {num_grids: [40, 24, 16, 12], segm_strides: [8, 8, 16, 32]}\nTrainReader: {batch_transforms: "
    few += "[Gt2Solov2Target: {scale_ranges: [[1, 64], [32, 128], [64, 256], [128, 2048]]}]}"
    fpn = load_config(write(f"{both}\n{few}")).model.fpn
    assert (fpn.kind, fpn.channels, fpn.extra_levels) == ("fpn", 128, 0)
    [line] = problems("SOLOv2: {neck: GhostPAN}\nFPN: {out_chanel: 18}")
    assert line == "recipe.yml:3: FPN.out_chanel: unknown key; did you mean FPN.out_channel?"


def test_the_unused_backbone_must_still_be_spelled_right(problems: Problems) -> None:
    [line] = problems("SOLOv2: {backbone: ShuffleNetV2}\nResNet: {dept: 18}")
    assert line == "recipe.yml:3: ResNet.dept: unknown key; did you mean ResNet.depth?"
