"""One keep-alive connection to the tracker, with deadlines that hold.

``http.client`` reads the answers.  Its time-outs are those of single reads, so an answer that drips would never end:
here every read is given what is left of the total, and a connection has its own, shorter limit.  Certificates are
always verified, redirects are not followed, and of an answer no more is kept than fits.
"""

from __future__ import annotations

import io
import logging
import select
import socket
import ssl
import threading
from http.client import HTTPException, HTTPResponse
from time import monotonic
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, cast

from postbackd_client.endpoint import Endpoint, Request
from postbackd_client.version import VERSION

log = logging.getLogger("postbackd_client")

_USER_AGENT = f"postbackd-client/{VERSION}"
_Address = Tuple[Any, ...]
_SWITCHING = 101
_TIME_OUTS = (TimeoutError, socket.timeout)
"""Two names until Python 3.10."""


class Answer(NamedTuple):
    """An answer as it was read: headers by lower-case name, and as much of the body as was asked for."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoAnswer(Exception):
    """There was none, or none that can be read; whether the request was understood is unknown."""


class _Gone(NoAnswer):
    """A connection that was kept was closed before it said anything: the same request goes out on a new one."""


class _Deadline:
    """A moment after which nothing is waited for any more."""

    def __init__(self, seconds: float) -> None:
        self._ends = monotonic() + seconds
        self.seconds = seconds

    def left(self) -> float:
        """Seconds that remain.  Raises ``TimeoutError`` when none do."""
        left = self._ends - monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _TimedReader(io.RawIOBase):
    """Reads of a socket, each allowed what is left of the deadline."""

    def __init__(self, raw: socket.socket, deadline: _Deadline) -> None:
        self._raw = raw
        self._deadline = deadline
        self.said_nothing = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._raw.settimeout(self._deadline.left())
        count = self._raw.recv_into(buffer)
        if count:
            self.said_nothing = False
        return count


class _Unclosed(io.BufferedReader):
    """Several answers are read from it, and the end of one must not take from the next what was read ahead."""

    def close(self) -> None:
        """There is nothing to close: the socket is the connection's."""


class _Reading:
    """What ``HTTPResponse`` takes for a socket."""

    def __init__(self, reader: _TimedReader) -> None:
        self._buffered = _Unclosed(reader)

    def makefile(self, _mode: str) -> io.BufferedIOBase:
        return self._buffered


