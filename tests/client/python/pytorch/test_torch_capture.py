"""What is captured and what is not, what becomes of it on the way, and that training goes on."""

import copy
import gc
import io
import threading
import weakref

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from reference import assert_close, covariance  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import fisherd.torch  # noqa: E402

X, Y = (
    torch.randn(16, 6, generator=torch.Generator().manual_seed(3), device="cpu").to(torch.empty(0).device),
    torch.arange(16) % 4,
)


@pytest.fixture
def model():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


@pytest.fixture
def attach(client, name):
    """Return attach() for factors of this test."""
    attached = []

    def attach(model, **options):
        attached.append(fisherd.torch.attach(model, client, prefix=f"{name}/", **{"decay": 0, **options}))
        return attached[-1]

    yield attach
    for fisher in attached:
        fisher.detach()


def train(model, fisher, x=X, y=Y):
    functional.cross_entropy(model(x), y).backward()
    return fisher.step()


def steps(client, name):
    return [factor.steps_committed for factor in client.list(f"{name}/")]


def test_names_and_shapes(client, model, attach, name):
    fisher = attach(model)
    assert [layer.name for layer in fisher.layers] == ["0", "2"]
    factors = client.list(f"{name}/")
    assert [factor.name for factor in factors] == [f"{name}/0", f"{name}/2"]
    layer = factors[0].spec.fully_connected_diagonal
    assert (layer.input_size, layer.output_size, layer.has_bias) == (6, 8, True)


def test_a_choice_of_layers(model, attach):
    assert [layer.name for layer in attach(model, layers=["2"]).layers] == ["2"]
    assert [layer.name for layer in attach(model, layers=lambda _, linear: linear.in_features == 6).layers] == ["0"]
    with pytest.raises(ValueError, match=r"no Linear layers 7; it has 0, 2"):
        attach(model, layers=["7"])


def test_a_model_that_is_one_layer(attach, name):
    fisher = attach(nn.Linear(6, 4))
    assert [layer.factor for layer in fisher.layers] == [name]
    train(fisher.layers[0].module, fisher)
    assert list(fisher.read()) == ["weight", "bias"]


@pytest.mark.skipif(not hasattr(torch, "compile"), reason="this PyTorch does not compile")
def test_a_compiled_model(model, attach):
    compiled = torch.compile(model, backend="eager")
    fisher = attach(compiled)
    train(compiled, fisher)
    assert_close(fisher.read(), covariance(model, functional.cross_entropy, X, Y))


def test_frozen_layers_are_left_out(model, attach):
    model[0].requires_grad_(requires_grad=False)
    assert [layer.name for layer in attach(model).layers] == ["2"]
    model.requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="no Linear layer"):
        attach(model)


def test_a_layer_that_is_frozen_later(client, model, attach, name):
    fisher = attach(model)
    train(model, fisher)
    model[0].requires_grad_(requires_grad=False)
    train(model, fisher)
    fisher.flush()
    assert steps(client, name) == [1, 2]


def test_shared_weights(model, attach):
    model.append(nn.Linear(8, 4))
    model[3].weight = model[2].weight
    with pytest.raises(ValueError, match="the layers 2 and 3 share one weight"):
        attach(model)
    attach(model, layers=["0", "2"])


def test_attention_projections_are_not_called(attach):
    layers = attach(nn.TransformerEncoderLayer(8, 2), rank3="tokens").layers
    assert [layer.name for layer in layers] == ["linear1", "linear2"]


