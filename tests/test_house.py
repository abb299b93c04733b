"""Rules of the house: layers, docstrings, README."""

import ast
import re
import subprocess
import sys

import pytest

from tests.conftest import CLIPS, ROOT

LAYERS = [
    ["errors", "version"],
    ["files"],
    ["config"],
    ["audio"],
    ["model", "vocoder"],
    ["checkpoint"],
    ["engine", "voice", "codec", "tasks", "batch", "figures", "anomaly"],
    ["sklearn"],
    ["demo"],
    ["evaluation"],
    ["cli"],
]
RANK = {name: n for n, names in enumerate(LAYERS) for name in names}
FILES = sorted((ROOT / "vcae").rglob("*.py"))
README = (ROOT / "README.md").read_text()


def _room(path):
    parts = path.relative_to(ROOT / "vcae").with_suffix("").parts
    return parts[0]


def _imports(path):
    """Yield the rooms of this package that a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vcae":
            names = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            yield from names
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("vcae."))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT / "vcae")))
def test_imports_go_one_way(path):
    room = _room(path)
    for imported in _imports(path):
        if imported not in RANK and imported != "training":
            continue
        if room == "training":
            assert imported == "training" or RANK[imported] <= RANK["codec"], imported
        elif room in RANK:
            assert imported != "training"
            assert RANK[imported] <= RANK[room], f"{room} imports {imported}"


def test_library_imports_no_recipes_or_demo():
    for path in FILES:
        named = re.search(r"^\s*(from|import) (recipes|demo|tests|gradio)\b", path.read_text(), re.M)
        # Its own room is the one that needs gradio; nothing else imports that room but the command that asks for it.
        assert not named or (_room(path) == "demo" and named[2] == "gradio"), path
        if _room(path) not in ("demo", "cli"):
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
    if _room(path) != "cli":
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls)


def test_public_names():
    import vcae

    assert all(hasattr(vcae, name) for name in vcae.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        _ = vcae.nonesuch


def test_readme_is_short_and_its_paths_exist():
    assert len(README.splitlines()) <= 150
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


def test_readme_commands_exist():
    """Each vcae command line in the README parses: its command and options are in --help."""
    lines = re.findall(r"^\s*\$? ?(vcae \w+ .*)$", README, re.M)
    assert lines
    for line in lines:
        words = line.split()
        command = words[1:3] if words[1] in ("voice", "anomaly", "generate") else words[1:2]
        helped = subprocess.run([sys.executable, "-m", "vcae", *command, "--help"], capture_output=True, text=True)
        assert helped.returncode == 0, line
        for option in re.findall(r"(--[a-z-]+)", line):
            assert option in helped.stdout, f"{option} of {line}"


def test_version_stands_once():
    import vcae

    assert f'version = "{vcae.__version__}"' in (ROOT / "pyproject.toml").read_text().splitlines()
    assert f"## {vcae.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_clips_are_licensed():
    notice = (CLIPS / "NOTICE.md").read_text()
    for clip in CLIPS.glob("*.flac"):
        assert clip.name in notice
