import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from solov2.errors import WeightsError
from solov2.structures import Category
from solov2.version import __version__
from solov2.weights import files
from solov2.weights.files import (
    FORMAT_VERSION,
    METADATA_KEY,
    WeightsFile,
    counted,
    read_weights,
    version_of,
    write_weights,
)


def example() -> WeightsFile:
    generator = torch.Generator().manual_seed(0)
    return WeightsFile(
        state={
            "conv.weight": torch.randn((2, 3, 3, 3), generator=generator),
            "norm.weight": torch.rand(4, generator=generator),
            "norm.running_var": torch.tensor([1e-9, 1e6]),  # outside float16's range
            "norm.num_batches_tracked": torch.tensor(5),
            "transposed": torch.randn((3, 5), generator=generator).T,  # not contiguous
        },
        config={"model": {"num_classes": 2}, "train": {"weights": None}},
        categories=(Category(7, "disc"), Category(42, "Zwölf Äpfel")),
        score_threshold=0.35,
        about={"data": "none"},
    )


def check_same_text(found: WeightsFile) -> None:
    expected = example()
    assert found.config == expected.config
    assert found.categories == expected.categories
    assert found.score_threshold == expected.score_threshold
    assert found.about == expected.about


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.safetensors"
    write_weights(path, example())
    found = read_weights(path)
    check_same_text(found)
    expected = {name: tensor for name, tensor in example().state.items() if name != "norm.num_batches_tracked"}
    assert found.state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found.state[name], tensor)


def test_round_trip_with_half_precision(tmp_path: Path) -> None:
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    write_weights(whole, example())
    write_weights(half, example(), half=True)
    found = read_weights(half)
    check_same_text(found)
    for name in ("norm.weight", "norm.running_var"):
        assert torch.equal(found.state[name], example().state[name])
    for name in ("conv.weight", "transposed"):
        assert torch.equal(found.state[name], example().state[name].half().float())
        assert found.state[name].dtype == torch.float32
    assert half.stat().st_size < whole.stat().st_size


def test_defaults_are_those_of_a_backbone(tmp_path: Path) -> None:
    write_weights(tmp_path / "a.safetensors", WeightsFile({"stem.weight": torch.ones(1)}))
    found = read_weights(tmp_path / "a.safetensors")
    assert (found.config, found.categories, found.score_threshold, found.about) == ({}, (), None, {})


def test_metadata_names_format_and_version() -> None:
    metadata = example().metadata()
    assert (metadata["format_version"], metadata["package_version"]) == (FORMAT_VERSION, __version__)
    assert json.loads(json.dumps(metadata)) == metadata


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device")],
    ids=["of Python", "of safetensors"],
)
def test_a_failing_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    path = tmp_path / "a.safetensors"
    write_weights(path, example())

    def fail(tensors: object, target: Path, metadata: object) -> None:
        Path(target).write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(files, "save_file", fail)
    with pytest.raises(
        WeightsError, match=r"a\.safetensors: cannot be written \((I/O error: )?No space.*; make room, or"
    ):
        write_weights(path, WeightsFile({}))
    check_same_text(read_weights(path))
    assert list(tmp_path.iterdir()) == [path]


def write_foreign(path: Path) -> None:
    save_file({"a": torch.ones(1)}, path, {"format": "pt"})


def write_plain(path: Path) -> None:
    save_file({"a": torch.ones(1)}, path)


