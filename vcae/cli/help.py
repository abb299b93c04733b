"""The --help of commands: options in groups, readable values, an example each."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

F = TypeVar("F", bound=Callable[..., Any])
# Groups of options that many commands have, by name. All others are in the group Options.
OUTPUT, COMPUTATION = "Output", "Computation"
GROUPS = {
    **dict.fromkeys(("output", "csv_file", "force", "quiet", "verbose", "json"), OUTPUT),
    **dict.fromkeys(("checkpoint", "device", "seed"), COMPUTATION),
}


def _readable(parameter: Any) -> Any:
    """Return a copy of a parameter for --help: in its group, and without the names of Python types and ranges."""
    shown = copy.copy(parameter)
    if getattr(shown, "is_flag", False):
        shown.metavar = ""
    if shown.param_type_name == "argument":
        # Its name says what it is.
        shown.display_type_rich = lambda ctx: None
    for bound in ("min", "max"):
        # The text says what is allowed.
        if hasattr(shown, bound):
            setattr(shown, bound, None)
    if getattr(shown, "rich_help_panel", None) is None and shown.name in GROUPS and shown.param_type_name == "option":
        shown.rich_help_panel = GROUPS[shown.name]
    return shown


def _paragraphs(text: str | None) -> str | None:
    """Join the lines of each paragraph, which are as wide as the source's and not as the terminal."""
    return text and "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def hints_of(function: Any) -> dict[str, Any]:
    """Return the types of the arguments of a function, or of the fields of a class, with what `Annotated` adds.

    Python 3.10 puts `Annotated[...] = None` into Optional, inside of which typer finds no option; it is taken out again.
    """
    hints = get_type_hints(function, include_extras=True)
    return {name: _without_optional(hint) for name, hint in hints.items()}


def _without_optional(hint: Any) -> Any:
    inside = [one for one in get_args(hint) if get_origin(one) is Annotated]
    return inside[0] if inside and get_origin(hint) is not Annotated else hint


VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Say in detail what is done, and where an error is from.")]


def _with_verbose(function: F) -> F:
    """Return a command with the option --verbose, which makes vcae's log print everything."""
    hints = hints_of(function)

    @wraps(function)
    def called(*args: Any, verbose: bool = False, **options: Any) -> Any:
        if verbose:
            logging.getLogger("vcae").setLevel(logging.DEBUG)
        return function(*args, **options)

    own = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in inspect.signature(function).parameters.values()]
    more = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=VerboseOption)
    called.__signature__ = inspect.Signature([*own, more])  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in (*own, more)}
    return cast(F, called)


class _Readable:
    """Mixin for commands and groups, whose parameters are made readable while help is printed."""

    _helping = False
    help: str | None

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters."""
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        return [_readable(one) for one in found] if self._helping else found

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        shown = copy.copy(self)
        shown._helping, shown.help = True, _paragraphs(self.help)
        super(_Readable, shown).format_help(ctx, formatter)  # type: ignore[misc]


class Command(_Readable, TyperCommand):
    """Command with a readable --help."""


class Group(_Readable, TyperGroup):
    """Group of commands with a readable --help."""


class App(typer.Typer):
    """Commands whose --help is readable; arguments as `typer.Typer`."""

    def __init__(self, **settings: Any) -> None:
        names = {"help_option_names": ["-h", "--help"]}
        super().__init__(cls=Group, no_args_is_help=True, context_settings=names, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[F], F]:
        """Register a command, with the option --verbose; arguments as `typer.Typer.command`."""
        register = super().command(name, **{"cls": Command, **settings})

        def command(function: F) -> F:
            register(_with_verbose(function))
            return function

        return command
