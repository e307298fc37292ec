//! The `delete` command: takes away what is left of a container whose shim is gone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::MessageField;

use crate::args::Args;
use crate::error::{Result, Step};
use crate::events::timestamp;
use crate::exit_file;
use crate::mount;
use crate::options::Options;
use crate::reaper::Exit;
use crate::start::socket_path;

/// 128 + SIGKILL.
const KILLED: u32 = 137;

/// Idempotent: each step passes over what is not there any more.
pub fn clean_up(args: &Args) -> Result<DeleteResponse> {
    let bundle = match &args.bundle {
        Some(bundle) => bundle.clone(),
        None => std::env::current_dir().step("find the bundle")?,
    };
    if let Some(cgroup) = exit_file::load_cgroup(&bundle) {
        drop(cgroup.kill());
    }
    delete_container(args, &bundle)?;
    mount::unmount_rootfs(&bundle.join("rootfs"));
    drop(std::fs::remove_file(socket_path(
        &args.address,
        &args.namespace,
        &args.id,
    )));
    let killed = Exit {
        code: KILLED,
        time: SystemTime::now(),
    };
    let (pid, exit) = exit_file::load_exit(&bundle).unwrap_or((0, killed));
    let mut response = DeleteResponse::new();
    response.pid = pid;
    response.exit_status = exit.code;
    response.exited_at = MessageField::some(timestamp(exit.time));
    Ok(response)
}

fn delete_container(args: &Args, bundle: &Path) -> Result<()> {
    let options = match exit_file::load_options(bundle) {
        Some(options) => options,
        // The shim died before it had created anything.
        None => Options::from_any(None, &args.namespace)?,
    };
    let state: PathBuf = options.root.join(&args.id);
    if !state.exists() {
        return Ok(());
    }
    let mut command = Command::new(crate::runtime::find_binary(&options.binary));
    command
        .arg("--root")
        .arg(&options.root)
        .args(["delete", "--force", &args.id]);
    // Its exit code says nothing more: what matters is that the state is gone.
    drop(command.stdin(Stdio::null()).stdout(Stdio::null()).status());
    Ok(())
}
