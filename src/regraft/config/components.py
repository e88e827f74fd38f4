"""From plain data with `_target_` to frozen components, and back to the data that decides a result."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import inspect
import operator
import os
import sys
import types
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from regraft.config.ranges import ConfigError
from regraft.interfaces import Component, Model, Task

TARGET = "_target_"
ENTRY_POINT = "regraft.components"


class Allowed:
    """Which classes a YAML file may name.

    Args:
        folders: Folders of a user's own YAML and classes (`--config-dir`): they are put on the import path, and the
            classes of the modules that lie in them are allowed.
    """

    def __init__(self, folders: tuple[Path, ...] = ()) -> None:
        self.folders = tuple(folder.resolve() for folder in folders)
        self.packages = {"regraft"} | _plugins()
        for folder in self.folders:
            if str(folder) not in sys.path:
                sys.path.append(str(folder))

    def component(self, target: str, path: str) -> type[Component]:
        """The component class that `target` names.

        The object that is found decides, not the text: a class that was only imported into one of our modules, a
        function, or anything that is no component is refused. No module is imported unless it is ours or the user's.

        Raises:
            ConfigError: Not a component, or not from an allowed place.
        """
        module_name, _, class_name = target.rpartition(".")
        problem = f"{path}.{TARGET}={target}"
        if not self._may_import(module_name):
            raise ConfigError(
                f"{problem}: must be a component of regraft, of a plugin declared by the entry point {ENTRY_POINT}, or "
                "of a module in a folder given with --config-dir."
            )
        try:
            found = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{problem}: must name a component class that exists ({error}).") from error
        if not (inspect.isclass(found) and issubclass(found, Component) and hasattr(found, "__dataclass_fields__")):
            raise ConfigError(f"{problem}: must be a component class (a dataclass derived from regraft's Component).")
        if inspect.isabstract(found) or not self._is_ours(found):
            raise ConfigError(f"{problem}: must be a concrete class that is defined in one of these places.")
        return found

    def _may_import(self, module: str) -> bool:
        if not module:
            return False
        top = module.split(".")[0]
        if top in {name.split(".")[0] for name in self.packages}:
            return any(module == name or module.startswith(f"{name}.") for name in self.packages)
        return any((folder / f"{top}.py").is_file() or (folder / top).is_dir() for folder in self.folders)

    def _is_ours(self, found: type) -> bool:
        module = found.__module__
        if any(module == name or module.startswith(f"{name}.") for name in self.packages):
            return True
        file = getattr(sys.modules.get(module), "__file__", None)
        return file is not None and any(Path(file).resolve().is_relative_to(folder) for folder in self.folders)


@functools.cache
def _plugins() -> frozenset[str]:
    """Packages that declare the entry point."""
    return frozenset(point.value.split(":")[0] for point in entry_points(group=ENTRY_POINT))


def build(node: Any, path: str, allowed: Allowed) -> Any:
    """The components that plain data describes.

    Args:
        node: Plain data; a mapping with `_target_` becomes a component.
        path: The config key of `node`, for messages.
        allowed: Which classes may be named.

    Raises:
        ConfigError: A class is not allowed, a key is unknown or missing, a value has the wrong type or range.
    """
    if isinstance(node, Mapping) and TARGET in node:
        found = allowed.component(str(node[TARGET]), path)
        values = {key: build(value, f"{path}.{key}", allowed) for key, value in node.items() if key != TARGET}
        return _construct(found, values, path)
    if isinstance(node, Mapping):
        return {key: build(value, f"{path}.{key}", allowed) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [build(value, f"{path}[{index}]", allowed) for index, value in enumerate(node)]
    return node


def _construct(found: type[Component], values: dict[str, Any], path: str) -> Component:
    fields = {field.name: field for field in dataclasses.fields(found) if field.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ConfigError(f"{path}.{key}: no such key; {found.__name__} has {', '.join(fields) or 'none'}.")
    hints = get_type_hints(found)
    for key, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if key not in values and required:
            raise ConfigError(f"{path}.{key}: is missing; set it, for example {path}.{key}=... on the command line.")
        if key in values:
            values[key] = validated(values[key], hints[key], f"{path}.{key}")
    try:
        return found(**values)
    except ConfigError as error:
        raise type(error)(f"{path}.{error}") from None


def validated(value: Any, hint: Any, key: str) -> Any:
    """`value` as the annotation `hint` wants it.

    Raises:
        ConfigError: It does not fit.
    """
    if value == "???":
        raise ConfigError(f"{key}: is missing; set it with {key}=... on the command line.")
    if not _has_component(hint):
        try:
            return TypeAdapter(hint).validate_python(value)
        except ValidationError as error:
            problem = error.errors()[0]
            told = f"{key}={value}: {problem['msg'][0].lower()}{problem['msg'][1:]}."
            if problem["type"] in ("tuple_type", "list_type") and not problem["loc"]:
                told += f" Write a list: {key}=[{value}]."
            raise ConfigError(told) from None
    origin = get_origin(hint)
    if inspect.isclass(origin) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {name: validated(item, get_args(hint)[1], f"{key}.{name}") for name, item in value.items()}
    plain = [each for each in get_args(hint) if each is not type(None) and not _has_component(each)]
    if origin in (Union, types.UnionType) and plain and not (value is None or isinstance(value, Component)):
        # what is no component is brought into the shape of what else may be there
        try:
            return validated(value, functools.reduce(operator.or_, plain), key)
        except ConfigError as error:
            names = " or ".join(sorted(_component_names(hint)))
            raise ConfigError(f"{error} Or give a {names}, a mapping with {TARGET}.") from None
    if _fits(value, hint):
        return tuple(value) if origin is tuple else value
    names = " or ".join(sorted(_component_names(hint)))
    raise ConfigError(f"{key}: must be a {names}, not {type(value).__name__}.")


def _arguments(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) is not None else ()


def _has_component(hint: Any) -> bool:
    if inspect.isclass(hint) and issubclass(hint, Component):
        return True
    return any(_has_component(argument) for argument in _arguments(hint))


def _component_names(hint: Any) -> set[str]:
    if inspect.isclass(hint):
        return {hint.__name__} if issubclass(hint, Component) else set()
    return set().union(*(_component_names(argument) for argument in _arguments(hint)))


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, argument) for argument in get_args(hint))
    if origin in (tuple, list):
        return isinstance(value, list | tuple) and all(_fits(item, get_args(hint)[0]) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_fits(item, get_args(hint)[1]) for item in value.values())
    if hint is type(None):
        return value is None
    return isinstance(value, hint)


def identified(component: Component, identity: dict[str, Any]) -> dict[str, Any]:
    """`identity`, and for a class from outside regraft its name and the digest of the file that defines it.

    A user edits a method and runs it again: that is another method.
    """
    found = type(component)
    if found.__module__.split(".")[0] == "regraft":
        return identity
    file = getattr(sys.modules.get(found.__module__), "__file__", None)
    code = None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return identity | {"class": f"{found.__module__}.{found.__qualname__}", "code": code}


def described(value: Any) -> Any:
    """Plain data that decides what a component does: its class and the fields that differ from their defaults.

    A field at its default leaves no trace, so a field that a later version adds does not move old ids.
    """
    if isinstance(value, Model):
        return identified(value, value.identity())
    if isinstance(value, Task):
        return identified(value, value.identity("recovery"))
    if isinstance(value, Component):
        plain: dict[str, Any] = identified(value, {TARGET: f"{type(value).__module__}.{type(value).__qualname__}"})
        for field in dataclasses.fields(value):  # type: ignore[arg-type]
            item = getattr(value, field.name)
            if field.default is not dataclasses.MISSING and item == field.default:
                continue
            if field.default_factory is not dataclasses.MISSING and item == field.default_factory():
                continue
            plain[field.name] = described(item)
        return plain
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value
