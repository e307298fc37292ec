//! The user's sign-ins to registries, as the docker command keeps them: read where they are needed, kept nowhere, told to no page.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use longshore_host_api::ApiError;
use longshore_host_api::home::docker_config_folder;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// The name under which the docker command keeps the sign-in to Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";
/// More than any configuration or answer that means well.
const MAX_FILE: u64 = 1 << 20;
/// A helper may ask the user to unlock a key ring.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where helpers are that a service started from a desktop has not in its path.
const USUAL: [&str; 2] = ["/usr/local/bin", "/opt/homebrew/bin"];

/// What of `config.json` is read.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: HashMap<String, Auth>,
    creds_store: String,
    cred_helpers: HashMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// The Docker API's `X-Registry-Auth`, decoded. Never logged: it has no `Debug`.
#[derive(Default, Serialize)]
struct Header {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    password: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    identitytoken: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    registrytoken: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    serveraddress: String,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// The header for a request on an image, if the user has signed in to its registry.
pub async fn header_for(image: &str) -> Result<Option<String>, ApiError> {
    let Some(folder) = docker_config_folder() else {
        return Ok(None);
    };
    let path = folder.join("config.json");
    let text = match tokio::fs::File::open(&path).await {
        Ok(file) => {
            let mut text = Vec::new();
            let read = file.take(MAX_FILE).read_to_end(&mut text).await;
            read.map_err(|e| ApiError::conflict(format!("cannot read {path:?}: {e}")))?;
            text
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ApiError::conflict(format!("cannot read {path:?}: {error}"))),
    };
    let config: Config = serde_json::from_slice(&text).map_err(|e| {
        // The text itself may hold secrets.
        ApiError::conflict(format!("{path:?} is not understood, in line {}", e.line()))
            .with_hint("the docker command keeps its sign-ins there")
    })?;
    let found = config.find(server_of(image)).await?;
    found.map(|header| header.encode()).transpose()
}

/// The registry of an image's name, as sign-ins are filed.
fn server_of(image: &str) -> &str {
    match image.split_once('/') {
        Some(("docker.io" | "index.docker.io", _)) | None => HUB,
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        Some(_) => HUB,
    }
}

/// `https://host/v1/` and `host` are the same registry.
fn host_of(key: &str) -> &str {
    let key = key.strip_prefix("https://").unwrap_or(key);
    let key = key.strip_prefix("http://").unwrap_or(key);
    key.split('/').next().unwrap_or(key)
}

impl Config {
    async fn find(&self, server: &str) -> Result<Option<Header>, ApiError> {
        let helper = self.cred_helpers.get(server).or(Some(&self.creds_store));
        if let Some(helper) = helper.filter(|name| !name.is_empty()) {
            return ask_helper(helper, server).await;
        }
        let mut exact = self.auths.get(server);
        if exact.is_none() {
            let same = |(key, _): &(&String, &Auth)| host_of(key) == host_of(server);
            exact = self.auths.iter().find(same).map(|(_, auth)| auth);
        }
        Ok(exact.and_then(|auth| auth.header(server)))
    }
}

impl Auth {
    fn header(&self, server: &str) -> Option<Header> {
        let mut header = Header {
            username: self.username.clone(),
            password: self.password.clone(),
            identitytoken: self.identitytoken.clone(),
            registrytoken: self.registrytoken.clone(),
            serveraddress: server.to_owned(),
        };
        let decoded = STANDARD.decode(self.auth.trim()).unwrap_or_default();
        let decoded = String::from_utf8_lossy(&decoded);
        if let Some((name, password)) = decoded.split_once(':') {
            header.username = name.to_owned();
            header.password = password.trim_end_matches('\0').to_owned();
        }
        let empty = header.password.is_empty()
            && header.identitytoken.is_empty()
            && header.registrytoken.is_empty();
        (!empty).then_some(header)
    }
}

impl Header {
    fn encode(&self) -> Result<String, ApiError> {
        let text = serde_json::to_vec(self).map_err(|e| ApiError::internal(e.to_string()))?;
        Ok(URL_SAFE.encode(text))
    }
}

/// Runs `docker-credential-NAME get`; `None` when it knows no sign-in.
async fn ask_helper(name: &str, server: &str) -> Result<Option<Header>, ApiError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let failed = |why: String| {
        ApiError::conflict(format!("the credential helper {name:?} has failed: {why}"))
            .with_hint("try the same with: docker login")
    };
    if !name.chars().all(plain) {
        return Err(failed("this is no name of a program".to_owned()));
    }
    let program = format!("docker-credential-{name}");
    let answered = tokio::time::timeout(PATIENCE, run(&program, server)).await;
    let answered = answered.map_err(|_| failed("it does not answer".to_owned()))?;
    if let Err(error) = &answered
        && error.kind() == io::ErrorKind::NotFound
    {
        // Another product's, which has gone and left its name behind. The docker command goes on without a sign-in, too.
        tracing::warn!(program, "the credential helper of config.json is missing");
        return Ok(None);
    }
    let (good, answer) = answered.map_err(|e| failed(e.to_string()))?;
    if !good {
        // The helpers' protocol has these words for it.
        let text = String::from_utf8_lossy(&answer);
        return match text.contains("credentials not found") {
            true => Ok(None),
            false => Err(failed(text.trim().chars().take(200).collect())),
        };
    }
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|_| failed("its answer is not understood".to_owned()))?;
    let mut header = Header {
        serveraddress: server.to_owned(),
        ..Header::default()
    };
    match answer.username.as_str() {
        "<token>" => header.identitytoken = answer.secret,
        _ => (header.username, header.password) = (answer.username, answer.secret),
    }
    Ok(Some(header))
}

