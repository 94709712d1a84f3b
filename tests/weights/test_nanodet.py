from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from solov2.build import build_model
from solov2.config import load_config
from solov2.errors import WeightsError
from solov2.model.separable_head import SeparableHead
from solov2.model.solov2 import SOLOv2
from solov2.weights.nanodet import load_nanodet, rebuild_batch_norm
from tests.weights.ncnn_graph import random_arrays, run


def nano() -> SOLOv2:
    return build_model(load_config("solov2_nano_coco", ["freeze=[]"])).eval()


def write(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.randn((2, 3, 128, 192), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def arrays() -> dict[str, Any]:
    return random_arrays(0)


@torch.no_grad()
def check_same(model: SOLOv2, arrays: dict[str, Any], pictures: Tensor, share: float) -> None:
    """Category logits of our network against those of the graph, which reads BGR."""
    found = model(pictures).category_logits
    for ours, theirs in zip(found, run(arrays, pictures.flip(1)), strict=True):
        assert ours.shape[2:] == theirs.shape[2:]
        expected = theirs[:, :80]
        assert (ours - expected).norm() <= share * expected.norm()


def test_the_function_is_the_graphs(tmp_path: Path, arrays: dict[str, Any], pictures: Tensor) -> None:
    model = nano()
    load_nanodet(model, write(tmp_path / "a.npz", arrays))
    check_same(model, arrays, pictures, 1e-4)
    with pytest.raises(AssertionError):
        check_same(model, random_arrays(1), pictures, 0.5)

    rebuild_batch_norm(model, pictures.split(1))
    check_same(model, arrays, pictures, 1e-3)
    other = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(2))
    check_same(model, arrays, other, 1e-3)  # not only on the pictures that gave the statistics


def test_kernel_towers_begin_as_category_towers(tmp_path: Path, arrays: dict[str, Any]) -> None:
    model = nano()
    load_nanodet(model, write(tmp_path / "a.npz", arrays))
    head = model.grid_head
    assert isinstance(head, SeparableHead)
    x = torch.randn((1, 96, 8, 8), generator=torch.Generator().manual_seed(3))
    for one, other in zip(head.category_tower, head.kernel_tower, strict=True):
        assert torch.equal(one(x), other(x))


def test_rebuilt_statistics_are_those_of_training(tmp_path: Path, arrays: dict[str, Any], pictures: Tensor) -> None:
    model = nano()
    load_nanodet(model, write(tmp_path / "a.npz", arrays))
    with torch.no_grad():
        before = model.backbone(pictures)
        assert (model.backbone.train()(pictures)[-1] - before[-1]).norm() > 0.1 * before[-1].norm()  # they were not
    load_nanodet(model.eval(), tmp_path / "a.npz")
    rebuild_batch_norm(model, [pictures])
    with torch.no_grad():
        for trained, kept in zip(model.backbone.train()(pictures), before, strict=True):
            assert (trained - kept).norm() <= 1e-3 * kept.norm()


def test_hooks_are_gone_afterwards(pictures: Tensor) -> None:
    model = nano()
    rebuild_batch_norm(model, [pictures[:1]])
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_arrays_of_another_network(tmp_path: Path, arrays: dict[str, Any]) -> None:
    changed = {**arrays, "Conv_3.weight": np.zeros((1, 2, 3, 3), np.float32)}
    with pytest.raises(WeightsError, match=r"a\.npz: Conv_3 has shape \(1, 2, 3, 3\); expected \(24, 1, 3, 3\)"):
        load_nanodet(nano(), write(tmp_path / "a.npz", changed))


def test_too_few_arrays(tmp_path: Path, arrays: dict[str, Any]) -> None:
    few = {name: arrays[name] for name in list(arrays)[:10]}
    with pytest.raises(WeightsError, match=r"has 5 convolutions; expected 1\d\d$"):
        load_nanodet(nano(), write(tmp_path / "a.npz", few))


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_no_arrays_at_all(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.npz: not a readable \.npz file of arrays"):
        load_nanodet(nano(), path)


def test_a_single_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(WeightsError, match=r"not a readable \.npz file of arrays"):
        load_nanodet(nano(), tmp_path / "a.npy")
