"""Streams against a server played by the test: hello, opens, replay over cuts, ends."""

import threading
import time

import numpy as np
import pytest

import fisherd
from fake_server import FakeServer, ack, hold, opened, refused

A = np.arange(12, dtype=np.float32).reshape(4, 3)
G = np.arange(8, dtype=np.float32).reshape(4, 2)


@pytest.fixture
def fake():
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def client(fake):
    with fisherd.Client(fake.target) as client:
        yield client


def in_background(function):
    """Run it in a thread; return a function that waits for its result."""
    result = []

    def run():
        try:
            result.append(function())
        except BaseException as error:  # noqa: BLE001
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def join():
        thread.join(10)
        assert result, "it still runs"
        if isinstance(result[0], BaseException):
            raise result[0]
        return result[0]

    return join


def open_tower(fake, updates, at=1, **options):
    opening = in_background(lambda: updates.open("f", **options))
    stream = fake.stream()
    stream.expect_open()
    stream.answer(opened(at))
    return stream, opening()


def fast(client, **options):
    return client.open_updates(form="raw", first_reconnect_delay=0.01, **options)


def test_hello_open_batch_ack(fake, client):
    with fast(client) as updates:
        opening = in_background(lambda: updates.open("f", 2, take_over=True))
        stream = fake.stream()
        message = stream.expect_open()
        assert (len(stream.hello.client_id), stream.hello.stream) == (16, 1)
        assert (message.factor, message.tower, message.through, message.take_over) == ("f", 2, 0, True)
        stream.answer(opened(5, tower=2))
        writer = opening()
        assert (writer.factor, writer.tower, writer.next_step) == ("f", 2, 5)
        assert writer.min_version(5) == (7, 5)
        assert writer.write(A, G, decay=0.5, weight=2, gradient_scale=3, label=9) == 5
        header, data = stream.expect_batch()
        assert (header.factor, header.tower, header.incarnation, header.step) == ("f", 2, 7, 5)
        assert (header.decay, header.weight, header.gradient_scale, header.label) == (0.5, 2, 3, 9)
        assert data == A.tobytes() + G.tobytes()
        with pytest.raises(fisherd.DeadlineExceededError, match="step 5: has not ended in time"):
            writer.wait(5, timeout=0.05)
        stream.answer(ack(6, tower=2, durable=4))
        writer.wait(5, timeout=10)
        with pytest.raises(fisherd.DeadlineExceededError, match="is not durable yet"):
            writer.wait_durable(5, timeout=0.05)
        stream.answer(ack(6, tower=2))
        writer.wait_durable(5, timeout=10)
        with pytest.raises(fisherd.OutOfRangeError):
            writer.wait(6)
        assert writer.progress().next == 6


def test_a_cut_is_replayed(fake, client):
    with fast(client) as updates:
        stream, writer = open_tower(fake, updates)
        for _ in range(3):
            writer.write(A, G)
        first = [stream.expect_batch() for _ in range(3)]
        stream.answer(ack(2))
        writer.wait(1, timeout=10)
        stream.end(fisherd.UnavailableError("cut"))
        stream = fake.stream()
        message = stream.expect_open()
        assert (getattr(message, "from"), message.through, message.take_over) == (2, 3, False)
        assert stream.hello.stream == 2
        stream.answer(opened(2))
        assert [stream.expect_batch() for _ in range(2)] == first[1:]
        stream.answer(ack(4))
        writer.wait(3, timeout=10)
        stats = writer.stats()
        assert (stats.raw_batches, stats.resent_batches, stats.reconnects) == (3, 2, 1)


def test_writes_go_on_while_the_server_is_away(fake, client):
    with fast(client) as updates:
        stream, writer = open_tower(fake, updates)
        stream.end(fisherd.UnavailableError("away"))
        stream = fake.stream()
        stream.expect_open()
        assert writer.write(A, G, timeout=0) == 1
        stream.answer(opened(1))
        assert stream.expect_batch()[0].step == 1
        stream.answer(ack(2))
        writer.wait(1, timeout=10)


def test_the_window(fake, client):
    with fast(client) as updates:
        stream, writer = open_tower(fake, updates)
        for step in range(1, 5):
            assert writer.write(A, G, timeout=0) == step
        with pytest.raises(fisherd.DeadlineExceededError, match="step 1 has not ended and the window is 4 steps"):
            writer.write(A, G, timeout=0.02)
        writing = in_background(lambda: writer.write(A, G))
        for _ in range(4):
            stream.expect_batch()
        stream.answer(ack(2))
        assert writing() == 5


