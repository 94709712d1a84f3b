"""Pickles read as data: what they spell out is built here, nothing that they name is ever called.

A pickle is a small program. This machine knows the instructions that make plain values and NumPy
arrays, and the names of the few functions that stand for them; it never imports or calls what a
file names. Objects of frameworks that say nothing about weights stay unread; any other name ends
the reading. Memory stays in proportion to the file whatever the file claims.

Why neither :class:`pickle.Unpickler` with a ``find_class`` that allows only such names, nor
``torch.load(weights_only=True)``; tried with Python 3.11, NumPy 2.4 and PyTorch 2.13:

* The first takes 2 GiB for 9 bytes that name a high place in its memory, makes an array of 4 GiB of 68
  bytes that claim it, and never ends with a key of 60 tuples in one another, 128 bytes.
* The second reads no ``.pdparams``. It refuses a whole file for what stands beside its tensors: numbers
  and arrays of NumPy, paths, dates, arguments, objects of mmengine. It unpacks 2 MB to 2 GiB before it
  compares sizes.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any

from solov2.errors import WeightsError
from solov2.weights.pickled import (
    Budget,
    Key,
    Maker,
    Name,
    PickledArray,
    PickledType,
    Unread,
    as_key,
    byte_order,
    reason_of,
)

MAX_STEPS = 4_000_000
"""Instructions of one pickle; a checkpoint with its optimizer has a tenth of that."""

UNREAD_PACKAGES = frozenset(
    {"adet", "argparse", "collections", "datetime", "detectron2", "fvcore", "lightning", "mmcv", "mmdet", "mmengine"}
    | {"numpy", "pathlib", "pytorch_lightning", "torch", "yacs"}
)
"""Their objects stand beside weights in checkpoints; they are passed over."""

MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Python 2's names of modules."""

# What an instruction can find wrong with a damaged file, none of which is a bug here.
DAMAGE = (ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, TypeError, ValueError)


def read_pickle(
    stream: IO[bytes],
    budget: Budget,
    known: Mapping[Key, Callable[..., object]] | None = None,
    persistent: Callable[[Any], object] | None = None,
) -> Any:
    """Reads one pickle of protocol 0 to 5.

    Args:
        stream: stands behind the pickle afterwards.
        budget: for its arrays together; the size of the file is enough for whatever is honest.
        known: functions for further names; they get the arguments that stand in the file.
        persistent: turns persistent ids into values.

    Returns:
        Plain values, in which arrays are :class:`PickledArray`, sets lists or tuples, and what has nothing to
        do with weights :class:`Unread`.

    Raises:
        WeightsError: if it is damaged or names what weights have no use for; says what, in one
            line, without the file.
    """
    machine = Machine(budget, known or {}, persistent)
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if step > MAX_STEPS:
                raise ValueError("it has too many parts for weights")
            machine.run(opcode.name, argument)
        return machine.result()
    except DAMAGE as error:
        raise WeightsError(f"damaged, or no weights ({reason_of(error)}); get it again") from None


