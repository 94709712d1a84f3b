from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from solov2.config import load_config

Write = Callable[..., Path]
Problems = Callable[..., list[str]]
NORMALIZE = "{NormalizeImage: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], is_scale: true}}"


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("Resize: {target_size: [448, 768]}", {"target_size": (448, 768), "min_scale": None, "keep_ratio": True}),
        ("Resize: {min_scale: 0.5}", {"target_size": (800, 1333), "min_scale": 0.5, "keep_ratio": True}),
        ("Resize: {target_size: 9, keep_ratio: no}", {"target_size": (9, 9), "min_scale": None, "keep_ratio": False}),
        (
            "RandomResize: {target_size: [[1, 2], 3]}",
            {"target_size": ((1, 2), (3, 3)), "min_scale": None, "keep_ratio": True},
        ),
        ("RandomFlip: {}", {"prob": 0.5, "vertical_prob": 0.0}),
        ("RandomRotate90: {prob: 1.0}", {"prob": 1.0}),
    ],
)
def test_transforms(write: Write, operator: str, expected: dict[str, Any]) -> None:
    text = f"TrainReader:\n  sample_transforms: [Decode: {{}}, Poly2Mask: {{}}, {{{operator}}}, {NORMALIZE}, Permute: ]"
    [step] = load_config(write(text)).data.train.reader.transforms
    assert (step.name, step.args) == (operator.partition(":")[0], expected)


def test_normalization_stated_for_0_to_255(write: Write) -> None:
    text = (
        "TestReader: {sample_transforms: [NormalizeImage: {mean: [51, 0, 255], std: [255, 102, 51], is_scale: false}]}"
    )
    normalize = load_config(write(text)).data.normalize
    assert normalize.mean == (0.2, 0.0, 1.0)
    assert normalize.std == (1.0, 0.4, 0.2)


def test_batch_operators(write: Write) -> None:
    text = (
        "TrainReader:\n  batch_transforms:\n    - PadBatch: {pad_to_stride: 64}\n"
        "    - Gt2Solov2Target: {scale_ranges: [[1, 2], [2, 3], [3, 4], [4, 5], [5, 6.5]], coord_sigma: 0.3}\n"
    )
    config = load_config(write(text))
    assert config.data.pad_stride == 64
    assert config.assign.size_ranges[-1] == (5.0, 6.5)
    assert config.assign.center_scale == 0.3


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("Decode", ': expected one operator such as RandomFlip: {prob: 0.5}, got "Decode"'),
        ("{Decode: {}, Permute: {}}", ": expected one operator"),
        ("Decode: {to_rgb: true}", ".Decode.to_rgb: unknown key"),
        ("RandomCrop: {}", ".RandomCrop: RandomCrop is not part of this version; take it out of the list"),
        ("RandomDistort: {}", ".RandomDistort: RandomDistort is not part of this version"),
        ("Rezise: {}", ".Rezise: unknown operator; did you mean Resize?"),
        ("Qqqqq: {}", ".Qqqqq: unknown operator; known are NormalizeImage, Decode"),
        ("PadBatch: {}", ".PadBatch: belongs to batch_transforms"),
        ("Resize: {interp: 2}", ".Resize.interp: 2 is not supported: pictures are resized linearly; use 1"),
        ("Resize: {target_size: [1, 2, 3]}", ".Resize.target_size: expected at most 2 values, got 3: [1, 2, 3]"),
        ("Resize: {target_sise: 3}", ".Resize.target_sise: unknown key; did you mean target_size?"),
        ("Resize: {target_size: ['1', 2]}", '.Resize.target_size[0]: expected a whole number, got "1"'),
        ("RandomResize: ", ".RandomResize.target_size: is required"),
        ("RandomResize: {target_size: [1], random_interp: yes}", ".RandomResize.random_interp: true is not supported"),
        ("RandomFlip: 3", ".RandomFlip: expected a mapping of arguments, got 3"),
        ("RandomFlip: {prob: 3}", ".RandomFlip.prob: expected a number less than or equal to 1, got 3"),
        ("NormalizeImage: {is_scale: 1}", ".NormalizeImage.is_scale: expected true or false, got 1"),
        ("NormalizeImage: {norm_type: none}", '.NormalizeImage.norm_type: "none" is not supported: use mean_std'),
    ],
)
def test_wrong_sample_transforms(problems: Problems, entry: str, message: str) -> None:
    start = f"recipe.yml:2: TrainReader.sample_transforms[1]{message}"
    [line] = problems(f"TrainReader: {{sample_transforms: [{NORMALIZE}, {entry}]}}")
    assert line[: len(start)] == start


def test_positions_are_those_of_the_list_as_written(problems: Problems) -> None:
    entries = f"    - Decode:\n    - {NORMALIZE}\n    - Permute:\n    - RandomFlip:\n        prob: -1"
    [line] = problems(f"TrainReader:\n  sample_transforms:\n{entries}")
    assert line.startswith("recipe.yml:8: TrainReader.sample_transforms[3].RandomFlip.prob: expected a number greater")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample_transforms: 5", "sample_transforms: expected a list of operators, got 5"),
        ("sample_transforms: [Decode: {}]", "sample_transforms: has no NormalizeImage"),
        ("batch_transforms: [RandomFlip: {}]", "batch_transforms[0].RandomFlip: belongs to sample_transforms"),
        ("batch_transforms: [PadBatch: {pad_to_stride: 16}]", "batch_transforms[0].PadBatch.pad_to_stride: expected a"),
        (
            "batch_transforms: [BatchRandomResize: {}]",
            "batch_transforms[0].BatchRandomResize: BatchRandomResize is not",
        ),
        (
            "batch_transforms: [Gt2Solov2Target: {sampling_ratio: 2}]",
            "batch_transforms[0].Gt2Solov2Target.sampling_ratio: 2",
        ),
        (
            "batch_transforms: [Gt2Solov2Target: {coord_sigma: 0}]",
            "batch_transforms[0].Gt2Solov2Target.coord_sigma: expected",
        ),
    ],
)
def test_wrong_readers(problems: Problems, text: str, message: str) -> None:
    start = f"recipe.yml:2: TestReader.{message}"
    [line] = problems(f"TestReader: {{{text}}}")
    assert line[: len(start)] == start


def test_normalization_may_stand_in_the_batch_list(write: Write) -> None:
    text = f"TrainReader: {{sample_transforms: [Decode: {{}}], batch_transforms: [{NORMALIZE}]}}"
    assert load_config(write(text)).data.normalize.mean == (0.485, 0.456, 0.406)
