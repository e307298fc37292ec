//! Killing the shim of a container.

#![allow(dead_code)] // each test binary uses its part

use super::Instance;

const SHIMS: &str = "pidof containerd-shim-longshore-v2 || true";

fn id(vm: &Instance, container: &str) -> String {
    vm.docker(&["inspect", "-f", "{{.Id}}", container])
}

/// `kill -9`; false when it had ended by itself.
pub fn kill_shim(vm: &Instance, container: &str) -> bool {
    let id = id(vm, container);
    let script = format!(
        "for p in $({SHIMS}); do if grep -q {id} /proc/$p/cmdline; then kill -9 $p; echo $p; fi; done 2>/dev/null; true"
    );
    !vm.guest(&script).is_empty()
}

/// Waits for the first process of a container's shim, be it the one that starts it, and kills all of them so many milliseconds
/// later; whether there were any.
pub fn kill_starting_shim(vm: &Instance, container: &str, delay: u64) -> bool {
    let id = id(vm, container);
    let find = format!("for p in $({SHIMS}); do grep -q {id} /proc/$p/cmdline && echo $p; done");
    let script = format!(
        "find() {{ {find}; }} 2>/dev/null; n=0; \
         while [ -z \"$(find)\" ] && [ $n -lt 300 ]; do sleep 0.02; n=$((n+1)); done; sleep {}.{:03}; \
         while found=$(find); [ -n \"$found\" ]; do kill -9 $found; echo $found; done; true",
        delay / 1000,
        delay % 1000
    );
    !vm.guest(&script).is_empty()
}

/// Removes a container; what is left of it in the guest, a line each: its shims, and the processes in its cgroup.
pub fn remove(vm: &Instance, container: &str) -> String {
    let id = id(vm, container);
    vm.docker(&["rm", "-f", "-v", container]);
    vm.guest(&format!(
        "for p in $({SHIMS}); do if grep -q {id} /proc/$p/cmdline; then echo shim $p; fi; done 2>/dev/null; \
         grep -l {id} /proc/[0-9]*/cgroup 2>/dev/null; true"
    ))
}
