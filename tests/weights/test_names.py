import pytest

from solov2.weights.names import TABLES, Framework, Layout, foreign_names
from tests.weights.foreign_files import recipe_shapes

BLOCK = "backbone.stages.2.3.conv2"
PLAIN = Layout(blocks=(3, 4, 6, 3))
LONG = Layout(blocks=(3, 4, 23, 3), deep_stem=True, deformable=frozenset({BLOCK, "mask_branch.output"}))
GROUPED = Layout(blocks=(3, 4, 23, 3), grouped=True, deformable=frozenset({"grid_head.kernel_tower.1"}))
MASK = "mask_branch.levels.3.2.conv.weight"
PADDLE_MASK = "mask_head.conv_pre_feat3.mask_feat_head.convs_all_levels.3.conv2"


@pytest.mark.parametrize(
    ("framework", "layout", "ours", "theirs"),
    [
        ("solov2", PLAIN, "anything.at.all", ("anything.at.all",)),
        (
            "paddledetection",
            PLAIN,
            "backbone.stem.0.norm.running_var",
            ("backbone.conv1.conv1.norm._variance", "backbone.conv1.res_conv1.norm._variance"),
        ),
        (
            "paddledetection",
            GROUPED,
            "backbone.stem.0.conv.weight",
            ("backbone.conv1.res_conv1.conv.weight", "backbone.conv1.conv1.conv.weight"),
        ),
        ("paddledetection", LONG, "backbone.stem.2.norm.running_mean", ("backbone.conv1.conv1_3.norm._mean",)),
        ("paddledetection", PLAIN, f"{BLOCK}.conv.weight", ("backbone.res4.res4d.branch2b.conv.weight",)),
        ("paddledetection", LONG, f"{BLOCK}.conv.weight", ("backbone.res4.res4b3.branch2b.conv.weight",)),
        ("paddledetection", LONG, f"{BLOCK}.conv.offset.bias", ("backbone.res4.res4b3.branch2b.conv_offset.bias",)),
        ("paddledetection", LONG, "backbone.stages.2.0.conv1.norm.bias", ("backbone.res4.res4a.branch2a.norm.bias",)),
        ("paddledetection", LONG, "backbone.stages.3.2.conv3.norm.bias", ("backbone.res5.res5c.branch2c.norm.bias",)),
        (
            "paddledetection",
            LONG,
            "backbone.stages.1.0.shortcut.1.conv.weight",
            ("backbone.res3.res3a.short.conv.conv.weight", "backbone.res3.res3a.short.conv.weight"),
        ),
        (
            "paddledetection",
            LONG,
            "backbone.stages.0.0.shortcut.1.norm.weight",
            ("backbone.res2.res2a.short.norm.weight", "backbone.res2.res2a.short.conv.norm.weight"),
        ),
        ("paddledetection", PLAIN, "fpn.laterals.0.bias", ("neck.fpn_inner_res2_sum_lateral.bias",)),
        ("paddledetection", PLAIN, "fpn.laterals.3.weight", ("neck.fpn_inner_res5_sum.weight",)),
        ("paddledetection", PLAIN, "fpn.outputs.3.weight", ("neck.fpn_res5_sum.weight",)),
        ("paddledetection", PLAIN, MASK, (f"{PADDLE_MASK}.conv.weight",)),
        (
            "paddledetection",
            LONG,
            "mask_branch.output.conv.bias",
            ("mask_head.mask_feat_head.conv_pred.0.conv.conv_dcn.bias", "mask_head.conv_pred.conv.conv_dcn.bias"),
        ),
        (
            "paddledetection",
            PLAIN,
            "grid_head.category_output.bias",
            ("solov2_head.bbox_head.solo_cate.bias", "solov2_head.solo_cate.bias"),
        ),
        (
            "paddledetection",
            GROUPED,
            "grid_head.kernel_tower.1.conv.offset.weight",
            ("solov2_head.bbox_head.kernel_convs.1.conv.conv_offset.weight",),
        ),
        (
            "paddledetection",
            GROUPED,
            "grid_head.category_tower.1.conv.weight",
            ("solov2_head.bbox_head.cate_convs.1.conv.weight",),
        ),
        ("paddleclas", PLAIN, "backbone.stem.0.norm.running_mean", ("backbone.stem.0.bn._mean",)),
        ("paddleclas", PLAIN, f"{BLOCK}.conv.weight", ("backbone.blocks.10.conv1.conv.weight",)),
        ("paddleclas", PLAIN, "backbone.stages.1.0.shortcut.1.norm.bias", ("backbone.blocks.3.short.bn.bias",)),
        ("paddleclas", PLAIN, MASK, ()),
        ("torchvision", PLAIN, "backbone.stem.0.norm.running_mean", ("backbone.bn1.running_mean",)),
        ("torchvision", LONG, "backbone.stem.1.conv.weight", ()),
        ("torchvision", PLAIN, f"{BLOCK}.norm.weight", ("backbone.layer3.3.bn2.weight",)),
        ("torchvision", PLAIN, MASK, ()),
        ("solo", PLAIN, "backbone.stem.0.conv.weight", ("backbone.conv1.weight",)),
        (
            "solo",
            LONG,
            f"{BLOCK}.conv.offset.weight",
            ("backbone.layer3.3.conv2.conv_offset.weight", "backbone.layer3.3.conv2_offset.weight"),
        ),
        ("solo", PLAIN, "backbone.stages.3.0.shortcut.1.conv.weight", ("backbone.layer4.0.downsample.0.weight",)),
        ("solo", PLAIN, "backbone.stages.3.0.shortcut.1.norm.bias", ("backbone.layer4.0.downsample.1.bias",)),
        ("solo", PLAIN, "fpn.laterals.2.bias", ("neck.lateral_convs.2.conv.bias",)),
        ("solo", PLAIN, "fpn.outputs.0.weight", ("neck.fpn_convs.0.conv.weight",)),
        ("solo", PLAIN, MASK, ("mask_feat_head.convs_all_levels.3.conv2.conv.weight",)),
        ("solo", PLAIN, "mask_branch.output.norm.bias", ("mask_feat_head.conv_pred.0.gn.bias",)),
        ("solo", LONG, "mask_branch.output.conv.bias", ()),
        ("solo", PLAIN, "grid_head.kernel_output.weight", ("bbox_head.solo_kernel.weight",)),
        ("solo", PLAIN, "grid_head.category_tower.3.norm.weight", ("bbox_head.cate_convs.3.gn.weight",)),
        (
            "solo",
            GROUPED,
            "grid_head.kernel_tower.1.conv.offset.bias",
            ("bbox_head.kernel_convs.1.conv.conv_offset.bias", "bbox_head.kernel_convs.1.conv_offset.bias"),
        ),
        ("mmdetection", PLAIN, MASK, ("mask_head.mask_feature_head.convs_all_levels.3.conv2.conv.weight",)),
        ("mmdetection", PLAIN, "mask_branch.output.norm.bias", ("mask_head.mask_feature_head.conv_pred.gn.bias",)),
        ("mmdetection", PLAIN, "grid_head.kernel_output.weight", ("mask_head.conv_kernel.weight",)),
        ("mmdetection", PLAIN, "grid_head.category_output.bias", ("mask_head.conv_cls.bias",)),
        ("mmdetection", PLAIN, "grid_head.category_tower.0.conv.weight", ("mask_head.cls_convs.0.conv.weight",)),
        ("mmdetection", PLAIN, "grid_head.kernel_tower.2.norm.weight", ("mask_head.kernel_convs.2.gn.weight",)),
        ("mmdetection", PLAIN, "fpn.outputs.1.bias", ("neck.fpn_convs.1.conv.bias",)),
        ("detectron2", PLAIN, "backbone.stem.0.conv.weight", ("backbone.bottom_up.stem.conv1.weight",)),
        ("detectron2", PLAIN, "backbone.stem.0.norm.running_var", ("backbone.bottom_up.stem.conv1.norm.running_var",)),
        ("detectron2", PLAIN, f"{BLOCK}.norm.bias", ("backbone.bottom_up.res4.3.conv2.norm.bias",)),
        ("detectron2", LONG, f"{BLOCK}.conv.offset.bias", ("backbone.bottom_up.res4.3.conv2_offset.bias",)),
        (
            "detectron2",
            PLAIN,
            "backbone.stages.0.0.shortcut.1.conv.weight",
            ("backbone.bottom_up.res2.0.shortcut.weight",),
        ),
        ("detectron2", PLAIN, "fpn.laterals.3.weight", ("backbone.fpn_lateral5.weight",)),
        ("detectron2", PLAIN, "fpn.outputs.0.bias", ("backbone.fpn_output2.bias",)),
        ("detectron2", PLAIN, MASK, ("mask_head.convs_all_levels.3.conv2.0.weight",)),
        ("detectron2", PLAIN, "mask_branch.output.norm.weight", ("mask_head.conv_pred.1.weight",)),
        ("detectron2", PLAIN, "grid_head.kernel_tower.2.conv.weight", ("ins_head.kernel_tower.6.weight",)),
        ("detectron2", PLAIN, "grid_head.category_tower.3.norm.bias", ("ins_head.cate_tower.10.bias",)),
        ("detectron2", PLAIN, "grid_head.category_output.bias", ("ins_head.cate_pred.bias",)),
        ("detectron2", LONG, "mask_branch.output.conv.weight", ()),  # no deformable ones there
        ("solo", PLAIN, "backbone.stages.0.0.branch1.0.conv.weight", ()),  # another backbone
        ("paddledetection", PLAIN, "backbone.stem.norm.weight", ()),
        ("paddledetection", PLAIN, "something", ()),
    ],
)
def test_names(framework: Framework, layout: Layout, ours: str, theirs: tuple[str, ...]) -> None:
    assert foreign_names(ours, framework, layout) == theirs


