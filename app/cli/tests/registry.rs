//! Pull from Debian's docker-registry on the host's loopback, by tag and by digest.

mod common;

use common::registry::Registry;

#[test]
fn images_are_pulled_by_tag_and_by_digest() {
    let registry = Registry::start();
    let digest = registry.push("busybox");
    let (host, vm) = (registry.host(), registry.instance());
    let said = vm.docker(&["pull", &format!("{host}/busybox:1")]);
    assert!(
        said.contains("Status: Downloaded newer image") && said.contains(&digest),
        "{said}"
    );
    assert!(
        vm.docker(&["pull", &format!("{host}/busybox:1")])
            .contains("Image is up to date")
    );
    assert_eq!(
        vm.docker(&[
            "run",
            "--rm",
            &format!("{host}/busybox:1"),
            "echo",
            "pulled"
        ]),
        "pulled"
    );
    let by_digest = format!("{host}/busybox@{digest}");
    vm.docker(&["pull", &by_digest]);
    assert_eq!(
        vm.docker(&["run", "--rm", &by_digest, "echo", "pulled"]),
        "pulled"
    );
    let missing = vm.docker_fails(1, &["pull", &format!("{host}/nothing:1")]);
    assert!(
        missing.contains("not found") || missing.contains("manifest unknown"),
        "{missing}"
    );
    // By another name nobody has declared it insecure.
    let by_address = format!("10.0.2.2:{}/busybox:1", registry.port);
    let plain = vm.docker_fails(1, &["pull", &by_address]);
    assert!(
        plain
            .trim_end()
            .ends_with("http: server gave HTTP response to HTTPS client"),
        "{plain}"
    );
    drop(registry);
    let down = vm.docker_fails(1, &["pull", &by_address]);
    assert!(
        down.trim_end().ends_with("connect: connection refused"),
        "{down}"
    );
}

#[test]
fn a_certificate_that_nobody_signed_does_for_a_registry_that_is_declared_insecure() {
    let registry = Registry::with_tls();
    registry.push("busybox");
    let (host, vm) = (registry.host(), registry.instance());
    let pulled = format!("{host}/busybox:1");
    vm.docker(&["pull", &pulled]);
    assert_eq!(vm.docker(&["run", "--rm", &pulled, "echo", "here"]), "here");
    let pushed = format!("{host}/again:1");
    vm.docker(&["tag", &pulled, &pushed]);
    vm.docker(&["push", &pushed]);
    vm.docker(&["rmi", &pulled, &pushed]);
    vm.docker(&["pull", &pushed]);
    // By another name nobody has declared it insecure.
    let by_address = format!("10.0.2.2:{}/busybox:1", registry.port);
    let refused = vm.docker_fails(1, &["pull", &by_address]);
    assert!(
        refused.contains("tls: failed to verify certificate: x509: "),
        "{refused}"
    );
}
