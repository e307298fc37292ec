//! Thin wrappers of the system calls that std has no name for; nearly all `unsafe` lives here.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{c_char, c_int, c_long, c_void};

use crate::error::Errno;

pub type SysResult<T> = Result<T, Errno>;

pub fn check(ret: c_long) -> SysResult<c_long> {
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}

fn check_int(ret: c_int) -> SysResult<c_int> {
    if ret < 0 { Err(Errno::last()) } else { Ok(ret) }
}

/// A C string; text with a NUL inside is refused as the kernel would refuse a bad path.
pub fn cstring(text: impl AsRef<[u8]>) -> SysResult<CString> {
    CString::new(text.as_ref()).map_err(|_| Errno(libc::EINVAL))
}

fn cpath(path: &Path) -> SysResult<CString> {
    cstring(path.as_os_str().as_bytes())
}

fn own(fd: c_long) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor to us, nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

// ---- files -------------------------------------------------------------------------------

pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
pub const RESOLVE_IN_ROOT: u64 = 0x10;

/// openat2(2): how a path inside a root file system is opened without ever leaving it.
pub fn openat2(
    dir: RawFd,
    path: &Path,
    flags: c_int,
    mode: u32,
    resolve: u64,
) -> SysResult<OwnedFd> {
    let path = cpath(path)?;
    let how: [u64; 3] = [(flags | libc::O_CLOEXEC) as u64, u64::from(mode), resolve];
    // SAFETY: path is NUL-terminated and `how` has the layout and size of struct open_how.
    check(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            dir,
            path.as_ptr(),
            how.as_ptr(),
            size_of_val(&how),
        )
    })
    .map(own)
}

pub fn open(path: &Path, flags: c_int) -> SysResult<OwnedFd> {
    let path = cpath(path)?;
    // SAFETY: path is NUL-terminated.
    check_int(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0) })
        .map(|fd| own(fd.into()))
}

pub fn openat(dir: RawFd, name: &CStr, flags: c_int, mode: u32) -> SysResult<OwnedFd> {
    // SAFETY: name is NUL-terminated.
    check_int(unsafe { libc::openat(dir, name.as_ptr(), flags | libc::O_CLOEXEC, mode) })
        .map(|fd| own(fd.into()))
}

pub fn mkdirat(dir: RawFd, name: &CStr, mode: u32) -> SysResult<()> {
    // SAFETY: name is NUL-terminated.
    check_int(unsafe { libc::mkdirat(dir, name.as_ptr(), mode) }).map(drop)
}

pub fn mknodat(dir: RawFd, name: &CStr, mode: u32, device: u64) -> SysResult<()> {
    // SAFETY: name is NUL-terminated.
    check_int(unsafe { libc::mknodat(dir, name.as_ptr(), mode, device) }).map(drop)
}

pub fn symlinkat(target: &CStr, dir: RawFd, name: &CStr) -> SysResult<()> {
    // SAFETY: both strings are NUL-terminated.
    check_int(unsafe { libc::symlinkat(target.as_ptr(), dir, name.as_ptr()) }).map(drop)
}

pub fn fchownat(dir: RawFd, name: &CStr, uid: u32, gid: u32, flags: c_int) -> SysResult<()> {
    // SAFETY: name is NUL-terminated.
    check_int(unsafe { libc::fchownat(dir, name.as_ptr(), uid, gid, flags) }).map(drop)
}

pub fn fchown(fd: RawFd, uid: u32, gid: u32) -> SysResult<()> {
    // SAFETY: plain integers.
    check_int(unsafe { libc::fchown(fd, uid, gid) }).map(drop)
}

pub fn fchmod(fd: RawFd, mode: u32) -> SysResult<()> {
    // SAFETY: plain integers.
    check_int(unsafe { libc::fchmod(fd, mode) }).map(drop)
}

pub fn fstat(fd: RawFd) -> SysResult<libc::stat> {
    // SAFETY: an all-zero stat is a valid value, and the kernel fills it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: stat is a valid, writable struct stat.
    check_int(unsafe { libc::fstat(fd, &mut stat) })?;
    Ok(stat)
}

