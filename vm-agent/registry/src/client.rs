//! One repository of a registry: manifests and blobs, with retries and authorization.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RANGE, WWW_AUTHENTICATE,
};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::Mutex;

use crate::auth::{self, Challenge, CredentialSource, Credentials};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::hosts::Endpoint;
use crate::reference::{Reference, is_loopback};

/// Manifests that we understand, as an Accept header.
const MANIFESTS: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";
/// A manifest is small; more is a mistake or an attack.
pub const MANIFEST_LIMIT: usize = 8 * 1024 * 1024;
const ATTEMPTS: u32 = 5;

/// What a repository is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Pull,
    Push,
}

impl Access {
    fn word(self) -> &'static str {
        match self {
            Access::Pull => "pull",
            Access::Push => "push",
        }
    }
}

/// The registry's answer to a new blob.
pub enum Upload {
    /// It had the blob in another repository.
    Mounted,
    /// Where the blob is to be sent.
    At(reqwest::Url),
}

pub struct Registry {
    access: Access,
    /// At least one; in the order in which they are asked.
    sites: Vec<Site>,
    /// The first site that was not found unreachable.
    first: AtomicUsize,
    host: String,
    scope: String,
    headers: Vec<(String, String)>,
    source: Option<Arc<dyn CredentialSource>>,
}

/// The repository at one endpoint.
struct Site {
    http: reqwest::Client,
    /// `https://registry.example.org/v2/repository`.
    base: String,
    is_origin: bool,
    authorization: Mutex<Option<String>>,
}

/// A request, as it is sent to one site after another.
struct Request<'a> {
    method: Method,
    /// Behind the site's base.
    path: &'a str,
    headers: &'a [(&'a str, String)],
    body: Option<bytes::Bytes>,
}

/// The innermost cause of a failed request: the outer ones only say that it failed.
pub fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.downcast_ref::<std::io::Error>() {
        // The words that people search for.
        Some(refused) if refused.kind() == std::io::ErrorKind::ConnectionRefused => {
            let url = error.url();
            let host = url.and_then(|url| url.host_str()).unwrap_or_default();
            let port = url
                .and_then(|url| url.port_or_known_default())
                .unwrap_or_default();
            format!("dial tcp {host}:{port}: connect: connection refused")
        }
        _ => tls_failure(cause).unwrap_or_else(|| cause.to_string()),
    }
}

/// A failed TLS greeting in the words of Go's library, which people search for.
fn tls_failure(mut cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    // An I/O error does not name what it wraps as its source.
    while let Some(inner) = cause
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref)
    {
        cause = inner;
    }
    let certificate = match cause.downcast_ref()? {
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            return Some("http: server gave HTTP response to HTTPS client".to_owned());
        }
        rustls::Error::InvalidCertificate(why) => match why {
            rustls::CertificateError::UnknownIssuer => {
                "certificate signed by unknown authority".to_owned()
            }
            rustls::CertificateError::Expired
            | rustls::CertificateError::ExpiredContext { .. }
            | rustls::CertificateError::NotValidYet
            | rustls::CertificateError::NotValidYetContext { .. } => {
                format!("certificate has expired or is not yet valid: {why}")
            }
            other => other.to_string(),
        },
        _ => return None,
    };
    Some(format!(
        "tls: failed to verify certificate: x509: {certificate}"
    ))
}

/// As Docker's clients know it, without the name of an error class at its end.
fn request_failed(request: &str, error: &reqwest::Error) -> Error {
    Error::Unreachable(format!(
        "failed to do request: {request}: {}",
        reason(error)
    ))
}

/// A registry may send us to its store, but not to what listens on this machine for nobody else.
fn follow(attempt: reqwest::redirect::Attempt) -> reqwest::redirect::Action {
    let first = attempt.previous().first();
    if first.is_some_and(|first| !may_lead(first, attempt.url())) {
        let to = attempt.url().origin().ascii_serialization();
        return attempt.error(format!("the registry sends to {to}, which is this machine"));
    }
    reqwest::redirect::Policy::default().redirect(attempt)
}

fn may_lead(from: &reqwest::Url, to: &reqwest::Url) -> bool {
    let is_local = |url: &reqwest::Url| url.host_str().is_some_and(is_loopback);
    is_local(from) || !is_local(to)
}

