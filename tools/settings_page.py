"""Writes the reference of all settings, a Markdown page, from the schema."""

import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from configs.fields import options_model, section_of
from configs.schema import ExperimentConfig, FaceSetConfig, Part
from configs.search import SearchConfig
from ensemble.data.registry import SOURCES
from ensemble.faces.registry import DETECTORS
from heads.registry import HEADS, HeadSpec

PAGES: dict[str, type[BaseModel]] = {
    "Experiments": ExperimentConfig,
    "Searches": SearchConfig,
    "Sets of faces": FaceSetConfig,
}
_INTRODUCTIONS = {
    "Experiments": "Of `ensemble.train`, `ensemble.extract` and `ensemble.search`.",
    "Searches": "Of `ensemble.search`, beside those of an experiment.",
    "Sets of faces": "Of `ensemble.prepare`.",
}
_PREFIXES = {"Searches": "search."}


class Leaf(NamedTuple):
    """A setting: its dotted path, and what the schema says of it."""

    path: str
    info: FieldInfo

    @property
    def short_flag(self) -> str:
        """The flag it has beside its dotted path; empty where there is none."""
        extra: Any = self.info.json_schema_extra or {}
        name = extra.get("flag", self.path)
        return "" if name == self.path else f"--{name}"

    @property
    def default(self) -> str:
        """Its default as a person writes it; empty where there is none."""
        value = self.info.get_default(call_default_factory=True)
        if value is None or value in ([], {}):
            return ""
        if isinstance(value, Part):
            return value.name
        if isinstance(value, list):
            return ",".join(map(str, value))
        return str(value).lower() if isinstance(value, bool) else str(value)


def settings_page() -> str:
    """Returns the page: a table for each section of the settings and for each kind of part."""
    lines = [
        "# Settings",
        "",
        "Every setting has a place in a YAML file, by its dotted path, and a flag of that path, "
        "such as `--training.learning_rate`; common ones have a short flag too. Flags win over "
        "`--config`, which wins over the defaults; `--print-config` prints what comes out of it.",
    ]
    for title, schema in PAGES.items():
        lines += ["", f"## {title}", "", _INTRODUCTIONS[title]]
        for path, section in _sections(schema, _PREFIXES.get(title, "")):
            lines += _section(path, section)
    lines += ["", "## Heads", "", "Their options are set as `--model.head.OPTION`.", ""]
    lines += ["| head | what it is | options and defaults |", "| --- | --- | --- |"]
    lines += [f"| `{spec.name}` | {_text(spec.summary)} | {_options(spec)} |" for spec in HEADS]
    for title, parts in {"Sources of data": SOURCES, "Face detectors": DETECTORS}.items():
        lines += ["", f"## {title}", "", "| name | what it is |", "| --- | --- |"]
        lines += [f"| `{spec.name}` | {_text(spec.summary)} |" for spec in parts]
    return "\n".join(lines) + "\n"


def leaves(schema: type[BaseModel], prefix: str = "") -> list[Leaf]:
    """Returns the settings that stand directly in a section."""
    fields = schema.model_fields.items()
    return [Leaf(prefix + name, info) for name, info in fields if section_of(info) is None]


def _sections(schema: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield prefix, schema
    for name, info in schema.model_fields.items():
        section = section_of(info)
        if section is not None:
            yield from _sections(section, f"{prefix}{name}.")


def _section(prefix: str, schema: type[BaseModel]) -> list[str]:
    title = f"`{prefix.removesuffix('.')}`" if prefix else "At the top"
    rows = [
        f"| `{leaf.path}` | {_code(leaf.default)} | {_text(leaf.info.description)} "
        f"| {_code(leaf.short_flag)} |"
        for leaf in leaves(schema, prefix)
    ]
    introduction = inspect.getdoc(schema) or ""
    table = ["| setting | default | what it is | short flag |", "| --- | --- | --- | --- |", *rows]
    return ["", f"### {title}", "", introduction, "", *table]


def _options(head: HeadSpec) -> str:
    fields = options_model(head.build).model_fields
    return ", ".join(f"`{name}` {info.default}" for name, info in fields.items())


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _text(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("<", "&lt;")


def main(argv: Sequence[str]) -> int:
    """Writes the page into the file that is named."""
    Path(argv[0]).write_text(settings_page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
