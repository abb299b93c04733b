"""Words to phones with stress: by a dictionary, and by a network for words that it does not have."""

from __future__ import annotations

import lzma
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from vcae.checkpoint import load_module, read_tensors, write_tensors
from vcae.errors import CheckpointError
from vcae.model.pronouncer import PART as PRONOUNCER
from vcae.model.pronouncer import STEPS, STRESSED_PHONES, VOWELS, WORD_LETTERS, Pronouncer, pronouncer_of
from vcae.model_file import find, read_metadata
from vcae.text.ctc import collapse
from vcae.text.word_list import pack_words, unpack, unpack_words

SHIPPED = "pronunciations"
NETWORK = "pronouncer"
PART = "pronunciations"
# Endings of a word that the dictionary may lack, after the word without them.
HISSING = ("S", "Z", "SH", "ZH", "CH", "JH")
VOICELESS = ("P", "T", "K", "F", "TH")


def pack_dictionary(said: Mapping[str, Sequence[str]]) -> tuple[bytes, bytes]:
    """Return the words and the phones of a dictionary, each compressed."""
    words = sorted(said)
    code = {phone: n for n, phone in enumerate(STRESSED_PHONES, 1)}
    phones = b"\0".join(bytes(code[p] for p in said[word]) for word in words)
    return pack_words(words), lzma.compress(phones, preset=9)


def unpack_dictionary(words: bytes, phones: bytes) -> dict[str, bytes]:
    """Return each word's phones, as numbers in `STRESSED_PHONES` plus 1.

    Raises:
        ValueError: If they are damaged.
    """
    found, said = unpack_words(words), unpack(phones)
    entries = said.split(b"\0")
    if len(entries) != len(found) or max(said) > len(STRESSED_PHONES):
        raise ValueError("its tables do not fit each other")
    return dict(zip(found, entries, strict=True))


def save_dictionary(path: str | Path, said: Mapping[str, Sequence[str]], metadata: str) -> None:
    """Write a dictionary of words and phones with stress, and the metadata as JSON.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    packed = zip(("words", "phones"), pack_dictionary(said), strict=True)
    write_tensors(path, {k: torch.from_numpy(np.frombuffer(v, np.int8).copy()) for k, v in packed}, {"vcae": metadata})


@lru_cache(maxsize=2)
def load_dictionary(name: str | Path = SHIPPED) -> dict[str, bytes]:
    """Load a dictionary of `save_dictionary`, the shipped one by default, once per process.

    Raises:
        CheckpointError: If it is missing, damaged, or another file.
    """
    path = find(name)
    if not isinstance(read_metadata(path).get(PART), dict):
        raise CheckpointError(f"{path} holds no pronunciations; give a file that does")
    tensors, _ = read_tensors(path)
    try:
        return unpack_dictionary(*(tensors[key].numpy().tobytes() for key in ("words", "phones")))
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path} is a damaged dictionary ({error}); get a fresh copy of it") from error


@lru_cache(maxsize=1)
def _network() -> Pronouncer:
    return load_module(NETWORK, PRONOUNCER, pronouncer_of)[0].requires_grad_(False)


@torch.inference_mode()
def spell_out(network: Pronouncer, words: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the phones with stress of words by the network alone; at least one phone each, and at most one primary stress."""
    code = {letter: n for n, letter in enumerate(WORD_LETTERS, 1)}
    made = []
    for word in words:
        output = network(torch.tensor([[code[c] for c in word if c in code]]))[0]
        phones = [STRESSED_PHONES[n - 1] for n, _, _ in collapse(output[:, : STEPS * len(word)].T.numpy())]
        if not phones:
            phones = [STRESSED_PHONES[int(output[1:].max(dim=1).values.argmax())]]
        stressed = [n for n, phone in enumerate(phones) if phone.endswith("1")]
        vowels = [n for n, phone in enumerate(phones) if phone[:2] in VOWELS]
        for n in stressed[1:]:
            phones[n] = phones[n][:2] + "2"
        if vowels and not stressed:
            phones[vowels[0]] = phones[vowels[0]][:2] + "1"
        made.append(tuple(phones))
    return made


class Pronunciation:
    """Pronunciations of words, by a dictionary and, where it lacks one, by its word without an ending or by the network.

    Args:
        dictionary: From `load_dictionary`; the shipped one when None.
        network: The shipped one when None, loaded at the first word that needs it.
    """

    def __init__(self, dictionary: Mapping[str, bytes] | None = None, network: Pronouncer | None = None) -> None:
        self._dictionary = load_dictionary() if dictionary is None else dictionary
        self._given = network

    def __call__(self, word: str) -> tuple[str, ...]:
        """Return the phones with stress of a word in lower case, such as ('HH', 'AH0', 'L', 'OW1')."""
        known = self._dictionary.get(word)
        if known is not None:
            return tuple(STRESSED_PHONES[n - 1] for n in known)
        for ending in ("'s", "s'", "'"):
            stem = word.removesuffix(ending)
            if stem != word and stem:
                return _with_s(self(stem)) if ending != "'" else self(stem)
        if word.endswith("s") and word[:-1] in self._dictionary:
            return _with_s(self(word[:-1]))
        return spell_out(self._given or _network(), [word])[0]


def _with_s(phones: tuple[str, ...]) -> tuple[str, ...]:
    """Return the phones of a word with the ending s."""
    if phones[-1] in HISSING:
        return (*phones, "IH0", "Z")
    return (*phones, "S" if phones[-1] in VOICELESS else "Z")
