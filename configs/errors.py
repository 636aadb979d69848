"""Mistakes that a user can mend.

Each error's text is one sentence or two: what was wrong, what was received and
what would work. A command prints it without a traceback and exits with code 2.
"""


class UserError(Exception):
    """A mistake the user can mend; its text says how."""


class ConfigError(UserError):
    """A setting, a flag or a YAML file that cannot be used."""


class DataError(UserError):
    """Images or labels that cannot be trained on or evaluated."""


class WeightsError(UserError):
    """Weights that cannot be had or do not fit the branch."""


class RunError(UserError):
    """A run folder that cannot be written, read or repeated."""


class StoreError(UserError):
    """Stored features that cannot be written, or a disk without room for them."""
