"""How channels are set up, and when it is worth to try again."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import grpc

from fisherd.errors import Error
from fisherd.types import TLS

Token = str | Callable[[], str]
Metadata = tuple[tuple[str, str], ...]

SERVICE = "fisherd.v1.FactorService"

# Whatever is sent twice by these ends as if it had been sent once. Streams have rules of their own, and DeleteFactor
# and the like would say NOT_FOUND the second time.
_SERVICE_CONFIG = """{
  "methodConfig": [{
    "name": [
      {"service": "fisherd.v1.FactorService", "method": "CreateFactor"},
      {"service": "fisherd.v1.FactorService", "method": "DescribeFactor"},
      {"service": "fisherd.v1.FactorService", "method": "ListFactors"},
      {"service": "fisherd.v1.FactorService", "method": "SetTowers"},
      {"service": "fisherd.v1.FactorService", "method": "SetDamping"},
      {"service": "fisherd.v1.FactorService", "method": "ListDampings"},
      {"service": "fisherd.v1.FactorService", "method": "Register"},
      {"service": "fisherd.v1.FactorService", "method": "UpdateInverses"},
      {"service": "grpc.health.v1.Health", "method": "Check"}
    ],
    "retryPolicy": {
      "maxAttempts": 5,
      "initialBackoff": "0.1s",
      "maxBackoff": "2s",
      "backoffMultiplier": 3,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
}"""

# A peer that dies without a word is noticed within 30 s, one that comes back within 10 s. With the BDP probe on,
# transfers in large messages are slower and the peer buffers far more.
_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 10_000),
    ("grpc.max_receive_message_length", 8 << 20),
    ("grpc.service_config", _SERVICE_CONFIG),
)

_LOCAL = ("unix:", "unix-abstract:", "localhost:", "127.", "[::1]:")


def options(tls: TLS | None, extra: tuple[tuple[str, Any], ...]) -> list[tuple[str, Any]]:
    """Return a channel's arguments; `extra` ones count over ours."""
    name = [] if tls is None or tls.server_name is None else [("grpc.ssl_target_name_override", tls.server_name)]
    own = {key for key, _ in extra}
    return [(key, value) for key, value in (*_OPTIONS, *name) if key not in own] + list(extra)


def credentials(tls: TLS) -> grpc.ChannelCredentials:
    """Return what encrypts a channel."""
    return grpc.ssl_channel_credentials(
        root_certificates=tls.root_certificates,
        private_key=tls.private_key,
        certificate_chain=tls.certificate_chain,
    )


def as_tls(tls: TLS | bool | None) -> TLS | None:  # noqa: FBT001 - True is a value of tls
    """Return TLS with the system's roots for True, None for False."""
    if isinstance(tls, TLS):
        return tls
    return TLS() if tls else None


def is_local(target: str) -> bool:
    """Return whether a target is on this machine, as far as its name tells."""
    return target.startswith(_LOCAL)


def check_token(target: str, tls: TLS | None, token: Token | None) -> None:
    """Raise ValueError if the token would travel where others can read it."""
    if token is not None and tls is None and not is_local(target):
        message = f"a token for {target!r} would travel unencrypted; give tls=True or TLS(...)"
        raise ValueError(message)


def metadata(token: Token | None) -> Metadata | None:
    """Return what authenticates one call; a function is asked anew each time."""
    if token is None:
        return None
    return (("authorization", f"Bearer {token if isinstance(token, str) else token()}"),)


class Backoff:
    """How long to wait from one attempt to the next: doubled each time, give or take a quarter."""

    def __init__(self, first: float, most: float) -> None:
        """Begin at `first` seconds and never exceed `most`, give or take."""
        self._first = first
        self._most = most
        self._attempts = 0

    def next(self, last: Error | None) -> float:
        """Return the seconds to wait after an attempt that ended with `last`, whose own delay counts if it has one."""
        doubled: float = min(self._first * 2 ** min(self._attempts, 30), self._most)
        self._attempts += 1
        if last is not None and last.retry_delay is not None:
            return last.retry_delay
        return doubled * random.uniform(0.75, 1.25)  # noqa: S311

    def reset(self) -> None:
        """Begin anew: an attempt has succeeded."""
        self._attempts = 0
