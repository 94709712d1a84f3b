import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from solov2.config import Config, load_config
from solov2.config.schema_data import TransformConfig
from solov2.data.transforms import TRANSFORMS

Write = Callable[..., Path]
Problems = Callable[..., list[str]]
NORMALIZE = "{NormalizeImage: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], is_scale: true}}"
RESIZE = {"target_size": (800, 1333), "keep_ratio": True, "min_scale": None, "interp": 1}
RANDOM_RESIZE = RESIZE | {"random_range": False, "random_interp": False}
DISTORT = {
    "hue": (-18, 18, 0.5),
    "saturation": (0.5, 1.5, 0.5),
    "contrast": (0.5, 1.5, 0.5),
    "brightness": (0.5, 1.5, 0.5),
    "random_apply": True,
    "count": 4,
    "prob": 1,
    "random_channel": False,
}
CROP = {
    "aspect_ratio": (0.5, 2),
    "thresholds": (0, 0.1, 0.3, 0.5, 0.7, 0.9),
    "scaling": (0.3, 1),
    "num_attempts": 50,
    "allow_no_crop": True,
    "cover_all_box": False,
    "ioumode": "iou",
    "prob": 1,
}


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("Resize: {target_size: [448, 768]}", RESIZE | {"target_size": (448, 768)}),
        ("Resize: {min_scale: 0.5}", RESIZE | {"min_scale": 0.5}),
        ("Resize: {target_size: 9, keep_ratio: no}", RESIZE | {"target_size": (9, 9), "keep_ratio": False}),
        ("Resize: {interp: 2}", RESIZE | {"interp": 2}),
        ("RandomResize: {target_size: [[1, 2], 3]}", RANDOM_RESIZE | {"target_size": ((1, 2), (3, 3))}),
        (
            "RandomResize: {target_size: [4, 5], interp: 0, random_interp: true, random_size: true}",
            RANDOM_RESIZE | {"target_size": ((4, 4), (5, 5)), "interp": 0, "random_interp": True},
        ),
        (
            "RandomResize: {target_size: [[640, 1333], [800, 1333]], random_range: true, random_size: false}",
            RANDOM_RESIZE | {"target_size": ((640, 1333), (800, 1333)), "random_range": True},
        ),
        # Without a list to draw from, target_size is one size.
        ("RandomResize: {target_size: [4, 5], random_size: false}", RANDOM_RESIZE | {"target_size": ((4, 5),)}),
        ("RandomResize: {target_size: 4, random_size: false}", RANDOM_RESIZE | {"target_size": ((4, 4),)}),
        ("RandomDistort: ", DISTORT),
        (
            "RandomDistort: {hue: [-9, 9, 0.25], brightness: [1, 1, 0], random_apply: no, count: 2, prob: 0.5}",
            DISTORT | {"hue": (-9, 9, 0.25), "brightness": (1, 1, 0), "random_apply": False, "count": 2, "prob": 0.5},
        ),
        ("RandomDistort: {random_channel: true}", DISTORT | {"random_channel": True}),
        ("RandomCrop: {}", CROP),
        ("RandomCrop: {is_mask_crop: true}", CROP),
        (
            "RandomCrop: {aspect_ratio: null, thresholds: [0.5], scaling: [0.2, 0.4], num_attempts: 7}",
            CROP | {"aspect_ratio": None, "thresholds": (0.5,), "scaling": (0.2, 0.4), "num_attempts": 7},
        ),
        (
            "RandomCrop: {allow_no_crop: false, cover_all_box: true, ioumode: iof, prob: 0.3}",
            CROP | {"allow_no_crop": False, "cover_all_box": True, "ioumode": "iof", "prob": 0.3},
        ),
        ("RandomFlip: {}", {"prob": 0.5, "vertical_prob": 0.0}),
        ("RandomRotate90: {prob: 1.0}", {"prob": 1.0}),
        ("LargeScaleJitter: {}", {"target_size": (1024, 1024), "scale": (0.1, 2), "fill": (124, 116, 104)}),
        (
            "LargeScaleJitter: {target_size: 512, scale: [0.5, 1], fill: [0, 0, 255]}",
            {"target_size": (512, 512), "scale": (0.5, 1), "fill": (0, 0, 255)},
        ),
        ("CopyPaste: ", {"prob": 0.5, "max_pastes": 20}),
        ("CopyPaste: {prob: 1, max_pastes: 3}", {"prob": 1, "max_pastes": 3}),
    ],
)
def test_transforms(write: Write, operator: str, expected: dict[str, Any]) -> None:
    text = f"TrainReader:\n  sample_transforms: [Decode: {{}}, Poly2Mask: {{}}, {{{operator}}}, {NORMALIZE}, Permute: ]"
    config = load_config(write(text))
    [step] = config.data.train.reader.transforms
    assert (step.name, step.args) == (operator.partition(":")[0], expected)
    again = Config.model_validate_json(config.model_dump_json(), strict=True)  # as a checkpoint keeps it
    assert again == config


