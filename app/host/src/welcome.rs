//! A first container that needs no registry: a page, served by the VM's own busybox, on a published port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use longshore_host_api::types::Welcome;
use longshore_host_api::{ApiError, ErrorCode};
use longshore_protocol::shell::{Frame, ShellHeader};
use longshore_protocol::{VERSION, line, ports};
use serde_json::{Value, json};

use crate::phase::Phase;
use crate::service::Service;
use crate::web::docker;
use crate::{api, channel};

const NAME: &str = "welcome";
const IMAGE: &str = "longshore/welcome:latest";
/// Tells our container from another of its name.
const LABEL: &str = "dev.longshore.welcome";
const PAGE: &str = include_str!("welcome.html");
/// Where the VM has a program that serves pages and needs no library.
const PROGRAM: &str = "/usr/bin/busybox";
/// It has some 2 MB; more is not taken from a guest.
const MOST_PROGRAM: usize = 16 << 20;
/// For all of it; an emulated VM takes some seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the container, or starts the one that is there.
pub async fn run(service: &Service) -> Result<Welcome, ApiError> {
    if !matches!(*service.vm().phase().borrow(), Phase::Running) {
        return Err(
            ApiError::conflict("the VM does not run").with_hint("start it with: longshore start")
        );
    }
    tokio::time::timeout(PATIENCE, start(service))
        .await
        .map_err(|_| {
            let seconds = PATIENCE.as_secs();
            ApiError::internal(format!("no container ran within {seconds} s"))
                .with_hint("look at: longshore doctor")
        })?
}

async fn start(service: &Service) -> Result<Welcome, ApiError> {
    let (status, found) = ask(service, Method::GET, &inspect(), &Value::Null).await?;
    if status == StatusCode::NOT_FOUND {
        create(service).await?;
    } else if found["Config"]["Labels"][LABEL].is_null() {
        expect(status, &found)?;
        return Err(ApiError::conflict(format!(
            "there is another container that is called {NAME}"
        ))
        .with_hint(format!("docker rename {NAME} NEW_NAME")));
    }
    let path = format!("/containers/{NAME}/start");
    let (status, answer) = ask(service, Method::POST, &path, &Value::Null).await?;
    expect(status, &answer)?;
    let (status, now) = ask(service, Method::GET, &inspect(), &Value::Null).await?;
    expect(status, &now)?;
    Ok(Welcome {
        name: NAME.to_owned(),
        url: address(&now),
    })
}

fn inspect() -> String {
    format!("/containers/{NAME}/json")
}

/// Where its page is, as the engine says.
fn address(container: &Value) -> Option<String> {
    let bindings = container["NetworkSettings"]["Ports"]["80/tcp"].as_array()?;
    let found = bindings.iter().find_map(|binding| {
        let port: u16 = binding["HostPort"].as_str()?.parse().ok()?;
        let address: Option<IpAddr> = binding["HostIp"].as_str().and_then(|ip| ip.parse().ok());
        // Where it listens on all of them, or on what is not told, this machine's own is one.
        let address = address.filter(|address| !address.is_unspecified());
        Some(SocketAddr::new(
            address.unwrap_or(Ipv4Addr::LOCALHOST.into()),
            port,
        ))
    });
    Some(format!("http://{}/", found?))
}

async fn create(service: &Service) -> Result<(), ApiError> {
    let path = format!("/containers/create?name={NAME}");
    let wanted = json!({
        "Image": IMAGE,
        "Labels": { LABEL: "" },
        // A server without a handler of its own, as process 1, does not hear SIGTERM.
        "StopSignal": "SIGKILL",
        "HostConfig": { "PortBindings": { "80/tcp": [{ "HostPort": "" }] } },
    });
    let (status, answer) = ask(service, Method::POST, &path, &wanted).await?;
    if status != StatusCode::NOT_FOUND {
        return expect(status, &answer);
    }
    import(service).await?;
    let (status, answer) = ask(service, Method::POST, &path, &wanted).await?;
    expect(status, &answer)
}

/// Makes the image.
async fn import(service: &Service) -> Result<(), ApiError> {
    let root = root(&program(service).await?)
        .map_err(|e| ApiError::internal(format!("pack the image: {e}")))?;
    let (name, tag) = IMAGE.split_once(':').unwrap_or((IMAGE, "latest"));
    let changes = [
        "EXPOSE+80",
        "CMD+%5B%22httpd%22,%22-f%22,%22-v%22,%22-h%22,%22/www%22%5D",
    ];
    let changes = changes.map(|change| format!("&changes={change}")).concat();
    let path = format!("/images/create?fromSrc=-&repo={name}&tag={tag}{changes}");
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/x-tar")
        .header(header::CONTENT_LENGTH, root.len())
        .body(api::whole(root));
    let (status, answer) = send(service, request).await?;
    // A failure after the first progress is one more line of it.
    let lines = answer.split(|byte| *byte == b'\n');
    let lines = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let told: Vec<Value> = lines.collect();
    if let Some(error) = told.iter().find_map(|line| line["error"].as_str()) {
        return Err(ApiError::conflict(crate::layers::short(error.to_owned())));
    }
    expect(status, told.last().unwrap_or(&Value::Null))
}

