//! `longshore-posix-cases FOLDER`: what POSIX and Linux say that files do, case by case, as root and as other users, in this folder.
//!
//! It knows nothing of what serves the folder. Each case has an empty folder of its own, of root's, and says `pass NAME` or
//! `fail NAME: WHAT`; how many, at the end. It runs as root, and leaves nothing behind.

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod contents;
#[cfg(target_os = "linux")]
mod errors;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod permissions;
#[cfg(target_os = "linux")]
mod times;

#[cfg(target_os = "linux")]
fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[..] {
        // What a case runs with another user's set-user-ID bit.
        [_, word] if word == "--who" => std::process::exit(calls::effective_user() as i32),
        [_, folder] => {
            let mut cases = calls::Cases::new(folder.as_ref());
            errors::all(&mut cases);
            permissions::all(&mut cases);
            names::all(&mut cases);
            contents::all(&mut cases);
            times::all(&mut cases);
            cases.end();
        }
        _ => {
            eprintln!("usage: longshore-posix-cases FOLDER");
            std::process::exit(2);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}
