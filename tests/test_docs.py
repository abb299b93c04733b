"""The documentation: it builds without a warning, asks nothing of other hosts, and its commands and Python run."""

import contextlib
import functools
import html.parser
import http.server
import importlib
import io
import json
import re
import shlex
import sys
import threading

import numpy as np
import pytest
import soundfile
import typer.main
from typer.testing import CliRunner

from tests.conftest import CLIPS, ROOT
from tests.demo_server import ARGUMENTS, find_chromium
from vcae import checkpoint
from vcae.batch import pool
from vcae.cli.app import app

DOCS = ROOT / "docs"
PAGES = [DOCS / "index.md", *sorted(DOCS.glob("howto/*.md")), *sorted(DOCS.glob("explain/*.md"))]
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]*) -->\n\n)?```(?P<language>bash|python)\n(?P<code>.*?)```", re.S)
# What a page leaves to the defaults is made quick here.
QUICK = {"VCAE_ANOMALY_FIT_MODEL": "statistics"}
NOTEBOOKS = sorted(DOCS.glob("notebooks/*.ipynb"))


def name(path):
    return str(path.relative_to(DOCS))


def blocks(path):
    """Return language, code and the reason not to run it of each block of a page."""
    return [(found["language"], found["code"], found["reason"]) for found in BLOCK.finditer(path.read_text())]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """The recordings that the pages name, shortened."""
    root = tmp_path_factory.mktemp("recordings")
    source, friend, second = (soundfile.read(CLIPS / f"{one}.flac")[0] for one in ("source", "reference", "reference2"))
    noisy = soundfile.read(CLIPS / "noisy.flac")[0]
    speech = {"talk.wav": source, "question.wav": source[32000:], "friend.wav": friend, "noisy.wav": noisy}
    speech |= {
        "clip1.wav": second,
        "clip2.wav": second[32000:],
        "clips/1.wav": second,
        "talks/a.wav": source,
        "talks/b.flac": friend,
    }
    for path, wav in speech.items():
        (root / path).parent.mkdir(exist_ok=True)
        soundfile.write(root / path, wav[8000:36000], 16000)
    (root / "in.pcm").write_bytes((source[8000:36000] * 32767).astype("<i2").tobytes())
    random, times = np.random.default_rng(0), np.arange(32000) / 16000
    for folder, n, broken in (("normal", 8, False), ("dev/ok", 3, False), ("dev/bad", 3, True), ("new", 2, False)):
        (root / "fan" / folder).mkdir(parents=True)
        for k in range(1, n + 1):
            hum = sum(np.sin(2 * np.pi * 100 * m * times + random.uniform(0, 6)) / m for m in range(1, 9))
            wav = 0.05 * hum + 0.02 * random.standard_normal(len(times))
            if broken:
                wav[::4000] += 0.5
            soundfile.write(root / "fan" / folder / f"{k}.wav", wav, 16000)
    return root


@pytest.fixture(scope="module")
def loaded_once():
    """Checkpoints that are loaded once for all pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "load", functools.cache(checkpoint.load))
        yield


def run_jobs_here(jobs, build, n_workers):
    """Process the jobs of a folder in this process, as starting others, which tests/test_batch.py does, takes seconds."""
    worker = build()
    worker.start()
    yield from map(worker, jobs)


def run_line(line, given=None):
    """Run a command of a page as a shell would, and return what it printed."""
    before, *after = re.split(r" \| ", line, maxsplit=1)
    words, files = shlex.split(before), {}
    for sign in ("<", ">"):
        if sign in words:
            files[sign] = words.pop(words.index(sign) + 1)
            words.remove(sign)
    assert words[0] == "vcae", line
    if "<" in files:
        with open(files["<"], "rb") as opened:
            given = opened.read()
    done = CliRunner().invoke(app, words[1:], input=given)
    assert done.exit_code == 0, f"{line}\n{done.output}"
    if ">" in files:
        with open(files[">"], "wb") as opened:
            opened.write(done.stdout_bytes)
    return run_line(after[0], done.stdout_bytes) if after else done.stdout


def run_bash(code):
    for path, text in re.findall(r"^cat > (\S+) <<END\n(.*?)^END$", code, re.S | re.M):
        with open(path, "w") as opened:
            opened.write(text)
    code = re.sub(r"^cat > \S+ <<END\n.*?^END$", "", code, flags=re.S | re.M)
    for line in filter(None, code.splitlines()):
        run_line(line)


@pytest.mark.parametrize("path", [path for path in PAGES if any(reason is None for *_, reason in blocks(path))], ids=name)
def test_the_blocks_of_a_page_run(path, recordings, loaded_once, tmp_path, monkeypatch):
    for one in recordings.iterdir():
        (tmp_path / one.name).symlink_to(one)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pool, "run_jobs", run_jobs_here)
    for variable, value in (QUICK | {"VCAE_VOICES": str(tmp_path / "voices"), "COLUMNS": "120"}).items():
        monkeypatch.setenv(variable, value)
    for language, code, reason in blocks(path):
        if reason is not None:
            continue
        if language == "bash":
            run_bash(code)
        else:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(code, str(path), "exec"), {"__name__": "__main__"})
            assert printed.getvalue() or any(tmp_path.iterdir())
    written = {one.name for one in tmp_path.rglob("*")} - {one.name for one in recordings.rglob("*")}
    named = re.findall(
        r"(?:-o|--plot|--csv|--out-dir) ([\w.-]+)", "".join(code for _, code, reason in blocks(path) if not reason)
    )
    assert {one for one in named if one not in written | {"nova", "way"}} == set()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_the_cells_of_a_notebook_run(path, loaded_once, tmp_path, monkeypatch):
    """One after another in one process, as in a kernel, whose start takes longer than they do; `make notebooks` runs them in one."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    (tmp_path / "docs" / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "docs" / "notebooks")
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    names = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for n, cell in enumerate(cells):
            exec(compile(cell, f"{path.name}, cell {n}", "exec"), names)
    assert len(printed.getvalue().splitlines()) > 3
    assert path.stat().st_size < 100_000, "outputs must be small"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_commands_that_are_not_run_parse(path):
    commands = typer.main.get_command(app)
    for _, code, reason in blocks(path):
        for line in re.findall(r"(?:^|\| )(vcae .*)$", code, re.M) if reason else ():
            command, words = commands, shlex.split(line)[1:]
            while hasattr(command, "commands"):
                command = command.commands[words.pop(0)]
            allowed = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
            assert {word for word in words if word.startswith("-") and word != "-"} <= allowed, line


