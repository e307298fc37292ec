//! Networks of the Docker API: the bridge driver, its endpoints, published ports and name service.
//!
//! Knows containers by id only; what runs in them is not its concern.

pub mod agent;
mod announce;
mod api;
mod attach;
mod default_bridge;
mod default_pools;
mod definitions;
mod dns;
mod dns_message;
mod driver;
mod endpoint_check;
mod files;
mod ipam;
mod ipam_config;
mod link;
mod link_sysctl;
mod model;
mod netlink;
mod netns;
mod nft;
mod parent;
mod ports;
mod publish;
mod routes;
mod store;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::OnceCell;

use crate::config::Config;
use crate::error::{ApiError, ApiResult};
use crate::event::Events;
use crate::state::Parts;

pub use api::route;
pub use model::{
    ContainerNetworkRequest, EndpointIpam, EndpointSet, EndpointSettings, Network, PortBinding,
    PortMap,
};

pub(crate) use store::write_durably;

use driver::Kernel;
use ipam::Pools;
use model::Sandbox;
use ports::Reservation;
use store::Store;

/// Every network, and what running containers have of them.
#[derive(Clone)]
pub struct Networks {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<Config>,
    /// The digest of it chooses this engine's own IPv6 addresses.
    engine_id: String,
    events: Events,
    store: Store,
    kernel: Kernel,
    prepared: OnceCell<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    networks: BTreeMap<String, Network>,
    pools: HashMap<String, Pools>,
    sandboxes: HashMap<String, Sandbox>,
    /// Ports of the guest held for publications, by their key.
    reservations: HashMap<String, Reservation>,
    name_services: HashMap<String, dns::NameService>,
    next_port: u16,
}

/// Where the namespace of a container's own network is bound.
pub fn netns_path(container_id: &str) -> PathBuf {
    netns::path(crate::identity::short(container_id))
}

