import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from solov2.losses import SOLOv2Loss, dice_loss, dice_terms, focal_loss
from solov2.structures import LevelAssignment, Predictions, Targets
from tests.largest_tensor import LargestTensor

GRID = 3
CATEGORIES = 4


def random_predictions(images: int = 2, *, dtype: torch.dtype = torch.float32) -> Predictions:
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    return Predictions(
        (leaf(images, CATEGORIES, GRID, GRID), leaf(images, CATEGORIES, 2, 2)),
        (leaf(images, 8, GRID, GRID), leaf(images, 8, 2, 2)),
        leaf(images, 8, 6, 10),
        (8, 16),
    )


def leaves_of(predictions: Predictions) -> list[Tensor]:
    return [*predictions.category_logits, *predictions.kernels, predictions.mask_features]


def targets_of(masks: Tensor) -> Targets:
    """Targets whose other fields the loss does not read."""
    count = len(masks)
    return Targets(
        torch.arange(count) % CATEGORIES,
        torch.zeros(count, 4, dtype=torch.float64),
        torch.zeros(count, 2, dtype=torch.float64),
        masks,
    )


def random_masks(count: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 2, (count, 6, 10), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def level_of(grid: int, pairs: Sequence[tuple[int, int]]) -> LevelAssignment:
    labels = torch.full((grid * grid,), -1)
    for cell, instance in pairs:
        labels[cell] = instance % CATEGORIES
    return LevelAssignment(
        labels,
        torch.tensor([cell for cell, _ in pairs], dtype=torch.int64),
        torch.tensor([instance for _, instance in pairs], dtype=torch.int64),
    )


def loss_with(assignments: Sequence[Sequence[LevelAssignment]], **settings: Any) -> SOLOv2Loss:
    """A loss whose assignment is given, one a picture."""
    stream = iter(assignments)
    return SOLOv2Loss(lambda _: next(stream), **settings)


NOTHING = (level_of(GRID, []), level_of(2, []))


def test_focal_loss_of_published_numbers() -> None:
    logits = torch.tensor([[0.1, -1.0, 2.0], [-0.5, 0.3, 0.2]])
    assert float(focal_loss(logits, torch.tensor([2, -1]))) / 2 == pytest.approx(0.3072022, abs=1e-6)
    logits = torch.tensor([[0.3, -1.2], [2.0, -0.5]])
    assert float(focal_loss(logits, torch.tensor([0, -1]))) / 2 == pytest.approx(0.66195858, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_focal_loss_is_finite_for_sure_logits(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], dtype=dtype, requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 0]))
    assert loss.dtype == torch.float32
    # the second row is wrong twice: 0.25 * 1e4 for the positive, 0.75 * 1e4 for the negative
    assert loss.item() == pytest.approx(1e4, rel=0.01)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_focal_settings() -> None:
    logits, labels = torch.tensor([[0.0]]), torch.tensor([0])
    half = torch.tensor(2.0).log().item()
    assert float(focal_loss(logits, labels, gamma=0.0, alpha=1.0)) == pytest.approx(half)
    assert float(focal_loss(logits, labels, gamma=3.0, alpha=0.4)) == pytest.approx(0.4 * half / 8)
    assert float(focal_loss(logits, torch.tensor([-1]), gamma=3.0, alpha=0.4)) == pytest.approx(0.6 * half / 8)


def test_focal_loss_without_cells_is_zero() -> None:
    assert float(focal_loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))) == 0


