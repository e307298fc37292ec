//! Builds kernel, initramfs and compressed root for the guest, without root, from Debian packages and the guest's binaries.

mod apt;
mod base;
mod binaries;
mod cpio;
mod deb;
mod elf;
mod erofs;
mod kernel;
mod lock;
mod manifest;
mod modules;
mod packages;
mod skeleton;
mod sources;

use anyhow::{Context, Result, bail};
use clap::Parser;
use deb::Node;
use lock::{Lock, Package};
use manifest::{Binary, ImageFile, Manifest};
use std::path::{Path, PathBuf};

/// Builds the guest image: kernel, initramfs, root.erofs, manifest.json, SOURCES and licences/.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value = "x86_64")]
    arch: String,
    /// Where the guest's static programs are [default: cargo's folder for the profile].
    #[arg(long)]
    binaries: Option<PathBuf>,
    /// Build the guest's programs first.
    #[arg(long)]
    build: bool,
    /// Cargo profile of the guest's programs.
    #[arg(long, default_value = "guest")]
    profile: String,
    /// [default: target/guest-image/ARCH]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Take the newest packages and rewrite the lock file.
    #[arg(long)]
    upgrade: bool,
    /// Leave out runc and crun, and what only they need.
    #[arg(long)]
    without_runtimes: bool,
}

/// One processor architecture in everybody's words.
struct Architecture {
    name: &'static str,
    debian: &'static str,
    triple: &'static str,
}

const ARCHITECTURES: &[Architecture] = &[Architecture {
    name: "x86_64",
    debian: "amd64",
    triple: "x86_64-unknown-linux-gnu",
}];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Some(architecture) = ARCHITECTURES
        .iter()
        .find(|known| known.name == arguments.arch)
    else {
        bail!("no guest image for the architecture {} yet", arguments.arch);
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = here.parent().context("the builder lives in a workspace")?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), PathBuf::from);
    let out = arguments
        .out
        .clone()
        .unwrap_or_else(|| target.join("guest-image").join(architecture.name));
    let cache = target
        .join("guest-image")
        .join("cache")
        .join(architecture.name);
    for folder in [&out, &cache] {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    if arguments.build {
        binaries::build(workspace, architecture.triple, &arguments.profile)?;
    }
    // One builder at a time: two would each write a part of one image.
    let turn = std::fs::File::create(cache.join("turn")).context("make the builder's lock")?;
    turn.lock().context("wait for another builder")?;
    let lock_path = here.join(format!("lock.{}.json", architecture.name));
    let (lock, files) = fetch(&lock_path, &cache, architecture, arguments.upgrade)?;
    let base = base::base(&lock, &files, !arguments.without_runtimes, &cache)?;
    let binaries = arguments
        .binaries
        .clone()
        .unwrap_or_else(|| binaries::folder(&target, architecture.triple, &arguments.profile));
    write_image(architecture, base, lock, &binaries, &out, &cache)
}

/// Brings every package: from the cache when it is what the lock says, else from the mirror; rewrites the lock when it had to.
fn fetch(
    path: &Path,
    cache: &Path,
    architecture: &Architecture,
    upgrade: bool,
) -> Result<(Lock, base::Files)> {
    let old = Lock::load(path)?;
    let folder = cache.join("packages");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let mut new = Lock {
        suite: packages::SUITE.into(),
        packages: Vec::new(),
    };
    let mut files = base::Files::new();
    let mut apt = None;
    let kernel = base::kernel_package(&old).map(|package| package.name.clone());
    let mut names: Vec<String> = kernel.into_iter().collect();
    if names.is_empty() || upgrade {
        names = vec![open_apt(&mut apt, cache, architecture)?.behind_meta(packages::KERNEL_META)?];
    }
    let programs = packages::PROGRAMS
        .iter()
        .chain(packages::RUNTIMES)
        .map(|programs| programs.package);
    let others = programs
        .chain([packages::CERTIFICATES])
        .chain(packages::LIBRARIES.iter().copied());
    names.extend(others.map(String::from));
    for name in names {
        let locked = old.find(&name).filter(|_| !upgrade);
        let (package, file) =
            match locked.map(|package| (package, cached(package, &folder, architecture))) {
                Some((package, Some(file))) => (package.clone(), file),
                other => bring(
                    open_apt(&mut apt, cache, architecture)?,
                    &name,
                    other.map(|o| o.0),
                    &folder,
                )?,
            };
        files.insert(package.name.clone(), file);
        new.packages.push(package);
    }
    if new != old {
        new.save(path)?;
        println!("wrote {}", path.display());
    }
    Ok((new, files))
}

fn open_apt<'a>(
    apt: &'a mut Option<apt::AptRoot>,
    cache: &Path,
    architecture: &Architecture,
) -> Result<&'a apt::AptRoot> {
    if apt.is_none() {
        let mirror = sources::find_mirror(Path::new("/etc/apt"))?;
        let root = apt::AptRoot::new(
            &cache.join("apt"),
            &mirror,
            packages::SUITE,
            architecture.debian,
        )?;
        println!("reading the package lists of {}", packages::SUITE);
        root.update()?;
        *apt = Some(root);
    }
    Ok(apt.as_ref().expect("just opened"))
}