def test_the_bound_of_bytes(fake, client):
    size = A.nbytes + G.nbytes
    with fast(client, max_buffered_bytes=2 * size) as updates:
        stream, writer = open_tower(fake, updates)
        with pytest.raises(fisherd.ResourceExhaustedError, match="max_buffered_bytes is") as error:
            writer.write(np.ones((16, 3)), np.ones((16, 2)))
        assert error.value.reason == "CLIENT_BUFFER"
        assert error.value.metadata == {"factor": "f", "tower": "0", "step": "1"}
        writer.write(A, G)
        writer.write(A, G)
        stream.answer(ack(3, durable=0))
        writer.wait(2, timeout=10)
        with pytest.raises(fisherd.ResourceExhaustedError, match="not durable yet") as error:
            writer.write(A, G, timeout=0.02)
        assert error.value.reason == "CLIENT_BUFFER"
        writing = in_background(lambda: writer.write(A, G))
        stream.answer(ack(3, durable=1))
        assert writing() == 3


def test_hold(fake, client):
    with fast(client) as updates:
        stream, writer = open_tower(fake, updates)
        writer.write(A, G)
        sent = stream.expect_batch()
        stream.answer(hold(1))
        stream.answer(ack(1, open_through=1))
        assert stream.expect_batch() == sent
        assert writer.stats().resent_batches == 1


def test_a_refusal_is_reported_and_the_writer_goes_on(fake, client):
    with fast(client) as updates:
        stream, writer = open_tower(fake, updates)
        writer.write(A, G)
        writer.write(A, G)
        stream.expect_batch()
        error = fisherd.InvalidArgumentError("NaN", reason="NON_FINITE_INPUT", metadata={"field": "inputs"})
        stream.answer(refused(1, error))
        with pytest.raises(fisherd.InvalidArgumentError, match="NaN") as raised:
            writer.wait(1, timeout=10)
        assert (raised.value.reason, raised.value.metadata) == ("NON_FINITE_INPUT", {"field": "inputs"})
        with pytest.raises(fisherd.OutOfRangeError, match="after step 1, which was refused"):
            writer.wait(2, timeout=10)
        assert writer.write(A, G) == 1
        writer.write(A, G)
        stream.answer(refused(1, error))
        while writer.next_step != 1:
            time.sleep(0.001)
        with pytest.raises(fisherd.InvalidArgumentError, match="NaN"):
            writer.write(A, G)


def test_a_refused_open(fake, client):
    with fast(client) as updates:
        opening = in_background(lambda: updates.open("f"))
        stream = fake.stream()
        stream.expect_open()
        stream.answer(refused(0, fisherd.FailedPreconditionError("held", reason="TOWER_CLAIMED")))
        with pytest.raises(fisherd.FailedPreconditionError) as error:
            opening()
        assert error.value.reason == "TOWER_CLAIMED"
        opening = in_background(lambda: updates.open("f", timeout=0.05))
        stream.expect_open()
        with pytest.raises(fisherd.DeadlineExceededError, match="did not answer open"):
            opening()


def test_opening_anew_ends_the_writer_before(fake, client):
    with fast(client) as updates:
        stream, writer = open_tower(fake, updates)
        writer.write(A, G)
        stream.expect_batch()
        opening = in_background(lambda: updates.open("f"))
        stream.expect_open()
        stream.answer(opened(1))
        opening()
        with pytest.raises(fisherd.AbortedError, match="opened anew"):
            writer.write(A, G)


def test_the_end_of_an_incarnation_before_opened_is_of_the_writer_before(fake, client):
    with fast(client) as updates:
        stream, _ = open_tower(fake, updates)
        opening = in_background(lambda: updates.open("f"))
        stream.expect_open()
        stream.answer(refused(0, fisherd.FailedPreconditionError("deleted", reason="OLD_INCARNATION")))
        stream.expect_open()
        stream.answer(opened(1, incarnation=8), opened(1, incarnation=8))
        writer = opening()
        writer.write(A, G)
        stream.expect_batch()
        stream.answer(ack(2, incarnation=8))
        writer.wait(1, timeout=10)


def test_another_incarnation_ends_the_writer(fake, client):
    with fast(client) as updates:
        stream, writer = open_tower(fake, updates)
        writer.write(A, G)
        stream.end(fisherd.UnavailableError("cut"))
        stream = fake.stream()
        stream.expect_open()
        stream.answer(opened(1, incarnation=8))
        with pytest.raises(fisherd.FailedPreconditionError) as error:
            writer.wait(1, timeout=10)
        assert error.value.reason == "OLD_INCARNATION"