def test_why_a_block_is_not_run_is_said():
    reasons = {reason for path in PAGES for *_, reason in blocks(path)} - {None}
    assert reasons
    assert all(len(reason.split()) > 1 for reason in reasons)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built documentation."""
    config, build = pytest.importorskip("mkdocs.config"), importlib.import_module("mkdocs.commands.build").build
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        # With strict, a warning of a page is an error.
        build(config.load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


class Loaded(html.parser.HTMLParser):
    """Addresses that a browser loads by itself."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for key, value in attributes:
            if (key == "src" or (key == "href" and tag == "link")) and value:
                self.found.append(value)


def test_every_page_is_built_and_loads_files_of_the_site_only(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        for address in Loaded(page.read_text()).found:
            assert not re.match(r"(?:https?:)?//", address), f"{page.name} loads {address}"
            if page.name != "404.html":
                assert (page.parent / address.partition("?")[0].partition("#")[0]).exists(), f"{page.name}: {address}"


def test_links_out_of_the_documentation_lead_to_pages_of_the_site(site):
    text = (site / "how-it-works.html").read_text()
    assert 'href="models/default.html"' in text
    assert 'href="pages/licences.html"' in text
    assert "../recipes" not in (site / "train.html").read_text()
    assert "vcae/weights/default.md" not in re.findall(r'href="([^"]*)"', text)


@pytest.mark.skipif(find_chromium() is None, reason="chromium is not installed")
def test_the_site_asks_nothing_of_other_hosts_and_its_search_works(site):
    from playwright.sync_api import sync_playwright

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base, others = f"http://127.0.0.1:{server.server_port}", []
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
            page = browser.new_page()
            page.set_default_timeout(60000)
            page.on("request", lambda request: request.url.startswith((base, "data:", "blob:")) or others.append(request.url))
            page.on("pageerror", lambda error: others.append(str(error)))
            page.goto(f"{base}/sounds.html")
            page.goto(f"{base}/index.html")
            # What is typed before the index is there can be lost, so it is typed until something is found.
            page.wait_for_function(
                """() => {
                    const query = document.querySelector("input[data-md-component=search-query]");
                    query.focus();
                    query.value = query.value === "formant" ? "formants" : "formant";
                    query.dispatchEvent(new Event("input", {bubbles: true}));
                    query.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true}));
                    return document.querySelector(".md-search-result__item") !== null;
                }""",
                polling=2000,
            )
            browser.close()
    finally:
        server.shutdown()
        server.server_close()
    assert others == []


@pytest.fixture(scope="module")
def reference():
    sys.path.insert(0, str(DOCS / "site"))
    yield importlib.import_module("reference")
    sys.path.remove(str(DOCS / "site"))


def test_the_reference_has_every_command_and_option(reference):
    text = reference.pages()["reference/commands.md"]
    for command, parsed in reference.commands():
        part = text.partition(f"## {command}\n")[2].partition("\n## ")[0]
        assert part, command
        for one in parsed.params:
            if one.param_type_name == "option" and not getattr(one, "hidden", False):
                assert f"`{one.opts[0]}`" in part, f"{one.name} of {command}"


def test_the_reference_has_every_public_name_once(reference, monkeypatch):
    import vcae

    names = re.findall(r"^::: vcae\.(\w+)$", "\n".join(reference.pages().values()), re.M)
    assert sorted(names) == sorted(one for one in vcae.__all__ if not one.startswith("_"))
    # A new name is on the page of other names until it has a place.
    monkeypatch.setattr(vcae, "__all__", [*vcae.__all__, "novelty"])
    assert "novelty" in reference._python_groups()["Other names"]
