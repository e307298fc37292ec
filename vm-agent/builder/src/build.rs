//! Runs a Dockerfile's instructions.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::change::{self, apply, join};
use crate::config::Config;
use crate::copy::{self, Plan, Source};
use crate::dockerfile::{self, Dockerfile, Instruction};
use crate::engine::{Engine, Image, Mounted, NewImage, Output, Run};
use crate::error::{Error, Result};
use crate::lexer;
use crate::owner::{self, Owner};
use crate::root::Root;
use crate::state::{Arguments, Stage};

/// What the user asked of a build.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The unpacked context.
    pub context: PathBuf,
    /// A value that is `None` was named without one.
    pub arguments: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub target: String,
    pub no_cache: bool,
    pub pull: bool,
    /// Containers of steps are removed: when a step succeeded, and always.
    pub remove: bool,
    pub force_remove: bool,
}

/// The result of a build.
#[derive(Clone, Debug)]
pub struct Built {
    /// `sha256:…`
    pub image: String,
}

struct Build<'a> {
    engine: &'a dyn Engine,
    output: &'a dyn Output,
    options: &'a Options,
    escape: char,
    context: Arc<Root>,
    arguments: Arguments,
    /// Stages that are done, with their names in lower case.
    stages: Vec<(Option<String>, Image)>,
    steps: usize,
    step: usize,
    /// Containers of the step under way.
    containers: Vec<String>,
    /// Containers that were left standing.
    made: usize,
}

/// Builds. Cancelling the future stops the build; the engine ends what runs.
pub async fn build(
    engine: &dyn Engine,
    output: &dyn Output,
    dockerfile: Dockerfile,
    options: &Options,
) -> Result<Built> {
    let Dockerfile {
        mut instructions,
        escape,
    } = dockerfile;
    check_order(&instructions)?;
    if !options.target.is_empty() {
        let end = end_of_target(&instructions, &options.target)?;
        instructions.truncate(end);
    }
    let context = Root::open(&options.context).map_err(Error::io("opening the build context"))?;
    let mut build = Build {
        engine,
        output,
        options,
        escape,
        context: Arc::new(context),
        arguments: Arguments::new(options.arguments.clone()),
        stages: Vec::new(),
        steps: instructions.len() + usize::from(!options.labels.is_empty()),
        step: 0,
        containers: Vec::new(),
        made: 0,
    };
    let image = build.instructions(&instructions).await?;
    let unused = build.arguments.unused();
    if !unused.is_empty() {
        let list = unused.join(" ");
        output
            .warn(&format!(
                "[Warning] One or more build-args [{list}] were not consumed\n"
            ))
            .await;
    }
    output.made(&image.id).await;
    output
        .say(&format!("Successfully built {}\n", image.short()))
        .await;
    Ok(Built { image: image.id })
}

fn check_order(instructions: &[Instruction]) -> Result<()> {
    let first = instructions.iter().find(|i| i.keyword != "ARG");
    match first {
        Some(first) if first.keyword == "FROM" => Ok(()),
        Some(first) => Err(Error::Parse {
            line: first.line,
            why: format!(
                "no build stage in current context: {} before FROM",
                first.keyword
            ),
        }),
        None => Err(Error::instruction("no build stage in current context")),
    }
}

/// The image and the stage name of a FROM line.
fn from_words(instruction: &Instruction) -> Result<(&str, Option<&str>)> {
    let words: Vec<&str> = instruction.rest.split_whitespace().collect();
    match words.as_slice() {
        [image] => Ok((image, None)),
        [image, by, name] if by.eq_ignore_ascii_case("as") => Ok((image, Some(name))),
        _ => Err(Error::Parse {
            line: instruction.line,
            why: "FROM requires either one or three arguments".into(),
        }),
    }
}

/// The number of instructions up to the end of a stage.
fn end_of_target(instructions: &[Instruction], target: &str) -> Result<usize> {
    let froms: Vec<usize> = (0..instructions.len())
        .filter(|i| instructions[*i].keyword == "FROM")
        .collect();
    let mut found = None;
    for (number, at) in froms.iter().enumerate() {
        let (_, name) = from_words(&instructions[*at])?;
        let is_name = name.is_some_and(|name| name.eq_ignore_ascii_case(target));
        if is_name || target.parse() == Ok(number) {
            found = Some(froms.get(number + 1).copied().unwrap_or(instructions.len()));
        }
    }
    found.ok_or_else(|| Error::instruction(format!("target stage {target:?} could not be found")))
}