def test_what_ends_the_stream_for_good(fake, client):
    with fast(client) as updates:
        stream, writer = open_tower(fake, updates)
        stream.end(fisherd.AbortedError("superseded", reason="STREAM_SUPERSEDED"))
        deadline = time.monotonic() + 10
        while updates.status() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        assert updates.status().reason == "STREAM_SUPERSEDED"
        for call in (lambda: writer.write(A, G), lambda: updates.open("f")):
            with pytest.raises(fisherd.AbortedError, match="superseded"):
                call()


def test_reconnect_timeout():
    with FakeServer() as fake, fisherd.Client(fake.target) as client:
        updates = fast(client, reconnect_timeout=0.1)
        stream, writer = open_tower(fake, updates)
        writer.write(A, G)
        stream.expect_batch()
    with pytest.raises(fisherd.Error) as error:
        writer.wait(1, timeout=10)
    assert error.value.code in ("UNAVAILABLE", "CANCELLED")
    updates.close()


def test_a_newer_stream_supersedes_the_older(fake, client):
    older = fast(client)
    _, writer = open_tower(fake, older)
    newer = fast(client)
    assert older.status().reason == "STREAM_SUPERSEDED"
    with pytest.raises(fisherd.AbortedError, match="newer stream"):
        writer.write(A, G)
    stream, _ = open_tower(fake, newer)
    assert stream.hello.stream == 2
    newer.close()
    older.close()


def test_close_lets_the_server_read_everything(fake, client):
    updates = fast(client)
    stream, writer = open_tower(fake, updates)
    stream.ends_itself = False
    writer.write(A, G)
    closing = in_background(updates.close)
    stream.expect_batch()
    assert stream.next() is None
    stream.answer(ack(2))
    stream.end()
    assert closing() is None
    writer.wait(1)
    assert updates.status().code == "CANCELLED"
    for call in (lambda: writer.write(A, G), lambda: updates.open("f")):
        with pytest.raises(fisherd.CancelledError):
            call()


def test_close_gives_up(fake, client):
    updates = fast(client)
    stream, writer = open_tower(fake, updates)
    for _ in range(2):
        writer.write(A, G)
    stream.answer(hold(1))
    assert updates.close(timeout=0.1).code in ("CANCELLED", "UNAVAILABLE")
    with pytest.raises(fisherd.CancelledError):
        writer.wait(1)


def test_no_server():
    with fisherd.Client("127.0.0.1:1") as client, fast(client) as updates:
        with pytest.raises(fisherd.UnavailableError, match="cannot be reached"):
            updates.open("f", timeout=0.1)


def test_a_token_that_cannot_be_had_ends_the_stream(fake):
    def token():
        raise OSError("no such file")

    with fisherd.Client(fake.target, token=token) as client, fast(client) as updates:
        with pytest.raises(fisherd.UnauthenticatedError, match="no such file"):
            updates.open("f", timeout=10)


def test_large_batches_are_cut_by_rows(fake, client):
    inputs = np.random.default_rng(1).random((1000, 3))
    grads = np.random.default_rng(2).random((1000, 2))
    with fast(client, max_frame=10_000) as updates:
        stream, writer = open_tower(fake, updates)
        writer.write(inputs, [grads], wait=False)
        rows = []
        while not rows or sum(frame.row_count for frame in rows) < 1000:
            rows.append(stream.next().rows)
        assert len(rows) == 4
        assert [frame.first_row for frame in rows] == [0, 250, 500, 750]
        assert rows[1].data == inputs[250:500].tobytes() + grads[250:500].tobytes()


def test_the_contribution_is_chosen_by_size(fake, client):
    with client.open_updates() as updates:
        stream, writer = open_tower(fake, updates)
        writer.write(A, G)  # 80 bytes against 24
        header, data = stream.expect_batch()
        assert header.form == 2
        assert not header.HasField("gradient_scale")
        np.testing.assert_allclose(np.frombuffer(data, "f4").reshape(3, 2), (A**2).T @ (G**2) / 4)
        writer.write(A[:1], G[:1])  # 20 bytes
        assert stream.expect_batch()[0].form == 1
        stats = writer.stats()
        assert (stats.contribution_batches, stats.contribution_bytes) == (1, 24)
        assert (stats.raw_batches, stats.raw_bytes) == (1, 20)
        assert fake.calls == ["DescribeFactor"]
