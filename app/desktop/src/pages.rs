//! The pages in the window: read from their folder, the one that browsers are served from too.

use std::borrow::Cow;
use std::path::PathBuf;

use anyhow::bail;
use longshore_host_api::pages::{self, file_name};
use tauri::utils::assets::{AssetKey, AssetsIter, CspHash};
use tauri::utils::config::Csp;
use tauri::{Assets, Context, Wry};

/// How a page reaches the commands of this program.
const COMMANDS: &str = "ipc: http://ipc.localhost";

/// Has the window load the pages, bound by their policy.
pub fn install(context: &mut Context<Wry>) -> anyhow::Result<()> {
    let Some(folder) = pages::folder() else {
        bail!("{}: {}", pages::MISSING, pages::MISSING_HINT);
    };
    context.set_assets(Box::new(Folder(folder)));
    context.config_mut().app.security.csp = Some(Csp::Policy(pages::policy(COMMANDS)));
    Ok(())
}

struct Folder(PathBuf);

impl Assets<Wry> for Folder {
    fn get(&self, key: &AssetKey) -> Option<Cow<'_, [u8]>> {
        let path = self.0.join(file_name(key.as_ref())?);
        std::fs::read(path).ok().map(Cow::Owned)
    }

    fn iter(&self) -> Box<AssetsIter<'_>> {
        Box::new(std::iter::empty())
    }

    fn csp_hashes(&self, _: &AssetKey) -> Box<dyn Iterator<Item = CspHash<'_>> + '_> {
        Box::new(std::iter::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_folder_is_read() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("dist");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("index.html"), "page").unwrap();
        std::fs::write(outer.path().join("secret.js"), "x").unwrap();
        let pages = Folder(folder);
        assert_eq!(pages.get(&"/index.html".into()).unwrap(), &b"page"[..]);
        for outside in ["../secret.js", "/../secret.js", "/assets/../../secret.js"] {
            assert!(pages.get(&outside.into()).is_none(), "{outside}");
        }
    }
}
