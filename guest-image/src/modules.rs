//! Kernel modules: unpacked, with what they depend on, and an index for whoever loads them.
//!
//! The index (`index` in the modules' folder) has a line `module NAME DEPENDENCY…` for each module, dependencies in the order in
//! which they must be loaded, and a line `alias PATTERN NAME` for each name that the kernel may ask for instead.

use crate::deb::{Node, Tree};
use crate::elf;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;

pub const INDEX: &str = "index";

#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    #[error("the kernel package has no module {0}")]
    Missing(String),
    #[error("unpack the module {name}: {source}")]
    Unpack {
        name: String,
        source: std::io::Error,
    },
}

/// All modules of a kernel package, by name (with `_`, as the kernel names them), still packed.
pub struct Pool<'a> {
    packed: BTreeMap<String, &'a [u8]>,
    built_in: Vec<String>,
}

/// Modules unpacked, with their dependencies.
pub struct Modules(BTreeMap<String, Module>);

struct Module {
    data: Vec<u8>,
    depends: Vec<String>,
}

impl<'a> Pool<'a> {
    pub fn new(kernel_package: &'a Tree) -> Self {
        let mut pool = Self {
            packed: BTreeMap::new(),
            built_in: Vec::new(),
        };
        for (path, node) in kernel_package {
            let Node::File { data, .. } = node else {
                continue;
            };
            let file = path.rsplit('/').next().unwrap_or(path);
            if let Some((name, _)) = file.split_once(".ko") {
                pool.packed.insert(normal(name), data);
            } else if file == "modules.builtin" {
                let names = String::from_utf8_lossy(data);
                let name = |line: &str| {
                    normal(
                        line.rsplit('/')
                            .next()
                            .unwrap_or(line)
                            .trim_end_matches(".ko"),
                    )
                };
                pool.built_in.extend(names.lines().map(name));
            }
        }
        pool
    }

    /// Takes the named modules and all that they depend on; what is built into the kernel is skipped.
    pub fn take(&self, names: &[&str]) -> Result<Modules, ModuleError> {
        let mut modules = BTreeMap::new();
        let mut open: Vec<String> = names.iter().map(|name| normal(name)).collect();
        while let Some(name) = open.pop() {
            if modules.contains_key(&name) || self.built_in.contains(&name) {
                continue;
            }
            let packed = self
                .packed
                .get(&name)
                .ok_or_else(|| ModuleError::Missing(name.clone()))?;
            let data = unpack(packed).map_err(|source| ModuleError::Unpack {
                name: name.clone(),
                source,
            })?;
            let depends: Vec<String> = elf::modinfo(&data, "depends")
                .iter()
                .flat_map(|list| list.split(','))
                .filter(|name| !name.is_empty())
                .map(normal)
                .collect();
            open.extend(depends.iter().cloned());
            modules.insert(name, Module { data, depends });
        }
        Ok(Modules(modules))
    }
}

impl Modules {
    /// The modules as `FOLDER/NAME.ko`, and their index.
    pub fn add_to(&self, tree: &mut Tree, folder: &str) {
        for (name, module) in &self.0 {
            let node = Node::File {
                mode: 0o644,
                data: module.data.clone(),
            };
            tree.insert(format!("{folder}/{name}.ko"), node);
        }
        let index = Node::File {
            mode: 0o644,
            data: self.index().into_bytes(),
        };
        tree.insert(format!("{folder}/{INDEX}"), index);
    }

    fn index(&self) -> String {
        let mut index = String::new();
        for name in self.0.keys() {
            let mut order = Vec::new();
            self.order(name, &mut order);
            order.pop();
            writeln!(index, "module {name} {}", order.join(" ")).expect("a string takes all");
        }
        for (name, module) in &self.0 {
            for alias in elf::modinfo(&module.data, "alias") {
                writeln!(index, "alias {} {name}", normal(&alias)).expect("a string takes all");
            }
        }
        index
    }

    /// What must be loaded for `name`, it being the last.
    fn order(&self, name: &str, order: &mut Vec<String>) {
        let Some(module) = self.0.get(name) else {
            return;
        };
        for dependency in &module.depends {
            self.order(dependency, order);
        }
        if !order.iter().any(|done| done == name) {
            order.push(name.into());
        }
    }
}

/// The kernel takes `-` and `_` for the same.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn unpack(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut data = Vec::new();
    if elf::is_elf(packed) {
        data.extend_from_slice(packed);
    } else {
        liblzma::read::XzDecoder::new(packed).read_to_end(&mut data)?;
    }
    data.truncate(unsigned_length(&data));
    Ok(data)
}

/// How long a module is without the signature behind it (Linux, `include/linux/module_signature.h`).
///
/// Checking it is half of a small module's loading time under emulation, and says nothing that the guest image's own checksum,
/// which the host compares before it boots, does not say.
fn unsigned_length(data: &[u8]) -> usize {
    const MAGIC: &[u8] = b"~Module signature appended~\n";
    /// Algorithm, hash, key type, two lengths, padding; then the signature's length, big-endian.
    const DESCRIPTION: usize = 12;
    let Some(description_end) = data.strip_suffix(MAGIC).map(<[u8]>::len) else {
        return data.len();
    };
    let signature = data[..description_end]
        .last_chunk::<4>()
        .map_or(0, |length| u32::from_be_bytes(*length) as usize);
    description_end
        .checked_sub(DESCRIPTION + signature)
        .unwrap_or(data.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_cut_off() {
        let mut signed = b"module".to_vec();
        signed.extend([7; 100]);
        signed.extend([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 100]);
        signed.extend(b"~Module signature appended~\n");
        assert_eq!(&signed[..unsigned_length(&signed)], b"module");
        assert_eq!(unsigned_length(b"module"), 6);
        // A length that is longer than the file is no signature.
        assert_eq!(
            unsigned_length(b"\xff\xff\xff\xff~Module signature appended~\n"),
            32
        );
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let module = |depends: &[&str]| Module {
            data: Vec::new(),
            depends: depends.iter().map(|name| (*name).into()).collect(),
        };
        let modules = Modules(BTreeMap::from([
            ("bridge".to_owned(), module(&["stp", "llc"])),
            ("stp".to_owned(), module(&["llc"])),
            ("llc".to_owned(), module(&[])),
        ]));
        assert_eq!(
            modules.index(),
            "module bridge llc stp\nmodule llc \nmodule stp llc\n"
        );
    }
}
