//! What the user is told outside the window.

use std::thread::JoinHandle;

/// Shows a notification, in a thread of its own: it waits for the desktop. Where there is no place for them nothing can be done.
pub fn tell(title: &str, text: &str) -> JoinHandle<()> {
    let mut news = notify_rust::Notification::new();
    news.appname("Longshore").summary(title).body(text);
    #[cfg(target_os = "linux")]
    news.icon("longshore");
    std::thread::spawn(move || {
        if let Err(error) = news.show() {
            eprintln!("longshore-desktop: cannot show a notification: {error}");
        }
    })
}
