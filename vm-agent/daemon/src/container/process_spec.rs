//! The OCI process of an exec, in the surroundings of its container's process 1.

use super::links;
use super::record::Container;
use super::rootfs;
use super::spec::{self, capabilities};
use crate::error::ApiResult;
use crate::state::Daemon;
use serde_json::{Value, json};

/// What `docker exec` asks for.
pub struct ProcessRequest<'a> {
    pub args: &'a [String],
    pub env: &'a [String],
    /// Empty: as the container's process 1.
    pub user: &'a str,
    pub working_dir: &'a str,
    pub tty: bool,
    pub privileged: bool,
    pub console_size: Option<[u32; 2]>,
}

pub async fn process_spec(
    daemon: &Daemon,
    container: &Container,
    wanted: &ProcessRequest<'_>,
) -> ApiResult<Value> {
    let spec_user = if wanted.user.is_empty() {
        &container.config.user
    } else {
        wanted.user
    };
    let groups = container
        .host_config
        .group_add
        .as_deref()
        .unwrap_or_default();
    let rootfs = daemon.containers.rootfs(&container.id).await?;
    let user = rootfs::accounts(&rootfs).look_up(spec_user, groups)?;
    let mut host = container.host_config.clone();
    host.privileged |= wanted.privileged;
    let capabilities = capabilities::of(&host);
    let effective: &[String] = if user.uid == 0 { &capabilities } else { &[] };
    let cwd = match (wanted.working_dir, container.config.working_dir.as_str()) {
        ("", "") => "/",
        ("", own) => own,
        (asked, _) => asked,
    };
    let linked = links::environment(daemon, container)?;
    let mut process = json!({
        "args": wanted.args,
        "env": spec::environment(container, &user.home, wanted.tty, &linked, wanted.env),
        "cwd": cwd,
        "terminal": wanted.tty,
        "capabilities": { "bounding": capabilities, "effective": effective, "permitted": effective },
        "oomScoreAdj": host.oom_score_adj,
        "user": user,
    });
    if let Some([height, width]) = wanted
        .console_size
        .filter(|size| wanted.tty && *size != [0, 0])
    {
        process["consoleSize"] = json!({ "height": height, "width": width });
    }
    if spec::no_new_privileges(&host) {
        process["noNewPrivileges"] = json!(true);
    }
    Ok(process)
}
