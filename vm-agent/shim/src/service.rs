//! containerd's Task service: requests in, the container's answers out.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest,
    ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim_async::Task;
use tokio::sync::watch;
use tracing::Instrument;
use ttrpc::asynchronous::TtrpcContext;

use crate::container::{Container, Surroundings};
use crate::error::{Error, Result};
use crate::events::timestamp;
use crate::metrics;

const PROCESS_DETAILS: &str = "containerd.runc.v1.ProcessDetails";

/// The shim's one service.
#[derive(Clone)]
pub struct Service {
    around: Surroundings,
    container: Arc<Mutex<Option<Arc<Container>>>>,
    /// One create or delete at a time.
    changing: Arc<tokio::sync::Mutex<()>>,
    stop: Arc<watch::Sender<bool>>,
}

impl Service {
    pub fn new(around: Surroundings) -> Service {
        Service {
            around,
            container: Arc::default(),
            changing: Arc::default(),
            stop: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Waits until the supervisor has asked for the shim's end.
    pub async fn stopped(&self) {
        // The sender lives in `self`.
        drop(self.stop.subscribe().wait_for(|stop| *stop).await);
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Container>>> {
        self.container
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        let found = self.slot().clone().filter(|c| id.is_empty() || c.id == id);
        found.ok_or_else(|| Error::NotFound {
            what: "container",
            id: id.to_owned(),
        })
    }
}

/// Runs a call in a span of the caller's trace; the closure gets the `traceparent` to hand on.
async fn traced<T, F>(
    context: &TtrpcContext,
    method: &'static str,
    call: impl FnOnce(Option<String>) -> F,
) -> ttrpc::Result<T>
where
    F: Future<Output = Result<T>>,
{
    let Some(parent) = context
        .metadata
        .get("traceparent")
        .and_then(|values| values.first())
    else {
        return Ok(call(None).await?);
    };
    let span = tracing::info_span!("task", traceparent = %parent, method);
    let onward = span
        .in_scope(longshore_trace::current)
        .map(|context| context.to_string());
    Ok(call(onward).instrument(span).await?)
}

#[async_trait]
impl Task for Service {
    async fn state(&self, _: &TtrpcContext, req: StateRequest) -> ttrpc::Result<StateResponse> {
        let container = self.container(&req.id)?;
        let process = container.process(&req.exec_id)?;
        let mut state = StateResponse::new();
        state.id = container.id.clone();
        state.bundle = container.bundle.to_string_lossy().into_owned();
        state.pid = process.pid() as u32;
        state.status = process.status().wire().into();
        state.stdin = process.spec.stdin.clone();
        state.stdout = process.spec.stdout.clone();
        state.stderr = process.spec.stderr.clone();
        state.terminal = process.spec.terminal;
        state.exec_id = req.exec_id;
        if let Some(exit) = process.exit() {
            state.exit_status = exit.code;
            state.exited_at = MessageField::some(timestamp(exit.time));
        }
        Ok(state)
    }

    async fn create(
        &self,
        context: &TtrpcContext,
        req: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        let _changing = self.changing.lock().await;
        if self.slot().is_some() {
            return Err(Error::AlreadyExists {
                what: "container",
                id: req.id,
            }
            .into());
        }
        let around = &self.around;
        let container = traced(context, "create", |parent| async move {
            Container::create(&req, around, parent.as_deref()).await
        })
        .await?;
        let mut response = CreateTaskResponse::new();
        response.pid = container.init.pid() as u32;
        *self.slot() = Some(container);
        Ok(response)
    }

    async fn start(
        &self,
        context: &TtrpcContext,
        req: StartRequest,
    ) -> ttrpc::Result<StartResponse> {
        let container = self.container(&req.id)?;
        let mut response = StartResponse::new();
        response.pid = traced(context, "start", |parent| async move {
            container.start(&req.exec_id, parent.as_deref()).await
        })
        .await?;
        Ok(response)
    }

    async fn delete(
        &self,
        context: &TtrpcContext,
        req: DeleteRequest,
    ) -> ttrpc::Result<DeleteResponse> {
        let _changing = self.changing.lock().await;
        let container = self.container(&req.id)?;
        let whole = req.exec_id.is_empty();
        let (pid, exit) = traced(context, "delete", |parent| async move {
            match whole {
                true => container.delete(parent.as_deref()).await,
                false => container.delete_exec(&req.exec_id).await,
            }
        })
        .await?;
        if whole {
            *self.slot() = None;
        }
        let mut response = DeleteResponse::new();
        response.pid = pid;
        response.exit_status = exit.code;
        response.exited_at = MessageField::some(timestamp(exit.time));
        Ok(response)
    }

    async fn pids(&self, _: &TtrpcContext, req: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let container = self.container(&req.id)?;
        let pids = container
            .cgroup
            .as_ref()
            .map(|cgroup| cgroup.pids())
            .unwrap_or_default();
        let mut response = PidsResponse::new();
        response.processes = pids
            .into_iter()
            .map(|pid| process_info(&container, pid))
            .collect();
        Ok(response)
    }

    async fn pause(&self, context: &TtrpcContext, req: PauseRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&req.id)?;
        traced(context, "pause", |parent| async move {
            container.pause(parent.as_deref()).await
        })
        .await?;
        Ok(Empty::new())
    }

    async fn resume(&self, context: &TtrpcContext, req: ResumeRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&req.id)?;
        traced(context, "resume", |parent| async move {
            container.resume(parent.as_deref()).await
        })
        .await?;
        Ok(Empty::new())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        Err(Error::Unimplemented("checkpoint").into())
    }

    async fn kill(&self, context: &TtrpcContext, req: KillRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&req.id)?;
        traced(context, "kill", |_| async move {
            container.kill(&req.exec_id, req.signal, req.all).await
        })
        .await?;
        Ok(Empty::new())
    }