def test_dice_of_published_numbers() -> None:
    logits = torch.linspace(-2, 2, 12).reshape(2, 6)
    masks = torch.tensor([[1, 0, 1, 0, 1, 0], [0] * 6], dtype=torch.uint8)
    torch.testing.assert_close(dice_terms(logits, masks), torch.tensor([0.59885037, 1.0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("logit", "mask", "expected"),
    [(100.0, [1, 1], 0.0), (-100.0, [1, 1], 1.0), (100.0, [0, 0], 1.0), (-100.0, [0, 0], 1.0), (0.0, [1, 0], 1 / 3)],
)
def test_dice_of_plain_masks(logit: float, mask: list[int], expected: float) -> None:
    assert float(dice_terms(torch.full((1, 2), logit), torch.tensor([mask]))) == pytest.approx(expected, abs=1e-3)


def test_published_weighting() -> None:
    """The second mask is empty: it leaves the mean, and the first counts three times."""
    logits = torch.linspace(-2, 2, 12).reshape(2, 2, 3)
    predictions = Predictions(
        (torch.zeros(1, 3, 2, 2),), (torch.eye(2)[None, :, :, None].expand(1, 2, 2, 2),), logits[None], (8,)
    )
    masks = torch.tensor([[[1, 0, 1], [0, 1, 0]], [[0] * 3] * 2], dtype=torch.uint8)
    level = level_of(2, [(0, 0), (2, 1)])
    out = loss_with([[level]])(predictions, [targets_of(masks)])
    assert float(out["loss_mask"]) == pytest.approx(1.7965511, abs=1e-6)


def plain_loss(
    predictions: Predictions, targets: Sequence[Targets], assignments: Sequence[Sequence[LevelAssignment]]
) -> dict[str, Tensor]:
    """Pair by pair, cell by cell, with no chunks."""
    terms, focal, positives = [], torch.zeros(()), 0
    for image, (target, levels) in enumerate(zip(targets, assignments, strict=True)):
        for index, level in enumerate(levels):
            logits = predictions.category_logits[index][image].flatten(1)
            for cell, label in enumerate(level.labels.tolist()):
                positives += label >= 0
                for category, x in enumerate(logits[:, cell]):
                    p = x.sigmoid() if category == label else 1 - x.sigmoid()
                    focal = focal - (0.25 if category == label else 0.75) * (1 - p) ** 2 * p.log()
            for cell, row in zip(level.cells.tolist(), level.instances.tolist(), strict=True):
                mask = target.masks[row].float()
                kernel = predictions.kernels[index][image].flatten(1)[:, cell]
                p = torch.einsum("e,ehw->hw", kernel, predictions.mask_features[image]).sigmoid()
                if mask.any():
                    terms.append(1 - 2 * (p * mask).sum() / ((p * p).sum() + mask.sum() + 0.002))
    return {"loss_category": focal / (positives + 1), "loss_mask": 3 * torch.stack(terms).mean()}


PAIRS = (
    (level_of(GRID, [(0, 0), (4, 1), (4, 0), (8, 2)]), level_of(2, [(1, 2)])),
    (level_of(GRID, []), level_of(2, [(0, 0), (3, 1)])),
)


@pytest.mark.parametrize("chunk_elements", [1, 60, 130, 10**9])
def test_agrees_with_the_plain_form_whatever_the_chunk(chunk_elements: int) -> None:
    masks = random_masks(3)
    masks[1] = 0  # vanished at stride 4: its two pairs train no mask
    targets = [targets_of(masks), targets_of(random_masks(2, seed=2))]
    ours, plain = random_predictions(), random_predictions()
    out = loss_with(PAIRS, chunk_elements=chunk_elements)(ours, targets)
    expected = plain_loss(plain, targets, PAIRS)
    for name in ("loss_category", "loss_mask"):
        torch.testing.assert_close(out[name], expected[name], rtol=1e-5, atol=1e-6)
    (out["loss_category"] + out["loss_mask"]).backward()
    (expected["loss_category"] + expected["loss_mask"]).backward()
    for a, b in zip(leaves_of(ours), leaves_of(plain), strict=True):
        torch.testing.assert_close(a.grad, b.grad if b.grad is not None else torch.zeros_like(b), rtol=1e-4, atol=1e-6)


def test_weights() -> None:
    targets = [targets_of(random_masks(3)), targets_of(random_masks(2))]
    predictions = random_predictions()
    one = loss_with(PAIRS, mask_weight=1.0)(predictions, targets)
    seven = loss_with(PAIRS, mask_weight=7.0)(predictions, targets)
    assert seven["loss_mask"].item() == pytest.approx(7 * one["loss_mask"].item())
    assert torch.equal(one["loss_category"], seven["loss_category"])


@pytest.mark.parametrize("assignments", [(NOTHING, PAIRS[1]), (PAIRS[1], NOTHING)])
def test_a_picture_without_positives_adds_nothing_to_the_mask_loss(
    assignments: Sequence[Sequence[LevelAssignment]],
) -> None:
    empty = int(assignments[1] is NOTHING)
    targets = [targets_of(random_masks(0 if image == empty else 2)) for image in range(2)]
    predictions = random_predictions()
    out = loss_with(assignments)(predictions, targets)
    alone = Predictions(
        tuple(x[1 - empty, None] for x in predictions.category_logits),
        tuple(x[1 - empty, None] for x in predictions.kernels),
        predictions.mask_features[1 - empty, None],
        predictions.strides,
    )
    expected = loss_with([assignments[1 - empty]])(alone, [targets[1 - empty]])
    torch.testing.assert_close(out["loss_mask"], expected["loss_mask"])


@pytest.mark.parametrize(
    ("levels", "masks"),
    [(NOTHING, random_masks(0)), (NOTHING, random_masks(2)), (PAIRS[1], torch.zeros(2, 6, 10, dtype=torch.uint8))],
    ids=["no instance", "no pair", "vanished masks"],
)
def test_no_mask_to_train(levels: Sequence[LevelAssignment], masks: Tensor) -> None:
    predictions = random_predictions()
    out = loss_with([levels, levels])(predictions, [targets_of(masks)] * 2)
    assert out["loss_mask"].item() == 0
    assert out["loss_category"].isfinite()
    sum(out.values()).backward()  # type: ignore[union-attr]
    for leaf in (*predictions.kernels, predictions.mask_features):
        assert leaf.grad is not None  # so that no process of a distributed run waits for another
        assert leaf.grad.eq(0).all()
    assert all(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in predictions.category_logits)


@pytest.mark.parametrize("assignments", [PAIRS, (NOTHING, NOTHING)])
def test_half_precision_gives_float32_losses(assignments: Sequence[Sequence[LevelAssignment]]) -> None:
    targets = [targets_of(random_masks(3)), targets_of(random_masks(2))]
    predictions = random_predictions(dtype=torch.bfloat16)
    out = loss_with(assignments)(predictions, targets)
    exact = loss_with(assignments)(random_predictions(), targets)
    for name, loss in out.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(exact[name].item(), rel=0.02)
    sum(out.values()).backward()  # type: ignore[union-attr]
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves_of(predictions))


def test_half_precision_sums_do_not_overflow() -> None:
    features = torch.full((1, 400, 400), 10.0, dtype=torch.float16)  # 160,000 pixels; float16 ends at 65,504
    masks = torch.ones(1, 400, 400, dtype=torch.uint8)
    loss = dice_loss(torch.ones(1, 1, dtype=torch.float16), features, masks, torch.tensor([0]))
    assert loss.item() == pytest.approx(0, abs=1e-3)


@contextmanager
def bytes_saved_for_backward() -> Iterator[dict[int, int]]:
    """Address and size of every memory block that is kept for backward."""
    saved: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        yield saved


def test_memory_does_not_grow_with_the_masks() -> None:
    pairs, height, width, channels, chunk = 200, 40, 50, 8, 10_000
    features = torch.randn(channels, height, width, requires_grad=True)
    kernels = torch.randn(pairs, channels, requires_grad=True)
    masks = torch.ones(1, height, width, dtype=torch.uint8)
    with LargestTensor() as largest:
        with bytes_saved_for_backward() as saved:
            loss = dice_loss(kernels, features, masks, torch.zeros(pairs, dtype=torch.int64), chunk)
        loss.backward()
    assert kernels.grad is not None
    assert kernels.grad.abs().sum() > 0
    assert channels * height * width <= largest.elements <= max(chunk, channels * height * width)
    inputs = 4 * features.numel() + 4 * kernels.numel() + masks.numel() + 8 * pairs
    assert sum(saved.values()) <= inputs + 8 * pairs  # and not 200 masks of 2,000 pixels


def test_one_chunk_would_be_larger() -> None:
    """The probes of the test above see the masks where there is no chunking and no recomputation."""
    kernels, features = torch.randn(200, 8, requires_grad=True), torch.randn(8, 2000)
    with LargestTensor() as largest, bytes_saved_for_backward() as saved:
        loss = dice_terms(kernels @ features, torch.ones(200, 2000)).sum()
    assert loss.requires_grad
    assert largest.elements == 200 * 2000
    assert sum(saved.values()) > 4 * 200 * 2000


KNOWN = torch.tensor([True, False, True, False])


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.6)])
def test_unknown_categories_add_nothing_at_background(gamma: float, alpha: float) -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0, 5.0], [0.3, -1.0, 2.0, 5.0]], requires_grad=True)
    out = focal_loss(logits, torch.tensor([-1, 1]), gamma, alpha, KNOWN)
    expected = 0.0
    for cell, category in [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3)]:  # the second holds an object
        p = logits[cell, category].sigmoid().item()
        right, weight = (p, alpha) if (cell, category) == (1, 1) else (1 - p, 1 - alpha)
        expected -= weight * (1 - right) ** gamma * math.log(right)
    assert out.item() == pytest.approx(expected, rel=1e-5)
    out.backward()
    assert logits.grad is not None
    assert logits.grad[0, [1, 3]].tolist() == [0, 0]
    assert logits.grad[0, [0, 2]].ne(0).all()
    assert logits.grad[1].ne(0).all()


