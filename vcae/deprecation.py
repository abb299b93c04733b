"""Old names of renamed and moved objects, which give a DeprecationWarning for one version."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Collection, Mapping
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


def warn_of_ignored(given: Mapping[str, Any], known: Collection[str], where: str, stacklevel: int = 3) -> None:
    """Give a DeprecationWarning for arguments that have no effect any more.

    Args:
        given: Further arguments of a call, by their names.
        known: Names of arguments that were removed.
        where: Name of the function that was called.
        stacklevel: As for `warnings.warn`.

    Raises:
        TypeError: For other arguments.
    """
    for name in given:
        if name not in known:
            raise TypeError(f"{where} has no argument {name}")
        warnings.warn(f"{where}: {name} has no effect any more; leave it out", DeprecationWarning, stacklevel=stacklevel)
