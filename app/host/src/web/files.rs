//! The pages: what `ui/dist` holds, by name and nothing else.

use std::path::Path;

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use longshore_host_api::pages::{self, file_name};
use longshore_host_api::{ApiError, ErrorCode};

use super::body;
use crate::api::{self, Body};

/// A page is never larger.
const MAX_FILE: u64 = 8 << 20;

pub fn check_present() -> Result<(), ApiError> {
    match pages::folder() {
        Some(_) => Ok(()),
        None => {
            Err(ApiError::new(ErrorCode::Unavailable, pages::MISSING)
                .with_hint(pages::MISSING_HINT))
        }
    }
}

pub async fn serve(inner: &str) -> Result<Response<Body>, ApiError> {
    let folder = pages::folder().ok_or_else(api::not_found)?;
    serve_from(&folder, inner).await
}

async fn serve_from(folder: &Path, inner: &str) -> Result<Response<Body>, ApiError> {
    let name = file_name(inner).ok_or_else(api::not_found)?;
    let kind = kind(name).ok_or_else(api::not_found)?;
    let path = folder.join(name);
    let size = tokio::fs::metadata(&path).await;
    if !size.is_ok_and(|m| m.is_file() && m.len() <= MAX_FILE) {
        return Err(api::not_found());
    }
    let bytes = tokio::fs::read(&path).await.map_err(|_| api::not_found())?;
    let mut response = Response::new(body(bytes.into()));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if name.starts_with("assets/") {
        // Their names change with what is in them.
        let keep = HeaderValue::from_static("private, max-age=31536000, immutable");
        headers.insert(header::CACHE_CONTROL, keep);
    }
    Ok(response)
}

fn kind(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "woff2" => "font/woff2",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_files_of_the_folder_are_served() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("dist");
        std::fs::create_dir_all(folder.join("assets")).unwrap();
        std::fs::write(outer.path().join("secret.js"), "x").unwrap();
        std::fs::write(folder.join("index.html"), "page").unwrap();
        std::fs::write(folder.join(".hidden.js"), "x").unwrap();
        std::fs::write(folder.join("assets/a-1.js"), "x").unwrap();
        for good in ["/", "/index.html", "/assets/a-1.js"] {
            assert!(serve_from(&folder, good).await.is_ok(), "{good}");
        }
        for bad in [
            "",
            "/../secret.js",
            "/assets/../../secret.js",
            "/..%2fsecret.js",
            "//etc/hosts.js",
            "/.hidden.js",
            "/assets/",
            "/assets",
            "/assets\\a-1.js",
            "/none.js",
        ] {
            assert!(serve_from(&folder, bad).await.is_err(), "{bad}");
        }
    }
}
