//! Requests and responses as handlers see them: path segments, query, JSON and streaming bodies.

use crate::error::{ApiError, ApiResult};
use crate::filter::Filters;
use crate::upload::Upload;
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::sync::Arc;

pub type Body = UnsyncBoxBody<Bytes, io::Error>;
pub type ApiResponse = Response<Body>;

/// No JSON that a client of this API sends is larger.
const JSON_LIMIT: usize = 4 << 20;

/// An API version; 1.51 is `ApiVersion(1, 51)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u32, pub u32);

/// The path without its version prefix, decoded segment by segment.
#[derive(Debug, Clone)]
pub struct Path(Arc<[String]>);

impl Path {
    pub fn new(raw: &str) -> Self {
        Path(
            raw.split('/')
                .filter(|part| !part.is_empty())
                .map(percent_decode)
                .collect(),
        )
    }

    /// For matching: `match (request.method.as_str(), &path.segments()[..])`.
    pub fn segments(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }

    /// With the second and third segment as one, as the name of a link has a slash in it: `/containers/web/db/json`.
    pub fn with_link_name(&self) -> Option<Path> {
        let [part, name, alias, rest @ ..] = &*self.0 else {
            return None;
        };
        let joined = [part.clone(), format!("{name}/{alias}")];
        let is_new = !name.contains('/');
        is_new.then(|| Path(joined.into_iter().chain(rest.iter().cloned()).collect()))
    }
}

/// One request, whose body is still to be read.
pub struct ApiRequest {
    pub method: Method,
    pub path: Path,
    pub query: Query,
    pub headers: HeaderMap,
    pub version: ApiVersion,
    pub body: Incoming,
    /// The connection, for handlers that take it over; see [`crate::server::hijack`].
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
}

impl ApiRequest {
    /// The body as JSON; 400 in Docker's words when it is not.
    pub async fn json<T: DeserializeOwned>(&mut self) -> ApiResult<T> {
        let bytes = self.bytes().await?;
        self.check_content_type(&bytes)?;
        if bytes.is_empty() {
            return Err(ApiError::bad_request(
                "invalid JSON: got EOF while reading request body",
            ));
        }
        parse_json(&bytes)
    }

    /// The same, where a missing body and `null` mean the default.
    pub async fn json_or_default<T: DeserializeOwned + Default>(&mut self) -> ApiResult<T> {
        let bytes = self.bytes().await?;
        self.check_content_type(&bytes)?;
        match bytes.trim_ascii() {
            b"" | b"null" => Ok(T::default()),
            text => parse_json(text),
        }
    }

    /// JSON must be declared as such, unless there is none.
    fn check_content_type(&self, body: &[u8]) -> ApiResult<()> {
        let declared = self.header("content-type").unwrap_or_default();
        let kind = declared.split(';').next().unwrap_or_default().trim();
        match kind {
            _ if body.is_empty() => Ok(()),
            kind if kind.eq_ignore_ascii_case("application/json") => Ok(()),
            "" => Err(ApiError::bad_request(format!(
                "malformed Content-Type header ({declared}): mime: no media type"
            ))),
            kind => Err(ApiError::bad_request(format!(
                "unsupported Content-Type header ({kind}): must be 'application/json'"
            ))),
        }
    }

    /// The whole body, of at most what JSON may have.
    pub async fn bytes(&mut self) -> ApiResult<Bytes> {
        let limited = Limited::new(&mut self.body, JSON_LIMIT);
        let collected = limited.collect().await.map_err(|error| {
            ApiError::bad_request(format!("reading the request's body: {error}"))
        })?;
        Ok(collected.to_bytes())
    }

    /// The body as it arrives, of any length: archives.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin {
        Upload::new(self.body)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn filters(&self) -> ApiResult<Filters> {
        Filters::parse(self.query.get("filters"))
    }
}

/// JSON with errors in the words of Go's decoder, as far as they do not name Go's types.
fn parse_json<T: DeserializeOwned>(text: &[u8]) -> ApiResult<T> {
    use serde_json::error::Category;
    // Every body of this API is an object; a list of values in the order of our fields would pass for one.
    if text.trim_ascii_start().starts_with(b"[") {
        return Err(ApiError::bad_request(
            "invalid JSON: json: cannot unmarshal array into an object",
        ));
    }
    serde_json::from_slice(text).map_err(|error| {
        let why = match error.classify() {
            Category::Eof => "unexpected EOF".to_owned(),
            Category::Syntax if error.to_string().starts_with("trailing characters") => {
                return ApiError::bad_request("unexpected content after JSON");
            }
            Category::Syntax => wrong_character(text, &error),
            _ => error.to_string(),
        };
        ApiError::bad_request(format!("invalid JSON: {why}"))
    })
}

