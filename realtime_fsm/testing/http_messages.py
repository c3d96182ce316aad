"""HTTP/1.1 messages found in a stream of bytes, and changed, without I/O.

As much as a proxy for tests needs. What is no HTTP is given on as it is.
"""

import re
from collections.abc import Callable
from typing import Final

from attrs import evolve, frozen

_END_OF_HEAD: Final = b"\r\n\r\n"
_LONGEST_HEAD: Final = 64 * 1024
_FIRST_LINE: Final = re.compile(rb"[A-Z]{3,16} \S+ HTTP/1\.[01]$|HTTP/1\.[01] \d{3}( |$)")
_SIZES: Final = ("content-length", "transfer-encoding")


class NotHttpError(ValueError):
    """What came is no HTTP message, or none whose end can be told."""


@frozen
class HttpMessage:
    """A request or an answer.

    Attributes:
        first_line: Of its head.
        headers: Name in lower case, and the line as it came.
        body: Without the chunks' sizes.
        raw: All of it as it came.
    """

    first_line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    raw: bytes

    @property
    def status(self) -> int:
        """Of an answer; 0 for a request."""
        word = self.first_line.split(" ", 2)[1]
        return int(word) if self.first_line.startswith("HTTP/") else 0

    def header(self, name: str) -> str:
        """Return a header's value, or nothing."""
        for each, line in self.headers:
            if each == name:
                return line.partition(":")[2].strip()
        return ""

    def without(self, *names: str) -> "HttpMessage":
        """Return it without some headers."""
        return self._made(tuple(pair for pair in self.headers if pair[0] not in names), self.body)

    def with_body(self, body: bytes) -> "HttpMessage":
        """Return it with another body."""
        kept = tuple(pair for pair in self.headers if pair[0] not in _SIZES)
        return self._made((*kept, ("content-length", f"Content-Length: {len(body)}")), body)

    def _made(self, headers: tuple[tuple[str, str], ...], body: bytes) -> "HttpMessage":
        lines = [self.first_line, *(line for _, line in headers)]
        head = "\r\n".join(lines).encode("latin-1") + _END_OF_HEAD
        is_chunked = any(name == "transfer-encoding" for name, _ in headers)
        sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if is_chunked and body else body
        if is_chunked and not body:
            sent = b"0\r\n\r\n"
        return evolve(self, headers=headers, body=body, raw=head + sent)


class HttpReader:
    """Finds the messages in what one side sends, however it is cut.

    Args:
        is_bodiless: Whether a message has no body whatever its head says: told its first line.
    """

    def __init__(self, is_bodiless: Callable[[str], bool] = lambda _: False) -> None:
        self._is_bodiless = is_bodiless
        self._data = bytearray()
        self._is_answer = False

    @property
    def rest(self) -> bytes:
        """What came and is no whole message yet."""
        return bytes(self._data)

    def add(self, data: bytes) -> None:
        """Take in what came."""
        self._data += data

    def take(self) -> HttpMessage | None:
        """Return the next message, or ``None`` where it is not whole.

        Raises:
            NotHttpError: If there is none, or none with an end; ``rest`` is what came.
        """
        end = self._data.find(_END_OF_HEAD)
        self._check_beginning(end)
        if end < 0:
            return None
        first_line, *lines = bytes(self._data[:end]).decode("latin-1").split("\r\n")
        headers = tuple((line.partition(":")[0].strip().lower(), line) for line in lines)
        message = HttpMessage(first_line, headers, b"", b"")
        found = self._body(message, end + len(_END_OF_HEAD))
        if found is None:
            return None
        body, size = found
        raw = bytes(self._data[:size])
        del self._data[:size]
        return evolve(message, body=body, raw=raw)

    def _check_beginning(self, end: int) -> None:
        line, newline, _ = bytes(self._data[:_LONGEST_HEAD]).partition(b"\r\n")
        if newline and not _FIRST_LINE.match(line):
            raise NotHttpError("it does not begin like an HTTP message")
        if end < 0 and len(self._data) > _LONGEST_HEAD:
            raise NotHttpError("its head has no end")

    def _body(self, message: HttpMessage, begin: int) -> tuple[bytes, int] | None:
        """Return the body, and where the message ends; ``None`` where it is not whole."""
        if self._is_bodiless(message.first_line):
            return b"", begin
        if "chunked" in message.header("transfer-encoding").lower():
            return self._chunks(begin)
        length = message.header("content-length")
        if not length:
            if message.status:
                raise NotHttpError("its body ends with the connection")
            return b"", begin
        if not length.isdecimal():
            raise NotHttpError("its length is no number")
        end = begin + int(length)
        return (bytes(self._data[begin:end]), end) if len(self._data) >= end else None

    def _chunks(self, at: int) -> tuple[bytes, int] | None:
        """Put the chunks together; trailers are for nobody here."""
        body = bytearray()
        while (newline := self._data.find(b"\r\n", at)) >= 0:
            word = bytes(self._data[at:newline]).partition(b";")[0].strip()
            try:
                size = int(word, 16)
            except ValueError:
                raise NotHttpError("the size of a chunk is no number") from None
            at = newline + 2
            if size == 0:
                end = self._data.find(b"\r\n", at)
                while end > at:  # a trailer
                    at = end + 2
                    end = self._data.find(b"\r\n", at)
                return (bytes(body), end + 2) if end >= 0 else None
            if len(self._data) < at + size + 2:
                return None
            body += self._data[at : at + size]
            at += size + 2
        return None
