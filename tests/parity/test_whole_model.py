"""The whole R50-FPN network against the frozen numbers of PaddleDetection.

Tolerances are relative L2 norms unless they say otherwise. With random weights the network amplifies
rounding: what an input error of 1e-6 moves is of the same size as what the two programs differ by.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from solov2.assign import Assigner
from solov2.data.shapes import Bitmap
from solov2.decoding import category_scores, decode
from solov2.losses import SOLOv2Loss
from solov2.model.solov2 import SOLOv2
from solov2.optim import parameter_groups
from solov2.structures import Frame, Instances, Predictions, Targets
from tests.parity.paddle_weights import FOLDER, load_settings, paddle_name, r50_fpn

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SIZE_RANGES = ((1.0, 96.0), (48.0, 192.0), (96.0, 384.0), (192.0, 768.0), (384.0, 2048.0))
LEVELS = range(5)


class Evaluated(NamedTuple):
    features: tuple[Tensor, ...]
    pyramid: tuple[Tensor, ...]
    predictions: Predictions
    instances: Instances


class Trained(NamedTuple):
    """What one training step computed, and the network before it."""

    start: dict[str, Tensor]
    losses: dict[str, float]
    coarsest_logits: Tensor
    gradients: dict[str, Tensor]


def off_by(ours: Tensor, theirs: npt.NDArray[Any]) -> float:
    expected = torch.from_numpy(theirs)
    return float((ours.detach() - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def network() -> SOLOv2:
    return r50_fpn()


@pytest.fixture(scope="module")
def frozen() -> Any:
    return np.load(FOLDER / "solov2_r50_fpn.npz")


@pytest.fixture(scope="module")
def evaluated(network: SOLOv2, frozen: Any) -> Evaluated:
    settings = load_settings(frozen)
    picture, padded_hw = frozen["image_u8"], tuple(settings["image_hw"])
    height, width = picture.shape[:2]
    images = torch.zeros(1, 3, *padded_hw)
    images[0, :, :height, :width] = torch.from_numpy((picture / np.float32(255) - MEAN) / STD).permute(2, 0, 1)
    with torch.no_grad():
        features = network.backbone(images)
        pyramid = network.fpn(*features)
        predictions = network(images)
    (instances,) = decode(
        predictions,
        [Frame(tuple(settings["original_hw"]), (height, width), padded_hw)],
        score_threshold=settings["score_threshold"],
        update_threshold=settings["gaussian_update_threshold"],
    )
    return Evaluated(features, pyramid, predictions, instances)


@pytest.mark.slow
def test_feature_maps(evaluated: Evaluated, frozen: Any) -> None:
    for level, feature in enumerate(evaluated.features):
        assert off_by(feature[:, ::16][:, :16], frozen[f"c{level + 2}_every16th_channel"]) < 1e-4
    for level, feature in enumerate(evaluated.pyramid):
        assert off_by(feature[:, ::16][:, :16], frozen[f"p{level + 2}_every16th_channel"]) < 1.5e-4


@pytest.mark.slow
def test_mask_features_and_kernels(evaluated: Evaluated, frozen: Any) -> None:
    predictions = evaluated.predictions
    assert off_by(predictions.mask_features[:, ::16], frozen["mask_features_every16th_channel"]) < 1e-4
    for level in LEVELS:
        assert off_by(predictions.kernels[level][:, ::16], frozen[f"kernels_level{level}_every16th_channel"]) < 1.5e-4


@pytest.mark.slow
def test_category_scores(evaluated: Evaluated, frozen: Any) -> None:
    """To 5e-5, but for single cells whose neighbour is as good up to rounding: points-NMS keeps or drops those."""
    for level in LEVELS:
        ours = category_scores(evaluated.predictions.category_logits[level])[0, ::4].permute(1, 2, 0).numpy()
        theirs = frozen[f"category_scores_level{level}_after_point_nms_hwc"]
        flipped = (ours > 0) != (theirs > 0)
        assert flipped.sum() <= 3
        assert np.abs(ours - theirs)[~flipped].max() < 5e-5


@pytest.mark.slow
def test_instances(evaluated: Evaluated, frozen: Any) -> None:
    """Every row has its partner: same label, score to 2e-4, mask IoU 0.999 or better."""
    found, shape = evaluated.instances, frozen["gaussian_masks_shape"]
    masks = np.unpackbits(frozen["gaussian_masks_packbits"], axis=1, count=shape[1] * shape[2]).reshape(shape)
    assert found.original_hw == tuple(shape[1:])
    assert len(found) == len(masks) == 37
    taken = set()
    for label, score, mask in zip(
        frozen["gaussian_labels"], frozen["gaussian_scores"], masks.astype(bool), strict=True
    ):
        rows = np.flatnonzero((found.labels == label) & (np.abs(found.scores - score) < 2e-4))
        ious = [(found.masks[row] & mask).sum() / max((found.masks[row] | mask).sum(), 1) for row in rows]
        assert ious
        assert max(ious) > 0.999
        taken.add(int(rows[int(np.argmax(ious))]))
    assert len(taken) == len(masks)


@pytest.fixture(scope="module")
def frozen_step() -> Any:
    return np.load(FOLDER / "solov2_r50_fpn.train.npz")


@pytest.fixture(scope="module")
def targets(frozen_step: Any) -> list[Targets]:
    targets = []
    for image in range(2):
        masks = frozen_step[f"gt_segm_{image}"]
        shapes = [Bitmap.of(mask).rasterize(masks.shape[1:], (256, 256)) for mask in masks]
        targets.append(
            Targets(
                torch.from_numpy(frozen_step[f"gt_class_{image}"].astype(np.int64)),
                torch.from_numpy(frozen_step[f"gt_bbox_{image}"].astype(np.float64)),
                torch.tensor([shape.center for shape in shapes], dtype=torch.float64),
                torch.from_numpy(np.stack([shape.mask for shape in shapes])),
            )
        )
    return targets


def assigner(network: SOLOv2 | None = None) -> Assigner:
    return Assigner((40, 36, 24, 16, 12) if network is None else network.grid_head.grid_sizes, SIZE_RANGES)


def test_targets(frozen_step: Any, targets: list[Targets]) -> None:
    """Labels, cells and masks are equal, in the same order."""
    for image, target in enumerate(targets):
        levels = assigner()(target)
        for index, level in enumerate(levels):
            assert (level.labels + 1).tolist() == frozen_step[f"in_cate_label{index}"][image].tolist()
            count, cells = len(level.cells), len(level.labels)
            order = frozen_step[f"in_grid_order{index}"][image]
            assert (level.cells + image * cells).tolist() == order[:count].tolist()
            masks = frozen_step[f"in_ins_label{index}"][image]
            assert np.array_equal(target.masks[level.instances].numpy(), masks[:count])
            assert not masks[count:].any()  # theirs are filled up with empty masks
        positives = sum(int((level.labels >= 0).sum()) for level in levels)
        assert positives == frozen_step["in_fg_num"][image]


def run(network: SOLOv2, frozen_step: Any, targets: list[Targets]) -> tuple[Predictions, dict[str, Tensor]]:
    predictions = network.train()(torch.from_numpy(frozen_step["in_image"]))
    return predictions, SOLOv2Loss(assigner(network))(predictions, targets)


def trained_parameters(network: SOLOv2) -> dict[str, torch.nn.Parameter]:
    """By PaddleDetection's names."""
    return {paddle_name(name): p for name, p in network.named_parameters() if p.requires_grad}


