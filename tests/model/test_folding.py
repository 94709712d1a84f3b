import copy

import pytest
import torch
from torch import Tensor, nn

from solov2 import build_model, load_config
from solov2.model.folding import folded
from solov2.model.layers import ConvNorm, EvalBatchNorm2d, FrozenBatchNorm2d, NormFactory, group_norm


def with_statistics(network: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms that do something: means, variances, scales and shifts of trained networks' sizes."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                assert value is not None
                value.uniform_(low, high, generator=generator)
    return network


def test_by_hand() -> None:
    layer = ConvNorm(1, 2, 1, norm=nn.BatchNorm2d)
    assert isinstance(layer.norm, nn.BatchNorm2d)
    layer.norm.eps = 0.0
    layer.conv.weight.data = torch.tensor([3.0, -1.0]).reshape(2, 1, 1, 1)
    layer.norm.running_mean = torch.tensor([1.0, 2.0])
    layer.norm.running_var = torch.tensor([4.0, 0.25])
    layer.norm.weight.data = torch.tensor([2.0, 0.5])
    layer.norm.bias.data = torch.tensor([10.0, -10.0])
    plain = folded(layer)
    assert plain.conv.weight.flatten().tolist() == [3.0, -1.0]  # factors 2 / 2 and 0.5 / 0.5
    assert plain.conv.bias is not None
    assert plain.conv.bias.tolist() == [9.0, -12.0]  # -1 * 1 + 10, -2 * 1 - 10
    assert isinstance(plain.norm, nn.Identity)
    with torch.no_grad():
        assert plain(torch.ones(1, 1, 1, 1)).flatten().tolist() == [12.0, -13.0]


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, EvalBatchNorm2d, FrozenBatchNorm2d])
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2}, {"groups": 8}, {"dcn": 2, "dcn_bias": True}, {"dcn": 1}],
    ids=["plain", "stride 2", "depthwise", "deformable with bias", "deformable"],
)
def test_every_kind_of_layer(norm: NormFactory, options: dict[str, int]) -> None:
    torch.manual_seed(0)
    layer = with_statistics(ConvNorm(8, 8, 3, norm=norm, activation=nn.ReLU(inplace=True), **options)).eval()  # type: ignore[arg-type]
    x = torch.randn(2, 8, 9, 7)
    with torch.no_grad():
        expected, found = layer(x), folded(layer)(x)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    assert not torch.equal(expected, torch.zeros_like(expected))


def test_group_norms_stay() -> None:
    torch.manual_seed(0)
    layer = ConvNorm(4, 32, 3, norm=group_norm).eval()
    plain, x = folded(layer), torch.randn(1, 4, 5, 5)
    assert isinstance(plain.norm, nn.GroupNorm)
    with torch.no_grad():
        assert torch.equal(plain(x), layer(x))


def outputs(network: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found = network(images)
    return [*found.category_logits, *found.kernels, found.mask_features]


@pytest.mark.parametrize("recipe", ["nano", "solov2_r50_enhance_coco"])
def test_whole_networks(recipe: str) -> None:
    torch.manual_seed(0)
    network = with_statistics(build_model(load_config(recipe))).eval()
    before = copy.deepcopy(network.state_dict())
    images = torch.randn(1, 3, 64, 96)
    expected = outputs(network, images)
    plain = folded(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert not plain.training
    for found, wanted in zip(outputs(plain, images), expected, strict=True):
        scale = float(wanted.abs().max())
        torch.testing.assert_close(found / scale, wanted / scale, atol=2e-5, rtol=0)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_what_does_not_change_is_shared() -> None:
    network = build_model(load_config("nano"))
    plain = folded(network)
    own = {tensor.data_ptr() for tensor in network.parameters()}
    names = {name for name, tensor in plain.named_parameters() if tensor.data_ptr() not in own}
    assert any("backbone" in name for name in names)
    assert not any("_output" in name for name in names)  # convolutions without a norm