def test_the_order_of_the_list_is_kept(write: Write) -> None:
    names = ["RandomDistort", "RandomCrop", "RandomResize", "RandomFlip"]
    text = (
        "TrainReader:\n  sample_transforms: [Decode: {}, Poly2Mask: {}, RandomDistort: {}, RandomCrop: {}, "
        f"RandomResize: {{target_size: [320, 352]}}, RandomFlip: {{}}, {NORMALIZE}, Permute: ]"
    )
    assert [step.name for step in load_config(write(text)).data.train.reader.transforms] == names


@pytest.mark.parametrize(
    "name", ["RandomDistort", "RandomCrop", "RandomFlip", "RandomRotate90", "RandomResize", "CopyPaste"]
)
def test_the_transforms_take_what_the_schema_gives(name: str) -> None:
    required: dict[str, Any] = {"target_size": [[4, 5]]} if name == "RandomResize" else {}
    step = TransformConfig(name=name, args=required)  # type: ignore[arg-type]  # a name of the list above
    if required:
        required = {"target_size": ((4, 5),)}
    assert TRANSFORMS[name](**step.args) == TRANSFORMS[name](**required)  # and state the same defaults


def test_large_scale_jitter_states_the_schemas_defaults() -> None:
    step = TransformConfig(name="LargeScaleJitter")
    assert TRANSFORMS["LargeScaleJitter"](**step.args) == TRANSFORMS["LargeScaleJitter"](step.args["target_size"])


def test_the_documented_list_of_both_loads(write: Write) -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    [block] = [text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "CopyPaste" in text]
    steps = load_config(write(block)).data.train.reader.transforms
    assert [step.name for step in steps] == ["RandomFlip", "LargeScaleJitter", "CopyPaste"]


def test_arguments_as_stated() -> None:
    step = TransformConfig(name="RandomResize", args={"target_size": [[4, 5]], "interp": 2, "keep_ratio": True})
    assert step.stated() == {"target_size": ((4, 5),), "interp": 2}
    assert TransformConfig(name="RandomFlip").stated() == {}


