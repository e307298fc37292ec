//! What comes from Debian, taken out of its packages once and kept: unpacking a kernel takes longer than all the rest.

use crate::deb::{self, DebError, Node, Tree};
use crate::kernel::{self, KernelError};
use crate::lock::{Lock, Package};
use crate::modules::{ModuleError, Pool};
use crate::packages::*;
use crate::skeleton::skeleton;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    #[error(transparent)]
    Deb(#[from] DebError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Module(#[from] ModuleError),
    #[error("the package {package} has no {path}")]
    NoFile { package: String, path: String },
    #[error("libraries that no listed package has: {0}")]
    MissingLibraries(String),
    #[error("the package {0} is not in the lock file")]
    NotLocked(String),
    #[error("keep the unpacked packages in {path}: {source}")]
    Cache {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// Debian's share of the guest image.
#[derive(Default)]
pub struct Base {
    pub kernel: Vec<u8>,
    /// `uname -r` of the kernel.
    pub release: String,
    pub initramfs: Tree,
    pub root: Tree,
    /// `NAME.copyright` of each package.
    pub licences: Tree,
}

/// The packages' `.deb` files by name.
pub type Files = BTreeMap<String, PathBuf>;

/// Takes the base from the cache, or makes it and keeps it there.
pub fn base(lock: &Lock, files: &Files, runtimes: bool, cache: &Path) -> Result<Base, BaseError> {
    let mut key = Sha256::new();
    // A changed builder may pick other files.
    key.update(
        std::env::current_exe()
            .and_then(std::fs::read)
            .unwrap_or_default(),
    );
    key.update(serde_json::to_vec(lock).unwrap_or_default());
    key.update([u8::from(runtimes)]);
    let path = cache.join(format!("base-{}.tar", &hex::encode(key.finalize())[..16]));
    if let Ok(file) = std::fs::File::open(&path)
        && let Ok(tree) = deb::read_tar(std::io::BufReader::new(file), |_| true)
    {
        return Ok(Base::from_tree(tree));
    }
    let base = make(lock, files, runtimes)?;
    let keep = |source| BaseError::Cache {
        path: path.clone(),
        source,
    };
    for old in std::fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = old.file_name().to_string_lossy().into_owned();
        // One with the runtimes, one without.
        let age = old
            .metadata()
            .and_then(|data| data.modified())
            .ok()
            .and_then(|time| time.elapsed().ok());
        if name.starts_with("base-") && age.is_some_and(|age| age.as_secs() > 3600) {
            let _ = std::fs::remove_file(old.path());
        }
    }
    let mut file = tempfile::NamedTempFile::new_in(cache).map_err(keep)?;
    write_tar(&base.to_tree(), &mut file).map_err(keep)?;
    file.persist(&path).map_err(|error| keep(error.error))?;
    Ok(base)
}

fn make(lock: &Lock, files: &Files, runtimes: bool) -> Result<Base, BaseError> {
    let kernel_package =
        kernel_package(lock).ok_or_else(|| BaseError::NotLocked(KERNEL_META.into()))?;
    let kernel_tree = deb::unpack(file(files, &kernel_package.name)?, |_| true)?;
    let mut base = Base {
        root: skeleton(),
        ..Base::default()
    };
    let (path, image) = find(&kernel_tree, "boot/vmlinuz-", &kernel_package.name)?;
    base.release = path.trim_start_matches("boot/vmlinuz-").into();
    base.kernel = kernel::vmlinux(image)?;
    let pool = Pool::new(&kernel_tree);
    base.initramfs
        .insert("modules".into(), Node::Folder { mode: 0o755 });
    pool.take(INITRAMFS_MODULES)?
        .add_to(&mut base.initramfs, "modules");
    pool.take(ROOT_MODULES)?
        .add_to(&mut base.root, &format!("usr/lib/modules/{}", base.release));

    let chosen = if runtimes { RUNTIMES } else { &[] };
    for programs in PROGRAMS.iter().chain(chosen) {
        add_programs(&mut base.root, programs, files)?;
    }
    let mut pool = Tree::new();
    for library in LIBRARIES {
        pool.extend(deb::unpack(file(files, library)?, |path| {
            path.contains(".so")
        })?);
    }
    let missing = add_libraries(&mut base.root, &pool);
    if !missing.is_empty() {
        return Err(BaseError::MissingLibraries(missing.join(", ")));
    }
    add_loader(&mut base.root, &pool);
    add_certificates(&mut base.root, file(files, CERTIFICATES)?)?;
    add_parents(&mut base.root);
    for (name, path) in files {
        let wanted = format!("usr/share/doc/{name}/copyright");
        for (_, node) in deb::unpack(path, |path| path == wanted)? {
            base.licences.insert(format!("{name}.copyright"), node);
        }
    }
    Ok(base)
}

/// The kernel's package in the lock: the real one, not the meta package.
pub fn kernel_package(lock: &Lock) -> Option<&Package> {
    lock.packages
        .iter()
        .find(|package| package.name.starts_with("linux-image-"))
}

fn file<'a>(files: &'a Files, name: &str) -> Result<&'a Path, BaseError> {
    files
        .get(name)
        .map(PathBuf::as_path)
        .ok_or_else(|| BaseError::NotLocked(name.into()))
}

