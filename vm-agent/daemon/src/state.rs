//! The daemon's parts, shared by every request.

use crate::config::{Config, Options};
use crate::container::Containers;
use crate::error::ApiResult;
use crate::event::Events;
use crate::exec::Execs;
use crate::image::Images;
use crate::network::Networks;
use crate::supervisor::Supervisor;
use crate::volume::Volumes;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What the other parts are built from.
#[derive(Clone)]
pub struct Parts {
    pub config: Arc<Config>,
    pub supervisor: Supervisor,
    pub events: Events,
    /// A random id of this data root, kept in `engine-id`; `docker info` shows it.
    pub engine_id: String,
}

pub struct Daemon {
    pub config: Arc<Config>,
    pub supervisor: Supervisor,
    pub events: Events,
    pub engine_id: String,
    pub containers: Containers,
    pub execs: Execs,
    pub networks: Networks,
    pub images: Images,
    pub volumes: Volumes,
    /// Cancelled when the machine ends: no container starts any more.
    pub closing: CancellationToken,
}

impl Daemon {
    /// Reads what is on disk; does not need the supervisor to be there yet.
    pub async fn open(options: Options) -> ApiResult<Arc<Self>> {
        let config = Arc::new(Config::load(options)?);
        std::fs::create_dir_all(&config.options.data_root)?;
        let parts = Parts {
            supervisor: Supervisor::connect_lazily(&config.options.containerd),
            events: Events::open(config.data("longshore")),
            engine_id: engine_id(&config)?,
            config,
        };
        let containers = Containers::open(&parts).await?;
        let daemon = Daemon {
            execs: Execs::new(containers.clone()),
            containers,
            networks: Networks::open(&parts).await?,
            images: Images::open(&parts).await?,
            volumes: Volumes::open(&parts).await?,
            config: parts.config,
            supervisor: parts.supervisor,
            events: parts.events,
            engine_id: parts.engine_id,
            closing: CancellationToken::new(),
        };
        let daemon = Arc::new(daemon);
        daemon.containers.reference_volumes(&daemon);
        tokio::spawn(crate::container::oom::watch(daemon.clone()));
        tokio::spawn(crate::container::reconcile::run(daemon.clone()));
        Ok(daemon)
    }

    /// `SIGHUP`: settings are read again, and everyone told.
    pub fn reload(&self) {
        match self.config.reload() {
            Ok(()) => {
                let attributes = BTreeMap::from([("name".to_owned(), hostname())]);
                self.events
                    .publish("daemon", "reload", &self.engine_id, attributes);
            }
            Err(error) => tracing::error!(%error, "the configuration stays as it was"),
        }
    }
}

fn engine_id(config: &Config) -> ApiResult<String> {
    let path = config.data("engine-id");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        _ => {
            let id = crate::identity::new_id();
            let dashed = [&id[0..8], &id[8..12], &id[12..16], &id[16..20], &id[20..32]].join("-");
            std::fs::write(&path, &dashed)?;
            Ok(dashed)
        }
    }
}

pub fn hostname() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| "localhost".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}