/// The character that cannot stand where it does; inside a literal, with the one that should.
fn wrong_character(text: &[u8], error: &serde_json::Error) -> String {
    let line = text
        .split(|byte| *byte == b'\n')
        .nth(error.line().max(1) - 1);
    let line = line.unwrap_or_default();
    let at = error.column().saturating_sub(1);
    for literal in ["null", "true", "false"] {
        let begins = |start: usize| {
            let length = at.checked_sub(start).filter(|length| *length > 0)?;
            let same = literal.as_bytes().get(..length)? == line.get(start..at)?;
            same.then_some(())?;
            Some((*line.get(at)?, *literal.as_bytes().get(length)?))
        };
        let found = (at.saturating_sub(literal.len())..at).find_map(begins);
        if let Some((wrong, right)) = found.filter(|(wrong, right)| wrong != right) {
            return format!(
                "invalid character '{}' in literal {literal} (expecting '{}')",
                wrong as char, right as char
            );
        }
    }
    match line.get(at) {
        Some(wrong) => format!(
            "invalid character '{}' looking for beginning of value",
            *wrong as char
        ),
        None => error.to_string(),
    }
}

/// Decoded query parameters, in order.
#[derive(Debug, Default, Clone)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(raw: Option<&str>) -> Self {
        let pairs = raw
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        let decode = |text: &str| percent_decode(&text.replace('+', " "));
        Query(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    /// The first value of `name`; `None` when absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first value of `name`; `None` when absent or empty.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Docker's rule: absent, empty, `0`, `no`, `false` and `none` are false, anything else is true.
    pub fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        match self.get(name) {
            None => default,
            Some(value) => !matches!(
                value.trim().to_ascii_lowercase().as_str(),
                "" | "0" | "no" | "false" | "none"
            ),
        }
    }

    /// A number; 400 when there is something else.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> ApiResult<Option<T>> {
        let parse = |value: &str| {
            value.parse().map_err(|_| {
                ApiError::bad_request(format!("invalid value {value:?} for parameter {name}"))
            })
        };
        self.non_empty(name).map(parse).transpose()
    }
}

/// Decodes `%XX`; what is not valid stays as it is.
fn percent_decode(text: &str) -> String {
    String::from_utf8_lossy(&percent_bytes(text)).into_owned()
}

/// The same as bytes, which need not be text.
pub fn percent_bytes(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes
            .get(at + 1..at + 3)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        match digits.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

fn boxed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    body.map_err(|never| match never {}).boxed_unsync()
}

/// A response without a body.
pub fn empty(status: StatusCode) -> ApiResponse {
    let mut response = Response::new(boxed(Empty::new()));
    *response.status_mut() = status;
    response
}

/// A JSON response; Docker ends it with a line feed.
pub fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> ApiResult<ApiResponse> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    Ok(bytes(status, "application/json", text))
}

pub fn ok_json<T: Serialize + ?Sized>(value: &T) -> ApiResult<ApiResponse> {
    json(StatusCode::OK, value)
}

pub fn bytes(
    status: StatusCode,
    content_type: &'static str,
    content: impl Into<Bytes>,
) -> ApiResponse {
    let mut response = Response::new(boxed(Full::new(content.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static(content_type),
    );
    response
}

/// A chunked response that ends with the stream; it is dropped when the client has gone.
pub fn stream<S>(content_type: &'static str, chunks: S) -> ApiResponse
where
    S: Stream<Item = io::Result<Bytes>> + Send + 'static,
{
    let mut response = Response::new(StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static(content_type),
    );
    response
}

impl From<ApiError> for ApiResponse {
    fn from(error: ApiError) -> Self {
        if error.status == StatusCode::NOT_MODIFIED {
            return empty(error.status);
        }
        if error.plain {
            let text = error.message + "\n";
            return bytes(error.status, "text/plain; charset=utf-8", text);
        }
        let body = serde_json::json!({ "message": error.message }).to_string() + "\n";
        bytes(error.status, "application/json", body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_follows_dockers_rules() {
        let query = Query::parse(Some("a=1&b=0&c=&d&e=False&f=x%2Fy+z&t=12"));
        assert!(query.flag("a") && !query.flag("b") && !query.flag("c"));
        assert!(!query.flag("d") && !query.flag("e") && !query.flag("missing"));
        assert!(query.flag_or("missing", true));
        assert_eq!(query.get("f"), Some("x/y z"));
        assert_eq!(query.number::<i64>("t").unwrap(), Some(12));
        assert!(query.number::<i64>("f").is_err());
    }

    #[test]
    fn json_is_refused_in_the_words_of_go() {
        let table = [
            ("{", "invalid JSON: unexpected EOF"),
            ("{} {}", "unexpected content after JSON"),
            (
                "nonsense",
                "invalid JSON: invalid character 'o' in literal null (expecting 'u')",
            ),
            (
                "?",
                "invalid JSON: invalid character '?' looking for beginning of value",
            ),
        ];
        for (text, message) in table {
            let got = parse_json::<serde_json::Value>(text.as_bytes());
            assert_eq!(got.unwrap_err().message, message, "{text}");
        }
    }

    #[test]
    fn paths_split_and_decode() {
        assert_eq!(
            Path::new("/images/a%2Fb/json").segments(),
            ["images", "a/b", "json"]
        );
        assert_eq!(Path::new("//_ping/").segments(), ["_ping"]);
        assert_eq!(percent_decode("100%"), "100%");
        assert_eq!(percent_decode("%zz%41"), "%zzA");
    }
}
