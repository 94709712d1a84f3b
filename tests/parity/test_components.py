"""Single parts against the frozen numbers of PaddleDetection; each test states its tolerance."""

import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from solov2.build import build_schedule
from solov2.config import load_config
from solov2.decoding import matrix_nms, point_nms
from solov2.losses import dice_terms, focal_loss
from solov2.model.layers import drop_block, resize, upsample2
from solov2.model.resnet import BlockStyle, Bottleneck
from solov2.optim import Ema, ema_decay
from tests.parity.paddle_weights import FOLDER

STEPS_PER_EPOCH = 7329


@pytest.fixture(scope="module")
def frozen() -> Any:
    return np.load(FOLDER / "components.npz")


def tensor(frozen: Any, key: str) -> Tensor:
    return torch.from_numpy(frozen[key])


@pytest.mark.parametrize("name", ["gaussian", "linear", "gaussian_top", "linear_thr", "gaussian_s05"])
def test_matrix_nms(frozen: Any, name: str) -> None:
    options = json.loads(bytes(frozen[f"mnms/{name}/kw_json"]))
    least = options.get("update_threshold", 0.05)
    scores, labels = tensor(frozen, "mnms/scores"), tensor(frozen, "mnms/labels")
    masks = tensor(frozen, "mnms/seg_preds") > 0.5
    order = scores.argsort(descending=True)[: options.get("pre_nms_top_n", 500)]
    decayed = matrix_nms(
        masks[order],
        labels[order],
        scores[order],
        decay=options.get("kernel", "gaussian"),
        sigma=options.get("sigma", 2.0),
    )
    best = decayed.argsort(descending=True)[: options.get("post_nms_top_n", 100)]
    best = best[decayed[best] >= least]

    # The reference appends one row whatever its score; rows below the threshold are that one.
    expected = frozen[f"mnms/{name}/score"]
    real = expected >= least
    assert real.sum() >= len(expected) - 1
    ours = dict(zip(order[best].tolist(), decayed[best].tolist(), strict=True))
    theirs = dict(zip(frozen[f"mnms/{name}/index"][real].tolist(), expected[real].tolist(), strict=True))
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert labels[order[best]].tolist() == frozen[f"mnms/{name}/label"][real].tolist()


def test_mask_areas(frozen: Any) -> None:
    masks = tensor(frozen, "mnms/seg_preds") > 0.5
    assert torch.equal(masks.sum(dim=(1, 2)).float(), tensor(frozen, "mnms/sum_masks"))


def test_point_nms(frozen: Any) -> None:
    assert torch.equal(point_nms(tensor(frozen, "points_nms/x")), tensor(frozen, "points_nms/y"))


@pytest.mark.parametrize("name", ["resize_half", "resize_grid", "resize_grid_dn", "resize_p6"])
def test_resize(frozen: Any, name: str) -> None:
    expected = tensor(frozen, f"{name}/y")
    ours = resize(tensor(frozen, f"{name}/x"), (expected.shape[-2], expected.shape[-1]))
    torch.testing.assert_close(ours, expected, rtol=0, atol=5e-6)


def test_upsample2(frozen: Any) -> None:
    ours = upsample2(tensor(frozen, "upsample2/x"))
    torch.testing.assert_close(ours, tensor(frozen, "upsample2/y"), rtol=0, atol=5e-6)


def test_drop_block(frozen: Any) -> None:
    ours = drop_block(tensor(frozen, "dropblock/x"), tensor(frozen, "dropblock/u"), 3, 0.9)
    torch.testing.assert_close(ours, tensor(frozen, "dropblock/y"), rtol=1e-6, atol=1e-6)


