import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from solov2.errors import WeightsError
from solov2.structures import Category
from solov2.weights.files import LARGEST_FILE, METADATA_KEY, WeightsFile, write_weights
from solov2.weights.foreign import ForeignWeights, read_any
from solov2.weights.names import Framework
from solov2.weights.pickled import PickledArray
from tests.weights.foreign_files import (
    AUTHORS_HEAD,
    OUR_HEAD,
    PADDLE_HEAD,
    arrays,
    authors_checkpoint,
    listed,
    python2_pickle,
    tensors,
    write_pickle,
    write_torch,
)

BOTH = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
WEIGHT, BIAS = PADDLE_HEAD


def foreign(path: Path) -> ForeignWeights:
    found = read_any(path)
    assert isinstance(found, ForeignWeights)
    assert found.path == path
    return found


def check(found: ForeignWeights, framework: Framework, expected: dict[str, Any]) -> None:
    assert found.framework == framework
    assert found.tensors.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found.tensors[name], torch.as_tensor(value)), name


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("form", ["plain", "named", "ordered", "bookkeeping"])
def test_paddle(tmp_path: Path, protocol: int, form: str) -> None:
    expected = arrays(PADDLE_HEAD)
    content: Any = {
        "plain": expected,
        "named": {name: (f"conv2d_{number}.w_0", array) for number, (name, array) in enumerate(expected.items())},
        "ordered": OrderedDict(expected),
        "bookkeeping": {**expected, "StructuredToParameterName@@": dict.fromkeys(expected, "conv2d_0.w_0")},
    }[form]
    check(foreign(write_pickle(tmp_path / "a.pdparams", content, protocol)), "paddledetection", expected)


