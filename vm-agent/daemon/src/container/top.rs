//! `GET /containers/{id}/top`: the container's processes as `ps` prints them, read from /proc.

use crate::error::{ApiError, ApiResult};
use crate::http_message::{ApiRequest, ApiResponse, ok_json};
use crate::state::Daemon;
use crate::supervisor::api;
use chrono::{DateTime, Local};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

pub async fn serve(daemon: Arc<Daemon>, request: ApiRequest, id: String) -> ApiResult<ApiResponse> {
    let container = daemon.containers.get(&id)?;
    if !container.running {
        return Err(ApiError::conflict(format!(
            "container {} is not running",
            container.id
        )));
    }
    let columns = columns(request.query.non_empty("ps_args").unwrap_or("-ef"))?;
    let pids = api::ListPidsRequest {
        container_id: container.id.clone(),
    };
    let pids = daemon
        .supervisor
        .tasks()
        .list_pids(pids)
        .await?
        .into_inner()
        .processes;
    let machine = Machine::read();
    let rows: Vec<Vec<String>> = pids
        .iter()
        .filter_map(|process| Process::read(process.pid))
        .map(|process| {
            columns
                .iter()
                .map(|column| column.value(&process, &machine))
                .collect()
        })
        .collect();
    let titles: Vec<&str> = columns.iter().map(|column| column.title).collect();
    ok_json(&json!({ "Processes": rows, "Titles": titles }))
}

/// A column of ps: its names after `-o`, its title, what it shows.
struct Column {
    names: &'static [&'static str],
    title: &'static str,
    show: fn(&Process, &Machine) -> String,
}

impl Column {
    fn value(&self, process: &Process, machine: &Machine) -> String {
        (self.show)(process, machine)
    }
}

const COLUMNS: [Column; 16] = [
    Column {
        names: &["user", "euser", "uname"],
        title: "USER",
        show: |p, m| m.user(p.uid),
    },
    Column {
        names: &["uid"],
        title: "UID",
        show: |p, m| m.user(p.uid),
    },
    Column {
        names: &["pid"],
        title: "PID",
        show: |p, _| p.pid.to_string(),
    },
    Column {
        names: &["ppid"],
        title: "PPID",
        show: |p, _| p.parent.to_string(),
    },
    Column {
        names: &["c"],
        title: "C",
        show: |p, m| format!("{:.0}", p.cpu_percent(m).floor()),
    },
    Column {
        names: &["stime"],
        title: "STIME",
        show: |p, m| p.start_time(m),
    },
    Column {
        names: &["tty", "tt"],
        title: "TTY",
        show: |p, _| p.terminal(),
    },
    Column {
        names: &["time"],
        title: "TIME",
        show: |p, m| p.long_time(m),
    },
    Column {
        names: &["cmd", "args", "command"],
        title: "CMD",
        show: |p, _| p.command.clone(),
    },
    Column {
        names: &["pcpu", "%cpu"],
        title: "%CPU",
        show: |p, m| format!("{:.1}", p.cpu_percent(m)),
    },
    Column {
        names: &["pmem", "%mem"],
        title: "%MEM",
        show: |p, m| format!("{:.1}", p.memory_percent(m)),
    },
    Column {
        names: &["vsz", "vsize"],
        title: "VSZ",
        show: |p, _| (p.virtual_bytes / 1024).to_string(),
    },
    Column {
        names: &["rss", "rssize"],
        title: "RSS",
        show: |p, _| (p.resident_bytes / 1024).to_string(),
    },
    Column {
        names: &["stat", "state", "s"],
        title: "STAT",
        show: |p, _| p.state.clone(),
    },
    Column {
        names: &["start", "lstart", "bsdstart"],
        title: "START",
        show: |p, m| p.start_time(m),
    },
    Column {
        names: &["comm", "ucmd"],
        title: "COMMAND",
        show: |p, _| p.name.clone(),
    },
];

fn column(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|column| column.names.contains(&name))
}

/// The columns that ps would print for these arguments.
fn columns(arguments: &str) -> ApiResult<Vec<&'static Column>> {
    let list = |names: &str| -> ApiResult<Vec<&'static Column>> {
        names
            .split([',', ' '])
            .filter(|name| !name.is_empty())
            .map(|name| {
                let name = name
                    .split('=')
                    .next()
                    .unwrap_or_default()
                    .to_ascii_lowercase();
                column(&name).ok_or_else(|| {
                    ApiError::bad_request(format!(
                        "unknown user-defined format specifier \"{name}\""
                    ))
                })
            })
            .collect()
    };
    let words: Vec<&str> = arguments.split_whitespace().collect();
    if let Some(at) = words
        .iter()
        .position(|word| word.starts_with('-') && word.ends_with('o') || *word == "o")
    {
        return list(&words[at + 1..].join(","));
    }
    if let Some(names) = words
        .iter()
        .find_map(|word| word.strip_prefix("-o").or(word.strip_prefix("-eo")))
    {
        return list(names);
    }
    let bsd = words
        .first()
        .is_some_and(|word| !word.starts_with('-') && word.contains('u'));
    let names = if bsd {
        "user,pid,%cpu,%mem,vsz,rss,tty,stat,start,time,cmd"
    } else {
        "uid,pid,ppid,c,stime,tty,time,cmd"
    };
    list(names)
}

