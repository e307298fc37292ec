//! The corpus, replayed: what has failed once fails again here.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use crate::{TARGETS, Target, find, seeds};

/// An input that takes longer is a hang.
const PATIENCE: Duration = Duration::from_secs(60);

thread_local! {
    /// A runtime catches what panics in its tasks.
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}

fn files(target: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(corpus(target)).expect("the target's corpus");
    let mut files: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
    files.sort();
    files
}

fn passes(target: &Target, input: &[u8]) -> bool {
    PANICKED.set(false);
    std::panic::catch_unwind(|| (target.run)(input)).is_ok() && !PANICKED.get()
}

#[test]
fn no_input_of_the_corpus_fails() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICKED.set(true);
        before(panic);
    }));
    for target in TARGETS {
        let files = files(target.name);
        assert!(!files.is_empty(), "{}", target.name);
        let (sender, done) = mpsc::channel();
        let names = files.clone();
        std::thread::spawn(move || {
            for file in files {
                let passed = passes(target, &fs::read(&file).expect("an input"));
                let _ = sender.send(passed);
            }
        });
        for name in names {
            match done.recv_timeout(PATIENCE) {
                Ok(passed) => assert!(passed, "{} fails", name.display()),
                Err(_) => panic!("{} hangs", name.display()),
            }
        }
    }
}

/// Seeds follow the messages' types; `LONGSHORE_WRITE_SEEDS=1` writes them anew.
#[test]
fn the_corpus_has_the_seeds_of_today() {
    let write = std::env::var_os("LONGSHORE_WRITE_SEEDS").is_some();
    for (target, (name, least, bytes)) in seeds::all() {
        let found = find(target).expect("a target");
        let path = corpus(target).join(name);
        if write {
            fs::create_dir_all(corpus(target)).expect("a folder");
            fs::write(&path, &bytes).expect("a seed");
        }
        assert_eq!(
            fs::read(&path).unwrap_or_default(),
            bytes,
            "{}",
            path.display()
        );
        // A guest that gets nowhere tries nothing.
        let got = (found.run)(&bytes);
        assert!(got >= least, "{target}/{name}: {got} instead of {least}");
    }
}
