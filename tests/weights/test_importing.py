from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from solov2.errors import WeightsError
from solov2.weights.exporting import foreign_state
from solov2.weights.foreign import ForeignWeights
from solov2.weights.importing import (
    IS_COUNTER,
    NOT_THERE,
    OTHER_CLASSES,
    Comparison,
    as_numbers,
    compare,
    difference,
    import_pretrained,
    import_state,
)
from solov2.weights.names import Framework
from solov2.weights.stem import STEM
from tests.weights.foreign_files import OUR_HEAD, PADDLE_HEAD, listed, numbered, recipe_shapes, tensors

FILE = Path("model.pth")
WHOLE: list[tuple[str, Framework, str, int, int]] = [
    # list, framework, recipe, counters and copies, biases that the deformable convolutions lack there
    ("authors_x101_dcn", "solo", "solov2_x101_dcn_fpn_8gpu_3x", 104, 16),
    ("authors_r50", "solo", "solov2_r50_fpn_8gpu_1x", 53, 0),
    ("authors_light_512_dcn_r50", "solo", "solov2_light_512_dcn_r50_fpn_8gpu_3x", 53, 2),
    ("authors_light_448_r18", "solo", "solov2_light_448_r18_fpn_8gpu_3x", 20, 0),
    ("authors_light_448_r34", "solo", "solov2_light_448_r34_fpn_8gpu_3x", 36, 0),
    ("mmdetection_r50", "mmdetection", "solov2_r50_fpn_8gpu_3x", 53, 0),
    ("adelaidet_r50", "detectron2", "adelaidet_R50_3x", 0, 0),
    ("adelaidet_r101", "detectron2", "adelaidet_R101_3x", 0, 0),
    ("paddledetection_r50", "paddledetection", "solov2_r50_fpn_1x_coco", 7, 0),
    ("paddledetection_r50_enhance", "paddledetection", "solov2_r50_enhance_coco", 10, 0),
    ("paddledetection_r101_vd", "paddledetection", "solov2_r101_vd_fpn_3x_coco", 10, 0),
]


def foreign(framework: Framework, given: dict[str, Tensor], **more: bool) -> ForeignWeights:
    return ForeignWeights(framework, given, FILE, **more)


