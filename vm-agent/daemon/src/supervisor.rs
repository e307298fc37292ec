//! Clients of the supervisor's containerd services, over one connection that comes back by itself.

use crate::config::NAMESPACE;
use crate::error::{ApiError, ApiResult};
use crate::trace_context;
use hyper_util::rt::TokioIo;
use longshore_supervisor_api::services::v1 as services;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// The messages of containerd's API.
pub mod api {
    pub use longshore_supervisor_api::services::v1::*;
    pub use longshore_supervisor_api::{events, types};
}

/// A restarting supervisor is waited for this long.
const RESTART_PATIENCE: Duration = Duration::from_secs(20);
/// Between tries while nobody listens; with init's socket the connection itself waits instead.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Snapshots' and images' answers may be long lists.
const MESSAGE_LIMIT: usize = 64 << 20;

pub type Connection = InterceptedService<Channel, AddContext>;

/// Puts the namespace and the trace parent into every call's metadata.
#[derive(Clone)]
pub struct AddContext;

impl tonic::service::Interceptor for AddContext {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(
            "containerd-namespace",
            MetadataValue::from_static(NAMESPACE),
        );
        let onward = longshore_trace::current().map(|context| context.to_string());
        if let Ok(value) = onward.unwrap_or_else(trace_context::current).parse() {
            metadata.insert("traceparent", value);
        }
        Ok(request)
    }
}

/// Cheap to clone; all clones share the connection.
#[derive(Clone)]
pub struct Supervisor {
    connection: Connection,
    /// How long a restarting supervisor is waited for.
    patience: Duration,
}

macro_rules! clients {
    ($($name:ident: $client:ty, $what:literal;)*) => {$(
        #[doc = $what]
        pub fn $name(&self) -> $client {
            <$client>::new(self.connection.clone()).max_decoding_message_size(MESSAGE_LIMIT)
        }
    )*};
}

