"""Stores of files, by the first word of an address: how each is opened.

Arrow's own file systems where it has one, which need no further package; fsspec's for the rest,
and where fsspec is configured for that store (its files in ~/.config/fsspec, or FSSPEC_S3_...).
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

from recsys.core.errors import ConfigError

_SECONDS = 60
"""After which a store that does not answer is given up, where Arrow would try for minutes."""


@dataclass(frozen=True)
class Store:
    """One kind of store.

    arrow: the class in pyarrow.fs. opened: class and authority -> file system and what its paths
    begin with. environment: variables that say where it is and who asks. extra: of this package,
    that installs fsspec's file system for it.
    """

    arrow: str
    opened: Callable[[Any, str], tuple[Any, str]]
    environment: tuple[str, ...]
    extra: str


def _s3(kind: Any, bucket: str) -> tuple[Any, str]:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and endpoint is None:
        from pyarrow.fs import resolve_s3_region

        region = resolve_s3_region(bucket)
    return kind(endpoint_override=endpoint, region=region, connect_timeout=10), bucket


def _gcs(kind: Any, bucket: str) -> tuple[Any, str]:
    return kind(retry_time_limit=timedelta(seconds=_SECONDS)), bucket


def _azure(kind: Any, authority: str) -> tuple[Any, str]:
    container, _, host = authority.rpartition("@") if "@" in authority else (authority, "", "")
    account = host.split(".")[0] or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    if not account:
        raise ConfigError(
            f"abfs://{authority}: no storage account; set AZURE_STORAGE_ACCOUNT_NAME, or write "
            "abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/..."
        )
    return kind(account, account_key=os.environ.get("AZURE_STORAGE_ACCOUNT_KEY")), container


def _hdfs(kind: Any, authority: str) -> tuple[Any, str]:
    host, _, port = authority.partition(":")
    return kind(host, int(port or 0)), ""


_AWS = (
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"),
)
_AZURE = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY")
STORES: Mapping[str, Store] = {
    "s3": Store("S3FileSystem", _s3, _AWS, "s3"),
    "gs": Store("GcsFileSystem", _gcs, ("GOOGLE_APPLICATION_CREDENTIALS",), "gcs"),
    "abfs": Store("AzureFileSystem", _azure, _AZURE, "azure"),
    "hdfs": Store("HadoopFileSystem", _hdfs, ("HADOOP_HOME", "CLASSPATH"), ""),
}
_ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs", "viewfs": "hdfs"}


def store_of(scheme: str) -> Store | None:
    """Return what is known of the store of an address; None: fsspec may know it."""
    return STORES.get(_ALIASES.get(scheme, scheme))


def file_system(scheme: str, authority: str) -> tuple[Any, str]:
    """Return Arrow's file system of a store, and what its paths begin with: a bucket, or "".

    Args:
        scheme: as in "s3".
        authority: what follows it: bucket, container, or host and port.

    Raises:
        ConfigError: there is no such kind of store, or a package for it is not installed.
        OSError: the store refuses, or does not answer.
    """
    store = store_of(scheme)
    names = () if store is None else store.environment
    return _opened(scheme, authority, tuple(os.environ.get(name) for name in names))


@lru_cache(maxsize=64)
def _opened(scheme: str, authority: str, _environment: tuple[str | None, ...]) -> tuple[Any, str]:
    from pyarrow import fs

    store = store_of(scheme)
    kind = None if store is None else getattr(fs, store.arrow, None)
    if store is None or kind is None or _is_configured(scheme):
        return _by_fsspec(scheme, authority)
    return store.opened(kind, authority)


def _is_configured(scheme: str) -> bool:
    """Whether fsspec was told how to open this store, which Arrow would not know."""
    from fsspec.config import conf

    return bool(conf.get(scheme))


def _by_fsspec(scheme: str, authority: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs
    from fsspec.registry import known_implementations
    from pyarrow import fs

    address = f"{scheme}://{authority}"
    try:
        found, root = url_to_fs(address)
    except ImportError as error:
        store, said = store_of(scheme), known_implementations[scheme].get("err", str(error))
        install = f"; pip install 'recsys-engine[{store.extra}]'" if store and store.extra else ""
        raise ConfigError(f"{address}: a package is not installed: {said}{install}") from None
    except ValueError:
        known = ", ".join(f"{name}://" for name in STORES)
        raise ConfigError(
            f"{address}: no kind of store that is known; {known}, file:// and those of fsspec are"
        ) from None
    return fs.PyFileSystem(fs.FSSpecHandler(found)), str(root).rstrip("/")