fn find<'a>(tree: &'a Tree, prefix: &str, package: &str) -> Result<(&'a str, &'a [u8]), BaseError> {
    let mut files = tree.iter().filter_map(|(path, node)| match node {
        Node::File { data, .. } if path.starts_with(prefix) => {
            Some((path.as_str(), data.as_slice()))
        }
        _ => None,
    });
    files.next_back().ok_or_else(|| BaseError::NoFile {
        package: package.into(),
        path: prefix.into(),
    })
}

fn add_programs(root: &mut Tree, programs: &Programs, files: &Files) -> Result<(), BaseError> {
    let tree = deb::unpack(file(files, programs.package)?, |path| {
        programs.files.iter().any(|(from, _)| *from == path)
    })?;
    for (from, to) in programs.files {
        if let Some(node @ Node::File { .. }) = tree.get(*from) {
            root.insert((*to).into(), node.clone());
        } else if !programs
            .files
            .iter()
            .any(|(other, place)| place == to && tree.contains_key(*other))
        {
            return Err(BaseError::NoFile {
                package: programs.package.into(),
                path: (*from).into(),
            });
        }
    }
    Ok(())
}

/// The dynamic loader is named by path in each program, not as a needed library.
fn add_loader(root: &mut Tree, pool: &Tree) {
    let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    for (path, node) in pool
        .iter()
        .filter(|(path, _)| name(path).starts_with("ld-linux"))
    {
        root.insert(path.clone(), node.clone());
    }
}

fn add_certificates(root: &mut Tree, package: &Path) -> Result<(), BaseError> {
    let mut bundle = Vec::new();
    for node in deb::unpack(package, |path| path.starts_with(CERTIFICATE_FOLDER))?.into_values() {
        if let Node::File { data, .. } = node {
            bundle.extend_from_slice(&data);
        }
    }
    root.insert(
        CERTIFICATE_BUNDLE.into(),
        Node::File {
            mode: 0o644,
            data: bundle,
        },
    );
    Ok(())
}

/// Every folder that a path goes through exists.
pub fn add_parents(tree: &mut Tree) {
    let mut parents = Vec::new();
    for path in tree.keys() {
        parents.extend(
            path.match_indices('/')
                .map(|(end, _)| path[..end].to_owned()),
        );
    }
    for parent in parents {
        tree.entry(parent).or_insert(Node::Folder { mode: 0o755 });
    }
}

impl Base {
    fn to_tree(&self) -> Tree {
        let mut tree = Tree::new();
        tree.insert(
            "kernel".into(),
            Node::File {
                mode: 0o644,
                data: self.kernel.clone(),
            },
        );
        tree.insert(
            "release".into(),
            Node::File {
                mode: 0o644,
                data: self.release.clone().into_bytes(),
            },
        );
        for (part, nodes) in [
            ("initramfs", &self.initramfs),
            ("root", &self.root),
            ("licences", &self.licences),
        ] {
            tree.extend(
                nodes
                    .iter()
                    .map(|(path, node)| (format!("{part}/{path}"), node.clone())),
            );
        }
        tree
    }

    fn from_tree(tree: Tree) -> Self {
        let mut base = Self::default();
        for (path, node) in tree {
            match (path.split_once('/'), node) {
                (Some(("initramfs", rest)), node) => drop(base.initramfs.insert(rest.into(), node)),
                (Some(("root", rest)), node) => drop(base.root.insert(rest.into(), node)),
                (Some(("licences", rest)), node) => drop(base.licences.insert(rest.into(), node)),
                (None, Node::File { data, .. }) if path == "kernel" => base.kernel = data,
                (None, Node::File { data, .. }) => {
                    base.release = String::from_utf8_lossy(&data).into_owned()
                }
                _ => {}
            }
        }
        base
    }
}

fn write_tar(tree: &Tree, out: &mut impl Write) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(std::io::BufWriter::new(out));
    for (path, node) in tree {
        let mut header = tar::Header::new_gnu();
        match node {
            Node::Folder { mode } => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                header.set_size(0);
                archive.append_data(&mut header, path, &[][..])?;
            }
            Node::File { mode, data } => {
                header.set_mode(*mode);
                header.set_size(data.len() as u64);
                archive.append_data(&mut header, path, data.as_slice())?;
            }
            Node::Symlink { target } => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, path, target)?;
            }
        }
    }
    archive.into_inner()?.flush()
}
