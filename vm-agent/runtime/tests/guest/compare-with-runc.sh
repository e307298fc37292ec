#!/bin/sh
# Runs the same `docker` commands under runc and under longshore-runtime and shows what differs.
#
# In a guest (or any cgroup v2 machine, as root) with Docker's engine, runc and busybox:
#   sh compare-with-runc.sh /path/to/longshore-runtime
# It registers the runtime with a dockerd of its own and exits 1 when any command's exit code or
# output differs. Differences that must be (process numbers, IDs, times) are filtered out.
set -u
runtime=${1:?usage: compare-with-runc.sh RUNTIME}
work=$(mktemp -d)
export DOCKER_HOST=unix://$work/docker.sock
failed=0

start_engine() {
    cat > "$work/daemon.json" <<EOF
{"runtimes": {"longshore": {"path": "$runtime"}}, "features": {"containerd-snapshotter": false}}
EOF
    dockerd --config-file "$work/daemon.json" -H "$DOCKER_HOST" --data-root "$work/data" \
        --exec-root "$work/exec" --pidfile "$work/pid" --bridge=none --iptables=false --ip6tables=false \
        > "$work/dockerd.log" 2>&1 &
    engine=$!
    timeout 90 sh -c 'until docker version > /dev/null 2>&1; do sleep 0.5; done' || {
        tail -5 "$work/dockerd.log"
        exit 1
    }
}

