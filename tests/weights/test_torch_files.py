import io
import os
import pickletools
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from solov2.errors import WeightsError
from solov2.weights.pickled import Unread
from solov2.weights.torch_files import MAX_VIEWS, TensorRef, TorchFile, is_legacy, read_torch

BOTH = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def saved(content: Any, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def tensor_in(file: TorchFile, name: str) -> Tensor:
    assert isinstance(file.content[name], TensorRef)
    return file.tensor(file.content[name])


@BOTH
@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3, generator=torch.Generator().manual_seed(0)),
        torch.randn(2, 3).double(),
        torch.randn(5).half(),
        torch.randn(5).bfloat16(),
        torch.arange(6).reshape(2, 3),
        torch.arange(6, dtype=torch.int32),
        torch.arange(6, dtype=torch.int16),
        torch.arange(6, dtype=torch.int8),
        torch.arange(6, dtype=torch.uint8),
        torch.tensor([True, False]),
        torch.tensor(3.0),
        torch.zeros(0, 4),
        torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        torch.arange(24.0).reshape(4, 6)[1:3, ::2],
        torch.tensor(2.0).expand(3, 4),
        nn.Parameter(torch.ones(2)),
    ],
)
def test_tensors(tensor: Tensor, legacy: bool) -> None:
    # The other entries keep a file longer than its tensors, as the state of a network does.
    data = saved({"a": tensor, "b": torch.ones(50), "c": [1.5, None, "text", (2, {"d": 3})]}, legacy)
    file = read_torch(data)
    found = tensor_in(file, "a")
    assert found.dtype == tensor.dtype
    assert torch.equal(found, tensor.detach())
    assert file.content["c"] == [1.5, None, "text", (2, {"d": 3})]
    assert is_legacy(data) == legacy


@BOTH
def test_tensors_of_one_storage_share_it(legacy: bool) -> None:
    whole = torch.arange(6.0)
    file = read_torch(saved(OrderedDict(a=whole, b=whole[2:]), legacy))
    first, second = tensor_in(file, "a"), tensor_in(file, "b")
    assert second.tolist() == [2, 3, 4, 5]
    assert second.data_ptr() == first.data_ptr() + 2 * 4


@BOTH
def test_only_what_is_asked_for_is_read(legacy: bool) -> None:
    file = read_torch(saved({"a": torch.ones(3), "b": torch.zeros(1000)}, legacy))
    keys: list[str] = []
    read = file.read_storage
    file.read_storage = lambda key: keys.append(key) or read(key)  # type: ignore[func-returns-value]
    tensor_in(file, "a")
    assert keys == [file.content["a"].storage]