pub fn stat(path: &Path) -> SysResult<libc::stat> {
    let path = cpath(path)?;
    // SAFETY: an all-zero stat is a valid value, and the kernel fills it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: path is NUL-terminated, stat is writable.
    check_int(unsafe { libc::stat(path.as_ptr(), &mut stat) })?;
    Ok(stat)
}

/// faccessat2 with the effective identity.
pub fn eaccess(path: &Path, mode: c_int) -> SysResult<()> {
    let path = cpath(path)?;
    // SAFETY: path is NUL-terminated.
    check_int(unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) })
        .map(drop)
}

pub fn mkfifo(path: &Path, mode: u32) -> SysResult<()> {
    let path = cpath(path)?;
    // SAFETY: path is NUL-terminated.
    check_int(unsafe { libc::mkfifo(path.as_ptr(), mode) }).map(drop)
}

pub fn is_read_only(fd: BorrowedFd<'_>) -> SysResult<bool> {
    // SAFETY: an all-zero statvfs is a valid value, and the call fills it.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: stat is writable.
    check_int(unsafe { libc::fstatvfs(fd.as_raw_fd(), &mut stat) })?;
    Ok(stat.f_flag & libc::ST_RDONLY != 0)
}

pub fn lock_exclusive(fd: RawFd) -> SysResult<()> {
    // SAFETY: plain integers.
    check_int(unsafe { libc::flock(fd, libc::LOCK_EX) }).map(drop)
}

pub fn chdir(path: &Path) -> SysResult<()> {
    let path = cpath(path)?;
    // SAFETY: path is NUL-terminated.
    check_int(unsafe { libc::chdir(path.as_ptr()) }).map(drop)
}

pub fn fchdir(fd: RawFd) -> SysResult<()> {
    // SAFETY: plain integer.
    check_int(unsafe { libc::fchdir(fd) }).map(drop)
}

pub fn chroot(path: &CStr) -> SysResult<()> {
    // SAFETY: path is NUL-terminated.
    check_int(unsafe { libc::chroot(path.as_ptr()) }).map(drop)
}

/// The kernel's own answer, which says "(unreachable)" for a directory outside the root.
pub fn getcwd() -> SysResult<Vec<u8>> {
    let mut buffer = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer is writable for its whole length.
    let len = check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    buffer.truncate((len as usize).saturating_sub(1));
    Ok(buffer)
}

pub fn umask(mask: u32) {
    // SAFETY: cannot fail and touches no memory.
    unsafe { libc::umask(mask) };
}

pub fn dup2(from: RawFd, to: RawFd) -> SysResult<()> {
    // SAFETY: plain integers.
    check_int(unsafe { libc::dup2(from, to) }).map(drop)
}

pub fn dup3_cloexec(from: RawFd, to: RawFd) -> SysResult<()> {
    // SAFETY: plain integers.
    check_int(unsafe { libc::dup3(from, to, libc::O_CLOEXEC) }).map(drop)
}

/// F_DUPFD_CLOEXEC: a copy at `lowest` or above.
pub fn dup_at_least(fd: RawFd, lowest: RawFd) -> SysResult<OwnedFd> {
    // SAFETY: plain integers.
    check_int(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, lowest) }).map(|fd| own(fd.into()))
}

const CLOSE_RANGE_CLOEXEC: c_long = 4;

/// Marks every descriptor from `first` on close-on-exec.
pub fn cloexec_from(first: RawFd) {
    // SAFETY: only sets a flag on descriptors. Kernels without close_range ignore it harmlessly.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first as c_long,
            u32::MAX as c_long,
            CLOSE_RANGE_CLOEXEC,
        )
    };
}

/// Closes every descriptor from `first` on.
pub fn close_from(first: RawFd) {
    // SAFETY: the caller is about to execute another program and uses none of them again.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first as c_long,
            u32::MAX as c_long,
            0,
        )
    };
}

// ---- mounts ------------------------------------------------------------------------------