def test_all_known_is_the_same_to_the_bit() -> None:
    logits = torch.randn(5, 7, CATEGORIES)
    labels = torch.randint(-1, CATEGORIES, (5, 7))
    plain = focal_loss(logits, labels)
    assert torch.equal(plain, focal_loss(logits, labels, known=torch.ones(CATEGORIES, dtype=torch.bool)))
    assert not torch.equal(plain, focal_loss(logits, labels, known=KNOWN))


def test_what_is_known_differs_from_picture_to_picture() -> None:
    """The first picture is labelled in part, the second in full: its terms stay, and so does the normalisation."""
    targets = [targets_of(random_masks(3)), targets_of(random_masks(2))]
    partial = [replace(targets[0], known=KNOWN), targets[1]]
    ours, plain = random_predictions(), random_predictions()
    out, full = loss_with(PAIRS)(ours, partial), loss_with(PAIRS)(plain, targets)
    assert torch.equal(out["loss_mask"], full["loss_mask"])
    out["loss_category"].backward()
    full["loss_category"].backward()
    missing = 0.0
    for level, (leaf, twin) in enumerate(zip(ours.category_logits, plain.category_logits, strict=True)):
        assert leaf.grad is not None
        assert twin.grad is not None
        background = (PAIRS[0][level].labels < 0).reshape(leaf.shape[-2:])
        assert leaf.grad[0, ~KNOWN][:, background].eq(0).all()
        assert background.any()
        assert torch.equal(leaf.grad[0, KNOWN], twin.grad[0, KNOWN])
        assert torch.equal(leaf.grad[0, :, ~background], twin.grad[0, :, ~background])
        assert torch.equal(leaf.grad[1], twin.grad[1])
        z = leaf.detach()[0, ~KNOWN][:, background].double()
        missing += float((0.75 * z.sigmoid() ** 2 * torch.nn.functional.softplus(z)).sum())
    positives = sum(int((level.labels >= 0).sum()) for levels in PAIRS for level in levels)
    difference = full["loss_category"].item() - out["loss_category"].item()
    assert difference == pytest.approx(missing / (positives + 1), rel=1e-4)


