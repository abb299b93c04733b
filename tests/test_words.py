"""The words of docstrings and comments: a reader who knows the field should not have to learn ours."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [path for folder in ("vcae", "recipes", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
ROOMS = sorted({str(p.parent.relative_to(ROOT)) for p in SOURCES})

# A class docstring names the thing first: "Result of ...", "Settings of ...", "Worker that ...".
CLASS_OPENINGS = ("What", "How", "Where", "Which", "Who", "Whose", "When")
# Phrases that a reader of this field has to read twice, and what to write instead.
BANNED = {
    r"manieth": "every n-th",
    r"hears?|heard": "input, analyse, measure",
    r"(?:is|are|was) told": "report, predict, distinguish",
    r"lies?": "is, is at",
    r"so (?:many|much)": "the number, or 'this many'",
    r"(?<!there )(?:is|are) no (?!longer|more|need)\w+": "is not a",
    r"nobody has": "new, generated",
    r"puts? right": "correct",
    r"go(?:es|ne)? through it": "process",
    r"what is said": "content, words",
    r"who (?:says|said) it": "speaker",
    r"anew": "again",
}


def _docstrings(path: Path) -> Iterator[tuple[int, ast.AST, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node, clean=False)
            if text:
                yield getattr(node, "lineno", 1), node, text


def _comments(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as opened:
        for token in tokenize.tokenize(opened.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def _prose(path: Path) -> Iterator[tuple[int, str]]:
    yield from ((line, text) for line, _, text in _docstrings(path))
    yield from _comments(path)


def _names(node: ast.AST) -> str:
    return getattr(node, "name", "the module")


def _faults(path: Path) -> list[str]:
    """Return a line for each phrase of a file that has to be written otherwise."""
    place = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    found = []
    for line, node, text in _docstrings(path):
        if isinstance(node, ast.ClassDef) and text.split(maxsplit=1)[0].rstrip(",") in CLASS_OPENINGS:
            found.append(f"{place}:{line}: the docstring of {_names(node)} says {text.split()[0]} ...; name the thing instead")
    for line, text in _prose(path):
        # Quoted names, such as `heard`, are code.
        plain = re.sub(r"`[^`]*`", "", text)
        for pattern, instead in BANNED.items():
            hit = re.search(rf"(?<![\w.])(?:{pattern})(?![\w(:])", plain)
            if hit:
                found.append(f"{place}:{line}: {hit.group()!r}; write: {instead}")
    return found


def test_the_sources_are_found() -> None:
    assert len(SOURCES) > 200


@pytest.mark.parametrize("room", ROOMS)
def test_words_are_the_fields(room: str) -> None:
    found = [fault for path in SOURCES if str(path.parent.relative_to(ROOT)) == room for fault in _faults(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('class A:\n    """What a detector says of a recording."""\n', "says What"),
        ('class A:\n    """How to go through it."""\n', "says How"),
        ('"""The mel as it is heard by the encoder."""\n', "'heard'"),
        ("# Every so manieth speaker is held out.\n", "'manieth'"),
        ("x = 1  # The frame that lies before it.\n", "'lies'"),
        ('def f():\n    """Return so many frames."""\n', "'so many'"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(text, encoding="utf-8")
    assert fault in "\n".join(_faults(path))


def test_code_in_backticks_and_plain_words_pass(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('class A:\n    """Result of a detector.\n\n    See `heard`; whatever it is.\n    """\n', encoding="utf-8")
    assert _faults(path) == []
