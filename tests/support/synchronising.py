"""Makes of a wait for the GPU an error."""

from __future__ import annotations

from contextlib import contextmanager

import torch


@contextmanager
def synchronising_is_an_error():
    """In the block a call that waits for the GPU raises RuntimeError.

    PyTorch warns, once, that this is a prototype; a test that uses it ignores the warning.
    """
    try:
        torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
