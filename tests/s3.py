"""An S3 server of the test's own on a free loopback port, with one empty bucket named team."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tasks.server import free_port


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Yields the environment of whoever uses it; skips the test where moto or s3fs is missing."""
    for package in ("moto", "s3fs"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        made = urllib.request.Request(f"{address}/team", method="PUT")
        for _ in range(300):
            try:
                urllib.request.urlopen(made, timeout=5)
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.1)
        yield {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        process.terminate()
        process.wait()
