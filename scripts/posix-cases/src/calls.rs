//! System calls by path, with their error's number; and the cases that are made of them.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use libc::{c_int, mode_t};

/// An error's number, 0 when all went well.
pub type Code = i32;

/// Two users that are not root, each with a group of the same number.
pub const ANN: u32 = 1001;
pub const BEN: u32 = 1002;

/// A name, and a call without arguments.
pub type Named = (&'static str, fn() -> Code);

/// The same, with the code that it must end with.
pub type Ending = (&'static str, fn() -> Code, Code);

pub struct Cases {
    folder: PathBuf,
    passed: u32,
    failed: u32,
}

/// What a case found: nothing is right.
pub type Verdict = Result<(), String>;

impl Cases {
    pub fn new(folder: &Path) -> Self {
        let folder = folder.join("posix-cases");
        std::fs::create_dir_all(&folder).expect("a folder for the cases");
        Self {
            folder,
            passed: 0,
            failed: 0,
        }
    }

    /// Runs a case in an empty folder, which is the working directory.
    pub fn case(&mut self, name: &str, run: impl FnOnce() -> Verdict) {
        let folder = self.folder.join("case");
        std::fs::create_dir(&folder).expect("a case's folder");
        std::env::set_current_dir(&folder).expect("a case's folder");
        umask(0);
        // Owned by root explicitly: where owners are kept on demand, they are from here on.
        let ready = [chown(".", 0, 0), chmod(".", 0o755)];
        assert_eq!(ready, [0, 0], "a case's folder");
        match run() {
            Ok(()) => {
                self.passed += 1;
                println!("pass {name}");
            }
            Err(what) => {
                self.failed += 1;
                println!("fail {name}: {what}");
            }
        }
        std::env::set_current_dir("/").expect("the root");
        std::fs::remove_dir_all(&folder).expect("the end of a case");
    }

    /// A case of one call, which must end so.
    pub fn ends(&mut self, name: &str, wanted: Code, run: impl FnOnce() -> Code) {
        self.case(name, || is(run(), wanted));
    }

    pub fn end(self) {
        std::fs::remove_dir_all(&self.folder).expect("the end");
        println!("{} of {}", self.passed, self.passed + self.failed);
    }
}

pub fn is<T: PartialEq + std::fmt::Debug>(found: T, wanted: T) -> Verdict {
    match found == wanted {
        true => Ok(()),
        false => Err(format!("{found:?} where {wanted:?} was wanted")),
    }
}

/// Everything up to here must have gone well.
pub fn well(codes: &[Code]) -> Verdict {
    is(codes.iter().copied().find(|code| *code != 0), None)
}

fn path(path: &str) -> CString {
    CString::new(path).expect("a path")
}

fn errno() -> Code {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(-1)
}

fn code(result: c_int) -> Code {
    if result < 0 { errno() } else { 0 }
}

/// The call as another user, with no groups but its own: in a process of its own.
pub fn by(user: u32, run: impl FnOnce() -> Code) -> Code {
    by_member(user, user, run)
}

/// The same with another group.
pub fn by_member(user: u32, group: u32, run: impl FnOnce() -> Code) -> Code {
    // SAFETY: this process has one thread; the child changes who it is, calls and ends.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            let none = std::ptr::null();
            let changed = libc::setgroups(0, none) == 0
                && libc::setgid(group) == 0
                && libc::setuid(user) == 0;
            libc::_exit(if changed { run() } else { 255 });
        }
        let mut status = 0;
        if libc::waitpid(child, &mut status, 0) != child || !libc::WIFEXITED(status) {
            return -1;
        }
        libc::WEXITSTATUS(status)
    }
}

/// An open file, closed in the end.
pub struct Fd(pub c_int);

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: closes what `opened` opened.
        unsafe { libc::close(self.0) };
    }
}

pub fn opened(name: &str, flags: c_int, mode: mode_t) -> Result<Fd, Code> {
    // SAFETY: a path that ends with NUL, numbers else.
    match unsafe { libc::open(path(name).as_ptr(), flags, mode) } {
        fd if fd < 0 => Err(errno()),
        fd => Ok(Fd(fd)),
    }
}

pub fn open(name: &str, flags: c_int) -> Code {
    opened(name, flags, 0o644).err().unwrap_or(0)
}

/// A file of one line.
pub fn file(name: &str, mode: mode_t) -> Code {
    match opened(name, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, mode) {
        Ok(fd) => write(&fd, b"line\n"),
        Err(code) => code,
    }
}