@pytest.mark.parametrize("framework", TABLES)
@pytest.mark.parametrize("recipe", ["solov2_x101_dcn_fpn_8gpu_3x", "solov2_light_448_r18_fpn_8gpu_3x"])
def test_no_two_tensors_share_a_name(framework: Framework, recipe: str) -> None:
    shapes = recipe_shapes(recipe)
    layout = Layout.of(shapes)
    theirs = [name for ours in shapes for name in foreign_names(ours, framework, layout)]
    assert len(set(theirs)) == len(theirs)


@pytest.mark.parametrize(
    ("recipe", "blocks", "deep_stem", "grouped", "deformable"),
    [
        ("solov2_r101_vd_fpn_3x_coco", (3, 4, 23, 3), True, False, 30 + 8 + 8),
        ("solov2_x101_dcn_fpn_8gpu_3x", (3, 4, 23, 3), False, True, 30 + 8 + 8),
        ("solov2_light_512_dcn_r50_fpn_8gpu_3x", (3, 4, 6, 3), False, False, 13 + 2),
        ("solov2_light_448_r18_fpn_8gpu_3x", (2, 2, 2, 2), False, False, 0),
    ],
)
def test_layout(recipe: str, blocks: tuple[int, ...], deep_stem: bool, grouped: bool, deformable: int) -> None:
    layout = Layout.of(recipe_shapes(recipe))
    assert (layout.blocks, layout.deep_stem, layout.grouped) == (blocks, deep_stem, grouped)
    assert len(layout.deformable) == deformable


def test_layout_of_nothing() -> None:
    assert Layout.of({}) == Layout()
