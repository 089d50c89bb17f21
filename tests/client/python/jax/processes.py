"""A trainer of several processes or devices, for test_jax_processes.py: TARGET NAME PORT PROCESSES PROCESS."""

import sys

import numpy as np

import fisherd
import fisherd.jax
import jax

A = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], "f4")
G = np.array([[1, -1], [2, 0.5], [3, 1], [-2, 4]], "f4")


def main():
    target, name, port, processes, process = sys.argv[1:]
    if int(processes) > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(process))
    mesh = jax.sharding.Mesh(np.array(jax.devices()), "data")
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def loss(weight, inputs, grads):
        return (fisherd.jax.dense(inputs, weight, name="layer") * grads).sum(-1).mean()

    inputs, grads = (jax.make_array_from_callback(t.shape, rows, t.__getitem__) for t in (A, G))
    weight = jax.make_array_from_callback((2, 2), whole, np.zeros((2, 2), "f4").__getitem__)
    run = jax.jit(fisherd.jax.value_grad_and_capture(loss), out_shardings=(whole, whole, rows_of(rows, whole)))
    with fisherd.Client(target) as client, fisherd.jax.attach(client, prefix=f"{name}/") as fisher:
        _, gradient, captures = run(weight, inputs, grads)
        fisher.update(captures)
        fisher.flush(30)
        changed, _ = fisherd.jax.precondition(fisher, -1, 0.5).update({"layer": gradient}, None)
        v = fisher.read()["layer"][0]
        expected = np.asarray(gradient) / (v + 0.5)
        np.testing.assert_allclose(np.asarray(changed["layer"]), expected, rtol=1e-6)
        assert changed["layer"].sharding == gradient.sharding
        sys.stdout.write(f"{v.tolist()}\n")


def rows_of(rows, whole):
    """Return the shardings of the captures: examples over the devices, the count of runs on all."""
    return {"layer": fisherd.jax.Capture(rows, rows, whole, has_bias=False, layout="in_out")}


if __name__ == "__main__":
    main()
