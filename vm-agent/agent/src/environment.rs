//! What the engine's options say to programs through their environment: proxies, and how much is logged.

use crate::config::write_whole;
use serde_json::Value;
use std::io;

/// `NAME=VALUE` lines; init gives them to each service that it starts from then on.
const PATH: &str = "/run/longshore/environment";
/// Never asked of a proxy, as Go's programs have it: they are not the proxy's to reach.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// Written before the services that it is for start.
pub fn prepare(daemon_json: &Value) -> io::Result<()> {
    write_whole(PATH, lines(daemon_json).as_bytes())
}

fn lines(daemon_json: &Value) -> String {
    let mut lines = String::new();
    let mut set = |name: &str, value: &str| lines.push_str(&format!("{name}={value}\n"));
    let proxy = |key: &str| {
        let proxies = daemon_json.get("proxies")?;
        proxies
            .get(key)?
            .as_str()
            .filter(|url| !url.is_empty() && !url.contains(char::is_control))
    };
    for (name, key) in [("HTTP_PROXY", "http-proxy"), ("HTTPS_PROXY", "https-proxy")] {
        if let Some(url) = proxy(key) {
            // Programs differ in which of the two they read.
            set(name, url);
            set(&name.to_ascii_lowercase(), url);
        }
    }
    let none =
        proxy("no-proxy").map_or_else(|| LOOPBACK.to_owned(), |own| format!("{own},{LOOPBACK}"));
    set("NO_PROXY", &none);
    set("no_proxy", &none);
    if daemon_json.get("debug").and_then(Value::as_bool) == Some(true) {
        set("LONGSHORE_LOG", "debug");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn options_become_variables() {
        let none = "NO_PROXY=localhost,127.0.0.0/8,::1\nno_proxy=localhost,127.0.0.0/8,::1\n";
        assert_eq!(lines(&json!({})), none);
        let options = json!({ "debug": true, "proxies": { "http-proxy": "http://p:1", "https-proxy": "", "no-proxy": "a.b" } });
        let want = "HTTP_PROXY=http://p:1\nhttp_proxy=http://p:1\nNO_PROXY=a.b,localhost,127.0.0.0/8,::1\n\
                    no_proxy=a.b,localhost,127.0.0.0/8,::1\nLONGSHORE_LOG=debug\n";
        assert_eq!(lines(&options), want);
    }
}
