"""NanoDet-Plus-m, the detector, as the parts of our network that it shares: backbone, neck and category towers.

The arrays (``.npz``, ``Conv_N.weight`` and ``Conv_N.bias`` in the graph's order) have batch norm
folded into the convolutions. It is rebuilt here: first as the identity plus the bias, then, from
pictures, with the statistics the layers really see, so that training can go on from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from solov2.errors import WeightsError
from solov2.model.ghost_pan import GhostPAN
from solov2.model.layers import ConvNorm
from solov2.model.separable_head import SeparableHead
from solov2.model.solov2 import SOLOv2


def load_nanodet(model: SOLOv2, path: Path) -> None:
    """Loads the arrays; in evaluation mode the shared parts compute the same function.

    NanoDet reads BGR with the usual mean and standard deviation per colour: turning the stem's
    input channels around makes that RGB. Its last convolutions give category logits and box
    distances: the latter are left out. Kernel towers begin as the category towers, which know where
    an object ends since they also predict its box.

    Args:
        model: the ``nano`` network for COCO's 80 classes, with trainable batch norm.
        path: the ``.npz`` file.

    Raises:
        WeightsError: if the arrays are not those of this network.
    """
    try:
        arrays = np.load(path, allow_pickle=False)
        names = [name.removesuffix(".weight") for name in arrays.files if name.endswith(".weight")]
    except (OSError, EOFError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path}: not a readable .npz file of arrays ({error})") from None
    layers = _layers(model)
    if len(names) != len(layers):
        raise WeightsError(f"{path}: has {len(names)} convolutions; expected {len(layers)}")
    for number, (layer, name) in enumerate(zip(layers, names, strict=True)):
        weight, bias = torch.from_numpy(arrays[f"{name}.weight"]), torch.from_numpy(arrays[f"{name}.bias"])
        conv = layer.conv if isinstance(layer, ConvNorm) else layer
        if isinstance(layer, nn.Conv2d):
            weight, bias = weight[: len(layer.weight)], bias[: len(layer.weight)]
        if weight.shape != conv.weight.shape:
            raise WeightsError(
                f"{path}: {name} has shape {tuple(weight.shape)}; expected {tuple(conv.weight.shape)}, "
                "the next convolution of NanoDet-Plus-m"
            )
        _set(layer, weight.flip(1) if number == 0 else weight, bias)
    model.grid_head.kernel_tower.load_state_dict(model.grid_head.category_tower.state_dict())


def _layers(model: SOLOv2) -> list[ConvNorm | nn.Conv2d]:
    """Convolutions in the order of NanoDet-Plus-m's graph."""
    neck, head = model.fpn, model.grid_head
    assert isinstance(neck, GhostPAN)
    assert isinstance(head, SeparableHead)
    parts: list[nn.Module] = [model.backbone, neck.reduce, *neck.top_down]
    for down, block in zip(neck.down, neck.bottom_up, strict=True):
        parts += [down, block]
    parts += [neck.extra_in, neck.extra_out]
    layers: list[ConvNorm | nn.Conv2d] = [m for part in parts for m in part.modules() if isinstance(m, ConvNorm)]
    for tower, output in zip(head.category_tower, head.category_output, strict=True):
        layers += [m for m in tower.modules() if isinstance(m, ConvNorm)]
        assert isinstance(output, nn.Conv2d)
        layers.append(output)
    return layers


@torch.no_grad()
def _set(layer: ConvNorm | nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    if isinstance(layer, nn.Conv2d):
        assert layer.bias is not None
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        return
    norm = layer.norm
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    layer.conv.weight.copy_(weight)
    norm.running_mean.zero_()
    norm.running_var.fill_(1)
    norm.weight.fill_((1 + norm.eps) ** 0.5)
    norm.bias.copy_(bias)


@torch.no_grad()
def rebuild_batch_norm(backbone: nn.Module, batches: Iterable[Tensor]) -> None:
    """Gives every batch norm the statistics of its input without changing what it computes.

    Args:
        backbone: in evaluation mode.
        batches: normalised pictures (B, 3, H, W); as all are held to one function, one pass does.
    """
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    sums: dict[nn.Module, Tensor] = {}

    def collect(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].double().transpose(0, 1).flatten(1)
        seen = torch.stack([torch.full((len(x),), x.shape[1]), x.sum(dim=1), (x * x).sum(dim=1)])
        sums[module] = sums[module] + seen if module in sums else seen

    hooks = [norm.register_forward_pre_hook(collect) for norm in norms]
    for images in batches:
        backbone(images)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        count, total, squares = sums[norm]
        mean = total / count
        _keep_function(norm, mean.float(), (squares / count - mean**2).clamp(min=0).float())


def _keep_function(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    slope = norm.weight / (norm.running_var + norm.eps).sqrt()
    norm.bias.copy_(norm.bias + (mean - norm.running_mean) * slope)
    norm.weight.copy_(slope * (var + norm.eps).sqrt())
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(var)