def test_drop_block_drops_as_often(frozen: Any) -> None:
    """The reference's mean share of dropped cells, per grid size, from many draws."""
    torch.manual_seed(0)
    for grid, mean, _ in frozen["dropblock/stat_grid_dropfrac_mean_std"]:
        size = int(grid)
        shape = (1, 800_000 // size**2, size, size)  # enough that our own spread is 0.001
        out = drop_block(torch.ones(shape), torch.rand(shape), 3, 0.9)
        assert float((out == 0).float().mean()) == pytest.approx(mean, abs=0.005)


def test_dice_loss(frozen: Any) -> None:
    masks = tensor(frozen, "loss/ins_label").flatten(1)
    terms = dice_terms(tensor(frozen, "loss/ins_pred").flatten(1), masks)
    kept = terms[(masks != 0).any(dim=1)]
    assert len(kept) == 4
    assert float(3 * kept.mean()) == pytest.approx(float(frozen["loss/loss_ins"][0]), abs=1e-6)


def test_focal_loss(frozen: Any) -> None:
    labels = tensor(frozen, "loss/cate_label") - 1  # theirs have 0 for the background
    total = focal_loss(tensor(frozen, "loss/cate_pred"), labels)
    ours = float(total) / (int(frozen["loss/num_ins"]) + 1)
    assert ours == pytest.approx(float(frozen["loss/loss_cate"]), rel=1e-6)


RECIPES = {
    "1x": "solov2_r50_fpn_1x_coco",
    "3x": "solov2_r50_fpn_3x_coco",
    "r101_3x": "solov2_r101_vd_fpn_3x_coco",
    "enhance": "solov2_r50_enhance_coco",
}


@pytest.mark.parametrize("name", RECIPES)
def test_learning_rate(frozen: Any, name: str) -> None:
    config = load_config(RECIPES[name])
    factor = build_schedule(config, STEPS_PER_EPOCH)
    steps, expected = frozen[f"lr/{name}/iter"].tolist(), frozen[f"lr/{name}/lr"]
    assert [config.optim.base_lr * factor(step) for step in steps] == pytest.approx(expected, rel=1e-9, abs=1e-15)
    first = frozen[f"lr/{name}/natural30"]
    assert [config.optim.base_lr * factor(step) for step in range(30)] == pytest.approx(first, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("kind", ["threshold", "normal", "exponential"])
def test_ema(frozen: Any, kind: Any) -> None:
    """The reference's average starts from zero, ours from the weights: they differ by prod(decay) × first weights."""
    values, raw = tensor(frozen, f"ema/{kind}/param"), tensor(frozen, f"ema/{kind}/raw")
    decays = frozen[f"ema/{kind}/decay"]
    limit = 0.9 if kind == "normal" else 0.9998
    if kind == "exponential":
        limit = float(decays[0] / (1 - np.exp(-1 / 2000)))
    assert [ema_decay(step, limit, kind) for step in range(len(decays))] == pytest.approx(decays, rel=1e-6)

    model = nn.ParameterList([nn.Parameter(torch.full(values.shape[1:], 2.0))])
    ema = Ema(model, limit, kind)
    share_of_the_start = 1.0
    for value, expected, decay in zip(values, raw, decays, strict=True):
        with torch.no_grad():
            model[0].copy_(value)
        ema.update(model)
        share_of_the_start *= decay
        ours = next(ema.model.parameters())
        torch.testing.assert_close(ours, expected + share_of_the_start * 2.0, rtol=1e-5, atol=1e-6)


BLOCKS = {
    "bneck_b_s2": (BlockStyle("b", nn.BatchNorm2d), 2, True),
    "bneck_d_s2": (BlockStyle("d", nn.BatchNorm2d), 2, True),
    "bneck_d_s1_proj": (BlockStyle("d", nn.BatchNorm2d), 1, True),
    "bneck_d_id": (BlockStyle("d", nn.BatchNorm2d), 1, False),
    "bneck_d_s2_dcn": (BlockStyle("d", nn.BatchNorm2d, dcn=2), 2, True),
}


def block_state(frozen: Any, name: str, group: str) -> dict[str, Tensor]:
    """One of the reference's state dictionaries under our names."""
    state = {}
    for key in frozen.files:
        if key.startswith(f"{name}/{group}/"):
            ours = re.sub(r"^branch2([abc])", lambda m: f"conv{'abc'.index(m[1]) + 1}", key.split("/")[-1])
            ours = ours.replace(".conv_offset.", ".conv.offset.")
            ours = re.sub(r"^short\.(conv\.(?=conv|norm))?", "shortcut.1.", ours)
            ours = ours.replace("._mean", ".running_mean").replace("._variance", ".running_var")
            state[ours] = tensor(frozen, key)
    return state


def block_of(frozen: Any, name: str) -> Bottleneck:
    style, stride, project = BLOCKS[name]
    block = Bottleneck(32, 8, stride, style, project=project)
    missing, unexpected = block.load_state_dict(block_state(frozen, name, "sd"), strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    return block


@pytest.mark.parametrize("name", BLOCKS)
def test_bottleneck_in_evaluation(frozen: Any, name: str) -> None:
    ours = block_of(frozen, name).eval()(tensor(frozen, f"{name}/x"))
    torch.testing.assert_close(ours, tensor(frozen, f"{name}/y_eval"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_bottleneck_in_training(frozen: Any, name: str) -> None:
    """Running means agree; variances do once Paddle's biased estimate is undone (it divides by n, torch by n - 1)."""
    block = block_of(frozen, name).train()
    before = {key: value.clone() for key, value in block.state_dict().items()}
    counts: dict[str, int] = {}
    for key, module in block.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(
                lambda _, args, __, key=key: counts.update({key: args[0].numel() // args[0].shape[1]})
            )
    ours = block(tensor(frozen, f"{name}/x"))
    torch.testing.assert_close(ours, tensor(frozen, f"{name}/y_train"), rtol=1e-5, atol=1e-5)

    after, state = block_state(frozen, name, "sd_after_train"), block.state_dict()
    assert len(after) == 2 * len(counts)
    for key, n in counts.items():
        torch.testing.assert_close(state[f"{key}.running_mean"], after[f"{key}.running_mean"], rtol=1e-5, atol=1e-6)
        old = 0.9 * before[f"{key}.running_var"]
        unbiased = old + (after[f"{key}.running_var"] - old) * n / (n - 1)
        torch.testing.assert_close(state[f"{key}.running_var"], unbiased, rtol=1e-5, atol=1e-6)
