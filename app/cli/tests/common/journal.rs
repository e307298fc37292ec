//! A client's own journal: what the engine has acknowledged to it, and when on the record of the disk.
//! What was acknowledged is looked for in any engine.

#![allow(dead_code)] // each test binary uses its part

use std::process::Output;

use super::Instance;
use super::cold_engine::ColdEngine;
use super::recorded_disk::Recorder;

/// Where it is looked for.
pub trait Engine {
    /// `docker ARGUMENTS`, whatever its outcome.
    fn docker(&self, arguments: &[&str]) -> Output;

    /// A file of a volume.
    fn volume_file(&self, volume: &str, name: &str) -> Option<String>;

    /// What the engine says of itself when a command fails.
    fn log(&self) -> String;

    /// The lines that a docker command prints.
    fn lines(&self, arguments: &[&str]) -> Result<Vec<String>, String> {
        let output = self.docker(arguments);
        if !output.status.success() {
            let error = super::text(&output.stderr);
            let command = arguments.join(" ");
            return Err(format!("docker {command}: {error}{}", self.log()));
        }
        let lines = super::text(&output.stdout);
        Ok(lines.lines().map(str::to_owned).collect())
    }
}

impl Engine for ColdEngine {
    fn docker(&self, arguments: &[&str]) -> Output {
        self.docker(arguments)
    }

    fn volume_file(&self, volume: &str, name: &str) -> Option<String> {
        self.volume_file(volume, name)
    }

    fn log(&self) -> String {
        self.log()
    }
}

impl Engine for Instance {
    fn docker(&self, arguments: &[&str]) -> Output {
        self.docker_output(arguments)
    }

    fn volume_file(&self, volume: &str, name: &str) -> Option<String> {
        let (mount, path) = (format!("{volume}:/volume"), format!("/volume/{name}"));
        let read = ["run", "--rm", "-v", &mount, "busybox", "cat", &path];
        let output = self.docker_output(&read);
        (output.status.success()).then(|| super::text(&output.stdout))
    }

    fn log(&self) -> String {
        String::new()
    }
}

/// Something that a client was told is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// An image of this name.
    Image(String),
    /// A container of this name that ended with this code.
    Exited(String, i32),
    /// A file at the top of a container, with what it holds.
    File(String, String, String),
    /// A file at the top of an image, with what it holds.
    Unpacked(String, String, String),
    Volume(String),
    /// A volume's file `file`, synced by the container that wrote it, and what it holds.
    Written(String, String),
    Network(String),
}

struct Entry {
    fact: Fact,
    /// From here on the record it must be there.
    since: u64,
    /// Until here: its removal was asked for.
    until: Option<u64>,
}

pub struct Journal<'a> {
    recorder: &'a Recorder,
    entries: Vec<Entry>,
}

impl<'a> Journal<'a> {
    pub fn new(recorder: &'a Recorder) -> Self {
        Self {
            recorder,
            entries: Vec::new(),
        }
    }

    /// The client has its answer.
    pub fn acknowledged(&mut self, fact: Fact) {
        self.entries.push(Entry {
            fact,
            since: self.recorder.position(),
            until: None,
        });
    }

    /// The client is about to ask for the removal of what `goes` says.
    pub fn removes(&mut self, goes: impl Fn(&Fact) -> bool) {
        let now = self.recorder.position();
        let gone = self.entries.iter_mut();
        for entry in gone.filter(|entry| entry.until.is_none() && goes(&entry.fact)) {
            entry.until = Some(now);
        }
    }

    /// Where on the record something was acknowledged.
    pub fn moments(&self) -> impl Iterator<Item = u64> + '_ {
        self.entries.iter().map(|entry| entry.since)
    }

    /// What an engine must have whose disk was cut at this position.
    pub fn due(&self, position: u64) -> impl Iterator<Item = &Fact> {
        let holds = move |entry: &&Entry| {
            entry.since <= position && entry.until.is_none_or(|until| position <= until)
        };
        self.entries.iter().filter(holds).map(|entry| &entry.fact)
    }
}

/// What an engine on such a disk shows.
pub struct Shown {
    images: Vec<String>,
    containers: Vec<String>,
    volumes: Vec<String>,
    networks: Vec<String>,
}

impl Shown {
    pub fn ask(engine: &impl Engine) -> Result<Self, String> {
        let format = "{{.Names}} {{.State}} {{.Status}}";
        Ok(Self {
            images: engine.lines(&["images", "--format", "{{.Repository}}:{{.Tag}}"])?,
            containers: engine.lines(&["ps", "-a", "--format", format])?,
            volumes: engine.lines(&["volume", "ls", "-q"])?,
            networks: engine.lines(&["network", "ls", "--format", "{{.Name}}"])?,
        })
    }

    /// The names of all containers.
    pub fn containers(&self) -> impl Iterator<Item = &str> {
        self.containers
            .iter()
            .filter_map(|line| line.split(' ').next())
    }

    /// Whether `fact` still holds.
    pub fn has(&self, engine: &impl Engine, fact: &Fact) -> bool {
        match fact {
            Fact::Image(name) => self.images.contains(name),
            Fact::Exited(name, code) => {
                let wanted = format!("{name} exited Exited ({code})");
                self.containers.iter().any(|line| line.starts_with(&wanted))
            }
            Fact::File(container, path, content) => {
                let archive = engine.docker(&["cp", &format!("{container}:{path}"), "-"]);
                super::text(&archive.stdout).contains(content)
            }
            Fact::Unpacked(image, path, content) => {
                let made = engine.docker(&["create", image]);
                let container = super::text(&made.stdout).trim().to_owned();
                let archive = engine.docker(&["cp", &format!("{container}:{path}"), "-"]);
                engine.docker(&["rm", &container]);
                super::text(&archive.stdout).contains(content)
            }
            Fact::Volume(name) => self.volumes.contains(name),
            Fact::Written(volume, content) => {
                engine.volume_file(volume, "file").as_deref() == Some(content)
            }
            Fact::Network(name) => self.networks.contains(name),
        }
    }
}