    async fn exec(&self, context: &TtrpcContext, req: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&req.id)?;
        traced(context, "exec", |_| async move {
            container.add_exec(&req).await
        })
        .await?;
        Ok(Empty::new())
    }

    async fn resize_pty(&self, _: &TtrpcContext, req: ResizePtyRequest) -> ttrpc::Result<Empty> {
        let process = self.container(&req.id)?.process(&req.exec_id)?;
        process.stdio.lock().await.resize(req.width, req.height)?;
        Ok(Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, req: CloseIORequest) -> ttrpc::Result<Empty> {
        let process = self.container(&req.id)?.process(&req.exec_id)?;
        if req.stdin {
            process.stdio.lock().await.close_stdin();
        }
        Ok(Empty::new())
    }

    async fn update(&self, context: &TtrpcContext, req: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&req.id)?;
        traced(context, "update", |parent| async move {
            container
                .update(&req.resources.value, parent.as_deref())
                .await
        })
        .await?;
        Ok(Empty::new())
    }

    async fn wait(&self, _: &TtrpcContext, req: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let process = self.container(&req.id)?.process(&req.exec_id)?;
        let exit = process.wait().await?;
        let mut response = WaitResponse::new();
        response.exit_status = exit.code;
        response.exited_at = MessageField::some(timestamp(exit.time));
        Ok(response)
    }

    async fn stats(&self, _: &TtrpcContext, req: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let container = self.container(&req.id)?;
        let no_cgroup = || Error::NotFound {
            what: "cgroup of container",
            id: req.id.clone(),
        };
        let cgroup = container.cgroup.as_ref().ok_or_else(no_cgroup)?;
        let mut response = StatsResponse::new();
        response.stats = MessageField::some(metrics::read(cgroup));
        Ok(response)
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        req: ConnectRequest,
    ) -> ttrpc::Result<ConnectResponse> {
        let mut response = ConnectResponse::new();
        response.shim_pid = std::process::id();
        response.task_pid = self.container(&req.id).map_or(0, |c| c.init.pid() as u32);
        response.version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(response)
    }

    async fn shutdown(&self, _: &TtrpcContext, req: ShutdownRequest) -> ttrpc::Result<Empty> {
        // While there is a container it needs its shim.
        if req.now || self.slot().is_none() {
            self.stop.send_replace(true);
        }
        Ok(Empty::new())
    }
}

/// containerd's `ProcessDetails` names the exec that a process belongs to.
fn process_info(container: &Container, pid: u32) -> ProcessInfo {
    let mut info = ProcessInfo::new();
    info.pid = pid;
    if let Some(exec_id) = container.exec_of_pid(pid) {
        use containerd_shim_protos::protobuf::Message;
        let mut details = containerd_shim_protos::shim::oci::ProcessDetails::new();
        details.exec_id = exec_id;
        let mut any = Any::new();
        any.type_url = PROCESS_DETAILS.to_owned();
        any.value = details.write_to_bytes().unwrap_or_default();
        info.info = MessageField::some(any);
    }
    info
}
