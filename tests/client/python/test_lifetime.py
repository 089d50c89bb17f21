"""Ends that nobody asked for: the interpreter's, a fork's, a closed client's; each in an interpreter of its own."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import fisherd

ONES = np.ones((2, 2), "f4")
KIND = fisherd.FullyConnectedDiagonal(2, 2)
BEGIN = """
    import os, sys
    import fisherd, numpy as np
    ones = np.ones((2, 2), "f4")
"""


def run(text, *arguments, timeout=60):
    script = textwrap.dedent(BEGIN) + textwrap.dedent(text)
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "raise ValueError"])
def test_a_server_ends_with_the_interpreter(end):
    done = run(f"server = fisherd.Server()\nprint(server.pid, flush=True)\n{end}")
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_script_that_closes_nothing_has_sent_what_it_wrote(server, client, name):
    client.create_factor(name, KIND)
    text = """
        writer = fisherd.Client(sys.argv[1]).open_updates().open(sys.argv[2])
        for _ in range(3):
            writer.write(ones, ones)
    """
    assert run(text, server.target, name).returncode == 0
    deadline = time.monotonic() + 10
    while client.read(name).steps_committed < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert client.read(name).steps_committed == 3


def test_a_forked_process_leaves_everything_to_its_parent():
    text = """
        with fisherd.Server() as server, server.client() as client, client.open_updates() as updates:
            client.create_factor("a", fisherd.FullyConnectedDiagonal(2, 2))
            writer = updates.open("a")
            writer.write(ones, ones, wait=True)
            child = os.fork()
            if child == 0:
                for call in (lambda: writer.write(ones, ones), lambda: writer.wait(1), lambda: updates.open("a")):
                    try:
                        call()
                    except fisherd.FailedPreconditionError as error:
                        assert "forked" in str(error)
                sys.exit(0)  # through all of the `with`
            assert os.waitpid(child, 0)[1] == 0
            print(writer.write(ones, ones, wait=True, timeout=10))
    """
    done = run(text)
    assert done.stdout == "2\n", done.stderr


def test_ctrl_c_ends_every_wait_and_harms_nothing(client, updates, name):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without it
    client.create_factor(name, KIND, towers=2, window=1)
    writer = updates.open(name, 0)
    step = writer.write(ONES, ONES)
    waits = [
        lambda: writer.write(ONES, ONES),
        lambda: writer.wait(step),
        lambda: client.read(name, min_version=writer.min_version(step)),
        lambda: next(event for event in client.watch(name) if event.factor == "never"),
    ]
    for wait in waits:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            wait()
    updates.open(name, 1).write(ONES, ONES)
    writer.wait(step, timeout=10)
    assert writer.next_step == step + 1


def test_a_closed_client_says_so(server):
    client = server.client()
    client.close()
    for call in (
        client.list,
        lambda: client.read("a"),
        lambda: client.multiply("a", fisherd.covariance(), ONES),
        lambda: client.open_updates().open("a", timeout=5),
    ):
        with pytest.raises(fisherd.CancelledError):
            call()


def test_a_transposed_weight_is_not_taken_for_another(client, updates, name):
    client.create_factor(name, fisherd.FullyConnectedDiagonal(2, 3, has_bias=True))
    updates.open(name).write(ONES, np.ones((2, 3), "f4"), wait=True)
    weight, bias = np.ones((2, 3), "f4"), np.ones(3, "f4")
    client.multiply(name, fisherd.covariance(), weight, bias)
    client.multiply(name, fisherd.covariance(), weight.T, bias, layout="out_in")
    for shaped, layout in ((weight.T, "in_out"), (weight, "out_in"), (weight.reshape(1, 6), "in_out")):
        with pytest.raises(fisherd.InvalidArgumentError, match=r"got the shapes .* expected \[\[") as error:
            client.multiply(name, fisherd.covariance(), shaped, bias, layout=layout)
        assert error.value.metadata == {"factor": name, "field": "weight"}
