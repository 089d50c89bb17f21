"""The messages of proto/fisherd/v1, generated when the package is built."""
