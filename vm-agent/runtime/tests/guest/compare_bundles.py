#!/usr/bin/env python3
"""Runs the same OCI bundles under runc and under longshore-runtime and shows what differs.

In a guest (or any cgroup v2 machine, as root) with runc, busybox-static and python3:
    python3 compare_bundles.py /path/to/longshore-runtime [NAME,NAME...]
Quicker than compare-with-runc.sh, which does the same through Docker's engine. Exits 1 when a
bundle's exit code or output differs beyond what must (see `normalize`).
"""
import array
import copy
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile

RUNTIME = sys.argv[1]
ONLY = sys.argv[2].split(",") if len(sys.argv) > 2 else None
WORK = tempfile.mkdtemp()
os.chmod(WORK, 0o755)  # the root of a user namespace is a stranger to it
ROOTFS = os.path.join(WORK, "rootfs")
FAILED = []
CAPS = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_MKNOD", "CAP_NET_RAW"]
STATUS = 'grep -E "^(Cap|NoNewPrivs|Seccomp|Groups|Uid|Gid)" /proc/self/status'


def wanted(name):
    return ONLY is None or name in ONLY


def make_rootfs():
    for name in ["bin", "proc", "dev", "sys", "etc", "tmp", "full"]:
        os.makedirs(os.path.join(ROOTFS, name))
    shutil.copy(shutil.which("busybox"), os.path.join(ROOTFS, "bin/busybox"))
    for applet in subprocess.check_output(["busybox", "--list"], text=True).split():
        if applet != "busybox":
            os.symlink("busybox", os.path.join(ROOTFS, "bin", applet))
    files = {
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
        "full/file": "kept\n",
        "tmp/bad-interpreter": "#!/bin/nothing\n",
        "tmp/no-format": "no header\n",
    }
    for path, text in files.items():
        with open(os.path.join(ROOTFS, path), "w") as file:
            file.write(text)
    os.chmod(os.path.join(ROOTFS, "tmp/bad-interpreter"), 0o755)
    os.chmod(os.path.join(ROOTFS, "tmp/no-format"), 0o755)
    os.symlink("/run/missing/resolv.conf", os.path.join(ROOTFS, "etc/resolv.conf"))


def base_spec():
    subprocess.check_call(["runc", "spec"], cwd=WORK)
    with open(os.path.join(WORK, "config.json")) as file:
        spec = json.load(file)
    spec["process"]["terminal"] = False
    spec["process"]["noNewPrivileges"] = False
    spec["root"]["readonly"] = False
    for kind in ["bounding", "effective", "permitted"]:
        spec["process"]["capabilities"][kind] = CAPS
    spec["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    return spec


def normalize(text):
    text = text.replace("longshore-runtime", "runc").replace(WORK, "WORK")
    text = re.sub(r'time="[^"]*" level=\w+ msg="?|"$', "", text, flags=re.M)
    text = text.replace('\\"', '"')
    text = re.sub(r"(nosuid,)?(no(dev|exec),)*size=\d+k,(nr_inodes=\d+,)?mode=755", "DEV", text)
    # The mask over a file is the null device of the host's /dev or of the container's.
    return re.sub(r"^\S+ (/proc/\S+) (dev)?tmpfs (rw,\S+) 0 0$", r"mask \1", text, flags=re.M)


def run(program, ident, spec, extra=(), stdin=""):
    bundle = os.path.join(WORK, "bundle")
    os.makedirs(bundle, exist_ok=True)
    with open(os.path.join(bundle, "config.json"), "w") as file:
        json.dump(spec, file)
    result = subprocess.run(
        [program, "run", "--bundle", bundle, *extra, ident],
        input=stdin, capture_output=True, text=True, timeout=60,
    )
    return normalize(f"{result.stdout}{result.stderr}exit {result.returncode}\n")


def judge(name, one, other):
    if one == other:
        print("same   ", name, flush=True)
        return
    FAILED.append(name)
    print("DIFFERS", name)
    import difflib
    for line in difflib.unified_diff(one.splitlines(), other.splitlines(), "runc", "ours", lineterm="", n=1):
        print("   ", line)
    sys.stdout.flush()


def same(name, change, stdin=""):
    if not wanted(name):
        return
    spec = copy.deepcopy(BASE)
    spec["root"]["path"] = ROOTFS
    change(spec)
    outputs = [run(program, f"cmp-{os.getpid()}", spec, stdin=stdin) for program in ("runc", RUNTIME)]
    judge(name, *outputs)


def args(*words, **process):
    def change(spec):
        spec["process"]["args"] = list(words)
        spec["process"].update(process)
    return change


def sh(script, **process):
    return args("sh", "-c", script, **process)


def with_linux(script, **linux):
    def change(spec):
        sh(script)(spec)
        for key, value in linux.items():
            if key == "resources":
                value = {**spec["linux"]["resources"], **value}
            spec["linux"][key] = value
    return change


def with_mount(script, *mounts):
    def change(spec):
        sh(script)(spec)
        spec["mounts"] += [
            {"destination": d, "type": t, "source": s, "options": o} for d, t, s, o in mounts
        ]
    return change


def without_namespaces(script, *kinds):
    def change(spec):
        sh(script)(spec)
        spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] not in kinds]
        if "uts" in kinds:
            spec.pop("hostname")
    return change


