import io
import os
import pickle
import struct
import time
from collections import OrderedDict, defaultdict, deque
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from solov2.errors import WeightsError
from solov2.weights.pickled import Budget, PickledArray, Unread
from solov2.weights.pickles import MAX_STEPS, read_pickle
from tests.weights.foreign_files import python2_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(data: bytes, size: int | None = None) -> Any:
    return read_pickle(io.BytesIO(data), Budget(len(data) if size is None else size))


def array_of(value: Any) -> Any:
    assert isinstance(value, PickledArray)
    assert value.array is not None
    return value.array


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1,
        255,
        70000,
        -(2**40),
        2**300,
        1.5,
        "",
        "Äpfel\n",
        "x" * 70000,
        [],
        [1, [2, []]],
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 3, 4, ()),
        {},
        {"a": 1, 2: {"b": None}, 1.5: "c", None: True},
    ],
)
def test_plain_values(value: Any, protocol: int) -> None:
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_written_otherwise(protocol: int) -> None:
    assert read(pickle.dumps(b"\x00\xff", protocol)) == b"\x00\xff"
    assert read(pickle.dumps(OrderedDict(b=1, a=2), protocol)) == {"b": 1, "a": 2}
    assert list(read(pickle.dumps({3}, protocol))) == [3]
    assert list(read(pickle.dumps(frozenset({3}), protocol))) == [3]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_values_that_refer_to_each_other(protocol: int) -> None:
    shared = ["x"]
    first, second = read(pickle.dumps([shared, shared], protocol))
    assert first is second
    cycle: list[Any] = []
    cycle.append(cycle)
    found = read(pickle.dumps(cycle, protocol))
    assert found[0] is found


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8", "<i8", "|u1", "|b1"])
@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (2, 3, 4)])
def test_arrays(dtype: str, shape: tuple[int, ...], protocol: int) -> None:
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    found = array_of(read(pickle.dumps(array, protocol)))
    assert found.dtype == array.dtype
    assert found.shape == shape
    assert np.array_equal(found, array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_stored_by_columns(protocol: int) -> None:
    array = np.asfortranarray(np.arange(24.0).reshape(2, 3, 4))
    assert np.array_equal(array_of(read(pickle.dumps(array, protocol))), array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_single_numbers(protocol: int) -> None:
    assert read(pickle.dumps(np.float32(1.5), protocol)) == 1.5
    assert read(pickle.dumps(np.int64(-3), protocol)) == -3


@pytest.mark.parametrize("package", [b"numpy.core", b"numpy._core"])
def test_names_of_both_numpys(package: bytes) -> None:
    data = pickle.dumps(np.arange(3.0), 2)
    for other in (b"numpy._core", b"numpy.core"):
        data = data.replace(b"c" + other + b".multiarray", b"c" + package + b".multiarray")
    assert array_of(read(data)).tolist() == [0, 1, 2]


def test_python_2() -> None:
    array = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    found = read(python2_pickle({"conv1_w": array}))
    assert np.array_equal(array_of(found["blobs"]["conv1_w"]), array)


def test_arrays_of_other_things_are_not_read() -> None:
    for array in (np.array(["a", None], dtype=object), np.array(["ab"]), np.zeros(2, dtype="f4,f4"), np.zeros(2, "c8")):
        found = read(pickle.dumps({"a": array, "b": np.ones(2)}))
        assert found["a"].array is None
        assert array_of(found["b"]).tolist() == [1, 1]


def test_objects_of_frameworks_are_passed_over() -> None:
    values = [deque([1, 2]), defaultdict(list, a=[1]), np.random.default_rng(0).bit_generator, date(2021, 5, 1), 5]
    found = read(pickle.dumps(values))
    assert [type(value) for value in found] == [Unread, Unread, Unread, Unread, int]


def test_the_stream_stands_behind_the_pickle() -> None:
    stream = io.BytesIO(pickle.dumps([1]) + pickle.dumps([2]))
    assert [read_pickle(stream, Budget(9)), read_pickle(stream, Budget(9))] == [[1], [2]]


class Calls:
    """A pickle of it calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def refused(data: bytes, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(WeightsError, match=message) as error:
        read(data)
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 60  # as against hours


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {}",), r"\w+\.system"),
        (os.unlink, ("{}",), r"\w+\.unlink"),
        (eval, ("open('{}', 'w')",), "builtins.eval"),
        (exec, ("open('{}', 'w')",), "builtins.exec"),
        (getattr, ([], "append"), "builtins.getattr"),
        (__import__, ("os",), "builtins.__import__"),
        (pickle.loads, (pickle.dumps(1),), r"\w+\.loads"),
    ],
)
def test_nothing_is_called(tmp_path: Path, function: Any, arguments: Any, name: str, protocol: int) -> None:
    path = tmp_path / "made"
    filled = [part.format(path) if isinstance(part, str) else part for part in arguments]
    call = Calls(function, *filled)
    refused(
        pickle.dumps({"a": np.ones(3), "b": call}, protocol), f"names '{name}', which no weights need; do not trust"
    )
    assert list(tmp_path.iterdir()) == []


def test_names_with_line_breaks_stay_on_one_line() -> None:
    refused(b"\x80\x04\x8c\x05a\nb\x1bc\x8c\x01d\x93.", r"names 'a\\nb\\x1bc\.d'")


def opcodes(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


DTYPE = b"cnumpy\ndtype\n\x8c\x02f4\x85R"
SHELL = b"cnumpy.core.multiarray\n_reconstruct\n)R"
TERABYTE = b"\x8a\x06" + (2**40 - 1).to_bytes(6, "little")


def array_state(shape: bytes, content: bytes, kind: bytes = DTYPE) -> bytes:
    return SHELL + b"(K\x01" + shape + kind + b"\x89" + content + b"tb"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged, or no weights"),
        (b"\x80", "damaged, or no weights"),
        (b"\x80\x04", "damaged, or no weights"),
        (opcodes(), r"damaged, or no weights \(pop from empty list\)"),
        (b"\xff\xd8\xff\xe0JFIF", "damaged, or no weights"),
        (b'{"a": 1}', "damaged, or no weights"),
        (opcodes(b"r\xff\xff\xff\x7f"), "damaged"),  # the memory of nothing at a high place
        (opcodes(b"j\xff\xff\xff\x7f"), r"it refers to 2147483647, which is not in it"),
        (opcodes(b"\x8e" + struct.pack("<Q", 2**62)), "damaged"),  # bytes of any length
        (opcodes(b"\x8d" + struct.pack("<Q", 2**40), b"a"), "damaged"),
        (opcodes(b"\x8b\xff\xff\xff\x7f"), "damaged"),
        (opcodes(b"I" + b"9" * 10000 + b"\n"), "damaged"),
        (
            opcodes(b"B\x04\x00\x00\x00abcd", array_state(TERABYTE + b"\x85", b"C\x04abcd")),
            "an array with 4 bytes; expected 4",
        ),
        (opcodes(array_state(b"J\xff\xff\xff\xff\x85", b"C\x00")), "a side below zero"),
        (opcodes(array_state(b"(" + b"K\x00" * 40 + b"t", b"C\x00")), "too many sides"),
        (opcodes(array_state(b"\x8a\x14" + b"\xff" * 19 + b"\x7f\x85", b"C\x00")), "too long"),
        (opcodes(array_state(b"K\x01\x85", b"C\x04abcd", b"K\x01")), "damaged"),
        (
            opcodes(array_state(b"K\x01\x85", b"C\x04abcd", b"cnumpy\ndtype\n\x8c\x02f4\x85R(K\x03\x8c\x01?tb")),
            "an unknown byte order",
        ),
        (opcodes(b"}(K\x01\x85K\x01u"), "keys that are neither text nor numbers"),
        (opcodes(b"}(K\x01u"), "damaged"),
        (opcodes(b"K\x01K\x02R"), "a call of what is no function"),
        (opcodes(b"K\x01Q"), "it refers to other files"),
        (opcodes(b"\x82\x01"), "instruction EXT1, which no weights need"),
        (opcodes(b"\x97"), "instruction NEXT_BUFFER"),
        (opcodes(b"K\x01K\x02\x93"), "a name that is no text"),
        (opcodes(b"K\x01K\x02a"), "items for what is no list"),
        (opcodes(b"K\x01K\x02K\x03s"), "entries for what is no dictionary"),
        (opcodes(b"K\x01}b"), "a state for what has none"),
        (opcodes(b"t"), "damaged"),
        (opcodes(b"\x86"), "an instruction without its values"),
        (opcodes(b"c_codecs\nencode\n\x8c\x01a\x8c\x04rot1\x86R"), "bytes in encoding 'rot1'"),
    ],
)
def test_damaged_and_hostile(data: bytes, message: str) -> None:
    refused(data, message)


def test_nesting_has_no_bottom() -> None:
    depth = 200_000
    assert isinstance(read(opcodes(b"]" * depth, b"a" * (depth - 1))), list)
    assert isinstance(read(opcodes(b")", b"\x85" * depth)), tuple)
    refused(opcodes(b"}", b")", b"\x85" * depth, b"K\x01s"), "keys that are neither")


def test_a_billion_laughs_stay_references() -> None:
    laughs = (b"](" + (b"h" + bytes([level])) * 10 + b"e\x94" for level in range(100))
    found = read(opcodes(b"]\x94", *laughs))
    assert [len(found), len(found[9]), len(found[0][9])] == [10, 10, 10]
    assert found[0] is found[9]


# Printed or hashed, two to the power of 20 values and 200,000 levels: of a longer one hours and a full stack.
LAUGHS = b")" + b"2\x86" * 20
TOWER = b")" + b"\x85" * 200_000


@pytest.mark.parametrize("value", [LAUGHS, TOWER], ids=["laughs", "tower"])
@pytest.mark.parametrize("call", [b"cnumpy\ndtype\n%b\x85R", b"c_codecs\nencode\n\x8c\x01a%b\x86R"])
def test_what_is_no_text_is_not_printed(value: bytes, call: bytes) -> None:
    refused(opcodes(call % value), "a tuple in the place of a text")


def test_one_content_for_many_arrays() -> None:
    content = os.urandom(4096)
    first = b"B\x00\x10\x00\x00" + content + b"\x94"
    one = array_state(b"M\x00\x04\x85", b"h\x00")
    refused(opcodes(first, one * 3), r"its arrays claim more than the \d+ bytes it has")
    assert array_of(read(opcodes(first, one))).nbytes == 4096


def test_one_text_for_many_bytes() -> None:
    text = b"X" + struct.pack("<I", 5000) + b"a" * 5000 + b"\x94"
    encode = b"c_codecs\nencode\n"
    assert read(opcodes(text, encode, b"h\x00\x85R")) == b"a" * 5000
    refused(opcodes(text, (encode + b"h\x00\x85R") * 100), "its arrays claim more")


def test_one_list_for_many_dictionaries() -> None:
    pair = b"K\x01K\x02\x86"
    pairs = b"](" + pair * 1000 + b"e\x94"
    made = b"ccollections\nOrderedDict\nh\x00\x85R"
    assert read(opcodes(pairs, made)) == {1: 2}
    refused(opcodes(pairs, made * 1000), "its arrays claim more")


def test_too_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from solov2.weights import pickles

    assert MAX_STEPS > 1_000_000
    monkeypatch.setattr(pickles, "MAX_STEPS", 1000)
    refused(opcodes(b"]" * 1001), "it has too many parts for weights")


@pytest.mark.parametrize("protocol", [2, 4])
def test_every_start_of_a_file_is_refused(protocol: int) -> None:
    data = pickle.dumps({"a": np.ones((2, 3), np.float32), "b": ("c", np.zeros(2))}, protocol)
    for end in range(len(data)):
        with pytest.raises(WeightsError, match=r"^damaged, or no weights \("):
            read(data[:end])