/// What percentages and times are counted from.
struct Machine {
    ticks: f64,
    uptime: f64,
    boot: i64,
    memory_bytes: u64,
    users: HashMap<u32, String>,
}

impl Machine {
    fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let uptime = text("/proc/uptime")
            .split_whitespace()
            .next()
            .and_then(|t| t.parse().ok())
            .unwrap_or(1.0);
        let field = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let users = text("/etc/passwd");
        let users = users.lines().filter_map(|line| {
            let parts: Vec<&str> = line.split(':').collect();
            Some((parts.get(2)?.parse().ok()?, (*parts.first()?).to_owned()))
        });
        Machine {
            ticks: 100.0,
            uptime,
            boot: field(&text("/proc/stat"), "btime ").unwrap_or_default() as i64,
            memory_bytes: field(&text("/proc/meminfo"), "MemTotal:").unwrap_or(1) * 1024,
            users: users.collect(),
        }
    }

    fn user(&self, uid: u32) -> String {
        self.users
            .get(&uid)
            .cloned()
            .unwrap_or_else(|| uid.to_string())
    }
}

struct Process {
    pid: u32,
    parent: u32,
    uid: u32,
    name: String,
    command: String,
    state: String,
    terminal_number: i32,
    cpu_ticks: f64,
    start_ticks: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

impl Process {
    /// `None` when it has just ended.
    fn read(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        let uid = uid.split_whitespace().next()?.parse().ok()?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Self::parse(pid, uid, &stat, &command)
    }

    /// proc_pid_stat(5); the name is in parentheses and may hold anything.
    fn parse(pid: u32, uid: u32, stat: &str, command: &[u8]) -> Option<Self> {
        let (open, close) = (stat.find('(')?, stat.rfind(')')?);
        let name = stat[open + 1..close].to_owned();
        let rest: Vec<&str> = stat[close + 1..].split_whitespace().collect();
        let number = |index: usize| rest.get(index).and_then(|text| text.parse::<f64>().ok());
        let words = String::from_utf8_lossy(command)
            .trim_end_matches('\0')
            .replace('\0', " ");
        Some(Process {
            pid,
            parent: number(1)? as u32,
            uid,
            command: if words.is_empty() {
                format!("[{name}]")
            } else {
                words
            },
            name,
            state: (*rest.first()?).to_owned(),
            terminal_number: number(4)? as i32,
            cpu_ticks: number(11)? + number(12)?,
            start_ticks: number(19)?,
            virtual_bytes: number(20)? as u64,
            resident_bytes: number(21)? as u64 * 4096,
        })
    }

    fn cpu_percent(&self, machine: &Machine) -> f64 {
        let lived = (machine.uptime - self.start_ticks / machine.ticks).max(0.01);
        (self.cpu_ticks / machine.ticks / lived * 100.0).min(999.0)
    }

    fn memory_percent(&self, machine: &Machine) -> f64 {
        self.resident_bytes as f64 / machine.memory_bytes as f64 * 100.0
    }

    fn start_time(&self, machine: &Machine) -> String {
        let started = machine.boot + (self.start_ticks / machine.ticks) as i64;
        let time: DateTime<Local> = DateTime::from_timestamp(started, 0)
            .unwrap_or_default()
            .into();
        let today = time.date_naive() == Local::now().date_naive();
        time.format(if today { "%H:%M" } else { "%b%d" })
            .to_string()
    }

    fn long_time(&self, machine: &Machine) -> String {
        let seconds = (self.cpu_ticks / machine.ticks) as u64;
        format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        )
    }

    /// Major 136 are the pseudo-terminals.
    fn terminal(&self) -> String {
        match (self.terminal_number >> 8) & 0xfff {
            136 => format!("pts/{}", self.terminal_number & 0xff),
            _ => "?".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(arguments: &str) -> String {
        match columns(arguments) {
            Ok(columns) => columns
                .iter()
                .map(|column| column.title)
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.message,
        }
    }

    #[test]
    fn columns_follow_the_arguments() {
        let table = [
            ("-ef", "UID PID PPID C STIME TTY TIME CMD"),
            ("aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME CMD"),
            ("-o pid,comm", "PID COMMAND"),
            ("-eo pid,args", "PID CMD"),
            (
                "-o pid -o user",
                "unknown user-defined format specifier \"-o\"",
            ),
        ];
        for (arguments, expected) in table {
            assert_eq!(titles(arguments), expected, "{arguments}");
        }
    }

    #[test]
    fn stat_is_parsed_whatever_the_name() {
        let stat = "7 (a) b() S 3 7 7 34817 7 4194304 1 0 0 0 150 50 0 0 20 0 1 0 1000 8192 2 0";
        let process = Process::parse(7, 0, stat, b"sleep\x001000\0").unwrap();
        assert_eq!(process.name, "a) b(");
        assert_eq!((process.parent, process.cpu_ticks as u64), (3, 200));
        assert_eq!(process.command, "sleep 1000");
        assert_eq!(process.terminal(), "pts/1");
    }
}