def test_a_picture_of_which_nothing_is_known() -> None:
    predictions = random_predictions()
    target = replace(targets_of(random_masks(0)), known=torch.zeros(CATEGORIES, dtype=torch.bool))
    out = loss_with([NOTHING, NOTHING])(predictions, [target, target])
    assert out["loss_category"].item() == 0
    sum(out.values()).backward()  # type: ignore[union-attr]
    assert all(leaf.grad is not None and leaf.grad.eq(0).all() for leaf in leaves_of(predictions))


def scored(best: dict[tuple[int, int], float], label: int = 0) -> tuple[Predictions, Tensor]:
    """Two levels of strides 8 and 16 for a 64x64 picture; the scores of ``best`` by (level, cell), else -9."""
    logits = [torch.full((1, 2, side, side), -9.0) for side in (8, 4)]
    for (level, cell), value in best.items():
        logits[level][0, label].view(-1)[cell] = value
    generator = torch.Generator().manual_seed(0)
    kernels = tuple(torch.randn((1, 3, side, side), generator=generator, requires_grad=True) for side in (8, 4))
    features = torch.randn((1, 3, 16, 16), generator=generator)
    return Predictions(tuple(logits), kernels, features, (8, 16)), torch.cat(
        [k.detach().flatten(2) for k in kernels], 2
    )


