//! Running the shim's binary: `start`, `delete` and `-info` (containerd's runtime v2 README).

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::Message;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::bundle::{Bootstrap, Bundle};
use crate::core::Paths;
use crate::error::{Error, IoStep, Result};

/// Where shims are accounted, apart from the supervisor; made by init.
const SHIM_CGROUP: &str = "/sys/fs/cgroup/longshore/shims/cgroup.procs";

/// Finds the binary of a runtime: `io.containerd.runc.v2` is run by `containerd-shim-runc-v2`; a path is itself.
pub fn find_binary(runtime: &str) -> Result<PathBuf> {
    if runtime.starts_with('/') {
        let path = PathBuf::from(runtime);
        return path
            .is_file()
            .then_some(path)
            .ok_or_else(|| Error::NotFound(format!("runtime {runtime:?} binary not installed")));
    }
    let name = binary_name(runtime)
        .ok_or_else(|| Error::InvalidArgument(format!("invalid runtime name {runtime}")))?;
    let search = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/usr/sbin:/bin".into());
    std::env::split_paths(&search)
        .chain([PathBuf::from("/usr/bin")])
        .map(|dir| dir.join(&name))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::NotFound(format!(
                "runtime {runtime:?} binary not installed {name:?}: file does not exist"
            ))
        })
}

fn binary_name(runtime: &str) -> Option<String> {
    let parts: Vec<&str> = runtime.split('.').collect();
    let ok = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    match parts[..] {
        [.., name, version] if parts.len() >= 3 && ok(name) && ok(version) => {
            Some(format!("containerd-shim-{name}-{version}"))
        }
        _ => None,
    }
}

fn command(paths: &Paths, bundle: &Bundle, binary: &Path, traceparent: Option<&str>) -> Command {
    let mut command = Command::new(binary);
    let ttrpc_address = format!("{}.ttrpc", paths.address.display());
    command
        .args(["-namespace", &bundle.namespace, "-address"])
        .arg(&paths.address)
        .arg("-publish-binary")
        .arg(std::env::current_exe().unwrap_or_else(|_| "/usr/bin/longshore-supervisor".into()))
        .args(["-id", &bundle.id])
        .current_dir(&bundle.path)
        .env("MAX_SHIM_VERSION", "3")
        .env("TTRPC_ADDRESS", ttrpc_address)
        .env("GRPC_ADDRESS", &paths.address)
        .env("NAMESPACE", &bundle.namespace)
        .env("GOMAXPROCS", "2")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_FDNAMES")
        .env_remove("LISTEN_PID")
        .env_remove("TRACEPARENT")
        .kill_on_drop(true);
    if let Some(traceparent) = traceparent {
        command.env("TRACEPARENT", traceparent);
    }
    leave_our_group(&mut command);
    command
}

/// Puts the child into the shims' cgroup and gives it back an ordinary OOM score: ours is that of a service. It dies with us, so
/// that the next supervisor finds all that it started; the shim that it forks does not (prctl(2), PR_SET_PDEATHSIG).
fn leave_our_group(command: &mut Command) {
    let cgroup = OpenOptions::new().write(true).open(SHIM_CGROUP).ok();
    // SAFETY: between fork and exec only prctl(2), open(2), write(2) and close(2) are called, which are async-signal-safe;
    // the closure owns its descriptor and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if let Some(file) = &cgroup {
                libc::write(file.as_raw_fd(), b"0".as_ptr().cast(), 1);
            }
            let fd = libc::open(
                c"/proc/self/oom_score_adj".as_ptr(),
                libc::O_WRONLY | libc::O_CLOEXEC,
            );
            if fd >= 0 {
                libc::write(fd, b"0".as_ptr().cast(), 1);
                libc::close(fd);
            }
            Ok(())
        });
    }
}

