"""The worker: the Python half of `async-signals worker`."""