def test_top_cells_are_those_that_score_best_in_the_box() -> None:
    masks = torch.zeros((1, 16, 16), dtype=torch.uint8)
    masks[0, :8, :8] = 1
    target = replace(targets_of(masks), boxes=torch.tensor([[0.0, 0.0, 32.0, 32.0]], dtype=torch.float64))
    # Cell 63 of the fine level is outside the box, whatever it scores.
    predictions, _ = scored({(0, 9): 1.0, (1, 5): 0.5, (0, 2): 0.0, (0, 63): 5.0})
    nothing = [level_of(8, []), level_of(4, [])]
    loss = loss_with([nothing], top_cells=2)(predictions, [target])["loss_mask"]
    loss.backward()
    touched = [set(torch.nonzero(k.grad[0].abs().sum(0).flatten()).flatten().tolist()) for k in predictions.kernels]
    assert touched == [{9}, {5}]
    chosen = torch.stack([predictions.kernels[0][0].flatten(1)[:, 9], predictions.kernels[1][0].flatten(1)[:, 5]])
    expected = dice_terms(chosen @ predictions.mask_features[0].flatten(1), masks.flatten(1).expand(2, -1))
    assert loss.item() == pytest.approx(3 * expected.mean().item(), rel=1e-6)


def test_top_cells_come_on_top_of_the_assigned_ones() -> None:
    masks = torch.zeros((1, 16, 16), dtype=torch.uint8)
    masks[0, :8, :8] = 1
    target = replace(targets_of(masks), boxes=torch.tensor([[0.0, 0.0, 32.0, 32.0]], dtype=torch.float64))
    predictions, _ = scored({(0, 9): 1.0})
    assigned = [level_of(8, [(3, 0)]), level_of(4, [])]
    loss_with([assigned], top_cells=1)(predictions, [target])["loss_mask"].backward()
    grad = predictions.kernels[0].grad
    assert grad is not None
    assert set(torch.nonzero(grad[0].abs().sum(0).flatten()).flatten().tolist()) == {3, 9}


def test_top_cells_of_a_picture_without_instances() -> None:
    target = targets_of(torch.zeros((0, 16, 16), dtype=torch.uint8))
    predictions, _ = scored({})
    nothing = [level_of(8, []), level_of(4, [])]
    assert loss_with([nothing], top_cells=4)(predictions, [target])["loss_mask"].item() == 0


def test_float32_features_are_not_rounded_by_autocast() -> None:
    """Relative positions put squares into them."""
    features = torch.cat([torch.randn(2, 64), torch.full((1, 64), 3000.0), torch.full((1, 64), -2999.0)])
    kernels, masks = torch.tensor([[0.1, 0.2, 1.0, 1.0]]), torch.ones((1, 8, 8), dtype=torch.uint8)
    plain = dice_loss(kernels, features.view(4, 8, 8), masks, torch.tensor([0]))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = dice_loss(kernels, features.view(4, 8, 8), masks, torch.tensor([0]))
    assert mixed.item() == plain.item()
