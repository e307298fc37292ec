//! Tasks: what runs. A shim per task, started, asked, watched, and found again after a restart.

pub mod bundle;
mod calls;
mod launch;
pub mod service;
mod shim;
mod shim_log;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use containerd_shim_protos::api::{
    CreateTaskRequest as ShimCreate, CreateTaskResponse, DeleteRequest, DeleteResponse,
    ShutdownRequest, StateRequest, StateResponse,
};
use containerd_shim_protos::protobuf::well_known_types::empty::Empty;
use longshore_supervisor_api::events::{TaskDelete, TaskExit};
use longshore_supervisor_api::services::v1::{Container, CreateTaskRequest};
use longshore_supervisor_api::types::RuntimeRequest;
use prost::Message;
use prost_types::Any;
use tokio::net::UnixStream;

pub use shim::{Exit, Life, Shim};

use crate::core::{Core, Paths, now};
use crate::error::{Error, IoStep, Result, blocking};
use crate::request::Scope;
use bundle::Bundle;
use shim::{from_shim_time, to_shim_any};

type Key = (String, String);

/// Ends of tasks whose shim died, for whoever asks later.
const GRAVES: usize = 256;

pub struct Tasks {
    core: Arc<Core>,
    shims: RwLock<HashMap<Key, Arc<Shim>>>,
    graves: Mutex<VecDeque<(Key, Exit)>>,
}

impl Tasks {
    pub fn new(core: Arc<Core>) -> Arc<Self> {
        Arc::new(Self {
            core,
            shims: RwLock::default(),
            graves: Mutex::default(),
        })
    }

    pub fn shim(&self, namespace: &str, id: &str) -> Result<Arc<Shim>> {
        self.shims
            .read()
            .expect("no panic under this lock")
            .get(&(namespace.into(), id.into()))
            .cloned()
            .ok_or_else(|| Error::NotFound(format!("task {id}")))
    }

    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<Shim>> {
        let shims = self.shims.read().expect("no panic under this lock");
        shims
            .values()
            .filter(|shim| shim.bundle.namespace == namespace)
            .cloned()
            .collect()
    }

    /// How a task ended whose shim is dead.
    pub fn grave(&self, namespace: &str, id: &str) -> Option<Exit> {
        let graves = self.graves.lock().expect("no panic under this lock");
        let found = graves
            .iter()
            .rev()
            .find(|((ns, name), _)| ns == namespace && name == id);
        found.map(|(_, exit)| exit.clone())
    }

    pub fn forget_grave(&self, namespace: &str, id: &str) {
        let mut graves = self.graves.lock().expect("no panic under this lock");
        graves.retain(|((ns, name), _)| ns != namespace || name != id);
    }

    /// Starts a shim and has it create the container. Returns the init process's id.
    pub async fn create(
        self: &Arc<Self>,
        scope: &Scope,
        container: Container,
        request: CreateTaskRequest,
    ) -> Result<u32> {
        let runtime = container.runtime.unwrap_or_default();
        let name = if request.runtime_path.is_empty() {
            &runtime.name
        } else {
            &request.runtime_path
        };
        let binary = launch::find_binary(name)?;
        let bundle = Bundle::locate(&self.core.paths, &scope.namespace, &container.id);
        let spec = container.spec.unwrap_or_default().value;
        let options = runtime
            .options
            .as_ref()
            .map(Message::encode_to_vec)
            .unwrap_or_default();
        bundle.create(&spec, &binary, &options)?;
        self.forget_grave(&scope.namespace, &container.id);
        let created = self
            .create_in(&bundle, &binary, options, scope, request, runtime.options)
            .await;
        if created.is_err() {
            self.undo(&bundle).await;
        }
        created
    }