/// The file of a locked package, if it is there and whole.
fn cached(package: &Package, folder: &Path, architecture: &Architecture) -> Option<PathBuf> {
    let version = package.version.replace(':', "%3a");
    [architecture.debian, "all"]
        .map(|part| folder.join(format!("{}_{version}_{part}.deb", package.name)))
        .into_iter()
        .find(|file| deb::sha256_file(file).is_ok_and(|sum| sum == package.sha256))
}

/// Downloads the locked version or, where the mirror has it no more, the newest.
fn bring(
    apt: &apt::AptRoot,
    name: &str,
    locked: Option<&Package>,
    folder: &Path,
) -> Result<(Package, PathBuf)> {
    if let Some(package) = locked {
        match apt.download(name, &package.version, folder) {
            Ok(file) if deb::sha256_file(&file)? == package.sha256 => {
                return Ok((package.clone(), file));
            }
            Ok(file) => bail!("{} has not the checksum of the lock file", file.display()),
            Err(_) => println!(
                "{name} {} has left the mirror: taking the newest",
                package.version
            ),
        }
    }
    // A new kernel is a new package.
    let newest = match apt.newest(name) {
        Err(_) if name.starts_with("linux-image-") => {
            apt.newest(&apt.behind_meta(packages::KERNEL_META)?)?
        }
        other => other?,
    };
    println!("{} {}", newest.name, newest.version);
    let file = apt.download(&newest.name, &newest.version, folder)?;
    if deb::sha256_file(&file)? != newest.sha256 {
        bail!(
            "{} has not the checksum of the package list",
            file.display()
        );
    }
    Ok((newest, file))
}

fn write_image(
    architecture: &Architecture,
    base: base::Base,
    lock: Lock,
    folder: &Path,
    out: &Path,
    cache: &Path,
) -> Result<()> {
    let mut root = base.root;
    let mut initramfs = base.initramfs;
    let mut shipped = Vec::new();
    for name in binaries::BINARIES {
        match binaries::load(folder, name)? {
            Some(node) => {
                if let Node::File { data, .. } = &node {
                    shipped.push(Binary::new(name, data));
                }
                if *name == "longshore-init" {
                    initramfs.insert("init".into(), node.clone());
                }
                root.insert(format!("usr/bin/{name}"), node);
            }
            None => println!("{name} is not in {}: left out", folder.display()),
        }
    }
    for folder in ["dev", "proc", "sys", "run", "new", "lower"] {
        initramfs.insert(folder.into(), Node::Folder { mode: 0o755 });
    }
    let mut files = vec![
        write_file(out, "kernel", &base.kernel, cache)?,
        write_file(out, "initramfs", &cpio::pack(&initramfs), cache)?,
    ];
    let image = out.join("root.erofs.new");
    erofs::write(&root, &image, cache)?;
    std::fs::rename(&image, out.join("root.erofs")).context("put root.erofs in its place")?;
    let image = std::fs::read(out.join("root.erofs")).context("read root.erofs")?;
    files.push(describe("root.erofs", &image, cache)?);

    write_if_changed(
        &out.join("SOURCES"),
        manifest::sources_text(&lock.packages, &lock.suite).as_bytes(),
    )?;
    let licences = out.join("licences");
    std::fs::create_dir_all(&licences).context("make licences/")?;
    for (name, node) in &base.licences {
        if let Node::File { data, .. } = node {
            write_if_changed(&licences.join(name), data)?;
        }
    }
    let manifest = Manifest {
        format: 1,
        architecture: architecture.name.into(),
        kernel_release: base.release,
        compressed_size: files.iter().map(|file| file.compressed_size).sum(),
        files,
        binaries: shipped,
        packages: lock.packages,
    };
    let mut text = serde_json::to_string_pretty(&manifest).context("make the manifest")?;
    text.push('\n');
    write_if_changed(&out.join("manifest.json"), text.as_bytes())?;
    report(&manifest, out);
    Ok(())
}

/// Writes a file of the image and describes it.
fn write_file(out: &Path, name: &str, data: &[u8], cache: &Path) -> Result<ImageFile> {
    write_if_changed(&out.join(name), data)?;
    describe(name, data, cache)
}

/// A file of the image with its size as it travels, which is remembered by content: the kernel rarely changes.
fn describe(name: &str, data: &[u8], cache: &Path) -> Result<ImageFile> {
    let mut file = ImageFile::new(name, data, 0);
    let level = if name == "kernel" { 19 } else { 9 };
    let memory = cache.join(format!("size-{level}-{}", &file.sha256[..16]));
    let known = std::fs::read_to_string(&memory)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    file.compressed_size = match known {
        Some(size) => size,
        None => {
            let size = zstd::bulk::compress(data, level)
                .context("measure the compressed size")?
                .len() as u64;
            std::fs::write(&memory, size.to_string()).context("remember a compressed size")?;
            size
        }
    };
    Ok(file)
}

fn write_if_changed(path: &Path, data: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == data) {
        return Ok(());
    }
    // A running VM may still read the old file.
    let new = path.with_extension("new");
    std::fs::write(&new, data).with_context(|| format!("write {}", new.display()))?;
    std::fs::rename(&new, path).with_context(|| format!("put {} in its place", path.display()))
}

fn report(manifest: &Manifest, out: &Path) {
    for file in &manifest.files {
        println!(
            "{:>12} {:>9} KiB, compressed {:>9} KiB",
            file.name,
            file.size / 1024,
            file.compressed_size / 1024
        );
    }
    println!(
        "guest image in {}: {} KiB compressed",
        out.display(),
        manifest.compressed_size / 1024
    );
}