pub fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: u64,
    data: Option<&CStr>,
) -> SysResult<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: every pointer is null or a NUL-terminated string.
    check_int(unsafe {
        libc::mount(
            pointer(source),
            target.as_ptr(),
            pointer(kind),
            flags,
            pointer(data).cast::<c_void>(),
        )
    })
    .map(drop)
}

pub fn umount_detach(target: &CStr) -> SysResult<()> {
    // SAFETY: target is NUL-terminated.
    check_int(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

pub fn pivot_root_here() -> SysResult<()> {
    // SAFETY: both arguments are NUL-terminated literals.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}

pub const OPEN_TREE_CLONE: u32 = 1;
pub const AT_RECURSIVE: u32 = 0x8000;
const AT_EMPTY_PATH: u32 = 0x1000;

/// open_tree(2) of a path (relative to `dir`), or of `dir` itself when the path is empty.
pub fn open_tree(dir: RawFd, path: &CStr, flags: u32) -> SysResult<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC as u32 | if path.is_empty() { AT_EMPTY_PATH } else { 0 };
    // SAFETY: path is NUL-terminated.
    check(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) }).map(own)
}

/// move_mount(2) of the detached mount `from` onto the open directory or file `to`.
pub fn move_mount(from: RawFd, to: RawFd) -> SysResult<()> {
    const F_EMPTY_PATH: u32 = 0x4;
    const T_EMPTY_PATH: u32 = 0x40;
    // SAFETY: both paths are empty NUL-terminated literals.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from,
            c"".as_ptr(),
            to,
            c"".as_ptr(),
            F_EMPTY_PATH | T_EMPTY_PATH,
        )
    })
    .map(drop)
}

#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct MountAttr {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
    pub userns_fd: u64,
}

pub fn mount_setattr(mount: RawFd, recursive: bool, attr: &MountAttr) -> SysResult<()> {
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: attr has the layout and size of struct mount_attr.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount,
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// A new, still detached file system: fsopen, one fsconfig for each option, fsmount.
pub fn new_mount(kind: &CStr, options: &[(&CStr, &CStr)], attr: u64) -> SysResult<OwnedFd> {
    const FSCONFIG_SET_STRING: c_int = 1;
    const FSCONFIG_CMD_CREATE: c_int = 6;
    // SAFETY: kind is NUL-terminated.
    let context = check(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1) }).map(own)?;
    let config = |command: c_int, key: *const c_char, value: *const c_char| {
        // SAFETY: key and value are null or NUL-terminated, as each command wants.
        check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                command,
                key,
                value,
                0,
            )
        })
    };
    for (key, value) in options {
        config(FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr())?;
    }
    config(FSCONFIG_CMD_CREATE, std::ptr::null(), std::ptr::null())?;
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, attr) }).map(own)
}

// ---- processes ---------------------------------------------------------------------------

pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
pub const CLONE_NEWTIME: u64 = 0x80;

pub enum Forked {
    Child,
    Parent { pid: i32 },
}

/// clone3(2) as a fork: a copy of this single-threaded process in new namespaces, already inside
/// the cgroup that `cgroup` is open on (no later migration, which would cost an RCU grace period).
pub fn fork(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> SysResult<Forked> {
    let into = if cgroup.is_some() {
        CLONE_INTO_CGROUP
    } else {
        0
    };
    // With CLONE_PARENT the kernel takes the caller's own exit signal and refuses one here.
    let signal = if flags & libc::CLONE_PARENT as u64 != 0 {
        0
    } else {
        libc::SIGCHLD as u64
    };
    let cgroup = cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size,
    // tls, set_tid, set_tid_size, cgroup.
    let args: [u64; 11] = [flags | into, 0, 0, 0, signal, 0, 0, 0, 0, 0, cgroup];
    // SAFETY: no CLONE_VM, so the child has its own copy of memory; this process has one thread.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) })?;
    Ok(if pid == 0 {
        Forked::Child
    } else {
        Forked::Parent { pid: pid as i32 }
    })
}

pub fn setns(fd: RawFd, kinds: c_int) -> SysResult<()> {
    // SAFETY: plain integers.
    check_int(unsafe { libc::setns(fd, kinds) }).map(drop)
}

pub fn unshare(flags: c_int) -> SysResult<()> {
    // SAFETY: plain integer; the process has one thread.
    check_int(unsafe { libc::unshare(flags) }).map(drop)
}

pub fn pidfd_open(pid: i32) -> SysResult<OwnedFd> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).map(own)
}

