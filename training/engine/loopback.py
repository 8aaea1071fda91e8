"""Ranks of one machine talk over 127.0.0.1, where no other machine reaches them.

torch's store listens on every interface, whatever host it is given; here it is handed a socket
that is bound already.
"""

import os
import socket
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from recsys.core.errors import ConfigError

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost", "::1")
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_TIMEOUT = timedelta(minutes=30)


def is_loopback(address: str) -> bool:
    """Whether `address` names this machine to itself alone, so that all ranks run here."""
    return address in _NAMES


def talk_over_loopback() -> None:
    """Have gloo and NCCL, here and in processes started from here, listen on loopback alone.

    Raises:
        ConfigError: there is no loopback interface.
    """
    names = [name for _, name in socket.if_nameindex()]
    loopback = [name for name in names if name in ("lo", "lo0")]
    if not loopback:
        raise ConfigError(
            f"ranks on one machine use its loopback interface, and there is none among "
            f"{', '.join(names) or 'no interfaces'}: bring up 'lo', or train with one process"
        )
    os.environ.update(dict.fromkeys(_INTERFACES, loopback[0]))


def open_store(port: int = 0, timeout: timedelta = _TIMEOUT) -> TCPStore:
    """Return a store that listens on 127.0.0.1 alone.

    Args:
        port: where to listen; 0: any free one.
        timeout: how long a reader of a key waits for it.
    """
    listener = socket.create_server((HOST, port), backlog=128)
    port = listener.getsockname()[1]
    return TCPStore(
        HOST,
        port,
        is_master=True,
        timeout=timeout,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def connect(port: int, timeout: timedelta = _TIMEOUT) -> TCPStore:
    """Return a store that reads and writes the one at `port`, once that is open."""
    return TCPStore(HOST, port, is_master=False, timeout=timeout, wait_for_workers=False)
