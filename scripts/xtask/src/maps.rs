//! Every top folder's README is a map: each entry of the folder has a table row, and each row an entry.

use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::Path;

const FOLDERS: &[&str] = &["app", "vm-agent", "guest-image", "ui", "scripts"];
/// What needs no row: it explains itself or is a tool's.
const UNLISTED: &[&str] = &[
    "README.md",
    "Cargo.toml",
    "src",
    "tests",
    "node_modules",
    "dist",
];

/// Fails with every entry that is not on its map and every row that points nowhere.
pub fn check() -> Result<()> {
    let mut wrong = Vec::new();
    for folder in FOLDERS {
        let map = Path::new(folder).join("README.md");
        let text = std::fs::read_to_string(&map)
            .with_context(|| format!("{} is missing", map.display()))?;
        let listed = first_table(&text);
        let present = entries(Path::new(folder))?;
        for name in present.difference(&listed) {
            wrong.push(format!("{folder}/{name} has no row in {}", map.display()));
        }
        for name in listed.difference(&present) {
            wrong.push(format!(
                "{} lists {name}, which is not there",
                map.display()
            ));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("maps:\n  {}", wrong.join("\n  "));
}

/// First cells, in backticks, of the README's first table.
fn first_table(text: &str) -> BTreeSet<String> {
    text.lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.split('`').nth(1))
        .map(|name| name.trim_end_matches('/').to_owned())
        .collect()
}

fn entries(folder: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !UNLISTED.contains(&name.as_str()) {
            names.insert(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::first_table;

    #[test]
    fn only_the_first_table_is_the_map() {
        let text = "# x\n\n| folder | what |\n| --- | --- |\n| `a/` | one |\n| `b` | two |\n\n| `c` | no |\n";
        let names: Vec<_> = first_table(text).into_iter().collect();
        assert_eq!(names, ["a", "b"]);
    }
}
