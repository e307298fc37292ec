"""Testcontainers for Python with its reaper, RYUK_CONTAINER_IMAGE: leaves a container and ends without a word, with DOCKER_HOST set."""

import os

os.environ["TESTCONTAINERS_HOST_OVERRIDE"] = "localhost"
os.environ["TESTCONTAINERS_CONNECTION_MODE"] = "docker_host"

from testcontainers.core import container  # noqa: E402 (reads the environment)
from testcontainers.core.config import testcontainers_config  # noqa: E402
from testcontainers.core.container import DockerContainer  # noqa: E402
from testcontainers.core.wait_strategies import LogMessageWaitStrategy  # noqa: E402


class Patient(DockerContainer):
    """Testcontainers connects to its reaper without waiting for it, and the stand-in, in Python, starts slower than the real one."""

    def start(self):
        if self.image == testcontainers_config.ryuk_image:
            self.waiting_for(LogMessageWaitStrategy("Started!"))
        return super().start()


container.DockerContainer = Patient

left = DockerContainer("busybox").with_command(["sh", "-c", "echo ready; exec sleep 1000"]).with_name("left")
left.waiting_for(LogMessageWaitStrategy("ready")).start()
left.reload()
assert left.status == "running", left.status
print("left a running container", flush=True)
# Not even what runs at an exit tidies up.
os._exit(0)
