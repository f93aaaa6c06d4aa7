"""A PostgreSQL server of the distribution on a directory of its own, with logical decoding on."""

import glob
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile

from broker import wait_until
from java import free_port


def program(name):
    """From the PATH, or from where Debian keeps its versions."""
    found = shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None)
    assert found, f"{name} is missing: install your distribution's package 'postgresql'"
    return found


class Postgres:
    """Runs as user `postgres` when the tests run as root, which PostgreSQL refuses."""

    def __enter__(self):
        self.port = free_port()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="siltstone-postgres."))
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(self.directory, account.pw_uid, account.pw_gid)
        data = self.directory / "data"
        subprocess.run([program("initdb"), "-D", data, "-U", "siltstone", "-A", "trust", "-E", "UTF8", "--no-sync"], user=self.user, cwd=self.directory,
                       stdout=subprocess.DEVNULL, check=True)
        self.process = subprocess.Popen([program("postgres"), "-D", data, "-p", str(self.port), "-h", "127.0.0.1", "-k", self.directory, "-c", "wal_level=logical"],
                                        user=self.user, cwd=self.directory, stderr=open(self.directory / "log", "wb"))
        wait_until(lambda: subprocess.run([program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]).returncode == 0, "PostgreSQL answers")
        return self

    def sql(self, text):
        done = subprocess.run(["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "siltstone", "-d", "postgres", "-qAt", "-v", "ON_ERROR_STOP=1", "-c", text],
                              stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()
        shutil.rmtree(self.directory)