impl Build<'_> {
    async fn instructions(&mut self, instructions: &[Instruction]) -> Result<Image> {
        let mut stage: Option<(Option<String>, Stage)> = None;
        for instruction in instructions {
            self.announce(&instruction.original).await;
            match (&mut stage, instruction.keyword.as_str()) {
                (_, "FROM") => {
                    if let Some((name, done)) = stage.take() {
                        self.stages.push((name, done.image));
                    }
                    let name = from_words(instruction)?.1.map(str::to_lowercase);
                    self.arguments.begin_stage();
                    let begun = self.from(instruction).await;
                    self.clean(begun.is_ok()).await;
                    stage = Some((name, begun?));
                }
                (None, _) => self.meta_argument(instruction)?,
                (Some((_, stage)), _) => {
                    let done = self.dispatch(stage, instruction).await;
                    self.clean(done.is_ok()).await;
                    done?;
                    self.show(stage).await;
                }
            }
        }
        let (_, mut stage) =
            stage.ok_or_else(|| Error::instruction("no build stage in current context"))?;
        if !self.options.labels.is_empty() {
            self.labels(&mut stage).await?;
        }
        if stage.image.id.is_empty() {
            return Err(Error::instruction(
                "No image was generated. Is your Dockerfile empty?",
            ));
        }
        Ok(stage.image)
    }

    async fn announce(&mut self, text: &str) {
        self.step += 1;
        let line = format!("Step {}/{} : {text}\n", self.step, self.steps);
        self.output.say(&line).await;
    }

    async fn show(&self, stage: &Stage) {
        self.output
            .say(&format!(" ---> {}\n", stage.image.short()))
            .await;
    }

    /// Removes the step's containers as the user wants it.
    async fn clean(&mut self, succeeded: bool) {
        let remove = self.options.force_remove || self.options.remove && succeeded;
        for container in std::mem::take(&mut self.containers) {
            if !remove {
                self.made += 1;
                continue;
            }
            self.engine.remove(&container).await;
            let short = container.get(..12).unwrap_or(&container);
            self.output
                .say(&format!(" ---> Removed intermediate container {short}\n"))
                .await;
        }
    }

    /// Labels of the command line are the last instruction.
    async fn labels(&mut self, stage: &mut Stage) -> Result<()> {
        let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
        let pairs: Vec<String> = self
            .options
            .labels
            .iter()
            .map(|(name, value)| format!("{}={}", quoted(name), quoted(&value.replace('$', "\\$"))))
            .collect();
        let instruction = dockerfile::instruction(&format!("LABEL {}", pairs.join(" ")), 0)?;
        self.announce(&instruction.original).await;
        let done = self.dispatch(stage, &instruction).await;
        self.clean(done.is_ok()).await;
        done?;
        self.show(stage).await;
        Ok(())
    }

    fn meta_argument(&mut self, instruction: &Instruction) -> Result<()> {
        let arguments = self.arguments.clone();
        let lookup = move |name: &str| arguments.meta(name);
        for word in lexer::words(&instruction.rest, self.escape, &lookup)? {
            let (name, default) = argument(&word);
            self.arguments.declare_meta(&name, default);
        }
        Ok(())
    }

    /// A stage's variables: its arguments, under its environment.
    fn variables(&self, stage: &Stage) -> impl Fn(&str) -> Option<String> + use<> {
        let (env, arguments) = (stage.config.env.clone(), self.arguments.clone());
        move |name: &str| change::variable(&env, name).or_else(|| arguments.get(name))
    }

    async fn from(&mut self, instruction: &Instruction) -> Result<Stage> {
        instruction.allow_flags(&["platform"])?;
        let (image, _) = from_words(instruction)?;
        let arguments = self.arguments.clone();
        let name = lexer::word(image, self.escape, &move |name| arguments.meta(name))?;
        if name.is_empty() {
            return Err(Error::instruction(format!(
                "base name ({image}) should not be blank"
            )));
        }
        let mut image = self.base(&name).await?;
        let triggers = std::mem::take(&mut image.config.on_build);
        let mut stage = Stage {
            config: image.config.clone(),
            author: String::new(),
            cmd_set: false,
            cache: !self.options.no_cache,
            image,
        };
        if stage.image.is_scratch && !stage.config.env.iter().any(|e| e.starts_with("PATH=")) {
            stage.config.set_env("PATH", DEFAULT_PATH);
        }
        self.show(&stage).await;
        self.triggers(&mut stage, &triggers).await?;
        Ok(stage)
    }

    async fn triggers(&mut self, stage: &mut Stage, triggers: &[String]) -> Result<()> {
        match triggers.len() {
            0 => return Ok(()),
            1 => self.output.say("# Executing 1 build trigger\n").await,
            n => {
                self.output
                    .say(&format!("# Executing {n} build triggers\n"))
                    .await
            }
        }
        for trigger in triggers {
            let instruction = dockerfile::instruction(trigger, 1)?;
            let done = Box::pin(self.dispatch(stage, &instruction)).await;
            self.clean(done.is_ok()).await;
            done?;
            self.show(stage).await;
        }
        Ok(())
    }

    /// What FROM stands on: an earlier stage, nothing, or an image that is pulled when it is not here.
    async fn base(&self, name: &str) -> Result<Image> {
        let lower = name.to_lowercase();
        if let Some((_, image)) = self
            .stages
            .iter()
            .rev()
            .find(|(known, _)| known.as_deref() == Some(&lower))
        {
            return self.reread(image).await;
        }
        if name == "scratch" {
            return Ok(Image::scratch());
        }
        if !self.options.pull
            && let Some(image) = self.engine.find(name).await?
        {
            return Ok(image);
        }
        self.engine.pull(name, self.output).await?;
        let pulled = self.engine.find(name).await?;
        pulled.ok_or_else(|| Error::Engine(format!("No such image: {name}")))
    }

    async fn reread(&self, image: &Image) -> Result<Image> {
        if image.is_scratch && image.id.is_empty() {
            return Ok(image.clone());
        }
        let found = self.engine.find(&image.id).await?;
        found.ok_or_else(|| Error::Engine(format!("No such image: {}", image.id)))
    }

    async fn dispatch(&mut self, stage: &mut Stage, instruction: &Instruction) -> Result<()> {
        let lookup = self.variables(stage);
        match instruction.keyword.as_str() {
            "RUN" => self.run(stage, instruction).await,
            "COPY" | "ADD" => self.copy(stage, instruction).await,
            "ARG" => self.argument(stage, instruction).await,
            "MAINTAINER" => {
                stage.author.clone_from(&instruction.rest);
                let comment = format!("MAINTAINER {}", instruction.rest);
                self.configure(stage, nop(stage, &format!(" {comment}")))
                    .await
            }
            "WORKDIR" => {
                instruction.allow_flags(&[])?;
                let shown = apply(
                    &mut stage.config,
                    instruction,
                    self.escape,
                    &lookup,
                    stage.cmd_set,
                )?;
                let comment = nop(stage, &shown.unwrap_or_default());
                self.working_folder(stage, comment).await
            }
            keyword => {
                let set = stage.cmd_set;
                let shown = apply(&mut stage.config, instruction, self.escape, &lookup, set)?;
                let shown = shown.ok_or_else(|| Error::Parse {
                    line: instruction.line,
                    why: format!("unknown instruction: {keyword}"),
                })?;
                stage.cmd_set |= keyword == "CMD";
                self.configure(stage, nop(stage, &format!(" {shown}")))
                    .await
            }
        }
    }

    async fn argument(&mut self, stage: &mut Stage, instruction: &Instruction) -> Result<()> {
        let lookup = self.variables(stage);
        let mut shown = "ARG".to_owned();
        for word in lexer::words(&instruction.rest, self.escape, &lookup)? {
            let (name, default) = argument(&word);
            shown += &format!(" {word}");
            self.arguments.declare(&name, default);
        }
        self.configure(stage, nop(stage, &format!(" {shown}")))
            .await
    }

    /// An image made before by the same step on the same parent.
    async fn probe(&self, stage: &mut Stage, key: &str) -> Result<Option<Image>> {
        if !stage.cache {
            return Ok(None);
        }
        let parent = (!stage.image.id.is_empty()).then_some(stage.image.id.as_str());
        let found = self.engine.cached(parent, key).await?;
        match &found {
            Some(_) => self.output.say(" ---> Using cache\n").await,
            None => stage.cache = false,
        }
        Ok(found)
    }

    fn new_image(&self, stage: &Stage, created_by: String, cache_key: String) -> NewImage {
        NewImage {
            parent: (!stage.image.id.is_empty()).then(|| stage.image.id.clone()),
            config: stage.config.clone(),
            created_by,
            author: stage.author.clone(),
            cache_key,
        }
    }

    /// A step that changes only the configuration.
    async fn configure(&mut self, stage: &mut Stage, created_by: String) -> Result<()> {
        let key = cache_key(&stage.config, &created_by);
        if let Some(image) = self.probe(stage, &key).await? {
            stage.image = image;
            return Ok(());
        }
        let new = self.new_image(stage, created_by, key);
        stage.image = self.engine.configure(new).await?;
        Ok(())
    }

    /// WORKDIR makes the folder when it is not there.
    async fn working_folder(&mut self, stage: &mut Stage, created_by: String) -> Result<()> {
        let key = cache_key(&stage.config, &created_by);
        if let Some(image) = self.probe(stage, &key).await? {
            stage.image = image;
            return Ok(());
        }
        let folder = PathBuf::from(&stage.config.working_dir);
        let mounted = self.engine.mount(&stage.image).await?;
        let path = mounted.path().to_owned();
        let looked = folder.clone();
        let is_there = blocking(move || Ok(Root::open(&path)?.place(&looked, true).is_ok())).await;
        drop(mounted);
        let new = self.new_image(stage, created_by, key);
        if is_there.map_err(Error::io("looking at the working folder"))? {
            stage.image = self.engine.configure(new).await?;
            return Ok(());
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let made = now.unwrap_or_default().as_secs();
        let archive = move |output: &mut dyn io::Write| {
            let mut tar = tar::Builder::new(output);
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(made);
            header.set_size(0);
            tar.append_data(&mut header, crate::root::clean(&folder), io::empty())?;
            tar.finish()
        };
        stage.image = self.engine.add(new, Box::new(archive)).await?;
        Ok(())
    }

    async fn run(&mut self, stage: &mut Stage, instruction: &Instruction) -> Result<()> {
        instruction.allow_flags(&[])?;
        if stage.image.is_scratch && stage.image.id.is_empty() {
            return Err(Error::instruction(
                "Please provide a source image with `from` prior to run",
            ));
        }
        if instruction.json.is_none() && heredoc(&instruction.rest) {
            return Err(Error::instruction(
                "the heredoc syntax requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled",
            ));
        }
        let words = change::command(&stage.config, instruction);
        let told = self.arguments.environment(false);
        let told: Vec<String> = told
            .into_iter()
            .filter(|entry| {
                let name = entry.split('=').next().unwrap_or_default();
                change::variable(&stage.config.env, name).is_none()
            })
            .collect();
        let mut created_by = words.join(" ");
        if !told.is_empty() {
            created_by = format!("|{} {} {created_by}", told.len(), told.join(" "));
        }
        let key = cache_key(&stage.config, &created_by);
        if let Some(image) = self.probe(stage, &key).await? {
            stage.image = image;
            return Ok(());
        }
        let mut config = stage.config.clone();
        for entry in self.arguments.environment(true) {
            if let Some((name, value)) = entry.split_once('=')
                && change::variable(&config.env, name).is_none()
            {
                config.set_env(name, value);
            }
        }
        let command = words.join(" ");
        config.cmd = Some(words);
        config.entrypoint = Some(vec![String::new()]);
        config.healthcheck = None;
        let run = Run {
            image: stage.image.clone(),
            config,
        };
        let container = self.engine.create(&run).await?;
        self.containers.push(container.clone());
        let short = container.get(..12).unwrap_or(&container);
        self.output
            .say(&format!(" ---> Running in {short}\n"))
            .await;
        let ran = self.engine.run(&container, self.output).await?;
        if ran.code != 0 {
            return Err(Error::Command {
                command,
                code: ran.code,
            });
        }
        let new = self.new_image(stage, created_by, key);
        stage.image = self.engine.commit(&container, new).await?;
        Ok(())
    }

    /// The image that `COPY --from` names: a stage by name or number, or any image.
    async fn source(&self, name: &str) -> Result<Image> {
        let by_number = name
            .parse()
            .ok()
            .and_then(|number: usize| self.stages.get(number));
        let lower = name.to_lowercase();
        let by_name = || {
            self.stages
                .iter()
                .rev()
                .find(|(known, _)| known.as_deref() == Some(&lower))
        };
        if let Some((_, image)) = by_number.or_else(by_name) {
            return Ok(image.clone());
        }
        if name.parse::<usize>().is_ok() {
            return Err(Error::instruction(format!(
                "invalid from flag value {name}: refers to current build stage"
            )));
        }
        self.base(name)
            .await
            .map_err(|error| Error::instruction(format!("invalid from flag value {name}: {error}")))
    }

    async fn copy(&mut self, stage: &mut Stage, instruction: &Instruction) -> Result<()> {
        let is_add = instruction.keyword == "ADD";
        let flags: &[&str] = if is_add {
            &["chown"]
        } else {
            &["chown", "from"]
        };
        instruction.allow_flags(flags)?;
        let lookup = self.variables(stage);
        let words = match &instruction.json {
            Some(list) => list
                .iter()
                .map(|w| lexer::word(w, self.escape, &lookup))
                .collect::<Result<Vec<_>>>()?,
            None => lexer::words(&instruction.rest, self.escape, &lookup)?,
        };
        let [patterns @ .., target] = words.as_slice() else {
            unreachable_words(instruction)?
        };
        if patterns.is_empty() {
            unreachable_words(instruction)?;
        }
        if patterns.iter().any(|p| p.starts_with("<<")) {
            return Err(Error::instruction(
                "the heredoc syntax requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled",
            ));
        }
        let remote = patterns.iter().find(|p| {
            p.starts_with("http://") || p.starts_with("https://") || p.starts_with("git@")
        });
        if let Some(remote) = remote {
            let why = match is_add {
                true => format!(
                    "source {remote} is on the network, which this builder does not fetch: use RUN with a program of the image"
                ),
                false => "source can't be a URL for COPY".to_owned(),
            };
            return Err(Error::Copy {
                instruction: instruction.keyword.clone(),
                why,
            });
        }
        let chown = match instruction.flag("chown") {
            Some(text) => Some(lexer::word(text, self.escape, &lookup)?),
            None => None,
        };
        // Held to the end: the source is read from it.
        let (from_root, from_mount) = match instruction.flag("from") {
            None => (self.context.clone(), None),
            Some(name) => {
                let name = lexer::word(name, self.escape, &lookup)?;
                let image = self.source(&name).await?;
                let mounted = self.engine.mount(&image).await?;
                let root =
                    Root::open(mounted.path()).map_err(Error::io("opening the source image"))?;
                (Arc::new(root), Some(mounted))
            }
        };
        let wanted = Wanted {
            keyword: instruction.keyword.clone(),
            patterns: patterns.to_vec(),
            target: target.clone(),
            working_dir: stage.config.working_dir.clone(),
            chown,
            unpack: is_add,
            from_context: from_mount.is_none(),
        };
        let mounted: Option<Box<dyn Mounted>> =
            match stage.image.is_scratch && stage.image.id.is_empty() {
                true => None,
                false => Some(self.engine.mount(&stage.image).await?),
            };
        let target_path = mounted.as_ref().map(|mounted| mounted.path().to_owned());
        let planned = tokio::task::spawn_blocking(move || {
            let plan = plan(&wanted, from_root, target_path.as_deref())?;
            let sum = plan
                .checksum()
                .map_err(|error| wanted.failed(&error.to_string()))?;
            Ok::<_, Error>((plan, sum))
        });
        let (plan, sum) = planned
            .await
            .map_err(|error| Error::Engine(error.to_string()))??;
        drop(mounted);
        let chown = match instruction.flag("chown") {
            Some(_) => format!(" --chown={}:{}", plan.owner.uid, plan.owner.gid),
            None => String::new(),
        };
        let created_by = nop(
            stage,
            &format!("{}{chown} {sum} in {target} ", instruction.keyword),
        );
        let key = cache_key(&stage.config, &created_by);
        if let Some(image) = self.probe(stage, &key).await? {
            stage.image = image;
            return Ok(());
        }
        let new = self.new_image(stage, created_by, key);
        let archive = move |output: &mut dyn io::Write| {
            let _mounted = from_mount;
            plan.write(output)
        };
        stage.image = self.engine.add(new, Box::new(archive)).await?;
        Ok(())
    }
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `/bin/sh -c #(nop) …`: how the history marks what ran nothing.
fn nop(stage: &Stage, comment: &str) -> String {
    format!("{} #(nop) {comment}", stage.config.shell().join(" "))
}

fn cache_key(config: &Config, created_by: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(config).unwrap_or_default());
    hash.update([0]);
    hash.update(created_by.as_bytes());
    hex::encode(hash.finalize())
}

