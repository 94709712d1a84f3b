"""Folding: batch norms disappear into the convolutions before them, for prediction.

In evaluation a batch norm is one factor and one summand per channel, the same for every picture. Multiplied into the
weights of the convolution it follows, it costs nothing: scale = gamma / sqrt(var + eps), weight' = weight * scale,
bias' = (bias - mean) * scale + beta (Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", section 3.2). The folded network gives the same numbers but for the rounding of
float32. It cannot be trained further: its statistics are gone.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from solov2.model.layers import ConvNorm

Network = TypeVar("Network", bound=nn.Module)


def folded(network: Network) -> Network:
    """A copy for prediction without batch norms; the network given stays as it is.

    Group norms, whose statistics are a picture's own, stay. Tensors that do not change are shared with the network.

    Args:
        network: in any mode; its stored statistics are what counts.

    Returns:
        The copy, in evaluation mode.
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    copied = copy.deepcopy(network, shared)
    for module in copied.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            weight, bias = _folded_weights(module, module.norm)
            module.conv.weight = nn.Parameter(weight, requires_grad=False)
            module.conv.bias = nn.Parameter(bias, requires_grad=False)
            module.norm = nn.Identity()
    return copied.eval()


@torch.no_grad()
def _folded_weights(module: ConvNorm, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    weight = module.conv.weight
    assert norm.running_mean is not None
    assert norm.running_var is not None
    # In float64, as a small variance makes large factors.
    scale = (norm.running_var.double() + norm.eps).rsqrt() * norm.weight.double()
    shift = -norm.running_mean.double() if module.conv.bias is None else module.conv.bias - norm.running_mean.double()
    bias = shift * scale + norm.bias.double()
    return (weight.double() * scale[:, None, None, None]).to(weight.dtype), bias.to(weight.dtype)
