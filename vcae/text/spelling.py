"""Texts as sentences of words and pauses: numbers, signs and abbreviations written out as they are read aloud in English."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from vcae.errors import DataError

ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"]
ONES += ["fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
LARGE = [(10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")]
ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
SIGNS = {
    "&": "and", "%": "percent", "+": "plus", "=": "equals", "@": "at", "#": "number",
    "\u00b0": "degrees", "\u00d7": "times", "\u20ac": "euros", "\u00a3": "pounds", "$": "dollars",
}  # fmt: skip
COINS = {"$": "dollar", "€": "euro", "£": "pound"}
ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "ms": "miss", "dr": "doctor", "prof": "professor", "st": "saint", "vs": "versus",
    "etc": "etcetera", "approx": "approximately", "jr": "junior", "sr": "senior",
}  # fmt: skip
# Letters that Unicode does not take apart into a Latin letter and a mark.
LATIN = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th"}
QUOTES = {
    "\u201c": '"',
    "\u201d": '"',
    "\u2018": "'",
    "\u2019": "'",
    "\u02bc": "'",
    "\u00b4": "'",
    "`": "'",
    "\u2026": ". ",
    "\u2013": " - ",
    "\u2014": " - ",
}
# Numbers with more digits are read digit by digit.
MOST_DIGITS = 15
# A sentence with more words is divided, at a comma if there is one.
MOST_WORDS = 30
# Letters of a longer token are left out.
MOST_LETTERS = 40
END, COMMA = ".", ","


@dataclass(frozen=True)
class Sentence:
    """Words of a sentence, in lower case, with a comma where there is a pause.

    Attributes:
        tokens: Words, each of letters and apostrophes, and `COMMA`.
        last: Whether a sentence ends here, rather than a part of a long one.
    """

    tokens: tuple[str, ...]
    last: bool = True

    @property
    def words(self) -> tuple[str, ...]:
        """The words alone."""
        return tuple(token for token in self.tokens if token != COMMA)


def spell_number(number: int) -> str:
    """Write a whole number from 0 to below 10^15 in words, as it is read aloud in English."""
    if number < 20:
        return ONES[number]
    if number < 100:
        rest = f" {ONES[number % 10]}" if number % 10 else ""
        return TENS[number // 10 - 2] + rest
    size, name = next(entry for entry in LARGE if number >= entry[0])
    rest = f" {spell_number(number % size)}" if number % size else ""
    return f"{spell_number(number // size)} {name}{rest}"


def _spell_digits(digits: str) -> str:
    if len(digits) > MOST_DIGITS or (len(digits) > 1 and digits[0] == "0"):
        return " ".join(ONES[int(d)] for d in digits)
    return spell_number(int(digits))


def _ordinal(found: re.Match[str]) -> str:
    *before, last = _spell_digits(found[1]).split()
    spoken = ORDINALS.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    return " " + " ".join([*before, spoken]) + " "


def _year(found: re.Match[str]) -> str:
    high, low = int(found[0][:2]), int(found[0][2:])
    if low == 0:
        return f" {spell_number(high)} hundred "
    return f" {spell_number(high)} {'oh ' if low < 10 else ''}{spell_number(low)} "


def _money(found: re.Match[str]) -> str:
    whole, part = found[2].replace(",", ""), found[3]
    spoken = f" {_spell_digits(whole)} {COINS[found[1]]}{'s' * (int(whole) != 1)} "
    return spoken + (f"{spell_number(int(part))} " if part and int(part) else "")


def _decimal(found: re.Match[str]) -> str:
    return f" {_spell_digits(found[1])} point {' '.join(ONES[int(d)] for d in found[2])} "


def _time(found: re.Match[str]) -> str:
    hour, minute = int(found[1]), int(found[2])
    spoken = "o'clock" if minute == 0 else f"{'oh ' if minute < 10 else ''}{spell_number(minute)}"
    return f" {spell_number(hour)} {spoken} "


# In this order; each pattern sees what those before it left.
NUMBERS = [
    (re.compile(r"([$€£])\s?(\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d\d))?(?!\d)"), _money),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), lambda found: ""),
    (re.compile(r"\b([01]?\d|2[0-3]):([0-5]\d)\b"), _time),
    (re.compile(r"\b(\d+)(?:st|nd|rd|th)\b", re.I), _ordinal),
    (re.compile(r"(?<![\d.])(?:1[1-9]|20)\d\d(?![\d.]*\d)"), _year),
    (re.compile(r"(\d+)\.(\d+)"), _decimal),
    (re.compile(r"(?<!\w)-(?=\d)"), lambda found: " minus "),
    (re.compile(r"\d+"), lambda found: f" {_spell_digits(found[0])} "),
]


def plain_text(text: str) -> tuple[str, int]:
    """Return a text in Latin letters without marks, digits and signs of English, and the number of letters that were left out."""
    for old, new in QUOTES.items():
        text = text.replace(old, new)
    made, lost = [], 0
    for c in unicodedata.normalize("NFKC", text):
        c = LATIN.get(c.lower(), c)
        base = "".join(x for x in unicodedata.normalize("NFKD", c) if not unicodedata.combining(x))
        if base.isascii():
            made.append(base)
        elif c in SIGNS:
            made.append(c)
        else:
            lost += unicodedata.category(c)[0] in "LN"
            made.append(" ")
    return "".join(made), lost


def _words(text: str) -> Iterator[str]:
    """Yield the words of a text whose numbers are written out; tokens of capitals that cannot be read are spelled letter by letter."""
    for token in re.findall(r"[A-Za-z']+", text):
        word = token.strip("'")
        if not word:
            continue
        letters = word.replace("'", "")
        unread = len(letters) > 1 and not re.search(r"[aeiouy]", letters, re.I)
        if (unread and len(letters) <= 5) or (letters.isupper() and 2 <= len(letters) <= 3 and unread):
            yield from letters.lower()
        else:
            yield word.lower()[:MOST_LETTERS]


def sentences(text: str) -> Iterator[Sentence]:
    """Yield the sentences of a text; long ones in parts of at most `MOST_WORDS` words.

    Raises:
        DataError: If the text has no word that can be read as English.
    """
    made, lost = plain_text(text)
    made = re.sub(
        r"\b(" + "|".join(ABBREVIATIONS) + r")\.(?=\s+\S)", lambda found: ABBREVIATIONS[found[1].lower()], made, flags=re.I
    )
    # The full stops of initials and of abbreviations such as p.m. end no sentence.
    made = re.sub(r"\b([A-Za-z])\.(?=[A-Za-z]\b)", r"\1 ", made)
    made = re.sub(r"\b([A-Z])\.(?=\s+[A-Z])|\b([a-z])\.(?=\s+[a-z])", lambda found: (found[1] or found[2]) + " ", made)
    made = re.sub(r"\bNo\.(?=\s*\d)", "number ", made, flags=re.I)
    for pattern, spoken in NUMBERS:
        made = pattern.sub(spoken, made)
    for sign, name in SIGNS.items():
        made = made.replace(sign, f" {name} ")
    found = False
    for part in re.split(r"[.!?]+(?=\s|[\"')\]]|$)|\n\s*\n|[;:](?=\s)", made):
        tokens: list[str] = []
        for n, piece in enumerate(re.split(r",|\s-+\s|[()\[\]\"]", part)):
            words = list(_words(piece))
            if n and words and tokens:
                tokens.append(COMMA)
            tokens += words
        for piece_tokens, last in _divided(tokens):
            found = True
            yield Sentence(piece_tokens, last)
    if not found:
        what = f"{lost} letters of other scripts" if lost else f"{len(text.strip())} characters"
        raise DataError(f"the text has no English word ({what}); give words in Latin letters")


def _divided(tokens: list[str]) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield parts of at most `MOST_WORDS` tokens, cut at the last comma in reach, and whether each is the last."""
    while len(tokens) > MOST_WORDS:
        commas = [n for n in range(MOST_WORDS // 3, MOST_WORDS) if tokens[n] == COMMA]
        at = commas[-1] if commas else MOST_WORDS
        yield tuple(tokens[:at]), False
        tokens = tokens[at:]
        if tokens[0] == COMMA:
            tokens = tokens[1:]
    if tokens:
        yield tuple(tokens), True