@pytest.mark.parametrize(
    "options", [{"loss": "median"}, {"rank3": "rows"}, {"labels": "true"}, {"every": 0}, {"when_full": "drop"}]
)
def test_options_that_are_none(model, attach, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        attach(model, **options)


def test_evaluation_is_not_captured(client, model, attach, name):
    fisher = attach(model)
    with torch.no_grad():
        model(X)
    model.eval()
    train(model, fisher)
    model.train()
    with fisher.paused():
        functional.cross_entropy(model(X), Y).backward()
    model(X)  # no backward pass
    fisher.step()
    fisher.flush()
    assert steps(client, name) == [0, 0]
    assert (fisher.stats().steps, fisher.stats().captured) == (2, 0)


def test_evaluation_is_captured_on_request(model, attach):
    model.eval()
    fisher = attach(model, capture_in_eval=True)
    train(model, fisher)
    assert_close(fisher.read(), covariance(model, functional.cross_entropy, X, Y))


def test_every_third_step(client, model, attach, name):
    fisher = attach(model, every=3)
    for _ in range(7):
        train(model, fisher)
    fisher.flush()
    assert steps(client, name) == [3, 3]
    assert (fisher.stats().steps, fisher.stats().captured, fisher.stats().sent) == (7, 3, 3)
    assert client.describe(f"{name}/0").label == 7


def test_the_average_over_a_data_set(model, attach):
    fisher = attach(model, decay=1, weight=1)
    for x, y in zip(X.split(4), Y.split(4), strict=True):
        train(model, fisher, x, y)
    assert_close(fisher.read(), covariance(model, functional.cross_entropy, X, Y))


def test_batches_that_are_not_finite_are_left_out(client, model, attach, name):
    fisher = attach(model)
    for bad in (float("nan"), float("inf"), 1e30):
        train(model, fisher)
        x = X.clone()
        x[3, 2] = bad
        train(model, fisher, x)
    train(model, fisher)
    fisher.flush()
    stats = fisher.stats()
    assert (stats.sent, stats.skipped_non_finite) == (4, 3)
    assert steps(client, name) == [4, 4]
    assert_close(fisher.read(), covariance(model, functional.cross_entropy, X, Y))


def test_gradients_that_are_not_finite(client, model, attach, name):
    fisher = attach(model, rank3="sum_then_square")
    x = X[:, None].expand(-1, 3, -1)
    (functional.cross_entropy(model(x).mean(1), Y) * 1e38 * 1e38).backward()
    fisher.step()
    functional.cross_entropy(model(x).mean(1), Y).backward()
    fisher.step()
    fisher.flush()
    assert fisher.stats().skipped_non_finite == 1
    assert steps(client, name) == [1, 1]


def test_a_full_queue_is_waited_for(client, model, attach, name):
    """Of two towers the other one does not come: the window fills, then the queue."""
    fisher = attach(model, towers=2, tower=0, queue_size=2, window=2, gather_timeout=3600)
    for _ in range(4):  # two in the window, two in the queue
        train(model, fisher)
    errors = []

    def train_one_more():
        try:
            train(model, fisher)
        except fisherd.CancelledError as error:
            errors.append(error)

    late = threading.Thread(target=train_one_more, daemon=True)
    late.start()
    late.join(0.3)
    assert late.is_alive()
    with pytest.raises(fisherd.DeadlineExceededError, match="not written yet"):
        fisher.flush(0.1)
    fisher._close(0)
    late.join(10)
    assert len(errors) == 1


def test_a_full_queue_skips_steps(client, model, attach, name):
    fisher = attach(model, queue_size=2, when_full="skip")
    hold = threading.Event()
    fisher._sender._agree = lambda words: hold.wait(10) and words
    for _ in range(5):
        train(model, fisher)
    hold.set()
    fisher.flush()
    assert (fisher.stats().captured, fisher.stats().sent, fisher.stats().skipped_full) == (5, 2, 3)
    assert steps(client, name) == [2, 2]


def test_a_layer_that_another_tower_did_not_use(client, model, attach, name):
    fisher = attach(model)
    fisher._sender._agree = lambda words: [words[0], fisherd.torch.sender.UNUSED]
    train(model, fisher)
    fisher.flush()
    assert steps(client, name) == [1, 0]
    assert list(fisher.versions()) == ["0"]


def test_a_model_that_is_copied_or_saved_is_not_captured(client, model, attach, name):
    fisher = attach(model)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, **({"weights_only": False} if torch.__version__ >= "2" else {}))
    for other in (copy.deepcopy(model), loaded):
        train(other, fisher)
    fisher.flush()
    assert steps(client, name) == [0, 0]


def test_errors_come_with_a_later_step(client, model, attach, name):
    fisher = attach(model)
    train(model, fisher)
    fisher.flush()
    client.delete(f"{name}/2")

    def train_on():
        for _ in range(100):
            train(model, fisher).wait(10)

    with pytest.raises(fisherd.Error) as error:
        train_on()
    assert error.value.reason in ("FACTOR_NOT_FOUND", "OLD_INCARNATION")
    with pytest.raises(fisherd.Error):
        train(model, fisher)
    fisher._close(0)


def test_detach_removes_the_hooks_and_sends_the_rest(client, model, attach, name):
    fisher = attach(model)
    for _ in range(3):
        train(model, fisher)
    fisher.detach()
    assert steps(client, name) == [3, 3]
    assert not model[0]._forward_hooks
    train(model, fisher)
    assert not [thread for thread in threading.enumerate() if thread.name == "fisherd capture"]
    fisher.detach()
    assert attach(model).versions() == {}


def test_a_context_that_fails_drops_what_is_left(client, model, name):
    def fail():
        with fisherd.torch.attach(model, client, prefix=f"{name}/"):
            functional.cross_entropy(model(X), Y).backward()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not model[0]._forward_hooks


def test_averages_go_on_or_begin_anew(client, model, attach, name):
    for reset, expected in ((False, 1), (False, 2), (True, 1)):
        fisher = attach(model, reset=reset)
        train(model, fisher)
        fisher.detach()
        assert steps(client, name) == [expected, expected]


def test_two_models_on_one_stream(client, updates, model, attach):
    other = nn.Sequential(nn.Linear(6, 4))
    first, second = (
        attach(model, updates=updates),
        fisherd.torch.attach(other, client, updates=updates, prefix="other/"),
    )
    train(model, first)
    train(other, second)
    first.detach()
    train(other, second)
    second.detach()
    assert updates.status() is None
    client.delete("other/0")


def test_inputs_do_not_outlive_their_graph(model, attach):
    attach(model)
    x = X.clone().requires_grad_()
    gone = weakref.ref(x.grad_fn or x)
    model(x)
    del x
    gc.collect()
    assert gone() is None


def test_calls_by_keyword(model, attach):
    attach(model)
    with pytest.raises(TypeError, match="by position"):
        model[0](input=X)


def test_sample_needs_to_be_asked_for(model, attach):
    with pytest.raises(ValueError, match="labels='sampled'"):
        attach(model).sample(model(X))
    fisher = attach(model, labels="sampled", every=2)
    assert fisher.sample(model(X)) is not None
    fisher.step()
    assert fisher.sample(model(X)) is None
