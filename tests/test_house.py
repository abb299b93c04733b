"""Rules of the house: layers, docstrings, README."""

import ast
import functools
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tests.conftest import CLIPS, ROOT
from vcae.cli.app import app

# Rooms from the lowest to the highest: each may import those above it in this list, and nothing may import one below it.
LAYERS = [
    ["errors", "version", "environment", "signals", "deprecation"],
    ["files", "config", "table"],
    ["options", "model_file"],
    ["audio"],
    ["light"],
    ["model"],
    ["vocoder"],
    ["checkpoint"],
    ["engine"],
    ["voice"],
    ["export"],
    ["codec"],
    ["tasks"],
    ["text"],
    ["figures"],
    ["anomaly"],
    ["batch"],
    ["evaluation"],
    ["sklearn"],
    ["vcae"],
    ["demo"],
    ["cli"],
    ["__main__"],
]
RANK = {name: n for n, names in enumerate(LAYERS) for name in names}
FILES = sorted((ROOT / "vcae").rglob("*.py"))
README = (ROOT / "README.md").read_text()


MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in FILES}


def _room(name):
    """Return the room of a module; the package itself, which hands out what others make, is one of its own."""
    return name.split(".")[1] if "." in name else name


def _imports(text):
    """Return the modules of this package that a text imports, wherever the import stands: in a function, or for types alone."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vcae":
            assert node.level == 0
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= whole & MODULES.keys()
            if whole - MODULES.keys():
                found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
    return found


def _reach(graph, start):
    reached, waiting = set(), [start]
    while waiting:
        for name in graph[waiting.pop()] - reached:
            reached.add(name)
            waiting.append(name)
    return reached


def _circles(graph):
    """Return the circles of a graph: the names that can be reached from each other."""
    reach = {name: _reach(graph, name) for name in graph}
    return {frozenset(other for other in reach[name] if name in reach[other]) for name in graph if name in reach[name]}


@functools.cache
def _graph():
    return {name: _imports(path.read_text()) - {name} for name, path in MODULES.items()}


def test_no_file_imports_itself_round_a_circle():
    assert _circles(_graph()) == set()


def test_a_circle_is_found_however_it_is_hidden():
    lazy = "def f():\n    from vcae.audio import io"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vcae.files import STDIO"
    assert _imports(lazy) == {"vcae.audio.io"}
    assert _imports(typed) == {"vcae.files"}
    assert _imports("from vcae import checkpoint, load") == {"vcae.checkpoint", "vcae"}
    assert _imports("import vcae.tasks.model, numpy") == {"vcae.tasks.model"}
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert _circles(graph) == {frozenset({"b", "c"})}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_one_way(name):
    room = _room(name)
    for imported in _graph()[name]:
        other = _room(imported)
        if room == other:
            continue
        assert other != "training", f"{name} imports {imported}: only recipes train"
        if room == "training":
            assert RANK[other] <= RANK["codec"], f"{name} imports {imported}"
        elif name == "vcae":
            # It hands out names of higher rooms when they are asked for.
            continue
        else:
            assert RANK[other] < RANK[room], f"{name} imports {imported}"


def _of(path):
    """Return the room of a file."""
    return path.relative_to(ROOT / "vcae").with_suffix("").parts[0]


def test_library_imports_no_recipes_or_demo():
    for path in FILES:
        named = re.search(r"^\s*(from|import) (recipes|demo|tests|gradio)\b", path.read_text(), re.M)
        # Its own room is the one that needs gradio; nothing else imports that room but the command that asks for it.
        assert not named or (_of(path) == "demo" and named[2] == "gradio"), path
        if _of(path) not in ("demo", "cli"):
            assert "vcae.demo" not in path.read_text(), path


def _public(tree):
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (
                    n
                    for n in node.body
                    if isinstance(n, ast.FunctionDef) and not n.name.startswith("_") and n.name not in ("forward", "backward")
                )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT / "vcae")))
def test_everything_public_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), path
    for node in _public(tree):
        assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT / "vcae")))
def test_the_library_never_prints(path):
    if _of(path) != "cli":
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls)


def _strings(node):
    """Return the texts that a raised error is made of."""
    return [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT / "vcae")))
def test_errors_of_the_library_name_no_options_of_commands(path):
    """They name arguments as Python does, `force=True`; the command line says --force."""
    if _of(path) in ("cli", "demo"):
        return
    raised = [n.exc for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Raise) and n.exc is not None]
    named = [text for error in raised for text in _strings(error) if re.search(r"(?<![\w-])--[a-z]", text)]
    assert not named, named


def test_public_names():
    import vcae

    assert all(hasattr(vcae, name) for name in vcae.__all__)
    assert set(vcae.__all__) <= set(dir(vcae))
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        _ = vcae.nonesuch


def test_readme_is_short_and_its_paths_exist():
    assert len(README.split()) <= 600
    first = README.split()[:100]
    assert "convert" in first
    assert "test" in first
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for path in re.findall(r"`((?:vcae|recipes|tests|demo|benchmarks)/[\w/.]+)`", README):
        assert (ROOT / path).exists(), path


def test_readme_python_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    for name in ("source", "reference"):
        (tmp_path / f"{name}.flac").write_bytes((CLIPS / f"{name}.flac").read_bytes())
    for block in blocks:
        assert len(block.strip().splitlines()) <= 6
        done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*.wav"))


@functools.cache
def _help(command):
    done = CliRunner().invoke(app, [*command.split(), "--help"])
    assert done.exit_code == 0, command
    return done.stdout


def test_readme_commands_exist():
    """Each vcae command line in the README and in the page of commands parses: its command and options are in --help."""
    lines = re.findall(r"^\s*\$? ?(vcae \w+ .*)$", README + (ROOT / "docs/commands.md").read_text(), re.M)
    assert len(lines) > 20
    for line in lines:
        words = line.split()
        command = words[1:3] if words[1] in ("voice", "anomaly", "generate", "export") else words[1:2]
        for option in re.findall(r"(--[a-z-]+)", line):
            assert option in _help(" ".join(command)), f"{option} of {line}"
        assert _help(" ".join(command))


def test_version_stands_once():
    import vcae

    assert f'version = "{vcae.__version__}"' in (ROOT / "pyproject.toml").read_text().splitlines()
    assert f"## {vcae.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_clips_are_licensed():
    notice = (CLIPS / "NOTICE.md").read_text()
    for clip in CLIPS.glob("*.flac"):
        assert clip.name in notice