    async fn create_in(
        self: &Arc<Self>,
        bundle: &Bundle,
        binary: &Path,
        options: Vec<u8>,
        scope: &Scope,
        request: CreateTaskRequest,
        runtime_options: Option<Any>,
    ) -> Result<u32> {
        shim_log::create(bundle).step(|| format!("creating the log of {}", bundle.id))?;
        // A reader before the shim opens it for writing; the shim's own follower comes with `connect`.
        let early = shim_log::follow(bundle);
        let trace = longshore_trace::current().map(|context| context.to_string());
        let trace = trace.or_else(|| scope.traceparent.clone());
        let started =
            launch::start(&self.core.paths, bundle, binary, options, trace.as_deref()).await;
        let bootstrap = started?;
        let kept = serde_json::to_vec(&bootstrap)
            .map_err(|e| Error::Other(format!("encoding bootstrap.json: {e}")))?;
        bundle.write("bootstrap.json", &kept)?;
        let (shim, watched) = Shim::connect(bundle.clone(), &bootstrap).await?;
        if let Some(early) = early {
            early.abort();
        }
        let shim = self.adopt(shim, watched);
        let answer: CreateTaskResponse = shim
            .call("Create", &create_message(bundle, request, runtime_options))
            .await?;
        Ok(answer.pid)
    }

    /// Takes back a creation that failed.
    async fn undo(&self, bundle: &Bundle) {
        if let Ok(shim) = self.shim(&bundle.namespace, &bundle.id) {
            shim.life.send_replace(Life::Deleted);
            self.forget(bundle);
            let request = DeleteRequest {
                id: bundle.id.clone(),
                ..DeleteRequest::default()
            };
            let _: Result<DeleteResponse> = shim.call("Delete", &request).await;
            shut_down(&shim).await;
        }
        if let Err(error) = launch::delete(&self.core.paths, bundle).await {
            tracing::debug!(id = bundle.id, %error, "shim delete after a failed creation");
        }
        remove_bundle(bundle).await;
    }

    fn forget(&self, bundle: &Bundle) {
        let key = (bundle.namespace.clone(), bundle.id.clone());
        self.shims
            .write()
            .expect("no panic under this lock")
            .remove(&key);
    }

    /// Keeps a shim and watches it.
    fn adopt(self: &Arc<Self>, shim: Shim, watched: UnixStream) -> Arc<Shim> {
        let shim = Arc::new(shim);
        let key = (shim.bundle.namespace.clone(), shim.bundle.id.clone());
        self.shims
            .write()
            .expect("no panic under this lock")
            .insert(key, shim.clone());
        let (tasks, watched_shim) = (self.clone(), Arc::downgrade(&shim));
        tokio::spawn(async move {
            shim::closed(watched).await;
            let Some(shim) = watched_shim.upgrade() else {
                return;
            };
            if *shim.life.borrow() == Life::Alive {
                tracing::warn!(id = shim.bundle.id, "shim died");
                let exit = tasks.bury(&shim.bundle).await;
                shim.life.send_replace(Life::Dead(exit));
            }
        });
        shim
    }

    /// Cleans up after a dead shim and tells how its container ended.
    async fn bury(&self, bundle: &Bundle) -> Exit {
        let exit = match launch::delete(&self.core.paths, bundle).await {
            Ok(answer) => Exit {
                pid: answer.pid,
                status: answer.exit_status,
                at: from_shim_time(answer.exited_at).or_else(now),
            },
            Err(error) => {
                tracing::warn!(id = bundle.id, %error, "cleaning up after a dead shim");
                Exit {
                    pid: 0,
                    status: 255,
                    at: now(),
                }
            }
        };
        {
            let mut graves = self.graves.lock().expect("no panic under this lock");
            if graves.len() == GRAVES {
                graves.pop_front();
            }
            graves.push_back(((bundle.namespace.clone(), bundle.id.clone()), exit.clone()));
        }
        self.forget(bundle);
        remove_bundle(bundle).await;
        self.publish_exit(bundle, &exit);
        let event = TaskDelete {
            container_id: bundle.id.clone(),
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: exit.at,
            id: String::new(),
        };
        self.core
            .events
            .publish(&bundle.namespace, "/tasks/delete", &event);
        exit
    }

    fn publish_exit(&self, bundle: &Bundle, exit: &Exit) {
        let event = TaskExit {
            container_id: bundle.id.clone(),
            id: bundle.id.clone(),
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: exit.at,
        };
        self.core
            .events
            .publish(&bundle.namespace, "/tasks/exit", &event);
    }