/// Whether a helper has found something, and what it says.
async fn run(program: &str, server: &str) -> io::Result<(bool, Vec<u8>)> {
    let mut child = spawn(program)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(server.as_bytes()).await?;
        input.shutdown().await?;
    }
    let mut answer = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(MAX_FILE).read_to_end(&mut answer).await?;
    }
    Ok((child.wait().await?.success(), answer))
}

fn spawn(program: &str) -> io::Result<tokio::process::Child> {
    let start = |program: PathBuf| {
        Command::new(program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
    };
    let mut started = start(PathBuf::from(program));
    for folder in USUAL
        .map(PathBuf::from)
        .into_iter()
        .chain(docker_config_folder().map(|f| f.join("bin")))
    {
        match &started {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                started = start(folder.join(program));
            }
            _ => break,
        }
    }
    started
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_leads_to_its_registry() {
        for (image, server) in [
            ("nginx", HUB),
            ("library/nginx", HUB),
            ("docker.io/library/nginx", HUB),
            ("ghcr.io/a/b", "ghcr.io"),
            ("localhost/a", "localhost"),
            ("10.0.2.2:5000/team/box", "10.0.2.2:5000"),
        ] {
            assert_eq!(server_of(image), server, "{image}");
        }
    }

    #[tokio::test]
    async fn a_sign_in_is_found_under_each_of_its_names() {
        let text = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"bWU6YTpi"},
            "https://ghcr.io/v2/":{"auth":"eDo=","identitytoken":"tok"},
            "empty.example":{}},"HttpHeaders":{"a":"b"}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        let hub = config.find(HUB).await.unwrap().unwrap();
        assert_eq!(
            (hub.username.as_str(), hub.password.as_str()),
            ("me", "a:b")
        );
        let ghcr = config.find("ghcr.io").await.unwrap().unwrap();
        assert_eq!(ghcr.identitytoken, "tok");
        assert_eq!(ghcr.serveraddress, "ghcr.io");
        assert!(config.find("empty.example").await.unwrap().is_none());
        assert!(config.find("other.example").await.unwrap().is_none());
        let decoded = URL_SAFE.decode(hub.encode().unwrap()).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&decoded).unwrap();
        assert_eq!(value["serveraddress"], HUB);
        assert!(value.get("identitytoken").is_none());
    }

    #[tokio::test]
    async fn a_helper_is_a_plain_name() {
        for name in ["../../bin/sh", "a b", "a/b"] {
            assert!(ask_helper(name, HUB).await.is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn without_its_helper_the_user_is_nobody() {
        let missing = ask_helper("no-such-helper-anywhere", HUB).await;
        assert!(missing.unwrap().is_none());
    }
}
