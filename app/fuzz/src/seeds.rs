//! Where the search begins: what an honest guest says, and the order in which things happen.

use longshore_protocol::VERSION;
use longshore_protocol::control::{
    Hello, Layers, Outcome, Reply, ReplyLine, ServiceState, ServiceStatus, Span, Stats, Status,
};
use longshore_protocol::dial::{DialReply, Proto};
use longshore_protocol::logs::LogsReply;
use longshore_protocol::port_news::{News, NewsLine, Publication};
use longshore_protocol::shell;

/// The file's name, what the guest gets by it at least (see `Target::run`), the input.
type Seed = (&'static str, usize, Vec<u8>);

/// Each with its target's name.
pub fn all() -> Vec<(&'static str, Seed)> {
    let mut seeds = Vec::new();
    seeds.extend(mux().map(|seed| ("mux", seed)));
    seeds.extend(vsock().map(|seed| ("vsock", seed)));
    seeds.extend(fuse().map(|seed| ("fuse", seed)));
    seeds.extend(record().map(|seed| ("record", seed)));
    seeds.extend(messages().map(|seed| ("messages", seed)));
    seeds.extend(ports().map(|seed| ("ports", seed)));
    seeds
}

/// Steps of `targets/mux.rs`.
fn mux() -> [Seed; 4] {
    const HELLO: &[u8] = &[1, 5, 0, 0, 4, 0];
    const READ_ALL: &[u8] = &[3, 0];
    let guest_opens = &[2, 1, 1, 0, 0, 0, 7, 0, 0, 0];
    let data = &[2, 4, 1, 0, 100, 0];
    let window = &[2, 5, 1, 0, 0, 0, 0, 4, 0, 0];
    let fin = &[2, 6, 1, 0, 0, 0];
    let (read, write, shut, end) = (&[6, 0, 10], &[7, 0, 100], &[8, 0, 0], &[9, 0]);
    let guest = [
        HELLO,
        guest_opens,
        &[5, 0],
        data,
        read,
        write,
        READ_ALL,
        window,
        fin,
        shut,
        READ_ALL,
        end,
        READ_ALL,
    ];
    let host = [
        HELLO,
        &[4, 80],
        READ_ALL,
        &[2, 2, 2, 0, 0, 0],
        write,
        READ_ALL,
        &[4, 81],
        READ_ALL,
        &[2, 3, 4, 0, 0, 0, 1],
        &[2, 7, 2, 0, 0, 0],
        end,
    ];
    let flood = [HELLO, &[2, 1, 1, 40, 0, 0, 7, 0, 0, 0], &[5, 1], READ_ALL];
    let garbage = [HELLO, &[0, 5, 1, 2, 3, 4, 5], HELLO, guest_opens];
    [
        ("guest-opens", 101, guest.concat()),
        ("host-opens", 101, host.concat()),
        ("flood", 0, flood.concat()),
        ("garbage", 0, garbage.concat()),
    ]
}

/// Steps of `targets/vsock.rs`.
fn vsock() -> [Seed; 4] {
    const ROOM: &[u8] = &[1, 0, 0x10, 4];
    let request: &[u8] = &[0, 1, 0, 0, 0, 0, 0];
    let bytes: &[u8] = &[0, 5, 0, 0, 100, 0, 0];
    let credit: &[u8] = &[0, 6, 0, 0, 0, 0, 0];
    let shut: &[u8] = &[0, 4, 0, 2, 0, 0, 0];
    let (read, write, end): (&[u8], &[u8], &[u8]) = (&[5, 0, 10], &[6, 0, 100], &[8, 0]);
    let guest = [
        &[0],
        request,
        &[4],
        ROOM,
        bytes,
        read,
        write,
        credit,
        shut,
        &[7, 0, 0],
        ROOM,
        end,
        ROOM,
    ];
    let host = [
        &[1],
        ROOM,
        &[3, 0],
        // RESPONSE, then bytes and RST, to the host's first port.
        &[0, 2, 0x40, 0, 0, 0, 0],
        &[0, 5, 0x40, 0x10, 50, 0, 0],
        read,
        write,
        ROOM,
        &[0, 7, 0x40, 0, 0, 0, 0],
        &[0, 3, 0x40, 0, 0, 0, 0],
        end,
    ];
    let flood = [&[0], ROOM, &[0, 1, 0, 0, 0, 0, 20], &[9], request];
    // The index of the transmit queue's available ring.
    let ring = [&[0][..], request, &[2, 2, 0x50, 1, 2, 3, 0], ROOM];
    [
        ("guest-connects", 101, guest.concat()),
        ("host-connects", 51, host.concat()),
        ("flood", 0, flood.concat()),
        ("ring", 0, ring.concat()),
    ]
}

/// Steps of `targets/fuse.rs`; nodes count from 1, 0 is the root.
fn fuse() -> [Seed; 5] {
    let lookup = |name: u8| [1, 0, 0, name, 0];
    let read: &[u8] = &[
        &lookup(0)[..],
        &[3, 0, 1, 0, 0, 0],
        // OPEN for reading and writing, READ, WRITE, FSYNC, FLUSH, RELEASE.
        &[14, 0, 1, 4, 2, 0, 0],
        &[15, 0, 1, 2, 0, 0, 3, 0, 0, 0],
        &[16, 0, 1, 2, 0, 0, 8, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8],
        &[20, 0, 1, 2, 0, 0, 0],
        &[25, 0, 1, 2, 0, 0, 0, 0],
        &[18, 0, 1, 2, 0, 0, 0, 0],
        // FORGET, once.
        &[2, 0x80, 1, 4, 1, 0, 0],
    ]
    .concat();
    let folders: &[u8] = &[
        &lookup(1)[..],
        &[27, 0, 0, 0, 0],
        &[28, 0, 0, 2, 0, 0, 3, 0, 0, 0],
        &[44, 0, 0, 2, 0, 0, 3, 0, 0, 0],
        &[29, 0, 0, 2, 0, 0, 0, 0],
        &[17, 0, 0, 0],
        &[34, 0, 0, 0, 0],
    ]
    .concat();
    // CREATE with 0o644, CHOWN and CHMOD, FALLOCATE, LSEEK, COPY_FILE_RANGE.
    let make: &[u8] = &[
        &[35, 1, 0, 6, 0x42, 0, 0, 0, 0xa4, 1, 0, 0, 0, 3, 0][..],
        &[
            4, 0, 1, 4, 7, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0xed, 9, 4, 232, 3, 4, 232, 3, 0,
        ],
        &[43, 0, 1, 2, 0, 0, 3, 0, 0],
        &[46, 0, 1, 2, 0, 0, 0, 0],
        &[47, 0, 1, 2, 0, 0, 1, 1, 2, 0, 0, 3, 0, 0],
        &[9, 0, 0, 4, 0xed, 1, 6, 0],
        &[6, 0, 0, 7, 0, 0],
        &[13, 0, 0, 1, 1, 14, 0],
    ]
    .concat();
    // MKNOD of a FIFO, RENAME, RENAME2, UNLINK, RMDIR, extended attributes.
    let change: &[u8] = &[
        &[8, 1, 0, 4, 0xa4, 0x11, 0, 3, 0][..],
        &lookup(3),
        &[12, 0, 0, 1, 0, 3, 7, 0],
        &[45, 0, 0, 1, 0, 4, 1, 0, 7, 0, 0],
        &[10, 0, 0, 0, 0],
        &[11, 0, 0, 1, 0],
        &[22, 0, 1, 4, 0, 1, 14, 0],
        &[23, 0, 1, 4, 0, 1, 0],
        &[50, 0, 0, 0, 0],
    ]
    .concat();
    let split: &[u8] = &[
        &[1, 4, 0, 2, 0][..],
        &[5, 8, 1, 0],
        &[1, 2, 0, 5, 0],
        &[1, 12, 0, 4, 0],
        &[42, 0x80, 0, 8, 1, 1, 8, 0],
        &[0, 2, 0x50, 2, 9, 0],
    ]
    .concat();
    [
        ("read", 8, [&[0], read].concat()),
        ("folders", 6, [&[1], folders].concat()),
        ("make", 7, [&[0], make].concat()),
        ("change", 5, [&[0], change].concat()),
        ("split", 3, [&[1], split].concat()),
    ]
}

fn record() -> [Seed; 3] {
    let with = |mode: u32, text: &str| [&mode.to_le_bytes()[..], text.as_bytes()].concat();
    [
        ("file", 1, with(0o100_644, "1 104755 1000 1000 0")),
        ("folder", 1, with(0o040_755, "1 43777 - - 0")),
        ("device", 1, with(0o100_600, "1 20600 0 0 259")),
    ]
}

fn messages() -> [Seed; 16] {
    let line = |who: u8, value: &dyn erased::Json| [&[who], &value.json()[..], b"\n"].concat();
    let reply = |reply| ReplyLine {
        version: VERSION,
        id: 1,
        outcome: Outcome::Ok(reply),
    };
    let service = ServiceStatus {
        name: "daemon".into(),
        state: ServiceState::Running,
        pid: Some(7),
        starts: 1,
        last_exit: Some("exit 1".into()),
    };
    let status = Status {
        hostname: "longshore".into(),
        uptime_ms: 5000,
        services: vec![service.clone()],
        stages: Vec::new(),
        shares: Vec::new(),
        problems: vec!["a share".into()],
        ready: true,
    };
    let hello = Hello {
        agent: "0.1.0".into(),
        kernel: "6.12".into(),
        architecture: "x86_64".into(),
        boot_id: "b".into(),
    };
    let layers = Layers {
        uptime_ms: 1,
        services: vec![service],
        processes: Vec::new(),
        left_out: 0,
    };
    let stats = Stats {
        memory_total_kib: 1,
        memory_available_kib: 1,
        memory_free_kib: 1,
        disk_total_bytes: 1,
        disk_free_bytes: 1,
        processes: Vec::new(),
    };
    let frames = [
        shell::Frame::Stdout(b"out".to_vec().into()),
        shell::Frame::Exit(3),
        shell::Frame::Error {
            code: 127,
            message: "not found".into(),
        },
    ];
    let mut shell = vec![2];
    for frame in frames {
        futures::executor::block_on(frame.write(&mut shell)).expect("memory");
    }
    let version = br#"{"Version":"28.5","ApiVersion":"1.51"}"#;
    let head = format!(
        "\x05HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        version.len()
    );
    let store = "\x06HTTP/1.1 200 OK\r\n\r\n{\"Blobs\":1,\"Bytes\":2,\"Snapshots\":3,\"Images\":4,\"Containers\":5,\"Volumes\":6,\"Problems\":[]}";
    let chunks = "\x07HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n[{}]\r\n0\r\n\r\n";
    let span = Span {
        trace_id: "0af7651916cd43dd8448eb211c80319c".into(),
        span_id: "b7ad6b7169203331".into(),
        parent_id: None,
        service: "daemon".into(),
        name: "GET /info".into(),
        start_us: 1,
        duration_us: 2,
        fields: serde_json::Map::new(),
    };
    let told = line(12, &reply(Reply::Layers(layers.clone())));
    [
        ("status", 1, line(0, &reply(Reply::Status(status)))),
        ("layers", 1, line(0, &reply(Reply::Layers(layers)))),
        ("stats", 1, line(0, &reply(Reply::Stats(stats)))),
        ("hello", 1, line(1, &reply(Reply::Hello(hello)))),
        ("shell", 1, shell),
        ("dial", 1, line(3, &DialReply::Connected)),
        ("logs", 1, line(4, &LogsReply::Error("why".into()))),
        ("version", 1, [head.as_bytes(), version].concat()),
        ("chunks", 1, chunks.into()),
        ("store", 1, store.into()),
        ("console", 1, b"\x08[ 0.1] boots\r\n\x1b[31mred\n".into()),
        ("greeting", 1, b"\x09OK 1024\n".into()),
        ("connect", 1, b"\x0aCONNECT 1024\n".into()),
        ("datagrams", 1, b"\x0b\0\x03one\0\0\0\x03two\xff".into()),
        ("layers-told", 1, told),
        ("spans", 1, line(12, &reply(Reply::Spans(vec![span])))),
    ]
}

/// Messages of several types in one list.
mod erased {
    pub trait Json {
        fn json(&self) -> Vec<u8>;
    }

    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> Vec<u8> {
            serde_json::to_vec(self).expect("JSON")
        }
    }
}

fn ports() -> [Seed; 1] {
    let publication = |key: &str, proto, host_ip: &str| Publication {
        key: key.into(),
        container_id: "c".into(),
        proto,
        host_ip: host_ip.into(),
        host_port: 8080,
        target: "172.17.0.2:80".parse().expect("an address"),
    };
    let news = [
        News::Sync(vec![publication("a", Proto::Tcp, "")]),
        News::Publish(publication("b", Proto::Udp, "[::1]")),
        News::Publish(publication("b", Proto::Tcp, "localhost")),
        News::Withdraw { key: "a".into() },
    ];
    let mut lines = Vec::new();
    for (id, news) in (1..).zip(news) {
        let line = NewsLine {
            version: VERSION,
            id,
            news,
        };
        serde_json::to_writer(&mut lines, &line).expect("JSON");
        lines.push(b'\n');
    }
    [("news", 1, lines)]
}