def metadata_of(**changes: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        save_file({"a": torch.ones(1)}, path, {METADATA_KEY: json.dumps({**example().metadata(), **changes})})

    return write


def write_broken_metadata(path: Path) -> None:
    save_file({"a": torch.ones(1)}, path, {METADATA_KEY: "{"})


def write_list_metadata(path: Path) -> None:
    save_file({"a": torch.ones(1)}, path, {METADATA_KEY: "[1]"})


def write_truncated(path: Path) -> None:
    write_weights(path, example())
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_foreign, "has no 'solov2' metadata; expected weights written by this package (solov2 train writes"),
        (write_plain, "has no 'solov2' metadata; expected weights written by this package"),
        (lambda path: path.write_bytes(b""), "not a readable safetensors file ("),
        (
            lambda path: path.write_bytes(b"\x80\x04no safetensors"),
            "not a readable safetensors file (",
        ),
        (write_truncated, "not a readable safetensors file ("),
        (write_broken_metadata, "its metadata is damaged ("),
        (write_list_metadata, "its metadata is damaged ("),
        (metadata_of(categories=[{"id": 1}]), "its metadata is damaged (KeyError('name'))"),
        (metadata_of(format_version="new"), "its metadata is damaged (TypeError("),
        (metadata_of(score_threshold="high"), "its metadata is damaged (TypeError("),
        (metadata_of(score_threshold=1.5), "its score threshold is 1.5; expected a score in 0..1; write the file anew"),
        (metadata_of(score_threshold=-0.1), "its score threshold is -0.1; expected"),
        (metadata_of(score_threshold=float("nan")), "its score threshold is nan; expected"),
        (metadata_of(config=[1]), "its metadata is damaged (AttributeError("),
        (metadata_of(about=None), "its metadata is damaged (AttributeError("),
        (
            metadata_of(format_version=FORMAT_VERSION + 1, package_version="9.9"),
            f"the weights are of format {FORMAT_VERSION + 1}, written by solov2 9.9; this is solov2 {__version__}, "
            f"which reads up to format {FORMAT_VERSION}: upgrade it",
        ),
    ],
)
def test_what_is_no_weights_file(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "a.safetensors"
    write(path)
    with pytest.raises(WeightsError) as error:
        read_weights(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=r"no such file; expected a weights file \(\.safetensors, \.ckpt, "):
        read_weights(tmp_path / name)


STATE = {"model.a": torch.ones(2), "model.b": torch.full((1,), 3), "loss.c": torch.ones(1)}


def checkpoint(**changes: Any) -> dict[str, Any]:
    return {METADATA_KEY: example().metadata(), "state_dict": STATE, **changes}


def test_checkpoint(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "a.ckpt")
    found = read_weights(tmp_path / "a.ckpt")
    check_same_text(found)
    assert {name: tensor.tolist() for name, tensor in found.state.items()} == {"a": [1, 1], "b": [3]}


def test_averaged_weights_of_a_checkpoint_win(tmp_path: Path) -> None:
    torch.save(checkpoint(ema={"weights": {"a": torch.zeros(2).half()}}), tmp_path / "a.ckpt")
    found = read_weights(tmp_path / "a.ckpt")
    assert found.state.keys() == {"a"}
    assert found.state["a"].dtype == torch.float32


class Payload:
    """What a checkpoint must not be able to bring to life."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('code from a file has run')",))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        {"state_dict": STATE},
        {METADATA_KEY: example().metadata()},
        [1, 2],
        {METADATA_KEY: example().metadata(), "state_dict": STATE, "more": Payload()},
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "a.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError) as error:
        read_weights(path)
    assert str(error.value).startswith(f"{path}: not a readable checkpoint of this package (")
    assert "\n" not in str(error.value)


def laughs(value: Any, levels: int = 20) -> Any:
    """As many levels of a list that holds the one below twice: printed, it has no end."""
    return value if levels == 0 else laughs([value, value], levels - 1)


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"model": laughs(1)}},
        {"config": {"a": laughs({})}},
        {"config": {"a": [[1] * 1000] * 1000}},
        {"about": {"data": laughs(1)}},
        {"about": {"data": ["text"]}},
        {"categories": [{"id": 1, "name": laughs(1)}]},
        {"categories": [{"id": 1, "name": None}]},
        {"format_version": FORMAT_VERSION + 1, "package_version": laughs(1)},
    ],
)
def test_checkpoint_with_values_that_nothing_of_ours_writes(tmp_path: Path, change: dict[str, Any]) -> None:
    torch.save(checkpoint(**{METADATA_KEY: example().metadata() | change}), tmp_path / "a.ckpt")
    message = r"a\.ckpt: its metadata is damaged \(ValueError\('(its values are nested without end|a \w+ in the place)"
    with pytest.raises(WeightsError, match=message):
        read_weights(tmp_path / "a.ckpt")


@pytest.mark.parametrize("metadata", [{}, None, {"format_version": 1}, [1]])
def test_checkpoint_with_damaged_metadata(tmp_path: Path, metadata: Any) -> None:
    torch.save(checkpoint(**{METADATA_KEY: metadata}), tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match=r"a\.ckpt: its metadata is damaged \((KeyError|TypeError)"):
        read_weights(tmp_path / "a.ckpt")


def test_checkpoint_of_a_newer_version(tmp_path: Path) -> None:
    newer = {**example().metadata(), "format_version": FORMAT_VERSION + 1}
    torch.save(checkpoint(**{METADATA_KEY: newer}), tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match=r"a\.ckpt: the weights are of format .*: upgrade it"):
        read_weights(tmp_path / "a.ckpt")


def test_counted() -> None:
    assert [counted(number, "tensor") for number in (0, 1, 2)] == ["0 tensors", "1 tensor", "2 tensors"]
    assert [counted(number, "class") for number in (1, 2)] == ["1 class", "2 classes"]


def test_version_of(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_weights(path, example())
    assert version_of(path) == __version__
    path.write_bytes(path.read_bytes()[:-1])
    assert version_of(path) is None
    for write in (write_foreign, write_plain, write_broken_metadata, write_list_metadata):
        write(path)
        assert version_of(path) is None
