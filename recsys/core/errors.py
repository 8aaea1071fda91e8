"""The errors a user can act on, each with the exit code the command line answers with."""


class UserError(ValueError):
    """Something the caller can put right; the message says what came and what to do.

    `exit_code` is what the front door exits with: 2 usage or configuration, 3 data,
    4 not found, 5 integrity.
    """

    exit_code = 2


class ArgumentError(UserError, TypeError):
    """An argument of a Python function has the wrong type, or does not exist."""


class ConfigError(UserError):
    """A configuration, a schema or an option is wrong."""


class DataError(UserError):
    """A table or a value in it is wrong; the message names file, column, rows and remedy."""

    exit_code = 3


class NotFoundError(UserError):
    """A file, a bundle, a run or a registered version does not exist."""

    exit_code = 4


class IntegrityError(UserError):
    """Bytes are not those that were written, or two artefacts do not belong together."""

    exit_code = 5


class NumericalError(UserError):
    """Training met a number that is not finite; the last checkpoint stands."""

    exit_code = 12
