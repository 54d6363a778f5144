"""A TCP proxy that does something when a certain request passes: the way to stop a job at an exact step without a
hook in the job."""

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress


class FaultProxy:
    """Passes bytes on to `upstream`. At the first request that matches, `action` is called: before the request is
    handed on (and then it never is), or after its answer came (and then that is not handed back). Without an action it
    goes down."""

    def __init__(
        self, upstream: str, pattern: bytes, action: Callable[[], None] | None = None, *, before: bool
    ) -> None:
        host, port = upstream.rsplit(":", 1)
        self._upstream = (host, int(port))
        self._pattern = re.compile(pattern, re.DOTALL)
        self._action, self._before = action or self.down, before
        self.fired = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        _close(self._listener)

    def down(self) -> None:
        """Cuts what is open and refuses what comes: to the clients the server is gone."""
        _close(self._listener, *self._open)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
                self._open += [client, server]
                matched = threading.Event()
                threading.Thread(target=self._requests, args=(client, server, matched), daemon=True).start()
                threading.Thread(target=self._answers, args=(server, client, matched), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, matched: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if not self.fired.is_set() and self._pattern.search(data):
                    if self._before:
                        self._fire()
                        break
                    matched.set()
                server.sendall(data)
        _close(client, server)

    def _answers(self, server: socket.socket, client: socket.socket, matched: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if matched.is_set() and not self.fired.is_set():
                    self._fire()
                    break
                client.sendall(data)
        _close(client, server)

    def _fire(self) -> None:
        self.fired.set()
        self._action()


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits on it; until then close would not close it
        with suppress(OSError):
            each.close()


class SilentProxy(FaultProxy):
    """From the first request that matches, keeps all answers back for some seconds, and hands them on then: late."""

    def __init__(self, upstream: str, pattern: bytes, seconds: float) -> None:
        self._seconds, self._until = seconds, 0.0
        super().__init__(upstream, pattern, self._begin, before=False)

    def _begin(self) -> None:
        self._until = time.monotonic() + self._seconds

    def _requests(self, client: socket.socket, server: socket.socket, matched: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if not self.fired.is_set() and self._pattern.search(data):
                    self._fire()
                server.sendall(data)
        # the answer to a client that is gone is still waited for, as a slow network would
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _answers(self, server: socket.socket, client: socket.socket, matched: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                time.sleep(max(0.0, self._until - time.monotonic()))
                client.sendall(data)
        _close(client, server)


class HalfClosingProxy(FaultProxy):
    """At the first request that matches, shuts one direction of its connection: the other stays open and silent."""

    def __init__(self, upstream: str, pattern: bytes, direction: str) -> None:
        self._direction = direction
        super().__init__(upstream, pattern, lambda: None, before=True)

    def _requests(self, client: socket.socket, server: socket.socket, matched: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if not self.fired.is_set() and self._pattern.search(data):
                    matched.set()  # from here on nothing of this connection is answered
                    self._fire()
                    if self._direction == "to the client":
                        client.shutdown(socket.SHUT_WR)
                    else:
                        server.shutdown(socket.SHUT_WR)
                        server.sendall(data)  # raises: the request is lost, and the client is not told
                if not matched.is_set():
                    server.sendall(data)
        if not matched.is_set():
            _close(client, server)

    def _answers(self, server: socket.socket, client: socket.socket, matched: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if not matched.is_set():
                    client.sendall(data)
        if not matched.is_set():
            _close(client, server)
