//! The pages: where `ui/dist` lies, what of it may be read, and the policy that binds it. For whoever serves them.

use std::path::{Path, PathBuf};

/// `LONGSHORE_UI`, beside the programs, or `ui/dist` of the source tree that they were built in.
pub fn folder() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("LONGSHORE_UI").filter(|p| !p.is_empty()) {
        return Some(PathBuf::from(path)).filter(|p| has_index(p));
    }
    let program = std::env::current_exe().ok()?;
    let beside = program.parent()?.join("ui");
    let in_tree = program.ancestors().skip(2).take(4);
    std::iter::once(beside)
        .chain(in_tree.map(|f| f.join("ui").join("dist")))
        .find(|p| has_index(p))
}

fn has_index(folder: &Path) -> bool {
    folder.join("index.html").is_file()
}

/// What to tell who has no such folder.
pub const MISSING: &str = "the window's pages are not installed: no ui folder beside the programs";
pub const MISSING_HINT: &str =
    "build them with scripts/ui build, or set LONGSHORE_UI to their folder";

/// The file that an address names: `/`, `/NAME` or `/assets/NAME` of plain characters, so that no path leads out of the folder.
pub fn file_name(path: &str) -> Option<&str> {
    let path = path.strip_prefix('/')?;
    if path.is_empty() {
        return Some("index.html");
    }
    let name = path.strip_prefix("assets/").unwrap_or(path);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (name.chars().all(plain) && name.starts_with(|c: char| c != '.')).then_some(path)
}

/// The Content-Security-Policy: nothing but our own scripts runs, nobody frames us, and only `connect` is talked to.
///
/// The terminal makes style sheets of its own, which is why styles may stand in the page; scripts may not. Text becomes markup
/// nowhere but in the templates of the pages.
pub fn policy(connect: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; \
         connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types svelte-trusted-html"
    )
}
