"""Has the reference show a docstring's section `Example` as code."""

from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Calls the section by the name in the plural, the only one that Griffe knows."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
