"""Reference pages: the commands from their help, the Python names from their docstrings."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import typer.main

import vcae
from vcae.cli.app import app
from vcae.cli.help import GROUPS

# Python names by use; what is public and not named here is on a page of its own.
PYTHON = {
    "Conversion": ["load", "Model", "ConvertOptions", "LiveConverter", "Encoding", "Embedding"],
    "Sound": ["Sound", "read_sound", "write_sound", "resample", "denoise"],
    "Voices": ["Voice", "mix_voices", "save_voice", "load_voice"],
    "Units and text": ["Units", "read_units", "SpeakOptions", "BabbleOptions", "say", "SayOptions", "transcribe", "Transcript"],
    "Codec": ["compress", "decompress", "Codec"],
    "Anomalies": ["Detector", "Anomaly", "AnomalyConfig"],
    "Errors": ["VcaeError", "AudioError", "BitstreamError", "CheckpointError", "ConfigError", "DataError"],
}
LEFT = "Other names"


@functools.cache
def pages() -> dict[str, str]:
    """Return the text of each page, by its path in the site."""
    made = {"reference/commands.md": _commands_page()}
    for title, names in _python_groups().items():
        made[f"reference/python/{title.lower().replace(' ', '-')}.md"] = _python_page(title, names)
    return made


def _python_groups() -> dict[str, list[str]]:
    named = {name for names in PYTHON.values() for name in names}
    left = sorted(name for name in vcae.__all__ if name not in named and not name.startswith("_"))
    groups = {title: [name for name in names if name in vcae.__all__] for title, names in PYTHON.items()}
    return groups | ({LEFT: left} if left else {})


def _python_page(title: str, names: list[str]) -> str:
    lines = [
        f"# {title}",
        "",
        "Axis letters: B items of a batch, N samples, T frames, D features, K entries of a codebook.",
        "",
    ]
    return "\n".join([*lines, *(f"::: vcae.{name}\n" for name in names)])


def commands() -> Iterator[tuple[str, Any]]:
    """Yield the name and the command of each, in the order of `vcae --help`."""
    yield from _inside(typer.main.get_command(app), "vcae")


def _inside(group: Any, before: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _inside(command, f"{before} {name}")
        else:
            yield f"{before} {name}", command


def _commands_page() -> str:
    found = dict(commands())
    lines = [
        "# All commands and options",
        "",
        "As `vcae COMMAND --help` prints them; [Commands by example](../commands.md) is shorter.",
        "",
    ]
    lines += [", ".join(f"[{name.removeprefix('vcae ')}](#{name.replace(' ', '-')})" for name in found), ""]
    for name, command in found.items():
        lines += _command(name, command)
    return "\n".join(lines) + "\n"


def _command(name: str, command: Any) -> list[str]:
    shown = [one for one in command.params if not getattr(one, "hidden", False)]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    lines = [f"## {name}", ""]
    for paragraph in re.split(r"\n\s*\n", command.help.strip()):
        text = " ".join(paragraph.split())
        lines += [f"    {text.removeprefix('Example: ')}" if text.startswith("Example: ") else _plain(text), ""]
    if arguments:
        lines += ["| argument | |", "|---|---|"]
        lines += [f"| `{_value(one)}` | {_cell(one.help)} |" for one in arguments]
        lines += [""]
    groups: dict[str, list[Any]] = {}
    for one in shown:
        if one.param_type_name == "option":
            groups.setdefault(getattr(one, "rich_help_panel", None) or GROUPS.get(one.name, "Options"), []).append(one)
    for title, options in groups.items():
        lines += [f"| {title} | value | default | |", "|---|---|---|---|"]
        lines += [_option(one) for one in options]
        lines += [""]
    return lines


def _option(one: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
    value = "" if one.is_flag else f"<code>{_value(one).replace('|', '&#124;')}</code>"
    default = one.default if one.show_default else None
    shown = (
        ""
        if one.required or default in (None, False, (), [], "") or (one.is_flag and not one.secondary_opts)
        else str(getattr(default, "value", default))
    )
    if one.is_flag and one.secondary_opts and isinstance(default, bool):
        shown = (one.opts if default else one.secondary_opts)[0]
    return f"| {names} | {value} | {'required' if one.required else shown and f'`{shown}`'} | {_cell(one.help)} |"


def _value(one: Any) -> str:
    return str(one.metavar or one.name.upper())


def _cell(text: str) -> str:
    return _plain(" ".join((text or "").split())).replace("|", "\\|")


def _plain(text: str) -> str:
    """Return a text in which no signs of Markdown are left outside of code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if n % 2 else re.sub(r"([<>*_\[\]])", r"\\\1", part) for n, part in enumerate(parts))
