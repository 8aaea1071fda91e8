"""What listens for the ranks of one machine listens where no other machine reaches it."""

import os
import socket
import sys
from collections.abc import Callable
from datetime import timedelta

import pytest

from recsys.core.errors import ConfigError
from recsys.training.engine.loopback import (
    connect,
    is_loopback,
    open_store,
    talk_over_loopback,
)

SOON = timedelta(seconds=20)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for sockets in /proc")
def test_the_store_listens_on_loopback_alone_and_is_shared(
    listening: Callable[..., list[str]], free_port: Callable[[], int]
) -> None:
    before = listening(os.getpid())
    port = free_port()
    chosen, given = open_store(timeout=SOON), open_store(port, SOON)
    assert sorted(listening(os.getpid())) == sorted([*before, "127.0.0.1", "127.0.0.1"])
    assert given.port == port != chosen.port
    connect(port, SOON).set("key", "of the store with this port")
    assert given.get("key") == b"of the store with this port"
    assert not chosen.check(["key"])


def test_other_interfaces_are_left_whatever_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    for name in names:
        monkeypatch.setenv(name, "eth0")
    talk_over_loopback()
    assert {os.environ[name] for name in names} <= {"lo", "lo0"}
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(2, "eth0"), (3, "local1")])
    with pytest.raises(ConfigError, match="none among eth0, local1: bring up 'lo', or train with"):
        talk_over_loopback()


@pytest.mark.parametrize(
    ("address", "here"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("machine-0", False)],
)
def test_names_of_this_machine(address: str, here: bool) -> None:
    assert is_loopback(address) is here
