"""Enough of GraphQL to answer what W&B's client asks: one named operation, fragments, aliases, variables, directives.

A type of the schema is a Python object whose public attributes and methods are its fields: a field with arguments is a
method with keyword arguments of the same names. Whatever the objects do not have raises `UnknownField`, so that a
client that asks for something new is noticed and not answered with nothing.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

TOKEN = re.compile(
    r"""
      [\s,]+ | \#[^\n]*                                       # what is skipped
    | (?P<string>"(?:[^"\\\n]|\\.)*")
    | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<name>[_A-Za-z]\w*)
    | (?P<sign>\.\.\.|[!$()\[\]{}:=@|&])
    """,
    re.VERBOSE,
)


class GraphQLError(ValueError):
    """A document that this reader does not understand."""


class UnknownField(GraphQLError):
    """A field or an argument that no type of the schema has."""


@dataclass(frozen=True)
class Variable:
    """A value that is sent beside the document."""

    name: str


@dataclass(frozen=True)
class Selection:
    """One field, or a fragment (then `name` is "..."), and what is asked of it."""

    name: str
    alias: str
    arguments: dict[str, Any] = field(default_factory=dict)
    conditions: tuple[tuple[str, Any], ...] = ()  # ("include" or "skip", its `if`)
    selections: tuple[Selection, ...] = ()
    fragment: str = ""  # the name of a fragment that is defined elsewhere in the document


@dataclass(frozen=True)
class Document:
    """A parsed request: its only operation and its fragments."""

    kind: str  # "query" or "mutation"
    name: str
    defaults: dict[str, Any]
    selections: tuple[Selection, ...]
    fragments: dict[str, tuple[Selection, ...]]


class _Reader:
    """Recursive descent over the tokens of one document."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(text):
            found = TOKEN.match(text, position)
            if found is None:
                raise GraphQLError(f"not GraphQL at {text[position : position + 30]!r}")
            if found.lastgroup:
                self.tokens.append((found.lastgroup, found.group()))
            position = found.end()
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        text = self.peek()
        if not text or (expected and text != expected):
            raise GraphQLError(f"expected {expected or 'more'!r}, found {text!r}")
        self.at += 1
        return text

    def skip(self, text: str) -> bool:
        if self.peek() != text:
            return False
        self.at += 1
        return True

    def document(self) -> Document:
        operation: tuple[str, str, dict[str, Any], tuple[Selection, ...]] | None = None
        fragments = {}
        while self.peek():
            if self.peek() == "{":
                operation = ("query", "", {}, self.selections())
                continue
            kind = self.take()
            name = "" if self.peek() in ("(", "{") else self.take()
            if kind == "fragment":
                self.take("on")
                self.take()
                fragments[name] = self.selections()
            elif kind in ("query", "mutation"):
                defaults = self.variables()
                operation = (kind, name, defaults, self.selections())
            else:
                raise GraphQLError(f"{kind!r} is neither a query nor a mutation nor a fragment")
        if operation is None:
            raise GraphQLError("no operation")
        return Document(*operation, fragments)

    def variables(self) -> dict[str, Any]:
        defaults = {}
        if self.skip("("):
            while not self.skip(")"):
                self.take("$")
                name = self.take()
                self.take(":")
                while self.peek() not in ("$", ")", "="):
                    self.take()
                if self.skip("="):
                    defaults[name] = self.value()
        return defaults

    def selections(self) -> tuple[Selection, ...]:
        found = []
        self.take("{")
        while not self.skip("}"):
            found.append(self.fragment() if self.skip("...") else self.field())
        return tuple(found)

    def field(self) -> Selection:
        alias = name = self.take()
        if self.skip(":"):
            name = self.take()
        arguments = self.arguments()
        conditions = self.conditions()
        return Selection(name, alias, arguments, conditions, self.selections() if self.peek() == "{" else ())

    def fragment(self) -> Selection:
        if self.peek() not in ("on", "{", "@"):
            return Selection("...", "...", fragment=self.take(), conditions=self.conditions())
        if self.skip("on"):
            self.take()
        conditions = self.conditions()
        return Selection("...", "...", conditions=conditions, selections=self.selections())

    def conditions(self) -> tuple[tuple[str, Any], ...]:
        found = []
        while self.skip("@"):
            name = self.take()
            found.append((name, self.arguments().get("if")))
        return tuple(found)

    def arguments(self) -> dict[str, Any]:
        found = {}
        if self.skip("("):
            while not self.skip(")"):
                name = self.take()
                self.take(":")
                found[name] = self.value()
        return found

    def value(self) -> Any:
        kind, text = self.tokens[self.at]
        self.take()
        if text == "$":
            return Variable(self.take())
        if text == "[":
            items = []
            while not self.skip("]"):
                items.append(self.value())
            return items
        if text == "{":
            members = {}
            while not self.skip("}"):
                name = self.take()
                self.take(":")
                members[name] = self.value()
            return members
        if kind in ("string", "number"):
            return json.loads(text)
        return {"true": True, "false": False, "null": None}.get(text, text)


