"""What an attacker sends: refused with the right code, the server alive, its memory flat.

`python test_hostile.py` prints the figures of docs/security.md.
"""

import contextlib
import gzip
import os
import pathlib
import socket
import struct
import sys
import threading
import time

import grpc
import pytest

import fisherd
from fisherd.v1 import factor_service_pb2, types_pb2, update_pb2

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _CONTINUATION = 0, 1, 3, 4, 6, 7, 9
_END_STREAM, _END_HEADERS = 1, 4
_SERVICE = "/fisherd.v1.FactorService/"


def _frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name, value):  # HPACK, without indexing or Huffman codes
    def text(raw):
        head = bytes([len(raw)]) if len(raw) < 127 else bytes([127]) + _varint(len(raw) - 127)
        return head + raw

    return b"\x00" + text(name) + text(value)


def _varint(number):
    out = b""
    while number >= 128:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])


def _headers(method, *more):
    pairs = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", (_SERVICE + method).encode()),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    ]
    return b"".join(_literal(name, value) for name, value in pairs)


class _Wire:
    """A connection that speaks HTTP/2 as badly as it likes."""

    def __init__(self, target, *, greet=True):
        host, port = target.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        if greet:
            self.send(_PREFACE + _frame(_SETTINGS, 0, 0))

    def send(self, data):
        """Return False once the server has closed the connection."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def closed_within(self, seconds):
        deadline = time.monotonic() + seconds
        self.socket.settimeout(0.2)
        while time.monotonic() < deadline:
            try:
                if not self.socket.recv(65536):
                    return True
            except TimeoutError:
                continue
            except OSError:
                return True
        return False

    def close(self):
        self.socket.close()


def _memory(pid, key):  # MiB
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise AssertionError


def _await_quiet(pid):
    def ticks():
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]

    before = None
    while before != ticks():
        before = ticks()
        time.sleep(0.3)


@pytest.fixture(scope="module")
def victim():
    with fisherd.Server(log_level="error", state_budget="64MiB", batch_budget="64MiB", max_streams=64) as server:
        with server.client() as client:
            client.create_factor("good", fisherd.FullyConnectedDiagonal(4, 4))
        yield server


_figures = []


@contextlib.contextmanager
def _attack(victim, what, most=96.0):
    """Afterwards a good call is answered, and memory has not grown by more than `most` MiB."""
    _await_quiet(victim.pid)  # the attack before may still be in its queues
    pathlib.Path(f"/proc/{victim.pid}/clear_refs").write_text("5")  # its peak is from now on
    before = _memory(victim.pid, "VmRSS:")
    began = time.monotonic()
    yield
    with victim.client() as client:
        assert client.describe("good").name == "good"
    grown = _memory(victim.pid, "VmHWM:") - before
    _figures.append((what, grown, time.monotonic() - began))
    assert grown < most, f"{what}: {grown:.0f} MiB more"


def _code(call):
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return refused.value.code()


def _stub(channel, method, request, response):
    return channel.unary_unary(
        _SERVICE + method, request_serializer=request.SerializeToString, response_deserializer=response.FromString
    )


def _describe(channel, name, **options):
    request = factor_service_pb2.DescribeFactorRequest
    call = _stub(channel, "DescribeFactor", request, factor_service_pb2.DescribeFactorResponse)
    return call(request(name=name), timeout=10, **options)


def test_half_open_connections(victim):
    with _attack(victim, "1,000 connections that say nothing"):
        wires = [_Wire(victim.target, greet=False) for _ in range(1000)]
        with victim.client() as client:  # while they are there
            assert client.describe("good")
        assert all(wire.closed_within(30) for wire in wires[:3])  # the handshake has its time
        for wire in wires:
            wire.close()


def test_a_byte_a_second(victim):
    with _attack(victim, "100 connections that send a byte a second"):
        wires = [_Wire(victim.target, greet=False) for _ in range(100)]
        greeting = _PREFACE + _frame(_SETTINGS, 0, 0)
        for byte in greeting[:5]:
            assert all(wire.send(bytes([byte])) for wire in wires)
            time.sleep(1)
        for wire in wires:
            wire.close()


def test_ten_thousand_streams(victim):
    # 256 of each connection are taken, and of update streams 64 are kept that have not said whose they are.
    with _attack(victim, "10,000 streams on 16 connections", most=256.0):
        wires = [_Wire(victim.target) for _ in range(16)]
        for k in range(625):
            for wire in wires:
                wire.send(_frame(_HEADERS, _END_HEADERS, 2 * k + 1, _headers("Update")))
        time.sleep(0.5)
        for wire in wires:
            wire.close()


def test_more_streams_than_are_allowed_are_told_so(victim):
    with _attack(victim, "update streams over --max-streams"):
        codes = []
        with contextlib.ExitStack() as stack:
            calls = []
            for k in range(80):
                channel = stack.enter_context(grpc.insecure_channel(victim.target))
                update = channel.stream_stream(
                    _SERVICE + "Update",
                    request_serializer=update_pb2.UpdateRequest.SerializeToString,
                    response_deserializer=update_pb2.UpdateResponse.FromString,
                )
                done = stack.enter_context(_released())
                hello = update_pb2.Hello(client_id=k.to_bytes(16, "big"), stream=1)
                # The open is answered, so that nobody has to guess when the stream is in.
                opening = update_pb2.Open(factor="none")
                calls.append(update(_then_wait([hello, opening], done), timeout=30))
                try:
                    next(calls[-1])
                except grpc.RpcError as error:
                    codes.append(error.code())
        assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 16


@contextlib.contextmanager
def _released():
    done = threading.Event()
    yield done
    done.set()


def _then_wait(parts, done):
    for part in parts:
        request = update_pb2.UpdateRequest()
        getattr(request, "hello" if isinstance(part, update_pb2.Hello) else "open").CopyFrom(part)
        yield request
    done.wait(30)


def test_messages_over_the_limit(victim):
    with _attack(victim, "a message of 64 MiB"), grpc.insecure_channel(victim.target) as channel:
        assert _code(lambda: _describe(channel, "x" * (64 << 20))) == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_length_that_is_a_lie(victim):
    with _attack(victim, "a message that says it has 4 GiB"):
        wire = _Wire(victim.target)
        wire.send(_frame(_HEADERS, _END_HEADERS, 1, _headers("DescribeFactor")))
        wire.send(_frame(_DATA, 0, 1, b"\x00\xff\xff\xff\xff" + b"x" * 1000))
        time.sleep(0.2)
        wire.close()


def test_compression_bombs(victim):
    bomb = gzip.compress(bytes(1 << 30), 9)  # 1 GiB of zeros in 1 MiB
    with _attack(victim, "4 messages of 1 GiB, compressed to 1 MiB"):
        for _ in range(4):
            wire = _Wire(victim.target)
            wire.send(_frame(_HEADERS, _END_HEADERS, 1, _headers("DescribeFactor", (b"grpc-encoding", b"gzip"))))
            message = b"\x01" + struct.pack(">I", len(bomb)) + bomb
            for at in range(0, len(message), 16384):
                last = _END_STREAM if at + 16384 >= len(message) else 0
                if not wire.send(_frame(_DATA, last, 1, message[at : at + 16384])):
                    break
            time.sleep(0.5)
            wire.close()


def test_header_floods(victim):
    with _attack(victim, "100 MiB of headers in continuations"):
        wire = _Wire(victim.target)
        wire.send(_frame(_HEADERS, 0, 1, _headers("DescribeFactor")))
        flood = b"".join(_literal(b"x-%d" % k, b"y" * 1000) for k in range(16))[:16000]
        for _ in range(6500):
            if not wire.send(_frame(_CONTINUATION, 0, 1, flood)):
                break
        wire.close()
    with _attack(victim, "metadata of 1 MiB"), grpc.insecure_channel(victim.target) as channel:
        code = _code(lambda: _describe(channel, "good", metadata=[("x", "y" * (1 << 20))]))
        assert code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)


def test_rapid_resets(victim):
    # gRPC 1.51 does not bound this: some 20 KiB for each, until it has got round to it (docs/security.md).
    with _attack(victim, "5,000 streams reset at once", most=256.0):
        wire = _Wire(victim.target)
        for k in range(5_000):
            request = _frame(_HEADERS, _END_HEADERS, 2 * k + 1, _headers("DescribeFactor"))
            if not wire.send(request + _frame(_RST, 0, 2 * k + 1, struct.pack(">I", 8))):
                break
        wire.close()


def test_floods_of_pings(victim):
    # What has come before gRPC closes the connection is answered first: up to all, 1.2 KiB each.
    with _attack(victim, "pings without end", most=160.0):
        wire = _Wire(victim.target)
        alive = True
        for _ in range(100_000):
            alive = wire.send(_frame(_PING, 0, 0, b"12345678"))
            if not alive:
                break
        assert not alive or wire.closed_within(10)  # GOAWAY: enhance your calm
        wire.close()


NAMES = [
    "../../etc/passwd",
    "/absolute",
    "<script>alert(1)</script>",
    "a\x00b",
    "line\nbreak",
    "\x1b[31mred",
    "a" * 10_000,
    "",
    " ",
    "%2e%2e%2f",
    "e\u0301\u202e",
]


@pytest.mark.parametrize("name", NAMES)
def test_names(victim, name):
    with _attack(victim, f"a factor named {name[:20]!r}"), grpc.insecure_channel(victim.target) as channel:
        request = factor_service_pb2.CreateFactorRequest(name=name)
        layer = types_pb2.FullyConnectedDiagonal(input_size=1, output_size=1)
        request.spec.fully_connected_diagonal.CopyFrom(layer)
        call = _stub(
            channel, "CreateFactor", factor_service_pb2.CreateFactorRequest, factor_service_pb2.CreateFactorResponse
        )
        try:
            call(request, timeout=10)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error.code()  # noqa: PT017


def test_garbage_instead_of_messages(victim):
    with _attack(victim, "random bytes as messages"), grpc.insecure_channel(victim.target) as channel:
        call = channel.unary_unary(
            _SERVICE + "DescribeFactor", request_serializer=lambda raw: raw, response_deserializer=lambda raw: raw
        )
        for size in (1, 10, 1000, 100_000):
            code = _code(lambda size=size: call(os.urandom(size), timeout=10))
            assert code in (
                grpc.StatusCode.UNIMPLEMENTED,  # as gRPC says of what it cannot parse
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.NOT_FOUND,
            )


def test_plain_http_at_the_grpc_port(victim):
    with _attack(victim, "HTTP/1.1 at the gRPC port"):
        wire = _Wire(victim.target, greet=False)
        wire.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.closed_within(30)
        wire.close()


def main():
    status = pytest.main([__file__, "-q", *sys.argv[1:]])
    figures = sys.modules["test_hostile"]._figures  # pytest has a copy of this module
    width = max(len(what) for what, _, _ in figures)
    for what, grown, seconds in figures:
        print(f"{what:{width}}  {grown:6.1f} MiB  {seconds:5.1f} s")  # noqa: T201
    return status


if __name__ == "__main__":
    raise SystemExit(main())