impl Supervisor {
    /// Connects at the first call, and again whenever the connection has broken.
    pub fn connect_lazily(socket: &Path) -> Self {
        let socket: PathBuf = socket.to_owned();
        let connector = tower::service_fn(move |_: http::Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://supervisor")
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        let channel = endpoint.connect_with_connector_lazy(connector);
        Supervisor {
            connection: InterceptedService::new(channel, AddContext),
            patience: RESTART_PATIENCE,
        }
    }

    clients! {
        containers: services::containers_client::ContainersClient<Connection>, "Container records.";
        content: services::content_client::ContentClient<Connection>, "Blobs by digest.";
        diff: services::diff_client::DiffClient<Connection>, "Layers from and to archives.";
        events: services::events_client::EventsClient<Connection>, "What happens to tasks.";
        images: services::images_client::ImagesClient<Connection>, "Image records.";
        introspection: services::introspection_client::IntrospectionClient<Connection>, "Plugins.";
        leases: services::leases_client::LeasesClient<Connection>, "What garbage collection spares.";
        namespaces: services::namespaces_client::NamespacesClient<Connection>, "Namespaces.";
        snapshots: services::snapshots::snapshots_client::SnapshotsClient<Connection>, "Root file systems.";
        streaming: services::streaming_client::StreamingClient<Connection>, "Byte streams for transfers.";
        tasks: services::tasks_client::TasksClient<Connection>, "Running containers.";
        transfer: services::transfer_client::TransferClient<Connection>, "Pull, load, import, export.";
        version: services::version_client::VersionClient<Connection>, "The supervisor's version.";
    }

    /// Makes a call that may be made twice, again and again until the supervisor answers or patience ends.
    pub async fn retry<T, F, Call>(&self, mut call: Call) -> Result<T, Status>
    where
        Call: FnMut(Supervisor) -> F,
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.patience;
        loop {
            match call(self.clone()).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if is_restart(&status) && Instant::now() < deadline => {
                    tracing::debug!(%status, "the supervisor is away; trying again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(status) => return Err(status),
            }
        }
    }

    /// Takes away what never comes back under its name, by a call that may be made twice ([`Self::retry`]); what is gone already is no
    /// error. When the supervisor stays away for longer than a call waits, this goes on in the background: nothing else would take it
    /// away before the daemon's next start.
    pub async fn take_away<T, F>(
        &self,
        mut call: impl FnMut(Supervisor) -> F + Send + 'static,
    ) -> Result<(), Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<tonic::Response<T>, Status>> + Send + 'static,
    {
        let first = unless_gone(self.retry(&mut call).await);
        if is_away(&first) {
            let supervisor = self.clone();
            tokio::spawn(async move {
                while is_away(&unless_gone(supervisor.retry(&mut call).await)) {}
            });
        }
        first
    }

    /// Creates the namespace, which every other call needs.
    pub async fn ensure_namespace(&self) -> ApiResult<()> {
        let namespace = services::Namespace {
            name: NAMESPACE.to_owned(),
            labels: Default::default(),
        };
        let create = services::CreateNamespaceRequest {
            namespace: Some(namespace),
        };
        let created = self.retry(|supervisor| {
            let create = create.clone();
            async move { supervisor.namespaces().create(create).await }
        });
        match created.await {
            Err(status) if status.code() != Code::AlreadyExists => {
                Err(ApiError::from(status).context("creating the namespace at the supervisor"))
            }
            _ => Ok(()),
        }
    }
}

/// What is not there need not be taken away.
pub fn unless_gone<T>(taken_away: Result<T, Status>) -> Result<(), Status> {
    match taken_away {
        Err(status) if status.code() != Code::NotFound => Err(status),
        _ => Ok(()),
    }
}

/// Whether the supervisor stayed away for longer than a call waits.
pub fn is_away(done: &Result<(), Status>) -> bool {
    done.as_ref().is_err_and(is_restart)
}

/// Whether a call failed because the connection broke or could not be made, rather than by its own fault.
pub fn is_restart(status: &Status) -> bool {
    use std::error::Error;
    match status.code() {
        Code::Unavailable => true,
        // A connection that ends in the middle of a call: h2 and hyper errors come without a code of the server's.
        Code::Unknown | Code::Internal | Code::Cancelled => status.source().is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn impatient() -> Supervisor {
        Supervisor {
            patience: Duration::ZERO,
            ..Supervisor::connect_lazily(Path::new("/nonexistent"))
        }
    }

    #[tokio::test]
    async fn what_is_to_go_goes_when_the_supervisor_is_back() {
        let calls = Arc::new(AtomicU32::new(0));
        let gone = Arc::new(tokio::sync::Notify::new());
        let (counted, notify) = (calls.clone(), gone.clone());
        let supervisor = impatient();
        let removed = supervisor.take_away(move |_| {
            let (call, notify) = (counted.fetch_add(1, Ordering::Relaxed), notify.clone());
            async move {
                if call < 3 {
                    return Err(Status::unavailable("restarting"));
                }
                notify.notify_one();
                Ok(tonic::Response::new(()))
            }
        });
        assert_eq!(removed.await.unwrap_err().code(), Code::Unavailable);
        gone.notified().await;
        assert_eq!(calls.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn an_answer_is_asked_for_once() {
        let table = [
            (Status::failed_precondition("it has a child"), false),
            (Status::not_found("it is gone"), true),
        ];
        for (answer, taken_away) in table {
            let calls = Arc::new(AtomicU32::new(0));
            let counted = calls.clone();
            let refusal = answer.clone();
            let supervisor = impatient();
            let removed = supervisor.take_away(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
                let refusal = refusal.clone();
                async { Err::<tonic::Response<()>, _>(refusal) }
            });
            assert_eq!(removed.await.is_ok(), taken_away, "{answer}");
            // What goes on in the background would have asked meanwhile.
            tokio::task::yield_now().await;
            assert_eq!(calls.load(Ordering::Relaxed), 1, "{answer}");
        }
    }
}
