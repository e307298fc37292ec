//! What the tray shows, as plain values: its icon, its words, and the newest containers. It knows no tray.

use longshore_host_api::types::{EngineState, State};
use serde::Deserialize;

/// As many containers as a menu has room for.
pub const MOST: usize = 5;
/// What a menu shows of a name, in characters.
const NAME: usize = 40;
/// What a menu shows of a state's detail: a stage, not a story.
const DETAIL: usize = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icon {
    Stopped,
    Starting,
    Running,
    Failed,
}

/// What the engine's state comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnginePart {
    pub icon: Icon,
    pub text: String,
    pub can_start: bool,
    pub can_stop: bool,
    pub can_restart: bool,
}

/// `now` is none while the service does not answer.
pub fn engine_part(now: Option<&EngineState>) -> EnginePart {
    let state = now.map(|n| n.state);
    let running = matches!(state, Some(State::Running | State::Paused));
    EnginePart {
        icon: match state {
            Some(State::Running) => Icon::Running,
            Some(State::Starting | State::Stopping) => Icon::Starting,
            Some(State::Failed) => Icon::Failed,
            Some(State::Stopped | State::Paused) | None => Icon::Stopped,
        },
        text: describe(now),
        can_start: matches!(state, Some(State::Stopped | State::Failed)),
        can_stop: running || state == Some(State::Starting),
        can_restart: running,
    }
}

fn describe(now: Option<&EngineState>) -> String {
    let Some(now) = now else {
        return "The host service does not answer".to_owned();
    };
    let text = format!("Engine {}", now.state.as_str());
    match &now.detail {
        Some(detail) if detail.chars().count() <= DETAIL => format!("{text}: {detail}"),
        _ => text,
    }
}

/// A container as `GET /containers/json` tells of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    created: i64,
    #[serde(default)]
    state: String,
}

/// A container in the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub id: String,
    /// In a menu's own writing, where `&` marks a key.
    pub text: String,
    pub can_start: bool,
    pub can_stop: bool,
}

/// The newest containers first. One whose id is none is left out: it comes from the VM, and goes into addresses.
pub fn lines(mut containers: Vec<Container>) -> Vec<Line> {
    containers.retain(|c| is_id(&c.id));
    // Of the same second, always the same first: a menu that changes its order for nothing is redrawn for nothing.
    containers.sort_by(|a, b| (b.created, &a.id).cmp(&(a.created, &b.id)));
    containers.truncate(MOST);
    containers.into_iter().map(line).collect()
}

fn line(container: Container) -> Line {
    // Among the names of a container that others link to are theirs for it: `/other/alias`.
    let own = container
        .names
        .iter()
        .map(|n| n.strip_prefix('/').unwrap_or(n))
        .find(|n| !n.contains('/') && !n.is_empty());
    let name = shown(own.unwrap_or(&container.id[..12]));
    let state = shown(&container.state);
    let runs = matches!(&*container.state, "running" | "paused" | "restarting");
    Line {
        text: if state.is_empty() {
            name
        } else {
            format!("{name}: {state}")
        },
        can_start: matches!(&*container.state, "created" | "exited"),
        can_stop: runs,
        id: container.id,
    }
}

/// Text of unknown origin, short, on one line and without a menu's marks.
fn shown(text: &str) -> String {
    let mut characters = text.chars();
    let mut short: String = characters.by_ref().take(NAME).collect();
    if characters.next().is_some() {
        short.pop();
        short.push('…');
    }
    short
        .replace(|c: char| c.is_control() || is_direction(c), "\u{fffd}")
        .replace('&', "&&")
}

/// Characters that turn the order of those beside them, so that one name looks like another.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// What a click on a container's line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Open,
    Start,
    Stop,
}

impl Verb {
    const ALL: [(Verb, &str); 3] = [
        (Verb::Open, "open"),
        (Verb::Start, "start"),
        (Verb::Stop, "stop"),
    ];

    /// The name of this item of a container's.
    pub fn item(self, id: &str) -> String {
        let word = Self::ALL
            .iter()
            .find(|(v, _)| *v == self)
            .map_or("", |v| v.1);
        format!("{word}/{id}")
    }

