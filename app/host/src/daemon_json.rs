//! dockerd's configuration for the guest: the user's own `daemon.json`, with what the settings say over it.

use crate::shares;
use longshore_host_api::{ApiError, ErrorCode, Settings};
use longshore_protocol::engine_options;
use serde_json::{Map, Value, json};
use std::path::Path;

const INSECURE: &str = "insecure-registries";

/// What the guest's daemon gets: the file's options, under the setting `engine`, key by key; registries that any of them
/// calls insecure are. `socket`: the forwarded Docker socket, for clients that mount the one they talk to.
pub fn compose(path: &Path, settings: &Settings, socket: &Path) -> Result<Value, ApiError> {
    let mut all = read(path)?;
    let mut registries = strings(all.get(INSECURE));
    registries.extend(strings(settings.engine.get(INSECURE)));
    registries.extend(settings.insecure_registries.iter().map(|name| json!(name)));
    all.extend(settings.engine.clone());
    // Each part is sound, and yet the file's log options need not be those of the setting's log driver.
    engine_options::check(&all).map_err(|refusal| {
        ApiError::new(ErrorCode::Invalid, refusal.message)
            .at_stage("check")
            .with_hint(refusal.advice)
    })?;
    all.insert(INSECURE.into(), json!(registries));
    all.insert("ip".into(), json!(settings.publish_address.to_string()));
    all.insert(
        "longshore".into(),
        json!({
            "share-command": shares::SHARE_COMMAND,
            "masked": shares::secrets(settings, shares::user_home().as_deref()),
            "docker-socket": socket,
        }),
    );
    Ok(Value::Object(all))
}

fn strings(list: Option<&Value>) -> Vec<Value> {
    list.and_then(Value::as_array).cloned().unwrap_or_default()
}

fn read(path: &Path) -> Result<Map<String, Value>, ApiError> {
    let wrong = |why: String| {
        ApiError::new(ErrorCode::Invalid, format!("{}: {why}", path.display()))
            .at_stage("check")
            .with_hint("mend the file, or remove it to have the defaults")
    };
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let options = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
            engine_options::check(&options).map_err(|refusal| wrong(refusal.to_string()))?;
            Ok(options)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(wrong(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_file_is_under_the_settings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon.json");
        let machine = crate::machine::detect();
        let mut settings = Settings {
            insecure_registries: vec!["b:5000".into()],
            ..Settings::defaults(machine)
        };
        let composed = |settings: &Settings| {
            compose(&path, settings, Path::new("/me/docker.sock")).map(|v| v.to_string())
        };
        assert!(
            composed(&settings)
                .unwrap()
                .contains(r#""insecure-registries":["b:5000"]"#)
        );
        let own = r#"{"ipv6": true, "insecure-registries": ["a:5000"], "mtu": 1400, "log-opts": {"tag": "x"}}"#;
        std::fs::write(&path, own).unwrap();
        settings.engine.insert("mtu".into(), json!(1300));
        let all = composed(&settings).unwrap();
        for expected in [
            r#"["a:5000","b:5000"]"#,
            r#""ipv6":true"#,
            r#""mtu":1300"#,
            r#""ip":"127.0.0.1""#,
            r#""docker-socket":"/me/docker.sock""#,
        ] {
            assert!(all.contains(expected), "{all}");
        }
        settings.engine.insert("log-driver".into(), json!("local"));
        let refused = compose(&path, &settings, Path::new(""))
            .unwrap_err()
            .message;
        assert!(
            refused.contains("unknown log opt 'tag' for local"),
            "{refused}"
        );
        for (content, words) in [
            ("[]", "daemon.json: "),
            (r#"{"ip": "0.0.0.0"}"#, "publish_address"),
            (
                r#"{"graph": "/x"}"#,
                "don't match any configuration option: graph",
            ),
        ] {
            std::fs::write(&path, content).unwrap();
            let refused = compose(&path, &settings, Path::new(""))
                .unwrap_err()
                .message;
            assert!(refused.contains(words), "{refused}");
        }
    }
}