fn http_client(endpoint: &Endpoint) -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_danger_accept_invalid_certs(endpoint.skip_verify)
        .redirect(reqwest::redirect::Policy::custom(follow))
        .connect_timeout(Duration::from_secs(30))
        // No byte for this long: the connection is broken.
        .read_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(4)
        .user_agent(concat!("longshore/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| Error::Other(format!("preparing a registry client: {}", reason(&e))))
}

impl Site {
    fn new(endpoint: &Endpoint, repository: &str) -> Result<Self> {
        let slash = if repository.is_empty() { "" } else { "/" };
        Ok(Self {
            http: http_client(endpoint)?,
            base: format!("{}/v2{slash}{repository}", endpoint.url),
            is_origin: endpoint.is_origin,
            authorization: Mutex::default(),
        })
    }

    fn has_origin_of(&self, place: &reqwest::Url) -> bool {
        let own = reqwest::Url::parse(&self.base).ok();
        own.is_some_and(|own| own.origin() == place.origin())
    }
}

impl Registry {
    /// `endpoints` as [`crate::hosts`] tells them; mirrors among them are for pulls.
    pub fn open(
        reference: &Reference,
        access: Access,
        endpoints: &[Endpoint],
        headers: Vec<(String, String)>,
        source: Option<Arc<dyn CredentialSource>>,
    ) -> Result<Self> {
        let fit = |endpoint: &&Endpoint| access == Access::Pull || endpoint.is_origin;
        let sites = endpoints.iter().filter(fit);
        let sites = sites.map(|endpoint| Site::new(endpoint, &reference.repository));
        let registry = Self {
            access,
            sites: sites.collect::<Result<_>>()?,
            first: AtomicUsize::new(0),
            host: reference.host.clone(),
            scope: match access {
                Access::Pull => format!("repository:{}:pull", reference.repository),
                Access::Push => format!("repository:{}:pull,push", reference.repository),
            },
            headers,
            source,
        };
        match registry.sites.is_empty() {
            true => Err(Error::InvalidArgument(format!(
                "no endpoint of registry {:?} takes what is pushed",
                reference.host
            ))),
            false => Ok(registry),
        }
    }

    /// A registry as a whole, to log in to; `host` as in a reference.
    pub fn whole(
        host: &str,
        endpoints: &[Endpoint],
        source: Arc<dyn CredentialSource>,
    ) -> Result<Self> {
        let everything = Reference {
            host: host.to_owned(),
            repository: String::new(),
            tag: None,
            digest: None,
        };
        let mut registry = Self::open(
            &everything,
            Access::Push,
            endpoints,
            Vec::new(),
            Some(source),
        )?;
        registry.scope = String::new();
        Ok(registry)
    }

    /// Whether the registry takes the credentials (distribution-spec, "Determining Support"). In Docker's words.
    pub async fn log_in(&self) -> Result<()> {
        let answer = self.send(Method::GET, "/", &[]).await?;
        let status = answer.status();
        match status.is_success() {
            true => Ok(()),
            false => Err(Error::Other(format!(
                "login attempt to {} failed with status: {status}",
                answer.url()
            ))),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
    ) -> Result<Response> {
        let request = Request {
            method,
            path,
            headers,
            body: None,
        };
        self.send_whole(&request).await
    }

    /// Asks the sites in their order: the next one where one cannot be reached, or is a mirror that does not have it.
    async fn send_whole(&self, request: &Request<'_>) -> Result<Response> {
        let first = self.first.load(Ordering::Relaxed);
        let (last, others) = self.sites[first..]
            .split_last()
            .expect("the last site is never left out");
        for (index, site) in others.iter().enumerate() {
            match self.send_to(site, request).await {
                Ok(answer) if site.is_origin || answer.status().is_success() => return Ok(answer),
                Err(Error::Unreachable(_)) => {
                    self.first.fetch_max(first + index + 1, Ordering::Relaxed);
                }
                Err(error) if site.is_origin => return Err(error),
                _ => {}
            }
        }
        self.send_to(last, request).await
    }

    /// Sends until an answer comes that is neither a passing failure nor a challenge that we can meet.
    async fn send_to(&self, site: &Site, wanted: &Request<'_>) -> Result<Response> {
        let url = format!("{}{}", site.base, wanted.path);
        let attempts = if site.is_origin { ATTEMPTS } else { 1 };
        let mut challenged = false;
        let mut attempt = 1;
        loop {
            let mut request = site.http.request(wanted.method.clone(), &url);
            for (name, value) in &self.headers {
                request = request.header(name, value);
            }
            for (name, value) in wanted.headers {
                request = request.header(*name, value);
            }
            if let Some(authorization) = site.authorization.lock().await.as_ref() {
                request = request.header(AUTHORIZATION, authorization);
            }
            if let Some(body) = &wanted.body {
                request = request.body(body.clone());
            }
            let answer = match request.send().await {
                Ok(answer) => answer,
                // A refused connection is an answer; one that broke is worth another try.
                Err(error) if attempt < attempts && !error.is_connect() && !error.is_builder() => {
                    tokio::time::sleep(Duration::from_millis(200) * 2u32.pow(attempt)).await;
                    attempt += 1;
                    continue;
                }
                Err(error) => {
                    let verb = wanted.method.as_str();
                    let verb = format!("{}{}", &verb[..1], verb[1..].to_lowercase());
                    return Err(request_failed(&format!("{verb} {url:?}"), &error));
                }
            };
            let status = answer.status();
            if status == StatusCode::UNAUTHORIZED && !challenged {
                challenged = true;
                if self.authorize(site, &answer).await? {
                    continue;
                }
            }
            let passing = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            if passing && attempt < attempts {
                let wait = answer
                    .headers()
                    .get("retry-after")
                    .and_then(|v| v.to_str().ok()?.parse().ok());
                let wait = wait.map_or(
                    Duration::from_millis(200) * 2u32.pow(attempt),
                    Duration::from_secs,
                );
                tokio::time::sleep(wait.min(Duration::from_secs(30))).await;
                attempt += 1;
                continue;
            }
            return Ok(answer);
        }
    }

    async fn authorize(&self, site: &Site, answer: &Response) -> Result<bool> {
        let headers: Vec<String> = answer
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        let credentials = match self.source.as_ref().filter(|_| site.is_origin) {
            Some(source) => source.credentials(&self.host, &headers).await?,
            None => Credentials::Anonymous,
        };
        let challenges: Vec<Challenge> = headers.iter().map(|h| Challenge::parse(h)).collect();
        let header = auth::answer(&site.http, &challenges, &self.scope, &credentials).await?;
        let met = header.is_some();
        if !met && challenges.iter().any(Challenge::is_basic) {
            return Err(Error::Denied(match self.scope.as_str() {
                "" => format!("Get {:?}: no basic auth credentials", answer.url().as_str()),
                _ => format!(
                    "{} access denied, repository does not exist or may require authorization: authorization failed: \
                     no basic auth credentials",
                    self.access.word()
                ),
            }));
        }
        *site.authorization.lock().await = header;
        Ok(met)
    }

    fn check(&self, answer: Response, what: &str) -> Result<Response> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let url = answer.url().to_string();
        Err(match status {
            StatusCode::NOT_FOUND => Error::NotFound(what.to_owned()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied(format!(
                "{what}: {} access denied, repository does not exist or may require authorization: \
                 unexpected status from request to {url}: {status}",
                self.access.word()
            )),
            _ => Error::Unavailable(format!("unexpected status from request to {url}: {status}")),
        })
    }

    /// What a tag stands for now: media type and digest.
    pub async fn resolve(&self, object: &str, name: &str) -> Result<(Option<String>, Digest, i64)> {
        let path = format!("/manifests/{object}");
        let accept = [(ACCEPT.as_str(), MANIFESTS.to_owned())];
        let answer = self.send(Method::HEAD, &path, &accept).await?;
        let answer = self.check(answer, name)?;
        let text = |name: &str| {
            answer
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let size = text("content-length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        if let Some(digest) = text("docker-content-digest") {
            return Ok((text("content-type"), digest.parse()?, size));
        }
        // Some registries leave the digest out.
        let (media_type, bytes) = self.manifest(object, name).await?;
        Ok((media_type, Digest::of(&bytes), bytes.len() as i64))
    }

    pub async fn manifest(&self, object: &str, name: &str) -> Result<(Option<String>, Vec<u8>)> {
        let path = format!("/manifests/{object}");
        let accept = [(ACCEPT.as_str(), MANIFESTS.to_owned())];
        let answer = self.send(Method::GET, &path, &accept).await?;
        let mut answer = self.check(answer, name)?;
        let media_type = answer
            .headers()
            .get("content-type")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        let bytes =
            read_bounded(&mut answer, MANIFEST_LIMIT, &format!("manifest of {name}")).await?;
        Ok((media_type, bytes))
    }

    /// A blob from an offset on. Says where the answer really starts: not every server knows ranges.
    pub async fn blob(&self, digest: &Digest, offset: u64) -> Result<(Response, u64)> {
        let path = format!("/blobs/{digest}");
        let range = [(RANGE.as_str(), format!("bytes={offset}-"))];
        let answer = self
            .send(Method::GET, &path, if offset > 0 { &range } else { &[] })
            .await?;
        let answer = self.check(answer, &format!("content {digest}"))?;
        let start = if answer.status() == StatusCode::PARTIAL_CONTENT {
            offset
        } else {
            0
        };
        Ok((answer, start))
    }

    /// A whole blob of at most `limit` bytes, verified.
    pub async fn small_blob(&self, digest: &Digest, limit: usize) -> Result<Vec<u8>> {
        let (mut answer, _) = self.blob(digest, 0).await?;
        let name = format!("content {digest}");
        let bytes = read_bounded(&mut answer, limit, &name).await?;
        let found = Digest::of(&bytes);
        match found == *digest {
            true => Ok(bytes),
            false => Err(Error::Other(format!(
                "unexpected commit digest {found}, expected {digest}"
            ))),
        }
    }

    /// Whether the repository has a blob.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let path = format!("/blobs/{digest}");
        let answer = self.send(Method::HEAD, &path, &[]).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        self.check(answer, &format!("content {digest}"))?;
        Ok(true)
    }

    /// Asks for a place for a blob, or for the same blob of another repository of this registry.
    pub async fn begin_upload(&self, digest: &Digest, origin: Option<&str>) -> Result<Upload> {
        let path = match origin {
            Some(origin) => format!("/blobs/uploads/?mount={digest}&from={origin}"),
            None => "/blobs/uploads/".to_owned(),
        };
        let empty = [(CONTENT_LENGTH.as_str(), "0".to_owned())];
        let answer = self.send(Method::POST, &path, &empty).await?;
        let answer = self.check(answer, &format!("content {digest}"))?;
        if origin.is_some() && answer.status() == StatusCode::CREATED {
            return Ok(Upload::Mounted);
        }
        let location = answer.headers().get(LOCATION).and_then(|v| v.to_str().ok());
        let location = location.ok_or_else(|| {
            let url = answer.url();
            Error::Unavailable(format!("answer from {url} without a location"))
        })?;
        let place = answer.url().join(location);
        let place = place.map_err(|e| Error::Unavailable(format!("location {location:?}: {e}")))?;
        if !may_lead(answer.url(), &place) {
            return Err(Error::Denied(format!(
                "the registry sends to {place}, which is this machine"
            )));
        }
        Ok(Upload::At(place))
    }

    /// Sends a whole blob. Cannot be repeated from here: the body is gone once it was sent.
    pub async fn finish_upload(
        &self,
        place: &reqwest::Url,
        digest: &Digest,
        body: reqwest::Body,
        size: u64,
    ) -> Result<()> {
        let mut url = place.clone();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        // Another host (a store that the registry sends us to) must not learn the credentials.
        let own = self.sites.iter().find(|site| site.has_origin_of(place));
        let mut request = own
            .unwrap_or(&self.sites[0])
            .http
            .put(url)
            .header(CONTENT_LENGTH, size)
            .header(CONTENT_TYPE, "application/octet-stream");
        if let Some(site) = own
            && let Some(authorization) = site.authorization.lock().await.as_ref()
        {
            request = request.header(AUTHORIZATION, authorization);
        }
        let what = format!("Put {:?}", place.as_str());
        let answer = request
            .body(body)
            .send()
            .await
            .map_err(|error| request_failed(&what, &error))?;
        self.check(answer, &format!("content {digest}"))?;
        Ok(())
    }

    /// Stores a manifest under a tag or its digest.
    pub async fn put_manifest(&self, object: &str, media_type: &str, bytes: Vec<u8>) -> Result<()> {
        let path = format!("/manifests/{object}");
        let kind = [(CONTENT_TYPE.as_str(), media_type.to_owned())];
        let request = Request {
            method: Method::PUT,
            path: &path,
            headers: &kind,
            body: Some(bytes.into()),
        };
        let answer = self.send_whole(&request).await?;
        self.check(answer, &format!("manifest {object}"))?;
        Ok(())
    }
}

pub(crate) async fn read_bounded(
    answer: &mut Response,
    limit: usize,
    name: &str,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer
        .chunk()
        .await
        .map_err(|e| Error::Unavailable(reason(&e)))?
    {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > limit {
            return Err(Error::InvalidArgument(format!("{name} is too large")));
        }
    }
    Ok(bytes)
}
