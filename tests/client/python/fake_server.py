"""A FactorService played by the test, over TCP on loopback: it records what the client sends and answers what it is told."""

import concurrent.futures
import queue
import threading

import grpc

from fisherd import errors
from fisherd.v1 import factor_service_pb2 as service_pb2
from fisherd.v1 import types_pb2, update_pb2

PREFIX = "/fisherd.v1.FactorService/"


def progress(next_step=1, *, factor="f", tower=0, incarnation=7, epoch=3, window=4, **fields):
    defaults = {"towers": 1, "durable": next_step - 1, "open_through": next_step - 1, "first": next_step}
    return update_pb2.Progress(
        factor=factor,
        tower=tower,
        incarnation=incarnation,
        epoch=epoch,
        next=next_step,
        window=window,
        **{**defaults, **fields},
    )


def opened(*args, **fields):
    return update_pb2.UpdateResponse(opened=update_pb2.Opened(progress=progress(*args, **fields)))


def ack(*args, **fields):
    return update_pb2.UpdateResponse(ack=update_pb2.Ack(progress=progress(*args, **fields)))


def hold(step, *, factor="f", tower=0):
    return update_pb2.UpdateResponse(hold=update_pb2.Hold(factor=factor, tower=tower, step=step))


def refused(step, error, *, factor="f", tower=0):
    status = errors.to_status(error)
    return update_pb2.UpdateResponse(refused=update_pb2.Refused(factor=factor, tower=tower, step=step, status=status))


def abort(context, error):
    """End a call as fisherd does."""
    details = errors.to_status(error).SerializeToString()
    context.set_trailing_metadata((("grpc-status-details-bin", details),))
    context.abort(getattr(grpc.StatusCode, error.code), error.message)


class Stream:
    """One Update call as the server sees it: what has come, by message; answers are put in by the test."""

    def __init__(self, requests, context):
        self.metadata = dict(context.invocation_metadata())
        self.received = queue.Queue()
        self.ends_itself = True  # when the client has closed its side
        self._answers = queue.Queue()
        context.add_callback(lambda: self._answers.put(None))
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()

    def _read(self, requests):
        try:
            for request in requests:
                self.received.put(request)
        except Exception:  # noqa: BLE001 - the call was cut
            pass
        self.received.put(None)
        if self.ends_itself:
            self._answers.put(None)

    def next(self, timeout=10):
        """Return the next message; None at the end."""
        return self.received.get(timeout=timeout)

    def expect_open(self):
        """Take hello, if it comes first, and an open."""
        request = self.next()
        if request.HasField("hello"):
            self.hello = request.hello
            request = self.next()
        assert request.HasField("open"), request
        return request.open

    def expect_batch(self):
        """Take one batch; return its header and its data."""
        header, data = None, b""
        while True:
            request = self.next()
            assert request is not None
            if request.HasField("header"):
                assert header is None
                header = request.header
            if request.HasField("rows"):
                data += request.rows.data
            if request.HasField("end"):
                return header, data

    def answer(self, *responses):
        for response in responses:
            self._answers.put(response)

    def end(self, error=None):
        """End the call: well, or with an error."""
        self._answers.put(error)

    def answers(self, context):
        while (item := self._answers.get()) is not None:
            if isinstance(item, errors.Error):
                abort(context, item)
            yield item


class FakeServer:
    """`streams` are the Update calls in their order; `unary` and `streaming` are the test's functions by method."""

    def __init__(self, *, credentials=None, token=None):
        self.streams = queue.Queue()
        self.unary = {"DescribeFactor": self.describe}
        self.streaming = {}
        self.calls = []
        self.spec = types_pb2.FactorSpec(
            fully_connected_diagonal=types_pb2.FullyConnectedDiagonal(input_size=3, output_size=2)
        )
        self._token = token
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
        self._server.add_generic_rpc_handlers((self,))
        if credentials is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._server.start()

    @property
    def target(self):
        return f"127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.stop(0).wait()

    def describe(self, request):
        return service_pb2.DescribeFactorResponse(factor=service_pb2.FactorInfo(name=request.name, spec=self.spec))

    def stream(self, timeout=10):
        """Return the next Update call."""
        return self.streams.get(timeout=timeout)

    def service(self, call):
        """Return the handler of a method, as gRPC wants it."""
        name = call.method.rsplit("/", 1)[-1]
        if call.method == PREFIX + "Update":
            return grpc.stream_stream_rpc_method_handler(
                self._update,
                request_deserializer=update_pb2.UpdateRequest.FromString,
                response_serializer=update_pb2.UpdateResponse.SerializeToString,
            )
        if name in ("Read", "Watch"):
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(name),
                request_deserializer=getattr(service_pb2, name + "Request").FromString,
                response_serializer=getattr(service_pb2, name + "Response").SerializeToString,
            )
        request = getattr(service_pb2, name + "Request", None)
        if request is None:
            return None
        return grpc.unary_unary_rpc_method_handler(
            self._method(name),
            request_deserializer=request.FromString,
            response_serializer=getattr(service_pb2, name + "Response").SerializeToString,
        )

    def _check_token(self, context):
        given = dict(context.invocation_metadata()).get("authorization")
        if self._token is not None and given != f"Bearer {self._token}":
            abort(context, errors.UnauthenticatedError("what is your name?", reason="BAD_TOKEN"))

    def _method(self, name):
        def method(request, context):
            self._check_token(context)
            self.calls.append(name)
            try:
                return self.unary[name](request)
            except errors.Error as error:
                abort(context, error)

        return method

    def _streaming(self, name):
        def method(request, context):
            try:
                yield from self.streaming[name](request)
            except errors.Error as error:
                abort(context, error)

        return method

    def _update(self, requests, context):
        self._check_token(context)
        stream = Stream(requests, context)
        self.streams.put(stream)
        yield from stream.answers(context)