@BOTH
def test_objects_of_frameworks_are_passed_over(legacy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("mmengine")
    kind = type("HistoryBuffer", (), {"__module__": "mmengine"})
    module.HistoryBuffer = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mmengine", module)
    value = kind()
    value.history = [1, 2]  # type: ignore[attr-defined]
    data = saved({"a": torch.ones(3), "hub": {"loss": value}, "generator": torch.get_rng_state()[:8]}, legacy)
    monkeypatch.delitem(sys.modules, "mmengine")
    file = read_torch(data)
    assert isinstance(file.content["hub"]["loss"], Unread)
    assert tensor_in(file, "a").tolist() == [1, 1, 1]


@BOTH
def test_numbers_that_are_not_real(legacy: bool) -> None:
    data = saved({"a": torch.ones(3, dtype=torch.complex64)}, legacy)
    if legacy:  # there the length of a storage is unknown without its type
        with pytest.raises(WeightsError, match="damaged, or no weights"):
            read_torch(data)
    else:
        assert isinstance(read_torch(data).content["a"], Unread)


class Payload:
    def __reduce__(self) -> Any:
        return (os.system, ("exit 1",))


@BOTH
def test_nothing_is_called(legacy: bool) -> None:
    with pytest.raises(WeightsError, match=r"^names '\w+\.system', which no weights need; do not trust this file$"):
        read_torch(saved({"a": torch.ones(3), "b": Payload()}, legacy))


def rezipped(data: bytes, change: Callable[[str, bytes], bytes | None], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w", compression) as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return stream.getvalue()


GOOD = saved({"a": torch.arange(64.0)})


def test_a_rewritten_archive_is_as_good() -> None:
    assert tensor_in(read_torch(rezipped(GOOD, lambda _, content: content)), "a").tolist() == list(range(64))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK", "File is not a zip file"),
        (GOOD[:-10], "File is not a zip file"),
        (b"PK\x05\x06" + bytes(18), "an archive without data.pkl"),
        (
            rezipped(GOOD, lambda _, content: content, zipfile.ZIP_DEFLATED),
            "a compressed archive, which torch.save does not write",
        ),
        (rezipped(GOOD, lambda name, content: None if name.endswith("data.pkl") else content), "without data.pkl"),
        (
            rezipped(GOOD, lambda name, content: b"big" if name.endswith("byteorder") else content),
            "numbers in big-endian order",
        ),
        (rezipped(GOOD, lambda name, content: content[:20] if name.endswith("data.pkl") else content), "damaged"),
        (b"\x80\x02K\x01.", "no file of torch.save"),
        (saved({"a": torch.arange(64.0)}, True)[:-8], "storage '\\d+' ends after the file"),
        (saved({"a": torch.arange(64.0)}, True)[:-300], "damaged"),
        (b"", "damaged"),
    ],
)
def test_damaged(data: bytes, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as error:
        read_torch(data)
    assert str(error.value).startswith("damaged, or no weights (")
    assert "\n" not in str(error.value)


def test_a_zip_bomb() -> None:
    bomb = rezipped(GOOD, lambda name, content: bytes(1 << 26) if "/data/" in name else content, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 20
    with pytest.raises(WeightsError, match="a compressed archive"):
        read_torch(bomb)


def test_entries_over_one_another() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data/0", bytes(5000))
        archive.filelist.extend(archive.filelist[:1] * 20)
        archive.writestr("a/data.pkl", b"\x80\x02}.")
    with pytest.raises(WeightsError, match=r"its entries claim more than the \d+ bytes it has"):
        read_torch(stream.getvalue())


@pytest.mark.parametrize(
    "change",
    [
        lambda name, content: None if name.endswith("/data/0") else content,
        lambda name, content: content[:-4] if name.endswith("/data/0") else content,
    ],
)
def test_a_storage_that_is_not_there(change: Callable[[str, bytes], bytes | None]) -> None:
    file = read_torch(rezipped(GOOD, change))
    with pytest.raises(WeightsError, match=r"^damaged \(.+\); get it again$"):
        tensor_in(file, "a")


@pytest.mark.parametrize(
    "ref",
    [
        TensorRef(torch.float32, "0", 60, (5,), (1,)),
        TensorRef(torch.float32, "0", 0, (2, 65), (0, 1)),
        TensorRef(torch.float32, "0", 0, (1 << 39,), (0,)),  # two terabytes of one number
        TensorRef(torch.float32, "0", 0, (1 << 39, 1 << 39), (0, 0)),
        TensorRef(torch.float32, "0", 0, (2,), (1 << 39,)),
        TensorRef(torch.float64, "0", 0, (64,), (1,)),
        TensorRef(torch.float32, "nowhere", 0, (1,), (1,)),
    ],
)
def test_tensors_that_claim_too_much(ref: TensorRef) -> None:
    with pytest.raises(WeightsError, match="damaged"):
        read_torch(GOOD).tensor(ref)


def test_many_large_views_of_one_storage() -> None:
    file = read_torch(GOOD)
    ref = TensorRef(torch.float32, "0", 0, (64, 4), (1, 0))
    for _ in range(MAX_VIEWS * len(GOOD) // 1024):
        file.tensor(ref)
    with pytest.raises(WeightsError, match="its arrays claim more than"):
        file.tensor(ref)


def test_a_damaged_length_in_a_legacy_file() -> None:
    data = saved({"a": torch.arange(64.0)}, True)
    place = len(data) - 64 * 4 - 8
    assert struct.unpack("<q", data[place : place + 8]) == (64,)
    for count in (-1, 1 << 62, 65):
        with pytest.raises(WeightsError, match="ends after the file"):
            read_torch(data[:place] + struct.pack("<q", count) + data[place + 8 :])


@pytest.mark.parametrize("key", [b")" + b"2\x86" * 20, b")" + b"\x85" * 2000, b"K\x01"], ids=["laughs", "tower", "one"])
def test_keys_of_storages_that_are_no_text(key: bytes) -> None:
    data = saved({"a": torch.arange(64.0)}, True)
    stream = io.BytesIO(data)
    for _ in range(4):
        list(pickletools.genops(stream))
    keys = stream.tell()
    list(pickletools.genops(stream))
    changed = data[:keys] + b"\x80\x02]" + key + b"a." + data[stream.tell() :]
    with pytest.raises(WeightsError, match=r"damaged, or no weights \(a (tuple|int) in the place of a text\)"):
        read_torch(changed)


def test_storages_inside_others() -> None:
    data = saved({"a": torch.arange(64.0)}, True)
    assert data.count(b"K@Ntq") == 1  # 64 numbers, inside no other
    with pytest.raises(
        WeightsError, match=r"^damaged, or no weights \(storages inside others, which only PyTorch 0\.1"
    ):
        read_torch(data.replace(b"K@Ntq", b"K@\x8c\x010K\x02K\x03\x87tq"))


def test_the_end_of_a_storage_is_looked_at_first() -> None:
    with pytest.raises(WeightsError, match=r"^damaged \(a tensor of 65 numbers in a storage of 256 bytes\); get it"):
        read_torch(GOOD).tensor(TensorRef(torch.float32, "0", 1, (8, 8), (8, 1)))