    /// Which item was clicked, and whose; none for the items that are nobody's.
    pub fn of_item(item: &str) -> Option<(Verb, &str)> {
        let (word, id) = item.split_once('/')?;
        let (verb, _) = Self::ALL.iter().find(|(_, w)| *w == word)?;
        is_id(id).then_some((*verb, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(number: u8, names: &[&str], state: &str) -> Container {
        Container {
            id: format!("{number:064x}"),
            names: names.iter().map(|&n| n.to_owned()).collect(),
            created: i64::from(number),
            state: state.to_owned(),
        }
    }

    fn text(name: &str) -> String {
        lines(vec![container(1, &[name], "running")])[0]
            .text
            .clone()
    }

    #[test]
    fn each_state_has_its_icon_words_and_clicks() {
        use State::*;
        for (state, icon, start, stop, restart) in [
            (Some(Stopped), Icon::Stopped, true, false, false),
            (Some(Starting), Icon::Starting, false, true, false),
            (Some(Running), Icon::Running, false, true, true),
            (Some(Paused), Icon::Stopped, false, true, true),
            (Some(Stopping), Icon::Starting, false, false, false),
            (Some(Failed), Icon::Failed, true, false, false),
            (None, Icon::Stopped, false, false, false),
        ] {
            let now = state.map(|state| EngineState {
                state,
                detail: None,
            });
            let part = engine_part(now.as_ref());
            assert_eq!(
                (part.icon, part.can_start, part.can_stop, part.can_restart),
                (icon, start, stop, restart),
                "{state:?}"
            );
        }
    }

    #[test]
    fn the_state_fits_a_menu() {
        let of = |state, detail: Option<&str>| {
            describe(Some(&EngineState {
                state,
                detail: detail.map(str::to_owned),
            }))
        };
        assert_eq!(of(State::Running, None), "Engine running");
        assert_eq!(of(State::Starting, Some("boot")), "Engine starting: boot");
        assert_eq!(of(State::Failed, Some(&"x".repeat(99))), "Engine failed");
        assert_eq!(describe(None), "The host service does not answer");
    }

    #[test]
    fn the_newest_containers_come_first_and_only_a_handful() {
        assert_eq!(lines(vec![]), []);
        let many = (1..=9).map(|n| container(n, &["/web"], "exited")).collect();
        let ids: Vec<_> = lines(many).into_iter().map(|l| l.id).collect();
        assert_eq!(ids, [9, 8, 7, 6, 5].map(|n| format!("{n:064x}")));
        let same = |order: [u8; 2]| {
            lines(
                order
                    .map(|n| Container {
                        created: 1,
                        ..container(n, &["/web"], "exited")
                    })
                    .to_vec(),
            )
        };
        assert_eq!(same([1, 2]), same([2, 1]));
    }

    #[test]
    fn a_name_is_text_and_nothing_else() {
        assert_eq!(text("/web_1.a-b"), "web_1.a-b: running");
        assert_eq!(text("/<b>x<b> &amp;"), "<b>x<b> &&amp;: running");
        assert_eq!(text("/a\n\u{202e}b"), "a\u{fffd}\u{fffd}b: running");
        let long = text(&format!("/{}", "é".repeat(300)));
        assert_eq!(long, format!("{}…: running", "é".repeat(NAME - 1)));
        assert_eq!(
            text(&"n".repeat(NAME)),
            format!("{}: running", "n".repeat(NAME))
        );
        assert_eq!(
            lines(vec![container(1, &["/other/db", "/db"], "")])[0].text,
            "db"
        );
        assert_eq!(
            lines(vec![container(1, &[], "dead")])[0].text,
            "000000000000: dead"
        );
    }

    #[test]
    fn what_can_be_done_follows_the_state() {
        for (state, start, stop) in [
            ("created", true, false),
            ("exited", true, false),
            ("running", false, true),
            ("paused", false, true),
            ("restarting", false, true),
            ("removing", false, false),
            ("dead", false, false),
            ("", false, false),
        ] {
            let line = &lines(vec![container(1, &["/web"], state)])[0];
            assert_eq!((line.can_start, line.can_stop), (start, stop), "{state}");
        }
    }

    #[test]
    fn an_id_that_is_none_reaches_no_address() {
        let of = |id: &str| Container {
            id: id.to_owned(),
            ..container(1, &["/web"], "running")
        };
        let bad = ["", "abc", "../../info", &"g".repeat(64), &"é".repeat(32)];
        assert_eq!(lines(bad.map(of).to_vec()), []);
        for id in bad {
            assert_eq!(Verb::of_item(&format!("start/{id}")), None);
        }
        let id = "a".repeat(64);
        for verb in [Verb::Open, Verb::Start, Verb::Stop] {
            assert_eq!(Verb::of_item(&verb.item(&id)), Some((verb, &*id)));
        }
        assert_eq!(Verb::of_item("start"), None);
    }

    #[test]
    fn what_the_engine_says_is_understood() {
        let answer =
            r#"[{"Id":"x","Names":["/web"],"Created":5,"State":"running","Ports":[]},{"Id":"y"}]"#;
        let containers: Vec<Container> = serde_json::from_str(answer).unwrap();
        assert_eq!(
            (containers[0].created, &*containers[0].state),
            (5, "running")
        );
    }
}