@pytest.mark.parametrize("reader", ["EvalReader", "TestReader"])
def test_only_training_pastes(problems: Problems, reader: str) -> None:
    [line] = problems(f"{reader}: {{sample_transforms: [{NORMALIZE}, CopyPaste: {{}}]}}")
    assert line == (
        f"recipe.yml:2: {reader}.sample_transforms[1].CopyPaste: pastes training objects: it belongs in TrainReader "
        "alone; take it out of this list"
    )


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
        ("Mosaic: {}", ".Mosaic: Mosaic is not part of this version; take it out of the list"),
        ("Rezise: {}", ".Rezise: unknown operator; did you mean Resize?"),
        ("Qqqqq: {}", ".Qqqqq: unknown operator; known are NormalizeImage, Decode"),
        ("PadBatch: {}", ".PadBatch: belongs to batch_transforms"),
        ("Resize: {interp: 5}", ".Resize.interp: expected a number less than or equal to 4, got 5"),
        ("Resize: {interp: linear}", '.Resize.interp: expected a whole number, got "linear"'),
        ("Resize: {target_size: [1, 2, 3]}", ".Resize.target_size: expected at most 2 values, got 3: [1, 2, 3]"),
        ("Resize: {target_sise: 3}", ".Resize.target_sise: unknown key; did you mean target_size?"),
        ("Resize: {target_size: ['1', 2]}", '.Resize.target_size[0]: expected a whole number, got "1"'),
        ("RandomResize: ", ".RandomResize.target_size: is required"),
        (
            "RandomResize: {target_size: [1], random_interp: 1}",
            ".RandomResize.random_interp: expected true or false, got 1",
        ),
        ("RandomResize: {target_size: [1], random_size: 1}", ".RandomResize.random_size: 1 is not supported: use true"),
        (
            "RandomResize: {target_size: [1, 2, 3], random_range: true}",
            ".RandomResize.random_range: a range has two ends, but target_size lists 3: list two, or use false",
        ),
        ("RandomDistort: {hue: [-9, 9]}", ".RandomDistort.hue[2]: is required"),
        ("RandomDistort: {hue: [-9, 9, 0.5, 1]}", ".RandomDistort.hue: expected at most 3 values, got 4"),
        ("RandomDistort: {hue: [-300, 9, 0.5]}", ".RandomDistort.hue[0]: expected a number greater than or equal to"),
        ("RandomDistort: {hue: [9, -9, 0.5]}", ".RandomDistort.hue: expected the lower end first, got 9, -9"),
        ("RandomDistort: {contrast: [-1, 1, 0.5]}", ".RandomDistort.contrast[0]: expected a number greater than"),
        ("RandomDistort: {brightness: [1, 1, 2]}", ".RandomDistort.brightness[2]: expected a number less than"),
        ("RandomDistort: {count: 5}", ".RandomDistort.count: expected a number less than or equal to 4, got 5"),
        ("RandomDistort: {saturasion: 1}", ".RandomDistort.saturasion: unknown key; did you mean saturation?"),
        ("RandomCrop: {scaling: [0, 1]}", ".RandomCrop.scaling[0]: expected a number greater than 0, got 0"),
        ("RandomCrop: {scaling: [0.5, 1.5]}", ".RandomCrop.scaling[1]: expected a number less than or equal to 1"),
        ("RandomCrop: {scaling: [0.5, 0.2]}", ".RandomCrop.scaling: expected the lower end first, got 0.5, 0.2"),
        ("RandomCrop: {aspect_ratio: [2, 0.5]}", ".RandomCrop.aspect_ratio: expected the lower end first, got 2, 0.5"),
        ("RandomCrop: {aspect_ratio: 2}", ".RandomCrop.aspect_ratio: expected a list, got 2"),
        ("RandomCrop: {thresholds: []}", ".RandomCrop.thresholds: expected at least 1 values, got 0"),
        ("RandomCrop: {thresholds: [0, 1.5]}", ".RandomCrop.thresholds[1]: expected a number less than or equal to 1"),
        ("RandomCrop: {ioumode: giou}", ".RandomCrop.ioumode: expected one of 'iou' or 'iof', got \"giou\""),
        ("RandomCrop: {is_mask_crop: 1}", ".RandomCrop.is_mask_crop: 1 is not supported: masks are cut with"),
        ("RandomCrop: {num_attempts: 0}", ".RandomCrop.num_attempts: expected a number greater than or equal to 1"),
        ("RandomCrop: {num_attempts: 1000000000}", ".RandomCrop.num_attempts: expected a number less than or equal to"),
        ("RandomCrop: {threshold: [0]}", ".RandomCrop.threshold: unknown key; did you mean thresholds?"),
        ("LargeScaleJitter: {scale: [0, 2]}", ".LargeScaleJitter.scale[0]: expected a number greater than 0, got 0"),
        ("LargeScaleJitter: {scale: [2, 1]}", ".LargeScaleJitter.scale: expected the lower end first, got 2, 1"),
        ("LargeScaleJitter: {fill: [0, 0, 256]}", ".LargeScaleJitter.fill[2]: expected a number less than or equal"),
        ("LargeScaleJitter: {target_size: [0, 9]}", ".LargeScaleJitter.target_size[0]: expected a number greater"),
        ("CopyPaste: {max_pastes: 0}", ".CopyPaste.max_pastes: expected a number greater than or equal to 1, got 0"),
        ("CopyPaste: {blend: 1}", ".CopyPaste.blend: unknown key"),
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