class PaddleTensor:
    """Pickled as Paddle pickles its tensors: a call of tuple."""

    def __init__(self, name: str, array: Any) -> None:
        self.pair = name, array

    def __reduce__(self) -> Any:
        return tuple, (self.pair,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_as_paddle_pickles_them(tmp_path: Path, protocol: int) -> None:
    expected = arrays(PADDLE_HEAD)
    content = {name: PaddleTensor("conv2d_0.w_0", array) for name, array in expected.items()}
    check(foreign(write_pickle(tmp_path / "a.pdparams", content, protocol)), "paddledetection", expected)


def sliced(**changes: Any) -> dict[str, Any]:
    expected = arrays(PADDLE_HEAD)
    flat = expected[WEIGHT].ravel()
    content = {
        BIAS: expected[BIAS],
        **{f"{WEIGHT}@@.{number}": flat[number * 50 : (number + 1) * 50] for number in range(3)},
        "UnpackBigParamInfor@@": {
            WEIGHT: {"OriginShape": (3, 4, 3, 3), "slices": [f"{WEIGHT}@@.{number}" for number in range(3)]}
        },
    }
    content["UnpackBigParamInfor@@"][WEIGHT] |= changes
    return content


def test_large_arrays_in_slices(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "a.pdparams", sliced(), 2)
    check(foreign(path), "paddledetection", arrays(PADDLE_HEAD))


@pytest.mark.parametrize(
    "changes",
    [
        {"slices": [f"{WEIGHT}@@.7"]},
        {"slices": []},
        {"slices": [BIAS]},
        {"slices": None},
        {"OriginShape": (5, 5)},
        {"OriginShape": "abc"},
    ],
)
def test_slices_that_do_not_fit(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = write_pickle(tmp_path / "a.pdparams", sliced(**changes), 2)
    with pytest.raises(WeightsError, match=r"a\.pdparams: damaged \(its UnpackBigParamInfor@@ does not fit its arrays"):
        read_any(path)


def test_slices_that_are_no_names(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "a.pdparams", sliced(slices=[(BIAS, BIAS)]), 2)
    with pytest.raises(WeightsError, match=r"does not fit its arrays: a tuple in the place of a text\); get it again$"):
        read_any(path)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", "<i8", "|b1", "|u1"])
def test_types_of_numbers(tmp_path: Path, dtype: str) -> None:
    content = {name: (array * 100).astype(dtype) for name, array in arrays(PADDLE_HEAD).items()}
    found = foreign(write_pickle(tmp_path / "a.pdparams", content))
    expected = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in content.items()}
    check(found, "paddledetection", {name: torch.from_numpy(array) for name, array in expected.items()})
    assert {tensor.numpy().dtype.str for tensor in found.tensors.values()} == {dtype.replace(">", "<")}


def test_arrays_stored_by_columns(tmp_path: Path) -> None:
    expected = arrays(PADDLE_HEAD)
    content = {name: np.asfortranarray(array) for name, array in expected.items()}
    found = foreign(write_pickle(tmp_path / "a.pdparams", content))
    check(found, "paddledetection", expected)
    assert all(tensor.is_contiguous() for tensor in found.tensors.values())


@BOTH
def test_authors(tmp_path: Path, legacy: bool) -> None:
    state = tensors(AUTHORS_HEAD)
    found = foreign(write_torch(tmp_path / "a.pth", authors_checkpoint(state), legacy=legacy))
    check(found, "solo", state)
    assert (found.class_names, found.bgr) == (("disc", "traffic_light", "bar"), False)


@BOTH
@pytest.mark.parametrize(
    "wrap", [lambda state: state, lambda state: {"state_dict": state}, lambda state: {"model": state}]
)
def test_states_of_parallel_training(tmp_path: Path, wrap: Callable[[Any], Any], legacy: bool) -> None:
    state = tensors(AUTHORS_HEAD)
    content = wrap({f"module.{name}": tensor for name, tensor in state.items()})
    check(foreign(write_torch(tmp_path / "a.pth", content, legacy=legacy)), "solo", state)


def test_one_name_without_the_prefix_of_parallel_training(tmp_path: Path) -> None:
    state = {"module.bbox_head.solo_cate.bias": torch.ones(3), "bbox_head.solo_kernel.bias": torch.ones(4)}
    check(foreign(write_torch(tmp_path / "a.pth", state)), "solo", state)


class CountedName(str):
    """Counts how often it is asked for its start."""

    asked = 0

    def startswith(self, *arguments: Any) -> bool:
        CountedName.asked += 1
        return super().startswith(*arguments)


def test_names_are_looked_at_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {CountedName(f"module.bbox_head.solo_{number}"): PickledArray(np.ones(1)) for number in range(500)}
    monkeypatch.setattr("solov2.weights.foreign.read_pickle", lambda *_: entries)
    found = foreign(write_pickle(tmp_path / "a.pdparams", {}))
    assert len(found.tensors) == 500
    assert CountedName.asked < 10 * 500  # not 500 times 500


def test_class_names_of_newer_mmdetection(tmp_path: Path) -> None:
    state = {"mask_head.conv_cls.bias": torch.ones(3), "mask_head.conv_kernel.bias": torch.ones(4)}
    content = {"meta": {"dataset_meta": {"classes": ("a", "b", "c"), "palette": [(1, 2, 3)]}}, "state_dict": state}
    found = foreign(write_torch(tmp_path / "a.pth", content))
    check(found, "mmdetection", state)
    assert found.class_names == ("a", "b", "c")


@pytest.mark.parametrize("meta", [None, 3, {"CLASSES": None}, {"CLASSES": (1, 2)}, {"dataset_meta": 5}, {}])
def test_no_class_names(tmp_path: Path, meta: Any) -> None:
    content = {"meta": meta, "state_dict": tensors(AUTHORS_HEAD)}
    assert foreign(write_torch(tmp_path / "a.pth", content)).class_names == ()


@pytest.mark.parametrize("wrapped", [True, False])
def test_adelaidet(tmp_path: Path, wrapped: bool) -> None:
    state = {"ins_head.cate_pred.bias": torch.ones(80), "backbone.bottom_up.stem.conv1.weight": torch.ones(64, 3, 7, 7)}
    content = {"model": state, "optimizer": {}, "iteration": 269999} if wrapped else state
    found = foreign(write_torch(tmp_path / "a.pth", content))
    check(found, "detectron2", state)
    assert found.bgr


def test_numpy_arrays_in_a_file_of_torch(tmp_path: Path) -> None:
    found = foreign(write_torch(tmp_path / "a.pth", {"state_dict": arrays(AUTHORS_HEAD)}))
    check(found, "solo", arrays(AUTHORS_HEAD))


@pytest.mark.parametrize("name", ["a.pkl", "a.bin", "a"])
def test_msra_backbone(tmp_path: Path, name: str) -> None:
    shapes = {
        name: shape for name, shape in listed("detectron2_msra_r50").items() if "res" not in name or "res2_0" in name
    }
    shapes |= {"res_conv1_bn_s": (64,), "res_conv1_bn_b": (64,), "conv1_w_momentum": (2,)}
    given = arrays(shapes)
    (tmp_path / name).write_bytes(python2_pickle(given))
    found = foreign(tmp_path / name)
    assert (found.framework, found.bgr) == ("detectron2", True)
    for theirs, name_there in {
        "conv1_w": "stem.conv1.weight",
        "res_conv1_bn_s": "stem.conv1.norm.weight",
        "res_conv1_bn_b": "stem.conv1.norm.bias",
        "res2_0_branch1_w": "res2.0.shortcut.weight",
        "res2_0_branch2a_w": "res2.0.conv1.weight",
        "res2_0_branch2b_bn_s": "res2.0.conv2.norm.weight",
        "res2_0_branch2c_bn_b": "res2.0.conv3.norm.bias",
        "fc1000_w": "fc1000_w",
        "conv1_w_momentum": "conv1_w_momentum",
    }.items():
        assert torch.equal(found.tensors[name_there], torch.from_numpy(given[theirs])), theirs
    assert len(found.tensors) == len(given)


@pytest.mark.parametrize(("author", "bgr"), [("torchvision", False), ("MSRA", True)])
def test_backbones_in_the_form_of_detectron2(tmp_path: Path, author: str, bgr: bool) -> None:
    model = arrays({"stem.conv1.weight": (64, 3, 7, 7), "res2.0.conv1.norm.running_var": (64,)})
    found = foreign(
        write_pickle(tmp_path / "a.pkl", {"model": model, "__author__": author, "matching_heuristics": True})
    )
    check(found, "detectron2", model)
    assert found.bgr == bgr


@pytest.mark.parametrize(
    ("names", "framework"),
    [
        ("torchvision_r34", "torchvision"),
        ("torchvision_r50", "torchvision"),
        ("paddleclas_r50_vd", "paddleclas"),
        ("authors_x101_dcn", "solo"),
        ("mmdetection_r50", "mmdetection"),
        ("adelaidet_r101", "detectron2"),
        ("paddledetection_r101_vd", "paddledetection"),
    ],
)
def test_frameworks_are_recognised(tmp_path: Path, names: str, framework: Framework) -> None:
    shapes = listed(names)
    whole = write_torch(tmp_path / "a.pth", {name: torch.zeros(1) for name in shapes})
    assert foreign(whole).framework == framework
    if framework in ("paddledetection",):
        bare = {name.removeprefix("backbone."): torch.zeros(1) for name in shapes if name.startswith("backbone.")}
        assert foreign(write_torch(tmp_path / "b.pth", bare)).framework == framework


def test_our_names_in_a_file_of_torch(tmp_path: Path) -> None:
    state = {**tensors(OUR_HEAD), "backbone.stem.0.norm.num_batches_tracked": torch.tensor(3)}
    check(foreign(write_torch(tmp_path / "a.pth", state)), "solov2", state)


def test_our_checkpoint_under_any_name(tmp_path: Path) -> None:
    weights = WeightsFile(tensors(OUR_HEAD), {"model": {}}, (Category(1, "a"),), 0.5)
    state = {f"model.{name}": tensor for name, tensor in weights.state.items()}
    content = {METADATA_KEY: weights.metadata(), "state_dict": state}
    for name in ("a.ckpt", "a.pth"):
        found = read_any(write_torch(tmp_path / name, content))
        assert isinstance(found, WeightsFile)
        assert (found.state.keys(), found.categories, found.score_threshold) == (
            weights.state.keys(),
            (Category(1, "a"),),
            0.5,
        )


def test_safetensors(tmp_path: Path) -> None:
    write_weights(tmp_path / "own.safetensors", WeightsFile(tensors(OUR_HEAD)))
    assert isinstance(read_any(tmp_path / "own.safetensors"), WeightsFile)
    save_file(tensors(AUTHORS_HEAD), tmp_path / "theirs.safetensors")
    check(foreign(tmp_path / "theirs.safetensors"), "solo", tensors(AUTHORS_HEAD))


@BOTH
def test_a_wrong_ending_does_not_matter(tmp_path: Path, legacy: bool) -> None:
    state = tensors(AUTHORS_HEAD)
    check(foreign(write_torch(tmp_path / "a.safetensors", authors_checkpoint(state), legacy=legacy)), "solo", state)
    check(
        foreign(write_pickle(tmp_path / "b.safetensors", arrays(PADDLE_HEAD))), "paddledetection", tensors(PADDLE_HEAD)
    )
    for name in ("a.pth", "a.ckpt", "a.pdparams", "a"):
        save_file(state, tmp_path / name)
        check(foreign(tmp_path / name), "solo", state)
        write_weights(tmp_path / "own.safetensors", WeightsFile(tensors(OUR_HEAD)))
        (tmp_path / "own.safetensors").rename(tmp_path / name)
        assert isinstance(read_any(tmp_path / name), WeightsFile)


class Network(torch.nn.Module):
    """Stands for a model that somebody saves whole."""


@BOTH
def test_a_whole_model_is_no_state(tmp_path: Path, legacy: bool) -> None:
    path = write_torch(tmp_path / "a.pth", torch.nn.Linear(2, 3), legacy=legacy)
    with pytest.raises(WeightsError) as error:
        read_any(path)
    assert str(error.value) == (
        f"{path}: holds a torch.nn.modules.linear.Linear; expected tensors by name; of a whole model save "
        "model.state_dict() instead"
    )
    with pytest.raises(
        WeightsError, match=r"Network', which no .* this file; if it is a model of your own, save model\."
    ):
        read_any(write_torch(tmp_path / "b.pth", Network(), legacy=legacy))


def test_a_kind_that_cannot_be_shown(tmp_path: Path) -> None:
    name = b"\x8c\x08torch.nn\x8c\x05a\n\x1b[2\x93"  # STACK_GLOBAL takes any text for a name
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04" + name + b")R.")
    with pytest.raises(WeightsError) as error:
        read_any(tmp_path / "a.pkl")
    assert str(error.value).startswith(f"{tmp_path / 'a.pkl'}: holds an object without a readable name; expected")
    assert "\n" not in str(error.value)


