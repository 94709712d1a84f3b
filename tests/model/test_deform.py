"""Deformable convolution in every form against PaddleDetection's frozen numbers, and the forms against each other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from solov2.model import deform, row_sums
from solov2.model.deform import DeformConv2d, by_grid_sample, deform_conv2d
from solov2.model.row_sums import Geometry, by_row_sums

COMPONENTS = Path(__file__).parents[1] / "parity" / "components.npz"
FORMS = {"rows": by_row_sums, "grid": by_grid_sample}
STRIDES = {"dcn3x3": 1, "dcn1x1": 1, "dcn3x3s2": 2, "dcn3x3far": 1}


@pytest.fixture(scope="module")
def frozen() -> Any:
    return np.load(COMPONENTS)


def from_frozen(frozen: Any, case: str, form: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> DeformConv2d:
    """The frozen layer, computed in one form."""
    monkeypatch.setattr(deform, "deform_conv2d", form)
    arrays = {name: torch.from_numpy(frozen[f"{case}/{name}"]) for name in ("w", "b", "w_offset", "b_offset")}
    out_channels, in_channels, size, _ = arrays["w"].shape
    layer = DeformConv2d(in_channels, out_channels, size, stride=STRIDES[case], bias=True)
    names = {"weight": "w", "bias": "b", "offset.weight": "w_offset", "offset.bias": "b_offset"}
    layer.load_state_dict({ours: arrays[theirs] for ours, theirs in names.items()})
    return layer


@pytest.mark.parametrize("sample_first", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", STRIDES)
def test_frozen_outputs_and_gradients(
    frozen: Any, case: str, form: str, sample_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-5 of the largest value: outputs, and gradients of input, weights and biases, those of the offsets too."""
    if sample_first:
        monkeypatch.setattr(row_sums, "_multiplies_first", lambda *_: False)
        monkeypatch.setattr(row_sums, "STRIP_ELEMENTS", 1000)  # several strips
    layer = from_frozen(frozen, case, FORMS[form], monkeypatch)
    x = torch.from_numpy(frozen[f"{case}/x"]).requires_grad_()
    y = layer(x)
    y.backward(torch.from_numpy(frozen[f"{case}/gy"]))
    found = {"y": y, "gx": x.grad, "g_w": layer.weight.grad, "g_b": layer.bias.grad}
    found |= {"g_w_offset": layer.offset.weight.grad, "g_b_offset": layer.offset.bias.grad}
    for name, value in found.items():
        expected = torch.from_numpy(frozen[f"{case}/{name}"])
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-5 * float(expected.abs().max()), msg=name)


