"""PaddleDetection's `LearningRate.schedulers`: a decay and a warm-up, told apart by name."""

from __future__ import annotations

from typing import Any

from solov2.config.schema import PiecewiseSchedule
from solov2.config.translate import Ignored, Only, Rules, Take, Translation, shown
from solov2.config.yaml_tree import Path

_DECAYS: dict[str, Rules] = {
    "PiecewiseDecay": {
        "gamma": Take("optim.schedule.factors"),
        "milestones": Take("optim.schedule.milestones"),
        "values": Only((None,), "state gamma, the multiples of base_lr"),
        "use_warmup": Ignored(),
    },
    "CosineDecay": {
        "max_epochs": Take("optim.schedule.max_epochs"),
        "min_lr_ratio": Take("optim.schedule.min_lr_ratio"),
        "last_plateau_epochs": Take("optim.schedule.plateau_epochs"),
        "flat_epochs": Take("optim.schedule.flat_epochs"),
        "use_warmup": Ignored(),
    },
}
_WARMUPS: dict[str, Rules] = {
    "LinearWarmup": {
        "steps": Take("optim.warmup.steps"),
        "start_factor": Take("optim.warmup.start_factor"),
        "epochs": Take("optim.warmup.epochs"),
        "epochs_first": Only((True,), "leave epochs out to count in steps"),
    },
    "ExpWarmup": {
        "steps": Take("optim.warmup.steps"),
        "power": Take("optim.warmup.power"),
        "epochs": Take("optim.warmup.epochs"),
    },
}
_KINDS = {"PiecewiseDecay": "piecewise", "CosineDecay": "cosine", "LinearWarmup": "linear", "ExpWarmup": "exp"}


def expand_schedulers(state: Translation, path: Path, value: Any) -> None:
    """Sets optim.schedule and optim.warmup from a list of one decay and at most one warm-up."""
    if not isinstance(value, list):
        state.failed |= {"optim.schedule", "optim.warmup"}
        state.complain(path, f"expected a list of a decay and, if wanted, a warm-up, got {shown(value)}")
        return
    state.give("optim.warmup", None, path)
    decays, understood = [], True
    for index, entry in enumerate(value):
        here = (*path, index)
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in _KINDS:
            understood = False
            state.complain(here, f"expected one of {', '.join(_KINDS)}, got {shown(entry if name is None else name)}")
        elif name in _DECAYS:
            decays.append((here, entry))
        else:
            _expand_warmup(state, here, entry)
    if len(decays) == 1:
        _expand_decay(state, *decays[0])
    elif understood:
        state.complain(path, f"expected exactly one of {' and '.join(_DECAYS)}, got {len(decays)}")


def _expand_decay(state: Translation, path: Path, entry: dict[str, Any]) -> None:
    name = entry["name"]
    schedule = _fields(state, path, entry, _DECAYS[name])
    if name == "PiecewiseDecay" and type(gamma := schedule.get("factors")) in (int, float):
        milestones = schedule.get("milestones", list(PiecewiseSchedule().milestones))
        # One gamma stands for gamma, gamma/10, gamma/100 ... times base_lr; it is no power of gamma.
        count = len(milestones) if isinstance(milestones, list) else 1
        schedule["factors"] = [gamma / 10**index for index in range(count)]
    state.give("optim.schedule", {"kind": _KINDS[name], **schedule}, path)
    state.places["optim.schedule.max_epochs"] = (*path, "max_epochs")  # the one that must not be left out
    use_warmup = entry.get("use_warmup", True)
    if not isinstance(use_warmup, bool):
        state.complain((*path, "use_warmup"), f"expected true or false, got {shown(use_warmup)}")
    elif not use_warmup:
        state.settings["optim.warmup"] = None
        state.places["optim.warmup"] = (*path, "use_warmup")


def _expand_warmup(state: Translation, path: Path, entry: dict[str, Any]) -> None:
    if state.settings["optim.warmup"] is not None:
        state.complain(path, "a second warm-up: keep one")
        return
    name = entry["name"]
    warmup = _fields(state, path, entry, _WARMUPS[name])
    if name == "ExpWarmup" and not warmup.keys() & {"steps", "epochs"}:
        state.complain(path, "ExpWarmup needs steps or epochs")
    state.settings["optim.warmup"] = {"kind": _KINDS[name], **warmup}
    state.places["optim.warmup"] = path


def _fields(state: Translation, path: Path, entry: dict[str, Any], rules: Rules) -> dict[str, Any]:
    """Walks one entry; returns its settings by field name, and leaves only their places with the recipe's."""
    inner = Translation(state.source, state.tree, state.problems)
    inner.walk({key: value for key, value in entry.items() if key != "name"}, rules, path)
    state.places |= inner.places
    return {target.rpartition(".")[2]: value for target, value in inner.settings.items()}
