"""Old names of renamed and moved objects, which give a DeprecationWarning for one version."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` that finds renamed and moved objects by their old names.

    Args:
        module: Name of the module, `__name__`.
        names: New names by old names; `package.module.name` for an object of another module.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        message = f"{module}.{name} is called {names[name]} now; the old name goes in the next version"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        place, _, new = names[name].rpartition(".")
        return getattr(importlib.import_module(place or module), new)

    return find
