from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import solov2.decoding
from solov2.build import build_model
from solov2.config import load_config
from solov2.decoding import (
    Candidates,
    all_scores,
    category_scores,
    decode,
    find_candidates,
    mask_iou,
    mask_maps,
    mask_probs,
    matrix_nms,
    point_nms,
)
from solov2.model.ellipse import START_RADIUS, TERMS
from solov2.structures import Frame, Predictions
from tests.largest_tensor import LargestTensor


def columns(first: int, last: int) -> Tensor:
    mask = torch.zeros(4, 8, dtype=torch.bool)
    mask[:, first : last + 1] = True
    return mask


def corner() -> Tensor:
    mask = torch.zeros(4, 8, dtype=torch.bool)
    mask[:2, :2] = True
    return mask


FOUR_MASKS = torch.stack([columns(0, 3), columns(1, 4), columns(0, 3), corner()])
FOUR_SCORES = torch.tensor([0.9, 0.8, 0.7, 0.6])


@pytest.mark.parametrize(
    ("decay", "expected"), [("gaussian", [0.9, 0.3894018, 0.7, 0.52949816]), ("linear", [0.9, 0.32, 0.7, 0.45])]
)
def test_matrix_nms_of_published_numbers(decay: Any, expected: list[float]) -> None:
    """The third mask equals the first but has another label: it keeps its score."""
    out = matrix_nms(FOUR_MASKS, torch.tensor([1, 1, 2, 1]), FOUR_SCORES, decay=decay)
    torch.testing.assert_close(out, torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("decay", ["gaussian", "linear"])
def test_labels_apart_never_decay_each_other(decay: Any) -> None:
    masks = torch.ones(3, 4, 4, dtype=torch.bool)
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert torch.equal(matrix_nms(masks, torch.tensor([4, 0, 2]), scores, decay=decay), scores)


def test_linear_decay_of_identical_masks_is_zero_and_not_nan() -> None:
    masks = torch.stack([columns(0, 3)] * 3 + [columns(0, 1)])
    out = matrix_nms(masks, torch.zeros(4, dtype=torch.int64), torch.tensor([0.9, 0.8, 0.7, 0.6]), decay="linear")
    assert out.tolist() == pytest.approx([0.9, 0, 0, 0.3])  # the twins decide nothing about the last one


def test_sigma() -> None:
    masks = torch.stack([columns(0, 3), columns(0, 1)])  # intersection over union 1/2
    out = matrix_nms(masks, torch.zeros(2, dtype=torch.int64), torch.tensor([1.0, 1.0]), sigma=0.5)
    assert out.tolist() == pytest.approx([1, float(np.exp(-0.125))])


@pytest.mark.parametrize("decay", ["gaussian", "linear"])
def test_matrix_nms_agrees_with_the_plain_loop(decay: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(25, 6, 6, generator=generator) > 0.4
    labels = torch.randint(0, 3, (25,), generator=generator)
    scores = torch.rand(25, generator=generator).sort(descending=True).values

    def iou(i: int, j: int) -> float:
        return float((masks[i] & masks[j]).sum() / (masks[i] | masks[j]).sum())

    def better(j: int) -> list[int]:
        return [i for i in range(j) if labels[i] == labels[j]]

    def factor(i: int, j: int) -> float:
        covered = max((iou(k, i) for k in better(i)), default=0.0)
        if decay == "linear":
            return (1 - iou(i, j)) / (1 - covered)
        return float(np.exp(-2 * iou(i, j) ** 2) / np.exp(-2 * covered**2))

    expected = [float(scores[j]) * min([1.0, *(factor(i, j) for i in better(j))]) for j in range(25)]
    out = matrix_nms(masks, labels, scores, decay=decay)
    torch.testing.assert_close(out, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_matrix_nms_of_nothing() -> None:
    out = matrix_nms(torch.zeros(0, 4, 4, dtype=torch.bool), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert out.shape == (0,)


@pytest.mark.parametrize("chunk_elements", [1, 20, 2**23])
def test_mask_iou(chunk_elements: int) -> None:
    masks = torch.cat([FOUR_MASKS, torch.zeros(1, 4, 8, dtype=torch.bool)])
    expected = torch.tensor(
        [[1, 0.6, 1, 0.25, 0], [0.6, 1, 0.6, 2 / 18, 0], [1, 0.6, 1, 0.25, 0], [0.25, 2 / 18, 0.25, 1, 0], [0] * 5]
    )
    torch.testing.assert_close(mask_iou(masks, chunk_elements), expected)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([[3, 2], [2, 1]], [[3, 0], [0, 0]]),  # above, left and above-left count ...
        ([[1, 2], [2, 3]], [[1, 2], [2, 3]]),  # ... below and right do not
        ([[5, 5], [5, 5]], [[5, 5], [5, 5]]),  # ties stay
        ([[1, 9], [5, 2]], [[1, 9], [5, 0]]),  # above-right does not count
        ([[9, 1], [1, 8]], [[9, 0], [0, 0]]),
    ],
)
def test_point_nms(scores: list[list[float]], expected: list[list[float]]) -> None:
    x = torch.tensor(scores, dtype=torch.float32)[None, None]
    assert point_nms(x)[0, 0].tolist() == expected


def test_point_nms_keeps_categories_apart() -> None:
    x = torch.tensor([[[9.0, 1.0]], [[1.0, 2.0]]])[None]
    assert point_nms(x)[0].tolist() == [[[9, 0]], [[1, 2]]]


def test_category_scores_are_float32() -> None:
    scores = category_scores(torch.zeros(1, 2, 3, 3, dtype=torch.bfloat16))
    assert scores.dtype == torch.float32
    assert scores.eq(0.5).all()


def full_search(
    scores: Tensor, kernels: Tensor, features: Tensor, min_areas: Tensor, threshold: float, top_n: int
) -> Candidates:
    """Every pair over the threshold, every mask, then the best."""
    pairs = torch.nonzero(scores > threshold)
    probs = torch.einsum("ke,ehw->khw", kernels[pairs[:, 0]], features).sigmoid()
    masks = probs > 0.5
    areas = masks.sum(dim=(1, 2))
    large = areas > min_areas[pairs[:, 0]]
    pairs, probs, masks, areas = pairs[large], probs[large], masks[large], areas[large]
    products = scores[pairs[:, 0], pairs[:, 1]] * ((probs * masks).sum(dim=(1, 2)) / areas)
    best = products.argsort(descending=True, stable=True)[:top_n]
    return Candidates(products[best], pairs[best, 1], kernels[pairs[best, 0]], masks[best])


def search_input(seed: int, *, ties: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """60 cells × 5 categories; with ties, scores are multiples of 0.1 and masks sure (maskness 1)."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(60, 5, generator=generator) ** 2
    kernels = torch.randn(60, 4, generator=generator)
    features = torch.randn(4, 8, 9, generator=generator)
    if ties:
        scores, kernels, features = (scores * 10).round() / 10, 100 * kernels.sign(), features.sign()
        features[0] *= 2.5  # no sum is 0
    min_areas = torch.tensor([8, 16, 32]).repeat(20)
    return scores, kernels, features, min_areas


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("top_n", [1, 7, 40, 10_000])
@pytest.mark.parametrize("chunk_elements", [1, 5 * 72, 10**9])
def test_the_search_finds_what_a_full_search_finds(seed: int, ties: bool, top_n: int, chunk_elements: int) -> None:
    scores, kernels, features, min_areas = search_input(seed, ties=ties)
    expected = full_search(scores, kernels, features, min_areas, 0.1, top_n)
    found = find_candidates(
        scores,
        kernels,
        features,
        min_areas,
        score_threshold=0.1,
        mask_threshold=0.5,
        top_n=top_n,
        chunk_elements=chunk_elements,
    )
    assert 0 < len(found.scores) <= top_n
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-6, atol=0)
    assert torch.equal(found.labels, expected.labels)
    assert torch.equal(found.kernels, expected.kernels)
    assert torch.equal(found.masks, expected.masks)


def search(scores: Tensor, kernels: Tensor, features: Tensor, min_area: int, **settings: Any) -> Candidates:
    options: dict[str, Any] = {"score_threshold": 0.1, "mask_threshold": 0.5, "top_n": 500} | settings
    return find_candidates(scores, kernels, features, torch.full((len(scores),), min_area), **options)


@pytest.mark.parametrize(("min_area", "count"), [(7, 1), (8, 0), (9, 0)])
def test_a_mask_must_have_more_pixels_than_the_stride(min_area: int, count: int) -> None:
    features = torch.full((1, 4, 4), -10.0)
    features[:, :2] = 10.0  # 8 pixels
    found = search(torch.tensor([[0.9]]), torch.ones(1, 1), features, min_area)
    assert len(found.scores) == count
    assert found.masks.shape == (count, 4, 4)


@pytest.mark.parametrize(("score", "count"), [(0.1, 0), (0.10001, 1)])
def test_the_score_threshold_must_be_exceeded(score: float, count: int) -> None:
    scores = torch.tensor([[score]])
    found = search(scores, torch.ones(1, 1), torch.full((1, 4, 4), 9.0), 0, score_threshold=float(np.float32(0.1)))
    assert len(found.scores) == count


def test_masks_are_made_only_as_long_as_they_can_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    apply_kernels = solov2.decoding.apply_kernels

    def counting(kernels: Tensor, features: Tensor) -> Tensor:
        made.append(len(kernels))
        return apply_kernels(kernels, features)

    monkeypatch.setattr(solov2.decoding, "apply_kernels", counting)
    scores = torch.linspace(0.9, 0.2, 1000)[:, None]
    found = search(scores, torch.ones(1000, 1), torch.full((1, 4, 4), 20.0), 0, top_n=25, chunk_elements=160)
    assert len(found.scores) == 25
    assert sum(made) == 30  # chunks of ten: the 25th best product exceeds the 31st category score


def test_an_untrained_network_needs_no_more_memory() -> None:
    """3,872 cells × 80 categories all just above the threshold: 300,000 candidates, 16 M mask pixels."""
    generator = torch.Generator().manual_seed(0)
    scores = 0.1001 + 1e-3 * torch.rand(3872, 80, generator=generator)
    kernels = torch.randn(3872, 4, generator=generator)
    features = torch.randn(4, 64, 64, generator=generator) * 0.1
    chunk = 2**21
    with LargestTensor() as largest:
        found = search(scores, kernels, features, 32, top_n=100, chunk_elements=chunk)
    assert largest.elements <= chunk
    assert len(found.scores) == 100
    probs = (kernels @ features.flatten(1)).sigmoid()  # all masks once, for the comparison
    masks = probs > 0.5
    maskness = (probs * masks).sum(dim=1) / masks.sum(dim=1)
    expected = (scores * maskness[:, None] * (masks.sum(dim=1) > 32)[:, None]).flatten().topk(100)
    torch.testing.assert_close(found.scores, expected.values, rtol=1e-6, atol=0)
    assert torch.equal(found.labels, expected.indices % 80)


def random_predictions(images: int = 2, *, seed: int = 0) -> Predictions:
    """Few cells, smooth and mostly sure masks."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.nn.functional.interpolate(
        torch.randn(images, 8, 4, 6, generator=generator), (16, 24), mode="bilinear"
    )
    grids = (6, 4)
    return Predictions(
        tuple(torch.randn(images, 3, s, s, generator=generator) - 1 for s in grids),
        tuple(2 * torch.randn(images, 8, s, s, generator=generator) for s in grids),
        features,
        (8, 16),
    )


FRAMES = (Frame((61, 80), (61, 80), (64, 96)), Frame((100, 150), (50, 75), (64, 96)))


def test_scores_descend_and_obey_the_limits() -> None:
    for found in decode(random_predictions(), FRAMES, post_nms_top_n=7, update_threshold=0.2):
        assert len(found) == 7
        assert (np.diff(found.scores) <= 0).all()
        assert found.scores[0] <= 1
        assert found.scores[-1] >= 0.2
        assert set(found.labels.tolist()) <= {0, 1, 2}


def test_a_batch_equals_its_pictures_one_by_one() -> None:
    both = random_predictions()
    for image, found in enumerate(decode(both, FRAMES)):
        alone = Predictions(
            tuple(x[image, None] for x in both.category_logits),
            tuple(x[image, None] for x in both.kernels),
            both.mask_features[image, None],
            both.strides,
        )
        (expected,) = decode(alone, FRAMES[image : image + 1])
        assert len(found) > 5
        assert np.array_equal(found.scores, expected.scores)
        assert np.array_equal(found.labels, expected.labels)
        assert np.array_equal(found.boxes, expected.boxes)
        assert np.array_equal(found.masks, expected.masks)


@pytest.mark.parametrize("case", ["low scores", "empty masks", "small masks", "update threshold"])
def test_nothing_is_never_made_up(case: str) -> None:
    predictions = random_predictions()
    options = {"update_threshold": 1.0} if case == "update threshold" else {}
    if case == "low scores":
        predictions = Predictions(
            tuple(x - 20 for x in predictions.category_logits), predictions.kernels, predictions.mask_features, (8, 16)
        )
    if case == "empty masks":
        empty = torch.zeros_like(predictions.mask_features)  # probability 0.5 everywhere does not exceed it
        predictions = Predictions(predictions.category_logits, predictions.kernels, empty, (8, 16))
    if case == "small masks":
        predictions = Predictions(
            predictions.category_logits, predictions.kernels, predictions.mask_features, (16 * 24, 16 * 24)
        )
    for found, frame in zip(decode(predictions, FRAMES, **options), FRAMES, strict=True):  # type: ignore[arg-type]
        assert len(found) == 0
        assert found.original_hw == frame.original_hw
        assert (found.labels.dtype, found.labels.shape) == (np.int64, (0,))
        assert (found.scores.dtype, found.scores.shape) == (np.float32, (0,))
        assert (found.boxes.dtype, found.boxes.shape) == (np.float32, (0, 4))
        assert (found.masks.dtype, found.masks.shape) == (bool, (0, *frame.original_hw))


def one_cell(logit: float, features: Tensor, *, stride: int = 8) -> Predictions:
    """One category, one cell, whose mask logits are the features."""
    return Predictions((torch.full((1, 1, 1, 1), logit),), (torch.ones(1, 1, 1, 1),), features[None, None], (stride,))


@pytest.mark.parametrize(
    "frame",
    [
        Frame((100, 3000), (44, 1333), (64, 1344)),  # scaling back by one factor would give 100x3030
        Frame((3000, 100), (1333, 44), (1344, 64)),
        Frame((427, 640), (800, 1199), (800, 1216)),
        Frame((1, 1), (800, 800), (800, 800)),
        Frame((17, 13), (1046, 800), (1056, 800)),
    ],
    ids=lambda frame: "{}x{}".format(*frame.original_hw),
)
def test_masks_have_the_original_size(frame: Frame) -> None:
    features = torch.full((frame.padded_hw[0] // 4, frame.padded_hw[1] // 4), 9.0)
    (found,) = decode(one_cell(3.0, features), [frame])
    assert found.original_hw == frame.original_hw
    assert found.masks.shape == (1, *frame.original_hw)
    assert found.masks.all()
    assert found.boxes.tolist() == [[0, 0, frame.original_hw[1], frame.original_hw[0]]]


def test_score_is_category_score_times_maskness() -> None:
    features = torch.full((8, 8), -5.0)
    features[:4], features[4:6] = 2.0, 1.0
    (found,) = decode(one_cell(0.7, features), [Frame((32, 32), (32, 32), (32, 32))])
    maskness = (4 * torch.tensor(2.0).sigmoid() + 2 * torch.tensor(1.0).sigmoid()) / 6
    assert found.scores.tolist() == pytest.approx([float(torch.tensor(0.7).sigmoid() * maskness)])


def test_a_mask_in_the_padding_is_an_empty_instance() -> None:
    features = torch.full((8, 8), -9.0)
    features[6:] = 9.0  # rows 24..31; the picture ends at row 16
    (found,) = decode(one_cell(3.0, features), [Frame((32, 64), (16, 32), (32, 32))])
    assert found.areas.tolist() == [0]
    assert found.boxes.tolist() == [[0, 0, 0, 0]]


def test_cells_of_native_grids_in_the_padding_are_not_asked() -> None:
    """Only those that begin beyond the picture; square grids are asked everywhere, as published models are."""
    logits = torch.full((1, 1, 4, 4), 3.0)  # equal neighbours: points-NMS keeps them all
    features = torch.full((1, 1, 8, 8), 9.0)
    frame = Frame((20, 17), (20, 17), (32, 32))
    for native, cells in ((False, 16), (True, 9)):  # rows 0, 8, 16 and columns 0, 8, 16 begin within 20 by 17 pixels
        predictions = Predictions((logits,), (torch.ones(1, 1, 4, 4),), features, (8,), native)
        (scores,) = all_scores(predictions, torch.tensor([frame.resized_hw]))
        assert (scores > 0).sum() == cells
        (found,) = decode(predictions, [frame], sigma=1e-9)  # no decay: every cell gives an instance
        assert len(found) == cells


def test_the_update_threshold_is_inclusive() -> None:
    features = torch.full((8, 8), 100.0)  # maskness is exactly 1
    frame = Frame((32, 32), (32, 32), (32, 32))
    assert len(decode(one_cell(0.0, features), [frame], update_threshold=0.5)[0]) == 1
    assert len(decode(one_cell(0.0, features), [frame], update_threshold=0.5001)[0]) == 0


@pytest.mark.parametrize(("stride", "count"), [(63, 1), (64, 0)])
def test_the_area_filter_uses_the_strides(stride: int, count: int) -> None:
    frame = Frame((32, 32), (32, 32), (32, 32))
    assert len(decode(one_cell(3.0, torch.full((8, 8), 9.0), stride=stride), [frame])[0]) == count


def test_each_level_has_its_own_stride() -> None:
    """Four cells, one mask of 12 pixels: only the first level's stride lets it through."""
    features = torch.full((1, 1, 8, 8), -9.0)
    features[..., :3, :4] = 9.0
    predictions = Predictions(
        (torch.tensor([[[[3.0]]]]), torch.tensor([[[[3.1]]]])), (torch.ones(1, 1, 1, 1),) * 2, features, (8, 16)
    )
    (found,) = decode(predictions, [Frame((32, 32), (32, 32), (32, 32))], update_threshold=0.0)
    assert found.scores.tolist() == pytest.approx([float(torch.tensor(3.0).sigmoid())], rel=1e-3)


def test_half_precision_predictions() -> None:
    exact = random_predictions()
    half = Predictions(
        tuple(x.bfloat16() for x in exact.category_logits),
        tuple(x.bfloat16() for x in exact.kernels),
        exact.mask_features.bfloat16(),
        exact.strides,
    )
    for a, b in zip(decode(half, FRAMES), decode(exact, FRAMES), strict=True):
        assert a.scores.dtype == np.float32
        assert a.scores[0] == pytest.approx(b.scores[0], abs=0.02)


@pytest.mark.parametrize("hw", [(64, 96), (96, 160)])
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_masks_with_relative_position_lie_around_their_cells(hw: tuple[int, int], level: int) -> None:
    """From a picture to masks; 96 and 160 are no multiples of the coarsest stride. The last cell's is asked for."""
    network = build_model(load_config("nano", ["num_classes=2"])).eval()
    for output in network.grid_head.kernel_output:  # type: ignore[union-attr]
        torch.nn.init.zeros_(output.weight)  # its bias is zero: every kernel is its ellipse alone
    with torch.no_grad():
        predictions = network(torch.zeros(1, 3, *hw))
    logits = tuple(torch.full_like(x, -9) for x in predictions.category_logits)
    logits[level][0, 1, -1, -1] = 5
    [found] = decode(replace(predictions, category_logits=logits), [Frame(hw, hw, hw)])

    assert found.labels.tolist() == [1]
    stride, (rows, columns_) = predictions.strides[level], logits[level].shape[-2:]
    y, x = np.ogrid[: hw[0], : hw[1]]
    to_centre = np.hypot(y + 0.5 - (rows - 0.5) * stride, x + 0.5 - (columns_ - 0.5) * stride)
    expected = to_centre < START_RADIUS * stride
    assert (found.masks[0] & expected).sum() / (found.masks[0] | expected).sum() > 0.9


def test_ellipses_take_the_place_of_their_coefficients() -> None:
    config = load_config("nano", ["num_classes=3"])
    network = build_model(config).eval()
    for output in network.grid_head.category_output:  # type: ignore[union-attr]
        torch.nn.init.zeros_(output.bias)  # type: ignore[arg-type]
    with torch.inference_mode():
        found = network(torch.randn((2, 3, 96, 128), generator=torch.Generator().manual_seed(0)))
    (features, maps), (summed_features, summed_maps) = mask_maps(found), mask_maps(replace(found, ellipses=()))
    assert summed_features is found.mask_features
    assert features.shape[1] == summed_features.shape[1] - TERMS
    for ours, summed in zip(maps, summed_maps, strict=True):
        probs = mask_probs(ours[1].flatten(1).mT, features[1])
        torch.testing.assert_close(probs, mask_probs(summed[1].flatten(1).mT, summed_features[1]), rtol=0, atol=1e-3)
    frames = [Frame((96, 128), (96, 128), (96, 128))] * 2
    for one, other in zip(decode(found, frames), decode(replace(found, ellipses=()), frames), strict=True):
        assert len(one) == len(other) > 0
        assert np.abs(np.sort(one.scores) - np.sort(other.scores)).max() < 1e-2
