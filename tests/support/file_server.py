"""A web server on this machine with files of a test's own, and faults that it is told to make."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Fault:
    """What is wrong with one answer.

    Args:
        status: Answer with this status and no file.
        headers: With these headers besides.
        cut: Close the connection after so many bytes of the body.
        flip: Turn one bit of the byte at this place of the file.
        ignore_range: Send the whole file, whatever is asked for.
        shift: Answer a range with one that begins so many bytes later.
        no_length: Do not say how long the body is.
        more: Bytes after the end of the file.
        stall: After so many bytes of the body, wait for the client to go away.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    flip: int | None = None
    ignore_range: bool = False
    shift: int = 0
    no_length: bool = False
    more: bytes = b""
    stall: int | None = None


@dataclass
class FileServer:
    """The server, as a test sees it.

    Args:
        address: Of its root, without a slash at the end.
        files: By path, with a slash at the beginning.
        faults: Of the next answers, in their order; then all is right.
        etag: Of every file.
        asked: Path and headers of every request.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    etag: str = '"first"'
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def ranges(self) -> list[str | None]:
        """The `Range` of every request."""
        return [headers.get("range") for _, headers in self.asked]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        state = self.server.state
        headers = {name.lower(): value for name, value in self.headers.items()}
        state.asked.append((self.path, headers))
        fault = state.faults.pop(0) if state.faults else Fault()
        content = state.files.get(self.path)
        start = self._start(headers, fault, state.etag)
        if fault.status or content is None:
            self._head(fault.status or 404, {"Content-Length": "0", **fault.headers})
            return
        if start is not None and start >= len(content):
            self._head(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(content)}"})
            return
        body = bytearray(content)
        if fault.flip is not None:
            body[fault.flip] ^= 1
        begin = 0 if start is None else start + fault.shift
        sent = {"ETag": state.etag} | fault.headers
        if start is not None:
            sent["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        if not fault.no_length:
            sent["Content-Length"] = str(len(content) - begin + len(fault.more))
        self._head(200 if start is None else 206, sent)
        self.wfile.write((bytes(body[begin:]) + fault.more)[: fault.cut if fault.stall is None else fault.stall])
        if fault.stall is not None:
            self.close_connection = True
            self.connection.recv(1)
            return
        if fault.cut is not None or fault.no_length:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)

    def _start(self, headers: dict[str, str], fault: Fault, etag: str) -> int | None:
        asked = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        same = headers.get("if-range", etag) == etag
        return int(asked[1]) if asked and same and not fault.ignore_range else None

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    state: FileServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def file_server() -> Iterator[FileServer]:
    """A server on a free port."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.state = FileServer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.state
        finally:
            server.shutdown()
            thread.join()
