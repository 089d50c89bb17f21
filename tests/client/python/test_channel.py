"""Tokens, encryption, retries and backoff, against a server played by the test."""

import asyncio
import json
import subprocess

import grpc
import pytest

import fisherd
from fake_server import FakeServer
from fisherd import channel
from fisherd.v1 import factor_service_pb2 as service_pb2


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return a key and a certificate of its own for localhost."""
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost -keyout key -out certificate"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return (folder / "key").read_bytes(), (folder / "certificate").read_bytes()


@pytest.fixture
def fake(certificate):
    with FakeServer(credentials=grpc.ssl_server_credentials([certificate]), token="secret") as fake:
        yield fake


def test_tls_and_token(fake, certificate):
    tls = fisherd.TLS(root_certificates=certificate[1], server_name="localhost")
    with fisherd.Client(fake.target, tls=tls, token="secret") as client:
        assert client.wait_ready().describe("f").name == "f"
        with client.open_updates() as updates, pytest.raises(fisherd.DeadlineExceededError):
            updates.open("f", timeout=0.2)
        stream = fake.stream()
        assert stream.metadata["authorization"] == "Bearer secret"
    tokens = iter(["secret", "old"])
    with fisherd.Client(f"localhost:{fake.port}", tls=tls, token=lambda: next(tokens)) as client:
        client.describe("f")
        with pytest.raises(fisherd.UnauthenticatedError) as error:
            client.describe("f")
        assert error.value.reason == "BAD_TOKEN"


def test_tls_of_the_aio_client(fake, certificate):
    async def main():
        tls = fisherd.TLS(root_certificates=certificate[1], server_name="localhost")
        async with fisherd.aio.Client(fake.target, tls=tls, token="secret") as client:
            assert (await client.describe("f")).name == "f"
            async with client.open_updates() as updates:
                with pytest.raises(fisherd.DeadlineExceededError):
                    await updates.open("f", timeout=0.2)

    asyncio.run(main())


def test_a_stream_without_a_token_ends(fake, certificate):
    tls = fisherd.TLS(root_certificates=certificate[1], server_name="localhost")
    with fisherd.Client(fake.target, tls=tls) as client, client.open_updates() as updates:
        with pytest.raises(fisherd.UnauthenticatedError, match="what is your name"):
            updates.open("f")


def test_an_unknown_certificate(fake):
    with fisherd.Client(fake.target, tls=True, timeout=0.3) as client, pytest.raises(fisherd.Error) as error:
        client.describe("f")
    assert error.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def test_small_calls_are_tried_again():
    answers = [fisherd.UnavailableError("once"), fisherd.UnavailableError("twice"), None]

    def describe(request):
        if (error := answers.pop(0)) is not None:
            raise error
        return service_pb2.DescribeFactorResponse()

    def delete(_):
        raise fisherd.UnavailableError("never again")

    with FakeServer() as fake, fisherd.Client(fake.target) as client:
        fake.unary.update(DescribeFactor=describe, DeleteFactor=delete)
        client.describe("f")
        with pytest.raises(fisherd.UnavailableError):
            client.delete("f")
        assert fake.calls == ["DescribeFactor"] * 3 + ["DeleteFactor"]


def test_the_service_config_is_json():
    methods = json.loads(channel._SERVICE_CONFIG)["methodConfig"][0]["name"]
    assert {"service": channel.SERVICE, "method": "CreateFactor"} in methods


def test_options_of_the_caller_count():
    options = dict(channel.options(None, (("grpc.keepalive_time_ms", 5),)))
    assert options["grpc.keepalive_time_ms"] == 5
    assert options["grpc.http2.bdp_probe"] == 0


def test_backoff():
    backoff = channel.Backoff(0.1, 1)
    for expected in (0.1, 0.2, 0.4, 0.8, 1, 1):
        assert 0.75 * expected <= backoff.next(None) <= 1.25 * expected
    assert backoff.next(fisherd.ResourceExhaustedError("m", retry_delay=7)) == 7
    backoff.reset()
    assert backoff.next(fisherd.UnavailableError("m")) <= 0.125


def test_as_tls():
    assert channel.as_tls(None) is None
    assert channel.as_tls(tls=False) is None
    assert channel.as_tls(tls=True) == fisherd.TLS()
