// Testcontainers for Node, its reaper off: testcontainers_node.cjs REGISTRY, with DOCKER_HOST set. REGISTRY has busybox:1.

process.env.TESTCONTAINERS_RYUK_DISABLED = "true";
process.env.TESTCONTAINERS_HOST_OVERRIDE = "localhost";

const assert = require("node:assert");
const { GenericContainer, Network, Wait } = require("testcontainers");

const IMAGE = `${process.argv[2]}/busybox:1`;
const SERVE = "mkdir /www; echo served > /www/index.html; echo ready; exec httpd -f -p 8080 -h /www";

const web = () => new GenericContainer(IMAGE).withCommand(["sh", "-c", SERVE]).withExposedPorts(8080);

async function http() {
  const server = await web().withWaitStrategy(Wait.forHttp("/", 8080)).start();
  const answer = await fetch(`http://${server.getHost()}:${server.getMappedPort(8080)}/`);
  assert.strictEqual(await answer.text(), "served\n");
  await server.stop();
}

async function logsAndExec() {
  const server = await web()
    .withWaitStrategy(Wait.forLogMessage("ready"))
    .withCopyContentToContainer([{ content: "copied", target: "/copied" }])
    .withEnvironment({ GREETING: "hello" })
    .start();
  const { exitCode, output } = await server.exec(["sh", "-c", "cat /copied; echo $GREETING"]);
  assert.deepStrictEqual([exitCode, output], [0, "copiedhello\n"]);
  const lines = [];
  // Testcontainers lets Node end while it waits for a log: something else has to hold it.
  const holding = setInterval(() => {}, 1000);
  for await (const line of await server.logs()) {
    lines.push(String(line));
    if (lines.join("").includes("ready")) break;
  }
  clearInterval(holding);
  await server.restart();
  assert.strictEqual((await server.exec("cat /copied")).output, "copied");
  await server.stop();
}

async function network() {
  const network = await new Network().start();
  const server = await web()
    .withNetwork(network)
    .withNetworkAliases("web")
    .withWaitStrategy(Wait.forLogMessage("ready"))
    .start();
  const client = await new GenericContainer(IMAGE)
    .withCommand(["sh", "-c", "wget -q -O- http://web:8080/ && sleep 1000"])
    .withNetwork(network)
    .withWaitStrategy(Wait.forLogMessage("served"))
    .start();
  await client.stop();
  await server.stop();
  await network.stop();
}

async function main() {
  // Node ends quietly when it waits for what never comes.
  process.exitCode = 1;
  for (const part of [http, logsAndExec, network]) {
    await part();
    console.log(`${part.name}: fine`);
  }
  process.exitCode = 0;
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
