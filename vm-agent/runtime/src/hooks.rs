//! Lifecycle hooks (runtime-spec, config.md, "POSIX-platform Hooks"): the state on stdin, and a
//! failure's output in the error.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::error::{Error, Result};
use crate::spec::Hook;
use crate::sys;

/// Runs hooks in order and stops at the first that fails.
pub fn run(kind: &'static str, hooks: &[Hook], state: &str) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state).map_err(|reason| Error::Hook {
            kind,
            index,
            reason,
        })?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &str) -> std::result::Result<(), String> {
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    if !hook.env.is_empty() {
        command.env_clear();
        command.envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| format!("fork/exec {}: {error}", hook.path))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its state is in its right.
        let _ = stdin.write_all(state.as_bytes());
    }
    if let Some(seconds) = hook.timeout {
        wait_until(&mut child, seconds)?;
    }
    let mut output = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(64 * 1024).read_to_string(&mut output);
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{status}, stderr: {}", output.trim_end()))
}

fn wait_until(child: &mut Child, seconds: u64) -> std::result::Result<(), String> {
    let pidfd = sys::pidfd_open(child.id() as i32).map_err(|errno| errno.to_string())?;
    let mut poll = [libc::pollfd {
        fd: pidfd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    let timeout = i32::try_from(seconds.saturating_mul(1000)).unwrap_or(i32::MAX);
    let ready = sys::poll(&mut poll, timeout).map_err(|errno| errno.to_string())?;
    if ready == 0 {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("hook ran past specified timeout of {seconds}.0s"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<u64>) -> Hook {
        Hook {
            path: "/bin/sh".to_owned(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: Vec::new(),
            timeout,
        }
    }

    #[test]
    fn state_arrives_and_failures_are_told() {
        assert!(
            run(
                "prestart",
                &[shell(r#"read x && test "$x" = "{}""#, Some(10))],
                "{}\n"
            )
            .is_ok()
        );
        let error = run("prestart", &[shell("echo why >&2; exit 3", None)], "{}").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("prestart hook #0") && text.contains("why"),
            "{text}"
        );
        let late = run("poststop", &[shell("exec sleep 30", Some(1))], "{}").unwrap_err();
        assert!(late.to_string().contains("timeout"), "{late}");
    }
}
