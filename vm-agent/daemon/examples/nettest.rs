use clap::Parser;
use longshore_daemon::{Daemon, config::Options, network::*};
#[tokio::main]
async fn main() {
    let d = Daemon::open(Options::parse_from([
        "x",
        "--data-root",
        "/tmp/ls",
        "--exec-root",
        "/run/ls",
    ]))
    .await
    .unwrap();
    let t = std::time::Instant::now();
    let mk = |id: &str, mode: &str, port: Option<&str>| ContainerNetworkRequest {
        id: id.repeat(16),
        name: format!("c{id}"),
        hostname: "h".into(),
        mode: mode.into(),
        port_bindings: port
            .map(|p| {
                PortMap::from([(
                    "80/tcp".to_string(),
                    Some(vec![PortBinding {
                        host_ip: "".into(),
                        host_port: p.into(),
                    }]),
                )])
            })
            .unwrap_or_default(),
        ..Default::default()
    };
    for (id, mode, port) in [
        ("aaaa", "bridge", Some("8080")),
        ("bbbb", "bridge", None),
        ("cccc", "u1", None),
        ("dddd", "u1", Some("")),
        ("eeee", "bridge", Some("8080")),
        ("ffff", "none", None),
    ] {
        let mut r = mk(id, mode, port);
        let t = std::time::Instant::now();
        r.netns = d.networks.create_netns(&r.id).await.unwrap();
        let t1 = t.elapsed();
        match d.networks.attach(&r).await {
            Ok(s) => println!(
                "{id} {:?} {:?} {}\n{}\n{}",
                t1,
                t.elapsed(),
                serde_json::to_string(&s).unwrap(),
                d.networks.hosts(&r, &[], &s),
                d.networks.resolv_conf(&r)
            ),
            Err(e) => println!("{id} ERR {e}"),
        }
    }
    println!("total {:?}", t.elapsed());
    if std::env::args().count() > 1 {
        tokio::time::sleep(std::time::Duration::from_secs(3600)).await
    }
    for id in ["aaaa", "bbbb", "cccc", "dddd", "ffff"] {
        let t = std::time::Instant::now();
        d.networks.release(&id.repeat(16)).await;
        println!("release {:?}", t.elapsed());
    }
}
