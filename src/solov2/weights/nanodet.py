"""The backbone of NanoDet-Plus-m as our ShuffleNetV2.

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
from solov2.model.layers import ConvNorm
from solov2.model.shufflenet import ShuffleNetV2


def load_nanodet(backbone: ShuffleNetV2, path: Path) -> None:
    """Loads the arrays; in evaluation mode the backbone computes the same function.

    NanoDet reads BGR with the usual mean and standard deviation per colour: turning the stem's
    input channels around makes that RGB.

    Args:
        backbone: with trainable batch norm.
        path: the ``.npz`` file.

    Raises:
        WeightsError: if the arrays are not those of this backbone.
    """
    try:
        arrays = np.load(path, allow_pickle=False)
        names = [name.removesuffix(".weight") for name in arrays.files if name.endswith(".weight")]
    except (OSError, EOFError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path}: not a readable .npz file of arrays ({error})") from None
    layers = [module for module in backbone.modules() if isinstance(module, ConvNorm)]
    for number, (layer, name) in enumerate(zip(layers, names, strict=False)):
        weight, bias = torch.from_numpy(arrays[f"{name}.weight"]), torch.from_numpy(arrays[f"{name}.bias"])
        if weight.shape != layer.conv.weight.shape:
            raise WeightsError(
                f"{path}: {name} has shape {tuple(weight.shape)}; expected {tuple(layer.conv.weight.shape)}, "
                "the next convolution of ShuffleNetV2 1.0x"
            )
        _set(layer, weight.flip(1) if number == 0 else weight, bias)
    if len(names) < len(layers):
        raise WeightsError(f"{path}: has {len(names)} convolutions; expected {len(layers)} or more")


@torch.no_grad()
def _set(layer: ConvNorm, weight: Tensor, bias: Tensor) -> None:
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
