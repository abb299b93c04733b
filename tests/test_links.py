"""What the texts point at is there: links, paths, scripts; and nothing points outside the repository."""

import re

import pytest

from tests.conftest import ROOT

FOLDERS = ("vcae", "recipes", "tests", "demo", "benchmarks", "docs")
SUFFIXES = (".md", ".py", ".yaml", ".toml")
TEXTS = sorted(
    path
    for path in (*ROOT.glob("*"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*")))
    if path.is_file() and (path.suffix in SUFFIXES or path.name == "Makefile")
)
PAGES = [path for path in TEXTS if path.suffix == ".md"]
SCRIPTS = {path.name for path in TEXTS if path.suffix == ".py"}
# What was there once, and what a command makes.
HISTORY = "CHANGELOG.md"


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        # The reference is made when the site is built, strictly: tests/test_docs.py.
        if not re.match(r"[a-z]+:|(\.\./)*reference/", target):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", [path for path in TEXTS if path.parent.name != "tests" and path.name != HISTORY], ids=name)
def test_named_paths_exist(path):
    pattern = rf"(?<![\w/.-])((?:{'|'.join(FOLDERS)})/[\w/.-]*\w\.(?:py|yaml|md|png|flac|csv|safetensors|sha256))\b"
    assert {found for found in re.findall(pattern, path.read_text()) if not (ROOT / found).exists()} == set()


@pytest.mark.parametrize("path", [path for path in PAGES if path.name != HISTORY], ids=name)
def test_named_scripts_exist(path):
    assert set(re.findall(r"\b(\w+\.py)\b", path.read_text())) - SCRIPTS == set()


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_nothing_points_outside(path):
    # Put together here, so that this file does not hold them.
    outside = re.findall(
        "|".join((r"\.\./" + "shared", "/wo" + "rk/", "evaluate_" + r"(?:copy|vc|words|mos)\b")), path.read_text()
    )
    assert outside == []
