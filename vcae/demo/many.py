"""Several recordings to one voice: a row for each, and all results in one zip."""

from __future__ import annotations

import html
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vcae import VcaeError
from vcae.demo.limits import MAX_FILES
from vcae.demo.pictures import table_html
from vcae.demo.studio import Studio, plain
from vcae.demo.work import Report, convert_files
from vcae.errors import ConfigError, DataError
from vcae.options import ConvertOptions

HEAD = ("Recording", "Result")


@dataclass(frozen=True)
class Batch:
    """Results of several recordings.

    Attributes:
        path: Zip of the results; None if there are none.
        rows: Name of each recording, and its duration or the reason why it was not converted.
        failed: Number of recordings that were not converted.
    """

    path: Path | None
    rows: list[tuple[str, str]]
    failed: int


def convert_many(
    studio: Studio,
    sources: Sequence[str | Path],
    clips: Sequence[str | Path],
    saved: Sequence[str | Path],
    options: ConvertOptions,
    check: Callable[[], None],
    report: Report,
) -> Batch:
    """Convert several recordings into a zip; one that cannot be used does not end the others.

    Args:
        studio: Models and folder to use.
        sources: Sound files.
        clips: As in `vcae.demo.work.convert_files`.
        saved: Likewise.
        options: Likewise.
        check: Likewise.
        report: Likewise.

    Raises:
        DataError: If there are no recordings.
        ConfigError: If there are too many.
    """
    if not sources:
        raise DataError("there are no recordings; choose several files")
    if len(sources) > MAX_FILES and not studio.local:
        raise ConfigError(f"{len(sources)} recordings were given; at most {MAX_FILES} are allowed at once")
    rows, names = list[tuple[str, str]](), set[str]()
    target = studio.new_file("converted.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as packed:
        for n, source in enumerate(sources):
            check()
            name, start, n_all = Path(source).name, n / len(sources), len(sources)

            def one(share: float, what: str, start: float = start, n: int = n, n_all: int = n_all) -> None:
                report(start + share / n_all, f"recording {n + 1} of {n_all}: {what}")

            try:
                done = convert_files(studio, source, clips, saved, options, check, one)
            except VcaeError as error:
                rows.append((name, f"not converted: {plain(str(error))}"))
                continue
            packed.write(done.path, _free_name(done.path.name, names))
            studio.forget(done.path)
            rows.append((name, f"{done.sound.duration_s:.1f} s"))
    failed = sum(text.startswith("not converted") for _, text in rows)
    if failed == len(rows):
        studio.forget(target)
    return Batch(None if failed == len(rows) else target, rows, failed)


def _free_name(name: str, taken: set[str]) -> str:
    """Return a name that is not taken yet, and take it."""
    path, n = Path(name), 1
    while name in taken:
        n += 1
        name = f"{path.stem}-{n}{path.suffix}"
    taken.add(name)
    return name


def batch_html(studio: Studio, done: Batch) -> str:
    """Return the HTML of the rows, and of the link to the zip."""
    link = ""
    if done.path is not None:
        address = html.escape(studio.url(done.path))
        link = f'<div class="vcae-downloads"><a id="many-download" href="{address}" download="converted.zip">Download all (zip)</a></div>'
    return link + table_html(HEAD, done.rows)
