//! What a build needs of the engine it runs on.

use std::io;
use std::path::Path;

use crate::config::Config;
use crate::error::Result;

/// An image that a step starts from or made.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// `sha256:…`
    pub id: String,
    pub config: Config,
    /// The base for `FROM scratch`, which has no id and nothing in it.
    pub is_scratch: bool,
}

impl Image {
    pub fn scratch() -> Self {
        Self {
            is_scratch: true,
            ..Self::default()
        }
    }

    /// Twelve digits, as the builder prints ids.
    pub fn short(&self) -> &str {
        let hex = self.id.trim_start_matches("sha256:");
        hex.get(..12).unwrap_or(hex)
    }
}

/// An image's file system to look at, for as long as the value lives.
pub trait Mounted: Send + Sync {
    fn path(&self) -> &Path;
}

/// A command that changes the file system.
#[derive(Clone, Debug)]
pub struct Run {
    pub image: Image,
    /// With the environment of build arguments; its command is what runs, its entrypoint is none.
    pub config: Config,
}

/// A container whose command has ended.
#[derive(Clone, Debug)]
pub struct Ran {
    pub container: String,
    pub code: i32,
}

/// An image to be made on top of another.
#[derive(Clone, Debug, Default)]
pub struct NewImage {
    /// `None`: on nothing.
    pub parent: Option<String>,
    pub config: Config,
    /// The history's line.
    pub created_by: String,
    pub author: String,
    /// What the cache finds the image by: see [`Engine::cached`].
    pub cache_key: String,
}

/// Makes containers and images. Every error is the text that the user reads.
#[async_trait::async_trait]
pub trait Engine: Send + Sync {
    /// An image that is here, by name or id, with its configuration; `None` when it is not.
    async fn find(&self, name: &str) -> Result<Option<Image>>;

    /// Pulls an image, telling `output` how it goes.
    async fn pull(&self, name: &str, output: &dyn Output) -> Result<()>;

    /// An image that an earlier build made on `parent` under this key, if it is still here.
    async fn cached(&self, parent: Option<&str>, key: &str) -> Result<Option<Image>>;

    async fn mount(&self, image: &Image) -> Result<Box<dyn Mounted>>;

    /// Makes a container for [`Engine::run`]; its id.
    async fn create(&self, run: &Run) -> Result<String>;

    /// Runs a container's command to its end, its output going to `output`. Cancelled with the build.
    async fn run(&self, container: &str, output: &dyn Output) -> Result<Ran>;

    /// A container's changes as an image.
    async fn commit(&self, container: &str, new: NewImage) -> Result<Image>;

    /// An image with another configuration and the same files.
    async fn configure(&self, new: NewImage) -> Result<Image>;

    /// An image with the files of a tar archive put over those of its parent; names start at the root.
    async fn add(&self, new: NewImage, archive: Archive) -> Result<Image>;

    async fn remove(&self, container: &str);
}

/// Writes a tar archive, on a thread that may block.
pub type Archive = Box<dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + Send>;

/// Where the build's words go.
#[async_trait::async_trait]
pub trait Output: Send + Sync {
    /// What the builder and its commands say on standard output.
    async fn say(&self, text: &str);
    /// What commands say on standard error, and warnings.
    async fn warn(&self, text: &str);
    /// The id of an image that the build made.
    async fn made(&self, id: &str);
}
