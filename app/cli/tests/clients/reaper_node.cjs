// Testcontainers for Node with its reaper, RYUK_CONTAINER_IMAGE: leaves a container on a network and ends without a word, with DOCKER_HOST set.

process.env.TESTCONTAINERS_HOST_OVERRIDE = "localhost";

const { GenericContainer, Network, Wait } = require("testcontainers");

async function main() {
  // Node ends quietly when it waits for what never comes.
  process.exitCode = 1;
  const network = await new Network().start();
  await new GenericContainer("busybox")
    .withName("left")
    .withCommand(["sh", "-c", "echo ready; exec sleep 1000"])
    .withNetwork(network)
    .withWaitStrategy(Wait.forLogMessage("ready"))
    .start();
  console.log("left a running container");
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