def parse(text: str) -> Document:
    """Read one request.

    Raises:
        GraphQLError: it is not one operation with its fragments.
    """
    return _Reader(text).document()


def execute(document: Document, root: object, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What `root`, an object with the fields of the operation, answers to it.

    Raises:
        UnknownField: something is asked for that the objects do not have.
    """
    given = document.defaults | dict(variables)

    def filled(value: Any) -> Any:
        if isinstance(value, Variable):
            return given.get(value.name)
        if isinstance(value, list):
            return [filled(item) for item in value]
        if isinstance(value, dict):
            # A variable that was not sent is an argument that was not given.
            return {
                name: filled(item)
                for name, item in value.items()
                if not (isinstance(item, Variable) and item.name not in given)
            }
        return value

    def wanted(selection: Selection) -> bool:
        return all(bool(filled(condition)) == (name == "include") for name, condition in selection.conditions)

    def fields(selections: Iterable[Selection]) -> Iterable[Selection]:
        for selection in selections:
            if not wanted(selection):
                continue
            if selection.name != "...":
                yield selection
            elif selection.fragment:
                yield from fields(document.fragments[selection.fragment])
            else:
                yield from fields(selection.selections)

    def answer(value: Any, selections: tuple[Selection, ...]) -> Any:
        if not selections or value is None:
            return value
        if isinstance(value, list):
            return [answer(item, selections) for item in value]
        told: dict[str, Any] = {}
        for selection in fields(selections):
            result = answer(ask(value, selection), selection.selections)
            before = told.get(selection.alias)
            # Two fragments may each ask for a part of the same object.
            told[selection.alias] = before | result if isinstance(before, dict) and selection.selections else result
        return told

    def ask(value: Any, selection: Selection) -> Any:
        kind = type(value).__name__
        if selection.name == "__typename":
            return kind
        if isinstance(value, Mapping):
            if selection.name not in value or selection.arguments:
                raise UnknownField(f"{document.name}: nothing has a field {selection.name!r} beside {sorted(value)}")
            return value[selection.name]
        if selection.name.startswith("_") or not hasattr(value, selection.name):
            raise UnknownField(f"{document.name}: {kind} has no field {selection.name!r}")
        found = getattr(value, selection.name)
        arguments = filled(selection.arguments)
        if not callable(found):
            if arguments:
                raise UnknownField(f"{document.name}: {kind}.{selection.name} takes no arguments")
            return found
        unknown = set(arguments) - set(inspect.signature(found).parameters)
        if unknown:
            raise UnknownField(f"{document.name}: {kind}.{selection.name} takes no {', '.join(sorted(unknown))}")
        return found(**arguments)

    told = answer(root, document.selections)
    assert isinstance(told, dict)
    return told
