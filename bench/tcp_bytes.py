"""Bytes that the TCP connections of this process have sent, as Linux counts them."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator

# Offset of `tcpi_bytes_sent` in `struct tcp_info` of <linux/tcp.h>, an unsigned 64-bit number since Linux 4.19.
_BYTES_SENT = 200
_SIZE = 208


def bytes_sent(ignored_port: int) -> int:
    """Return the payload sent by all open TCP connections, without those to `ignored_port`.

    gloo keeps its connections open until the group ends, so that the difference of two calls is what was sent
    between them.
    """
    return sum(_sent(connection) for connection in _connections() if connection.getpeername()[1] != ignored_port)


def _connections() -> Iterator[socket.socket]:
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            copy = os.dup(int(name))
        except OSError:  # closed since
            continue
        with socket.socket(fileno=copy) as found:
            if found.family in (socket.AF_INET, socket.AF_INET6) and _is_connected(found):
                yield found


def _is_connected(connection: socket.socket) -> bool:
    try:
        connection.getpeername()
    except OSError:
        return False
    return connection.type == socket.SOCK_STREAM


def _sent(connection: socket.socket) -> int:
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
    return int.from_bytes(info[_BYTES_SENT:_SIZE], "little")
