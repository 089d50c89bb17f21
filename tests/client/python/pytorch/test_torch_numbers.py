"""Factors captured from PyTorch against float64 gradients of single examples, through a real server."""

import contextlib

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from reference import assert_close, covariance  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import fisherd.torch  # noqa: E402

N, T = 24, 5


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(1)


def mlp(bias=True):
    return nn.Sequential(
        nn.Linear(6, 8, bias=bias), nn.Tanh(), nn.Linear(8, 7, bias=bias), nn.ReLU(inplace=True), nn.Linear(7, 4)
    )


class Pooled(nn.Module):
    """Tokens that are mixed before the last layer, as in a classifier of sequences."""

    def __init__(self, bias=True):
        super().__init__()
        self.embed = nn.Linear(6, 8, bias=bias)
        self.head = nn.Linear(8, 4, bias=bias)

    def forward(self, x):
        return self.head(torch.tanh(self.embed(x)).mean(-2))


def flat_loss(outputs, labels, reduction="mean"):
    return functional.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), labels.reshape(-1), reduction=reduction)


def capture(client, name, model, run, **options):
    """Return the covariance of one step whose passes `run` makes."""
    with fisherd.torch.attach(model, client, prefix=f"{name}/", decay=0, **options) as fisher:
        run(fisher)
        fisher.step()
        return fisher.read()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("bias", [True, False])
def test_rows(client, name, bias, reduction):
    model, x, y = mlp(bias), torch.randn(N, 6), torch.randint(4, (N,))
    served = capture(client, name, model, lambda _: flat_loss(model(x), y, reduction).backward(), loss=reduction)
    assert_close(served, covariance(model, flat_loss, x, y))


def test_squares_of_the_batch_mean_are_something_else(client, name):
    model, x, y = mlp(), torch.randn(N, 6), torch.randint(4, (N,))
    served = capture(client, name, model, lambda _: flat_loss(model(x), y).backward())
    mistake = model[0].weight.grad.square()
    assert (served["0.weight"].mean() / mistake.mean()) > 3


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("bias", [True, False])
def test_tokens_as_rows(client, name, bias, reduction):
    model, x, y = mlp(bias), torch.randn(N, T, 6), torch.randint(4, (N, T))
    served = capture(
        client, name, model, lambda _: flat_loss(model(x), y, reduction).backward(), loss=reduction, rank3="tokens"
    )
    assert_close(served, covariance(model, flat_loss, x.reshape(-1, 6), y.reshape(-1)))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("bias", [True, False])
def test_tokens_summed_then_squared(client, name, bias, reduction):
    model, x, y = mlp(bias), torch.randn(N, T, 6), torch.randint(4, (N, T))
    served = capture(
        client,
        name,
        model,
        lambda _: flat_loss(model(x), y, reduction).backward(),
        loss=reduction,
        rank3="sum_then_square",
    )
    assert_close(served, covariance(model, lambda outputs, labels: flat_loss(outputs, labels, reduction), x, y))


def test_tokens_that_are_mixed(client, name):
    model, x, y = Pooled(), torch.randn(N, T, 6), torch.randint(4, (N,))
    served = capture(client, name, model, lambda _: flat_loss(model(x), y).backward(), rank3="sum_then_square")
    assert_close(served, covariance(model, flat_loss, x, y))


def test_sums_in_chunks(client, name, monkeypatch):
    monkeypatch.setattr("fisherd.torch.rows._CHUNK_BYTES", 1000)
    model, x, y = Pooled(), torch.randn(N, T, 6), torch.randint(4, (N,))
    served = capture(client, name, model, lambda _: flat_loss(model(x), y).backward(), rank3="sum_then_square")
    assert_close(served, covariance(model, flat_loss, x, y))


def test_more_axes(client, name):
    model, x, y = mlp(), torch.randn(3, 2, T, 6), torch.randint(4, (3, 2, T))
    served = capture(client, name, model, lambda _: flat_loss(model(x), y).backward(), rank3="tokens")
    assert_close(served, covariance(model, flat_loss, x.reshape(-1, 6), y.reshape(-1)))


class Scaler:
    """What torch's GradScaler is to a capture."""

    def get_scale(self):
        return 4096.0


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_scaling(client, name, reduction):
    model, x, y = mlp(), torch.randn(N, 6), torch.randint(4, (N,))

    def run(_):
        (flat_loss(model(x), y, reduction) * 4096).backward()

    assert_close(capture(client, name, model, run, loss=reduction, scaler=Scaler()), covariance(model, flat_loss, x, y))


def test_autocast(client, name):
    """What is compared are the gradients that autocast computes, in bfloat16, to 1e-5; with float64's, to its digits."""
    model, x, y = mlp(), torch.randn(N, 6), torch.randint(4, (N,))
    seen = {}

    def watch(layer):
        def hook(_, inputs, output):
            output.retain_grad()
            seen[layer] = (inputs[0].detach(), output)

        return hook

    def run(_):
        with torch.autocast(torch.empty(0).device.type, dtype=torch.bfloat16):
            outputs = model(x)
            assert outputs.dtype == torch.bfloat16
            loss = flat_loss(outputs.float(), y)
        (loss * 4096).backward()

    whole = covariance(model, flat_loss, x, y)
    model[3] = nn.ReLU()  # so that the outputs are there afterwards
    for layer in ("0", "2", "4"):
        model[int(layer)].register_forward_hook(watch(layer))
    served = capture(client, name, model, run, loss="mean", scaler=Scaler())
    expected = {}
    for layer, (inputs, output) in seen.items():
        a = inputs.to(torch.bfloat16).double()
        g = output.grad.double() * N / 4096
        expected[f"{layer}.weight"] = torch.einsum("ni,no->noi", a, g).square().mean(0).cpu().numpy()
        expected[f"{layer}.bias"] = g.square().mean(0).cpu().numpy()
    assert_close(served, expected)
    for parameter, value in whole.items():
        assert np.abs(served[parameter].cpu().numpy() - value).max() < 0.05 * value.max()