async fn run(mut command: Command, input: Vec<u8>, what: &str, log: &Path) -> Result<Vec<u8>> {
    // To a file: a shim that keeps its standard error open must not keep us waiting.
    let stderr = File::create(log).step(|| format!("creating {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .step(|| format!("running {what}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A shim may not read its options.
        let _ = stdin.write_all(&input).await;
    }
    let output = child
        .wait_with_output()
        .await
        .step(|| format!("waiting for {what}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let mut reason = std::fs::read_to_string(log).unwrap_or_default();
    reason.push_str(&String::from_utf8_lossy(&output.stdout));
    Err(Error::Other(format!(
        "failed to start shim: {what}: {}: {}",
        output.status,
        reason.trim()
    )))
}

/// `start`: the shim answers with where it listens.
pub async fn start(
    paths: &Paths,
    bundle: &Bundle,
    binary: &Path,
    options: Vec<u8>,
    traceparent: Option<&str>,
) -> Result<Bootstrap> {
    let mut command = command(paths, bundle, binary, traceparent);
    command.arg("start");
    let what = format!("{} start", binary.display());
    let output = run(command, options, &what, &bundle.path.join("start.log")).await?;
    parse_bootstrap(&output).ok_or_else(|| {
        Error::Other(format!(
            "{what}: unexpected answer {:?}",
            String::from_utf8_lossy(&output)
        ))
    })
}

fn parse_bootstrap(output: &[u8]) -> Option<Bootstrap> {
    let text = std::str::from_utf8(output).ok()?.trim();
    if text.starts_with('{') {
        return serde_json::from_str(text).ok();
    }
    let is_address = text.starts_with("unix://") || text.starts_with('/');
    is_address.then(|| Bootstrap {
        version: 2,
        address: text.into(),
        protocol: "ttrpc".into(),
    })
}

/// `delete`: cleans up after a shim that is gone, and says how its container ended.
pub async fn delete(paths: &Paths, bundle: &Bundle) -> Result<DeleteResponse> {
    let binary = bundle
        .shim_binary()
        .ok_or_else(|| Error::NotFound(format!("shim of bundle {}", bundle.path.display())))?;
    let mut command = command(paths, bundle, &binary, None);
    command.arg("-bundle").arg(&bundle.path).arg("delete");
    let what = format!("{} delete", binary.display());
    let options = bundle.read("runtime-options").unwrap_or_default();
    let log = bundle.path.join("delete.log");
    let output = run(command, options, &what, &log).await?;
    DeleteResponse::parse_from_bytes(&output)
        .map_err(|e| Error::Other(format!("{what}: unexpected answer: {e}")))
}

/// `-info`: what a runtime says about itself.
pub async fn info(binary: &Path, options: Vec<u8>) -> Result<Vec<u8>> {
    let mut command = Command::new(binary);
    command.arg("-info").kill_on_drop(true);
    let log = std::env::temp_dir().join(format!("shim-info-{:016x}.log", rand::random::<u64>()));
    let output = run(
        command,
        options,
        &format!("{} -info", binary.display()),
        &log,
    )
    .await;
    let _ = std::fs::remove_file(log);
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_names() {
        let cases = [
            ("io.containerd.runc.v2", Some("containerd-shim-runc-v2")),
            (
                "io.containerd.longshore.v2",
                Some("containerd-shim-longshore-v2"),
            ),
            ("runc", None),
            ("runc.v2", None),
            ("io.containerd.a/b.v2", None),
            ("io.containerd..v2", None),
        ];
        for (runtime, expected) in cases {
            assert_eq!(binary_name(runtime).as_deref(), expected, "{runtime}");
        }
    }

    #[test]
    fn answers_of_start() {
        let v3 = br#"{"version":3,"address":"unix:///run/containerd/s/x","protocol":"ttrpc"}"#;
        assert_eq!(parse_bootstrap(v3).unwrap().version, 3);
        let v2 = parse_bootstrap(b"unix:///run/containerd/s/x\n").unwrap();
        assert_eq!(
            (v2.version, v2.address.as_str()),
            (2, "unix:///run/containerd/s/x")
        );
        assert!(parse_bootstrap(b"panic: no").is_none());
    }
}
