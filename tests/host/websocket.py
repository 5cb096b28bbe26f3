"""The messages that ComfyUI pushes to a client, read with the standard library alone (RFC 6455, receiving only)."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

Event = dict[str, Any]
PREVIEW: Event = {"type": "preview", "data": {}}
_NODE_TEXT = 3
"""The kind of binary messages with a text for a node."""
_CONTINUATION, _TEXT, _BINARY, _CLOSE = 0, 1, 2, 8


class Events:
    """A connection to ``/ws`` that collects every message; pictures pushed as binary are kept as :data:`PREVIEW`.

    Texts for nodes are pushed as binary too, and kept as events of type ``progress_text``.
    """

    def __init__(self, url: str, client_id: str):
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname, address.port), timeout=30)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET /ws?clientId={client_id} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._stream = self._socket.makefile("rb")
        if b" 101 " not in self._stream.readline():
            raise ConnectionError("ComfyUI refused the websocket")
        while self._stream.readline() != b"\r\n":
            pass
        self._socket.settimeout(None)
        self._events: list[Event] = []
        self._changed, self._closed = threading.Condition(), False
        threading.Thread(target=self._receive, daemon=True).start()

    def __len__(self) -> int:
        return len(self._events)

    def since(self, position: int) -> list[Event]:
        """The messages after the first ``position`` ones."""
        with self._changed:
            return self._events[position:]

    def wait(self, wanted: Callable[[Event], bool], since: int, timeout: float) -> Event | None:
        """The first wanted message after ``since``, waited for; none if ``timeout`` seconds went by without.

        Raises:
            ConnectionError: ComfyUI went away.
        """
        deadline, position = time.monotonic() + timeout, since
        with self._changed:
            while True:
                for event in self._events[position:]:
                    if wanted(event):
                        return event
                position = len(self._events)
                if self._closed:
                    raise ConnectionError("ComfyUI closed the connection; see its log")
                if not self._changed.wait(deadline - time.monotonic()):
                    return None

    def close(self) -> None:
        """Hang up."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _receive(self) -> None:
        message, kind = b"", _TEXT
        while (frame := self._frame()) is not None:
            last, opcode, payload = frame
            if opcode in (_TEXT, _BINARY):
                message, kind = payload, opcode
            elif opcode == _CONTINUATION:
                message += payload
            if last and opcode in (_CONTINUATION, _TEXT, _BINARY):
                self._add(json.loads(message) if kind == _TEXT else _binary(message))
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _add(self, event: Event) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def _frame(self) -> tuple[bool, int, bytes] | None:
        try:
            head = self._stream.read(2)
            if len(head) < 2 or head[0] & 15 == _CLOSE:
                return None
            length = head[1] & 127
            if length >= 126:
                length = struct.unpack(
                    *(("!H", self._stream.read(2)) if length == 126 else ("!Q", self._stream.read(8)))
                )[0]
            return bool(head[0] & 128), head[0] & 15, self._stream.read(length)
        except (OSError, ValueError):
            return None


def _binary(message: bytes) -> Event:
    kind, length = struct.unpack("!II", message[:8])
    if kind != _NODE_TEXT:
        return PREVIEW
    node, text = message[8 : 8 + length], message[8 + length :]
    return {"type": "progress_text", "data": {"node": node.decode(), "text": text.decode()}}