/// The program's bytes, out of the VM, which has one that fits its processor.
async fn program(service: &Service) -> Result<Vec<u8>, ApiError> {
    let broken = |e: &dyn std::fmt::Display| ApiError::internal(format!("read {PROGRAM}: {e}"));
    let channel = service.home().channel_socket();
    let stream = channel::dial(&channel, ports::SHELL).await;
    let mut stream = tokio::io::BufReader::new(stream.map_err(|e| broken(&e))?);
    let header = ShellHeader {
        version: VERSION,
        command: vec!["cat".into(), PROGRAM.into()],
        ..ShellHeader::default()
    };
    line::write_json(&mut stream, &header)
        .await
        .map_err(|e| broken(&e))?;
    Frame::StdinEof
        .write(&mut stream)
        .await
        .map_err(|e| broken(&e))?;
    let mut program = Vec::new();
    loop {
        match Frame::read(&mut stream).await.map_err(|e| broken(&e))? {
            Some(Frame::Stdout(bytes)) if program.len() + bytes.len() <= MOST_PROGRAM => {
                program.extend_from_slice(&bytes);
            }
            Some(Frame::Stdout(_)) => return Err(broken(&"it is too large")),
            Some(Frame::Exit(0)) => return Ok(program),
            Some(Frame::Exit(code)) => return Err(broken(&format!("exit code {code}"))),
            Some(Frame::Error { message, .. }) => {
                return Err(broken(&crate::layers::short(message)));
            }
            Some(_) => {}
            None => return Err(broken(&"the VM closed the connection")),
        }
    }
}

/// The image's files: the program under the names that are of use, and the page.
fn root(program: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content)
    };
    add("bin/busybox", 0o755, program)?;
    add("www/index.html", 0o644, PAGE.as_bytes())?;
    for name in ["sh", "ls", "cat", "ps", "httpd"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        archive.append_link(&mut header, format!("bin/{name}"), "busybox")?;
    }
    archive.into_inner()
}

/// One request of JSON to the engine; its answer, of JSON too or nothing.
async fn ask(
    service: &Service,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<(StatusCode, Value), ApiError> {
    let body = match body {
        Value::Null => Vec::new(),
        value => value.to_string().into_bytes(),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, body.len())
        .body(api::whole(body));
    let (status, answer) = send(service, request).await?;
    Ok((status, serde_json::from_slice(&answer).unwrap_or_default()))
}

async fn send(
    service: &Service,
    request: http::Result<Request<api::Body>>,
) -> Result<(StatusCode, Bytes), ApiError> {
    let request = request.map_err(|e| ApiError::internal(e.to_string()))?;
    docker::ask(request, &service.home().docker_socket()).await
}

/// The engine's own words, when it refuses.
fn expect(status: StatusCode, answer: &Value) -> Result<(), ApiError> {
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        return Ok(());
    }
    let words = answer["message"].as_str().unwrap_or("no reason given");
    let words = crate::layers::short(words.to_owned());
    Err(ApiError::new(
        ErrorCode::Conflict,
        format!("the engine refuses ({status}): {words}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_holds_the_program_and_the_page() {
        let root = root(b"program").expect("an archive");
        let mut archive = tar::Archive::new(root.as_slice());
        let mut found = Vec::new();
        for entry in archive.entries().expect("entries") {
            let entry = entry.expect("an entry");
            let mode = entry.header().mode().expect("a mode");
            found.push((entry.path_bytes().into_owned(), mode, entry.size()));
        }
        assert_eq!(found[0], (b"bin/busybox".to_vec(), 0o755, 7));
        let page = (b"www/index.html".to_vec(), 0o644, PAGE.len() as u64);
        assert_eq!(found[1], page);
    }

    #[test]
    fn an_address_is_made_of_numbers_alone() {
        let of = |ip: &str, port: &str| {
            let binding = json!({ "HostIp": ip, "HostPort": port });
            address(&json!({ "NetworkSettings": { "Ports": { "80/tcp": [binding] } } }))
        };
        for (ip, url) in [
            ("127.0.0.1", "http://127.0.0.1:8080/"),
            ("192.0.2.7", "http://192.0.2.7:8080/"),
            ("0.0.0.0", "http://127.0.0.1:8080/"),
            ("::1", "http://[::1]:8080/"),
            ("me@elsewhere", "http://127.0.0.1:8080/"),
        ] {
            assert_eq!(of(ip, "8080").as_deref(), Some(url), "{ip}");
        }
        assert_eq!(of("127.0.0.1", "80@elsewhere"), None);
        assert_eq!(address(&json!({})), None);
    }
}
