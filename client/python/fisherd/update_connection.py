"""What is behind a stream of updates: one gRPC stream at a time, opened again whenever it is cut, and its towers."""

from __future__ import annotations

import collections
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from fisherd import calls, errors
from fisherd.channel import Backoff, Metadata
from fisherd.contribution import LayerShape
from fisherd.shared_memory import SharedMemory
from fisherd.sharing import Sharing
from fisherd.tower_state import BatchIdentity, TowerState
from fisherd.v1 import update_pb2


@dataclasses.dataclass(frozen=True)
class UpdateOptions:
    """See Client.open_updates()."""

    max_frame: int = 1 << 20
    max_buffered_bytes: int = 1 << 30
    form: int = update_pb2.BATCH_FORM_UNSPECIFIED
    shared_memory: int = 0  # bytes
    first_reconnect_delay: float = 0.1
    max_reconnect_delay: float = 10.0
    reconnect_timeout: float | None = None


WANT_DURABLE = update_pb2.UpdateRequest(want_durable=update_pb2.WantDurable()).SerializeToString()


class Tower:
    """A tower that a stream has opened, or is opening. Guarded by the connection's lock, but for the last two."""

    def __init__(self, state: TowerState, lock: threading.Lock) -> None:
        self.state = state
        self.changed = threading.Condition(lock)
        self.to_open = True  # on the stream that there is
        self.queued = False  # among those that may have something to send
        # Of the thread that writes.
        self.described = False
        self.shape: LayerShape | None = None  # None if this library cannot reduce the factor's batches

    @property
    def identity(self) -> BatchIdentity:
        """Which it is, of no step."""
        return self.state.identity


