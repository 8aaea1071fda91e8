"""The Spark session of a job, and Spark's errors in the engine's words."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recsys.core import errors
from recsys.core.errors import ConfigError, UserError

_RAISED = re.compile(r"^recsys\.core\.errors\.(\w+): (.+)$", re.MULTILINE)
"""How the last line of a worker's traceback says an error of ours."""
_ANY_PYTHON = "python3"
"""What Spark starts where nothing says which."""


def need_spark() -> None:
    """Say what to install where pyspark is missing.

    Raises:
        ConfigError: it is.
    """
    try:
        import pyspark  # noqa: F401
    except ImportError:
        raise ConfigError(
            "Spark needs pyspark, which is not installed: pip install 'recsys-engine[spark]'"
        ) from None


def session_of(master: str | None, name: str) -> Any:
    """Return the session of this process, a new one where there is none.

    Args:
        master: where to run, as `local[4]`; None: as spark-defaults.conf says,
            else on all cores of this machine.
        name: of the application.

    Raises:
        ConfigError: pyspark is missing, or Spark does not start.
    """
    need_spark()
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(name)
    try:
        spark = (builder if master is None else builder.master(master)).getOrCreate()
    except (PySparkException, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"Spark does not start ({reason}): it needs Java 17 or newer (JAVA_HOME, or java on "
            "PATH) and a master that can be reached"
        ) from None
    if is_local(spark) and spark.sparkContext.pythonExec == _ANY_PYTHON:
        spark.sparkContext.pythonExec = sys.executable  # that of this process has the engine
    return spark


def is_local(spark: Any) -> bool:
    """Whether the workers run on this machine and see its files."""
    try:
        return str(spark.sparkContext.master).startswith("local")
    except Exception:  # a session of Spark Connect has no context
        return False


@contextmanager
def said_by_workers() -> Iterator[None]:
    """Raise what a worker raised for the user to put right as the same error.

    A worker's exception reaches the driver as the text of its traceback, and in no other form.

    Raises:
        UserError: a worker raised one.
    """
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        found = _RAISED.findall(str(error))
        if not found:
            raise
        name, message = found[-1]
        kind = getattr(errors, name, UserError)
        raise (kind if kind in (errors.DataError, ConfigError) else UserError)(message) from None