impl Networks {
    /// Reads what is kept; the kernel is brought in line in the background, and waited for by whoever needs it.
    pub async fn open(parts: &Parts) -> ApiResult<Self> {
        let store = Store::open(
            &parts.config.options.data_root,
            &parts.config.options.exec_root,
        )
        .map_err(|error| ApiError::from(error).context("opening the networks' state"))?;
        let mut state = State {
            networks: store.load_networks()?,
            ..State::default()
        };
        state.sandboxes = store.load_sandboxes()?;
        let inner = Inner {
            config: parts.config.clone(),
            engine_id: parts.engine_id.clone(),
            events: parts.events.clone(),
            store,
            kernel: Kernel::default(),
            prepared: OnceCell::new(),
            state: Mutex::new(state),
        };
        let networks = Self {
            inner: Arc::new(inner),
        };
        networks.define_predefined()?;
        networks.fill_pools();
        let background = networks.clone();
        tokio::spawn(async move {
            if let Err(error) = background.prepared().await {
                tracing::error!(%error, "preparing networks; tried again when one is needed");
            }
        });
        Ok(networks)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    /// Returns once bridges, filter and name services are as the state says.
    async fn prepared(&self) -> ApiResult<()> {
        self.inner
            .prepared
            .get_or_try_init(|| self.prepare())
            .await
            .copied()
    }

    async fn prepare(&self) -> ApiResult<()> {
        let (networks, forwards, namespaces) = {
            let mut state = self.state();
            self.drop_dead_sandboxes(&mut state);
            let namespaces = state.sandboxes.values();
            let namespaces = namespaces.map(|sandbox| sandbox.netns.clone()).collect();
            let forwards = state.sandboxes.values().flat_map(|sandbox| &sandbox.ports);
            (
                state.networks.values().cloned().collect::<Vec<_>>(),
                forwards.filter_map(driver::forward_of).collect::<Vec<_>>(),
                namespaces,
            )
        };
        self.blocking(move |kernel| {
            netns::keep_only(&namespaces);
            kernel.prepare(&networks, &forwards)
        })
        .await?;
        self.restore_publications();
        self.restore_name_services().await;
        Ok(())
    }

    fn drop_dead_sandboxes(&self, state: &mut State) {
        state.sandboxes.retain(|id, sandbox| {
            let shares_ours = sandbox.netns.as_os_str().is_empty();
            let alive = shares_ours || netns::is_bound(&sandbox.netns);
            if !alive {
                self.inner.store.forget_sandbox(id);
            }
            alive
        });
    }

    /// Runs kernel work off the async threads.
    async fn blocking<T, F>(&self, work: F) -> ApiResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Kernel) -> Result<T, driver::DriverError> + Send + 'static,
    {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || work(&inner.kernel))
            .await
            .map_err(|error| ApiError::internal(format!("network thread: {error}")))?
            .map_err(|error| ApiError::internal(error.to_string()))
    }

    /// Creates a container's network namespace and returns its file.
    pub async fn create_netns(&self, id: &str) -> ApiResult<PathBuf> {
        // Before that one, namespaces that nobody has are swept away.
        self.prepared().await?;
        let path = netns_path(id);
        let target = path.clone();
        self.blocking(move |_| Ok(netns::create(&target)?)).await?;
        Ok(path)
    }

    /// Lets go of a namespace that was created and never attached.
    pub async fn remove_netns(&self, path: &Path) {
        let path = path.to_path_buf();
        let _ = tokio::task::spawn_blocking(move || netns::remove(&path)).await;
    }

    /// By name, id or unambiguous prefix of an id; 404 in Docker's words.
    pub fn find(&self, name: &str) -> ApiResult<Network> {
        let name = if name == "default" { "bridge" } else { name };
        let state = self.state();
        let by_name = state.networks.values().find(|network| network.name == name);
        if let Some(network) = state.networks.get(name).or(by_name) {
            return Ok(network.clone());
        }
        match crate::identity::by_prefix(state.networks.keys().map(String::as_str), name) {
            crate::identity::PrefixMatch::One(id) => Ok(state.networks[id].clone()),
            crate::identity::PrefixMatch::None => {
                Err(ApiError::not_found(format!("network {name} not found")))
            }
            crate::identity::PrefixMatch::Several => Err(ApiError::bad_request(format!(
                "network {name} is ambiguous ({name} matches several network ids)"
            ))),
        }
    }

    /// `resolv.conf` for a container that starts.
    pub fn resolv_conf(&self, request: &ContainerNetworkRequest) -> String {
        files::resolv_conf(request, self.has_name_service(request))
    }

    /// Whether a container gets the embedded name service: one of its networks has it.
    fn has_name_service(&self, request: &ContainerNetworkRequest) -> bool {
        let wanted = self.wanted_networks(request).unwrap_or_default();
        wanted.iter().any(|(network, _)| network.has_name_service())
    }

    /// Checks what a container that is to be created says of its ends; 400 in Docker's words.
    pub fn check_endpoints(&self, endpoints: &BTreeMap<String, EndpointSettings>) -> ApiResult<()> {
        for (name, settings) in endpoints {
            let network = self.find(name).ok();
            endpoint_check::check(name, network.as_ref(), settings).map_err(|wrong| {
                ApiError::bad_request(format!("invalid config for network {name}: {wrong}"))
            })?;
        }
        Ok(())
    }

    /// `/etc/hosts` of a running container after its networks have changed; what others wrote into it stays.
    pub fn updated_hosts(
        &self,
        text: &str,
        request: &ContainerNetworkRequest,
        before: &EndpointSet,
        after: &EndpointSet,
    ) -> String {
        let lines = |set| files::own_lines(request, set);
        files::replace_lines(text, &lines(before), &lines(after))
    }

    /// `/etc/hosts` for a container that has been attached.
    pub fn hosts(
        &self,
        request: &ContainerNetworkRequest,
        linked: &[String],
        set: &EndpointSet,
    ) -> String {
        files::hosts(request, linked, set, self.has_name_service(request))
    }

    /// Networks free no space, and say so.
    fn publish_prune(&self) {
        let attributes = BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]);
        self.inner
            .events
            .publish("network", "prune", "", attributes);
    }

    fn publish_event(&self, action: &str, network: &Network, container: Option<&str>) {
        let mut attributes = BTreeMap::from([
            ("name".to_owned(), network.name.clone()),
            ("type".to_owned(), network.driver.clone()),
        ]);
        if let Some(id) = container {
            attributes.insert("container".to_owned(), id.to_owned());
        }
        self.inner
            .events
            .publish("network", action, &network.id, attributes);
    }
}