def user_namespace(script):
    def change(spec):
        sh(script)(spec)
        spec["linux"]["namespaces"].append({"type": "user"})
        for key in ["uidMappings", "gidMappings"]:
            spec["linux"][key] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    return change


def seccomp(script, syscalls, default="SCMP_ACT_ERRNO", nnp=False):
    def change(spec):
        sh(script, noNewPrivileges=nnp)(spec)
        spec["linux"]["seccomp"] = {
            "defaultAction": default,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": syscalls,
        }
    return change


def hooks(spec):
    sh("echo in container")(spec)
    log = os.path.join(WORK, "hooks")
    def hook(kind):
        # Only what both must agree on: the status. runc says "created" after the start too, where the specification wants "running".
        if kind == "poststart":
            return [{"path": "/bin/sh", "args": ["sh", "-c", f"echo {kind} >> {log}"]}]
        script = f"read state; echo {kind} $(echo $state | grep -o '\"status\":\"[a-z]*\"') >> /proc/self/fd/9 2>/dev/null || echo {kind} >> {log}"
        return [{"path": "/bin/sh", "args": ["sh", "-c", script.replace("/proc/self/fd/9", log)]}]
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]:
        spec.setdefault("hooks", {})[kind] = hook(kind)


LIMITS = ("cd /sys/fs/cgroup && for f in memory.max memory.swap.max memory.low cpu.max cpu.weight "
          "cpu.max.burst pids.max cpuset.cpus cpuset.mems io.max; do echo $f $(cat $f 2>&1); done")
MOUNTS = "cut -d' ' -f1- /proc/mounts | grep -v ' / '"


