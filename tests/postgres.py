"""A PostgreSQL server of the test's own: temporary folder, free loopback port, gone afterwards."""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.server import free_port


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    where = shutil.which("initdb")
    return Path(where).parent if where else None


@contextmanager
def postgres_server() -> Iterator[str]:
    """Yields the URL of an empty server's database; skips the test where there is no package."""
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    is_root = os.geteuid() == 0
    if is_root and not shutil.which("runuser"):
        pytest.skip("PostgreSQL does not run as root, and runuser is missing")
    # It refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if is_root else []
    folder = Path(tempfile.mkdtemp(prefix="pref-pg-"))
    try:
        if is_root:
            shutil.chown(folder, "postgres")
        data = folder / "data"
        port = free_port()
        run = [*as_user, str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "pref"]
        made = subprocess.run([*run, "-N"], capture_output=True, text=True, cwd=folder)
        if made.returncode:
            pytest.skip(f"PostgreSQL: initdb failed here: {made.stderr.strip()[-200:]}")
        control = [*as_user, str(binaries / "pg_ctl"), "-D", str(data), "-w"]
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        log = str(folder / "log")
        subprocess.run(
            [*control, "-l", log, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL
        )
        try:
            yield f"postgresql+psycopg://pref:{secrets.token_hex(4)}@127.0.0.1:{port}/postgres"
        finally:
            stop = [*control, "-m", "immediate", "stop"]
            subprocess.run(stop, check=True, stdout=subprocess.DEVNULL)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fresh_database(url: str) -> str:
    """The URL of a new, empty database on that server."""
    import sqlalchemy as sa

    name = f"t{secrets.token_hex(6)}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return url.rpartition("/")[0] + f"/{name}"
