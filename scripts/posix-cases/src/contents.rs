//! What is in files: sizes, holes, files without names, locks, mappings, attributes.

use std::ffi::CString;

use crate::calls::*;

fn text<T>(result: std::io::Result<T>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

fn fresh() -> Result<Fd, String> {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
    opened("file", flags, 0o644).map_err(|code| format!("open: {code}"))
}

pub fn all(cases: &mut Cases) {
    for size in [0_i64, 1, 4095, 4096, 4097, 1 << 20, 5 << 30] {
        cases.case(&format!("truncate to {size}"), || {
            well(&[file("file", 0o644), truncate("file", size)])?;
            is(data("file")?.st_size, size)?;
            let last = size.min(5);
            let fd = opened("file", libc::O_RDONLY, 0).map_err(|code| code.to_string())?;
            let mut bytes = [9_u8; 8];
            // SAFETY: room for eight bytes.
            let read = unsafe { libc::pread(fd.0, bytes.as_mut_ptr().cast(), 8, size - last) };
            is(read as i64, last)?;
            is(size <= 5 || bytes[..last as usize] == [0; 5], true)
        });
    }
    cases.case("a hole is read as zeros, and takes no room", || {
        let fd = fresh()?;
        // SAFETY: one byte.
        let written = unsafe { libc::pwrite(fd.0, b"x".as_ptr().cast(), 1, 10 << 20) };
        is(written, 1)?;
        let data = data("file")?;
        is(
            (data.st_size, data.st_blocks < 2048),
            ((10 << 20) + 1, true),
        )?;
        // SAFETY: no memory is involved.
        let first = unsafe { libc::lseek(fd.0, 0, libc::SEEK_DATA) };
        is(first >= 4096, true)?;
        // SAFETY: no memory is involved.
        is(unsafe { libc::lseek(fd.0, 0, libc::SEEK_HOLE) }, 0)
    });
    cases.case("fallocate, and a hole punched", || {
        let fd = fresh()?;
        // SAFETY: no memory is involved.
        well(&[result(unsafe { libc::fallocate(fd.0, 0, 0, 1 << 20) })])?;
        is(data("file")?.st_size, 1 << 20)?;
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: no memory is involved.
        well(&[result(unsafe { libc::fallocate(fd.0, punch, 0, 1 << 19) })])
    });
    cases.case("O_APPEND: writes of two go to the end", || {
        well(&[file("file", 0o644)])?;
        let append = || opened("file", libc::O_WRONLY | libc::O_APPEND, 0);
        let (one, two) = (append(), append());
        let (Ok(one), Ok(two)) = (one, two) else {
            return Err("open".into());
        };
        well(&[
            write(&one, b"1\n"),
            write(&two, b"2\n"),
            write(&one, b"3\n"),
        ])?;
        is(
            text(std::fs::read_to_string("file"))?.as_str(),
            "line\n1\n2\n3\n",
        )
    });
    cases.case("O_TRUNC", || {
        well(&[
            file("file", 0o644),
            open("file", libc::O_WRONLY | libc::O_TRUNC),
        ])?;
        is(data("file")?.st_size, 0)
    });
    cases.case("a file without a name is of use until it is closed", || {
        let fd = fresh()?;
        well(&[unlink("file"), write(&fd, b"more")])?;
        is((data_of(&fd)?.st_nlink, data_of(&fd)?.st_size), (0, 4))?;
        let mut bytes = [0_u8; 4];
        // SAFETY: room for four bytes.
        let read = unsafe { libc::pread(fd.0, bytes.as_mut_ptr().cast(), 4, 0) };
        is(read, 4)?;
        is(&bytes, b"more")
    });
    cases.case(
        "a file that was renamed over is of use until it is closed",
        || {
            let fd = fresh()?;
            well(&[
                file("other", 0o600),
                write(&fd, b"old"),
                rename("other", "file"),
            ])?;
            is(data_of(&fd)?.st_size, 3)?;
            is(text(std::fs::read_to_string("file"))?.as_str(), "line\n")
        },
    );
    cases.case("O_TMPFILE, and a name for it", || {
        let fd =
            opened(".", libc::O_TMPFILE | libc::O_RDWR, 0o600).map_err(|code| code.to_string())?;
        well(&[write(&fd, b"late")])?;
        let from = format!("/proc/self/fd/{}", fd.0);
        let (from, to) = (CString::new(from).expect("a path"), c"named");
        let (here, follow) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
        // SAFETY: two paths that end with NUL.
        let linked = unsafe { libc::linkat(here, from.as_ptr(), here, to.as_ptr(), follow) };
        well(&[result(linked)])?;
        is(text(std::fs::read_to_string("named"))?.as_str(), "late")
    });
    cases.case("a shared mapping is the file", || {
        let fd = fresh()?;
        well(&[truncate("file", 4096)])?;
        let how = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of one page, written once and given back.
        unsafe {
            let page = libc::mmap(std::ptr::null_mut(), 4096, how, libc::MAP_SHARED, fd.0, 0);
            is(page == libc::MAP_FAILED, false)?;
            page.cast::<u8>().write(b'm');
            well(&[result(libc::msync(page, 4096, libc::MS_SYNC))])?;
            libc::munmap(page, 4096);
        }
        is(text(std::fs::read("file"))?.first(), Some(&b'm'))
    });
    cases.case("flock: one at a time", || {
        let one = fresh()?;
        let two = opened("file", libc::O_RDWR, 0).map_err(|code| code.to_string())?;
        let exclusive = libc::LOCK_EX | libc::LOCK_NB;
        // SAFETY: no memory is involved.
        well(&[result(unsafe { libc::flock(one.0, exclusive) })])?;
        // SAFETY: no memory is involved.
        is(
            result(unsafe { libc::flock(two.0, exclusive) }),
            libc::EWOULDBLOCK,
        )
    });
    cases.case("fcntl locks: one process at a time", || {
        let fd = fresh()?;
        let lock = || {
            // SAFETY: plain data.
            let mut lock: libc::flock = unsafe { std::mem::zeroed() };
            lock.l_type = libc::F_WRLCK as i16;
            // SAFETY: the lock that was just filled in.
            result(unsafe { libc::fcntl(fd.0, libc::F_SETLK, &lock) })
        };
        is(lock(), 0)?;
        is(by(ANN, lock), libc::EAGAIN)
    });
    cases.case("copy_file_range", || {
        well(&[file("from", 0o644)])?;
        let from = opened("from", libc::O_RDONLY, 0).map_err(|code| code.to_string())?;
        let to = fresh()?;
        let none = std::ptr::null_mut();
        // SAFETY: no offsets are given.
        let copied = unsafe { libc::copy_file_range(from.0, none, to.0, none, 5, 0) };
        is(copied, 5)?;
        is(text(std::fs::read_to_string("file"))?.as_str(), "line\n")
    });
    cases.case("fsync: a file and its folder", || {
        let fd = fresh()?;
        // SAFETY: no memory is involved.
        well(&[write(&fd, b"x"), result(unsafe { libc::fsync(fd.0) })])?;
        let folder = opened(".", libc::O_RDONLY | libc::O_DIRECTORY, 0);
        let folder = folder.map_err(|code| code.to_string())?;
        // SAFETY: no memory is involved.
        well(&[result(unsafe { libc::fsync(folder.0) })])
    });
    cases.case(
        "a unix socket that is bound, connected to and removed",
        || {
            let listener = text(std::os::unix::net::UnixListener::bind("socket"))?;
            is(data("socket")?.st_mode & libc::S_IFMT, libc::S_IFSOCK)?;
            text(std::os::unix::net::UnixStream::connect("socket"))?;
            drop(listener);
            is(unlink("socket"), 0)
        },
    );
    cases.case("a FIFO carries bytes from one process to another", || {
        well(&[mkfifo("fifo", 0o666)])?;
        let reader = opened("fifo", libc::O_RDONLY | libc::O_NONBLOCK, 0);
        let reader = reader.map_err(|code| code.to_string())?;
        let sent = by(ANN, || match opened("fifo", libc::O_WRONLY, 0) {
            Ok(fd) => write(&fd, b"sent"),
            Err(code) => code,
        });
        is(sent, 0)?;
        let mut bytes = [0_u8; 8];
        // SAFETY: room for eight bytes.
        is(
            unsafe { libc::read(reader.0, bytes.as_mut_ptr().cast(), 8) },
            4,
        )
    });
    for name in [c"user.note", c"trusted.note"] {
        cases.case(
            &format!("extended attribute {}", name.to_string_lossy()),
            || {
                let fd = fresh()?;
                let value = b"value";
                // SAFETY: a name that ends with NUL, bytes and their length.
                let set =
                    unsafe { libc::fsetxattr(fd.0, name.as_ptr(), value.as_ptr().cast(), 5, 0) };
                // What a container's root may not do is no matter of the file system.
                if name != c"user.note" && result(set) == libc::EPERM {
                    return Ok(());
                }
                well(&[result(set)])
            },
        );
    }
    cases.case("a program is run", || {
        let own = text(std::env::current_exe())?;
        text(std::fs::copy(own, "program"))?;
        well(&[chmod("program", 0o755)])?;
        let status = text(
            std::process::Command::new("./program")
                .arg("--who")
                .status(),
        )?;
        is(status.code(), Some(0))
    });
}
