"""Judges that stand in for real ones where the work around them is tested: importable, so that other processes can have them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from vcae.evaluation.scores import NONE, Column, Judge, Score


@dataclass(frozen=True)
class Loudness(Judge):
    """Hears how loud a file is, and writes down what it was given to hear; it dies, or fails, over what is very quiet."""

    log: Path
    version: str = "1"
    at_quiet: str = ""
    name: ClassVar[str] = "loudness"

    def identity(self):
        return self.version

    def columns(self, copies):
        return (Column("loudness", "Loudness", "root mean square", 1), Column("gain", "Gain", "over the original", 0, False))

    def needs(self, row):
        return ((row.judged,), (row.original,))

    def open(self):
        if self.at_quiet == "cannot open":
            raise RuntimeError("no weights")

        def read(wav):
            with self.log.open("a") as opened:
                opened.write("heard\n")
            value = float(np.sqrt(np.square(wav).mean()))
            if value < 1e-3 and self.at_quiet == "die":
                os._exit(9)
            if value < 1e-3 and self.at_quiet == "fail":
                raise ValueError("too quiet")
            return value

        return read

    def score(self, row, read):
        judged, original = read(row.judged), read(row.original)
        gain = NONE if judged is None or original is None else Score(judged / original)
        return {"loudness": NONE if judged is None else Score(judged), "gain": gain}


@dataclass(frozen=True)
class Reader(Judge):
    """Reads what it was told that a file says."""

    said: dict[str, str]
    name: ClassVar[str] = "reader"

    def identity(self):
        return "1"

    def columns(self, copies):
        return (Column("reader_wer", "WER", "words lost", -1),)

    def needs(self, row):
        return ()

    def open(self):
        raise AssertionError("nothing is to be read")

    def score(self, row, read):
        wanted, heard = self.texts(row, read)
        wrong = sum(a != b for a, b in zip(wanted, heard, strict=True))
        return {"reader_wer": Score(wrong / len(wanted), len(wanted))}

    def texts(self, row, read):
        return row.transcript.split(), self.said[row.judged.name].split()
