"""Tables as people make them: CSV of any spreadsheet, in its separator and its encoding, with paths of any machine."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from vcae.errors import DataError

# What stands between columns, and how it is called in messages.
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        path: Its file.
        separator: Between its columns.
        columns: Their names, in lower case, without spaces around them.
        rows: Line number in the file, and the text of each column by name; rows with nothing in them are left out.
    """

    path: Path
    separator: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]

    @property
    def told(self) -> str:
        """What was seen of it, for messages."""
        return f"{', '.join(self.columns) or 'no rows'} (separator seen: {SEPARATORS[self.separator]})"


def read_table(path: Path, wanted: Collection[str] = ()) -> Table:
    """Read a CSV.

    The separator is the one that gives most of the wanted columns: comma, semicolon, tab or bar, or what a first line `sep=;` says. The
    encoding is UTF-8, UTF-16 with or without a mark, or else Windows' Western European (cp1252).

    Args:
        path: Of the file.
        wanted: Columns to look for, in lower case.

    Raises:
        DataError: If the file cannot be read, or its quotes do not match.
    """
    wanted_are = f"; give a CSV with the columns {' and '.join(wanted)}" if wanted else ""
    tables, wrong = list[tuple[str, list[tuple[int, list[str]]]]](), ""
    try:
        lines, skipped, stated = _lines(decode(path.read_bytes()))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table ({error}){wanted_are}") from error
    for separator in SEPARATORS if stated is None else [stated]:
        try:
            tables.append((separator, _rows(lines, separator)))
        except csv.Error as error:
            wrong = wrong or str(error)
    if not tables:
        raise DataError(f"{path} cannot be read as a table ({wrong}); check its quotes{wanted_are}")

    def fit(table: tuple[str, list[tuple[int, list[str]]]]) -> tuple[int, int]:
        head = _head(table[1][0][1]) if table[1] else ()
        return len({*head} & {*wanted}), len(head)

    separator, rows = max(tables, key=fit)
    head = _head(rows[0][1]) if rows else ()
    # What is in more columns than the header has is nobody's.
    named = tuple(
        (skipped + number, dict(zip(head, (*(cell.strip() for cell in cells), *[""] * len(head)), strict=False)))
        for number, cells in rows[1:]
    )
    return Table(path, separator, head, named)


def decode(data: bytes) -> str:
    """Return the text of a file that a spreadsheet or an editor wrote."""
    if data[:2] in UTF16:
        return data.decode("utf-16")
    # Half of the bytes of western text in UTF-16 are zero; in any other encoding none is.
    if b"\0" in data[:1000]:
        return data.decode("utf-16-be" if data[:1] == b"\0" else "utf-16-le")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def _lines(text: str) -> tuple[list[str], int, str | None]:
    """Return the lines, how many were taken off at the start, and the separator that the first one states."""
    lines = [f"{line}\n" for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    first = lines[0].strip().strip('"') if lines else ""
    if first[:4].lower() == "sep=" and (first[4:] or "\t") in SEPARATORS:
        return lines[1:], 1, first[4:] or "\t"
    return lines, 0, None


def _rows(lines: Sequence[str], separator: str) -> list[tuple[int, list[str]]]:
    """Return number of the last line and cells of each row that holds something."""
    reader, rows = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True), []
    for cells in reader:
        if any(cell.strip() for cell in cells):
            rows.append((reader.line_num, cells))
    return rows


def _head(cells: Sequence[str]) -> tuple[str, ...]:
    return tuple(unicodedata.normalize("NFC", cell).strip().strip("\ufeff").casefold() for cell in cells)


def find_path(text: str, folder: Path) -> Path:
    """Return the path that a table means, as it is on this machine: `~`, backslashes, and both ways to write accents are understood.

    Args:
        text: As it stands in the table.
        folder: That it is relative to.

    Returns:
        The file that is there; if none is, the path as it was written.
    """
    home = os.path.expanduser(text) if text.startswith("~") else text
    written = [home, home.replace("\\", "/")]
    forms = [unicodedata.normalize(form, way) for way in written for form in ("NFC", "NFD")]
    for way in (*written, *forms):
        try:
            if (folder / way).exists():
                return folder / way
        except (OSError, ValueError):
            # No path at all, which whoever opens it will say.
            break
    return folder / (written[1] if "\\" in text and os.sep == "/" else home)
