//! What gets in and what does not, over real sockets.

use longshore_host_api::Home;
use longshore_host_api::settings::Stored;
use longshore_local_socket::Listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
        let (path, cookie) = (field("location: "), field("set-cookie: "));
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"));
        assert!(cookie.contains(&format!("Path={path};")));
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