def random_case(
    size: int = 3, stride: int = 1, padding: int = 1, dilation: int = 1, groups: int = 1, *, spread: float = 3.0,
    channels: tuple[int, int] = (8, 12), hw: tuple[int, int] = (9, 14), modulated: bool = True,
) -> tuple[list[Tensor], Geometry]:  # fmt: skip
    generator = torch.Generator().manual_seed(7)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).requires_grad_()

    geometry = Geometry((size, size), stride, padding, dilation)
    out_hw = [(side + 2 * padding - dilation * (size - 1) - 1) // stride + 1 for side in hw]
    offsets = (draw(2, 2 * size * size, *out_hw).detach() * spread).requires_grad_()
    factors = torch.rand(2, size * size, *out_hw, generator=generator).requires_grad_() if modulated else None
    inputs = [draw(2, channels[0], *hw), draw(channels[1], channels[0] // groups, size, size), offsets]
    return [*inputs, factors, draw(channels[1])], geometry  # type: ignore[list-item]


CASES = {
    "plain": {},
    "1x1": {"size": 1, "padding": 0},
    "5x5": {"size": 5, "padding": 2},
    "no padding": {"padding": 0},
    "stride 2": {"stride": 2},
    "stride 3, dilation 2": {"stride": 3, "dilation": 2, "padding": 2},
    "dilation 2": {"dilation": 2, "padding": 2},
    "groups": {"groups": 4},
    "groups, stride 2": {"groups": 2, "stride": 2},
    "many outputs": {"channels": (4, 24)},
    "version 1": {"modulated": False},
    "far outside": {"spread": 50.0},
    "one row": {"hw": (1, 14)},
    "one column": {"hw": (9, 1)},
    "one pixel": {"hw": (1, 1)},
}


@pytest.mark.parametrize("case", CASES)
def test_the_forms_agree(case: str) -> None:
    """Outputs and all gradients, by two programs that share only where a tap lies."""
    (x, *others), geometry = random_case(**CASES[case])  # type: ignore[arg-type]
    results = []
    for form in FORMS.values():
        y = form(x, *others, geometry)
        needed = [tensor for tensor in (x, *others) if tensor is not None]
        results.append([y, *torch.autograd.grad(y.square().sum(), needed)])
    for ours, theirs in zip(*results, strict=True):
        scale = float(theirs.detach().abs().max())
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-4 * scale + 1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", ["plain", "stride 2", "dilation 2", "groups", "1x1"])
def test_without_offsets_it_is_a_convolution(form: str, case: str) -> None:
    (x, weight, offsets, _, bias), (_, stride, padding, dilation) = random_case(**CASES[case])  # type: ignore[arg-type]
    geometry = Geometry((weight.shape[2], weight.shape[3]), stride, padding, dilation)
    y = FORMS[form](x, weight, torch.zeros_like(offsets), None, bias, geometry)
    plain = F.conv2d(x, weight, bias, stride, padding, dilation, groups=x.shape[1] // weight.shape[1])
    torch.testing.assert_close(y, plain, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_finite_differences() -> None:
    """Of positions and factors, where no sample lies near a pixel's centre, at which bilinear sampling has a corner."""
    (x, weight, offsets, factors, _), geometry = random_case(hw=(4, 5), channels=(2, 3))
    shares = torch.rand(offsets.shape, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.2
    offsets = (torch.randint(-2, 3, offsets.shape) + shares).requires_grad_()

    def output(offsets: Tensor, factors: Tensor) -> Tensor:
        return by_row_sums(x, weight, offsets, factors, None, geometry).double().sum()

    of_offsets, of_factors = torch.autograd.grad(output(offsets, factors), [offsets, factors])
    step = 2e-2
    of_offsets, of_factors = of_offsets.detach(), of_factors.detach()
    for place in [(0, 3, 1, 2), (1, 10, 3, 4), (0, 17, 0, 0)]:
        shift = torch.zeros_like(offsets)
        shift[place] = step
        slope = (output(offsets + shift, factors) - output(offsets - shift, factors)).detach() / (2 * step)
        assert float(of_offsets[place]) == pytest.approx(float(slope), abs=2e-3)
    for place in [(0, 3, 1, 2), (1, 8, 3, 4)]:
        shift = torch.zeros_like(factors)
        shift[place] = step
        slope = (output(offsets, factors + shift) - output(offsets, factors - shift)).detach() / (2 * step)
        assert float(of_factors[place]) == pytest.approx(float(slope), abs=2e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMS)
def test_half_precision(form: str, dtype: torch.dtype) -> None:
    """Positions stay exact: only values are rounded, by 2^-8 (bfloat16) or 2^-11 (float16) at each of few steps."""
    tensors, geometry = random_case(spread=1.0)
    tensors[2] = (tensors[2].detach() * 8).round() / 8  # offsets that half precision holds exactly
    expected = FORMS[form](*tensors, geometry)
    y = FORMS[form](*(tensor.to(dtype) for tensor in tensors), geometry)
    assert y.dtype == dtype
    error = (y.float() - expected).norm() / expected.norm()
    assert error < {torch.bfloat16: 8e-3, torch.float16: 1e-3}[dtype]
    y.float().square().sum().backward()


def test_autocast() -> None:
    layer = DeformConv2d(8, 12, 3)
    torch.nn.init.normal_(layer.offset.weight, std=0.1)
    x = torch.randn(2, 8, 9, 14, generator=torch.Generator().manual_seed(0))
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert (y.float() - expected).norm() / expected.norm() < 3e-2
    y.float().sum().backward()
    assert layer.offset.weight.grad is not None
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize(("modulated", "share"), [(True, 0.5), (False, 1.0)])
def test_an_untrained_layer_is_a_plain_convolution(modulated: bool, share: float) -> None:
    """Offsets start at zero, and version 2's factors at a half."""
    layer = DeformConv2d(4, 6, 3, modulated=modulated)
    x = torch.randn(1, 4, 7, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), share * F.conv2d(x, layer.weight, padding=1), rtol=1e-5, atol=1e-6)
    assert sum(p.numel() for p in layer.offset.parameters()) == (4 * 9 + 1) * 9 * (3 if modulated else 2)


def test_offsets_that_are_no_numbers_do_no_harm() -> None:
    """A diverged network gives no numbers, but never reads outside its input."""
    (x, weight, offsets, factors, _), geometry = random_case()
    broken = offsets.detach().clone()
    broken[0, 0, 0, 0], broken[0, 2, 1, 1], broken[1, 4, 2, 2] = float("nan"), float("inf"), -float("inf")
    y = by_row_sums(x, weight, broken.requires_grad_(), factors, None, geometry)
    assert y[0, :, 0, 0].isnan().all()
    assert y[1].isfinite().all()
    y.nan_to_num().sum().backward()


def test_the_exported_form_needs_no_custom_operation() -> None:
    layer = DeformConv2d(4, 6, 3).eval()
    torch.nn.init.normal_(layer.offset.weight, std=0.1)
    x = torch.randn(1, 4, 7, 9, generator=torch.Generator().manual_seed(0))
    exported = torch.export.export(layer, (x,))
    names = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert any("grid_sampl" in name for name in names)
    assert not any("embedding_bag" in name for name in names)
    torch.testing.assert_close(exported.module()(x), layer(x), rtol=1e-4, atol=1e-5)


def torchvisions(
    input: Tensor,  # torchvision's names, order and defaults
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """A stand-in for torchvision's function, which like it takes only tensors of one format."""
    assert {t.dtype for t in (input, offset, weight, bias, mask) if t is not None} == {torch.float32}
    geometry = Geometry((weight.shape[2], weight.shape[3]), stride, padding, dilation)
    return by_row_sums(input, weight, offset, mask, bias, geometry)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", ["stride 3, dilation 2", "no padding", "version 1", "groups"])
def test_torchvisions_kernel_is_given_everything(
    case: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 whatever the network's format: half precision would shift the samples."""
    module = ModuleType("torchvision.ops")
    monkeypatch.setattr(module, "deform_conv2d", torchvisions, raising=False)
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.ops", module)
    form = deform._torchvision_form.__wrapped__()
    assert form is not None
    tensors, geometry = random_case(**CASES[case])  # type: ignore[arg-type]
    inputs = [None if tensor is None else tensor.detach().to(dtype) for tensor in tensors]
    exact = [None if tensor is None else tensor.float() for tensor in inputs]
    y = form(*inputs, geometry)
    assert y.dtype == dtype
    torch.testing.assert_close(y, by_row_sums(*exact, geometry).to(dtype))  # type: ignore[arg-type]


def test_torchvisions_kernel_is_for_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other devices may lack it."""
    monkeypatch.setattr(deform, "_torchvision_form", lambda: pytest.fail("was asked for"))
    assert DeformConv2d(4, 6, 3, stride=2).to("meta")(torch.zeros(1, 4, 8, 8, device="meta")).shape == (1, 6, 4, 4)


def test_nothing_but_the_inputs_is_kept() -> None:
    """The backward pass makes products and samples again: they are nine times the input."""
    (x, weight, offsets, factors, _), geometry = random_case(hw=(40, 40), channels=(16, 16))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        by_row_sums(x, weight, offsets, factors, None, geometry)
    assert max(kept) <= max(x.numel(), offsets.numel())
    assert deform_conv2d(x, weight, offsets, factors, None, geometry).requires_grad
