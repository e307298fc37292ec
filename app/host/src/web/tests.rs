//! What gets in and what does not, over real sockets.

use futures::{SinkExt, StreamExt};
use longshore_host_api::Home;
use longshore_host_api::settings::Stored;
use longshore_host_api::types::{StreamRequest, TerminalKind, UploadRequest};
use longshore_local_socket::Listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::*;

struct Guest {
    _folder: tempfile::TempDir,
    service: Arc<Service>,
    door: Arc<Door>,
    end: CancellationToken,
}

impl Guest {
    /// A service without a VM, whose Docker socket is served by the test.
    async fn new() -> (Self, Listener) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home")).unwrap();
        home.create().unwrap();
        let docker = Listener::bind(&home.docker_socket()).await.unwrap();
        let end = CancellationToken::new();
        let service = Service::new(home, Stored::default(), end.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let door = Arc::new(Door {
            address: listener.local_addr().unwrap(),
            sessions: Sessions::default(),
        });
        tokio::spawn(serve(listener, door.clone(), service.clone(), end.clone()));
        let guest = Self {
            _folder: folder,
            service,
            door,
            end,
        };
        (guest, docker)
    }

    /// Sends a head and gives the connection.
    async fn send(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.door.address).await.unwrap();
        let head = head
            .replace("HOST", &self.door.address.to_string())
            .replace('\n', "\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    /// The whole answer to a request that closes its connection.
    async fn ask(&self, head: &str) -> String {
        let mut stream = self.send(head).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// A session's path and the header with its cookie.
    async fn enter(&self) -> (String, String) {
        let url = self.door.invitation().unwrap();
        let token = url.rsplit_once("/?").unwrap().1;
        let answer = self
            .ask(&format!(
                "GET /?{token} HTTP/1.1\nHost: HOST\nConnection: close\n\n"
            ))
            .await;
        let field = |name: &str| {
            let line = answer.lines().find_map(|l| l.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{answer}")).to_owned()
        };
        let cookie = field("set-cookie: ");
        let path = cookie.split("; ").find_map(|p| p.strip_prefix("Path="));
        let path = path.expect("a path").to_owned();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"));
        assert!(answer.contains(&format!("content=\"0;url={path}\"")));
        let again = self
            .ask(&format!(
                "GET /?{token} HTTP/1.1\nHost: HOST\nConnection: close\n\n"
            ))
            .await;
        assert!(again.starts_with("HTTP/1.1 403"), "{again}");
        let cookie = cookie.split(';').next().unwrap();
        (path, format!("Cookie: {cookie}\n"))
    }
}

#[tokio::test]
async fn every_request_needs_the_right_host_cookie_and_origin() {
    let (guest, _docker) = Guest::new().await;
    let (path, cookie) = guest.enter().await;
    let (other, _) = guest.enter().await;
    let host = "Host: HOST\n";
    let origin = "Origin: http://HOST\n";
    let status = format!("GET {path}api/v1/status");
    let stop = format!("POST {path}api/v1/settings");
    let table = [
        (&status, format!("{host}{cookie}"), 200),
        (&status, format!("{host}{cookie}{origin}"), 200),
        (&status, host.to_string(), 403),
        (&status, format!("Host: evil.example\n{cookie}"), 403),
        (&status, format!("Host: localhost\n{cookie}"), 403),
        (
            &status,
            format!("{host}{cookie}Origin: http://evil.example\n"),
            403,
        ),
        (&status, format!("{host}{cookie}Origin: null\n"), 403),
        (&stop, format!("{host}{cookie}Content-Length: 2\n"), 403),
        (
            &stop,
            format!("{host}{cookie}{origin}Content-Length: 2\n"),
            400,
        ),
        (&stop, format!("{host}{origin}Content-Length: 2\n"), 403),
        (
            &format!("GET {other}api/v1/status"),
            format!("{host}{cookie}"),
            403,
        ),
        (
            &"GET /api/v1/status".to_owned(),
            format!("{host}{cookie}"),
            403,
        ),
        (
            &format!("POST {path}api/v1/ui"),
            format!("{host}{cookie}{origin}"),
            404,
        ),
        (
            &format!("POST {path}api/v1/shutdown"),
            format!("{host}{cookie}{origin}"),
            404,
        ),
        (
            &format!("POST {path}api/v1/shell"),
            format!("{host}{cookie}{origin}"),
            404,
        ),
    ];
    for (line, headers, want) in table {
        let body = if headers.contains("Content-Length") {
            "{}"
        } else {
            ""
        };
        let answer = guest
            .ask(&format!(
                "{line} HTTP/1.1\n{headers}Connection: close\n\n{body}"
            ))
            .await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {want} ")),
            "{line} {headers} {answer}"
        );
        assert!(answer.contains("content-security-policy: default-src 'none'"));
    }
    guest.end.cancel();
}

#[tokio::test]
async fn who_comes_too_late_reads_why() {
    let (guest, _docker) = Guest::new().await;
    let answer = guest
        .ask("GET /?token=x HTTP/1.1\nHost: HOST\nAccept: text/html,*/*\nConnection: close\n\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(
        answer.contains("<p>open a new one with: longshore ui</p>"),
        "{answer}"
    );
}

#[tokio::test]
async fn websockets_need_the_origin() {
    let (guest, _docker) = Guest::new().await;
    let (path, cookie) = guest.enter().await;
    let shake = |headers: &str| {
        format!(
            "GET {path}stream HTTP/1.1\nHost: HOST\n{cookie}{headers}Connection: Upgrade\nUpgrade: websocket\n\
             Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n"
        )
    };
    for (headers, want) in [
        ("", "403"),
        ("Origin: http://evil.example\n", "403"),
        ("Origin: http://HOST\n", "101"),
    ] {
        let mut stream = guest.send(&shake(headers)).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert!(answer.ends_with(want.as_bytes()), "{headers}");
    }
}

#[tokio::test]
async fn docker_answers_stream_and_end_with_the_browser() {
    let (guest, mut docker) = Guest::new().await;
    let (path, cookie) = guest.enter().await;
    let request = format!("GET {path}docker/events?since=1 HTTP/1.1\nHost: HOST\n{cookie}\n");
    let (mut browser, daemon) = tokio::join!(guest.send(&request), docker.accept());
    let mut daemon = daemon.unwrap();
    let mut head = vec![0; 4096];
    let length = daemon.read(&mut head).await.unwrap();
    let head = String::from_utf8_lossy(&head[..length]).into_owned();
    assert!(
        head.starts_with("GET /events?since=1 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(!head.to_ascii_lowercase().contains("cookie"), "{head}");
    daemon
        .write_all(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let mut seen = String::new();
    for word in ["one", "two"] {
        let chunk = format!("{:x}\r\n{word}\r\n", word.len());
        daemon.write_all(chunk.as_bytes()).await.unwrap();
        while !seen.contains(word) {
            let mut buffer = [0; 4096];
            let length = browser.read(&mut buffer).await.unwrap();
            assert_ne!(length, 0, "{seen}");
            seen += &String::from_utf8_lossy(&buffer[..length]);
        }
    }
    assert!(!seen.contains("a=b"), "{seen}");
    drop(browser);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), daemon.read_to_end(&mut rest));
    ended.await.expect("the daemon's side stays open").unwrap();
    assert!(guest.service.home().docker_socket().exists());
}

type Client = tokio_tungstenite::WebSocketStream<TcpStream>;

impl Guest {
    /// A browser's WebSocket to `inner` of a new session.
    async fn socket(&self, inner: &str) -> Client {
        let (path, cookie) = self.enter().await;
        let request = http::Request::builder()
            .uri(format!("ws://{}{path}{inner}", self.door.address))
            .header("Host", self.door.address.to_string())
            .header("Origin", format!("http://{}", self.door.address))
            .header("Cookie", cookie.trim().trim_start_matches("Cookie: "))
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .unwrap();
        let stream = TcpStream::connect(self.door.address).await.unwrap();
        let opened = tokio_tungstenite::client_async(request, stream).await;
        opened.unwrap().0
    }
}

/// Reads from the daemon's side until `end` has come.
async fn read_until(stream: &mut longshore_local_socket::Stream, end: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(end) {
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).await.unwrap();
        assert_ne!(length, 0, "{seen}");
        seen += &String::from_utf8_lossy(&buffer[..length]);
    }
    seen
}

async fn next(socket: &mut Client) -> Message {
    let patience = Duration::from_secs(5);
    let message = tokio::time::timeout(patience, socket.next()).await;
    message.expect("a message").unwrap().unwrap()
}

#[tokio::test]
async fn a_terminal_goes_both_ways_and_ends_with_its_program() {
    let (guest, mut docker) = Guest::new().await;
    let mut socket = guest.socket("exec/abc").await;
    let mut daemon = docker.accept().await.unwrap();
    let head = read_until(&mut daemon, r#"{"Detach":false,"Tty":true}"#).await;
    assert!(
        head.starts_with("POST /exec/abc/start HTTP/1.1\r\n"),
        "{head}"
    );
    let answer = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n$ ";
    daemon.write_all(answer.as_bytes()).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::binary("$ "));
    socket.send(Message::binary("ls\n")).await.unwrap();
    assert_eq!(read_until(&mut daemon, "\n").await, "ls\n");
    daemon.write_all(b"bin").await.unwrap();
    assert_eq!(next(&mut socket).await, Message::binary("bin"));
    drop(daemon);
    let Message::Close(Some(frame)) = next(&mut socket).await else {
        panic!("no close")
    };
    assert_eq!(frame.code, CloseCode::Normal);
}

#[tokio::test]
async fn a_browser_that_goes_closes_its_terminal() {
    let (guest, mut docker) = Guest::new().await;
    let socket = guest.socket("attach/web").await;
    let mut daemon = docker.accept().await.unwrap();
    let head = read_until(&mut daemon, "\r\n\r\n").await;
    assert!(head.starts_with("POST /containers/web/attach?"), "{head}");
    let answer = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    daemon.write_all(answer.as_bytes()).await.unwrap();
    drop(socket);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), daemon.read_to_end(&mut rest));
    ended.await.expect("the daemon's side stays open").unwrap();
}

