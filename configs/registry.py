"""Registries of parts by name: branches, heads, sources of data, face detectors."""

import difflib
import importlib
import pkgutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from configs.errors import ConfigError


class Named(Protocol):
    """Anything that a registry can hold."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


def near_miss(received: str, known: Collection[str]) -> str | None:
    """Returns the known name closest to `received` in any case, None if none is close."""
    names = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(received.casefold(), names, n=1, cutoff=0.6)
    return names[close[0]] if close else None


def unknown(kind: str, received: str, known: Collection[str]) -> str:
    """Returns the error message for an unknown name, with its near miss.

    Example:
        >>> unknown("branch", "vgg61", ["resnet50", "vgg16"])
        "Unknown branch 'vgg61'. Did you mean 'vgg16'? Known: resnet50, vgg16."
    """
    close = near_miss(received, known)
    hint = f" Did you mean {close!r}?" if close else ""
    return f"Unknown {kind} {received!r}.{hint} Known: {', '.join(sorted(known)) or 'none'}."


class Registry(Generic[T]):
    """Parts of one kind by name.

    A part registers itself when its module is imported. The modules of the registry's package
    are imported on first use, so a new part is one new file; a part from outside only needs to be
    imported.

    Args:
        kind: Name of the kind for messages, such as "branch".
        package: A package of modules that register parts.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._parts: dict[str, T] = {}
        self._discovered = False

    def register(self, part: T) -> T:
        """Adds a part and returns it; a ConfigError if another part has its name."""
        present = self._parts.get(part.name)
        if present is not None and present != part:
            raise ConfigError(
                f"The {self.kind} {part.name!r} is registered already. Choose another name."
            )
        self._parts[part.name] = part
        return part

    def get(self, name: str) -> T:
        """Returns a part; a ConfigError with the nearest name if there is none."""
        self._discover()
        if name not in self._parts:
            raise ConfigError(unknown(self.kind, name, self._parts))
        return self._parts[name]

    def names(self) -> list[str]:
        """Returns all names, sorted."""
        return sorted(part.name for part in self)

    def __iter__(self) -> Iterator[T]:
        self._discover()
        return iter(list(self._parts.values()))

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._parts

    @contextmanager
    def temporary(self, part: T) -> Iterator[T]:
        """Registers a part during a `with` block, for tests."""
        self._discover()
        before = dict(self._parts)
        try:
            yield self.register(part)
        finally:
            self._parts = before

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        package = importlib.import_module(self._package)
        for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
            importlib.import_module(f"{self._package}.{module.name}")
