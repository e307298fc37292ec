//! This engine, as the builder wants it: containers for RUN, snapshots for COPY, images for every step.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use longshore_builder::{
    Archive, Config, Engine, Error, Image, Mounted, NewImage, Output, Ran, Result, Run,
};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::archive;
use crate::container::config::{ContainerConfig, CreateRequest, HostConfig, without_nulls};
use crate::container::{Rootfs, mount_detached, run_attached, step_container};
use crate::error::ApiError;
use crate::image::{ImageRef, Images, NewImage as Written, RegistryAuth};
use crate::state::Daemon;

pub struct BuildEngine {
    daemon: Arc<Daemon>,
    host: HostConfig,
    auth: BTreeMap<String, RegistryAuth>,
    /// Containers that exist now: a build that is broken off takes them along.
    containers: Mutex<Vec<String>>,
}

impl BuildEngine {
    pub fn new(
        daemon: Arc<Daemon>,
        host: HostConfig,
        auth: BTreeMap<String, RegistryAuth>,
    ) -> Self {
        Self {
            daemon,
            host,
            auth,
            containers: Mutex::default(),
        }
    }

    /// The build has ended by itself: containers that it left standing are the user's.
    pub fn keep_containers(&self) {
        self.containers().clear();
    }

    fn images(&self) -> &Images {
        &self.daemon.images
    }

    fn containers(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.containers
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    async fn write(&self, new: NewImage, layer: Option<crate::image::NewLayer>) -> Result<Image> {
        let config = match serde_json::to_value(&new.config) {
            Ok(Value::Object(config)) => config,
            _ => serde_json::Map::new(),
        };
        let labels = HashMap::from([(Images::CACHE_LABEL.to_owned(), new.cache_key)]);
        let written = Written {
            parent: new.parent,
            config,
            layer,
            created_by: new.created_by,
            author: new.author,
            labels,
            ..Written::default()
        };
        let (id, _) = self.images().write(written).await.map_err(engine)?;
        Ok(Image {
            id,
            config: new.config,
            is_scratch: false,
        })
    }
}

/// Whatever the build leaves behind when its client goes is taken away.
impl Drop for BuildEngine {
    fn drop(&mut self) {
        let containers = std::mem::take(&mut *self.containers());
        let daemon = self.daemon.clone();
        for id in containers {
            let daemon = daemon.clone();
            tokio::spawn(async move { crate::container::take_down(&daemon, &id).await });
        }
    }
}

fn engine(error: ApiError) -> Error {
    Error::Engine(error.message)
}

fn image(found: ImageRef) -> Result<Image> {
    let mut config = Value::Object(found.config.config.unwrap_or_default());
    without_nulls(&mut config);
    let config: Config = serde_json::from_value(config)
        .map_err(|error| Error::Engine(format!("the image's configuration: {error}")))?;
    Ok(Image {
        id: found.id,
        config,
        is_scratch: false,
    })
}

struct View {
    rootfs: Option<Rootfs>,
    images: Images,
    key: String,
    /// It may be dropped on a thread that knows no runtime.
    runtime: tokio::runtime::Handle,
}

impl Mounted for View {
    fn path(&self) -> &Path {
        self.rootfs
            .as_ref()
            .map_or(Path::new("/nonexistent"), |rootfs| rootfs.path.as_path())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.rootfs = None;
        let (images, key) = (self.images.clone(), self.key.clone());
        self.runtime
            .spawn(async move { images.remove_snapshot(&key).await });
    }
}

#[async_trait::async_trait]
impl Engine for BuildEngine {
    async fn find(&self, name: &str) -> Result<Option<Image>> {
        match self.images().resolve(name).await {
            Ok(found) => image(found).map(Some),
            Err(error) if error.status == http::StatusCode::NOT_FOUND => Ok(None),
            Err(error) => Err(engine(error)),
        }
    }

    async fn pull(&self, name: &str, output: &dyn Output) -> Result<()> {
        let auth = self.auth.clone();
        let mut lines = self
            .images()
            .pull_for_build(name, &auth)
            .await
            .map_err(engine)?;
        while let Some(line) = lines.recv().await {
            let line = line.map_err(engine)?;
            // Progress bars are for terminals; the steps' words stay readable.
            if line["id"].is_null()
                && let Some(status) = line["status"].as_str()
            {
                output.say(&format!("{status}\n")).await;
            }
        }
        Ok(())
    }

    async fn cached(&self, parent: Option<&str>, key: &str) -> Result<Option<Image>> {
        let found = self.images().cached(parent, key).await.map_err(engine)?;
        match found {
            Some(id) => self.find(&id).await,
            None => Ok(None),
        }
    }

