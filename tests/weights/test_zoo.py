from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from torch import Tensor, nn

from solov2 import build_model, load_config
from solov2.config import shipped_recipes
from solov2.errors import WeightsError
from solov2.model.deform import DeformConv2d
from solov2.weights import zoo
from solov2.weights.files import read_weights
from solov2.weights.finding import find_weights
from solov2.weights.zoo import APACHE, NON_COMMERCIAL, ZOO, ZooEntry, entry_of_url, find_entry, zoo_entry

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"
STRIDE = 32
LONG_TO_SHORT = 5 / 3
SMALL_PICTURE = 256
"""Sides of most pictures for which a recipe states a lowest scale."""

every_entry = pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.name)


# --------------------------------------------------------------------------------------------- the table


def test_names_are_unique() -> None:
    names = [name for entry in ZOO for name in (entry.name, *entry.aliases)]
    assert len(set(names)) == len(names)


def test_the_three_sources_and_ours() -> None:
    counts = {source: sum(entry.source == source for entry in ZOO) for source in {entry.source for entry in ZOO}}
    assert counts == {"PaddleDetection": 4, "authors (WXinlong/SOLO)": 9, "AdelaiDet": 2, "this package": 2}


@every_entry
def test_addresses(entry: ZooEntry) -> None:
    if entry.shipped:
        assert (entry.url, entry.file_name) == ("", "")
        return
    parts = urlsplit(entry.url)
    assert parts.scheme == "https"
    assert parts.hostname in ("paddledet.bj.bcebos.com", "huggingface.co")
    assert "/blob/" not in parts.path  # a page about the file
    assert entry.file_name.endswith((".pdparams", ".pth"))
    assert sum(entry.url == other.url for other in ZOO) == 1
    assert entry_of_url(entry.url) is entry


@every_entry
def test_licences(entry: ZooEntry) -> None:
    free = entry.source in ("PaddleDetection", "this package")
    assert entry.licence == (APACHE if free else NON_COMMERCIAL)
    assert entry.commercial is free


@pytest.mark.parametrize(
    ("name", "ap", "split"),
    [
        ("solov2_r50_fpn_1x_coco", 35.5, "val2017"),
        ("solov2_r50_fpn_3x_coco", 38.0, "val2017"),
        ("solov2_r101_vd_fpn_3x_coco", 42.7, "val2017"),
        ("solov2_r50_enhance_coco", 39.0, "val2017"),
        ("solov2_r50_fpn_8gpu_1x", 34.8, "minival"),
        ("solov2_x101_dcn_fpn_8gpu_3x", 42.4, "minival"),
        ("solov2_light_512_dcn_r50_fpn_8gpu_3x", 36.4, "minival"),
        ("adelaidet_R50_3x", 37.6, "not stated"),
        ("adelaidet_R101_3x", 39.0, "not stated"),
    ],
)
def test_published_ap(name: str, ap: float, split: str) -> None:
    assert (zoo_entry(name).ap, zoo_entry(name).split) == (ap, split)


@pytest.mark.parametrize("name", ["solov2_nano_coco", "solov2_nano_nuclei"])
def test_the_shipped_models_are_there(name: str) -> None:
    entry = zoo_entry(name)
    assert entry.shipped
    state = read_weights(find_weights(entry.name)).state
    stored = sum(tensor.numel() for name, tensor in state.items() if "running_" not in name)
    assert stored == entry.parameters


def test_entries_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ZOO[0].ap = 99.9  # type: ignore[misc]


# -------------------------------------------------------------------------------- against built models


def count_macs(model: nn.Module, height: int, width: int) -> int:
    """Multiply-adds of the convolutions: each output number takes as many as one filter has weights."""
    total = 0

    def add(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | DeformConv2d)
        total += output.numel() * module.weight[0].numel()

    handles = [
        module.register_forward_hook(add) for module in model.modules() if isinstance(module, nn.Conv2d | DeformConv2d)
    ]
    with torch.no_grad():
        model(torch.empty(1, 3, height, width, device="meta"))
    for handle in handles:
        handle.remove()
    return total