class Connection:
    """Sends requests one after another.  Not for several threads at once."""

    def __init__(
        self, endpoint: Endpoint, connect_s: float, total_s: float, ca_file: Optional[str] = None
    ) -> None:
        """``connect_s`` is for the TCP connection, ``total_s`` for a request with all it needs: name, TLS, answer."""
        self._endpoint = endpoint
        self._connect_s = connect_s
        self._total_s = total_s
        self._tls = _tls_context(ca_file) if endpoint.secure else None
        self._socket: Optional[socket.socket] = None

    def send(self, request: Request, headers: Mapping[str, str], body_bytes: int) -> Answer:
        """The answer to a request, with at most ``body_bytes`` of its body.  Raises ``NoAnswer``."""
        deadline = _Deadline(self._total_s)
        message = self._write(request, headers)
        if self._socket is not None and not _is_quiet(self._socket):
            self.close()
        if self._socket is not None:
            try:
                return self._exchange(message, request.method, deadline, body_bytes)
            except _Gone:
                log.debug("the connection to %s was closed meanwhile; opening another", self._endpoint.place)
        self._open(deadline)
        return self._exchange(message, request.method, deadline, body_bytes)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def forget(self) -> None:
        """In a forked child: the connection is the parent's, so nothing may be said on it, not even goodbye in TLS."""
        if self._socket is not None:
            kept, self._socket = self._socket, None
            if isinstance(kept, ssl.SSLSocket):
                kept.detach()
            else:
                kept.close()

    # --- one exchange ---------------------------------------------------------------------------------------------

    def _write(self, request: Request, headers: Mapping[str, str]) -> bytes:
        lines = [f"{request.method} {request.target} HTTP/1.1", f"Host: {self._host_header()}"]
        lines.append(f"User-Agent: {_USER_AGENT}")
        if request.body:
            lines += [f"Content-Type: {request.content_type}", f"Content-Length: {len(request.body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + request.body

    def _host_header(self) -> str:
        host = f"[{self._endpoint.host}]" if ":" in self._endpoint.host else self._endpoint.host
        return (
            host
            if self._endpoint.port == (443 if self._endpoint.secure else 80)
            else f"{host}:{self._endpoint.port}"
        )

    def _exchange(self, message: bytes, method: str, deadline: _Deadline, body_bytes: int) -> Answer:
        assert self._socket is not None
        reader = _TimedReader(self._socket, deadline)
        try:
            self._socket.settimeout(deadline.left())
            self._socket.sendall(message)
            response = _begin(_Reading(reader), method)
            body = response.read(body_bytes)
            whole = _is_whole(response, len(body) < body_bytes)
            answer = Answer(response.status, _lower(response), body)
        except _TIME_OUTS as error:
            self.close()
            raise NoAnswer(f"no answer within {deadline.seconds:g} s") from error
        except ConnectionError as error:
            self.close()
            if reader.said_nothing:
                raise _Gone("the connection was closed before an answer") from error
            raise NoAnswer("the connection was closed in the middle of the answer") from error
        except ssl.SSLError as error:
            self.close()
            raise NoAnswer(f"TLS: {_words(error)}") from error
        except (OSError, HTTPException, ValueError) as error:
            self.close()
            raise NoAnswer(f"the answer is not HTTP ({type(error).__name__})") from error
        if response.will_close or not whole:
            self.close()
        response.close()
        return answer

    # --- opening --------------------------------------------------------------------------------------------------

    def _open(self, deadline: _Deadline) -> None:
        place = self._endpoint.place
        try:
            raw = self._connect(_resolve(self._endpoint.host, self._endpoint.port, deadline), deadline)
        except _TIME_OUTS as error:
            raise NoAnswer(f"no connection to {place} within {self._connect_s:g} s") from error
        except OSError as error:
            raise NoAnswer(f"no connection to {place}: {_words(error)}") from error
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                raw.settimeout(deadline.left())
                raw = self._tls.wrap_socket(raw, server_hostname=self._endpoint.host)
        except _TIME_OUTS as error:
            raw.close()
            raise NoAnswer(f"no TLS with {place} within {deadline.seconds:g} s") from error
        except OSError as error:  # ssl.SSLError is one
            raw.close()
            raise NoAnswer(f"no TLS with {place}: {_words(error)}") from error
        self._socket = raw

    def _connect(self, addresses: List[Tuple[int, _Address]], deadline: _Deadline) -> socket.socket:
        """The first address that takes a connection; all of them together may take ``connect_s``."""
        limit = _Deadline(min(self._connect_s, deadline.left()))
        failure: OSError = TimeoutError()
        for family, address in addresses:
            raw = socket.socket(family, socket.SOCK_STREAM)
            try:
                raw.settimeout(limit.left())
                raw.connect(address)
                return raw
            except OSError as error:
                raw.close()
                failure = error
        raise failure


def _begin(reading: _Reading, method: str) -> HTTPResponse:
    """The answer itself, after whatever is said before it (102, 103; ``http.client`` skips 100 alone).

    Taken for the answer, it would leave the real one in the connection, as that of the next conversion.
    """
    while True:
        response = HTTPResponse(cast(Any, reading), method=method)
        response.begin()
        if response.status >= 200:
            return response
        if response.status == _SWITCHING:
            raise HTTPException("another protocol, which nobody asked for")


def _is_quiet(kept: socket.socket) -> bool:
    """Whether nothing came on a kept connection since its last answer: neither its end nor an answer nobody asked
    for."""
    poll = select.poll()
    poll.register(kept, select.POLLIN)
    return not poll.poll(0)


def _tls_context(ca_file: Optional[str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _is_whole(response: HTTPResponse, ended: bool) -> bool:
    """Whether nothing of the answer is left in the connection.  ``ended``: less came than was asked for."""
    if response.isclosed():
        return True
    if response.chunked:
        return not response.read(1)
    if ended and response.length:
        raise ConnectionResetError
    return response.length == 0


def _lower(response: HTTPResponse) -> Dict[str, str]:
    return {name.lower(): str(value) for name, value in response.headers.items()}


def _resolve(host: str, port: int, deadline: _Deadline) -> List[Tuple[int, _Address]]:
    """Addresses of a host.  The system's resolver has no time-out of its own, so it is asked in a thread."""
    found: List[Tuple[int, _Address]] = []
    failures: List[OSError] = []

    def ask() -> None:
        try:
            for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                found.append((family, address))
        except OSError as error:
            failures.append(error)

    try:
        asking = threading.Thread(target=ask, name="postbackd-client-resolver", daemon=True)
        asking.start()
    except RuntimeError:  # the interpreter is ending and starts no threads any more
        ask()
    else:
        asking.join(deadline.left())
    if failures:
        raise failures[0]
    if not found:
        raise TimeoutError
    return found


def _words(error: OSError) -> str:
    """An error in words, without what differs each time."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "failed").replace("_", " ").lower()
    return (error.strerror or type(error).__name__).lower()