pub fn pidfd_send_signal(pidfd: RawFd, signal: i32) -> SysResult<()> {
    // SAFETY: a null siginfo asks for what kill(2) would send.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd,
            signal,
            std::ptr::null::<c_void>(),
            0,
        )
    })
    .map(drop)
}

pub fn kill(pid: i32, signal: i32) -> SysResult<()> {
    // SAFETY: plain integers.
    check_int(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// waitpid(2); returns the shell's form of the status: the code, or 128 plus the signal.
pub fn wait(pid: i32) -> SysResult<i32> {
    let mut status = 0;
    loop {
        // SAFETY: status is writable.
        match check_int(unsafe { libc::waitpid(pid, &mut status, 0) }) {
            Err(Errno(libc::EINTR)) => continue,
            Err(error) => return Err(error),
            Ok(_) if libc::WIFSIGNALED(status) => return Ok(128 + libc::WTERMSIG(status)),
            Ok(_) => return Ok(libc::WEXITSTATUS(status)),
        }
    }
}

pub fn setsid() {
    // SAFETY: touches no memory; failing (already a leader) is as good as success.
    unsafe { libc::setsid() };
}

pub fn prctl(option: c_int, value: u64) -> SysResult<()> {
    // SAFETY: only used with options that take integers.
    check_int(unsafe { libc::prctl(option, value, 0u64, 0u64, 0u64) }).map(drop)
}

pub fn ambient_capability(operation: c_int, capability: u64) -> SysResult<()> {
    // SAFETY: plain integers.
    check_int(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, operation, capability, 0u64, 0u64) })
        .map(drop)
}

pub fn setgroups(groups: &[u32]) -> SysResult<()> {
    // SAFETY: the pointer and the length are those of one slice.
    check_int(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }).map(drop)
}

pub fn set_gid(gid: u32) -> SysResult<()> {
    // SAFETY: plain integers.
    check_int(unsafe { libc::setresgid(gid, gid, gid) }).map(drop)
}

pub fn set_uid(uid: u32) -> SysResult<()> {
    // SAFETY: plain integers.
    check_int(unsafe { libc::setresuid(uid, uid, uid) }).map(drop)
}

/// capset(2), version 3: effective, permitted and inheritable sets as bit masks.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> SysResult<()> {
    let header: [u32; 2] = [0x2008_0522, 0];
    let half = |shift: u32| {
        [
            (effective >> shift) as u32,
            (permitted >> shift) as u32,
            (inheritable >> shift) as u32,
        ]
    };
    let data = [half(0), half(32)];
    // SAFETY: both arrays have the layout of version 3's header and data.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

/// capget(2): the effective set.
pub fn effective_capabilities() -> SysResult<u64> {
    let header: [u32; 2] = [0x2008_0522, 0];
    let mut data = [[0u32; 3]; 2];
    // SAFETY: both arrays have the layout of version 3's header and data.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) })?;
    Ok(u64::from(data[0][0]) | u64::from(data[1][0]) << 32)
}

pub fn prlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> SysResult<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: limit is a valid rlimit64; no old value is asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            &raw const limit,
            std::ptr::null::<u8>(),
        )
    })
    .map(drop)
}

pub fn set_personality(persona: u64) -> SysResult<()> {
    // SAFETY: plain integer.
    check_int(unsafe { libc::personality(persona) }).map(drop)
}

