"""tf.contrib.kfac's FullyConnectedDiagonalFactor, by the names that its page gives its methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fisherd import operators
from fisherd.client import Client
from fisherd.linear_operator import Array, LinearOperatorDiag
from fisherd.operators import Damping
from fisherd.tensors import numpy_type
from fisherd.types import FullyConnectedDiagonal, Layout, MinVersion
from fisherd.update_stream import UpdateStream, UpdateWriter
from fisherd.v1 import factor_service_pb2 as service_pb2
from fisherd.v1 import types_pb2


class FullyConnectedDiagonalFactor:
    """The diagonal of a fully-connected layer's Fisher information, on the server: one entry per weight.

        Cov(in, out) = (1/N) Σ_i (inputs[i, in] · outputs_grads[i, out])²

    under a moving average, of shape [input_size (+ 1 if has_bias), output_size]; the bias is the last row.

    In the class page's order: instantiate_cov_variables() creates the factor (the constructor does, too, unless told
    otherwise), update() feeds it, get_*() read it. A `damping_func` is the name of a damping function
    (Client.set_damping), which the server looks up when it computes, or a number; register_*() want a name.
    Thread-safe, but for update().
    """

    def __init__(
        self,
        client: Client,
        name: str,
        input_size: int,
        output_size: int,
        has_bias: bool = False,  # noqa: FBT001, FBT002 - the class's own
        *,
        updates: UpdateStream | None = None,
        tower: int = 0,
        layout: Layout = "in_out",
        create: bool = True,
        **options: Any,
    ) -> None:
        """Create the factor on the server.

        updates: the process's stream of updates, which factors share; needed for update().
        tower: which replica of the trainer this is.
        layout: of the operators' weight part, see Client.read(); get_cov() is [H, O] always.
        create: False to create it by instantiate_cov_variables() only.
        options: Client.create_factor()'s: towers, sources, dtype, zero_debias, …
        """
        self._client = client
        self._name = name
        self._kind = FullyConnectedDiagonal(input_size, output_size, has_bias)
        self._updates = updates
        self._tower = tower
        self._layout: Layout = layout
        self._options = options
        self._info: service_pb2.FactorInfo | None = None
        self._writer: UpdateWriter | None = None
        self._last_step = 0
        if create:
            self.instantiate_cov_variables()

    @property
    def name(self) -> str:
        """The factor's name on the server."""
        return self._name

    # ---- The covariance

    def instantiate_cov_variables(self) -> None:
        """Create the factor: its state is allocated and holds the initial covariance. It may be there already."""
        self._info = self._client.create_factor(self._name, self._kind, **self._options)

    def make_covariance_update_op(self, ema_decay: float) -> Callable[..., int]:
        """Return a function of (inputs, outputs_grads, **options) that runs update() with that decay."""

        def update(inputs: Any, outputs_grads: Any, **options: Any) -> int:
            return self.update(inputs, outputs_grads, decay=ema_decay, **options)

        return update

    def update(self, inputs: Any, outputs_grads: Any, *, decay: float = 0.95, **options: Any) -> int:
        """Write this tower's batch of the next step, under that decay, and return the step: UpdateWriter.write().

        Used by one thread at a time. Reads that follow see this step, once it has ended.
        """
        self._last_step = self.writer.write(inputs, outputs_grads, decay=decay, **options)
        return self._last_step

    @property
    def writer(self) -> UpdateWriter:
        """What update() writes to; opened at its first use."""
        if self._writer is None:
            if self._updates is None:
                message = f'factor "{self._name}" was made without `updates`, a stream of Client.open_updates()'
                raise RuntimeError(message)
            self._writer = self._updates.open(self._name, self._tower)
        return self._writer

    def get_cov(self) -> Array:
        """Return the covariance, [H, O] with the bias as the last row."""
        reading = self._client.read(self._name, operators.covariance(), min_version=self._min_version())
        return reading.weight if reading.bias is None else np.vstack([reading.weight, reading.bias])

    def get_cov_as_linear_operator(self) -> LinearOperatorDiag:
        """Return the covariance as an operator; its elements are transferred at their first use."""
        return self._operator(operators.covariance())

    # ---- Results

    def instantiate_inv_variables(self) -> None:
        """Do nothing: registering sets the cache's memory aside."""

    def make_inverse_update_ops(self) -> list[Callable[[], int]]:
        """Return one function, which computes all that is registered and returns how many results that was."""
        return [lambda: self._client.update_inverses(self._name)]

    def register_matpower(
        self, exp: float, damping_func: str, policy: types_pb2.RefreshPolicy | None = None
    ) -> service_pb2.Registration:
        """Have (v + λ)^exp kept computed; on_read() without a policy."""
        return self._client.register(self._name, operators.matpower(exp, damping_func), policy)

    def register_cholesky(
        self, damping_func: str, policy: types_pb2.RefreshPolicy | None = None
    ) -> service_pb2.Registration:
        """Have (v + λ)^½ kept computed."""
        return self._client.register(self._name, operators.cholesky(damping_func), policy)

    def register_cholesky_inverse(
        self, damping_func: str, policy: types_pb2.RefreshPolicy | None = None
    ) -> service_pb2.Registration:
        """Have (v + λ)^−½ kept computed."""
        return self._client.register(self._name, operators.cholesky_inverse(damping_func), policy)

    def get_matpower(self, exp: float, damping_func: Damping) -> LinearOperatorDiag:
        """Return (v + λ)^exp, of the version that is current at the operator's first use."""
        return self._operator(operators.matpower(exp, damping_func))

    def get_cholesky(self, damping_func: Damping) -> LinearOperatorDiag:
        """Return (v + λ)^½, likewise."""
        return self._operator(operators.cholesky(damping_func))

    def get_cholesky_inverse(self, damping_func: Damping) -> LinearOperatorDiag:
        """Return (v + λ)^−½, likewise."""
        return self._operator(operators.cholesky_inverse(damping_func))

    def _operator(self, operator: types_pb2.Operator) -> LinearOperatorDiag:
        if self._info is None:
            self._info = self._client.describe(self._name)
        at_least = self._min_version()

        def load() -> tuple[Array, Array | None]:
            reading = self._client.read(self._name, operator, layout=self._layout, min_version=at_least)
            return reading.weight, reading.bias

        rows = self._kind.input_size + self._kind.has_bias
        return LinearOperatorDiag(rows * self._kind.output_size, numpy_type(self._info.spec.dtype), load)

    def _min_version(self) -> MinVersion | None:
        """Return what makes a read see what this object has written."""
        if self._writer is None or self._last_step == 0:
            return None
        return self._writer.min_version(self._last_step)
