"""PaddleDetection's `OptimizerBuilder`: an optimizer by name, its decay, and the clipping of gradients."""

from __future__ import annotations

from typing import Any

from solov2.config.translate import Expand, Ignored, Only, Rule, Take, Translation, one_of, shown
from solov2.config.yaml_tree import Path

OPTIMIZERS = {"SGD": "sgd", "Momentum": "sgd", "AdamW": "adamw"}
_BUILDER = "OptimizerBuilder"
_FIXED = "this version's optimizer has it fixed; leave it out"


def optimizer_rules() -> dict[str, Rule]:
    """Every key of the block; `uniform` is our own."""
    optimizer = f"{_BUILDER}.optimizer"
    return {
        f"{_BUILDER}.uniform": Take("optim.uniform"),
        f"{_BUILDER}.clip_grad_by_norm": Take("optim.clip_norm"),
        f"{_BUILDER}.clip_grad_by_value": Take("optim.clip_value"),
        f"{_BUILDER}.regularizer": Expand(_expand_regularizer),
        f"{optimizer}.type": Expand(_expand_type),
        f"{optimizer}.momentum": Expand(_expand_momentum),
        f"{optimizer}.weight_decay": Expand(_expand_decay),
        f"{optimizer}.use_nesterov": Only((False,), "use false"),
        f"{optimizer}.beta1": Only((0.9,), _FIXED),
        f"{optimizer}.beta2": Only((0.999,), _FIXED),
        f"{optimizer}.epsilon": Only((1e-8,), _FIXED),
        f"{optimizer}.param_groups": Only((None, []), "the backbone's stages have ResNet.lr_mult_list"),
    }


def _expand_type(state: Translation, path: Path, value: Any) -> None:
    state.apply(Take("optim.kind", one_of(OPTIMIZERS)), path, value)
    if value == "SGD":
        state.give("optim.momentum", 0.0, path)
    if value == "AdamW" and "weight_decay" not in state.tree.values[_BUILDER]["optimizer"]:
        state.complain(path, "AdamW needs OptimizerBuilder.optimizer.weight_decay: state it, e.g. 0.05")


def _kind(state: Translation) -> str:
    optimizer = state.tree.values[_BUILDER].get("optimizer")
    return str(optimizer.get("type", "Momentum")) if isinstance(optimizer, dict) else "Momentum"


def _expand_momentum(state: Translation, path: Path, value: Any) -> None:
    # A file that changes only the type inherits its base's momentum, which the others do not have.
    plain = _kind(state) in ("SGD", "AdamW")
    state.apply(Ignored() if plain else Take("optim.momentum"), path, value)


def _expand_decay(state: Translation, path: Path, value: Any) -> None:
    if _kind(state) == "AdamW":
        state.give("optim.weight_decay", value, path)
    elif _kind(state) in OPTIMIZERS:  # a type that is not known is complained about on its own
        state.complain(path, "belongs to AdamW; for other optimizers state OptimizerBuilder.regularizer.factor")


def _expand_regularizer(state: Translation, path: Path, value: Any) -> None:
    if _kind(state) == "AdamW":  # its decay is the optimizer's own
        state.apply(Ignored(), path, value)
    elif value in (None, False, "None"):
        state.give("optim.weight_decay", 0.0, path)
    elif isinstance(value, dict):
        rules: dict[str, Rule] = {
            "type": Only(("L2",), "use L2"),
            "factor": Take("optim.weight_decay"),
        }
        state.walk(value, rules, path)
    else:
        state.complain(path, f"expected a mapping such as {{type: L2, factor: 0.0001}} or null, got {shown(value)}")
