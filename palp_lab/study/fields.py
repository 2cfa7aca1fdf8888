"""Reading JSON with one-line errors: every complaint names the file and the key."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from palp_lab.study.directions import nearest
from palp_lab.types import UserError

Scalar = str | int | float | bool | None


class Fields:
    """A JSON object under inspection: where it lies (file and key path) and its values, taken by type."""

    def __init__(self, value: object, where: str, key: str = "") -> None:
        self.where = where
        self.key = key
        if not isinstance(value, dict):
            self.fail("", f"must be an object, found {_kind(value)}")
        self.values: Mapping[str, Any] = value

    def fail(self, key: str, problem: str) -> NoReturn:
        """Raise the one line: file, key, problem."""
        path = ".".join(part for part in (self.key, key) if part)
        raise UserError(f"{self.where}: {path or 'the file'} {problem}")

    def only(self, allowed: Collection[str]) -> None:
        """No key but these; a stranger is named with its nearest relative."""
        for key in self.values:
            if key not in allowed:
                self.fail(key, f"is not a key of this schema{nearest(key, allowed)}")

    def need(self, key: str) -> Any:
        if key not in self.values:
            self.fail(key, "is missing")
        return self.values[key]

    def text(self, key: str) -> str:
        value = self.need(key)
        if not isinstance(value, str) or not value:
            self.fail(key, f"must be a non-empty string, found {_kind(value)}")
        return value

    def text_or_null(self, key: str) -> str | None:
        return None if self.values.get(key) is None else self.text(key)

    def flag(self, key: str) -> bool:
        value = self.need(key)
        if not isinstance(value, bool):
            self.fail(key, f"must be true or false, found {_kind(value)}")
        return value

    def whole(self, key: str) -> int:
        value = self.need(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.fail(key, f"must be a whole number of at least 0, found {_kind(value)}")
        return value

    def number_or_null(self, key: str) -> float | None:
        return self._number(key, self.need(key))

    def numbers_or_null(self, key: str) -> tuple[float | None, ...] | None:
        if self.values.get(key) is None:
            return None
        return tuple(self._number(f"{key}[{i}]", value) for i, value in enumerate(self.items(key)))

    def items(self, key: str) -> list[Any]:
        value = self.need(key)
        if not isinstance(value, list):
            self.fail(key, f"must be a list, found {_kind(value)}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.items(key)
        if not all(isinstance(value, str) for value in values):
            self.fail(key, "must be a list of strings")
        return tuple(values)

    def wholes(self, key: str) -> tuple[int, ...]:
        values = self.items(key)
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            self.fail(key, "must be a list of whole numbers")
        return tuple(values)

    def child(self, key: str) -> Fields:
        return Fields(self.need(key), self.where, f"{self.key}.{key}" if self.key else key)

    def children(self, key: str) -> list[Fields]:
        prefix = f"{self.key}.{key}" if self.key else key
        return [Fields(value, self.where, f"{prefix}[{i}]") for i, value in enumerate(self.items(key))]

    def scalars(self, key: str) -> dict[str, Scalar]:
        child = self.child(key)
        for name, value in child.values.items():
            if value is not None and not isinstance(value, str | int | float | bool):
                child.fail(name, f"must be a string, a number, true, false or null, found {_kind(value)}")
        return dict(child.values)

    def _number(self, key: str, value: object) -> float | None:
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool):
            self.fail(key, f"must be a number or null (not measured), found {_kind(value)}")
        return float(value)


def parse(text: str, where: str) -> Fields:
    """The object in a JSON text. NaN and Infinity, which Python writes by default, are refused by key."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg} at line {error.lineno})") from None
    for key, number in _numbers(value, ""):
        if not math.isfinite(number):
            raise UserError(f"{where}: {key} is {number}; what was not measured is null")
    return Fields(value, where)


def read_text(path: Path) -> str:
    """The text of a file without a byte order mark, or one line that says why not."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def _numbers(value: object, key: str) -> Iterator[tuple[str, float]]:
    """Every floating-point number below a JSON value, with its key path."""
    if isinstance(value, float):
        yield key, value
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from _numbers(child, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for i, child in enumerate(value):
            yield from _numbers(child, f"{key}[{i}]")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return repr(value) if isinstance(value, str | int | float) else names.get(type(value), type(value).__name__)