def test_a_value_that_was_not_read_is_named(tmp_path: Path) -> None:
    content = {"bbox_head.solo_cate.bias": torch.ones(3), "more": torch.nn.Linear(2, 3)}
    with pytest.raises(WeightsError, match=r"'more' is a torch\.nn\.modules\.linear\.Linear; expected an array"):
        read_any(write_torch(tmp_path / "a.pth", {"state_dict": content}))


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def write_jpeg(path: Path) -> None:
    path.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(1000))


def write_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, LARGEST_FILE + 1)


def pickled(content: Any) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(pickle.dumps(content)) and None


def torched(content: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path)


NO_WEIGHTS = "not a weights file; expected .safetensors or .ckpt of this package, .pdparams of PaddleDetection, .pth of"
UNKNOWN = "holds 1 tensor with names of no known framework (a); expected a SOLOv2 or a ResNet of"


@pytest.mark.parametrize("suffix", [".pdparams", ".pth", ".pkl", ".safetensors", ".ckpt", ""])
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_jpeg, ""),
        (lambda path: path.write_text(json.dumps({"a": [1]}), encoding="utf-8"), ""),
        (lambda path: path.touch(), ""),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), ""),
        (lambda path: path.write_bytes(b"\x80\x04]" * 1000), ""),
        (lambda path: path.mkdir(), "is a folder; expected a weights file"),
        (lambda path: None, "no such file; expected a weights file (.safetensors, .ckpt, .pdparams, .pth, .pkl)"),
        (write_huge, f"has {LARGEST_FILE + 1} bytes; weights have {LARGEST_FILE} at most"),
    ],
    ids=["jpeg", "json", "empty", "zip", "pickle", "folder", "missing", "huge"],
)
def test_what_is_no_weights_file(tmp_path: Path, suffix: str, write: Callable[[Path], object], message: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WeightsError) as error:
        read_any(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_jpeg, NO_WEIGHTS),
        (pickled([1, 2]), "holds a list; expected tensors by name"),
        (pickled(3), "holds an int; expected tensors by name"),
        (pickled({}), "holds 0 tensors with names of no known framework (none)"),
        (pickled({"a": np.ones(3)}), UNKNOWN),
        (torched({"a": torch.ones(3)}), UNKNOWN),
        (torched({"state_dict": {"a": torch.ones(3)}}), UNKNOWN),
        (pickled({WEIGHT: [1, 2]}), f"'{WEIGHT}' is a list; expected an array of numbers"),
        (pickled({WEIGHT: ("name", "text")}), f"'{WEIGHT}' is a str; expected an array of numbers"),
        (pickled({WEIGHT: np.array([None, "a"])}), f"'{WEIGHT}' is an array of objects; expected one of numbers"),
        (pickled({"a\nb": np.ones(3), WEIGHT: np.ones(3)}), "the names of its tensors are no readable text"),
        (pickled({"a" * 999: np.ones(3), WEIGHT: np.ones(3)}), "the names of its tensors are no readable text"),
        (pickled({"conv1_w": np.ones(3), "stem.conv1.weight": np.ones(3)}), "two of its tensors have one name"),
    ],
)
def test_what_holds_no_weights(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "a.pth"
    write(path)
    with pytest.raises(WeightsError) as error:
        read_any(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".pdparams", ".pth", ".pkl", ".ckpt"])