pub fn set_io_priority(value: c_int) -> SysResult<()> {
    const IOPRIO_WHO_PROCESS: c_int = 1;
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// struct sched_attr of sched_setattr(2).
#[repr(C)]
#[derive(Default)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

pub fn sched_setattr(attr: &SchedAttr) -> SysResult<()> {
    // SAFETY: attr carries its own size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attr), 0) })
        .map(drop)
}

/// A session keyring of the process's own, so that it cannot read that of its creator.
pub fn join_session_keyring(name: &CStr) -> SysResult<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    const KEYCTL_SETPERM: c_int = 5;
    const POSSESSOR_ALL_USER_SEARCH: u32 = 0x3f08_0000;
    // SAFETY: name is NUL-terminated.
    let id = check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr())
    })?;
    // SAFETY: plain integers.
    check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_SETPERM,
            id,
            POSSESSOR_ALL_USER_SEARCH,
        )
    })
    .map(drop)
}

/// seccomp(2), SECCOMP_SET_MODE_FILTER; the descriptor is the listener when one was asked for.
pub fn seccomp_set_filter(flags: u64, program: &[libc::sock_filter]) -> SysResult<c_long> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno(libc::E2BIG))?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: filter points at `len` instructions, which the kernel copies.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        )
    })
}

pub fn bpf(command: c_int, attr: &[u8]) -> SysResult<c_long> {
    // SAFETY: attr is a union bpf_attr prefix of the given size; unknown tails are zero.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), attr.len()) })
}

/// What of the standard library's own start-up is needed: a broken pipe is an error, not a death, and what is opened later is never
/// taken for a standard stream that the caller had closed.
#[cfg(not(test))]
pub fn begin() {
    // SAFETY: plain integers and a constant path.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        for fd in 0..3 {
            if libc::fcntl(fd, libc::F_GETFD) < 0 {
                // The lowest free descriptor: this one.
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
}

/// Default action for every signal (SIGPIPE is ignored until here) and none blocked.
pub fn reset_signals() {
    // SAFETY: SIG_DFL installs no handler, and the empty set is initialised before use.
    unsafe {
        for signal in 1..=64 {
            if signal != libc::SIGKILL && signal != libc::SIGSTOP {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

/// Replaces this process; returns only to say why it could not.
pub fn execve(path: &CStr, args: &[CString], env: &[CString]) -> Errno {
    let pointers = |list: &[CString]| -> Vec<*const c_char> {
        list.iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with null and point at strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    Errno::last()
}

/// execveat(2) of an open file.
pub fn fexecve(fd: RawFd, args: &[CString], env: &[CString]) -> Errno {
    let pointers = |list: &[CString]| -> Vec<*const c_char> {
        list.iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with null and point at strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd,
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            AT_EMPTY_PATH,
        )
    };
    Errno::last()
}

/// Ends a forked child at once, without running the parent's exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}

// ---- sockets, terminals, waiting ---------------------------------------------------------

pub fn socketpair() -> SysResult<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: fds has room for the two descriptors.
    check_int(unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC,
            0,
            fds.as_mut_ptr(),
        )
    })?;
    Ok((own(fds[0].into()), own(fds[1].into())))
}

pub fn read(fd: RawFd, buffer: &mut [u8]) -> SysResult<usize> {
    loop {
        // SAFETY: the buffer is writable for its whole length.
        let count = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        match check(count as c_long) {
            Err(Errno(libc::EINTR)) => continue,
            result => return result.map(|count| count as usize),
        }
    }
}

pub fn write(fd: RawFd, bytes: &[u8]) -> SysResult<usize> {
    // SAFETY: the slice is readable for its whole length.
    check(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } as c_long)
        .map(|count| count as usize)
}

/// send(2) without SIGPIPE.
pub fn send(fd: RawFd, bytes: &[u8]) -> SysResult<()> {
    // SAFETY: the slice is readable for its whole length.
    check(
        unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) } as c_long,
    )
    .map(drop)
}

/// Sends `fd` with `payload` over a unix socket (SCM_RIGHTS).
pub fn send_fd(socket: RawFd, fd: RawFd, payload: &[u8]) -> SysResult<()> {
    let mut part = libc::iovec {
        iov_base: payload.as_ptr().cast_mut().cast(),
        iov_len: payload.len(),
    };
    let mut control = [0u64; 4];
    // SAFETY: an all-zero msghdr is valid; the control buffer is aligned and large enough for one
    // descriptor, and every pointer outlives the call.
    check(unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<c_int>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<c_int>() as u32) as _;
        libc::CMSG_DATA(header).cast::<c_int>().write_unaligned(fd);
        libc::sendmsg(socket, &message, libc::MSG_NOSIGNAL)
    } as c_long)
    .map(drop)
}

