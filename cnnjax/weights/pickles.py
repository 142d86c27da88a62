"""Reads pickles as data: an interpreter of the opcodes that a state dict needs, and of no other.

`pickle.Unpickler`, however restricted, imports and calls what a file names, and its BUILD opcode
sets attributes of whatever was allowed. Here a name from a file stays a pair of strings, a call is
a look-up in a table of functions that make plain records, and anything else is refused. Nothing of
the file is imported, called or executed.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple

from cnnjax.types import UserError

_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_SCALARS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
            "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
            "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}


class Name(NamedTuple):
    """What a pickle would import: "torch", "FloatStorage". Never imported."""

    module: str
    name: str


class Refused(UserError):
    """The file holds something that does not belong in a file of weights."""


class Reader:
    """Interprets one pickle.

    Args:
      calls: (module, name) -> function of plain arguments, for each name that may be called.
      names: (module, name) that may stand as values.
      persistent: from a persistent id, a tuple, to a value.
    """

    def __init__(self, calls: Mapping[tuple[str, str], Callable[..., Any]],
                 names: frozenset[tuple[str, str]],
                 persistent: Callable[[Any], Any]):
        self._calls, self._names, self._persistent = calls, names, persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self, file: IO[bytes]) -> Any:
        """Returns the object of the pickle that starts here; the file is then at its end.

        Raises:
          Refused: if it would import, call or build anything that is not a table's.
          ValueError: if it is no pickle.
        """
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name in _SCALARS:
                self._stack.append(argument)
            elif opcode.name in _CONSTANTS:
                self._stack.append(_CONSTANTS[opcode.name])
            elif opcode.name == "STOP":
                return self._pop()
            elif handle := _HANDLERS.get(opcode.name):
                handle(self, argument)
            else:
                raise Refused(f"it uses the pickle opcode {opcode.name}")
        raise ValueError("the pickle has no end")

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise ValueError("the pickle takes from an empty stack")
        return self._stack.pop()

    def _top(self) -> Any:
        self._stack.append(top := self._pop())
        return top

    def _pop_to_mark(self) -> list[Any]:
        for at in range(len(self._stack) - 1, -1, -1):
            if self._stack[at] is _MARK:
                items = self._stack[at + 1:]
                del self._stack[at:]
                return items
        raise ValueError("the pickle has no mark")

    def _tuple(self, length: int) -> None:
        items = [self._pop() for _ in range(length)]
        self._stack.append(tuple(reversed(items)))

    def _global(self, module: Any, name: Any) -> None:
        key = Name(module, name)
        if not isinstance(module, str) or not isinstance(name, str) or (
                key not in self._names and key not in self._calls):
            raise Refused(f"it names {_shown(module)}.{_shown(name)}")
        self._stack.append(key)

    def _reduce(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, Name) or function not in self._calls:
            raise Refused(f"it calls {_described(function)}")
        if not isinstance(arguments, tuple):
            raise Refused(f"it calls {_described(function)} with {_described(arguments)}")
        try:
            self._stack.append(self._calls[function](*arguments))
        except (TypeError, ValueError, AttributeError) as error:
            raise Refused(f"it calls {_described(function)} with arguments that it does not "
                          f"take ({error})") from None

    def _build(self, _: Any) -> None:
        # The state is attributes of the object: an OrderedDict of torch has `_metadata`. No use.
        self._pop()
        if not isinstance(self._top(), (dict, Inert)):
            raise Refused(f"it sets the state of {_described(self._top())}")

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(items) % 2:
            raise Refused(f"it sets items of {_described(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # The hash of a nested tuple is recursive in C: deep enough, it would crash.
            if not isinstance(key, (str, int, float, bytes, type(None))):
                raise Refused(f"a key of a dictionary is {_described(key)}")
            target[key] = value

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise Refused(f"it appends to {_described(target)}")
        target.extend(items)

    def _memo_put(self, index: int) -> None:
        self._memo[index] = self._top()

    def _memo_get(self, index: int) -> None:
        if index not in self._memo:
            raise ValueError("the pickle refers to what it has not stored")
        self._stack.append(self._memo[index])

    def _two_names(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._global(module, name)

    def _dictionary(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._stack.append({})
        self._set_items(items)


class Inert:
    """Stands for an object of no use here, such as the `Namespace` of a training script."""

    def __init__(self, *arguments: Any):
        del arguments


def _shown(text: Any) -> str:
    return text[:80] if isinstance(text, str) else type(text).__name__


def _described(value: Any) -> str:
    """Names a value without its contents, which may be endless."""
    if isinstance(value, Name):
        return f"{_shown(value.module)}.{_shown(value.name)}"
    return f"an object of type {type(value).__name__}"


_HANDLERS: dict[str, Callable[[Reader, Any], None]] = {
    "PROTO": lambda r, _: None,
    "FRAME": lambda r, _: None,
    "MARK": lambda r, _: r._stack.append(_MARK),
    "POP": lambda r, _: r._stack.pop() if r._stack else r._pop(),
    "EMPTY_DICT": lambda r, _: r._stack.append({}),
    "EMPTY_LIST": lambda r, _: r._stack.append([]),
    "EMPTY_TUPLE": lambda r, _: r._stack.append(()),
    "TUPLE": lambda r, _: r._stack.append(tuple(r._pop_to_mark())),
    "LIST": lambda r, _: r._stack.append(r._pop_to_mark()),
    "DICT": Reader._dictionary,
    "TUPLE1": lambda r, _: r._tuple(1),
    "TUPLE2": lambda r, _: r._tuple(2),
    "TUPLE3": lambda r, _: r._tuple(3),
    "SETITEM": lambda r, _: r._set_items([r._pop(), r._pop()][::-1]),
    "SETITEMS": lambda r, _: r._set_items(r._pop_to_mark()),
    "APPEND": lambda r, _: r._append([r._pop()]),
    "APPENDS": lambda r, _: r._append(r._pop_to_mark()),
    "PUT": Reader._memo_put,
    "BINPUT": Reader._memo_put,
    "LONG_BINPUT": Reader._memo_put,
    "MEMOIZE": lambda r, _: r._memo_put(len(r._memo)),
    "GET": Reader._memo_get,
    "BINGET": Reader._memo_get,
    "LONG_BINGET": Reader._memo_get,
    # pickletools joins the two by a space, and neither may hold one.
    "GLOBAL": lambda r, text: r._global(*text.split(" ", 1)),
    "STACK_GLOBAL": Reader._two_names,
    "REDUCE": Reader._reduce,
    "NEWOBJ": Reader._reduce,
    "BUILD": Reader._build,
    "BINPERSID": lambda r, _: r._stack.append(r._persistent(r._pop())),
}