class _Call:
    """One gRPC stream."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.rpc: Any = None
        self.region = b""  # by which its server knows the memory that is shared with it
        self.over = False
        self.given_up = False


class UpdateConnection:
    """Thread-safe. `lock` guards what is known; methods that say so are called with it held.

    A thread of its own connects and reads the answers, always, so that the server never waits for this side. What is
    to be sent is taken by gRPC's thread for the requests of the stream that there is.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        client_id: bytes,
        next_stream: Callable[[], int],
        metadata: Callable[[], Metadata | None],
        options: UpdateOptions,
    ) -> None:
        """Begin to connect. `next_stream` draws Hello.stream."""
        self._update: Any = channel.stream_stream(
            calls.path("Update"),
            request_serializer=None,  # requests are bytes already
            response_deserializer=update_pb2.UpdateResponse.FromString,
        )
        self._client_id = client_id
        self._next_stream = next_stream
        self._metadata = metadata
        self._options = options
        self._pid = os.getpid()
        self.lock = threading.Lock()
        self.space = threading.Condition(self.lock)  # buffered_bytes has become less
        self.buffered_bytes = 0  # kept by towers, or reserved by writers
        self._half_full = False  # the server has been, or is to be, asked to save, since it was last less
        self._to_want_durable = False
        self.closed = False  # by this side
        self.abandoned = False  # and not to be waited for
        self.end: errors.Error | None = None  # why no call can succeed any more
        self.greeted = False  # hello has gone out on _call
        self._work = threading.Condition(self.lock)  # for whom sends
        self._ended = threading.Condition(self.lock)  # or closed
        self._towers: dict[tuple[str, int], Tower] = {}
        self._ready: collections.deque[Tower] = collections.deque()
        self._call: _Call | None = None  # None between two
        self._done_writing = False  # _call is half-closed
        self._superseded = False
        self._last: errors.Error | None = None  # of the last gRPC stream
        # Of the thread that connects.
        self._sharing = Sharing(options.shared_memory)
        self._hopeless = False  # the last call could not even be started
        self._down_since = time.monotonic()
        self._backoff = Backoff(options.first_reconnect_delay, options.max_reconnect_delay)
        self._thread = threading.Thread(target=self._run, name="fisherd updates", daemon=True)
        self._thread.start()

    @property
    def is_inherited(self) -> bool:
        """Whether this process was forked from the one that made it, and has neither its threads nor its stream."""
        return os.getpid() != self._pid

    # ---- For whom opens and writes; with the lock held

    def add(self, tower: Tower) -> None:
        """Begin to open a tower; one that was opened before ends."""
        key = (tower.identity.factor, tower.identity.tower)
        before = self._towers.get(key)
        self._towers[key] = tower
        if before is not None:
            kept = before.state.bytes
            before.state.finish(before.identity.error("ABORTED", "was opened anew"))
            self.changed(before, kept)
        self.queue(tower)

    def forget(self, tower: Tower) -> None:
        """Hear no more of a tower, if it is still known."""
        key = (tower.identity.factor, tower.identity.tower)
        if self._towers.get(key) is tower:
            del self._towers[key]

    def queue(self, tower: Tower) -> None:
        """Have sent what the tower has to send, once there is a stream."""
        if not tower.queued:
            tower.queued = True
            self._ready.append(tower)
            self._work.notify_all()

    def reserve(self, size: int) -> None:
        """Take bytes of the bound; from half of it on, ask the server to save."""
        self.buffered_bytes += size
        self.want_durable()

    def want_durable(self) -> None:
        """Ask the server to save, if more than half of the bound is kept and it has not been asked since."""
        if self.buffered_bytes > self._options.max_buffered_bytes // 2 and not self._half_full:
            self._half_full = self._to_want_durable = True
            self._work.notify_all()

    def release(self, size: int) -> None:
        """Give reserved bytes back."""
        self.buffered_bytes -= size
        self.space.notify_all()

    def changed(self, tower: Tower, bytes_before: int) -> None:
        """Do what follows on a change to a tower: its bytes, and what waits for them or for the tower."""
        self.buffered_bytes += tower.state.bytes - bytes_before
        if self.buffered_bytes <= self._options.max_buffered_bytes // 2:
            self._half_full = False
        tower.changed.notify_all()
        self.space.notify_all()
        if self.closed:
            self._work.notify_all()
        if tower.state.can_send:
            self.queue(tower)
        if tower.state.end is not None:
            self.forget(tower)

    def memory_to_share(self) -> SharedMemory | None:
        """Return where the elements of batches go on the stream that there is; None: into messages."""
        with self.lock:
            return self._sharing.memory if self._call is not None and self._call.region else None

    def why_nothing_comes(self) -> str:
        """Return what a wait that has run out adds to its message."""
        if self.greeted:
            return ""
        return "; the server cannot be reached" + ("" if self._last is None else f": {self._last.message}")

    # ---- The requests of one gRPC stream, taken by its thread

    def _requests(self, call: _Call) -> Iterator[bytes]:
        hello = update_pb2.Hello(client_id=self._client_id, stream=call.number)
        yield update_pb2.UpdateRequest(hello=hello).SerializeToString()
        with self.lock:
            if call.over:
                return
            self.greeted = True
            self._half_full = False  # the server before may have heard of it, not this one
            for tower in self._towers.values():
                tower.to_open = True
                self.queue(tower)
        while (messages := self._await_messages(call)) is not None:
            yield from messages

    def _await_messages(self, call: _Call) -> Iterable[bytes] | None:
        """Return what is to be sent next: an open, or a whole batch. None at the end."""
        with self.lock:
            while not call.over and self.end is None:
                if self._to_want_durable:
                    self._to_want_durable = False
                    return [WANT_DURABLE]
                while self._ready:
                    messages = self._take(self._ready[0], call.region)
                    if messages is not None:
                        return messages
                    self._ready.popleft().queued = False
                if self.closed and self._all_sent():
                    self._done_writing = True
                    return None
                self._work.wait()
            return None

    def _take(self, tower: Tower, region: bytes) -> Iterable[bytes] | None:
        if tower.state.end is not None:
            return None
        if tower.to_open:
            tower.to_open = False
            return [update_pb2.UpdateRequest(open=tower.state.make_open()).SerializeToString()]
        batch = tower.state.take_to_send(shares=bool(region))
        return None if batch is None else batch.addressed(region)

    def _all_sent(self) -> bool:
        return all(tower.state.all_sent for tower in self._towers.values())

    # ---- The thread that connects, listens, and connects again

    def _run(self) -> None:
        try:
            while (call := self._connect()) is not None:
                last, answered = self._read_answers(call)
                if not self._await_next_attempt(last, answered=answered):
                    return
        finally:
            self._sharing.leave()

    def _connect(self) -> _Call | None:
        call = _Call(self._next_stream())
        with self.lock:
            if self._superseded or self.end is not None:
                self._end_all(self.end or _superseded())
                return None
            self._call = call
        return call

    def _start(self, call: _Call) -> Any:
        try:
            # After a cut, gRPC waits for the connection (and 1.51 goes on with it only while a call is under way).
            rpc = self._update(self._requests(call), metadata=self._metadata(), wait_for_ready=self._last is not None)
        except grpc.RpcError:
            raise
        except ValueError:  # of a channel that has been closed
            raise errors.CancelledError("the client was closed") from None
        except Exception as error:  # the caller's function for the token
            raise errors.UnauthenticatedError(f"no token: {error}") from error
        with self.lock:
            call.rpc = rpc
            self._cancel_if_useless(call)
        return rpc

    def _cancel_if_useless(self, call: _Call) -> None:
        """End a call that nobody waits for; with the lock held."""
        done = self.closed and not self.greeted and self._all_sent()
        if call.rpc is not None and (self.abandoned or self._superseded or call.given_up or done):
            call.rpc.cancel()

    def _read_answers(self, call: _Call) -> tuple[errors.Error | None, bool]:
        """Return how the call ended, and whether anything was answered."""
        answered = False
        last: errors.Error | None = None
        timer = self._give_up_in_time(call)
        try:
            for response in self._start(call):
                if not answered:
                    region = self._sharing.on_new_stream(dict(call.rpc.initial_metadata()))
                    with self.lock:
                        call.region = region
                answered = True
                with self.lock:
                    self._handle(response)
        except grpc.RpcError as error:
            last = self._last if call.given_up else errors.from_rpc(error)
        except errors.Error as error:
            last = error
            self._hopeless = True
        finally:
            if timer is not None:
                timer.cancel()
        return last, answered

    def _give_up_in_time(self, call: _Call) -> threading.Timer | None:
        """See to it that a call that finds no connection ends at reconnect_timeout."""
        timeout = self._options.reconnect_timeout
        if timeout is None:
            return None

        def give_up() -> None:
            with self.lock:
                call.given_up = not self.greeted
                self._cancel_if_useless(call)

        timer = threading.Timer(max(self._down_since + timeout - time.monotonic(), 0), give_up)
        timer.daemon = True
        timer.start()
        return timer

    def _await_next_attempt(self, last: errors.Error | None, *, answered: bool) -> bool:
        """Wait before the next one; False if the stream has ended for good."""
        with self.lock:
            read_everything = self._done_writing and last is None and self._all_sent()
            if self._call is not None:
                self._call.over = True
            self._call = None
            self.greeted = self._done_writing = False
            self._last = last
            self._work.notify_all()
            for tower in self._towers.values():
                tower.state.on_cut()
            if answered or not self._towers:
                self._down_since = time.monotonic()
                self._backoff.reset()
            next_attempt = time.monotonic() + self._backoff.next(last)
            while True:
                end = self._end_after(last, read_everything=read_everything)
                left = next_attempt - time.monotonic()
                if end is not None or left <= 0:
                    break
                self._ended.wait(left)
            if end is None:
                return True
            if self.abandoned and last is None:
                self._last = errors.UnavailableError("not all that was written has reached the server")
            self._end_all(end)
            return False

    def _end_after(self, last: errors.Error | None, *, read_everything: bool) -> errors.Error | None:
        """Return how the stream ends after its call has; None if another is to be tried."""
        if self._superseded:
            return _superseded()
        if self.abandoned or (self.closed and (read_everything or self._all_sent())):
            return errors.CancelledError("the stream of updates was closed")
        timeout = self._options.reconnect_timeout
        out_of_time = timeout is not None and time.monotonic() - self._down_since >= timeout
        if self._hopeless or out_of_time or not errors.may_pass(last):
            return last or errors.UnavailableError("the server ended the stream of updates")
        return None

    def _end_all(self, end: errors.Error) -> None:
        if self.end is None:
            self.end = end
        for tower in self._towers.values():
            self.buffered_bytes -= tower.state.bytes
            tower.state.finish(end)
            tower.changed.notify_all()
        self._ready.clear()
        self.space.notify_all()
        self._work.notify_all()
        self._ended.notify_all()

    # ---- Answers; with the lock held

    def _handle(self, response: update_pb2.UpdateResponse) -> None:
        kind = response.WhichOneof("answer")
        if kind == "opened":
            opened = response.opened.progress
            self._apply(opened, lambda state: state.on_opened(opened))
            self._sharing.on_progress(opened)
        elif kind == "ack":
            ack = response.ack.progress
            self._apply(ack, lambda state: state.on_ack(ack))
            self._sharing.on_progress(ack)
        elif kind == "hold":
            hold = response.hold
            self._apply(hold, lambda state: state.on_hold(hold.step))
        elif kind == "refused":
            refused = response.refused
            error = errors.from_status(refused.status)
            self._apply(refused, lambda state: state.on_refused(refused.step, error))
            tower = self._towers.get((refused.factor, refused.tower))
            if refused.step == 0 and tower is not None:  # it did not end it, see TowerState.on_refused()
                tower.to_open = True
                self.queue(tower)
        # Else it is of a later version.

    def _apply(self, about: Any, change: Callable[[TowerState], None]) -> None:
        """Change the tower that an answer is about, if it is known."""
        tower = self._towers.get((about.factor, about.tower))
        if tower is not None:
            kept = tower.state.bytes
            change(tower.state)
            self.changed(tower, kept)

    # ---- The end

    def supersede(self) -> None:
        """End at once: a newer stream takes this one's place. No stream number is drawn and used after this."""
        if self.is_inherited:
            return
        with self.lock:
            self._superseded = True
            self._end_all(_superseded())
            if self._call is not None:
                self._cancel_if_useless(self._call)

    def close(self, timeout: float) -> errors.Error | None:
        """Have sent what is written, let the server read it, and end; return how the last gRPC stream ended."""
        if self.is_inherited:
            return None
        deadline = time.monotonic() + timeout
        with self.lock:
            self.closed = True
            for tower in self._towers.values():
                tower.changed.notify_all()
            self.space.notify_all()
            self._work.notify_all()
            self._ended.notify_all()
            if self._call is not None:
                self._cancel_if_useless(self._call)
            while self.end is None and (left := deadline - time.monotonic()) > 0:
                self._ended.wait(left)
            if self.end is None:
                self.abandoned = True
                if self._call is not None:
                    self._cancel_if_useless(self._call)
                self._ended.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        with self.lock:
            return self._last


def _superseded() -> errors.Error:
    message = "this client has opened a newer stream of updates"
    return errors.AbortedError(message, reason="STREAM_SUPERSEDED")