@pytest.fixture(scope="module")
def trained(network: SOLOv2, frozen_step: Any, targets: list[Targets]) -> Trained:
    start = {name: value.clone() for name, value in network.state_dict().items()}
    predictions, losses = run(network, frozen_step, targets)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {}
    for name, parameter in trained_parameters(network).items():
        assert parameter.grad is not None, name
        gradients[name] = parameter.grad.clone()
    return Trained(
        start,
        {name: loss.item() for name, loss in losses.items()},
        predictions.category_logits[-1].detach(),
        gradients,
    )


@pytest.fixture
def at_start(network: SOLOv2, trained: Trained) -> Iterator[SOLOv2]:
    """The network as it was, with the first step's gradients."""
    network.load_state_dict(trained.start)
    for name, parameter in trained_parameters(network).items():
        parameter.grad = trained.gradients[name].clone()
    yield network
    network.load_state_dict(trained.start)


def test_names_of_what_is_trained(network: SOLOv2, frozen_step: Any) -> None:
    names = frozen_step["trainable_names"].tolist()
    assert len(set(names)) == len(names) == 110
    assert set(trained_parameters(network)) == set(names)


@pytest.mark.slow
def test_losses_and_logits(trained: Trained, frozen_step: Any) -> None:
    mask, category, _ = frozen_step["loss_ins_cate_total"]
    assert trained.losses["loss_mask"] == pytest.approx(mask, rel=1e-5)
    assert trained.losses["loss_category"] == pytest.approx(category, rel=1e-5)
    assert off_by(trained.coarsest_logits, frozen_step["train_cate4"]) < 5e-5


