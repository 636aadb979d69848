"""Name to part: the one way in which branches, heads, datasets ... are found."""

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
    """Returns the known name that `received` probably means in any case, if there is one."""
    names = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(received.casefold(), names, n=1, cutoff=0.6)
    return names[close[0]] if close else None


def unknown(kind: str, received: str, known: Collection[str]) -> str:
    """Returns the sentence for a name that is not known, with its near miss.

    Example:
        >>> unknown("branch", "vgg61", ["resnet50", "vgg16"])
        "Unknown branch 'vgg61'. Did you mean 'vgg16'? Known: resnet50, vgg16."
    """
    close = near_miss(received, known)
    hint = f" Did you mean {close!r}?" if close else ""
    return f"Unknown {kind} {received!r}.{hint} Known: {', '.join(sorted(known)) or 'none'}."


class Registry(Generic[T]):
    """Parts of one kind by name.

    The modules of its package are imported on the first look, so that a
    new part is one new file and no other edit. A part registers itself when its
    module is imported; a part from outside needs only to be imported.

    Args:
        kind: What a part is called in messages, such as "branch".
        package: A package that holds nothing but modules which register parts.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._parts: dict[str, T] = {}
        self._discovered = False

    def register(self, part: T) -> T:
        """Adds a part under its name and returns it.

        Raises:
            ConfigError: If another part has that name.
        """
        present = self._parts.get(part.name)
        if present is not None and present != part:
            raise ConfigError(
                f"The {self.kind} {part.name!r} is registered already. Choose another name."
            )
        self._parts[part.name] = part
        return part

    def get(self, name: str) -> T:
        """Returns the part called `name`.

        Raises:
            ConfigError: If there is none; the text names the nearest one.
        """
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
        """Registers a part for the length of a `with` block, for tests."""
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
