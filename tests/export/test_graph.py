from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from solov2.build import DecodeOptions
from solov2.data.collate import normalize
from solov2.decoding import decode
from solov2.export import graph
from solov2.export.graph import ExportGraph, Rows, decode_rows
from solov2.paste import paste_instances
from solov2.structures import Frame, Instances, Predictions

HW = (64, 96)
FRAME = Frame((50, 70), (60, 84), HW)
SIZES = torch.tensor([FRAME.resized_hw] * 3)
OPTIONS: DecodeOptions = {
    "score_threshold": 0.1,
    "mask_threshold": 0.5,
    "pre_nms_top_n": 50,
    "post_nms_top_n": 20,
    "update_threshold": 0.05,
    "decay": "gaussian",
    "sigma": 2.0,
}


def predictions(seed: int = 0, batch: int = 3, shift: float = -2.0) -> Predictions:
    """Two levels, 3 categories; kernels large enough for masks that are sure of themselves."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return Predictions(
        category_logits=(draw(batch, 3, 6, 6) + shift, draw(batch, 3, 4, 4) + shift),
        kernels=(2 * draw(batch, 8, 6, 6), 2 * draw(batch, 8, 4, 4)),
        mask_features=nn.functional.interpolate(draw(batch, 8, 4, 6), (16, 24), mode="bilinear"),
        strides=(8, 16),
    )


def instances(rows: Rows, image: int, frame: Frame = FRAME) -> Instances:
    count = int(rows.counts[image])
    found = rows.labels[image, :count].numpy(), rows.scores[image, :count].numpy()
    return paste_instances(rows.masks[image, :count], *found, frame)


def assert_same(ours: Instances, theirs: Instances) -> None:
    assert ours.labels.tolist() == theirs.labels.tolist()
    torch.testing.assert_close(torch.from_numpy(ours.scores), torch.from_numpy(theirs.scores), rtol=0, atol=1e-5)
    assert (ours.masks == theirs.masks).all()


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"decay": "linear"},
        {"score_threshold": 0.4},
        {"post_nms_top_n": 3},
        {"pre_nms_top_n": 500},  # more than there are cells
        {"pre_nms_top_n": 500, "post_nms_top_n": 400},
        {"update_threshold": 0.3, "sigma": 0.5},
        {"mask_threshold": 0.3},
    ],
)
def test_rows_are_what_decode_finds(changes: Any, static: bool) -> None:
    options: DecodeOptions = {**OPTIONS, **changes}
    given = predictions()
    rows = decode_rows(given, SIZES, options, static=static)
    expected = decode(given, [FRAME] * 3, **options)
    assert any(len(found) > 2 for found in expected)
    for image, found in enumerate(expected):
        count = int(rows.counts[image])
        pasted = paste_instances(
            rows.masks[image, :count],
            rows.labels[image, :count].numpy(),
            rows.scores[image, :count].numpy(),
            FRAME,
            options["mask_threshold"],
        )
        assert_same(pasted, found)


@pytest.mark.parametrize("pre_nms_top_n", [1, 5, 12])
def test_candidates_are_those_of_a_full_search(pre_nms_top_n: int) -> None:
    """Half of the best cells have masks that are too small: decoding then looks at more cells than enter Matrix NMS."""
    options: DecodeOptions = {**OPTIONS, "pre_nms_top_n": pre_nms_top_n}
    given = predictions(shift=0.0)
    for kernels in given.kernels:
        kernels[:, :, ::2] = -10 * given.mask_features.mean(dim=(2, 3))[..., None, None]
    found = decode(given, [FRAME] * 3, **options)
    assert [len(one) for one in found] != [0, 0, 0]
    rows = decode_rows(given, SIZES, options, static=False)
    for image, expected in enumerate(found):
        assert_same(instances(rows, image), expected)
    first = decode_rows(given, SIZES, options, static=True)
    assert any(
        int(first.counts[image]) != len(one) or not np.allclose(first.scores[image, : len(one)], one.scores)
        for image, one in enumerate(found)
    )


def test_no_more_masks_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    options: DecodeOptions = {**OPTIONS, "pre_nms_top_n": 12}
    given = predictions(shift=0.0)
    made = []
    probs = graph._mask_probs
    monkeypatch.setattr(
        graph, "_mask_probs", lambda kernels, maps: made.append(len(kernels[0])) or probs(kernels, maps)
    )
    for room, most in ((0, 12), (20 * 16 * 24, 20), (2**27, 36 + 16)):
        monkeypatch.setattr(graph, "ROOM", room)
        made.clear()
        decode_rows(given, SIZES, options, static=False)
        assert 12 <= made[0] <= most
        assert made[0] == most or room == 2**27


def test_cells_of_native_grids_in_the_padding_say_nothing() -> None:
    options: DecodeOptions = {**OPTIONS, "pre_nms_top_n": 500, "post_nms_top_n": 400}
    given = replace(predictions(), native=True)
    frames = [Frame((50, 70), resized, HW) for resized in ((64, 96), (20, 96), (64, 16))]
    sizes = torch.tensor([frame.resized_hw for frame in frames])
    rows = decode_rows(given, sizes, options, static=False)
    expected = decode(given, frames, **options)
    everywhere = decode(predictions(), frames, **options)
    assert [len(found) for found in expected] != [len(found) for found in everywhere]
    for image, (found, frame) in enumerate(zip(expected, frames, strict=True)):
        assert_same(instances(rows, image, frame), found)


@pytest.mark.parametrize("static", [False, True])
def test_shapes_are_fixed_and_rows_beyond_the_count_are_zero(static: bool) -> None:
    rows = decode_rows(predictions(), SIZES, {**OPTIONS, "score_threshold": 0.5}, static=static)
    assert [tuple(x.shape) for x in rows] == [(3,), (3, 20), (3, 20), (3, 20, 16, 24)]
    assert rows.counts.dtype == rows.labels.dtype == torch.int64
    beyond = torch.arange(20) >= rows.counts[:, None]
    assert beyond.any()
    assert all(not x[beyond].any() for x in (rows.scores, rows.labels, rows.masks))
    assert (rows.scores.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("static", [False, True])
def test_a_picture_with_nothing_is_no_special_case(static: bool) -> None:
    given = predictions()
    for logits in given.category_logits:
        logits[1] = -20
    rows = decode_rows(given, SIZES, OPTIONS, static=static)
    assert rows.counts[1] == 0
    assert rows.counts[0] > 0
    for logits in given.category_logits:
        logits[:] = -20
    assert decode_rows(given, SIZES, OPTIONS, static=static).counts.tolist() == [0, 0, 0]


def test_a_batch_gives_what_single_pictures_give() -> None:
    given = predictions()
    batch = decode_rows(given, SIZES, OPTIONS, static=False)
    for image in range(3):
        alone = Predictions(
            tuple(x[image : image + 1] for x in given.category_logits),
            tuple(x[image : image + 1] for x in given.kernels),
            given.mask_features[image : image + 1],
            given.strides,
        )
        assert_same(instances(decode_rows(alone, SIZES[:1], OPTIONS, static=False), 0), instances(batch, image))


def test_small_masks_are_left_out() -> None:
    """A mask of 4 pixels is smaller than the stride of either level."""
    given = predictions()
    given.mask_features[:] = -1
    given.mask_features[:, :, :2, :2] = 1
    for kernels in given.kernels:
        kernels.abs_()
    assert decode_rows(given, SIZES, OPTIONS, static=False).counts.tolist() == [0, 0, 0]
    given.mask_features[:, :, :3, :5] = 1  # 15 pixels: enough for the level of stride 8
    assert (decode_rows(given, SIZES, OPTIONS, static=False).counts > 0).all()


class Remembers(nn.Module):
    """A network that keeps what it was given."""

    def forward(self, images: Tensor) -> Predictions:
        self.images = images
        return predictions(batch=len(images))


@pytest.mark.parametrize("half", [False, True])
def test_pictures_are_normalised_and_padding_is_zero(half: bool) -> None:
    network, mean, std = Remembers(), [0.4, 0.5, 0.6], [0.2, 0.3, 0.1]
    graph = ExportGraph(network, mean, std, OPTIONS, half=half)  # type: ignore[arg-type]
    images = torch.randint(0, 256, (2, *HW, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    sizes = torch.tensor([[64, 70], [33, 96]])
    graph(images, sizes)
    frames = [Frame(HW, (int(height), int(width)), HW) for height, width in sizes]
    expected = normalize(images.permute(0, 3, 1, 2), frames, mean, std)
    assert network.images.dtype == (torch.float16 if half else torch.float32)
    torch.testing.assert_close(network.images, expected.to(network.images.dtype), rtol=0, atol=0)
