//! The tasks service: mostly the shim's own API, with the namespace's bookkeeping around it.

use std::sync::Arc;

use containerd_shim_protos::api as shim_api;
use containerd_shim_protos::protobuf::well_known_types::empty::Empty;
use futures::future::join_all;
use longshore_supervisor_api::server::tasks::Tasks as TasksApi;
use longshore_supervisor_api::services::v1::*;
use longshore_supervisor_api::types::Metric;
use longshore_supervisor_api::types::v1::{Process, ProcessInfo};
use tonic::{Request, Response, Status};
use tracing::Instrument;

use super::shim::{from_shim_any, from_shim_time, to_shim_any};
use super::{Exit, Life, Shim, Tasks};
use crate::core::{Core, now};
use crate::error::{Error, Result};
use crate::filter::Filters;
use crate::request::Scope;
use crate::services::containers;

pub struct TasksService {
    pub core: Arc<Core>,
    pub tasks: Arc<Tasks>,
}

/// A span in the request's trace, so that the shim's spans become its children.
fn span(scope: &Scope, call: &'static str, id: &str) -> tracing::Span {
    match &scope.traceparent {
        Some(traceparent) => tracing::info_span!("task", call, id, traceparent),
        None => tracing::info_span!("task", call, id),
    }
}

async fn state(shim: &Shim, exec_id: &str) -> Result<Process> {
    let request = shim_api::StateRequest {
        id: shim.bundle.id.clone(),
        exec_id: exec_id.into(),
        ..shim_api::StateRequest::default()
    };
    let state: shim_api::StateResponse = shim.call("State", &request).await?;
    Ok(Process {
        container_id: shim.bundle.id.clone(),
        id: if exec_id.is_empty() {
            shim.bundle.id.clone()
        } else {
            exec_id.into()
        },
        pid: state.pid,
        status: state.status.value(),
        stdin: state.stdin,
        stdout: state.stdout,
        stderr: state.stderr,
        terminal: state.terminal,
        exit_status: state.exit_status,
        exited_at: from_shim_time(state.exited_at),
    })
}

async fn stats(shim: &Shim) -> Result<Metric> {
    let request = shim_api::StatsRequest {
        id: shim.bundle.id.clone(),
        ..shim_api::StatsRequest::default()
    };
    let stats: shim_api::StatsResponse = shim.call("Stats", &request).await?;
    Ok(Metric {
        timestamp: now(),
        id: shim.bundle.id.clone(),
        data: from_shim_any(stats.stats),
    })
}

