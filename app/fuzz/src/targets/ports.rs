//! What the guest asks to have opened on the host: lines, the policy, and the listeners.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use longshore_host::ports::{Ports, address, converse};
use longshore_protocol::line;
use longshore_protocol::port_news::{News, NewsLine, Publication};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::watch;

use crate::memory::Bound;

/// A line of 256 KiB and its answer, what JSON makes of so many bytes, and a buffer for each UDP port.
const BOUND: usize = 8 << 20;
/// Ports that one line asks for; more would only cost time.
const MOST: usize = 64;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The lines of one conversation.
pub fn run(input: &[u8]) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let bound = Bound::new(BOUND);
        let mut tame = Vec::new();
        for line in input.split_inclusive(|byte| *byte == b'\n') {
            tame.extend(tamed(line).await);
        }
        let (host, mut guest) = duplex(1 << 20);
        let ports = Ports::new(PathBuf::from("/nonexistent/channel.sock"));
        guest.write_all(&tame).await.expect("there is room");
        guest.shutdown().await.expect("the end");
        let (_, default) = watch::channel(LOOPBACK);
        let _ = converse(host, &ports, &default).await;
        bound.check();
        let open = ports.list();
        assert!(open.iter().all(|port| port.host.starts_with("127.0.0.1:")));
        let mut answers = Vec::new();
        guest.read_to_end(&mut answers).await.expect("answers");
        ports.clear();
        open.len()
    })
}

/// The line, but for addresses and ports: this machine's own stay closed. What they would have been is told by the policy alone.
async fn tamed(line: &[u8]) -> Vec<u8> {
    let Ok(Some(mut parsed)) = line::read_json::<NewsLine, _>(&mut &line[..]).await else {
        return line.to_vec();
    };
    match &mut parsed.news {
        News::Publish(publication) => tame(publication),
        News::Withdraw { .. } => {}
        News::Sync(set) => {
            set.truncate(MOST);
            set.iter_mut().for_each(tame);
        }
    }
    let mut bytes = Vec::new();
    match line::write_json(&mut bytes, &parsed).await {
        Ok(()) => bytes,
        // What is longer when we write it is too long.
        Err(_) => Vec::new(),
    }
}

fn tame(publication: &mut Publication) {
    if let Ok(wanted) = address(publication, LOOPBACK) {
        assert_eq!(wanted.port(), publication.host_port);
        assert!(!wanted.ip().is_multicast());
        assert!(publication.target.port() != 0 && !publication.target.ip().is_unspecified());
        publication.host_ip = String::new();
        publication.host_port = 0;
    }
}
