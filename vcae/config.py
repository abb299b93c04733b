"""Settings: values are in YAML files, and frozen dataclasses that check themselves are the schema. Each package defines its own."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from vcae.errors import ConfigError

T = TypeVar("T")


def require(condition: bool, what: str) -> None:
    """Raise a ConfigError with the message `what` unless the condition holds."""
    if not condition:
        raise ConfigError(what)


def _each(config: Any, names: tuple[str, ...], where: str) -> Iterator[tuple[Any, str]]:
    for name in names:
        value = getattr(config, name)
        yield value, f"{where and where + '.'}{name} is {value!r}"


def positive(config: Any, *names: str, where: str = "") -> None:
    """Require the named settings to be above 0; `where` is the name of the section in messages."""
    for value, what in _each(config, names, where):
        require(value > 0, f"{what}; it must be positive")


def at_least(config: Any, low: float, *names: str, where: str = "") -> None:
    """Require the named settings to be `low` or more."""
    for value, what in _each(config, names, where):
        require(value >= low, f"{what}; it must {'not be negative' if low == 0 else f'be at least {low:g}'}")


def within(config: Any, low: float, high: float, *names: str, where: str = "") -> None:
    """Require the named settings to be from `low` to `high`, both included."""
    for value, what in _each(config, names, where):
        require(low <= value <= high, f"{what}; allowed are {low:g} to {high:g}")


def one_of(config: Any, allowed: Collection[Any], *names: str, where: str = "") -> None:
    """Require the named settings to be one of the allowed values."""
    for value, what in _each(config, names, where):
        require(value in allowed, f"{what}; allowed are {', '.join(map(str, allowed))}")


def _cast(annotation: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(annotation)
        if value is None and type(None) in options:
            return None
        wanted = [o for o in options if o is not type(None)]
        fitting = next((o for o in wanted if isinstance(o, type) and type(value) is o), wanted[-1])
        return _cast(fitting, value, where)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return from_dict(annotation, value, where)
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is tuple and isinstance(value, list | tuple):
        # YAML has lists where a frozen config has tuples of one type.
        return tuple(_cast(typing.get_args(annotation)[0], item, f"{where}[{n}]") for n, item in enumerate(value))
    expected = origin or annotation
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        name = getattr(expected, "__name__", str(expected))
        raise ConfigError(f"{where} is {value!r}; a value of type {name} is needed")
    return value


def from_dict(cls: type[T], values: Any, where: str = "") -> T:
    """Build a config dataclass from plain data, strictly.

    Args:
        cls: A frozen dataclass of settings.
        values: Nested mappings, as from YAML or JSON. Missing keys get the dataclass's defaults.
        where: Prefix for messages, such as `model.content`.

    Returns:
        The checked dataclass.

    Raises:
        ConfigError: For an unknown key (the nearest valid one is named), a wrong type, or a value out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'the configuration'} is {values!r}; a mapping of names to values is needed")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    made = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
            raise ConfigError(f"unknown key {path}; the nearest valid key is {near[0]}, all are {', '.join(known)}")
        made[key] = _cast(hints[key], value, path)
    missing = [
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.name not in made and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where or 'the configuration'} lacks {', '.join(missing)}; all keys are {', '.join(known)}")
    return cls(**made)


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a config dataclass into nested plain data that `from_dict` reads back."""
    return dataclasses.asdict(config)


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    import yaml

    if path in seen:
        raise ConfigError(f"{path} is its own base; break the circle {' -> '.join(map(str, (*seen, path)))}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {str(error).splitlines()[0]}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}; a mapping of names to values is needed")
    base = values.pop("base", None)
    return values if base is None else _merge(_read_yaml(path.parent / str(base), (*seen, path)), values)


def load_config(cls: type[T], path: str | Path, overrides: list[str] | None = None) -> T:
    """Read a YAML file into a config dataclass.

    Args:
        cls: A frozen dataclass of settings.
        path: The YAML file. A top-level `base: other.yaml` names a file whose values this one changes.
        overrides: Settings such as `train.max_steps=100`; the right side is YAML.

    Returns:
        The checked dataclass.

    Raises:
        ConfigError: If the file cannot be read, or for anything `from_dict` refuses.
    """
    import yaml

    values = _read_yaml(Path(path))
    for item in overrides or []:
        key, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"override {item!r} has no '='; write it as section.name=value")
        nested: Any = yaml.safe_load(text)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        values = _merge(values, nested)
    return from_dict(cls, values)