impl TasksService {
    /// Waits for a process; should the shim die first, the task's end is what its cleanup found.
    async fn wait_for(&self, namespace: &str, request: &WaitRequest) -> Result<Exit> {
        let shim = match self.tasks.shim(namespace, &request.container_id) {
            Ok(shim) => shim,
            Err(error) => {
                return self
                    .tasks
                    .grave(namespace, &request.container_id)
                    .ok_or(error);
            }
        };
        let call = shim_api::WaitRequest {
            id: request.container_id.clone(),
            exec_id: request.exec_id.clone(),
            ..shim_api::WaitRequest::default()
        };
        match shim.call::<_, shim_api::WaitResponse>("Wait", &call).await {
            Ok(answer) => Ok(Exit {
                pid: 0,
                status: answer.exit_status,
                at: from_shim_time(answer.exited_at),
            }),
            Err(error @ Error::Unavailable(_)) => {
                let mut life = shim.life.subscribe();
                match &*life
                    .wait_for(|life| *life != Life::Alive)
                    .await
                    .map_err(|_| error)?
                {
                    Life::Dead(exit) => Ok(exit.clone()),
                    _ => Err(Error::NotFound(format!("task {}", request.container_id))),
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// A call that the shim answers as it is: `pass!(self, request, "Method", |fields| message)`.
macro_rules! pass {
    ($self:ident, $request:ident, $method:literal, $message:expr) => {{
        let scope = Scope::of(&$request)?;
        let request = $request.into_inner();
        let shim = $self.tasks.shim(&scope.namespace, &request.container_id)?;
        let span = span(&scope, $method, &request.container_id);
        #[allow(clippy::redundant_closure_call)]
        let message = $message(request);
        let answer = async { shim.call($method, &message).await }
            .instrument(span)
            .await?;
        answer
    }};
}

#[tonic::async_trait]
impl TasksApi for TasksService {
    async fn create(
        &self,
        request: Request<CreateTaskRequest>,
    ) -> Result<Response<CreateTaskResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        if request.checkpoint.is_some() {
            return Err(Error::Unimplemented("restoring a checkpoint".into()).into());
        }
        let id = request.container_id.clone();
        let container = containers::find(&self.core.store.read()?, &scope.namespace, &id)?;
        let span = span(&scope, "Create", &id);
        // On its own: a client that goes away must not leave a task half made.
        let tasks = self.tasks.clone();
        let created = tokio::spawn(
            async move { tasks.create(&scope, container, request).await }.instrument(span),
        );
        let pid = created
            .await
            .map_err(|e| Error::Other(format!("creating {id}: {e}")))??;
        Ok(Response::new(CreateTaskResponse {
            container_id: id,
            pid,
        }))
    }

    async fn start(
        &self,
        request: Request<StartRequest>,
    ) -> Result<Response<StartResponse>, Status> {
        let answer: shim_api::StartResponse = pass!(self, request, "Start", |r: StartRequest| {
            shim_api::StartRequest {
                id: r.container_id,
                exec_id: r.exec_id,
                ..Default::default()
            }
        });
        Ok(Response::new(StartResponse { pid: answer.pid }))
    }

    async fn delete(
        &self,
        request: Request<DeleteTaskRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let scope = Scope::of(&request)?;
        let id = request.into_inner().container_id;
        let span = span(&scope, "Delete", &id);
        let (tasks, name) = (self.tasks.clone(), id.clone());
        let deleted = tokio::spawn(
            async move { tasks.delete(&scope.namespace, &name).await }.instrument(span),
        );
        let exit = deleted
            .await
            .map_err(|e| Error::Other(format!("deleting {id}: {e}")))??;
        Ok(Response::new(DeleteResponse {
            id,
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: exit.at,
        }))
    }

    async fn delete_process(
        &self,
        request: Request<DeleteProcessRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let exec_id = request.get_ref().exec_id.clone();
        let answer: shim_api::DeleteResponse =
            pass!(self, request, "Delete", |r: DeleteProcessRequest| {
                shim_api::DeleteRequest {
                    id: r.container_id,
                    exec_id: r.exec_id,
                    ..Default::default()
                }
            });
        Ok(Response::new(DeleteResponse {
            id: exec_id,
            pid: answer.pid,
            exit_status: answer.exit_status,
            exited_at: from_shim_time(answer.exited_at),
        }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let scope = Scope::of(&request)?;
        let GetRequest {
            container_id,
            exec_id,
        } = request.into_inner();
        let shim = self.tasks.shim(&scope.namespace, &container_id)?;
        let process = state(&shim, &exec_id).await?;
        Ok(Response::new(GetResponse {
            process: Some(process),
        }))
    }

    async fn list(
        &self,
        request: Request<ListTasksRequest>,
    ) -> Result<Response<ListTasksResponse>, Status> {
        let scope = Scope::of(&request)?;
        let shims = self.tasks.in_namespace(&scope.namespace);
        let states = join_all(shims.iter().map(|shim| state(shim, ""))).await;
        // One that went away meanwhile is simply not there.
        let tasks = states.into_iter().filter_map(Result::ok).collect();
        Ok(Response::new(ListTasksResponse { tasks }))
    }

    async fn kill(&self, request: Request<KillRequest>) -> Result<Response<()>, Status> {
        let _: Empty = pass!(self, request, "Kill", |r: KillRequest| {
            shim_api::KillRequest {
                id: r.container_id,
                exec_id: r.exec_id,
                signal: r.signal,
                all: r.all,
                ..Default::default()
            }
        });
        Ok(Response::new(()))
    }

    async fn exec(&self, request: Request<ExecProcessRequest>) -> Result<Response<()>, Status> {
        if request.get_ref().exec_id.is_empty() {
            return Err(Error::InvalidArgument("exec id cannot be empty".into()).into());
        }
        let _: Empty = pass!(self, request, "Exec", |r: ExecProcessRequest| {
            shim_api::ExecProcessRequest {
                id: r.container_id,
                exec_id: r.exec_id,
                terminal: r.terminal,
                stdin: r.stdin,
                stdout: r.stdout,
                stderr: r.stderr,
                spec: to_shim_any(r.spec),
                ..Default::default()
            }
        });
        Ok(Response::new(()))
    }

    async fn resize_pty(&self, request: Request<ResizePtyRequest>) -> Result<Response<()>, Status> {
        let _: Empty = pass!(self, request, "ResizePty", |r: ResizePtyRequest| {
            shim_api::ResizePtyRequest {
                id: r.container_id,
                exec_id: r.exec_id,
                width: r.width,
                height: r.height,
                ..Default::default()
            }
        });
        Ok(Response::new(()))
    }

    async fn close_io(&self, request: Request<CloseIoRequest>) -> Result<Response<()>, Status> {
        let _: Empty = pass!(self, request, "CloseIO", |r: CloseIoRequest| {
            shim_api::CloseIORequest {
                id: r.container_id,
                exec_id: r.exec_id,
                stdin: r.stdin,
                ..Default::default()
            }
        });
        Ok(Response::new(()))
    }

    async fn pause(&self, request: Request<PauseTaskRequest>) -> Result<Response<()>, Status> {
        let _: Empty = pass!(self, request, "Pause", |r: PauseTaskRequest| {
            shim_api::PauseRequest {
                id: r.container_id,
                ..Default::default()
            }
        });
        Ok(Response::new(()))
    }

    async fn resume(&self, request: Request<ResumeTaskRequest>) -> Result<Response<()>, Status> {
        let _: Empty = pass!(self, request, "Resume", |r: ResumeTaskRequest| {
            shim_api::ResumeRequest {
                id: r.container_id,
                ..Default::default()
            }
        });
        Ok(Response::new(()))
    }

    async fn list_pids(
        &self,
        request: Request<ListPidsRequest>,
    ) -> Result<Response<ListPidsResponse>, Status> {
        let answer: shim_api::PidsResponse = pass!(self, request, "Pids", |r: ListPidsRequest| {
            shim_api::PidsRequest {
                id: r.container_id,
                ..Default::default()
            }
        });
        let processes = answer.processes.into_iter().map(|process| ProcessInfo {
            pid: process.pid,
            info: from_shim_any(process.info),
        });
        Ok(Response::new(ListPidsResponse {
            processes: processes.collect(),
        }))
    }

    async fn checkpoint(
        &self,
        _: Request<CheckpointTaskRequest>,
    ) -> Result<Response<CheckpointTaskResponse>, Status> {
        Err(Error::Unimplemented("checkpoint".into()).into())
    }

    async fn update(&self, request: Request<UpdateTaskRequest>) -> Result<Response<()>, Status> {
        let _: Empty = pass!(self, request, "Update", |r: UpdateTaskRequest| {
            shim_api::UpdateTaskRequest {
                id: r.container_id,
                resources: to_shim_any(r.resources),
                annotations: r.annotations,
                ..Default::default()
            }
        });
        Ok(Response::new(()))
    }

    async fn metrics(
        &self,
        request: Request<MetricsRequest>,
    ) -> Result<Response<MetricsResponse>, Status> {
        let scope = Scope::of(&request)?;
        let filters = Filters::parse(&request.into_inner().filters)?;
        let mut shims = self.tasks.in_namespace(&scope.namespace);
        shims.retain(|shim| {
            filters.matches(|path| (path == ["id"]).then(|| shim.bundle.id.clone()))
        });
        let metrics = join_all(shims.iter().map(|shim| stats(shim))).await;
        let metrics = metrics.into_iter().filter_map(Result::ok).collect();
        Ok(Response::new(MetricsResponse { metrics }))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        let scope = Scope::of(&request)?;
        let exit = self
            .wait_for(&scope.namespace, &request.into_inner())
            .await?;
        Ok(Response::new(WaitResponse {
            exit_status: exit.status,
            exited_at: exit.at,
        }))
    }
}
