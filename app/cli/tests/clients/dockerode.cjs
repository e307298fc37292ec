// dockerode against one engine: dockerode.cjs REGISTRY, with DOCKER_HOST set and NODE_PATH at it. REGISTRY has busybox:1.
const assert = require('node:assert');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { PassThrough } = require('node:stream');
const { buffer, text } = require('node:stream/consumers');
const { once } = require('node:events');
const Docker = require('dockerode');

const registry = process.argv[2];
const Image = `${registry}/busybox:1`;
const docker = new Docker();

/** All messages of a pull, push or build. */
const finished = (stream) =>
  new Promise((resolve, reject) => docker.modem.followProgress(stream, (error, lines) => (error ? reject(error) : resolve(lines))));

/** What a container or exec says on its two outputs. */
async function separated(stream) {
  const [out, err] = [new PassThrough(), new PassThrough()];
  docker.modem.demuxStream(stream, out, err);
  stream.on('end', () => [out, err].forEach((side) => side.end()));
  return Promise.all([text(out), text(err)]);
}

async function images() {
  const lines = await finished(await docker.pull(Image));
  assert(lines.some((line) => line.status?.startsWith('Status: Downloaded newer image')), JSON.stringify(lines));
  const told = await docker.getImage(Image).distribution();
  assert.deepStrictEqual(told.Platforms, [{ architecture: 'amd64', os: 'linux' }]);
  await assert.rejects(docker.getImage('dockerode:nothing').inspect(), { statusCode: 404 });
}

async function running() {
  const said = new PassThrough();
  const collected = text(said);
  const [{ StatusCode }, container] = await docker.run(Image, ['sh', '-c', 'echo out; exit 3'], said);
  assert.strictEqual(StatusCode, 3);
  assert.match(await collected, /out/);
  await container.remove();
}

async function living() {
  const container = await docker.createContainer({ Image, Cmd: ['sh', '-c', 'echo up; exec sleep 1000'], name: 'living' });
  await container.start();
  const log = await container.logs({ follow: true, stdout: true });
  assert.match(String((await once(log, 'data'))[0]), /up\n$/);
  log.destroy();
  const exec = await container.exec({ Cmd: ['sh', '-c', 'cat; echo err >&2'], AttachStdin: true, AttachStdout: true, AttachStderr: true });
  const stream = await exec.start({ hijack: true, stdin: true });
  const sides = separated(stream);
  stream.end('typed\n');
  assert.deepStrictEqual(await sides, ['typed\n', 'err\n']);
  assert.strictEqual((await exec.inspect()).ExitCode, 0);
  const stats = await container.stats({ stream: false });
  assert(stats.memory_stats.usage > 0);
  await container.stop({ t: 0 });
  await container.remove();
}

async function attached() {
  const container = await docker.createContainer({ Image, Cmd: ['cat'], OpenStdin: true, StdinOnce: true });
  const stream = await container.attach({ stream: true, hijack: true, stdin: true, stdout: true, stderr: true });
  await container.start();
  const sides = separated(stream);
  stream.end('through the socket\n');
  assert.deepStrictEqual(await sides, ['through the socket\n', '']);
  await container.wait();
  await container.remove();
}

async function events() {
  const stream = await docker.getEvents({ filters: { container: ['watched'] } });
  const container = await docker.createContainer({ Image, Cmd: ['true'], name: 'watched' });
  await container.start();
  await container.wait();
  await container.remove();
  let [rest, actions] = ['', []];
  for await (const chunk of stream) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop();
    actions.push(...lines.map((line) => JSON.parse(line).Action));
    if (actions.includes('destroy')) break;
  }
  assert.deepStrictEqual(actions, ['create', 'start', 'die', 'destroy']);
}

async function files() {
  const volume = await docker.createVolume({ Name: 'kept' });
  const HostConfig = { Binds: ['kept:/data'] };
  const container = await docker.createContainer({ Image, Cmd: ['cat', '/data/hosts'], HostConfig });
  const other = await docker.createContainer({ Image });
  const archive = await buffer(await other.getArchive({ path: '/etc/passwd' }));
  await container.putArchive(archive, { path: '/data' });
  const back = await buffer(await container.getArchive({ path: '/data/passwd' }));
  assert.match(back.toString(), /root:x:0:0/);
  await Promise.all([container.remove(), other.remove()]);
  await volume.remove();
}

async function networks() {
  const network = await docker.createNetwork({ Name: 'dockerode-net', EnableIPv6: true });
  const server = await docker.createContainer({ Image, Cmd: ['sleep', '1000'] });
  await server.start();
  await network.connect({ Container: server.id, EndpointConfig: { Aliases: ['service'] } });
  const HostConfig = { NetworkMode: 'dockerode-net', AutoRemove: true };
  const [{ StatusCode }] = await docker.run(Image, ['ping', '-c1', '-W5', 'service'], new PassThrough(), { HostConfig });
  assert.strictEqual(StatusCode, 0);
  await server.remove({ force: true });
  await network.remove();
}

async function building() {
  const context = fs.mkdtempSync(path.join(os.tmpdir(), 'dockerode-'));
  fs.writeFileSync(path.join(context, 'Dockerfile'), `FROM ${Image}\nCOPY file /file\nCMD cat /file\n`);
  fs.writeFileSync(path.join(context, 'file'), 'copied\n');
  const lines = await finished(await docker.buildImage({ context, src: ['Dockerfile', 'file'] }, { t: `${registry}/node-built:1` }));
  assert(lines.some((line) => line.stream?.startsWith('Successfully tagged')), JSON.stringify(lines));
  fs.rmSync(context, { recursive: true });
  const pushed = await finished(await docker.getImage(`${registry}/node-built:1`).push({ authconfig: {} }));
  assert(pushed.some((line) => line.status?.includes('digest: sha256:')), JSON.stringify(pushed));
}

async function main() {
  assert.strictEqual(String(await docker.ping()), 'OK');
  for (const scenario of [images, running, living, attached, events, files, networks, building]) {
    await scenario();
    console.log(`${scenario.name}: fine`);
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
