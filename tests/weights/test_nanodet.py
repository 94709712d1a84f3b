from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from solov2.errors import WeightsError
from solov2.model.layers import ConvNorm
from solov2.model.shufflenet import ShuffleNetV2
from solov2.weights.nanodet import load_nanodet, rebuild_batch_norm


def random_backbone(seed: int) -> ShuffleNetV2:
    """In evaluation mode, with norms that do something."""
    torch.manual_seed(seed)
    backbone = ShuffleNetV2()
    for norm in backbone.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return backbone.eval()


@torch.no_grad()
def folded(backbone: ShuffleNetV2) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """The backbone as NanoDet's graph has it: convolutions with bias, the first of which reads BGR."""
    arrays = {}
    layers = [module for module in backbone.modules() if isinstance(module, ConvNorm)]
    for number, layer in enumerate(layers):
        norm = layer.norm
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        slope = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight = layer.conv.weight * slope[:, None, None, None]
        arrays[f"Conv_{3 * number}.weight"] = (weight.flip(1) if number == 0 else weight).numpy()
        arrays[f"Conv_{3 * number}.bias"] = (norm.bias - norm.running_mean * slope).numpy()
    arrays["Conv_999.weight"] = np.zeros((96, 116, 1, 1), np.float32)  # the neck follows; it is not read
    arrays["Conv_999.bias"] = np.zeros(96, np.float32)
    return arrays


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.randn((2, 3, 64, 96), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def check_same(found: ShuffleNetV2, expected: ShuffleNetV2, pictures: Tensor, share: float) -> None:
    for ours, theirs in zip(found(pictures), expected(pictures), strict=True):
        assert (ours - theirs).norm() <= share * theirs.norm()


def test_the_function_stays_the_same(tmp_path: Path, pictures: Tensor) -> None:
    source = random_backbone(0)
    np.savez(tmp_path / "a.npz", **folded(source))  # type: ignore[arg-type]  # NumPy's stub
    backbone = ShuffleNetV2().eval()
    load_nanodet(backbone, tmp_path / "a.npz")
    check_same(backbone, source, pictures, 1e-5)
    with pytest.raises(AssertionError):
        check_same(backbone, random_backbone(1), pictures, 0.5)

    rebuild_batch_norm(backbone, pictures.split(1))
    check_same(backbone, source, pictures, 1e-4)
    other = torch.rand((1, 3, 32, 32), generator=torch.Generator().manual_seed(2))
    check_same(backbone, source, other, 1e-4)  # not only on the pictures that gave the statistics


def test_rebuilt_statistics_are_those_of_training(pictures: Tensor) -> None:
    backbone = random_backbone(0)
    with torch.no_grad():
        before = backbone(pictures)
        assert (backbone.train()(pictures)[-1] - before[-1]).norm() > 0.1 * before[-1].norm()  # they were not
    backbone = random_backbone(0)
    rebuild_batch_norm(backbone, [pictures])
    with torch.no_grad():
        for trained, kept in zip(backbone.train()(pictures), before, strict=True):
            assert (trained - kept).norm() <= 1e-3 * kept.norm()


def test_hooks_are_gone_afterwards(pictures: Tensor) -> None:
    backbone = random_backbone(0)
    rebuild_batch_norm(backbone, [pictures[:1]])
    assert not any(module._forward_pre_hooks for module in backbone.modules())


def test_arrays_of_another_backbone(tmp_path: Path) -> None:
    arrays = folded(random_backbone(0))
    arrays["Conv_3.weight"] = np.zeros((1, 2, 3, 3), np.float32)
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]  # NumPy's stub
    with pytest.raises(WeightsError, match=r"a\.npz: Conv_3 has shape \(1, 2, 3, 3\); expected \(24, 1, 3, 3\)"):
        load_nanodet(ShuffleNetV2(), tmp_path / "a.npz")


def test_too_few_arrays(tmp_path: Path) -> None:
    arrays = folded(random_backbone(0))
    few = {name: arrays[name] for name in list(arrays)[:10]}
    np.savez(tmp_path / "a.npz", **few)  # type: ignore[arg-type]  # NumPy's stub
    with pytest.raises(WeightsError, match=r"has 5 convolutions; expected \d+ or more"):
        load_nanodet(ShuffleNetV2(), tmp_path / "a.npz")


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_no_arrays_at_all(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.npz: not a readable \.npz file of arrays"):
        load_nanodet(ShuffleNetV2(), path)


def test_a_single_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(WeightsError, match=r"not a readable \.npz file of arrays"):
        load_nanodet(ShuffleNetV2(), tmp_path / "a.npy")
