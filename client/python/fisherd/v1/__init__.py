"""The messages of proto/fisherd/v1, generated when the package is built."""

import importlib.util

if importlib.util.find_spec("fisherd.v1.types_pb2") is None:
    message = "these are the package's sources, without the generated messages: install the wheel, and start elsewhere"
    raise ImportError(message)
