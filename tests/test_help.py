"""--help of every command: groups, examples, readable values, nothing eaten."""

import re
import shlex
import typing

import pytest
import typer.main
from typer.testing import CliRunner

from vcae.cli.app import app
from vcae.cli.help import COMPUTATION, GROUPS, hints_of
from vcae.cli.sources import RULE

ROOT = typer.main.get_command(app)


def _commands(group, words=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


COMMANDS = {" ".join(words): command for words, command in _commands(ROOT)}


def shown_parameters(name):
    """Return the parameters of a command, except the hidden ones, which are accepted for one more version."""
    return [one for one in COMMANDS[name].params if not getattr(one, "hidden", False)]


GROUP_NAMES = sorted({name.rpartition(" ")[0] for name in COMMANDS})
# Types of Python and of the command-line library.
TYPES = re.compile(r"<[a-z]|>=|<=|list\[|\b(?:bool|str|INTEGER|FLOAT|PATH|BOOLEAN|None)\b|choices\(")


def helped(name):
    done = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert done.exit_code == 0, done.output
    return done.output


def letters(text):
    """Return a text without spaces and box lines, which the width of the terminal decides."""
    return re.sub(r"[\s\u2500-\u257f]", "", text)


def test_there_are_commands():
    assert len(COMMANDS) > 25
    assert {"convert", "anomaly score", "voice save", "speak"} <= set(COMMANDS)


@pytest.mark.parametrize("name", [*GROUP_NAMES, *COMMANDS])
def test_no_types_are_shown(name):
    shown = helped(name)
    assert not TYPES.findall(shown), shown
    assert max(len(line) for line in shown.splitlines()) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_takes(name):
    for one in shown_parameters(name):
        assert one.help, one.name
        assert getattr(one, "is_flag", False) or one.metavar, f"{one.name} of {name} needs a metavar, such as SECONDS"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_text_is_eaten(name):
    """Columns interleave the lines of options, so an option's text must appear in its own column, word for word."""
    shown = helped(name)
    body = letters(COMMANDS[name].help)
    assert body in letters(shown)
    # The right-hand column of each panel, without its borders.
    right = "".join(letters(line.rstrip("\u2502 ").rsplit("  ", 1)[-1]) for line in shown.splitlines())
    for one in shown_parameters(name):
        for word in re.findall(r"\[[^\]]*\]", one.help):
            assert letters(word) in right, f"{word} of {one.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_options_that_many_commands_have_are_in_groups(name):
    shown = helped(name)
    for one in shown_parameters(name):
        wanted = one.rich_help_panel or GROUPS.get(one.name)
        if wanted and one.param_type_name == "option":
            assert f"\u256d\u2500 {wanted} \u2500" in shown, f"{one.name} of {name}"
    own = shown.partition("\u256d\u2500 Options ")[2].partition("\u2570")[0]
    assert "--device " not in own
    assert "--json" not in own


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_parses(name):
    examples = re.findall(r"^\s*Example: vcae (.*)$", COMMANDS[name].help, re.M)
    assert len(examples) == 1
    words = shlex.split(examples[0].partition(" < ")[0])
    assert words[: len(name.split())] == name.split()
    context = COMMANDS[name].make_context(name, words[len(name.split()) :])
    assert context.params


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_on_many_files_say_what_happens_to_a_bad_one(name):
    many = any(one.name == "out_dir" for one in COMMANDS[name].params)
    assert (RULE in COMMANDS[name].help) == many


def test_options_without_a_value_are_found_on_python_3_10_too(monkeypatch):
    """It puts them into Optional, where typer does not look."""
    speaker, number = typing.Annotated[list[str] | None, "--speaker"], typing.Annotated[int, "--number"]
    as_on_3_10 = {"speaker": typing.Optional[speaker], "number": number, "plain": typing.Optional[int]}  # noqa: UP045
    monkeypatch.setattr("vcae.cli.help.get_type_hints", lambda function, include_extras: as_on_3_10)
    assert hints_of(None) == {"speaker": speaker, "number": number, "plain": int | None}


def test_a_type_is_found():
    for text in ("--a <bool>", "--n <int range> [x>=0]", "NAME <list[str]>", "<float>"):
        assert TYPES.search(text)
    for text in ("--seed N", "auto|0..1", "reads < in.pcm", "NAME|FILE"):
        assert not TYPES.search(text)
    assert COMPUTATION in GROUPS.values()
