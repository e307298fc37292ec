//! Containers of the Docker API: their records, their tasks at the supervisor, and every request on them.

mod attach;
mod attach_websocket;
mod changes;
pub mod closing;
pub mod config;
mod create;
pub mod exit;
mod health;
mod init_layer;
mod inspect;
mod lifecycle;
mod links;
mod list;
mod log_attributes;
mod log_options;
mod logs;
mod metrics;
mod mount_spec;
mod mounted_rootfs;
mod name;
mod neighbours;
pub mod oom;
mod output;
mod process_spec;
pub mod reconcile;
mod record;
mod remove;
mod restart;
mod rootfs;
mod signal;
mod snapshot;
mod spec;
mod stats;
mod stdio;
mod step;
mod store;
mod task;
mod top;
mod validate;
mod wait;

pub use record::{Container, Fixed, MountPoint, State, Status};
pub use rootfs::{Rootfs, mount_detached};
pub(crate) use step::{run_attached, step_container, take_down};
pub use store::{Containers, Entry};

pub(crate) use attach::{
    MULTIPLEXED, RAW, close_stdin, copy_input, copy_output, frame, parse_detach_keys,
};
pub(crate) use exit::wait as wait_for_exit;
pub(crate) use lifecycle::window_size;
pub(crate) use list::disk_usage;
pub(crate) use mounted_rootfs::open as open_rootfs;
pub(crate) use neighbours::update_network_files;
pub(crate) use output::{OUR_SHIM, Output};
pub(crate) use process_spec::{ProcessRequest, process_spec};
pub(crate) use stdio::{make_fifo, open_stdin, uri as log_uri};
pub(crate) use store::write_json;
pub(crate) use task::{any, exit_code_of};

use crate::error::ApiResult;
use crate::http_message::{ApiRequest, ApiResponse};
use crate::router::{Routed, complete, handle};
use crate::state::Daemon;
use std::sync::Arc;

pub fn route(daemon: Arc<Daemon>, mut request: ApiRequest) -> Routed {
    let path = request.path.clone();
    match (request.method.as_str(), path.segments().as_slice()) {
        ("GET", ["containers", "json"]) => {
            settled(daemon, request, "", |d, r, _| list::serve(d, r))
        }
        ("POST", ["containers", "create"]) => {
            changing(daemon, request, "", |d, r, _| create::serve(d, r))
        }
        ("POST", ["containers", "prune"]) => {
            changing(daemon, request, "", |d, r, _| remove::prune(d, r))
        }
        ("DELETE", ["containers", id]) => changing(daemon, request, id, remove::serve),
        ("GET", ["containers", id, "json"]) => settled(daemon, request, id, inspect::serve),
        ("GET", ["containers", id, "logs"]) => settled(daemon, request, id, logs::serve),
        ("GET", ["containers", id, "changes"]) => settled(daemon, request, id, changes::serve),
        ("GET", ["containers", id, "stats"]) => settled(daemon, request, id, stats::serve),
        ("GET", ["containers", id, "top"]) => settled(daemon, request, id, top::serve),
        ("POST", ["containers", id, "attach"]) => settled(daemon, request, id, attach::serve),
        ("GET", ["containers", id, "attach", "ws"]) => {
            settled(daemon, request, id, attach_websocket::serve)
        }
        ("POST", ["containers", id, "wait"]) => settled(daemon, request, id, wait::serve),
        ("POST", ["containers", id, "start"]) => changing(daemon, request, id, lifecycle::start),
        ("POST", ["containers", id, "stop"]) => changing(daemon, request, id, lifecycle::stop),
        ("POST", ["containers", id, "restart"]) => {
            changing(daemon, request, id, lifecycle::restart)
        }
        ("POST", ["containers", id, "kill"]) => changing(daemon, request, id, lifecycle::kill),
        ("POST", ["containers", id, "pause"]) => changing(daemon, request, id, |d, r, id| {
            lifecycle::pause(d, r, id, true)
        }),
        ("POST", ["containers", id, "unpause"]) => changing(daemon, request, id, |d, r, id| {
            lifecycle::pause(d, r, id, false)
        }),
        ("POST", ["containers", id, "rename"]) => changing(daemon, request, id, lifecycle::rename),
        ("POST", ["containers", id, "resize"]) => settled(daemon, request, id, lifecycle::resize),
        ("POST", ["containers", id, "update"]) => changing(daemon, request, id, lifecycle::update),
        (_, ["containers", ..]) => match path.with_link_name() {
            Some(path) => {
                request.path = path;
                route(daemon, request)
            }
            None => Routed::NotMine(request),
        },
        _ => Routed::NotMine(request),
    }
}

/// A request that is answered once it is known what runs, and dropped when its client goes.
fn settled<F, H>(daemon: Arc<Daemon>, request: ApiRequest, id: &str, handler: H) -> Routed
where
    H: FnOnce(Arc<Daemon>, ApiRequest, String) -> F + Send + 'static,
    F: Future<Output = ApiResult<ApiResponse>> + Send + 'static,
{
    let id = id.to_owned();
    handle(async move {
        daemon.containers.settled().await;
        handler(daemon, request, id).await
    })
}

/// The same for a request that changes something and therefore runs to its end.
fn changing<F, H>(daemon: Arc<Daemon>, request: ApiRequest, id: &str, handler: H) -> Routed
where
    H: FnOnce(Arc<Daemon>, ApiRequest, String) -> F + Send + 'static,
    F: Future<Output = ApiResult<ApiResponse>> + Send + 'static,
{
    let id = id.to_owned();
    complete(async move {
        daemon.containers.settled().await;
        handler(daemon, request, id).await
    })
}