@pytest.mark.slow
def test_gradients(trained: Trained, frozen_step: Any) -> None:
    """Norms to 0.5 %, whole gradients of biases to 2 %: a ReLU that rounding turns on moves them so far."""
    for name, norm in zip(frozen_step["trainable_names"], frozen_step["grad_norm"], strict=True):
        assert float(trained.gradients[name].norm()) == pytest.approx(norm, rel=5e-3, abs=1e-4), name
        if f"grad/{name}" in frozen_step:
            assert off_by(trained.gradients[name], frozen_step[f"grad/{name}"]) < 0.02, name


@pytest.mark.slow
@pytest.mark.parametrize("decay", ["1e-4", "0.1"])
def test_one_optimizer_step(at_start: SOLOv2, trained: Trained, frozen_step: Any, decay: str) -> None:
    """Norms after the step to 1e-5. A decay of 0.1 shrinks by 1e-3 what decays: all but scales and shifts of norms."""
    torch.optim.SGD(parameter_groups(at_start, 0.01, float(decay)), momentum=0.9).step()
    parameters = trained_parameters(at_start)
    group = f"step1_lr0.01_l2_{decay}"
    names = frozen_step["trainable_names"].tolist()
    for name, norm, head in zip(
        names, frozen_step[f"{group}/param_norm"], frozen_step[f"{group}/param_head8"], strict=True
    ):
        after = parameters[name].detach()
        assert float(after.double().norm()) == pytest.approx(norm, rel=1e-5), name
        torch.testing.assert_close(after.flatten()[: len(head)], torch.from_numpy(head), rtol=0, atol=2e-4)


@pytest.mark.slow
def test_decay_of_the_reference_spares_norms(frozen_step: Any) -> None:
    """The two frozen steps differ in what decays only: this is what the test above can tell apart."""
    weak, strong = (frozen_step[f"step1_lr0.01_l2_{decay}/param_norm"] for decay in ("1e-4", "0.1"))
    for name, before, after in zip(frozen_step["trainable_names"], weak, strong, strict=True):
        if ".norm." in name:
            assert before == after, name
        else:
            assert 5e-4 < 1 - after / before < 2e-3, name


@pytest.mark.slow
def test_three_steps(at_start: SOLOv2, frozen_step: Any, targets: list[Targets]) -> None:
    """Losses at a rate of 1e-4, to 1e-3: gradients, momentum and decay together.

    Rounding grows from step to step: between one thread and two the third loss differs by 4e-4.
    """
    expected = frozen_step["loss_3steps_lr1e-4"]
    optimizer = torch.optim.SGD(parameter_groups(at_start, 1e-4, 1e-4), momentum=0.9)
    optimizer.step()  # with the gradients of the first step
    for step in (1, 2):
        optimizer.zero_grad()
        with torch.set_grad_enabled(step == 1):
            _, losses = run(at_start, frozen_step, targets)
        assert losses["loss_mask"].item() == pytest.approx(expected[step, 0], rel=1e-3)
        assert losses["loss_category"].item() == pytest.approx(expected[step, 1], rel=1e-3)
        if step == 1:
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
