use super::*;
use serde_json::json;

fn refused(options: Value) -> String {
    let map = options.as_object().unwrap().clone();
    check(&map).expect_err(&options.to_string()).to_string()
}

#[test]
fn what_the_engine_has_is_taken() {
    let all = json!({
        "bip": "10.20.0.1/24", "mtu": 1400, "ipv6": true, "fixed-cidr-v6": "fd00:77::/64",
        "default-address-pools": [{"base": "10.99.0.0/16", "size": 24}], "dns": ["9.9.9.9", "fd00::1"],
        "dns-search": ["example.org"], "dns-opts": ["ndots:2"], "debug": true, "init": true, "no-new-privileges": true,
        "default-runtime": "mine", "runtimes": {"mine": {"path": "/usr/bin/crun"}}, "default-shm-size": "128M",
        "log-driver": "local", "log-opts": {"max-size": "1m", "mode": "non-blocking"}, "labels": ["a=b", "flag"],
        "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 2000, "Soft": 1000}, "core": {"Hard": -1, "Soft": -1}},
        "insecure-registries": ["a:5000"], "registry-mirrors": ["https://mirror.example", "http://h:5000/"],
        "features": {"containerd-snapshotter": true},
        "proxies": {"http-proxy": "http://me:secret@proxy:3128", "https-proxy": "", "no-proxy": "*.local,10.0.0.0/8"},
    });
    check(all.as_object().unwrap()).unwrap();
    let keys: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
    let tried: Vec<&String> = all.as_object().unwrap().keys().collect();
    assert_eq!(keys, tried, "each key is tried here");
}

#[test]
fn what_it_does_not_have_is_refused_in_dockers_words_with_what_to_do() {
    for (options, words) in [
        (
            json!({"colour": 1, "debug": true, "graph": "/x"}),
            "the following directives don't match any configuration option: colour, graph; remove them; this engine has bip, debug",
        ),
        (
            json!({"ip": "0.0.0.0"}),
            "longshore settings set publish_address=ADDRESS",
        ),
        (
            json!({"debug": "yes"}),
            "json: cannot unmarshal string into Go struct field Config.debug of type bool; write true or false",
        ),
        (
            json!({"dns": "9.9.9.9"}),
            "json: cannot unmarshal string into Go struct field Config.dns of type []string",
        ),
        (
            json!({"dns": ["nine"]}),
            "IP address is not correctly formatted: nine",
        ),
        (
            json!({"bip": "10.0.0.1"}),
            "invalid CIDR address: 10.0.0.1; write \"bip\" like",
        ),
        (
            json!({"bip": "fd00::1/64"}),
            "invalid CIDR address: fd00::1/64",
        ),
        (json!({"mtu": -1}), "invalid default MTU: -1"),
        (
            json!({"default-runtime": "kata"}),
            "specified default runtime 'kata' does not exist; use longshore",
        ),
        (
            json!({"runtimes": {"runc": {"path": "/x"}}}),
            "runtime name 'runc' is reserved",
        ),
        (
            json!({"log-driver": "syslog"}),
            "logger: no log driver named 'syslog' is registered; use json-file, local or none",
        ),
        (
            json!({"log-driver": "local", "log-opts": {"tag": "x"}}),
            "unknown log opt 'tag' for local log driver",
        ),
        (
            json!({"log-opts": {"max-size": 5}}),
            "cannot unmarshal number",
        ),
        (json!({"labels": ["=x"]}), "bad attribute format: =x"),
        (
            json!({"default-ulimits": {"nofile": {"Hard": 1, "Soft": 2}}}),
            "soft limit must be less than or equal to hard limit: 2 > 1",
        ),
        (
            json!({"default-address-pools": [{"base": "10.0.0.0/16", "size": 8}]}),
            "size 8 does not fit 10.0.0.0/16",
        ),
        (json!({"default-shm-size": "lots"}), "invalid size: 'lots'"),
        (
            json!({"features": {"buildkit": true}}),
            "unknown feature buildkit=true",
        ),
        (
            json!({"registry-mirrors": ["mirror"]}),
            "no scheme specified for \"mirror\"",
        ),
        (
            json!({"registry-mirrors": ["ftp://m"]}),
            "unsupported scheme \"ftp\"",
        ),
        (
            json!({"registry-mirrors": ["https://m/path"]}),
            "path, query, or fragment at end of the URI",
        ),
        (
            json!({"registry-mirrors": ["https://me:pw@m"]}),
            "username/password not allowed in URI \"https://xxxxx:xxxxx@m\"",
        ),
        (
            json!({"proxies": {"http-proxy": "me:pw@h"}}),
            "invalid http-proxy: \"xxxxx:xxxxx@h\"",
        ),
        (json!({"proxies": {"ftp-proxy": ""}}), "proxies.ftp-proxy"),
        (
            json!({"proxies": {"no-proxy": "a\nLD_PRELOAD=b"}}),
            "invalid no-proxy: it holds a control character",
        ),
    ] {
        let said = refused(options.clone());
        assert!(said.contains(words), "{options}: {said}");
    }
}

#[test]
fn secrets_are_not_shown() {
    for (url, shown) in [
        ("http://proxy:3128", "http://proxy:3128"),
        (
            "http://me:s@cret@proxy:3128/x",
            "http://xxxxx:xxxxx@proxy:3128/x",
        ),
        ("http://proxy/a@b", "http://proxy/a@b"),
        ("", ""),
    ] {
        assert_eq!(without_secrets(url), shown);
    }
}