#[tokio::test]
async fn an_engine_that_refuses_a_terminal_is_quoted() {
    let (guest, mut docker) = Guest::new().await;
    let mut socket = guest.socket("exec/abc").await;
    let mut daemon = docker.accept().await.unwrap();
    read_until(&mut daemon, "}").await;
    let body = r#"{"message":"container is paused"}"#;
    let answer = format!(
        "HTTP/1.1 409 Conflict\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    daemon.write_all(answer.as_bytes()).await.unwrap();
    let Message::Close(Some(frame)) = next(&mut socket).await else {
        panic!("no close")
    };
    assert_eq!(frame.reason.as_str(), "container is paused");
}

#[tokio::test]
async fn a_stream_has_a_head_a_body_and_an_end() {
    let (guest, mut docker) = Guest::new().await;
    let mut socket = guest.socket("stream").await;
    let request = r#"{"method":"POST","path":"/docker/images/create?fromImage=a%2Fb"}"#;
    socket.send(Message::text(request)).await.unwrap();
    let mut daemon = docker.accept().await.unwrap();
    let head = read_until(&mut daemon, "\r\n\r\n").await;
    assert!(
        head.starts_with("POST /images/create?fromImage=a%2Fb HTTP/1.1\r\n"),
        "{head}"
    );
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"status\":1}\n";
    daemon.write_all(answer.as_bytes()).await.unwrap();
    let head = r#"{"status":200,"content_type":"application/json"}"#;
    assert_eq!(next(&mut socket).await, Message::text(head));
    assert_eq!(next(&mut socket).await, Message::binary("{\"status\":1}\n"));
    drop(daemon);
    assert!(next(&mut socket).await.is_close());
}

#[tokio::test]
async fn a_stream_reaches_the_two_apis_and_nothing_else() {
    let (guest, _docker) = Guest::new().await;
    for (path, want) in [
        ("/api/v1/machine", "200"),
        ("/api/v1/shutdown", "404"),
        ("/index.html", "404"),
        ("http://example.com/api/v1/status", "404"),
        ("", "400"),
    ] {
        let mut socket = guest.socket("stream").await;
        let method = if path.ends_with("shutdown") {
            "POST"
        } else {
            "GET"
        };
        let request = format!(r#"{{"method":"{method}","path":"{path}"}}"#);
        socket.send(Message::text(request)).await.unwrap();
        let head = next(&mut socket).await.into_text().unwrap();
        assert!(head.contains(want), "{path}: {head}");
    }
}

/// The window's way in: a client of the local socket.
async fn window(guest: &Guest) -> longshore_host_api::Client {
    let home = guest.service.home().clone();
    let listener = Listener::bind(&home.host_socket()).await.unwrap();
    tokio::spawn(api::serve(
        listener,
        guest.service.clone(),
        guest.end.clone(),
    ));
    longshore_host_api::Client::without_spawn(home)
}

#[tokio::test]
async fn a_page_in_the_window_may_do_what_it_may_in_a_browser() {
    let (guest, _docker) = Guest::new().await;
    let window = window(&guest).await;
    for (method, path, body, want) in [
        ("GET", "/api/v1/status", "", 200),
        (
            "POST",
            "/api/v1/settings",
            r#"{"assignments":["shares+=/srv"]}"#,
            403,
        ),
        ("POST", "/api/v1/start", r#"{"shares":["/srv"]}"#, 403),
        ("POST", "/api/v1/shell", "", 404),
        ("POST", "/api/v1/shutdown", "", 404),
        ("POST", "/api/v1/ui", "", 404),
        ("POST", "/api/page/api/v1/shutdown", "", 404),
        ("POST", "/page/api/v1/shutdown", "", 404),
        ("POST", "/v1/shutdown", "", 404),
    ] {
        let request = StreamRequest {
            method: method.into(),
            path: path.into(),
            body: Some(body.into()),
            registry_auth: None,
        };
        let response = window.page(request).await.unwrap();
        assert_eq!(response.status(), want, "{method} {path}");
    }
    assert!(!guest.end.is_cancelled());
}

#[tokio::test]
async fn a_page_in_the_window_has_terminals() {
    let (guest, mut docker) = Guest::new().await;
    let window = window(&guest).await;
    let serve = async {
        let mut daemon = docker.accept().await.unwrap();
        let head = read_until(&mut daemon, "}").await;
        assert!(head.starts_with("POST /exec/abc/start "), "{head}");
        let answer = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n$ ";
        daemon.write_all(answer.as_bytes()).await.unwrap();
        daemon
    };
    let (terminal, mut daemon) =
        tokio::join!(window.page_terminal(TerminalKind::Exec, "abc"), serve);
    let mut terminal = terminal.unwrap();
    let mut prompt = [0; 2];
    terminal.read_exact(&mut prompt).await.unwrap();
    assert_eq!(&prompt, b"$ ");
    terminal.write_all(b"ls\n").await.unwrap();
    assert_eq!(read_until(&mut daemon, "\n").await, "ls\n");
    drop(daemon);
    assert_eq!(terminal.read(&mut prompt).await.unwrap(), 0);
    for outside in ["", "a/b", "../v1/shell"] {
        let refused = window.page_terminal(TerminalKind::Attach, outside).await;
        assert!(refused.is_err(), "{outside}");
    }
}

#[tokio::test]
async fn a_page_in_the_window_sends_files_as_they_are_read() {
    let (guest, mut docker) = Guest::new().await;
    let window = window(&guest).await;
    let request = UploadRequest {
        method: "PUT".into(),
        path: "/docker/containers/abc/archive?path=%2F".into(),
        content_type: "application/x-tar".into(),
        size: 8,
    };
    for (pieces, whole) in [(2, true), (1, false)] {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let body = futures::stream::unfold(receiver, |mut pieces| async move {
            pieces.recv().await.map(|piece| (Ok(piece), pieces))
        });
        let serve = async {
            let mut daemon = docker.accept().await.unwrap();
            let head = read_until(&mut daemon, "\r\n\r\n").await.to_lowercase();
            assert!(head.starts_with("put /containers/abc/archive?path=%2f "));
            assert!(head.contains("content-type: application/x-tar"), "{head}");
            assert!(head.contains("content-length: 8"), "{head}");
            for _ in 0..pieces {
                // The next piece is made when the last one has arrived.
                sender.send(Bytes::from_static(b"half")).await.unwrap();
                assert_eq!(read_until(&mut daemon, "half").await, "half");
            }
            drop(sender);
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            match whole {
                true => daemon.write_all(answer.as_bytes()).await.unwrap(),
                // What was broken off ends before its length.
                false => assert_eq!(daemon.read(&mut [0]).await.unwrap_or(0), 0),
            }
        };
        let (answered, ()) = tokio::join!(window.page_upload(request.clone(), body), serve);
        let good = answered.is_ok_and(|response| response.status() == 200);
        assert_eq!(good, whole, "{pieces} of 2");
    }
}
