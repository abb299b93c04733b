"""The words of the page: everything that a visitor can read has a translation, and every translation is of something that he can read."""

import ast
import json
import re
import shutil
import subprocess

import pytest

from tests.conftest import ROOT

DEMO = ROOT / "vcae" / "demo"
WORDS = json.loads((DEMO / "assets" / "words.json").read_text(encoding="utf-8"))
LANGUAGES = set(WORDS["languages"]) - {"en"}
# Not the page: the HTTP service and its manual, which are for programs, and the server.
OTHERS = {"api.py", "http.py", "manual.py", "guard.py", "run.py", "meters.py", "served.py", "look.py", "__init__.py"}
# Arguments that are no texts.
CODE = {"elem_id", "elem_classes", "js", "storage_key", "secret", "weight", "loc", "lang"}
# Texts of files and of voices, which keep their language, and of pictures, whose alternative text is translated.
KEPT = {
    "vcae {}",
    "reconstructed from {} values per step",
    "{}: {} Hz",
    "{} Hz",
    "chosen: {}",
    "Paths in the chosen folder",
    "not converted",
    "Hz",
}
KEPT |= {"Chosen voice", "Chosen voice for live conversion", "vcae: voice conversion", "vcae {}. {}", "{}{}"}
# Gradio's own words.
GRADIO = {
    "Drop Audio Here",
    "Drop File Here",
    "- or -",
    "Click to Upload",
    "More tabs",
    "Upload file",
    "Record audio",
    "Drop an audio file here to upload",
    "Click to upload or drop files",
    "Clear",
    "Copy",
    "Remove this file",
    "Reset audio",
    "Reset to default value",
    "Adjust volume",
    "Adjust playback speed to {}x",
    "Skip backwards by {} seconds",
    "Skip forward by {} seconds",
    "Trim audio to selection",
    "number input for {}",
    "range slider for {}",
    "undo",
    "Record",
    "Resume",
    "Waiting",
    "No microphone found",
    "Could not start recording from the microphone.",
    "In queue: {} of {}",
    "Error",
    "Add files",
}
# Errors of the library that an upload can cause: modules, and the first words of those that only the command line can.
LIBRARY = (
    "audio/io.py",
    "engine/denoise.py",
    "engine/listening.py",
    "audio/speech.py",
    "voice/speech.py",
    "codec/bitstream.py",
    "anomaly/features.py",
    "text/spelling.py",
)
COMMANDS = (
    "standard ",
    "the result for",
    "there is no standard",
    "{} would be a video",
    "{} has no sample rate",
    "F0 is estimated",
)
COMMANDS += ("a header with", "block {} has", "{} blocks were", "{} is damaged at byte")


def bare(text):
    """As the page compares texts: without a capital at the beginning and a full stop at the end."""
    text = " ".join(text.split())
    return (text[:1].lower() + text[1:]).removesuffix(".")


KNOWN = {bare(text) for text in WORDS["texts"]}


def template(node):
    if isinstance(node, ast.Constant):
        # What scripts fill in has a name.
        return re.sub(r"\{\w+\}", "{}", node.value) if isinstance(node.value, str) else ""
    return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)


def strings(tree):
    """Yield the strings of a module with {} for what is filled in; not docstrings, and not what is no text."""
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            skipped.add(node.body[0].value)
        elif isinstance(node, ast.keyword) and node.arg in CODE:
            skipped |= set(ast.walk(node.value))
        elif isinstance(node, ast.JoinedStr):
            skipped |= {part for part in node.values if isinstance(part, ast.Constant)}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("re.compile", "log.exception"):
            skipped |= set(ast.walk(node))
    yield from (template(n) for n in ast.walk(tree) if isinstance(n, ast.Constant | ast.JoinedStr) and n not in skipped)


def readable(text):
    """Yield the texts of a string: those between the marks if it is HTML, the paragraphs of Markdown, or itself if it has words."""
    if "<" in text:
        parts = [*re.findall(r"(?<! lang=\"\w\w\")>([^<>]+)<", text), *re.findall(r"(?:aria-label|alt)=\"([^\"]+)\"", text)]
    else:
        parts = [] if "=>" in text or 'data-left="' in text else [line.strip().lstrip("# ") for line in text.split("\n\n")]
    for part in parts:
        words = part.strip()
        if re.search(r"[A-Za-z]{2}", words) and (" " in words or re.match(r"[A-Z][a-z]", words)):
            yield words


def texts_of_the_page():
    for path in sorted(set(DEMO.glob("*.py")) - {DEMO / name for name in OTHERS}):
        for string in strings(ast.parse(path.read_text(encoding="utf-8"))):
            for text in readable(string):
                whole = bare(text) in KNOWN
                # A sentence that follows another is translated for itself.
                parts = [text] if whole else re.split(r"(?<=[.!?]) (?=[A-Z])", " ".join(text.split()))
                yield from ((path.name, each) for each in parts if re.search(r"[A-Za-z]{2}", each))


def errors(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            given = node.exc.args[0]
            if isinstance(given, ast.Constant | ast.JoinedStr) and ast.unparse(node.exc.func).endswith("Error"):
                yield template(given)


def test_every_text_of_the_page_has_a_translation():
    found = list(texts_of_the_page())
    assert len(found) > 250
    assert {(path, text) for path, text in found if bare(text) not in KNOWN and text not in KEPT} == set()


def test_errors_of_uploads_have_a_translation():
    found = [text for name in LIBRARY for text in errors(ROOT / "vcae" / name) if not text.startswith(COMMANDS)]
    assert len(found) > 25
    assert {text for text in found if bare(text) not in KNOWN} == set()


def test_translations_are_of_texts_that_there_are():
    for text, to in WORDS["texts"].items():
        assert set(to) == LANGUAGES, text
        assert all(each.strip() and each.count("{}") == text.count("{}") for each in to.values()), text
        # What a text is made of may be put together elsewhere, such as a name in brackets.
        assert text in GRADIO or all(bare(part.strip(" ()·")).lower() in ALL for part in text.split("{}")), text


def _all():
    paths = [*DEMO.glob("*.py"), *(ROOT / "vcae" / name for name in LIBRARY), *(ROOT / "vcae" / "anomaly").glob("*.py")]
    return [string for path in sorted(set(paths)) for string in strings(ast.parse(path.read_text(encoding="utf-8")))]


ALL = " ".join(" ".join(string.split()).lower() for string in _all())


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_how_the_browser_translates(tmp_path):
    """Capitals and full stops follow the text, parts are translated too, and several sentences one by one."""
    script = (DEMO / "assets" / "words.js").read_text(encoding="utf-8").replace("\nbegin();", "")
    script = "const window = {}; const Node = {}; const NodeFilter = {};\n" + script
    script += f"""
    learn({json.dumps(WORDS)}.texts);
    spoken.language = "de";
    console.log(JSON.stringify(["Stopped.", "  Woman 1 ", "Play Woman 1", "a name", "Stopped. Play Man 1"].map(translate)));"""
    (tmp_path / "words.js").write_text(script, encoding="utf-8")
    done = subprocess.run(["node", str(tmp_path / "words.js")], capture_output=True, text=True, check=True)
    wanted = ["Gestoppt.", "  Frau 1 ", "Frau 1 abspielen", "a name", "Gestoppt. Mann 1 abspielen"]
    assert json.loads(done.stdout) == wanted
