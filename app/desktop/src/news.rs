//! What the user is told outside the window.

/// Shows a notification. Where the desktop has no place for them there is nothing to do about it.
pub fn tell(title: &str, text: &str) {
    let mut news = notify_rust::Notification::new();
    news.appname("Longshore").summary(title).body(text);
    #[cfg(target_os = "linux")]
    news.icon("longshore");
    if let Err(error) = news.show() {
        eprintln!("longshore-desktop: cannot show a notification: {error}");
    }
}
