"""Reading of tables: CSV of any spreadsheet, with its separator and encoding, and paths of any system."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from vcae.errors import DataError

# Separators of columns, with their names in messages.
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Table:
    """Contents of a table.

    Attributes:
        path: The file.
        separator: Separator of the columns.
        columns: Names of the columns, in lower case and stripped of spaces.
        rows: Line number in the file, and the text of each column by name; empty rows are left out.
    """

    path: Path
    separator: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]

    @property
    def told(self) -> str:
        """Description of the columns and the separator, for messages."""
        return f"{', '.join(self.columns) or 'no rows'} (separator seen: {SEPARATORS[self.separator]})"


def read_table(path: Path, wanted: Collection[str] = ()) -> Table:
    """Read a CSV.

    The separator is the one that gives most of the wanted columns (comma, semicolon, tab or bar), or that of a first line such as `sep=;`. The
    encoding is UTF-8, UTF-16 with or without a byte order mark, or else Windows' Western European (cp1252).

    Args:
        path: The file.
        wanted: Expected columns, in lower case.

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
    # Cells beyond the columns of the header are ignored.
    named = tuple(
        (skipped + number, dict(zip(head, (*(cell.strip() for cell in cells), *[""] * len(head)), strict=False)))
        for number, cells in rows[1:]
    )
    return Table(path, separator, head, named)


def decode(data: bytes) -> str:
    """Decode the text of a file from a spreadsheet or an editor."""
    if data[:2] in UTF16:
        return data.decode("utf-16")
    # Half of the bytes of western text in UTF-16 are zero; other encodings have no zero bytes.
    if b"\0" in data[:1000]:
        return data.decode("utf-16-be" if data[:1] == b"\0" else "utf-16-le")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def _lines(text: str) -> tuple[list[str], int, str | None]:
    """Return the lines, the number of lines removed at the start, and the separator stated in the first one."""
    lines = [f"{line}\n" for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    first = lines[0].strip().strip('"') if lines else ""
    if first[:4].lower() == "sep=" and (first[4:] or "\t") in SEPARATORS:
        return lines[1:], 1, first[4:] or "\t"
    return lines, 0, None


def _rows(lines: Sequence[str], separator: str) -> list[tuple[int, list[str]]]:
    """Return the number of the last line and the cells of each row that is not empty."""
    reader, rows = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True), []
    for cells in reader:
        if any(cell.strip() for cell in cells):
            rows.append((reader.line_num, cells))
    return rows


def _head(cells: Sequence[str]) -> tuple[str, ...]:
    return tuple(unicodedata.normalize("NFC", cell).strip().strip("\ufeff").casefold() for cell in cells)


def find_path(text: str, folder: Path) -> Path:
    """Resolve a path of a table on this machine, with `~`, backslashes, and composed or decomposed accents.

    Args:
        text: Path in the table.
        folder: Folder to which it is relative.

    Returns:
        The existing file; if there is none, the path as written.
    """
    home = os.path.expanduser(text) if text.startswith("~") else text
    written = [home, home.replace("\\", "/")]
    forms = [unicodedata.normalize(form, way) for way in written for form in ("NFC", "NFD")]
    for way in (*written, *forms):
        try:
            if (folder / way).exists():
                return folder / way
        except (OSError, ValueError):
            # Not a valid path; opening it raises.
            break
    return folder / (written[1] if "\\" in text and os.sep == "/" else home)
