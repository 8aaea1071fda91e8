"""What MLflow is told of requests that a model refuses: one line, and no trace."""

from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from recsys.core.errors import ConfigError, DataError, UserError


class RefusedRequestError(MlflowException, UserError):  # type: ignore[misc]
    """Requests, rows or parameters that do not fit the model; a server answers with status 400.

    MLflow's server puts all requests in front of the message of an error, and the trace of one that
    it does not know behind it. This one keeps its message.
    """

    def __init__(self, error: UserError) -> None:
        """Take what `error` knows, its message on one line."""
        self.__dict__.update(vars(error))
        self._words, self._fields = " ".join(str(error).split()), error.fields()
        MlflowException.__init__(self, self._words, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """What was wrong; setting it changes nothing."""
        return self._words

    @message.setter
    def message(self, words: str) -> None:
        pass

    def fields(self) -> dict[str, Any]:
        """Return what is known of the error as plain data."""
        return self._fields


class RefusedDataError(RefusedRequestError, DataError):
    """A value or a column of the requests is wrong."""


class RefusedOptionError(RefusedRequestError, ConfigError):
    """A parameter is wrong."""


def refused(error: UserError) -> RefusedRequestError:
    """Return the error that MLflow is to see, of the same kind."""
    if isinstance(error, DataError):
        return RefusedDataError(error)
    return (RefusedOptionError if isinstance(error, ConfigError) else RefusedRequestError)(error)