def without_copies(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Equal numbers for the names of PaddleDetection that are one tensor."""
    if not any(name.startswith("solov2_head.") for name in given):
        return given
    pairs = {
        "solov2_head.solo_": "solov2_head.bbox_head.solo_",
        "mask_head.conv_pred.": "mask_head.mask_feat_head.conv_pred.0.",
    }
    return {
        name: next(
            (given[f"{first}{name.removeprefix(copy)}"] for copy, first in pairs.items() if name.startswith(copy)),
            tensor,
        )
        for name, tensor in given.items()
    }


@pytest.mark.parametrize(("names", "framework", "recipe", "dropped", "filled"), WHOLE, ids=[row[0] for row in WHOLE])
def test_published_weights_come_in_whole(
    names: str, framework: Framework, recipe: str, dropped: int, filled: int
) -> None:
    theirs, ours = listed(names), recipe_shapes(recipe)
    given = without_copies(numbered(theirs))
    imported = import_state(ours, foreign(framework, given))
    assert {name: tuple(tensor.shape) for name, tensor in imported.state.items()} == ours
    assert (len(imported.dropped), len(imported.filled)) == (dropped, filled)
    assert all(name.endswith(".conv.bias") for name in imported.filled)
    # Every tensor of the file that was not dropped is in exactly one place.
    values = [float(tensor.flatten()[0]) for name, tensor in imported.state.items() if name not in imported.filled]
    assert sorted(values) == sorted(float(given[name].flatten()[0]) for name in theirs if name not in imported.dropped)


@pytest.mark.parametrize(("names", "framework", "recipe", "dropped", "filled"), WHOLE, ids=[row[0] for row in WHOLE])
def test_what_is_exported_has_the_published_names(
    names: str, framework: Framework, recipe: str, dropped: int, filled: int
) -> None:
    ours = recipe_shapes(recipe)
    state = {
        name: torch.zeros(()).expand(shape) if name.endswith(".conv.bias") else tensor
        for (name, shape), tensor in zip(ours.items(), numbered(ours).values(), strict=True)
    }
    exported = foreign_state(state, framework)
    published = {name: shape for name, shape in listed(names).items() if not name.endswith("num_batches_tracked")}
    assert {name: tuple(tensor.shape) for name, tensor in exported.items()} == published
    back = import_state(ours, foreign(framework, exported)).state
    assert all(torch.equal(back[name], state[name]) for name in ours)


@pytest.mark.parametrize("names", ["mmdetection_light_dcn_r50"])
def test_a_head_with_deformable_convolutions_of_version_2(names: str) -> None:
    theirs = listed(names)
    ours = {
        name: (shape[0] // 2 * 3, *shape[1:]) if ".offset." in name else shape
        for name, shape in recipe_shapes("solov2_light_512_dcn_r50_fpn_8gpu_3x").items()
    }
    imported = import_state(ours, foreign("mmdetection", numbered(theirs)))
    assert imported.state.keys() == ours.keys()
    assert set(imported.filled) == {"grid_head.kernel_tower.2.conv.bias", "grid_head.category_tower.2.conv.bias"}
    assert Counter(imported.dropped.values()) == {IS_COUNTER: 53}


def test_version_1_is_not_taken_for_version_2() -> None:
    given = numbered(listed("mmdetection_light_dcn_r50"))
    with pytest.raises(WeightsError, match=r"30 of another shape \(backbone\.stages\.1\.0\.conv2\.conv\.offset\.bias"):
        import_state(recipe_shapes("solov2_light_512_dcn_r50_fpn_8gpu_3x"), foreign("mmdetection", given))


@pytest.mark.parametrize(
    ("published", "old"), [("conv2.conv_offset.", "conv2_offset."), ("conv.conv_offset.", "conv_offset.")]
)
def test_the_old_spelling_of_offsets(published: str, old: str) -> None:
    theirs = {name.replace(published, old): shape for name, shape in listed("authors_light_512_dcn_r50").items()}
    assert theirs != listed("authors_light_512_dcn_r50")
    ours = recipe_shapes("solov2_light_512_dcn_r50_fpn_8gpu_3x")
    assert import_state(ours, foreign("solo", numbered(theirs))).state.keys() == ours.keys()


class TestStem:
    mean = torch.tensor([123.675, 116.28, 103.53]).reshape(1, 3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).reshape(1, 3, 1, 1)
    name = "backbone.bottom_up.stem.conv1.weight"

    def images(self) -> Tensor:
        return torch.randint(0, 256, (2, 3, 40, 56), generator=torch.Generator().manual_seed(1)).float()

    def normalised(self) -> Tensor:
        return F.pad((self.images() - self.mean) / self.std, (0, 8, 0, 24))  # padded after normalisation

    def their_input(self) -> Tensor:
        return F.pad((self.images() - self.mean).flip(1), (0, 8, 0, 24))  # BGR - mean, then padded

    def weight(self) -> Tensor:
        return torch.randn((64, 3, 7, 7), generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def test_the_same_function_of_a_picture(self) -> None:
        imported = import_state({STEM: (64, 3, 7, 7)}, foreign("detectron2", {self.name: self.weight()}, bgr=True))
        ours = F.conv2d(self.normalised().double(), imported.state[STEM].double(), stride=2, padding=3)
        theirs = F.conv2d(self.their_input().double(), self.weight(), stride=2, padding=3)
        assert theirs.abs().max() > 1000
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=theirs.abs().max().item() * 1e-6)

    def test_exported_it_is_theirs_again(self) -> None:
        ours = self.weight().float()
        exported = foreign_state({STEM: ours}, "detectron2")
        out = F.conv2d(self.their_input(), exported[self.name], stride=2, padding=3)
        expected = F.conv2d(self.normalised(), ours, stride=2, padding=3)
        assert torch.allclose(out, expected, rtol=1e-4, atol=expected.abs().max().item() * 1e-5)
        back = import_state({STEM: (64, 3, 7, 7)}, foreign("detectron2", exported, bgr=True)).state[STEM]
        assert torch.allclose(back, ours, rtol=1e-6)

    def test_rgb_stays(self) -> None:
        weight = self.weight().float()
        imported = import_state({STEM: (64, 3, 7, 7)}, foreign("detectron2", {self.name: weight}, bgr=False))
        assert torch.equal(imported.state[STEM], weight)


def head(**changes: Tensor | None) -> dict[str, Tensor]:
    given = {**tensors(PADDLE_HEAD), **changes}
    return {name.replace("__", "."): tensor for name, tensor in given.items() if tensor is not None}


WEIGHT, BIAS = PADDLE_HEAD
COPY = "solov2_head.solo_cate.bias"


def test_copies_are_dropped_with_their_reason() -> None:
    given = head()
    given[COPY] = given[BIAS].clone()
    imported = import_state(OUR_HEAD, foreign("paddledetection", given))
    assert imported.dropped == {COPY: f"the same as {BIAS}"}
    assert torch.equal(imported.state["grid_head.category_output.weight"], given[WEIGHT])


def test_copies_that_differ() -> None:
    given = head()
    given[COPY] = given[BIAS] + 1e-6
    with pytest.raises(WeightsError, match=f"^model.pth: {COPY} differs from {BIAS}; expected the same tensor twice"):
        import_state(OUR_HEAD, foreign("paddledetection", given))


def test_a_copy_alone_is_enough() -> None:
    given = head()
    given[COPY] = given.pop(BIAS)
    assert import_state(OUR_HEAD, foreign("paddledetection", given)).dropped == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({WEIGHT: None}, "1 missing from it (grid_head.category_output.weight)"),
        ({"neck.more.weight": torch.ones(1)}, "1 unknown to the model (neck.more.weight)"),
        (
            {WEIGHT: torch.ones(3, 5, 3, 3)},
            "1 of another shape (grid_head.category_output.weight (3, 5, 3, 3) instead of (3, 4, 3, 3))",
        ),
        (
            {f"more.{number}": torch.ones(1) for number in range(7)},
            "7 unknown to the model (more.0, more.1, more.2, more.3, more.4, …)",
        ),
        (
            {WEIGHT: None, "more": torch.ones(1)},
            "1 missing from it (grid_head.category_output.weight); 1 unknown to the model (more)",
        ),
    ],
)
def test_what_does_not_fit(given: dict[str, Tensor | None], message: str) -> None:
    with pytest.raises(WeightsError) as error:
        import_state(OUR_HEAD, foreign("paddledetection", head(**given)))
    assert str(error.value) == (
        f"model.pth: weights with PaddleDetection's names that do not fit the model: {message}; "
        "use the recipe they were trained with"
    )


def test_other_classes_are_refused_in_those_words() -> None:
    ours = {name: (2, *shape[1:]) for name, shape in OUR_HEAD.items()}
    with pytest.raises(WeightsError, match=r"^model.pth: is for 3 classes, the model for 2; set num_classes to 3"):
        import_state(ours, foreign("paddledetection", head()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype) -> None:
    given = {name: tensor.to(dtype) for name, tensor in head().items()}
    state = import_state(OUR_HEAD, foreign("paddledetection", given)).state
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert torch.equal(state["grid_head.category_output.bias"], given[BIAS].float())


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(3, dtype=torch.int64), "holds int64 numbers; expected real ones"),
        (torch.ones(3, dtype=torch.bool), "holds bool numbers; expected real ones"),
        (torch.tensor([0.0, float("nan"), 1.0]), "holds numbers that are not finite"),
        (torch.tensor([float("inf"), -float("inf"), 1.0]), "holds numbers that are not finite"),
        (torch.tensor([0.0, 1e300, 1.0], dtype=torch.float64), "holds numbers that are not finite"),
    ],
)
def test_numbers_that_are_no_weights(tensor: Tensor, message: str) -> None:
    with pytest.raises(WeightsError, match=f"^model.pth: {BIAS} {message}"):
        import_state(OUR_HEAD, foreign("paddledetection", head(**{BIAS: tensor})))
    with pytest.raises(WeightsError, match=f"^model.pth: {BIAS} {message}"):
        import_pretrained(OUR_HEAD, foreign("paddledetection", head(**{BIAS: tensor})))


def test_large_numbers_are_finite_though_their_sum_is_not() -> None:
    assert as_numbers("a", torch.full((4,), 3e38)).tolist() == torch.full((4,), 3e38).tolist()


def test_difference() -> None:
    assert difference("gone", []) == ""
    assert difference("gone", ["a", "b"]) == "2 gone (a, b)"


def test_an_export_without_a_place() -> None:
    state = {name: torch.ones(()).expand(shape) for name, shape in recipe_shapes("solov2_r50_enhance_coco").items()}
    with pytest.raises(
        WeightsError, match=r"backbone\.stem\.0\.conv\.weight has no counterpart among the authors' names"
    ):
        foreign_state(state, "solo")
    layer = "grid_head.kernel_tower.0.conv"
    state = {f"{layer}.weight": torch.ones(1), f"{layer}.offset.weight": torch.ones(1), f"{layer}.bias": torch.ones(1)}
    with pytest.raises(WeightsError, match=r"kernel_tower\.0\.conv\.bias has no counterpart among mmdetection's names"):
        foreign_state(state, "mmdetection")


BACKBONES: list[tuple[str, Framework, str, set[str]]] = [
    ("torchvision_r50", "torchvision", "solov2_r50_fpn_1x_coco", {"fc.weight", "fc.bias"}),
    ("torchvision_r34", "torchvision", "solov2_light_448_r34_fpn_8gpu_3x", {"fc.weight", "fc.bias"}),
    ("paddleclas_r50_vd", "paddleclas", "solov2_r50_enhance_coco", {"fc.weight", "fc.bias"}),
]


@pytest.mark.parametrize(("names", "framework", "recipe", "unused"), BACKBONES, ids=[row[0] for row in BACKBONES])
def test_backbones(names: str, framework: Framework, recipe: str, unused: set[str]) -> None:
    ours = recipe_shapes(recipe)
    given = numbered(listed(names))
    found = import_pretrained(ours, foreign(framework, given))
    backbone = {name for name in ours if name.startswith("backbone.") and ".offset." not in name}
    assert found.state.keys() == backbone
    assert found.other_shape == {}
    assert {name for name, reason in found.unused.items() if reason == NOT_THERE} == unused
    assert set(found.missing) == ours.keys() - backbone
    values = [float(tensor.flatten()[0]) for tensor in found.state.values()]
    assert len(set(values)) == len(values)


def test_backbone_of_paddledetection() -> None:
    published = listed("paddledetection_r101_vd")
    theirs = {
        name.removeprefix("backbone."): shape
        for name, shape in published.items()
        if name.startswith("backbone.") and "conv_offset" not in name
    }
    given = numbered({**theirs, "fc.weight": (2048, 1000)})
    ours = recipe_shapes("solov2_r101_vd_fpn_3x_coco")
    found = import_pretrained(ours, foreign("paddledetection", given))
    whole = import_state(ours, foreign("paddledetection", without_copies(numbered(published)))).state
    assert found.state.keys() == {name for name in whole if name.startswith("backbone.") and ".offset." not in name}
    assert found.unused == {"fc.weight": NOT_THERE}
    res4b22 = found.state["backbone.stages.2.22.conv2.conv.weight"]
    assert torch.equal(res4b22, given["res4.res4b22.branch2b.conv.weight"])
    assert torch.equal(
        found.state["backbone.stages.1.0.shortcut.1.conv.weight"], given["res3.res3a.short.conv.conv.weight"]
    )


def test_msra_backbone_of_detectron2() -> None:
    from solov2.weights.foreign import caffe2_name

    given = numbered({caffe2_name(name): shape for name, shape in listed("detectron2_msra_r50").items()})
    ours = recipe_shapes("adelaidet_R50_3x")
    found = import_pretrained(ours, foreign("detectron2", given, bgr=True))
    assert found.state.keys() == {name for name in ours if name.startswith("backbone.")}
    # Its batch norms are scale and shift alone: with these statistics that is what ours compute.
    assert found.state["backbone.stages.3.2.conv3.norm.running_mean"].unique().tolist() == [0]
    variance = found.state["backbone.stages.3.2.conv3.norm.running_var"]
    assert torch.equal(1 / (variance + 1e-5).sqrt(), torch.ones(2048))
    stem = given["stem.conv1.weight"]
    assert torch.allclose(found.state[STEM], stem.flip(1) * TestStem.std)
    # Biases of convolutions before a batch norm, zero up to rounding, which detectron2 drops too, and the classifier.
    assert {name.rsplit("_", 1)[-1] for name in found.unused} == {"b", "w"}
    assert {"conv1_b", "fc1000_w", "fc1000_b"} < found.unused.keys()


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (
            {"layer1.0.bn1.weight": 1, "bn1.weight": 2},
            {"backbone.stages.0.0.conv1.norm.weight": 1, "backbone.stem.0.norm.weight": 2},
        ),
        ({"layer1.0.bn1.weight": 1}, {"backbone.stages.0.0.conv1.norm.weight": 1}),
        ({"backbone.bn1.weight": 1}, {"backbone.stem.0.norm.weight": 1}),
        ({"0.bn1.weight": 1}, {"backbone.stages.0.0.conv1.norm.weight": 1}),
        ({"1.weight": 1, "n1.weight": 2, "x.bn1.weight": 3}, {}),
    ],
)
def test_the_longest_end_counts(theirs: dict[str, int], expected: dict[str, int]) -> None:
    ours = {"backbone.stem.0.norm.weight": (4,), "backbone.stages.0.0.conv1.norm.weight": (4,)}
    given = {name: torch.full((4,), float(value)) for name, value in theirs.items()}
    found = import_pretrained(ours, foreign("torchvision", given))
    assert {name: int(tensor[0]) for name, tensor in found.state.items()} == expected
    assert set(found.missing) == ours.keys() - expected.keys()
    assert len(found.unused) == len(given) - len(expected)


def test_one_tensor_for_two_places() -> None:
    ours = {"backbone.stem.0.norm.weight": (4,), "backbone.stages.0.0.conv1.norm.weight": (4,)}
    with pytest.raises(WeightsError, match=r"^model\.pth: bn1\.weight fits both backbone\.stem.* and backbone\.stages"):
        import_pretrained(ours, foreign("torchvision", {"bn1.weight": torch.ones(4)}))


def test_one_tensor_for_two_places_of_which_one_has_its_shape() -> None:
    ours = {"backbone.stem.0.norm.weight": (4,), "backbone.stages.0.0.conv1.norm.weight": (8,)}
    found = import_pretrained(ours, foreign("torchvision", {"bn1.weight": torch.ones(4)}))
    assert found.state.keys() == {"backbone.stem.0.norm.weight"}


def test_other_shapes_are_left_out() -> None:
    ours = {"backbone.stem.0.norm.weight": (4,), "backbone.stem.0.norm.bias": (4,)}
    found = import_pretrained(ours, foreign("torchvision", {"bn1.weight": torch.ones(5), "bn1.bias": torch.ones(4)}))
    assert found.state.keys() == {"backbone.stem.0.norm.bias"}
    assert found.other_shape == {"bn1.weight": "(5,) instead of (4,)"}
    assert found.missing == ("backbone.stem.0.norm.weight",)


@pytest.mark.parametrize(("classes", "same"), [(2, True), (3, False)])
def test_a_category_layer_of_other_classes(classes: int, same: bool) -> None:
    ours = {name: (classes, *shape[1:]) for name, shape in OUR_HEAD.items()}
    found = import_pretrained(ours, foreign("paddledetection", head()), same_classes=same)
    assert (found.state, set(found.unused.values())) == ({}, {OTHER_CLASSES})


def test_copies_are_no_leftovers() -> None:
    ours = {**OUR_HEAD, "grid_head.kernel_output.weight": (2, 4, 3, 3)}
    kernel = torch.rand(2, 4, 3, 3)
    given = {**head(), "solov2_head.bbox_head.solo_kernel.weight": kernel, "solov2_head.solo_kernel.weight": kernel}
    found = import_pretrained(ours, foreign("paddledetection", given))
    assert torch.equal(found.state["grid_head.kernel_output.weight"], kernel)
    reason = "the same as solov2_head.bbox_head.solo_kernel.weight"
    assert found.unused["solov2_head.solo_kernel.weight"] == reason
    given["solov2_head.solo_kernel.weight"] = kernel + 1
    found = import_pretrained(ours, foreign("paddledetection", given))
    assert found.unused["solov2_head.solo_kernel.weight"] == NOT_THERE


def test_compare() -> None:
    assert compare(OUR_HEAD, foreign("paddledetection", head())) == Comparison((), (), ())
    assert str(compare(OUR_HEAD, foreign("paddledetection", head(**{BIAS: None, "more": torch.ones(1)})))) == (
        "1 missing from it (grid_head.category_output.bias); 1 unknown to the model (more)"
    )
    found = compare(OUR_HEAD, foreign("paddledetection", head(**{BIAS: torch.ones(9)})))
    assert (found.count, found.other_shape) == (1, ("grid_head.category_output.bias (9,) instead of (3,)",))