pub fn write(fd: &Fd, bytes: &[u8]) -> Code {
    // SAFETY: the bytes and their length.
    let written = unsafe { libc::write(fd.0, bytes.as_ptr().cast(), bytes.len()) };
    match written {
        n if n < 0 => errno(),
        n if n as usize == bytes.len() => 0,
        _ => -1,
    }
}

/// Calls that take one path and numbers.
macro_rules! calls {
    ($($name:ident($($argument:ident: $kind:ty),*) = $call:expr;)*) => {
        $(
            pub fn $name(name: &str $(, $argument: $kind)*) -> Code {
                let name = path(name);
                // SAFETY: a path that ends with NUL, numbers else.
                code(unsafe { $call(name.as_ptr() $(, $argument)*) })
            }
        )*
    };
}

calls! {
    chmod(mode: mode_t) = libc::chmod;
    chown(user: u32, group: u32) = libc::chown;
    lchown(user: u32, group: u32) = libc::lchown;
    mkdir(mode: mode_t) = libc::mkdir;
    mkfifo(mode: mode_t) = libc::mkfifo;
    mknod(mode: mode_t, device: u64) = libc::mknod;
    rmdir() = libc::rmdir;
    unlink() = libc::unlink;
    truncate(size: i64) = libc::truncate;
    access(how: c_int) = libc::access;
}

macro_rules! two_paths {
    ($($name:ident = $call:expr;)*) => {
        $(
            pub fn $name(from: &str, to: &str) -> Code {
                let (from, to) = (path(from), path(to));
                // SAFETY: two paths that end with NUL.
                code(unsafe { $call(from.as_ptr(), to.as_ptr()) })
            }
        )*
    };
}

two_paths! {
    link = libc::link;
    symlink = libc::symlink;
    rename = libc::rename;
}

pub fn rename_with(from: &str, to: &str, flags: u32) -> Code {
    let (from, to) = (path(from), path(to));
    let here = libc::AT_FDCWD;
    // SAFETY: two paths that end with NUL.
    code(unsafe { libc::renameat2(here, from.as_ptr(), here, to.as_ptr(), flags) })
}

/// Sets both times: seconds and nanoseconds, or UTIME_NOW or UTIME_OMIT for the latter.
pub fn utimes(name: &str, access: (i64, i64), change: (i64, i64), flags: c_int) -> Code {
    let name = path(name);
    let time = |(tv_sec, tv_nsec)| libc::timespec { tv_sec, tv_nsec };
    let times = [time(access), time(change)];
    // SAFETY: a path that ends with NUL and two times.
    code(unsafe { libc::utimensat(libc::AT_FDCWD, name.as_ptr(), times.as_ptr(), flags) })
}

pub const NOW: (i64, i64) = (0, libc::UTIME_NOW);
pub const OMIT: (i64, i64) = (0, libc::UTIME_OMIT);

/// lstat(2).
pub fn data(name: &str) -> Result<libc::stat, String> {
    let path = path(name);
    // SAFETY: plain data, filled in by the call.
    let mut data = unsafe { std::mem::zeroed() };
    // SAFETY: a path that ends with NUL and room for the answer.
    match unsafe { libc::lstat(path.as_ptr(), &mut data) } {
        0 => Ok(data),
        _ => Err(format!("lstat {name}: {}", errno())),
    }
}

pub fn data_of(fd: &Fd) -> Result<libc::stat, String> {
    // SAFETY: plain data, filled in by the call.
    let mut data = unsafe { std::mem::zeroed() };
    // SAFETY: room for the answer.
    match unsafe { libc::fstat(fd.0, &mut data) } {
        0 => Ok(data),
        _ => Err(format!("fstat: {}", errno())),
    }
}

pub fn stat(name: &str) -> Code {
    match std::fs::metadata(name) {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}

/// Permissions and the three bits above.
pub fn bits(name: &str) -> Result<u32, String> {
    Ok(data(name)?.st_mode & 0o7777)
}

pub fn owner(name: &str) -> Result<(u32, u32), String> {
    let data = data(name)?;
    Ok((data.st_uid, data.st_gid))
}

pub fn umask(mask: mode_t) {
    // SAFETY: no memory is involved.
    unsafe { libc::umask(mask) };
}

pub fn effective_user() -> u32 {
    // SAFETY: no memory is involved.
    unsafe { libc::geteuid() }
}

/// Any other call, by what it returns.
pub fn result(value: impl TryInto<i64>) -> Code {
    match value.try_into() {
        Ok(value) if value >= 0 => 0,
        _ => errno(),
    }
}
