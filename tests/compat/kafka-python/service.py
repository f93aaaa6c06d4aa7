"""The names kafka-python's fixtures import from a module its sdist leaves out."""


class ExternalService:
    """A broker that runs already."""

    def __init__(self, host, port):
        self.host = host
        self.port = port

    def open(self):
        """Nothing to start."""

    def close(self):
        """Nothing to stop."""


class SpawnedService:
    """Never used with an external broker."""
