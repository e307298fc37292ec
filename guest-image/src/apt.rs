//! A private apt root: Debian's packages of any suite and architecture, without touching the system.

use crate::lock::Package;
use crate::sources::{Mirror, stanza_field};
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, thiserror::Error)]
pub enum AptError {
    #[error("prepare the private apt root in {path}: {source}")]
    Prepare {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("run {command}: {source}")]
    Run {
        command: String,
        source: std::io::Error,
    },
    #[error("{command} failed: {output}")]
    Failed { command: String, output: String },
    #[error("the mirror has no package {0}")]
    NoPackage(String),
    #[error("{command} brought no file {file}")]
    NotDownloaded { command: String, file: PathBuf },
}

/// The private root; [`AptRoot::update`] makes it usable.
pub struct AptRoot {
    folder: PathBuf,
    architecture: String,
}

impl AptRoot {
    /// `architecture` as Debian names it (`amd64`, `arm64`).
    pub fn new(
        folder: &Path,
        mirror: &Mirror,
        suite: &str,
        architecture: &str,
    ) -> Result<Self, AptError> {
        let prepare = |source| AptError::Prepare {
            path: folder.into(),
            source,
        };
        for sub in ["lists/partial", "cache/archives/partial", "empty"] {
            std::fs::create_dir_all(folder.join(sub)).map_err(prepare)?;
        }
        let line = format!(
            "deb [signed-by={}] {} {suite} main\n",
            mirror.keyring.display(),
            mirror.uri
        );
        std::fs::write(folder.join("sources.list"), line).map_err(prepare)?;
        std::fs::write(folder.join("status"), "").map_err(prepare)?;
        Ok(Self {
            folder: folder.canonicalize().map_err(prepare)?,
            architecture: architecture.into(),
        })
    }

    pub fn update(&self) -> Result<(), AptError> {
        run(self.command("apt-get").args(["-q", "update"])).map(drop)
    }

    /// The stanza of the newest version.
    fn show(&self, name: &str) -> Result<String, AptError> {
        let output = run(self
            .command("apt-cache")
            .args(["show", "--no-all-versions", name]))
        .map_err(|_| AptError::NoPackage(name.into()))?;
        match output.split("\n\n").next() {
            Some(stanza) if !stanza.trim().is_empty() => Ok(stanza.into()),
            _ => Err(AptError::NoPackage(name.into())),
        }
    }

    pub fn newest(&self, name: &str) -> Result<Package, AptError> {
        let stanza = self.show(name)?;
        let version = stanza_field(&stanza, "Version");
        // `Source: name (version)`; each part is left out when it is the package's own.
        let source = stanza_field(&stanza, "Source");
        let (source, source_version) = match source.split_once(" (") {
            Some((source, version)) => (source.into(), version.trim_end_matches(')').into()),
            None if source.is_empty() => (name.into(), version.clone()),
            None => (source, version.clone()),
        };
        Ok(Package {
            name: name.into(),
            version,
            sha256: stanza_field(&stanza, "SHA256"),
            source,
            source_version,
        })
    }

    /// The package that a meta package like `linux-image-cloud-amd64` stands for: its first dependency.
    pub fn behind_meta(&self, meta: &str) -> Result<String, AptError> {
        let stanza = self.show(meta)?;
        let depends = stanza_field(&stanza, "Depends");
        let first = depends.split([',', '|', ' ']).next().unwrap_or_default();
        if first.is_empty() {
            Err(AptError::NoPackage(meta.into()))
        } else {
            Ok(first.into())
        }
    }

    /// Downloads one version into `folder`, under apt's name for it.
    pub fn download(&self, name: &str, version: &str, folder: &Path) -> Result<PathBuf, AptError> {
        let wanted = format!("{name}={version}");
        let mut command = self.command("apt-get");
        command
            .current_dir(folder)
            .args(["-q", "download", &wanted]);
        run(&mut command)?;
        let escaped = version.replace(':', "%3a");
        for architecture in [self.architecture.as_str(), "all"] {
            let file = folder.join(format!("{name}_{escaped}_{architecture}.deb"));
            if file.exists() {
                return Ok(file);
            }
        }
        let file = folder.join(format!("{name}_{escaped}_{}.deb", self.architecture));
        Err(AptError::NotDownloaded {
            command: format!("{command:?}"),
            file,
        })
    }

    fn command(&self, program: &str) -> Command {
        let folder = self.folder.display();
        let mut command = Command::new(program);
        for option in [
            format!("APT::Architecture={}", self.architecture),
            format!("APT::Architectures::={}", self.architecture),
            format!("Dir::State::Lists={folder}/lists"),
            format!("Dir::State::Status={folder}/status"),
            format!("Dir::Cache={folder}/cache"),
            format!("Dir::Etc::SourceList={folder}/sources.list"),
            format!("Dir::Etc::SourceParts={folder}/empty"),
            format!("Dir::Etc::Preferences={folder}/empty/none"),
            format!("Dir::Etc::PreferencesParts={folder}/empty"),
            "APT::Sandbox::User=".into(),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=3".into(),
        ] {
            command.arg("-o").arg(option);
        }
        command
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// Runs to the end and gives what it printed.
pub fn run(command: &mut Command) -> Result<String, AptError> {
    let name = || command.get_program().to_string_lossy().into_owned();
    let shown = name();
    let output = command.output().map_err(|source| AptError::Run {
        command: shown.clone(),
        source,
    })?;
    if !output.status.success() {
        let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stdout));
        return Err(AptError::Failed {
            command: shown,
            output: text.trim().into(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