pub fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) -> SysResult<usize> {
    loop {
        // SAFETY: the pointer and the length are those of one slice.
        match check_int(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as u64, timeout_ms) }) {
            Err(Errno(libc::EINTR)) => continue,
            result => return result.map(|count| count as usize),
        }
    }
}

/// ioctl(2) with an integer argument; returns the call's value.
pub fn ioctl_int(fd: RawFd, request: u64, value: c_long) -> SysResult<c_int> {
    // SAFETY: only used with requests that take an integer.
    check_int(unsafe { libc::ioctl(fd, request, value) })
}

/// ioctl(2) that reads from or writes to `value`.
pub fn ioctl_with<T>(fd: RawFd, request: u64, value: &mut T) -> SysResult<()> {
    // SAFETY: the caller pairs the request with the type that the kernel expects.
    check_int(unsafe { libc::ioctl(fd, request, std::ptr::from_mut(value)) }).map(drop)
}

/// A datagram socket, for the interface requests of netdevice(7).
pub fn control_socket() -> SysResult<OwnedFd> {
    // SAFETY: plain integers.
    check_int(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })
        .map(|fd| own(fd.into()))
}

pub fn sethostname(name: &str) -> SysResult<()> {
    // SAFETY: the pointer and the length are those of one string.
    check_int(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

pub fn setdomainname(name: &str) -> SysResult<()> {
    // SAFETY: the pointer and the length are those of one string.
    check_int(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Blocks every signal and returns a descriptor that reports the given ones.
pub fn signal_fd(signals: &[i32]) -> SysResult<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        check_int(libc::sigprocmask(
            libc::SIG_BLOCK,
            &set,
            std::ptr::null_mut(),
        ))?;
        check_int(libc::signalfd(-1, &set, libc::SFD_CLOEXEC)).map(|fd| own(fd.into()))
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        io::Error::from_raw_os_error(errno.0)
    }
}

/// Receives one descriptor over a unix socket.
pub fn receive_fd(socket: RawFd) -> SysResult<OwnedFd> {
    let mut payload = [0u8; 256];
    let mut part = libc::iovec {
        iov_base: payload.as_mut_ptr().cast(),
        iov_len: payload.len(),
    };
    let mut control = [0u64; 4];
    // SAFETY: an all-zero msghdr is valid; the control buffer is aligned and large enough for one
    // descriptor, and the header is checked before its data is read.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        check(libc::recvmsg(socket, &mut message, libc::MSG_CMSG_CLOEXEC) as c_long)?;
        let header = libc::CMSG_FIRSTHDR(&message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
            return Err(Errno(libc::EPIPE));
        }
        Ok(own(libc::CMSG_DATA(header)
            .cast::<c_int>()
            .read_unaligned()
            .into()))
    }
}

pub fn terminal_mode(fd: RawFd) -> SysResult<libc::termios> {
    // SAFETY: an all-zero termios is a valid value, and the call fills it.
    let mut mode: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: mode is writable.
    check_int(unsafe { libc::tcgetattr(fd, &mut mode) })?;
    Ok(mode)
}

pub fn set_terminal_mode(fd: RawFd, mode: &libc::termios) -> SysResult<()> {
    // SAFETY: mode is a valid termios.
    check_int(unsafe { libc::tcsetattr(fd, libc::TCSANOW, mode) }).map(drop)
}

/// Whether a child can be waited for without blocking; it stays to be waited for.
pub fn has_exited(pid: i32) -> bool {
    // SAFETY: an all-zero siginfo is a valid value, and the call fills it.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: info is writable.
    let result = unsafe { libc::waitid(libc::P_PID, pid as u32, &mut info, flags) };
    // SAFETY: waitid has filled the fields of a child's state change, or left them zero.
    result == 0 && unsafe { info.si_pid() } == pid
}
