//! Names the commands that a page may call at all; `capabilities/` says which window may.

fn main() {
    let commands = tauri_build::AppManifest::new().commands(&[
        "ask",
        "open_stream",
        "open_terminal",
        "read",
        "write",
        "close",
        "open_upload",
        "write_upload",
        "end_upload",
        "drop_upload",
        "open_save",
        "follow_save",
        "drop_save",
        "quit",
        "stay",
    ]);
    let attributes = tauri_build::Attributes::new().app_manifest(commands);
    if let Err(error) = tauri_build::try_build(attributes) {
        panic!("{error:#}");
    }
}
