"""Java programs beside a broker: Apache Kafka's own jars, or one source file run over them."""

import fcntl
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess

from broker import wait_until

COMPAT = pathlib.Path(__file__).parents[2] / "compat"


def kafka_home():
    """The directory of Apache Kafka's jars, fetched when missing."""
    return subprocess.run([COMPAT / "kafka.sh", "home"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def maven_jars(name):
    """The jars that NAME/pom.xml lists and needs, in the cache; fetched when missing."""
    pom = pathlib.Path(__file__).parent / name / "pom.xml"
    cache = pathlib.Path(os.environ.get("SILTSTONE_CACHE") or pathlib.Path.home() / ".cache/siltstone")
    jars = cache / f"{name}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with open(f"{jars}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.exists():
            unfinished = jars.with_suffix(".part")
            shutil.rmtree(unfinished, ignore_errors=True)
            subprocess.run(["mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={unfinished}"], check=True)
            unfinished.rename(jars)
    return jars


def free_port():
    """A port that was free a moment ago, for programs that cannot take port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Java:
    """One JVM; `program` is a class of `jars` (Kafka's unless told) or a .java file. Output goes to a file under `root`."""

    def __init__(self, root, program, *arguments, heap="256m", jars=None, options=()):
        self.log_file = pathlib.Path(root) / f"{pathlib.Path(program).stem}.{os.urandom(3).hex()}.log"
        logs = [] if jars else [f"-Dlog4j2.configurationFile={COMPAT / 'kafka/log4j2.yaml'}"]
        command = ["java", f"-Xmx{heap}", "-XX:TieredStopAtLevel=1", *logs, *options]
        command += ["-cp", f"{jars or kafka_home() + '/libs'}/*", program, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log_file.open("wb"), stderr=subprocess.STDOUT)

    def log(self):
        return self.log_file.read_text(errors="replace")

    def wait_for(self, text, limit_s=60):
        def there():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log()[-3000:]}"
            return text in self.log()

        wait_until(there, f"{text!r} in {self.log_file}", limit_s)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()