class Machine:
    """The stack, the memory and the instructions of a pickle.

    Args:
        budget: for the arrays.
        known: functions for further names.
        persistent: turns persistent ids into values.
    """

    def __init__(
        self,
        budget: Budget,
        known: Mapping[Key, Callable[..., object]],
        persistent: Callable[[Any], object] | None,
    ) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.persistent = persistent
        self.maker = Maker(budget)
        self.known: dict[Key, Callable[..., object]] = {**self.maker.functions(), **known}

    def run(self, opcode: str, argument: Any) -> None:
        """One instruction, named as in :mod:`pickletools`."""
        if opcode in PUSHED:
            self.stack.append(argument)
        elif opcode in CONSTANTS:
            self.stack.append(CONSTANTS[opcode]())
        elif opcode in PUTS:
            self.memo[argument] = self.stack[-1]
        elif opcode in GETS:
            self.stack.append(self.memo[int(argument)])
        elif opcode in INSTRUCTIONS:
            INSTRUCTIONS[opcode](self)
        elif opcode == "GLOBAL":
            module, _, name = argument.partition(" ")
            self.stack.append(self.find(module, name))
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"instruction {opcode}, which no weights need")

    def result(self) -> Any:
        """What is left at the end."""
        return self.stack.pop()

    def push(self, value: object) -> None:
        """Puts a value on the stack that stands once the value is known: taking a mark changes the stack."""
        self.stack.append(value)

    def above_mark(self) -> list[Any]:
        """Takes everything above the last mark off the stack."""
        items = self.stack
        self.stack = self.marked.pop()
        return items

    def find(self, module: str, name: str) -> Name:
        """A name, if weights have use for it."""
        module = MODULES.get(module, module)
        if (module, name) not in self.known and module.split(".")[0] not in UNREAD_PACKAGES:
            # Classes have names like this one, functions have not.
            hint = "; if it is a model of your own, save model.state_dict() instead" if name[:1].isupper() else ""
            raise WeightsError(
                f"names {f'{module}.{name}'[:120]!r}, which no weights need; do not trust this file{hint}"
            )
        return Name(module, name)

    def call(self, arguments: Any) -> None:
        """What a function would make of its arguments, in the place of its name on the stack."""
        function = self.stack.pop()
        if isinstance(function, Unread):
            self.stack.append(function)
            return
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of what is no function")
        make = self.known.get((function.module, function.name))
        self.stack.append(Unread(str(function)) if make is None else make(*arguments))

    def of_id(self, number: Any) -> object:
        """The value of a persistent id."""
        if self.persistent is None:
            raise ValueError("it refers to other files")
        return self.persistent(number)

    def set_state(self, state: Any) -> None:
        """Gives the value on top of the stack its state."""
        value = self.stack[-1]
        if isinstance(value, PickledType):
            value.order = byte_order(state[1])
        elif isinstance(value, PickledArray):
            self.maker.fill(value, *state)
        elif not isinstance(value, Unread | dict):  # an OrderedDict's attributes say nothing about weights
            raise ValueError("a state for what has none")


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return {as_key(name): value for name, value in zip(items[::2], items[1::2], strict=True)}


def _new(machine: Machine) -> None:
    machine.call(machine.stack.pop())


def _new_with_keywords(machine: Machine) -> None:
    machine.stack.pop()
    _new(machine)


def _extend(machine: Machine, items: list[Any]) -> None:
    if isinstance(machine.stack[-1], list):
        machine.stack[-1].extend(items)
    elif not isinstance(machine.stack[-1], Unread):
        raise ValueError("items for what is no list")


def _update(machine: Machine, items: list[Any]) -> None:
    if isinstance(machine.stack[-1], dict):
        machine.stack[-1].update(_pairs(items))
    elif not isinstance(machine.stack[-1], Unread):
        raise ValueError("entries for what is no dictionary")


def _take(machine: Machine, count: int) -> list[Any]:
    if len(machine.stack) < count:
        raise ValueError("an instruction without its values")
    items = machine.stack[-count:]
    del machine.stack[-count:]
    return items


def _mark(machine: Machine) -> None:
    machine.marked.append(machine.stack)
    machine.stack = []


def _global(machine: Machine) -> None:
    module, name = _take(machine, 2)
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("a name that is no text")
    machine.stack.append(machine.find(module, name))


def _memoize(machine: Machine) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


PUSHED = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}
PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
INSTRUCTIONS: dict[str, Callable[[Machine], object]] = {
    "MARK": _mark,
    "POP": lambda machine: machine.stack.pop() if machine.stack else machine.above_mark(),
    "POP_MARK": Machine.above_mark,
    "DUP": lambda machine: machine.push(machine.stack[-1]),
    "MEMOIZE": _memoize,
    "LIST": lambda machine: machine.push(machine.above_mark()),
    "TUPLE": lambda machine: machine.push(tuple(machine.above_mark())),
    "TUPLE1": lambda machine: machine.push(tuple(_take(machine, 1))),
    "TUPLE2": lambda machine: machine.push(tuple(_take(machine, 2))),
    "TUPLE3": lambda machine: machine.push(tuple(_take(machine, 3))),
    "DICT": lambda machine: machine.push(_pairs(machine.above_mark())),
    "FROZENSET": lambda machine: machine.push(machine.above_mark()),
    "APPEND": lambda machine: _extend(machine, _take(machine, 1)),
    "APPENDS": lambda machine: _extend(machine, machine.above_mark()),
    "ADDITEMS": lambda machine: _extend(machine, machine.above_mark()),
    "SETITEM": lambda machine: _update(machine, _take(machine, 2)),
    "SETITEMS": lambda machine: _update(machine, machine.above_mark()),
    "STACK_GLOBAL": _global,
    "REDUCE": _new,
    "NEWOBJ": _new,
    "NEWOBJ_EX": _new_with_keywords,
    "BUILD": lambda machine: machine.set_state(machine.stack.pop()),
    "BINPERSID": lambda machine: machine.push(machine.of_id(machine.stack.pop())),
}