def test_the_count_itself() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, padding=1), DeformConv2d(8, 6, 3, groups=2), nn.Conv2d(6, 5, 1))
    offsets, deformed = 8 * 27 * 9, 4 * 6 * 9  # 27: two offsets and a factor per tap
    expected = (3 * 8 * 9 + offsets + deformed + 6 * 5) * (4 * 6)
    assert count_macs(model.to("meta"), 8, 12) == expected


@every_entry
def test_parameters_and_macs(entry: ZooEntry) -> None:
    assert entry.recipe in shipped_recipes()
    with torch.device("meta"):
        model = build_model(load_config(entry.recipe)).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.parameters
    assert count_macs(model, *entry.test_hw) / 1e9 == pytest.approx(entry.gmacs, abs=0.0501)  # a rounded number


@every_entry
def test_the_size_is_the_recipes(entry: ZooEntry) -> None:
    transforms = load_config(entry.recipe).data.test.reader.transforms
    args = next(step.args for step in transforms if step.name == "Resize")
    short, long = args["target_size"]
    short = max(short, (args["min_scale"] or 0) * SMALL_PICTURE)
    ratio = 1.0 if entry.shipped else LONG_TO_SHORT
    height = min(short, long / ratio)
    sides = [math.ceil(round(side) / STRIDE) * STRIDE for side in (height, height * ratio)]
    assert tuple(sides) == entry.test_hw


# --------------------------------------------------------------------------------------------- look-ups


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("solov2_r50_fpn_3x_coco", "solov2_r50_fpn_3x_coco"),
        ("nuclei", "solov2_nano_nuclei"),
        ("SOLOv2_R50_1x", "solov2_r50_fpn_8gpu_1x"),
        ("SOLOv2_X101_DCN_3x", "solov2_x101_dcn_fpn_8gpu_3x"),
        ("adelaidet_R50_3x", "adelaidet_R50_3x"),
        ("R50_3x", None),
        ("nanodet_plus_m", None),
        ("", None),
    ],
)
def test_find_entry(name: str, found: str | None) -> None:
    entry = find_entry(name)
    assert (entry.name if entry else None) == found


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("SOLOv2_R50_3x", ("solov2_r50_fpn_8gpu_3x", "adelaidet_R50_3x")),
        ("SOLOv2_R101_3x", ("solov2_r101_fpn_8gpu_3x", "adelaidet_R101_3x")),
    ],
)
def test_a_name_that_two_published(name: str, ours: tuple[str, str]) -> None:
    with pytest.raises(WeightsError) as caught:
        find_entry(name)
    choices = f"{ours[0]} (authors (WXinlong/SOLO)), {ours[1]} (AdelaiDet)"
    assert str(caught.value) == f"{name!r} is the name of 2 published files; use one of {choices}"


def test_an_unknown_name() -> None:
    with pytest.raises(WeightsError, match="'solov2_r50_fpn_3x' is not in the zoo; did you mean 'solov2_r50_fpn_"):
        zoo_entry("solov2_r50_fpn_3x")
    with pytest.raises(WeightsError, match="'abacus' is not in the zoo; the names are solov2_r50_fpn_1x_coco, "):
        zoo_entry("abacus")


@pytest.mark.parametrize("url", ["", "https://a.example/x.pth", ZOO[0].url + "?x"])
def test_other_addresses_have_no_entry(url: str) -> None:
    assert entry_of_url(url) is None


# --------------------------------------------------------------------------------------------- the page


@every_entry
def test_the_page_says_what_the_table_says(entry: ZooEntry) -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{entry.name}` |")]
    cells = {cell.strip() for line in lines for cell in line.split("|")}
    width_height = f"{entry.test_hw[1]}×{entry.test_hw[0]}"
    assert {f"{entry.parameters / 1e6:.1f}", f"{entry.gmacs:.1f}", width_height} <= cells
    if not entry.shipped:
        assert f"{entry.ap:.1f}" in cells
        assert f"[{entry.file_name}]({entry.url})" in cells


def test_the_page_knows_no_other_model() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert named == {entry.name for entry in zoo.ZOO}
