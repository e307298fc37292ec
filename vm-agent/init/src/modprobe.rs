//! Kernel modules, loaded by name or alias with what they depend on, from the index that the guest image brings.
//!
//! The index has lines `module NAME DEPENDENCY…` (dependencies in load order) and `alias PATTERN NAME`, all with `_` for `-`.

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    #[error("read the module index {path}: {source}")]
    Index {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("no module or alias {0}")]
    Unknown(String),
    #[error("open the module {name}: {source}")]
    Open {
        name: String,
        source: std::io::Error,
    },
    #[error("load the module {name}: {errno}")]
    Load { name: String, errno: Errno },
}

/// The kernel runs `/sbin/modprobe -q -- NAME`.
pub fn main() -> ExitCode {
    let names: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let modules = match Modules::of_running_kernel() {
        Ok(modules) => modules,
        Err(error) => return fail(&error),
    };
    for name in names {
        if let Err(error) = modules.load(&name) {
            return fail(&error);
        }
    }
    ExitCode::SUCCESS
}

fn fail(error: &ModuleError) -> ExitCode {
    eprintln!("modprobe: {error}");
    ExitCode::FAILURE
}

/// A folder of modules with its index.
pub struct Modules {
    folder: PathBuf,
    index: String,
}

impl Modules {
    pub fn of_running_kernel() -> Result<Self, ModuleError> {
        let release = nix::sys::utsname::uname()
            .map(|names| names.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        Self::new(&Path::new("/usr/lib/modules").join(release))
    }

    pub fn new(folder: &Path) -> Result<Self, ModuleError> {
        let path = folder.join("index");
        let index =
            std::fs::read_to_string(&path).map_err(|source| ModuleError::Index { path, source })?;
        Ok(Self {
            folder: folder.into(),
            index,
        })
    }

    /// Loads the module, or the modules that an alias stands for; one that is loaded already is no error.
    pub fn load(&self, name: &str) -> Result<(), ModuleError> {
        let wanted = self.resolve(&name.replace('-', "_"));
        if wanted.is_empty() {
            return Err(ModuleError::Unknown(name.into()));
        }
        wanted
            .into_iter()
            .try_for_each(|module| self.load_one(module))
    }

    /// Everything to load, in order.
    fn resolve<'a>(&'a self, name: &str) -> Vec<&'a str> {
        if let Some(order) = self.order(name) {
            return order;
        }
        let mut order = Vec::new();
        for line in self.index.lines() {
            let Some((pattern, module)) = line
                .strip_prefix("alias ")
                .and_then(|alias| alias.rsplit_once(' '))
            else {
                continue;
            };
            if matches(pattern.as_bytes(), name.as_bytes()) {
                order.extend(self.order(module).unwrap_or_default());
            }
        }
        order
    }

    fn order<'a>(&'a self, name: &str) -> Option<Vec<&'a str>> {
        self.index.lines().find_map(|line| {
            let mut words = line.strip_prefix("module ")?.split_whitespace();
            let module = words.next().filter(|module| *module == name)?;
            Some(words.chain([module]).collect())
        })
    }

    fn load_one(&self, name: &str) -> Result<(), ModuleError> {
        let open = |source| ModuleError::Open {
            name: name.into(),
            source,
        };
        let file = File::open(self.folder.join(format!("{name}.ko"))).map_err(open)?;
        match finit_module(file, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(ModuleError::Load {
                name: name.into(),
                errno,
            }),
        }
    }
}

/// Shell patterns as far as module aliases use them: `*` is anything.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches(rest, text)
                || text
                    .split_first()
                    .is_some_and(|(_, shorter)| matches(pattern, shorter))
        }
        (Some((want, pattern)), Some((have, text))) => want == have && matches(pattern, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_resolve_in_load_order() {
        let modules = Modules {
            folder: PathBuf::new(),
            index: "module bridge llc stp\nmodule llc \nmodule nft_ct nf_conntrack nf_tables\n\
                    alias rtnl_link_bridge bridge\nalias virtio:d00000002v* llc\nalias nft_expr_ct nft_ct\n"
                .into(),
        };
        let cases: [(&str, &[&str]); 6] = [
            ("bridge", &["llc", "stp", "bridge"]),
            ("llc", &["llc"]),
            ("rtnl_link_bridge", &["llc", "stp", "bridge"]),
            ("virtio:d00000002v00001AF4", &["llc"]),
            ("nft_expr_ct", &["nf_conntrack", "nf_tables", "nft_ct"]),
            ("unknown", &[]),
        ];
        for (name, order) in cases {
            assert_eq!(modules.resolve(name), order, "{name}");
        }
    }
}
