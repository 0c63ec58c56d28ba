"""Requests that two readers could read differently, or that no server should read: one row each, with its source.

REFUSED rows get one answer of 4xx and the end of the connection, whatever came before them on it. ACCEPTED rows look
odd and are not: what they hold is what every reader must see. The rows are also what the fuzzers start from.
"""

from typing import NamedTuple


class Refused(NamedTuple):
    """`reason` is the refusal's; bytes are as they leave the client."""

    name: str
    source: str
    data: bytes
    reason: str = "INVALID_REQUEST"


class Accepted(NamedTuple):
    """`messages` are (method, target, body) in their order; then the connection waits, closes or refuses."""

    name: str
    source: str
    data: bytes
    messages: tuple[tuple[str, str, bytes], ...]


def head(*lines: str, first: str = "POST /x HTTP/1.1", host: str = "Host: x") -> bytes:
    """A head with these fields."""
    return "\r\n".join([first, *([host] if host else []), *lines, "", ""]).encode("latin-1")


CHUNKED = head("Transfer-Encoding: chunked")
INNER = b"GET /inner HTTP/1.1\r\nHost: x\r\n\r\n"
TOO_LARGE = "HEAD_TOO_LARGE"

REFUSED = [
    # Content-Length against Transfer-Encoding
    Refused("CL.TE", "RFC 9112, 6.1", head("Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + INNER),
    Refused("TE.CL", "RFC 9112, 6.1", head("Transfer-Encoding: chunked", "Content-Length: 4") + b"0\r\n\r\n"),
    Refused("CL.TE with a length of 0", "RFC 9112, 6.1", head("Content-Length: 0", "Transfer-Encoding: chunked")),
    # Content-Length
    Refused("CL twice, different", "RFC 9112, 6.3", head("Content-Length: 5", "Content-Length: 6") + b"123456"),
    Refused("CL twice, equal", "RFC 9112, 6.3", head("Content-Length: 5", "Content-Length: 5") + b"12345"),
    Refused("CL twice, of different case", "RFC 9110, 5.1", head("Content-Length: 5", "content-length: 6") + b"123456"),
    Refused("CL as a list", "RFC 9110, 8.6", head("Content-Length: 5, 5") + b"12345"),
    Refused("CL as a list without a space", "RFC 9110, 8.6", head("Content-Length: 1,1") + b"1"),
    Refused("CL with a plus", "RFC 9110, 8.6", head("Content-Length: +5") + b"12345"),
    Refused("CL with a minus", "RFC 9110, 8.6", head("Content-Length: -5") + b"12345"),
    Refused("CL of minus nothing", "RFC 9110, 8.6", head("Content-Length: -0")),
    Refused("CL in hexadecimal", "RFC 9110, 8.6", head("Content-Length: 0x5") + b"12345"),
    Refused("CL with an underscore", "RFC 9110, 8.6", head("Content-Length: 1_0") + b"1234567890"),
    Refused("CL with a fraction", "RFC 9110, 8.6", head("Content-Length: 5.0") + b"12345"),
    Refused("CL with a leading zero", "stricter than RFC 9110, 8.6", head("Content-Length: 05") + b"12345"),
    Refused("CL between spaces", "stricter than RFC 9110, 5.5", head("Content-Length:  5 ") + b"12345"),
    Refused("CL after a tab", "stricter than RFC 9110, 5.5", head("Content-Length:\t5") + b"12345"),
    Refused("CL before a tab", "stricter than RFC 9110, 5.5", head("Content-Length: 5\t") + b"12345"),
    Refused("CL with a space inside", "RFC 9110, 8.6", head("Content-Length: 1 0") + b"1234567890"),
    Refused("CL of 20 digits", "RFC 9110, 8.6", head("Content-Length: 18446744073709551621") + b"12345"),
    Refused("CL of 19 digits", "stricter than RFC 9110, 8.6", head("Content-Length: 9223372036854775807")),
    Refused("CL that is empty", "RFC 9110, 8.6", head("Content-Length:")),
    Refused("CL that is blank", "RFC 9110, 8.6", head("Content-Length: ")),
    Refused("CL in other digits", "RFC 9110, 8.6", head("Content-Length: \xb2") + b"12"),
    Refused("CL with a quoted number", "RFC 9110, 8.6", head('Content-Length: "5"') + b"12345"),
    Refused("CL with a parameter", "RFC 9110, 8.6", head("Content-Length: 5;x=1") + b"12345"),
    # Transfer-Encoding
    Refused("TE of gzip, chunked", "RFC 9112, 6.1", head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
    Refused("TE of chunked, identity", "RFC 9112, 6.3", head("Transfer-Encoding: chunked, identity") + b"0\r\n\r\n"),
    Refused("TE of identity", "RFC 9112, 7", head("Transfer-Encoding: identity") + INNER),
    Refused("TE of xchunked", "RFC 9112, 7", head("Transfer-Encoding: xchunked") + b"0\r\n\r\n"),
    Refused("TE of chunked with a parameter", "RFC 9112, 7", head("Transfer-Encoding: chunked;q=1") + b"0\r\n\r\n"),
    Refused("TE of chunked, chunked", "RFC 9112, 6.1", head("Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n"),
    Refused("TE with a comma", "RFC 9112, 6.1", head("Transfer-Encoding: ,chunked") + b"0\r\n\r\n"),
    Refused("TE in quotes", "RFC 9112, 6.1", head('Transfer-Encoding: "chunked"') + b"0\r\n\r\n"),
    Refused(
        "TE twice", "RFC 9112, 6.1", head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + b"0\r\n\r\n"
    ),
    Refused(
        "TE twice, once other", "RFC 9112, 6.1", head("Transfer-Encoding: chunked", "Transfer-encoding: x") + INNER
    ),
    Refused("TE after a tab", "stricter than RFC 9110, 5.5", head("Transfer-Encoding:\tchunked") + b"0\r\n\r\n"),
    Refused("TE before a space", "stricter than RFC 9110, 5.5", head("Transfer-Encoding: chunked ") + b"0\r\n\r\n"),
    Refused("TE after two spaces", "stricter than RFC 9110, 5.5", head("Transfer-Encoding:  chunked") + b"0\r\n\r\n"),
    Refused("TE after a vertical tab", "RFC 9110, 5.5", head("Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n"),
    Refused("TE with a NUL", "RFC 9110, 5.5", head("Transfer-Encoding: chunked\0") + b"0\r\n\r\n"),
    Refused("TE that is empty", "RFC 9112, 6.1", head("Transfer-Encoding:") + INNER),
    Refused(
        "TE on HTTP/1.0", "RFC 9112, 6.1", head("Transfer-Encoding: chunked", first="POST /x HTTP/1.0") + b"0\r\n\r\n"
    ),
    Refused(
        "TE and an upgrade",
        "no switch here",
        head("Transfer-Encoding: chunked", "Connection: Upgrade", "Upgrade: h2c") + b"0\r\n\r\n",
    ),
    # lines and fields
    Refused("obs-fold", "RFC 9112, 5.2", head("X: a", " b")),
    Refused("obs-fold with a tab", "RFC 9112, 5.2", head("X: a", "\tTransfer-Encoding: chunked")),
    Refused("obs-fold of the first field", "RFC 9112, 2.2", b"GET /x HTTP/1.1\r\n Host: x\r\n\r\n"),
    Refused("obs-fold of TE", "RFC 9112, 5.2", head("Transfer-Encoding:", " chunked") + b"0\r\n\r\n"),
    Refused("bare LF after the first line", "RFC 9112, 2.2", b"GET /x HTTP/1.1\nHost: x\r\n\r\n"),
    Refused("bare LF after a field", "RFC 9112, 2.2", b"GET /x HTTP/1.1\r\nHost: x\nX: y\r\n\r\n"),
    Refused("bare LF at the end", "RFC 9112, 2.2", b"GET /x HTTP/1.1\r\nHost: x\r\n\n"),
    Refused("bare LF everywhere", "RFC 9112, 2.2", b"GET /x HTTP/1.1\nHost: x\n\n"),
    Refused("bare LF hiding a field", "RFC 9112, 2.2", head("X: y\nTransfer-Encoding: chunked") + b"0\r\n\r\n"),
    Refused("bare LF before the request", "RFC 9112, 2.2", b"\nGET /x HTTP/1.1\r\nHost: x\r\n\r\n"),
    Refused("bare CR in a value", "RFC 9112, 2.2", head("X: a\rb")),
    Refused("bare CR hiding a field", "RFC 9112, 2.2", head("X: a\rContent-Length: 5") + b"12345"),
    Refused("bare CR at a line's end", "RFC 9112, 2.2", head("X: a\r")),
    Refused("bare CR in the first line", "RFC 9112, 2.2", b"GET /x\r HTTP/1.1\r\nHost: x\r\n\r\n"),
    Refused("NUL in a value", "RFC 9110, 5.5", head("X: a\0b")),
    Refused("NUL in a name", "RFC 9110, 5.1", head("X\0: a")),
    Refused("NUL in the target", "RFC 9112, 3.2", head(first="GET /x\0 HTTP/1.1")),
    Refused("a control character in a value", "RFC 9110, 5.5", head("X: a\x08b")),
    Refused("DEL in a value", "RFC 9110, 5.5", head("X: a\x7fb")),
    Refused("a space before the colon", "RFC 9112, 5.1", head("Content-Length : 5") + b"12345"),
    Refused("a tab before the colon", "RFC 9112, 5.1", head("Transfer-Encoding\t: chunked") + b"0\r\n\r\n"),
    Refused("an empty name", "RFC 9110, 5.1", head(": 5")),
    Refused("a name with a space", "RFC 9110, 5.1", head("X Y: 5")),
    Refused("a name in brackets", "RFC 9110, 5.1", head("(X): 5")),
    Refused("a name with a byte over 127", "RFC 9110, 5.1", head("Content-Length\xa0: 5") + b"12345"),
    Refused("a field without a colon", "RFC 9112, 5", head("Content-Length 5") + b"12345"),
    Refused("spaces for a line", "RFC 9112, 2.2", b"GET /x HTTP/1.1\r\nHost: x\r\n \r\n\r\n"),
    # Host
    Refused("no Host", "RFC 9112, 3.2", head(host="")),
    Refused("two Hosts", "RFC 9112, 3.2", head("Host: y")),
    Refused("two equal Hosts", "RFC 9112, 3.2", head("Host: x")),
    Refused("two Hosts on HTTP/1.0", "RFC 9112, 3.2", head("Host: y", first="GET /x HTTP/1.0")),
    Refused("Host with user information", "RFC 9112, 3.2", head(host="Host: a@b")),
    Refused("Host with a path", "RFC 9112, 3.2", head(host="Host: x/y")),
    Refused("Host with a space", "RFC 9112, 3.2", head(host="Host: x y")),
    Refused("Host as a list", "RFC 9112, 3.2", head(host="Host: x, y")),
    Refused("Host with a bad port", "RFC 9112, 3.2", head(host="Host: x:http")),
    # request lines
    Refused("absolute-form", "RFC 9112, 3.2.2: for proxies", head(first="GET http://evil.example/ HTTP/1.1")),
    Refused("authority-form", "RFC 9112, 3.2.3", head(first="CONNECT evil.example:443 HTTP/1.1")),
    Refused("authority-form of another method", "RFC 9112, 3.2.3", head(first="GET evil.example:443 HTTP/1.1")),
    Refused("CONNECT with a path", "RFC 9110, 9.3.6", head(first="CONNECT /x HTTP/1.1")),
    Refused("asterisk-form", "RFC 9112, 3.2.4", head(first="OPTIONS * HTTP/1.1")),
    Refused("asterisk-form of another method", "RFC 9112, 3.2.4", head(first="GET * HTTP/1.1")),
    Refused("HTTP/0.9", "RFC 9112, appendix C.1", b"GET /x\r\n\r\n"),
    Refused("HTTP/0.9 without an empty line", "RFC 9112, appendix C.1", b"GET /x\r\n"),
    Refused("HTTP/0.9 in so many words", "RFC 9112, 2.3", head(first="GET /x HTTP/0.9")),
    Refused("HTTP/1.2", "RFC 9112, 2.3", head(first="GET /x HTTP/1.2")),
    Refused("HTTP/2.0", "RFC 9112, 2.3", head(first="GET /x HTTP/2.0")),
    Refused("HTTP/1.10", "RFC 9112, 2.3", head(first="GET /x HTTP/1.10")),
    Refused("HTTP/01.1", "RFC 9112, 2.3", head(first="GET /x HTTP/01.1")),
    Refused("http/1.1 in lower case", "RFC 9112, 2.3", head(first="GET /x http/1.1")),
    Refused("another protocol", "RFC 9112, 2.3", head(first="GET /x ICE/1.0")),
    Refused("no version's minor", "RFC 9112, 2.3", head(first="GET /x HTTP/1")),
    Refused("HTTP/2's preface", "RFC 9113, 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Refused("a TLS handshake", "not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    Refused("two spaces in the first line", "RFC 9112, 3", head(first="GET  /x HTTP/1.1")),
    Refused("two spaces before the version", "RFC 9112, 3", head(first="GET /x  HTTP/1.1")),
    Refused("a tab in the first line", "RFC 9112, 3", head(first="GET\t/x HTTP/1.1")),
    Refused("a space after the version", "RFC 9112, 3", head(first="GET /x HTTP/1.1 ")),
    Refused("a space before the method", "RFC 9112, 3", head(first=" GET /x HTTP/1.1")),
    Refused("a space in the target", "RFC 9112, 3.2", head(first="GET /x y HTTP/1.1")),
    Refused("a byte over 127 in the target", "RFC 9112, 3.2", head(first="GET /\xff HTTP/1.1")),
    Refused("no target", "RFC 9112, 3", head(first="GET HTTP/1.1")),
    Refused("no method", "RFC 9112, 3", head(first="/x HTTP/1.1")),
    Refused("a method in brackets", "RFC 9110, 9.1", head(first="(GET) /x HTTP/1.1")),
    Refused("a method in lower case", "RFC 9110, 9.1", head(first="get /x HTTP/1.1")),
    Refused("a method that nobody knows", "RFC 9110, 9.1", head(first="FROB /x HTTP/1.1")),
    Refused("a response", "not a request", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    # sizes
    Refused("a long head", "limit", head(*["X: " + "y" * 5000] * 20), TOO_LARGE),
    Refused("a head of 240 KB", "limit", head(*["X: " + "y" * 4000] * 60), TOO_LARGE),
    Refused("a long field", "limit", head("X: " + "y" * 33_000), TOO_LARGE),
    Refused("a long name", "limit", head("y" * 33_000 + ": x"), TOO_LARGE),
    Refused("a long target", "limit", head(first=f"GET /{'y' * 33_000} HTTP/1.1"), TOO_LARGE),
    Refused("many fields", "limit", head(*["X: y"] * 256), TOO_LARGE),
    Refused("an endless head", "limit", b"GET /x HTTP/1.1\r\nX: " + b"y" * 70_000, TOO_LARGE),
    Refused("an endless first line", "limit", b"GET /" + b"y" * 70_000, TOO_LARGE),
]

# What goes wrong in a body is found after the exchange began: the carrier is told BodyBroken.
BROKEN_BODIES = [
    Refused("a chunk size of 0x5", "RFC 9112, 7.1", CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n"),
    Refused("a chunk size of +5", "RFC 9112, 7.1", CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n"),
    Refused("a chunk size of -5", "RFC 9112, 7.1", CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n"),
    Refused("a chunk size after a space", "RFC 9112, 7.1", CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n"),
    Refused("a chunk size before a space", "RFC 9112, 7.1", CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n"),
    Refused("a chunk size with an underscore", "RFC 9112, 7.1", CHUNKED + b"0_5\r\nhello\r\n0\r\n\r\n"),
    Refused("no chunk size", "RFC 9112, 7.1", CHUNKED + b"\r\nhello\r\n0\r\n\r\n"),
    Refused("a chunk size that is no number", "RFC 9112, 7.1", CHUNKED + b"hello\r\n0\r\n\r\n"),
    Refused("a chunk size over 64 bits", "RFC 9112, 7.1", CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    Refused("a chunk size of 16 digits", "limit", CHUNKED + b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    Refused("a chunk size of many zeros", "limit", CHUNKED + b"000000000000000005\r\nhello\r\n0\r\n\r\n"),
    Refused("a chunk size before a bare LF", "RFC 9112, 7.1", CHUNKED + b"5\nhello\r\n0\r\n\r\n"),
    Refused("a chunk size before a bare CR", "RFC 9112, 7.1", CHUNKED + b"5\rhello\r\n0\r\n\r\n"),
    Refused("a chunk that ends in a bare LF", "RFC 9112, 7.1", CHUNKED + b"5\r\nhello\n0\r\n\r\n"),
    Refused("a chunk that does not end", "RFC 9112, 7.1", CHUNKED + b"5\r\nhello0\r\n\r\n"),
    Refused("a chunk longer than its size", "RFC 9112, 7.1", CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n"),
    Refused("a chunk ended by two other bytes", "RFC 9112, 7.1", CHUNKED + b"5\r\nhelloXX0\r\n\r\n"),
    Refused("an extension too long", "limit", CHUNKED + b"5;x=" + b"y" * 300 + b"\r\nhello\r\n0\r\n\r\n"),
    Refused("an endless extension", "limit", CHUNKED + b"5;" + b"y" * 70_000),
    Refused("an extension with a bare LF", "RFC 9112, 7.1.1", CHUNKED + b"5;x\ny\r\nhello\r\n0\r\n\r\n"),
    Refused("an extension with a bare CR", "RFC 9112, 7.1.1", CHUNKED + b"5;x\ry\r\nhello\r\n0\r\n\r\n"),
    Refused("an extension after a space", "RFC 9112, 7.1.1", CHUNKED + b"5 ;x\r\nhello\r\n0\r\n\r\n"),
    Refused("a last chunk before a bare LF", "RFC 9112, 7.1", CHUNKED + b"5\r\nhello\r\n0\n\r\n"),
    Refused("an end with a bare LF", "RFC 9112, 7.1", CHUNKED + b"5\r\nhello\r\n0\r\n\n"),
    Refused("an end with a bare CR", "RFC 9112, 7.1", CHUNKED + b"5\r\nhello\r\n0\r\n\rX"),
    Refused("a trailer that is no field", "RFC 9112, 7.1.2", CHUNKED + b"0\r\nGET /inner HTTP/1.1\r\n\r\n"),
    Refused("a trailer that is folded", "RFC 9112, 5.2", CHUNKED + b"0\r\nX: a\r\n b\r\n\r\n"),
    Refused("a trailer with a bare LF", "RFC 9112, 2.2", CHUNKED + b"0\r\nX: a\nY: b\r\n\r\n"),
    Refused("trailers too long", "limit", CHUNKED + b"0\r\n" + b"X: yyyyyyyyyyyyyyyy\r\n" * 300 + b"\r\n"),
    Refused("endless trailers", "limit", CHUNKED + b"0\r\nX: " + b"y" * 70_000),
]

ACCEPTED = [
    Accepted("no body", "RFC 9112, 6.3", head(first="GET /x HTTP/1.1"), (("GET", "/x", b""),)),
    Accepted("HTTP/1.0 without a Host", "RFC 9112, 3.2", head(first="GET /x HTTP/1.0", host=""), (("GET", "/x", b""),)),
    Accepted("a length", "RFC 9112, 6.2", head("Content-Length: 5") + b"hello", (("POST", "/x", b"hello"),)),
    Accepted("a length of 0", "RFC 9112, 6.2", head("Content-Length: 0"), (("POST", "/x", b""),)),
    Accepted(
        "a length without a space", "RFC 9112, 5", head("Content-Length:5") + b"hello", (("POST", "/x", b"hello"),)
    ),
    Accepted(
        "a length on GET",
        "RFC 9110, 9.3.1",
        head("Content-Length: 2", first="GET /x HTTP/1.1") + b"hi",
        (("GET", "/x", b"hi"),),
    ),
    Accepted(
        "chunks",
        "RFC 9112, 7.1",
        CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        (("POST", "/x", b"hello world"),),
    ),
    Accepted(
        "Chunked in capitals",
        "RFC 9112, 7",
        head("Transfer-Encoding: CHUNKED") + b"1\r\nx\r\n0\r\n\r\n",
        (("POST", "/x", b"x"),),
    ),
    Accepted("no chunk but the last", "RFC 9112, 7.1", CHUNKED + b"0\r\n\r\n", (("POST", "/x", b""),)),
    Accepted(
        "chunks of hexadecimal size",
        "RFC 9112, 7.1",
        CHUNKED + b"A\r\n0123456789\r\n0a\r\n0123456789\r\n000\r\n\r\n",
        (("POST", "/x", b"0123456789" * 2),),
    ),
    Accepted(
        "an extension", "RFC 9112, 7.1.1", CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n', (("POST", "/x", b"hello"),)
    ),
    Accepted(
        "trailers, dropped",
        "RFC 9112, 7.1.2",
        CHUNKED + b"1\r\nx\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n" + INNER,
        (("POST", "/x", b"x"), ("GET", "/inner", b"")),
    ),
    Accepted(
        "a body that looks like a request",
        "RFC 9112, 6",
        head(f"Content-Length: {len(INNER)}") + INNER,
        (("POST", "/x", INNER),),
    ),
    Accepted(
        "two requests",
        "RFC 9112, 9.3.2",
        head("Content-Length: 1") + b"a" + INNER,
        (("POST", "/x", b"a"), ("GET", "/inner", b"")),
    ),
    Accepted(
        "a request after chunks",
        "RFC 9112, 9.3.2",
        CHUNKED + b"1\r\na\r\n0\r\n\r\n" + INNER,
        (("POST", "/x", b"a"), ("GET", "/inner", b"")),
    ),
    Accepted(
        "an empty line before and between",
        "RFC 9112, 2.2",
        b"\r\n" + INNER + b"\r\n" + INNER,
        (("GET", "/inner", b""), ("GET", "/inner", b"")),
    ),
    Accepted("empty lines before", "RFC 9112, 2.2", b"\r\n" * 100 + INNER, (("GET", "/inner", b""),)),
    Accepted(
        "a request after the last",
        "RFC 9112, 9.6",
        head("Connection: close", first="GET /x HTTP/1.1") + INNER,
        (("GET", "/x", b""),),
    ),
    Accepted(
        "a request after one of HTTP/1.0", "RFC 9112, 9.3", head(first="GET /x HTTP/1.0") + INNER, (("GET", "/x", b""),)
    ),
    Accepted(
        "HTTP/1.0 that stays",
        "RFC 9112, 9.3",
        head("Connection: keep-alive", first="GET /x HTTP/1.0") + INNER,
        (("GET", "/x", b""), ("GET", "/inner", b"")),
    ),
    Accepted(
        "close wins over keep-alive",
        "RFC 9112, 9.3",
        head("Connection: keep-alive, close") + INNER,
        (("POST", "/x", b""),),
    ),
    Accepted(
        "a request after an upgrade",
        "RFC 9110, 7.8",
        head(
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQAAP__",
            first="GET /x HTTP/1.1",
        )
        + INNER,
        (("GET", "/x", b""),),
    ),
    Accepted(
        "an upgrade with a body",
        "RFC 9110, 7.8",
        head("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 2") + b"hi",
        (("POST", "/x", b"hi"),),
    ),
    Accepted(
        "Upgrade without Connection",
        "RFC 9110, 7.8",
        head("Upgrade: h2c", first="GET /x HTTP/1.1") + INNER,
        (("GET", "/x", b""),),
    ),
    Accepted(
        "a field named in Connection",
        "RFC 9110, 7.6.1",
        head("Connection: Content-Length", "Content-Length: 2") + b"hi" + INNER,
        (("POST", "/x", b"hi"), ("GET", "/inner", b"")),
    ),
    Accepted(
        "a field that only looks like TE",
        "RFC 9110, 5.1",
        head("Transfer_Encoding: chunked", "X-Transfer-Encoding: chunked", "Content-Length: 2") + b"0\r",
        (("POST", "/x", b"0\r"),),
    ),
    Accepted(
        "bytes over 127 in a value", "RFC 9110, 5.5", head("X: \xfcber", first="GET /x HTTP/1.1"), (("GET", "/x", b""),)
    ),
    Accepted("an empty value", "RFC 9110, 5.5", head("X:", "Y: ", first="GET /x HTTP/1.1"), (("GET", "/x", b""),)),
    Accepted(
        "tabs around a value", "RFC 9110, 5.5", head("X: \t a\tb \t", first="GET /x HTTP/1.1"), (("GET", "/x", b""),)
    ),
    Accepted(
        "an IPv6 Host", "RFC 9112, 3.2", head(first="GET /x HTTP/1.1", host="Host: [::1]:8080"), (("GET", "/x", b""),)
    ),
    Accepted("an empty Host", "RFC 9112, 3.2", head(first="GET /x HTTP/1.1", host="Host:"), (("GET", "/x", b""),)),
    Accepted(
        "odd but visible bytes in the target",
        "left to paths.py",
        head(first="GET /%2F..//a|b^c?d#e HTTP/1.1"),
        (("GET", "/%2F..//a|b^c?d#e", b""),),
    ),
    Accepted(
        "a long field within the limit",
        "limit",
        head("X: " + "y" * 32_000, first="GET /x HTTP/1.1"),
        (("GET", "/x", b""),),
    ),
    Accepted("256 fields", "limit", head(*["X: y"] * 255, first="GET /x HTTP/1.1"), (("GET", "/x", b""),)),
]
