"""What stores answer when they refuse, in words: no such bucket, not permitted, not there.

Their libraries say all of it as an `OSError` with a text; the text is looked through here alone.
"""

import os
import re

from recsys.core.errors import ConfigError, NotFoundError, StoreError, UserError
from recsys.core.remote.stores import store_of

_NO_BUCKET = re.compile(
    r"NO_SUCH_BUCKET|NoSuchBucket|[Bb]ucket .*(not found|not exist)|ContainerNotFound"
)
_REFUSED = re.compile(
    r"ACCESS_DENIED|AccessDenied|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE_DOES_NOT_MATCH"
    r"|EXPIRED_TOKEN|MISSING_AUTHENTICATION|UNRECOGNIZED_CLIENT|NOT_AUTHORIZED"
    r"|[Cc]redentials|authenticat|[Ff]orbidden|[Pp]ermission|[Uu]nauthorized|HTTP status (401|403)"
)
_AWAY = re.compile(
    r"AWS Error|NETWORK_CONNECTION|[Tt]imed? ?out|[Cc]onnect|HTTP status \d|curl|resolve host"
)
_LONGEST = 200
_DETAIL = re.compile(r"AWS Error (\w+)(?: \(HTTP status \d+\))? during (\w+)")


def fault(address: str, error: BaseException) -> UserError:
    """Return what a store refused, as an error that a user can act on.

    Args:
        address: what was asked for, as in "s3://bucket/log.parquet".
        error: what the library of the store raised.
    """
    if isinstance(error, UserError):
        return error
    scheme, _, rest = address.partition("://")
    text = str(error)
    found = _DETAIL.search(text)
    short = f"{found[1]} at {found[2]}" if found else _shortened(text.strip() or repr(error))
    if _NO_BUCKET.search(text):
        return no_bucket(address)
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"{address}: not there; correct the address")
    if isinstance(error, PermissionError) or _REFUSED.search(text):
        return ConfigError(
            f"{address}: the store does not allow it ({short}); check who asks"
            f"{_variables(scheme)} and what they may do with {rest.split('/')[0]}"
        )
    return StoreError(f"{address}: the store did not answer ({short}){_endpoint(scheme)}")


def _shortened(text: str) -> str:
    line = text.splitlines()[0]
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def store_fault(path: object, error: BaseException) -> UserError | None:
    """Return what a store refused while a file was read; None: the file itself is wrong."""
    text = str(error)
    if "://" not in str(path) or not any(one.search(text) for one in (_NO_BUCKET, _REFUSED, _AWAY)):
        return None
    return fault(str(path), error)


def no_bucket(address: str) -> NotFoundError:
    """Return the error for an address whose bucket is not there."""
    bucket = address.partition("://")[2].split("/")[0]
    return NotFoundError(
        f"{address}: there is no bucket '{bucket}' here{_endpoint(address.partition('://')[0])}"
    )


def _variables(scheme: str) -> str:
    store = store_of(scheme)
    names = () if store is None else store.environment
    secret = [name for name in names if "KEY" in name or "CREDENTIALS" in name]
    return f" ({', '.join(secret)})" if secret else ""


def endpoint_of(scheme: str) -> tuple[str, str]:
    """Return the variable that says where a store is, and its value; "" where there is none."""
    store = store_of(scheme)
    names = [one for one in (store.environment if store else ()) if "ENDPOINT" in one]
    said = [(name, os.environ[name]) for name in names if os.environ.get(name)]
    return said[0] if said else ((names or [""])[-1], "")


def _endpoint(scheme: str) -> str:
    """Return a hint at the variable that says where the store is."""
    name, value = endpoint_of(scheme)
    if value:
        return f"; {name} is {value}: correct it, or try again"
    if name:
        return "; correct the address, or set AWS_ENDPOINT_URL to a server of your own"
    return "; correct the address, or try again"
