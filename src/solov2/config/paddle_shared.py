"""PaddleDetection's keys that one block of a recipe says for another.

Shared keys, `norm_type` and `num_classes`, stand at the top and hold for the blocks that have no value of their own.
Injected keys name another block, `mask_nms: MaskMatrixNMS`, or hold it, `mask_nms: {name: MaskMatrixNMS, sigma: 1}`;
what is held wins over the block of that name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from solov2.config.schema import ModelConfig
from solov2.config.translate import Expand, Only, Rule, Rules, Take, Translation, one_of, shown
from solov2.config.yaml_tree import Path, key_text

logger = logging.getLogger(__name__)

HEAD, MASK = "SOLOv2Head", "SOLOv2MaskHead"
NORMS = {"bn": False, "sync_bn": True}
INJECTED = {"solov2_loss": "SOLOv2Loss", "mask_nms": "MaskMatrixNMS"}
READERS = ("TrainReader", "EvalReader", "TestReader")
_CLASSES = "num_classes"


def settle(state: Translation, values: dict[str, Any]) -> dict[str, Any]:
    """Leaves out of a recipe what another of its blocks overrules, and says so where they differ.

    Args:
        state: of the recipe.
        values: its keys; not changed.
    """
    settled, head = dict(values), _block(values, HEAD)
    for key, name in INJECTED.items():
        held, block = head.get(key), values.get(name)
        if isinstance(held, dict) and isinstance(block, dict):
            settled[name] = {inner: value for inner, value in block.items() if inner not in held}
            for inner in block.keys() & held.keys():
                _tell(state, (HEAD, key, inner), held[inner], (name, inner), block[inner])
    if _CLASSES in head and _CLASSES in settled:
        _tell(state, (HEAD, _CLASSES), head[_CLASSES], (_CLASSES,), settled.pop(_CLASSES))
    classes = head.get(_CLASSES, settled.get(_CLASSES, ModelConfig().num_classes))
    for reader in READERS:
        if (own := _block(values, reader).get(_CLASSES, classes)) != classes:
            logger.warning(
                "%s: %s.num_classes: %s changes nothing, the model has %s classes",
                state.tree.origin((reader, _CLASSES)),
                reader,
                shown(own),
                shown(classes),
            )
    return settled


def _block(values: dict[str, Any], name: str) -> dict[str, Any]:
    block = values.get(name)
    return block if isinstance(block, dict) else {}


def _tell(state: Translation, winner: Path, value: Any, loser: Path, lost: Any) -> None:
    if value != lost:
        logger.warning(
            "%s: %s: %s holds, and not %s: %s (%s)",
            state.tree.origin(winner),
            key_text(winner),
            shown(value),
            key_text(loser),
            shown(lost),
            state.tree.origin(loser),
        )


def native_to_empty(value: Any) -> Any:
    """`num_grids: native`: each pyramid map is a grid."""
    return [] if value == "native" else value


def expand_norm_type(state: Translation, path: Path, value: Any) -> None:
    """The norm at the top, for the backbone and both heads, each unless it has its own."""
    if value is None:
        return
    if "norm_type" not in _block(state.tree.values, "ResNet") and _chosen_backbone(state) == "ResNet":
        if value == "gn":
            state.complain(path, '"gn" would also be the backbone\'s, which has batch norms: state ResNet.norm_type')
        state.apply(Take("model.backbone.sync_norm", one_of(NORMS | {"gn": False})), path, value)
    for block, target in ((HEAD, "model.grid_head.norm"), (MASK, "model.mask_branch.norm")):
        if "norm_type" not in _block(state.tree.values, block):
            state.apply(Take(target, one_of({norm: norm for norm in (*NORMS, "gn")})), path, value)


def _chosen_backbone(state: Translation) -> str:
    return str(_block(state.tree.values, "SOLOv2").get("backbone", "ResNet"))


def injected_rules(rules: Callable[[], Rules]) -> dict[str, Rule]:
    """Rules for the injected keys; `rules` gives the whole table, which is not there yet when they are made."""
    return {f"{HEAD}.{key}": Expand(_expand_injected(name, rules)) for key, name in INJECTED.items()}


def _expand_injected(name: str, rules: Callable[[], Rules]) -> Callable[[Translation, Path, Any], None]:
    def expand(state: Translation, path: Path, value: Any) -> None:
        if isinstance(value, dict):
            state.walk({key: item for key, item in value.items() if key != "name"}, rules(), path, f"{name}.")
            value = value.get("name", name)
        state.apply(Only((name,), f"use {name}"), path, value)

    return expand
