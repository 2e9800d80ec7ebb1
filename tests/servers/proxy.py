"""A TCP proxy in front of a server, which keeps the answers to itself from some words on."""

from __future__ import annotations

import contextlib
import socket
import threading


class SwallowingProxy:
    """Passes everything on until the server says `words`; that answer, and all after it, never arrive.

    To the client it is as if it had died after its request was carried out and before it knew.

    Arguments:
        port: the server's, on this machine.
        words: what the answer holds.
    """

    def __init__(self, port: int, words: bytes) -> None:
        self._target = ("127.0.0.1", port)
        self._words = words
        self.swallowed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for source, target, watched in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass_on, args=(source, target, watched), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, watched: bool) -> None:
        tail = b""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if watched:
                    if self._words in tail + data:
                        self.swallowed.set()
                    tail = (tail + data)[-len(self._words) :]
                    if self.swallowed.is_set():
                        continue
                target.sendall(data)
        # One end has closed: so does the other.
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