def cases():
    same("identity", sh(f"id; {STATUS}; hostname; pwd; umask; ulimit -a"))
    same("environment", args("env", env=["PATH=/bin", "A=1", "A=2"], cwd="/tmp"))
    same("mounts", sh(MOUNTS))
    same("devices", sh("ls -l /dev | sed -E 's/ [A-Z][a-z]+ +[0-9]+ [0-9:]+ / /'; echo x > /dev/full; mknod /tmp/b b 8 0; cat /tmp/b; rm /tmp/b"))
    same("masks", sh("head -c1 /proc/kcore | wc -c; ls /sys/firmware /proc/acpi; echo 1 > /proc/sys/kernel/x; touch /sys/x; echo h > /proc/sysrq-trigger"))
    same("exit code", sh("exit 42"))
    same("killed", sh("kill -9 $$"))
    same("stdin", args("cat"), stdin="hello\n")
    same("missing command", args("nosuchcommand"))
    same("missing path", args("/no/such/path"))
    same("not executable", args("/etc/passwd"))
    same("directory", args("/etc"))
    same("bad interpreter", args("/tmp/bad-interpreter"))
    same("no format", args("/tmp/no-format"))
    same("missing cwd is made", args("pwd", cwd="/no/such"))
    same("cwd is a file", args("pwd", cwd="/etc/passwd"))
    same("cwd through a descriptor", args("pwd", cwd="/proc/self/fd/8"))
    same("no path", args("true", env=["A=b"]))
    same("relative path", args("./busybox", "true", cwd="/bin"))
    same("user", args("sh", "-c", f"id; {STATUS}; echo $HOME; touch /x", user={"uid": 1000, "gid": 1000, "additionalGids": [5, 6], "umask": 63}))
    same("ambient", sh(STATUS, user={"uid": 1000, "gid": 1000}, capabilities={k: CAPS for k in ["bounding", "effective", "permitted", "inheritable", "ambient"]}))
    same("no new privileges", sh(STATUS, noNewPrivileges=True))
    same("oom score", sh("cat /proc/self/oom_score_adj", oomScoreAdj=500))
    same("rlimits", sh("ulimit -n; ulimit -Hn; ulimit -c", rlimits=[{"type": "RLIMIT_NOFILE", "soft": 123, "hard": 456}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]))
    same("bad rlimit", sh("true", rlimits=[{"type": "RLIMIT_X", "soft": 1, "hard": 1}]))
    same("read-only", lambda spec: (sh("touch /x; touch /dev/shm/x")(spec), spec["root"].update(readonly=True)))
    same("limits", with_linux(LIMITS, resources={"memory": {"limit": 67108864, "swap": 134217728, "reservation": 33554432}, "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0", "mems": "0"}, "pids": {"limit": 77}}))
    same("shares", with_linux(LIMITS, resources={"cpu": {"shares": 1024}}))
    same("more shares", with_linux(LIMITS, resources={"cpu": {"shares": 4096}}))
    same("unlimited", with_linux(LIMITS, resources={"memory": {"limit": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}}))
    same("unified", with_linux("cat /sys/fs/cgroup/memory.high", resources={"unified": {"memory.high": "1048576000"}}))
    same("io", with_linux(LIMITS, resources={"blockIO": {"throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1048576}]}}))
    same("swap without memory", with_linux("true", resources={"memory": {"swap": 1048576}}))
    same("pids bite", with_linux("sleep 1 & sleep 1 & sleep 1 & wait", resources={"pids": {"limit": 3}}))
    same("device rules", with_linux("mknod /tmp/n c 1 11; head -c0 /tmp/n; rm /tmp/n; head -c0 /dev/kmsg", devices=[{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 432, "uid": 7, "gid": 8}], resources={"devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rm"}]}))
    same("sysctl", with_linux("cat /proc/sys/net/ipv4/ip_forward", sysctl={"net.ipv4.ip_forward": "1"}))
    same("tmpfs", with_mount(f"touch /t/x; {MOUNTS} | grep ' /t '; stat -c %a /t", ("/t", "tmpfs", "tmpfs", ["nosuid", "size=1m", "mode=1770"])))
    same("tmpfs read-only", with_mount("touch /t/x", ("/t", "tmpfs", "tmpfs", ["ro"])))
    same("tmpfs copy up", with_mount("ls -l /full | cut -c1-10; cat /full/file", ("/full", "tmpfs", "tmpfs", ["tmpcopyup"])))
    same("bind", with_mount("cat /v/file; touch /v/x; rm /v/x", ("/v", "bind", f"{ROOTFS}/full", ["rbind", "rprivate"])))
    same("bind read-only", with_mount(f"cat /v/file; touch /v/x; {MOUNTS} | grep ' /v '", ("/v", "bind", f"{ROOTFS}/full", ["rbind", "ro", "nosuid"])))
    same("bind recursively read-only", with_mount(f"touch /v/x; {MOUNTS} | grep ' /v '", ("/v", "bind", f"{ROOTFS}/full", ["rbind", "rro"])))
    same("bind a file over a dangling link", with_mount("cat /etc/resolv.conf; ls /run/missing", ("/etc/resolv.conf", "bind", f"{ROOTFS}/full/file", ["rbind"])))
    same("propagation", with_mount("grep -o ' /v .* - ' /proc/self/mountinfo | sed -E 's/:[0-9]+/:N/g'", ("/v", "bind", f"{ROOTFS}/full", ["rbind", "rslave"])))
    same("host pid", without_namespaces("test $$ -gt 50 && echo big", "pid"))
    same("host network", without_namespaces("ls /sys/class/net", "network"))
    same("host ipc", without_namespaces("echo ok", "ipc"))
    same("host uts", without_namespaces("hostname", "uts"))
    same("host cgroup", without_namespaces("cut -d/ -f2 /proc/self/cgroup | sed s/-.*//; ls -d /sys/fs/cgroup/cgroup.procs; grep cgroup /proc/mounts", "cgroup"))
    same("joined network", lambda spec: (sh("ls /sys/class/net; readlink /proc/self/ns/net")(spec), spec["linux"].update(namespaces=[{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "network", "path": "/proc/1/ns/net"}])))
    same("joined pid", lambda spec: (sh("test $$ -gt 50 && echo big")(spec), spec["linux"].update(namespaces=[{"type": "mount"}, {"type": "uts"}, {"type": "pid", "path": "/proc/1/ns/pid"}])))
    same("user namespace", user_namespace(f"id; cat /proc/self/uid_map; {STATUS}; ls -ln /dev/null | cut -c1-30; touch /tmp/userns; echo x > /dev/null"))
    same("time namespace", with_linux("cut -d' ' -f1 /proc/uptime | cut -c1-3", namespaces=BASE["linux"]["namespaces"] + [{"type": "time"}], timeOffsets={"boottime": {"secs": 900000000}}))
    same("seccomp", seccomp(f"{STATUS}; mkdir /tmp/d; chmod 700 /tmp; echo $?", [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}, {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO"}], default="SCMP_ACT_ALLOW"))
    same("seccomp with no new privileges", seccomp(f"{STATUS}; mkdir /tmp/d", [{"names": ["mkdir"], "action": "SCMP_ACT_KILL_PROCESS"}], default="SCMP_ACT_ALLOW", nnp=True))
    same("seccomp mistake", seccomp("true", [{"names": ["mkdir"], "action": "SCMP_ACT_NOSUCH"}]))
    same("missing bind source", with_mount("true", ("/v", "bind", "/no/such/source", ["rbind"])))
    same("hostname", lambda spec: (sh("hostname; cat /proc/sys/kernel/domainname")(spec), spec.update(hostname="h", domainname="d")))
    same("shared root", with_linux("grep -c shared /proc/self/mountinfo", rootfsPropagation="rshared"))
    log = os.path.join(WORK, "hooks")
    if wanted("hooks"):
        results = []
        for program in ("runc", RUNTIME):
            open(log, "w").close()
            spec = copy.deepcopy(BASE)
            spec["root"]["path"] = ROOTFS
            hooks(spec)
            output = run(program, "cmp-hooks", spec)
            with open(log) as file:
                results.append(output + file.read())
        judge("hooks", *results)


def receive_terminal(listener):
    connection, _ = listener.accept()
    _, control, _, _ = connection.recvmsg(256, socket.CMSG_SPACE(4))
    fds = array.array("i")
    fds.frombytes(control[0][2][:4])
    return fds[0]


def read_all(master):
    output = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:
            return output.decode()
        if not part:
            return output.decode()
        output += part


def reap(pid_file):
    """The exit code of a process of the container: an orphan of ours (we are its subreaper). As long as nobody has reaped the others,
    the first one cannot end."""
    with open(pid_file) as file:
        _, status = os.waitpid(int(file.read()), 0)
    return os.waitstatus_to_exitcode(status)


def life(program):
    """create, state, start, exec, pause, update, kill, delete, with terminals."""
    ident = f"life-{os.getpid()}"
    bundle = os.path.join(WORK, "bundle")
    os.makedirs(bundle, exist_ok=True)
    spec = copy.deepcopy(BASE)
    spec["root"]["path"] = ROOTFS
    args("sh", "-c", "trap 'exit 7' TERM; tty; stty size; ls -l /dev/console | cut -c1-10; while :; do sleep 0.1; done", terminal=True, consoleSize={"height": 33, "width": 77})(spec)
    with open(os.path.join(bundle, "config.json"), "w") as file:
        json.dump(spec, file)
    path = os.path.join(WORK, "console.sock")
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    out = []

    def call(*words, stdin=""):
        result = subprocess.run([program, *words], input=stdin, capture_output=True, text=True, timeout=60)
        text = re.sub(r'"(pid|created|rootfs|owner|bundle)": .*', r"\1", result.stdout)
        text = re.sub(r"^\[[\d,]+\]$", "pids", text, flags=re.M)
        out.append(f"$ {words[0]} {words[-1] if words[-1] != ident else ''}: {text}{normalize(result.stderr)}{result.returncode}")

    pid_file = os.path.join(WORK, "pid")
    subprocess.run([program, "create", "--bundle", bundle, "--console-socket", path, "--pid-file", pid_file, ident], timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    master = receive_terminal(listener)
    call("state", ident)
    call("create", "--bundle", bundle, "--console-socket", path, ident)
    call("start", ident)
    call("start", ident)
    call("delete", ident)
    call("ps", "--format", "json", ident)
    call("exec", ident, "sh", "-c", "id; cat /proc/self/cgroup; exit 5")
    call("exec", "--user", "1000:1000", "--cwd", "/tmp", "--env", "X=y", ident, "env")
    call("exec", ident, "nosuchcommand")
    call("exec", ident, "/etc/passwd")
    call("exec", "--cwd", "/no/such", ident, "true")
    exec_pid_file = os.path.join(WORK, "exec-pid")
    subprocess.run([program, "exec", "--detach", "--tty", "--console-socket", path, "--pid-file", exec_pid_file, ident, "tty"], timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    second = receive_terminal(listener)
    out.append(f"exec terminal: {read_all(second)}code {reap(exec_pid_file)}")
    call("pause", ident)
    call("state", ident)
    call("exec", ident, "true")
    call("resume", ident)
    call("update", "--resources", "-", ident, stdin='{"memory":{"limit":67108864},"pids":{"limit":50}}')
    call("exec", ident, "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max")
    call("kill", ident, "TERM")
    out.append("terminal: " + read_all(master))
    out.append(f"code {reap(pid_file)}")
    call("state", ident)
    call("kill", ident, "KILL")
    call("exec", ident, "true")
    call("delete", ident)
    call("state", ident)
    call("delete", "--force", ident)
    return normalize("\n".join(out) + "\n")


import ctypes
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
try:
    make_rootfs()
    BASE = base_spec()
    cases()
    if wanted("life"):
        judge("life", life("runc"), life(RUNTIME))
finally:
    shutil.rmtree(WORK, ignore_errors=True)
print(f"{len(FAILED)} differ")
sys.exit(1 if FAILED else 0)