    /// Deletes a stopped task with its shim.
    pub async fn delete(&self, namespace: &str, id: &str) -> Result<Exit> {
        let shim = match self.shim(namespace, id) {
            Ok(shim) => shim,
            Err(error) => {
                let exit = self.grave(namespace, id).ok_or(error)?;
                self.forget_grave(namespace, id);
                return Ok(exit);
            }
        };
        let request = DeleteRequest {
            id: id.into(),
            ..DeleteRequest::default()
        };
        let answer: DeleteResponse = shim.call("Delete", &request).await?;
        shim.life.send_replace(Life::Deleted);
        self.forget(&shim.bundle);
        shut_down(&shim).await;
        remove_bundle(&shim.bundle).await;
        Ok(Exit {
            pid: answer.pid,
            status: answer.exit_status,
            at: from_shim_time(answer.exited_at),
        })
    }

    /// Finds the shims of the last life again, and cleans up after those that died meanwhile.
    pub async fn restore(self: &Arc<Self>) {
        let paths = self.core.paths.clone();
        match blocking(move || bundle::remove_stray_work(&paths)).await {
            Ok(0) => {}
            Ok(strays) => tracing::info!(strays, "removed work folders without a task"),
            Err(error) => tracing::warn!(%error, "removing work folders without a task"),
        }
        let bundles = bundle::all(&self.core.paths);
        futures::future::join_all(bundles.into_iter().map(|bundle| self.restore_one(bundle))).await;
    }

    async fn restore_one(self: &Arc<Self>, bundle: Bundle) {
        let connected = match bundle.bootstrap() {
            Some(bootstrap) => Shim::connect(bundle.clone(), &bootstrap).await,
            None => Err(Error::NotFound("the shim's address".into())),
        };
        let (shim, watched) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                tracing::info!(id = bundle.id, %error, "a shim died while we were away");
                self.bury(&bundle).await;
                return;
            }
        };
        let shim = self.adopt(shim, watched);
        let request = StateRequest {
            id: bundle.id.clone(),
            ..StateRequest::default()
        };
        match shim.call::<_, StateResponse>("State", &request).await {
            // Its exit may have been published while nobody could hear it.
            Ok(state) if state.status.value() == 3 => {
                let exit = Exit {
                    pid: state.pid,
                    status: state.exit_status,
                    at: from_shim_time(state.exited_at),
                };
                self.publish_exit(&bundle, &exit);
            }
            Ok(_) => {}
            // Started, but the container was not created before we died.
            Err(error) if error.is_not_found() => self.undo(&bundle).await,
            Err(error) => tracing::warn!(id = bundle.id, %error, "asking a shim for its state"),
        }
    }
}

fn create_message(
    bundle: &Bundle,
    request: CreateTaskRequest,
    runtime_options: Option<Any>,
) -> ShimCreate {
    let options = request
        .options
        .filter(|options| !options.value.is_empty())
        .or(runtime_options);
    let mounts = request.rootfs.into_iter().map(|mount| {
        let mut rootfs = containerd_shim_protos::api::Mount::new();
        rootfs.type_ = mount.r#type;
        rootfs.source = mount.source;
        rootfs.target = mount.target;
        rootfs.options = mount.options;
        rootfs
    });
    ShimCreate {
        id: bundle.id.clone(),
        bundle: bundle.path.display().to_string(),
        rootfs: mounts.collect(),
        terminal: request.terminal,
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        options: to_shim_any(options),
        ..ShimCreate::default()
    }
}

async fn shut_down(shim: &Shim) {
    let request = ShutdownRequest {
        id: shim.bundle.id.clone(),
        ..ShutdownRequest::default()
    };
    // It may close the connection before it answers.
    let _: Result<Empty> = shim.call("Shutdown", &request).await;
}

async fn remove_bundle(bundle: &Bundle) {
    let removed = bundle.clone();
    if let Err(error) = blocking(move || removed.remove()).await {
        tracing::warn!(id = bundle.id, %error, "removing a bundle");
    }
}

/// What the runtime says about itself: `containerd.types.RuntimeInfo`.
pub async fn runtime_info(_: &Paths, options: Any) -> Result<Any> {
    let request: RuntimeRequest = crate::streams::from_any(&options)?;
    let name = match request.runtime_path.as_str() {
        "" => "io.containerd.longshore.v2",
        name => name,
    };
    let binary = launch::find_binary(name)?;
    let input = request
        .options
        .map(|options| options.encode_to_vec())
        .unwrap_or_default();
    let value = launch::info(&binary, input).await?;
    Ok(Any {
        type_url: "containerd.types.RuntimeInfo".into(),
        value,
    })
}
