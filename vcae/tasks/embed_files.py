"""Files of features: NumPy's npz without pickles, or Parquet (extra `parquet`). Without torch."""

from __future__ import annotations

import importlib.util
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcae.errors import ConfigError

if TYPE_CHECKING:
    from vcae.tasks.embed import Embedding

SUFFIXES = (".npz", ".parquet")


def need_writer(path: str | Path) -> None:
    """Check that pyarrow is installed for a Parquet file, before any work is done.

    Raises:
        ConfigError: If it is not installed.
    """
    if Path(path).suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            f"{path} needs pyarrow, which is not installed; run pip install 'vcae[parquet]', or name an .npz file"
        )


def format_embeddings(found: Sequence[Embedding], suffix: str, facts: dict[str, str]) -> bytes:
    """Return the bytes of a file with the rows of all recordings, concatenated.

    npz: `names` (F,), `values` (R, D), `name_index` (R,), the index of each row's name, `start_s` and `end_s` (R,), and `facts`, a JSON text.
    Parquet: a row has `name`, `start_s`, `end_s` and the list `values`; the facts are the schema's metadata `vcae`.

    Args:
        found: Features of at least one recording, all of one kind.
        suffix: `.npz` or `.parquet`.
        facts: Metadata on their origin.

    Raises:
        ConfigError: For an unknown suffix, or Parquet without pyarrow.
    """
    if suffix not in SUFFIXES:
        raise ConfigError(f"features cannot be written as {suffix!r}; allowed are {', '.join(SUFFIXES)}")
    # A file name may have bytes that are not valid text.
    names = [os.fsencode(e.name).decode("utf-8", "backslashreplace") for e in found]
    columns: dict[str, Any] = {
        "name_index": np.repeat(np.arange(len(found)), [len(e.values) for e in found]),
        "start_s": np.concatenate([e.start_s for e in found]),
        "end_s": np.concatenate([e.end_s for e in found]),
        "values": np.concatenate([e.values for e in found]),
    }
    out, text = io.BytesIO(), json.dumps(facts)
    if suffix == ".npz":
        np.savez(out, names=np.array(names), facts=np.array(text), **columns)
        return out.getvalue()
    need_writer(f"a file {suffix}")
    import pyarrow
    from pyarrow import parquet

    values = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(columns["values"].ravel()), columns["values"].shape[1])
    name = pyarrow.DictionaryArray.from_arrays(pyarrow.array(columns["name_index"].astype(np.int32)), pyarrow.array(names))
    rows = {"name": name, "start_s": columns["start_s"], "end_s": columns["end_s"], "values": values}
    table = pyarrow.table(rows).replace_schema_metadata({"vcae": text})
    parquet.write_table(table, out)
    return out.getvalue()
