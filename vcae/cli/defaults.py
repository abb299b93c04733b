"""Defaults of options from a config file and from environment variables. Without torch."""

from __future__ import annotations

import difflib
import importlib.util
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vcae.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "VCAE"
# Variables with a meaning of their own: the config file, the folder of saved voices, and the server's password.
OWN = ("CONFIG", "VOICES", "AUTH")


def config_path() -> Path:
    """Return the config file: `config.toml` in the user's folder for settings, such as ~/.config/vcae on Linux."""
    from platformdirs import user_config_path

    return user_config_path("vcae", appauthor=False) / "config.toml"


def set_defaults(ctx: Any, chosen: Path | None = None) -> None:
    """Set the defaults of all commands below a context. The command line comes first, then variables, then the config file.

    In the file, `device = "cpu"` is for all commands with the option --device, and `[convert]` or `[voice.save]` begins the options of one
    command. Likewise `VCAE_DEVICE` and `VCAE_CONVERT_DEVICE`. What is for one command comes before what is for all.

    Args:
        ctx: Context of the `vcae` command.
        chosen: Config file; by default that of `config_path`, if there is one.

    Raises:
        ConfigError: If the file cannot be read, or has a name that is not an option or a value that an option does not take.
    """
    path = config_path() if chosen is None else chosen
    table = _read(path) if chosen is not None or path.is_file() else {}
    known = {key for _, command in _commands(ctx.command) for key in _options(command)}
    for key, value in table.items():
        if not isinstance(value, dict) and _plain(key) not in known:
            raise ConfigError(f"{path}: no command has an option {key!r}{_nearest(key, known)}")
    ctx.default_map = _defaults(ctx, ctx.command, table, {}, str(path), ())


def given(name: str) -> bool:
    """Return whether an option of the running command was typed, and is not a default; True where no command runs."""
    # Newer versions of typer have a copy of click.
    click = "typer._click.globals" if importlib.util.find_spec("typer._click") else "click.globals"
    ctx = importlib.import_module(click).get_current_context(silent=True)
    source = None if ctx is None else ctx.get_parameter_source(name)
    return source is None or source.name == "COMMANDLINE"


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"the config file {path} cannot be read ({error.strerror}); check --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f'the config file {path} is not TOML ({error}); write lines such as device = "cpu"') from error


def _defaults(
    ctx: Any, group: Any, table: Mapping[str, Any], common: Mapping[str, Any], path: str, words: tuple[str, ...]
) -> dict[str, Any]:
    """Return the defaults of the commands of a group, by the command's and the parameter's name."""
    commands = {_plain(name): name for name in group.commands}
    common = {**common, **{key: value for key, value in table.items() if not isinstance(value, dict)}}
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    for key in tables:
        if _plain(key) not in commands:
            raise ConfigError(f"{path}: [{'.'.join((*words, key))}] is not a command{_nearest(key, commands)}")
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        below = next((value for key, value in tables.items() if _plain(key) == _plain(name)), {})
        if hasattr(command, "commands"):
            found[name] = _defaults(ctx, command, below, common, path, (*words, name))
            continue
        options, values = _options(command), dict[str, Any]()
        for key in below:
            if _plain(key) not in options:
                raise ConfigError(f"{path}: {' '.join((*words, name))} has no option {key!r}{_nearest(key, options)}")
        for where, key, value in _settings(common, below, (*words, name), options, path):
            option = options[key]
            try:
                option.process_value(ctx, value)
            except Exception as error:
                reason = getattr(error, "message", error)
                raise ConfigError(
                    f"{where} is {value!r}, which is not allowed for --{key.replace('_', '-')}: {reason}"
                ) from error
            values[option.name] = value
        found[name] = values
    return found


def _settings(
    common: Mapping[str, Any], own: Mapping[str, Any], words: tuple[str, ...], options: Mapping[str, Any], path: str
) -> Iterator[tuple[str, str, Any]]:
    """Yield place, option and value of each default of a command; later ones come before earlier ones."""
    for table in (common, own):
        yield from ((f"{path}: {key}", _plain(key), value) for key, value in table.items() if _plain(key) in options)
    for key, option in options.items():
        for name in (f"{PREFIX}_{key.upper()}", "_".join((PREFIX, *map(_plain, words), key)).upper()):
            text = os.environ.get(name)
            if text and name.removeprefix(f"{PREFIX}_") not in OWN:
                yield name, key, shlex.split(text) if option.multiple else text


def _options(command: Any) -> dict[str, Any]:
    """Return the options of a command by their names on the command line, such as `out_dir`."""
    return {
        _plain(name.lstrip("-")): one
        for one in command.params
        if one.param_type_name == "option" and one.name != "help"
        for name in one.opts
        if name.startswith("--")
    }


def _commands(group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command)
        else:
            yield name, command


def _plain(name: str) -> str:
    return name.replace("-", "_").lower()


def _nearest(name: str, known: Any) -> str:
    found = difflib.get_close_matches(_plain(name), list(known), 1)
    return f"; did you mean {found[0].replace('_', '-')}?" if found else ""