def generator(seed):
    return torch.Generator(torch.empty(0).device).manual_seed(seed)


def test_sampled_labels(client, name):
    model, x, y = mlp(), torch.randn(N, 6), torch.randint(4, (N,))
    drawn = []

    def run(fisher):
        outputs = model(x)
        drawn.append(fisher.sample(outputs, generator=generator(7)))
        assert all(parameter.grad is None for parameter in model.parameters())
        flat_loss(outputs, y).backward()  # not captured

    served = capture(client, name, model, run, labels="sampled")
    with torch.no_grad():
        probabilities = functional.softmax(model(x), -1)
    again = torch.multinomial(probabilities, 1, generator=generator(7))[:, 0]
    assert torch.equal(drawn[0], again)
    assert not torch.equal(drawn[0], y)
    assert_close(served, covariance(model, flat_loss, x, drawn[0]))


def test_sampled_labels_of_tokens(client, name):
    model, x = mlp(), torch.randn(N, T, 6)
    drawn = []
    served = capture(
        client, name, model, lambda fisher: drawn.append(fisher.sample(model(x))), labels="sampled", rank3="tokens"
    )
    assert drawn[0].shape == (N, T)
    assert_close(served, covariance(model, flat_loss, x.reshape(-1, 6), drawn[0].reshape(-1)))


def test_a_distribution_of_ones_own(client, name):
    model, x = mlp(), torch.randn(N, 6)
    drawn = []

    def run(fisher):
        drawn.append(fisher.sample(torch.distributions.Normal(model(x), 1.0)))

    served = capture(client, name, model, run, labels="sampled")
    assert_close(served, covariance(model, lambda outputs, z: (outputs - z).square().sum() / 2, x, drawn[0]))


@pytest.mark.parametrize("sizes", [(8, 8), (10, 3)])
def test_accumulated_gradients(client, name, sizes):
    model, x, y = mlp(), torch.randn(sum(sizes), 6), torch.randint(4, (sum(sizes),))

    def run(_):
        for xs, ys in zip(x.split(sizes), y.split(sizes), strict=True):
            flat_loss(model(xs), ys).backward()

    assert_close(capture(client, name, model, run), covariance(model, flat_loss, x, y))


@pytest.mark.parametrize("divided_by", [2 * N, lambda: 2 * N])
def test_a_loss_divided_by_something_else(client, name, divided_by):
    model, x, y = mlp(), torch.randn(N, 6), torch.randint(4, (N,))
    served = capture(client, name, model, lambda _: (flat_loss(model(x), y) / 2).backward(), loss=divided_by)
    assert_close(served, covariance(model, flat_loss, x, y))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


def test_a_layer_used_twice(client, name):
    model, x, y = Twice(), torch.randn(N, 6), torch.randint(6, (N,))
    served = capture(client, name, model, lambda _: flat_loss(model(x), y).backward(), rank3="sum_then_square")
    assert_close(served, covariance(model, flat_loss, x, y))
    with pytest.raises(ValueError, match="is called 2 times for one loss: choose rank3"):
        capture(client, f"{name}/again", model, lambda _: flat_loss(model(x), y).backward())


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(client, name, reentrant):
    from torch.utils.checkpoint import checkpoint

    model, x, y = mlp(), torch.randn(N, 6), torch.randint(4, (N,))

    def run(_):
        middle = checkpoint(model[:3], x.clone().requires_grad_(), use_reentrant=reentrant)
        flat_loss(model[3:](middle), y).backward()

    assert_close(capture(client, name, model, run), covariance(model, flat_loss, x, y))


def test_two_losses_of_one_graph(client, name):
    model, x, y = mlp(), torch.randn(N, 6), torch.randint(4, (N,))

    def run(_):
        loss = flat_loss(model(x), y)
        (0.25 * loss).backward(retain_graph=True)
        (0.75 * loss).backward()

    assert_close(capture(client, name, model, run), covariance(model, flat_loss, x, y))


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_models_of_other_types(client, name, dtype):
    wide = dtype == "float64"
    model, x, y = mlp().to(getattr(torch, dtype)), torch.randn(N, 6), torch.randint(4, (N,))
    served = capture(
        client,
        name,
        model,
        lambda _: flat_loss(model(x.to(getattr(torch, dtype))).double(), y).backward(),
        dtype="float64" if wide else "float32",
    )
    expected = covariance(model, flat_loss, x, y)
    if wide:
        assert_close(served, expected, 1e-12)
    for parameter, value in expected.items():
        assert np.abs(served[parameter].double().cpu().numpy() - value).max() < 0.1 * value.max()


def test_data_that_changes_after_the_step(client, name):
    model, x, y = mlp(), torch.randn(N, 6), torch.randint(4, (N,))
    expected = covariance(model, flat_loss, x, y)
    with fisherd.torch.attach(model, client, prefix=f"{name}/", decay=0) as fisher, contextlib.ExitStack():
        flat_loss(model(x), y).backward()
        x.zero_()
        fisher.step()
        assert_close(fisher.read(), expected)
