"""One thread for linear algebra on many small matrices. It changes no result but the order of sums.

A second thread brings nothing there and costs: two threads took seven times as long on two idle
cores, more on busy ones. Products of large matrices are left alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keeps numpy's and scipy's linear algebra on one thread, in a block or a decorated function.

    For the whole process: other threads are kept to one as well in the meantime.
    """
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    # Only libraries that are loaded are found, and scipy has one of its own.
    import scipy.linalg  # noqa: F401

    return ThreadpoolController()