/// `NAME=DEFAULT` or `NAME`.
fn argument(word: &str) -> (String, Option<String>) {
    match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word.to_owned(), None),
    }
}

fn heredoc(text: &str) -> bool {
    text.split_whitespace().any(|word| {
        let name = word
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .strip_prefix("<<");
        let name = name.map(|name| name.trim_start_matches('-').trim_matches(['"', '\'']));
        name.is_some_and(|name| !name.is_empty() && !name.starts_with('<'))
    })
}

fn unreachable_words<T>(instruction: &Instruction) -> Result<T> {
    Err(Error::Parse {
        line: instruction.line,
        why: format!(
            "{} requires at least two arguments, but only one was provided. Destination could not be determined",
            instruction.keyword
        ),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// A COPY or ADD with its words read.
struct Wanted {
    keyword: String,
    patterns: Vec<String>,
    target: String,
    working_dir: String,
    chown: Option<String>,
    unpack: bool,
    from_context: bool,
}

impl Wanted {
    fn failed(&self, why: &str) -> Error {
        Error::Copy {
            instruction: self.keyword.clone(),
            why: why.to_owned(),
        }
    }
}

/// What goes where, by what source and target are.
fn plan(wanted: &Wanted, root: Arc<Root>, target_root: Option<&Path>) -> Result<Plan> {
    let target_root = match target_root {
        Some(path) => Some(Root::open(path).map_err(Error::io("opening the image"))?),
        None => None,
    };
    let owner = match &wanted.chown {
        None => Owner::default(),
        Some(text) => {
            let empty = std::path::Path::new("/proc/self/fdinfo");
            match &target_root {
                Some(root) => owner::look_up(text, root)?,
                // Nothing to look names up in: only numbers can be meant.
                None => owner::look_up(
                    text,
                    &Root::open(empty).map_err(Error::io("opening the image"))?,
                )?,
            }
        }
    };
    let target = join(&wanted.working_dir, &wanted.target);
    let target_place = target_root
        .as_ref()
        .and_then(|root| root.place(Path::new(&target), true).ok());
    let is_folder_name =
        wanted.target.ends_with('/') || wanted.target == "." || wanted.target.ends_with("/.");
    let is_folder = is_folder_name || target_place.is_some_and(|place| place.meta.is_dir());
    let to = crate::root::clean(Path::new(&target));
    let mut found = Vec::new();
    for pattern in &wanted.patterns {
        let expanded = copy::expand(&root, pattern).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if wanted.from_context => wanted.failed(&format!(
                "file not found in build context or excluded by .dockerignore: stat {pattern}: file does not exist"
            )),
            io::ErrorKind::NotFound => wanted.failed(&format!("stat {pattern}: file does not exist")),
            _ => wanted.failed(&format!("{pattern}: {error}")),
        })?;
        found.extend(expanded);
    }
    if found.is_empty() {
        return Err(wanted.failed("no source files were specified"));
    }
    if found.len() > 1 && !is_folder_name {
        return Err(Error::instruction(format!(
            "When using {} with more than one source file, the destination must be a directory and end with a /",
            wanted.keyword
        )));
    }
    let mut sources = Vec::new();
    let mut any_unpacked = false;
    for from in found {
        let place = root
            .place(&from, true)
            .map_err(|error| wanted.failed(&error.to_string()))?;
        let content = place.meta.is_dir();
        let unpack = wanted.unpack
            && copy::packed(&root, &from)
                .map_err(|error| wanted.failed(&format!("{}: {error}", from.display())))?
                .is_some();
        any_unpacked |= unpack;
        let name = from.file_name().map(PathBuf::from).unwrap_or_default();
        let to = match content || unpack || !is_folder {
            true => to.clone(),
            false => to.join(name),
        };
        sources.push(Source {
            from,
            to,
            content,
            unpack,
        });
    }
    Ok(Plan {
        root,
        sources,
        owner,
        keep_owner: any_unpacked && wanted.chown.is_none(),
    })
}
