"""The capture of a model while it trains, and what can be read of it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import nn
from torch.nn import functional

from fisherd.client import Client
from fisherd.operators import covariance
from fisherd.torch import rows, towers
from fisherd.torch.capture import Labels, LayerCapture
from fisherd.torch.layers import Layer
from fisherd.torch.rows import Rank3
from fisherd.torch.sender import CaptureStats, Sender, Step, Ticket
from fisherd.types import MinVersion
from fisherd.v1 import types_pb2

# "mean", "sum", or what the loss was divided by: a number, or a function that is asked at each step.
Loss = Literal["mean", "sum"] | float | Callable[[], float]


@dataclasses.dataclass(frozen=True)
class CaptureOptions:
    """See attach()."""

    loss: Loss
    rank3: Rank3 | None
    labels: Labels
    every: int
    scaler: Any
    capture_in_eval: bool


class Fisher:
    """A model's captured layers and their factors on the server; made by attach(). A context manager that detaches.

    Used by the thread that trains. A step is what lies between two calls of step(): passes whose gradients are
    accumulated are one step. Preconditioner.step() calls it; without a Preconditioner, call it after backward().
    """

    def __init__(
        self,
        client: Client,
        layers: Sequence[Layer],
        sender: Sender,
        close_updates: Callable[[float], Any],
        options: CaptureOptions,
    ) -> None:
        """Install the hooks. `close_updates`: ends the stream of the sender's writers, within some seconds."""
        self.client = client
        self.layers = tuple(layers)
        self._sender = sender
        self._close_updates = close_updates
        self._options = options
        self._steps = 0
        self._captured = 0
        self._paused = 0
        self._sampling = False
        self._closed = False
        self._several = towers.is_distributed()
        self._captures = [LayerCapture(layer.module, self._is_wanted, self._is_listening) for layer in self.layers]

    # ---- The training step

    @property
    def captures_now(self) -> bool:
        """Whether the step under way is one of every k."""
        return self._steps % self._options.every == 0 and not self._paused and not self._closed

    def step(self) -> Ticket:
        """End the training step: hand what was captured to the thread that sends it.

        Does not wait for the server; only, with when_full="wait", for room in the queue. The ticket's wait(timeout)
        returns when the batches are written.

        Raises what sending an earlier step failed with: errors are not lost, but come late.
        """
        captured = self._take()
        was_wanted, self._steps = self.captures_now, self._steps + 1
        step = Step(captured, label=self._steps, ready=_record(captured))
        if any(captured) or (was_wanted and self._several):
            self._captured += any(captured)
            self._sender.put(step)
        else:
            step.ticket.finish()
        return step.ticket

    def sample(self, outputs: Any, *, generator: torch.Generator | None = None) -> torch.Tensor | None:
        """Capture gradients of labels that the model itself predicts: the Fisher, not the empirical one.

        Needs attach(labels="sampled"), and one backward pass more, on steps that are captured. Parameters' .grad stay
        as they are. Call it between the model's forward pass and loss.backward()::

            logits = model(inputs)
            fisher.sample(logits)
            functional.cross_entropy(logits, labels).backward()

        outputs: logits [N, …, classes] of a categorical prediction; or any torch.distributions.Distribution, whose
            samples' log_prob is summed. The loss's reduction and scaling do not matter here.
        generator: draws the categorical labels; on the logits' device. The default generator if None.

        Returns the labels, [N, …]; None on steps that are not captured. Not with reentrant checkpointing.
        """
        if self._options.labels != "sampled":
            message = "sample() needs attach(..., labels='sampled')"
            raise ValueError(message)
        if not self.captures_now:
            return None
        labels, loss = _draw(outputs, generator)
        weights = [layer.module.weight for layer in self.layers if layer.module.weight.requires_grad]
        self._sampling = True
        try:
            torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        finally:
            self._sampling = False
        return labels

    def discard(self) -> None:
        """Forget what was captured since the last step(): that of a step which is not taken."""
        for capture in self._captures:
            capture.clear()

    def forget_gradients(self) -> None:
        """Forget what was captured of gradients that are being cleared; sampled ones are not of them, and stay."""
        if self._options.labels == "empirical":
            self.discard()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Capture nothing of the passes within: of a penalty's gradient, or a second model's loss."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    # ---- Results

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all steps so far have ended at the server, so that reads reflect them.

        timeout: seconds. DeadlineExceededError; what sending failed with; FailedPreconditionError (STEP_FAILED).
        """
        if self._closed:
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        self._sender.flush(timeout)
        for writer, version in zip(self._sender.writers, self._sender.versions, strict=True):
            if version is not None:
                writer.wait(version.step, None if deadline is None else max(deadline - time.monotonic(), 0))

    def versions(self) -> dict[str, MinVersion]:
        """Return, by layer, what makes a read wait for the last batch that this process has written."""
        pairs = zip(self.layers, self._sender.versions, strict=True)
        return {layer.name: version for layer, version in pairs if version is not None}

    def read(self, operator: types_pb2.Operator | None = None, **options: Any) -> dict[str, torch.Tensor]:
        """Read an operator of every layer: tensors as the parameters, by their names in the model ("fc1.weight").

        operator: the covariance, that is the diagonal of the Fisher, if None. options: more of Client.read()'s.

        Waits for all steps so far, of this process. Errors as Client.read(), and what sending failed with.
        """
        result: dict[str, torch.Tensor] = {}
        if not self._closed:
            self._sender.flush(options.get("timeout"))
        versions = self.versions()
        for layer in self.layers:
            asked = {"min_version": versions.get(layer.name), **options}
            reading = self.client.read(layer.factor, operator or covariance(), layout="out_in", **asked)
            for name, parameter in zip(("weight", "bias"), layer.parameters, strict=True):
                if parameter is not None:
                    value = torch.from_numpy(getattr(reading, name))
                    result[layer.parameter_name(name)] = value.to(parameter.device, parameter.dtype)
        return result

    def stats(self) -> CaptureStats:
        """Return what has become of the steps so far."""
        return dataclasses.replace(self._sender.stats, steps=self._steps, captured=self._captured)

    # ---- The end

    def detach(self, timeout: float | None = 60.0) -> None:
        """Remove the hooks, wait until everything captured has been counted, and end the sending. Once is enough.

        timeout: seconds; after them what has not been sent is dropped and DeadlineExceededError raised. None: for ever.
        """
        if self._closed:
            return
        try:
            self.flush(timeout)
        finally:
            self._close(5.0)

    def _close(self, timeout: float) -> None:
        self._closed = True
        for capture in self._captures:
            capture.remove()
        self._sender.stop()
        self._close_updates(timeout)
        self._sender.join(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.detach()
        elif not self._closed:
            self._close(0.0)

    # ----

    def _is_wanted(self, module: nn.Module) -> bool:
        return self.captures_now and (module.training or self._options.capture_in_eval)

    def _is_listening(self) -> bool:
        return not self._paused and self._sampling == (self._options.labels == "sampled")

    def _take(self) -> list[list[rows.Part]]:
        calls = [capture.take() for capture in self._captures]
        if not any(calls):
            return [[] for _ in calls]
        divisor = self._divisor()
        pairs = zip(self.layers, calls, strict=True)
        return [rows.split(layer.name, some, self._options.rank3, divisor) for layer, some in pairs]

    def _divisor(self) -> Callable[[int], float]:
        """Return what the gradients are to be multiplied by, from a call's number of rows."""
        loss, scale = self._options.loss, _loss_scale(self._options.scaler)
        if self._options.labels == "sampled":
            return lambda _: 1.0
        if loss == "mean":
            return lambda count: count / scale
        divided_by = 1.0 if loss == "sum" else float(loss() if callable(loss) else loss)
        return lambda _: divided_by / scale


def _loss_scale(scaler: Any) -> float:
    return 1.0 if scaler is None else float(scaler.get_scale())


def _record(captured: Sequence[Sequence[rows.Part]]) -> dict[torch.device, Any]:
    """Return an event of each CUDA device's stream that something captured is on."""
    cuda: Any = torch.cuda  # which has no types
    devices = {part.grads.device for parts in captured for part in parts if part.grads.is_cuda}
    return {device: cuda.current_stream(device).record_event() for device in devices}


def _draw(outputs: Any, generator: torch.Generator | None) -> tuple[torch.Tensor, torch.Tensor]:
    if isinstance(outputs, torch.distributions.Distribution):
        with torch.no_grad():
            sampled = outputs.sample()
        return sampled, -outputs.log_prob(sampled).sum()
    logits = outputs.reshape(-1, outputs.shape[-1])
    logits = logits if logits.dtype == torch.float64 else logits.float()
    probabilities = functional.softmax(logits.detach(), -1)
    labels = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    return labels.reshape(outputs.shape[:-1]), functional.cross_entropy(logits, labels, reduction="sum")
