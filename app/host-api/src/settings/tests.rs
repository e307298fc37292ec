use super::*;

const MACHINE: Machine = Machine {
    cpus: 8,
    memory: Size::gib(32),
};

#[test]
fn defaults_follow_the_machine() {
    let big = Settings::defaults(MACHINE);
    assert_eq!(
        (big.cpus, big.memory, big.disk),
        (8, Size::gib(4), Size::gib(64))
    );
    let small = Settings::defaults(Machine {
        cpus: 1,
        memory: Size::gib(2),
    });
    assert_eq!((small.cpus, small.memory), (1, Size::gib(1)));
}

#[test]
fn assignments_change_what_they_name() {
    let mut stored = Stored::default();
    for text in [
        "cpus=3",
        "memory=1536MiB",
        "shares+=/srv//data/",
        "shares+=/opt:ro",
        "share_home=no",
        "channel=serial",
    ] {
        stored.assign(text).unwrap();
    }
    let settings = stored.resolve(MACHINE);
    assert_eq!(
        (settings.cpus, settings.memory, settings.share_home),
        (3, Size::mib(1536), false)
    );
    assert_eq!(
        settings.share_list(),
        [("/srv/data".into(), false), ("/opt".into(), true)]
    );
    stored.assign("shares-=/opt").unwrap();
    stored.assign("cpus=").unwrap();
    let settings = stored.resolve(MACHINE);
    assert_eq!(
        (settings.cpus, settings.shares),
        (8, vec!["/srv/data".to_owned()])
    );
    assert_eq!(Stored::parse(&stored.to_json()).unwrap(), stored);
}

#[test]
fn bad_values_say_what_is_wrong() {
    let table = [
        (
            "memroy=2g",
            r#"unknown setting "memroy"; did you mean "memory"?"#,
        ),
        (
            "publish-address=::1",
            r#"unknown setting "publish-address"; did you mean "publish_address"?"#,
        ),
        ("acc=tcg", r#"did you mean "accelerator"?"#),
        ("zzz=1", "known are cpus, memory"),
        (
            "memory=2x",
            "setting memory: invalid size \"2x\": write a number",
        ),
        (
            "memory=1m",
            "setting memory: 1m is out of range: 256m to 1t",
        ),
        (
            "cpus=0",
            "setting cpus: 0 is not a whole number from 1 to 255",
        ),
        ("cpus=many", "not a whole number"),
        ("accelerator=warp", "not one of auto, kvm, hvf, whpx, tcg"),
        ("share_home=perhaps", "not true or false"),
        ("shares+=relative", "not an absolute path"),
        ("shares+=/", "the whole file system cannot be shared"),
        ("shares+=/a/../b", "contains \"..\""),
        ("shares-=/nowhere", "does not contain"),
        ("cpus+=1", "is not a list"),
        ("publish_address=localhost", "not an IP address"),
        ("insecure_registries+=http://x", "is not HOST"),
        ("nonsense", "is not KEY=VALUE"),
    ];
    for (text, want) in table {
        let error = Stored::default().assign(text).unwrap_err().to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
}

#[test]
fn a_damaged_file_is_refused_not_ignored() {
    for text in [
        "[]",
        "{",
        r#"{"cpu": 1}"#,
        r#"{"memory": "lots"}"#,
        r#"{"shares": "/x"}"#,
    ] {
        assert!(Stored::parse(text).is_err(), "{text}");
    }
    assert_eq!(Stored::parse("\n").unwrap(), Stored::default());
}

#[test]
fn engine_options_are_set_whole_or_key_by_key() {
    let mut stored = Stored::default();
    let engine = |stored: &Stored| Value::Object(stored.resolve(MACHINE).engine);
    stored
        .assign(r#"engine={"debug": true, "mtu": 1400}"#)
        .unwrap();
    stored
        .assign(r#"engine+={"mtu": 1300, "labels": ["a=b"]}"#)
        .unwrap();
    let both = json!({ "debug": true, "mtu": 1300, "labels": ["a=b"] });
    assert_eq!(engine(&stored), both);
    stored.assign("engine-=debug").unwrap();
    assert_eq!(Stored::parse(&stored.to_json()).unwrap(), stored);
    for (text, want) in [
        ("engine={", "setting engine: EOF while parsing"),
        ("engine=[]", "is not a JSON object: write"),
        (
            r#"engine+={"colour": 1}"#,
            "don't match any configuration option: colour",
        ),
        ("engine-=debug", "does not contain \"debug\""),
    ] {
        let before = stored.clone();
        let error = stored.assign(text).unwrap_err().to_string();
        assert!(error.contains(want), "{text}: {error}");
        assert_eq!(stored, before);
    }
    stored.assign("engine=").unwrap();
    assert_eq!(engine(&stored), json!({}));
}

fn with(list: &[&str]) -> Stored {
    let mut stored = Stored::default();
    for text in list {
        stored.assign(text).unwrap();
    }
    stored
}

#[test]
fn what_was_tried_is_put_back_and_nothing_else() {
    let good = with(&["cpus=2", "memory=1g"]);
    let tried = with(&[
        "cpus=4",
        "memory=1g",
        "accelerator=hvf",
        "docker_context=no",
    ]);
    let back = tried.back_to(&good);
    assert_eq!(back, with(&["cpus=2", "memory=1g", "docker_context=no"]));
    // Meanwhile somebody has changed the processors once more.
    let now = with(&[
        "cpus=3",
        "memory=1g",
        "accelerator=hvf",
        "docker_context=no",
    ]);
    let (next, names) = now.exchange(&tried, &back).unwrap();
    assert_eq!(next, with(&["cpus=3", "memory=1g", "docker_context=no"]));
    assert_eq!(names, ["accelerator"]);
    // And forth again, where the settings before do not work either.
    assert_eq!(next.exchange(&back, &tried).unwrap().0, now);
    assert!(good.exchange(&good, &good.back_to(&good)).is_none());
}

#[test]
fn a_new_share_is_put_back_and_a_closed_one_stays_closed() {
    for (good, tried, back) in [
        ("shares=/a", "shares=/a,/b", "shares=/a"),
        ("cpus=1", "shares=/b", "shares=/"),
        ("shares=/a,/c", "shares=/c,/b", "shares=/c"),
        ("shares=/a", "shares=/a:ro", "shares=/a:ro"),
        ("share_home=yes", "share_home=no", "share_home=no"),
        ("share_home=no", "share_home=yes", "share_home=no"),
        ("cpus=1", "share_home=no", "share_home=no"),
    ] {
        let (what, good, tried) = (format!("{good} {tried}"), with(&[good]), with(&[tried]));
        let back = match back {
            "shares=/" => Stored(json!({"shares": []}).as_object().unwrap().clone()),
            back => with(&[back]),
        };
        let found = tried.back_to(&good);
        let shares = |stored: &Stored| {
            (
                stored.0.get("shares").cloned(),
                stored.0.get("share_home").cloned(),
            )
        };
        assert_eq!(shares(&found), shares(&back), "{what}");
        let again = match tried.exchange(&tried, &found) {
            Some((next, _)) => next.exchange(&found, &tried).unwrap().0,
            None => tried.clone(),
        };
        assert_eq!(again, tried, "{what}");
    }
    let now = with(&["cpus=2", "shares=/b"]);
    assert_eq!(
        with(&["cpus=1", "shares=/a"]).with_shares_of(&now),
        with(&["cpus=1", "shares=/b"])
    );
    assert_eq!(
        with(&["shares=/a"]).with_shares_of(&with(&["cpus=2"])),
        Stored::default()
    );
}