stop_engine() {
    kill "$engine" 2> /dev/null
    wait "$engine" 2> /dev/null
    umount -R "$work"/exec/netns/* "$work"/data/* 2> /dev/null
    rm -rf "$work"
}

make_image() {
    mkdir -p "$work/image/bin" "$work/image/etc" "$work/image/tmp" "$work/image/full"
    cp "$(command -v busybox)" "$work/image/bin/busybox"
    for applet in $(busybox --list); do
        ln -sf busybox "$work/image/bin/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' > "$work/image/etc/passwd"
    echo 'user:x:1000:1000::/home/user:/bin/sh' >> "$work/image/etc/passwd"
    echo 'root:x:0:' > "$work/image/etc/group"
    echo kept > "$work/image/full/file"
    echo '#!/bin/nothing' > "$work/image/tmp/bad-interpreter"
    echo 'no header' > "$work/image/tmp/no-format"
    chmod 755 "$work/image/tmp/bad-interpreter" "$work/image/tmp/no-format"
    tar -C "$work/image" -c . | docker import - box > /dev/null
}

# What differs from run to run, not from runtime to runtime.
normalize() {
    sed -E -e 's/longshore-runtime/runc/g' -e 's/[0-9a-f]{64}/ID/g' -e 's/cid-[a-z]+/CID/g' \
        -e "s#$work#WORK#g" -e 's/(pid|ppid)=[0-9]+/\1=N/g'
}

# same NAME ARGS...: `docker run` with the arguments under both runtimes.
same() {
    name=$1
    shift
    for one in runc longshore; do
        timeout 60 docker run --rm --net=none --runtime=$one "$@" > "$work/out.$one" 2>&1 < /dev/null
        echo "exit $?" >> "$work/out.$one"
        normalize < "$work/out.$one" > "$work/norm.$one"
    done
    judge "$name"
}

# same_exec NAME ARGS...: `docker exec` with the arguments in a container of each runtime.
same_exec() {
    name=$1
    shift
    for one in runc longshore; do
        timeout 60 docker exec "$@" > "$work/out.$one" 2>&1 < /dev/null
        echo "exit $?" >> "$work/out.$one"
        normalize < "$work/out.$one" > "$work/norm.$one"
        # The container's name comes last before the command: swap it for the second turn.
        set -- $(printf '%s\n' "$@" | sed 's/^cid-runc$/cid-longshore/')
    done
    judge "$name"
}

judge() {
    if diff -u "$work/norm.runc" "$work/norm.longshore" > "$work/diff"; then
        echo "same    $1"
    else
        echo "DIFFERS $1"
        cat "$work/diff"
        failed=1
    fi
}

status='grep -E "^(Cap|NoNewPrivs|Seccomp)" /proc/self/status'
limits='cd /sys/fs/cgroup && for f in memory.max memory.swap.max memory.low cpu.max cpu.weight pids.max cpuset.cpus; do echo $f $(cat $f); done'
mounts="cut -d' ' -f2- /proc/mounts | sed -E 's/[a-z]*dir=[^, ]*//g; s/size=[0-9]+k,nr_inodes=[0-9]+,//; s/,?mode=755//; s/,?size=65536k//; s/,nosuid//' | grep -vE '/(kcore|keys|timer_list|latency_stats|sched_debug|interrupts) '"

cases() {
    same 'identity' box sh -c "id; $status; hostname | wc -c; pwd; umask; ulimit -a"
    same 'environment' -e A=b -w /tmp box env
    same 'mounts' box sh -c "$mounts"
    same 'devices' box sh -c "ls -l /dev | sed -E 's/ [A-Z][a-z]+ +[0-9]+ [0-9:]+ / /'; ls -ld /dev/pts /dev/shm | cut -c1-10"
    same 'default devices work' box sh -c 'echo x > /dev/null; head -c 4 /dev/zero | wc -c; echo x > /dev/full; mknod /tmp/b b 8 0; cat /tmp/b'
    same 'masked and read-only paths' box sh -c 'head -c1 /proc/kcore | wc -c; ls /sys/firmware /proc/acpi /proc/scsi; echo 1 > /proc/sys/kernel/x; echo 1 > /proc/sysrq-trigger; touch /sys/x'
    same 'exit code' box sh -c 'exit 42'
    same 'killed' box sh -c 'kill -9 $$'
    same 'missing command' box nosuchcommand
    same 'missing path' box /no/such/path
    same 'not executable' box /etc/passwd
    same 'directory' box /etc
    same 'bad interpreter' box /tmp/bad-interpreter
    same 'no format' box /tmp/no-format
    same 'missing cwd is made' -w /no/such/dir box pwd
    same 'cwd is a file' -w /etc/passwd box pwd
    same 'cpu and memory limits' --cpus 0.5 -m 64m --memory-reservation 32m --cpu-shares 512 --pids-limit 77 --cpuset-cpus 0 box sh -c "$limits"
    same 'swap' -m 64m --memory-swap 128m box sh -c "$limits"
    same 'no swap' -m 64m --memory-swap 64m box sh -c "$limits"
    same 'shares 1024' --cpu-shares 1024 box sh -c "$limits"
    same 'pids limit bites' --pids-limit 3 box sh -c 'sleep 1 & sleep 1 & sleep 1 & wait'
    same 'read-only' --read-only box touch /x
    same 'tmpfs' --read-only --tmpfs /tmp:size=1m,mode=1770 box sh -c 'touch /tmp/x && grep /tmp /proc/mounts && stat -c %a /tmp'
    same 'read-only tmpfs' --tmpfs /t:ro box sh -c 'touch /t/x'
    same 'bind' -v "$work/image/full:/v" box ls /v
    same 'bind read-only' -v "$work/image/full:/v:ro" box sh -c 'cat /v/file; touch /v/x'
    same 'bind propagation' -v "$work/image/full:/v:rslave" box sh -c "grep -o ' /v .* - ' /proc/self/mountinfo | sed -E 's/:[0-9]+/:N/g'"
    same 'volume' -v "vol-x:/full" box sh -c 'ls /full'
    same 'capabilities added' --cap-add NET_ADMIN --cap-drop CHOWN box sh -c "$status"
    same 'capabilities all dropped' --cap-drop ALL box sh -c "$status"
    same 'capabilities all' --cap-add ALL box sh -c "$status"
    same 'privileged' --privileged box sh -c "$status; ls /dev | wc -l; touch /sys/x; cat /proc/self/cgroup; cat /proc/mounts | grep -c ro,"
    same 'user' -u 1000 box sh -c "id; $status; echo \$HOME; touch /x; ls -ln /proc/self/fd/ | cut -c1-10"
    same 'user and groups' -u 1000:2000 --group-add 3000 box id
    same 'unknown user' -u nobodyhere box id
    same 'no new privileges' --security-opt no-new-privileges box sh -c "$status"
    same 'unconfined' --security-opt seccomp=unconfined box sh -c "$status"
    same 'denied calls' box sh -c 'unshare -m true; mount -t tmpfs x /mnt; reboot -f; date -s 2000-01-01 >/dev/null'
    same 'init' --init box sh -c 'cat /proc/1/comm'
    same 'device' --device /dev/vda:/dev/xvda:r box sh -c 'head -c1 /dev/xvda | wc -c; echo x > /dev/xvda; ls -l /dev/xvda | cut -c1-22'
    same 'device rule' --device-cgroup-rule 'c 10:229 rw' box sh -c 'mknod /tmp/f c 10 229; head -c0 /tmp/f; echo $?'
    same 'sysctl' --sysctl net.ipv4.ip_forward=1 --sysctl kernel.shm_rmid_forced=1 box sh -c 'cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced'
    same 'bad sysctl' --sysctl net.ipv4.nosuch=1 box true
    same 'ulimit' --ulimit nofile=123:456 --ulimit core=0 box sh -c 'ulimit -n; ulimit -Hn; ulimit -c'
    same 'host pid' --pid=host box sh -c 'test $$ -gt 50 && echo big; cat /proc/1/comm'
    same 'host ipc' --ipc=host box sh -c 'ls -d /dev/mqueue'
    same 'private ipc' --ipc=private box sh -c 'ls -d /dev/shm; df /dev/shm | tail -1'
    same 'host uts' --uts=host box hostname
    same 'hostname' --hostname h --domainname d box sh -c 'hostname; cat /proc/sys/kernel/domainname'
    same 'host cgroup namespace' --cgroupns=host box sh -c 'cut -d/ -f2 /proc/self/cgroup; ls -d /sys/fs/cgroup/init.scope /sys/fs/cgroup/docker; grep cgroup /proc/mounts'
    same 'private cgroup namespace' box sh -c 'cat /proc/self/cgroup; mkdir /sys/fs/cgroup/x'
    same 'host network' --net=host box sh -c 'ls /sys/class/net'
    same 'loopback' box sh -c 'ifconfig lo | grep -c "inet addr:127.0.0.1"'
    same 'oom score' --oom-score-adj 500 box cat /proc/self/oom_score_adj
    same 'shm size' --shm-size 1m box sh -c 'df -k /dev/shm | tail -1'
    same 'terminal' -t box sh -c 'tty; test -t 1 && echo tty; ls -l /dev/console | cut -c1-10; stty size; ps -o tty,comm'
    same 'memory hog is killed' -m 16m --memory-swap 16m box sh -c 'head -c 64m /dev/zero | tail -c 64m | wc -c'
}

exec_cases() {
    for one in runc longshore; do
        docker run -d --net=none --name cid-$one --runtime=$one -u 1000 -m 64m box sleep 600 > /dev/null
    done
    same_exec 'exec' cid-runc id
    same_exec 'exec: status' cid-runc grep -E '^(Cap|NoNewPrivs|Seccomp|Groups)' /proc/self/status
    same_exec 'exec: privileged' --privileged cid-runc grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status
    same_exec 'exec: user, cwd, env' -u 0 -w /tmp -e A=b cid-runc env
    same_exec 'exec: terminal' -t cid-runc tty
    same_exec 'exec: missing command' cid-runc nosuchcommand
    same_exec 'exec: missing path' cid-runc /no/such
    same_exec 'exec: not executable' cid-runc /etc/passwd
    same_exec 'exec: missing cwd' -w /no/such cid-runc pwd
    same_exec 'exec: code' cid-runc false
    same_exec 'exec: cgroup' cid-runc cat /proc/self/cgroup
    for one in runc longshore; do
        {
            docker pause cid-$one && docker exec cid-$one true
            docker unpause cid-$one && docker inspect -f '{{.State.Status}}' cid-$one
            docker update -m 32m --memory-swap 32m --cpus 0.25 --pids-limit 9 cid-$one
            docker exec cid-$one cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max
            docker top cid-$one -o user,args
            docker kill -s USR1 cid-$one
            docker wait cid-$one
            docker start cid-$one && docker stop -t 1 cid-$one
            docker inspect -f '{{.State.ExitCode}} {{.State.Error}}' cid-$one
            docker rm -f cid-$one
        } > "$work/out.$one" 2>&1
        normalize < "$work/out.$one" > "$work/norm.$one"
    done
    judge 'pause, update, top, kill, stop, rm'
}

trap stop_engine EXIT
start_engine
make_image
cases
exec_cases
exit $failed