    async fn mount(&self, image: &Image) -> Result<Box<dyn Mounted>> {
        let found = self.images().resolve(&image.id).await.map_err(engine)?;
        let key = format!("build-view-{}", crate::identity::new_id());
        let mounts = match found.chain_id.is_empty() {
            true => self.images().prepare(&key, "").await.map_err(engine)?,
            false => self
                .images()
                .view(&key, &found.chain_id)
                .await
                .map_err(engine)?,
        };
        let mut view = View {
            rootfs: None,
            images: self.images().clone(),
            key,
            runtime: tokio::runtime::Handle::current(),
        };
        view.rootfs = Some(mount_detached(mounts).await.map_err(engine)?);
        Ok(Box::new(view))
    }

    async fn create(&self, run: &Run) -> Result<String> {
        let mut value =
            serde_json::to_value(&run.config).map_err(|error| Error::Engine(error.to_string()))?;
        // Volumes of the image would hide what the step changes in them.
        if let Some(members) = value.as_object_mut() {
            members.remove("Volumes");
            members.remove("OnBuild");
        }
        let mut config: ContainerConfig =
            serde_json::from_value(value).map_err(|error| Error::Engine(error.to_string()))?;
        config.image.clone_from(&run.image.id);
        config.attach_stdout = true;
        config.attach_stderr = true;
        let request = CreateRequest {
            config,
            host_config: self.host.clone(),
            ..CreateRequest::default()
        };
        let id = step_container(&self.daemon, request)
            .await
            .map_err(engine)?;
        self.containers().push(id.clone());
        Ok(id)
    }

    async fn run(&self, container: &str, output: &dyn Output) -> Result<Ran> {
        let (sender, mut queue) = mpsc::channel(64);
        let running = run_attached(&self.daemon, container, sender);
        let telling = async {
            while let Some((is_error, bytes)) = queue.recv().await {
                let bytes: bytes::Bytes = bytes;
                let text = String::from_utf8_lossy(&bytes);
                match is_error {
                    true => output.warn(&text).await,
                    false => output.say(&text).await,
                }
            }
        };
        let (code, ()) = tokio::join!(running, telling);
        let code = code.map_err(engine)?;
        Ok(Ran {
            container: container.to_owned(),
            code,
        })
    }

    async fn commit(&self, container: &str, new: NewImage) -> Result<Image> {
        let lease = self.images().lease().await.map_err(engine)?;
        let made = match self.images().layer_of(container, &lease).await {
            Ok(layer) => self.write(new, layer).await,
            Err(error) => Err(engine(error)),
        };
        self.images().release(lease).await;
        made
    }

    async fn configure(&self, new: NewImage) -> Result<Image> {
        self.write(new, None).await
    }

    async fn add(&self, new: NewImage, archive: Archive) -> Result<Image> {
        let parent = match &new.parent {
            Some(parent) => {
                self.images()
                    .resolve(parent)
                    .await
                    .map_err(engine)?
                    .chain_id
            }
            None => String::new(),
        };
        let key = format!("build-{}", crate::identity::new_id());
        let mounts = self.images().prepare(&key, &parent).await.map_err(engine)?;
        let made = async {
            let rootfs = mount_detached(mounts).await.map_err(engine)?;
            let unpacked = tokio::task::spawn_blocking(move || put(&rootfs, archive)).await;
            unpacked
                .map_err(|error| Error::Engine(error.to_string()))?
                .map_err(|error| Error::Engine(format!("failed to copy files: {error}")))?;
            let lease = self.images().lease().await.map_err(engine)?;
            let made = match self.images().layer_of(&key, &lease).await {
                Ok(layer) => self.write(new, layer).await,
                Err(error) => Err(engine(error)),
            };
            self.images().release(lease).await;
            made
        };
        let made = made.await;
        self.images().remove_snapshot(&key).await;
        made
    }

    async fn remove(&self, container: &str) {
        self.containers().retain(|id| id != container);
        crate::container::take_down(&self.daemon, container).await;
    }
}

/// Writes the archive into the root, both ends at once on two threads.
fn put(rootfs: &Rootfs, archive: Archive) -> io::Result<()> {
    let (reader, mut writer) = io::pipe()?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let mut output = io::BufWriter::with_capacity(128 * 1024, &mut writer);
            archive(&mut output)?;
            output.flush()
        });
        let mut reader = io::BufReader::with_capacity(128 * 1024, reader);
        let unpacked = archive::unpack_into(&rootfs.path, &mut reader);
        // What is behind the archive's end mark; the writer must not meet a closed pipe.
        let drained = io::copy(&mut reader.by_ref(), &mut io::sink());
        drop(reader);
        let written = writing
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("packing panicked")));
        unpacked?;
        written?;
        drained.map(drop)
    })
}