@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy"])
def test_code_in_a_file_does_not_run(tmp_path: Path, suffix: str, kind: str) -> None:
    content = {WEIGHT: np.ones(3), "more": Payload(tmp_path / "made")}
    path = tmp_path / f"a{suffix}"
    if kind == "pickle":
        write_pickle(path, content)
    else:
        write_torch(path, content, legacy=kind == "legacy")
    with pytest.raises(WeightsError, match=r"names '\w+\.system', which no weights need; do not trust this file$"):
        read_any(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "a.pdparams", arrays(PADDLE_HEAD))
    path.chmod(0)
    with pytest.raises(WeightsError, match=r"a\.pdparams: cannot be read \(Permission denied\)"):
        read_any(path)


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pickle(tmp_path / "a.pdparams", arrays(PADDLE_HEAD))

    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(WeightsError, match=r"a\.pdparams: cannot be read \(Permission denied\)"):
        read_any(path)


def test_each_tensor_is_a_copy_of_its_own(tmp_path: Path) -> None:
    found = foreign(write_pickle(tmp_path / "a.pdparams", arrays(PADDLE_HEAD)))
    tensor: Tensor = found.tensors[BIAS]
    tensor += 1  # no warning about memory that must not be written to
    assert torch.equal(tensor, torch.from_numpy(arrays(PADDLE_HEAD)[BIAS]) + 1)


def test_one_array_under_many_names_is_in_memory_once(tmp_path: Path) -> None:
    array = np.ones(100_000, np.float32)
    content = {f"bbox_head.solo_{number}": array for number in range(1000)}
    found = foreign(write_pickle(tmp_path / "a.pdparams", content))
    assert len({tensor.data_ptr() for tensor in found.tensors.values()}) == 1


def test_class_names_that_cannot_be_shown(tmp_path: Path) -> None:
    content = {"meta": {"CLASSES": ("a", "b\x1b[2J", "c")}, "state_dict": tensors(AUTHORS_HEAD)}
    assert foreign(write_torch(tmp_path / "a.pth", content)).class_names == ()
