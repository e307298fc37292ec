//! Answering a registry's challenge: basic, or a bearer token from its token service.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::{Error, Result};

/// What a client gives for a registry.
#[derive(Clone, Debug)]
pub enum Credentials {
    Anonymous,
    Basic {
        username: String,
        secret: String,
    },
    /// An identity (refresh) token.
    Refresh(String),
    /// A whole `Authorization` header.
    Header(String),
}

/// Where credentials come from: the client is asked when a registry wants some.
#[async_trait::async_trait]
pub trait CredentialSource: Send + Sync {
    async fn credentials(&self, host: &str, challenges: &[String]) -> Result<Credentials>;
}

/// A `WWW-Authenticate` header.
#[derive(Debug, Default, PartialEq)]
pub struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub fn parse(header: &str) -> Self {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        let mut parameters = Vec::new();
        let mut rest = rest.trim();
        while let Some((name, tail)) = rest.split_once('=') {
            let (value, tail) = match tail.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => tail.split_once(',').unwrap_or((tail, "")),
            };
            parameters.push((name.trim().to_ascii_lowercase(), value.to_owned()));
            rest = tail.trim_start_matches([',', ' ']);
        }
        Self {
            scheme: scheme.to_ascii_lowercase(),
            parameters,
        }
    }

    pub fn is_basic(&self) -> bool {
        self.scheme == "basic"
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

fn basic(username: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{secret}")))
}

/// The `Authorization` header that answers a challenge; `None`: nothing to answer with.
pub async fn answer(
    http: &reqwest::Client,
    challenges: &[Challenge],
    scope: &str,
    credentials: &Credentials,
) -> Result<Option<String>> {
    if let Credentials::Header(header) = credentials {
        return Ok(Some(header.clone()));
    }
    for challenge in challenges {
        match (challenge.scheme.as_str(), credentials) {
            ("bearer", _) => return token(http, challenge, scope, credentials).await.map(Some),
            ("basic", Credentials::Basic { username, secret }) => {
                return Ok(Some(basic(username, secret)));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// A token travels in a header; more is a mistake or an attack.
const TOKEN_LIMIT: usize = 1 << 20;

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

async fn token(
    http: &reqwest::Client,
    challenge: &Challenge,
    scope: &str,
    credentials: &Credentials,
) -> Result<String> {
    let failed = |what: String| Error::Other(format!("failed to fetch a token: {what}"));
    let realm = challenge
        .parameter("realm")
        .ok_or_else(|| failed("no realm".into()))?;
    let mut url = reqwest::Url::parse(realm).map_err(|e| failed(format!("{realm}: {e}")))?;
    let service = challenge.parameter("service").unwrap_or_default();
    let scope = challenge.parameter("scope").unwrap_or(scope);
    let request = if let Credentials::Refresh(refresh) = credentials {
        let mut form = reqwest::Url::parse("http://x/").map_err(|e| failed(e.to_string()))?;
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", service)
            .append_pair("client_id", "longshore")
            .append_pair("scope", scope)
            .append_pair("refresh_token", refresh);
        http.post(url.clone())
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned())
    } else {
        url.query_pairs_mut()
            .append_pair("service", service)
            .append_pair("scope", scope);
        let request = http.get(url.clone());
        match credentials {
            Credentials::Basic { username, secret } => {
                request.header("Authorization", basic(username, secret))
            }
            _ => request,
        }
    };
    let mut answer = request
        .send()
        .await
        .map_err(|e| failed(crate::client::reason(&e)))?;
    if answer.status() == reqwest::StatusCode::UNAUTHORIZED {
        return Err(Error::Denied(
            "unauthorized: incorrect username or password".to_owned(),
        ));
    }
    if !answer.status().is_success() {
        return Err(failed(format!(
            "unexpected status from GET request to {url}: {}",
            answer.status()
        )));
    }
    let body = crate::client::read_bounded(&mut answer, TOKEN_LIMIT, "the answer")
        .await
        .map_err(|error| failed(error.to_string()))?;
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|e| failed(e.to_string()))?;
    let token = answer
        .token
        .or(answer.access_token)
        .ok_or_else(|| failed("no token".into()))?;
    Ok(format!("Bearer {token}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let header = r#"Bearer realm="https://a/token",service="a",scope="repository:x:pull,push""#;
        let parsed = Challenge::parse(header);
        assert_eq!(parsed.scheme, "bearer");
        assert_eq!(parsed.parameter("realm"), Some("https://a/token"));
        assert_eq!(parsed.parameter("scope"), Some("repository:x:pull,push"));
        assert_eq!(
            Challenge::parse("Basic realm=x, charset=utf-8").parameter("charset"),
            Some("utf-8")
        );
        assert_eq!(Challenge::parse("Negotiate").scheme, "negotiate");
    }
}
