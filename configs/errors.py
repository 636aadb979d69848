"""User errors.

The text of each is one or two sentences: what was wrong, what was received and what would work.
A command prints it without a traceback and exits with code 2.
"""


class UserError(Exception):
    """An error that the user can correct; its text explains how."""


class ConfigError(UserError):
    """An invalid setting, flag or YAML file."""


class HomeError(ConfigError, ValueError):
    """A path below a home folder that is not known."""


class DataError(UserError):
    """Images or labels that cannot be used for training or evaluation."""


class WeightsError(UserError):
    """Weights that are not available or do not fit the branch."""


class RunError(UserError):
    """A run folder that cannot be written, read or reproduced."""


class StoreError(UserError):
    """Stored features that cannot be written, or a disk without room for them."""


def reason_of(error: Exception) -> str:
    """Returns the first line of an error's text, for a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".: ")
