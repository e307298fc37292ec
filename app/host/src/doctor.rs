//! Every link of the chain, looked at from the host's end and, where it has one, from the guest's.

use std::time::Duration;

use longshore_host_api::doctor::{Check, Report};
use longshore_host_api::{Size, spawn};
use longshore_protocol::config::GuestConfig;
use longshore_protocol::control::{Reply, Request, ServiceState, Status};
use longshore_protocol::line;
use longshore_protocol::shell::{Frame, ShellHeader};
use longshore_protocol::{VERSION, ports};
use sha2::{Digest, Sha256};
use tokio::io::BufReader;
use tokio::process::Command;

use crate::phase::Phase;
use crate::service::Service;
use crate::{channel, engine, guest, image, machine, vm_process};

const PATIENCE: Duration = Duration::from_secs(10);
/// Under emulation a name server in the guest's network may be slow.
const DNS_PATIENCE: Duration = Duration::from_secs(20);
/// Less room than this on the host's disk is worth a warning.
const LITTLE_ROOM: Size = Size::gib(5);

pub async fn examine(service: &Service) -> Report {
    let mut checks = vec![
        programs(),
        qemu().await,
        accelerator(service),
        guest_image(service).await,
        disk(service),
        memory(service).await,
    ];
    checks.push(Check::ok(
        "service",
        format!(
            "longshore-host {} runs, process {}",
            env!("CARGO_PKG_VERSION"),
            std::process::id()
        ),
    ));
    let phase = service.vm().phase().borrow().clone();
    if matches!(phase, Phase::Stopped | Phase::Failed { .. }) {
        checks.push(match phase {
            Phase::Failed { why } => {
                Check::fail("vm", why, "longshore start, then longshore logs console")
            }
            _ => Check::skip("vm", "stopped: longshore start"),
        });
        for name in [
            "qmp",
            "channel",
            "agent",
            "supervisor",
            "daemon",
            "docker-socket",
            "dns",
        ] {
            checks.push(Check::skip(name, "the VM does not run"));
        }
        return Report { checks };
    }
    vm_process_checks(service, &mut checks).await;
    guest_checks(service, &mut checks).await;
    checks.push(docker_socket(service).await);
    checks.push(dns(service).await);
    Report { checks }
}

fn programs() -> Check {
    let missing: Vec<String> = ["longshore-vm", "longshore-file-share"]
        .iter()
        .filter_map(|name| spawn::sibling(name).err())
        .map(|e| e.to_string())
        .collect();
    if missing.is_empty() {
        Check::ok(
            "programs",
            "longshore-vm and longshore-file-share are there",
        )
    } else {
        Check::fail(
            "programs",
            missing.join("; "),
            "install Longshore's programs side by side",
        )
    }
}

async fn qemu() -> Check {
    let name = format!("qemu-system-{}", std::env::consts::ARCH);
    let output = Command::new(&name).arg("--version").output();
    match tokio::time::timeout(PATIENCE, output).await {
        Ok(Ok(output)) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().next().unwrap_or_default().to_owned();
            match version(&line) {
                Some(version) if version >= SOUND_EMULATOR => Check::ok("qemu", line),
                Some(version) if version >= (7, 2) => Check::warn(
                    "qemu",
                    line,
                    "without virtualisation this QEMU may crash the guest now and then: install 8.1 or newer (Debian 12: from bookworm-backports)",
                ),
                _ => Check::fail("qemu", line, "install QEMU 7.2 or newer, best 8.1 or newer"),
            }
        }
        Ok(Ok(output)) => Check::fail(
            "qemu",
            format!("{name} --version ended with {}", output.status),
            "reinstall QEMU",
        ),
        Ok(Err(e)) => Check::fail("qemu", format!("cannot run {name}: {e}"), install_qemu()),
        Err(_) => Check::fail("qemu", format!("{name} --version hangs"), "reinstall QEMU"),
    }
}

fn install_qemu() -> &'static str {
    if cfg!(target_os = "macos") {
        "brew install qemu"
    } else if cfg!(windows) {
        "install QEMU from its website and put it on PATH"
    } else {
        "install your distribution's QEMU: sudo apt install qemu-system-x86, or dnf install qemu-system-x86"
    }
}

/// From here on QEMU's emulator holds a page while it translates it. Before, a guest with several CPUs that patched its own code
/// could go on running the old bytes, and panic.
const SOUND_EMULATOR: (u32, u32) = (8, 1);

/// Major and minor of `QEMU emulator version 7.2.13 (…)`.
fn version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line
        .split("version ")
        .nth(1)?
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn accelerator(service: &Service) -> Check {
    let emulated = "containers run slowly under emulation; turn on virtualisation (VT-x, AMD-V, nested) where you can";
    match service.vm().running() {
        Some(vm) if vm.accelerator == "tcg" => Check::warn(
            "accelerator",
            format!("tcg: {}", vm.accelerator_reason),
            emulated,
        ),
        Some(vm) => Check::ok(
            "accelerator",
            format!("{}: {}", vm.accelerator, vm.accelerator_reason),
        ),
        None => Check::skip("accelerator", "chosen when the VM starts"),
    }
}

async fn guest_image(service: &Service) -> Check {
    if let Some(warning) = service.image_warning() {
        return Check::warn(
            "image",
            warning,
            "longshore logs console shows its boot, after: longshore start --retry-image",
        );
    }
    let folder = match image::find() {
        Ok(folder) => folder,
        Err(e) => {
            return Check::fail(
                "image",
                e,
                "build the guest image, or set LONGSHORE_GUEST_IMAGE",
            );
        }
    };
    let checked = tokio::task::spawn_blocking({
        let folder = folder.clone();
        move || checksums(&folder)
    });
    match checked.await.unwrap_or_else(|e| Err(e.to_string())) {
        Ok(count) => Check::ok(
            "image",
            format!("{}: {count} checksums match", folder.display()),
        ),
        Err(e) => Check::fail(
            "image",
            e,
            "the guest image is damaged: build or install it again",
        ),
    }
}

/// Compares every file of the image that the manifest gives a sha256 for, wherever in it that stands.
fn checksums(folder: &std::path::Path) -> Result<usize, String> {
    let path = folder.join("manifest.json");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let manifest: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut count = 0;
    for name in image::FILES.iter().filter(|n| **n != "manifest.json") {
        let path = folder.join(name);
        let mut file =
            std::fs::File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let Some(expected) = sha256_of(&manifest, name) else {
            return Err(format!("the manifest has no checksum of {name}"));
        };
        let mut hasher = Sha256::new();
        std::io::copy(&mut file, &mut HashWriter(&mut hasher))
            .map_err(|e| format!("{}: {e}", path.display()))?;
        let actual: String = hasher
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        if !actual.eq_ignore_ascii_case(expected) {
            return Err(format!("{} does not match its checksum", path.display()));
        }
        count += 1;
    }
    Ok(count)
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The checksum of a file in a manifest: `{"NAME": {"sha256": …}}` or `{"name": "NAME", "sha256": …}`, at any depth.
fn sha256_of<'a>(value: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let named = map.get("name").or(map.get("file")).and_then(Value::as_str) == Some(name);
            let own = if named {
                map.get("sha256")
            } else {
                map.get(name).and_then(|v| v.get("sha256"))
            };
            own.and_then(Value::as_str)
                .or_else(|| map.values().find_map(|v| sha256_of(v, name)))
        }
        Value::Array(list) => list.iter().find_map(|v| sha256_of(v, name)),
        _ => None,
    }
}

fn disk(service: &Service) -> Check {
    let home = service.home().root();
    match machine::free_disk(home) {
        Some(free) if free < LITTLE_ROOM.bytes() => Check::warn(
            "disk",
            format!("{} MiB free on the disk of {}", free >> 20, home.display()),
            "make room: images and volumes need it, and the VM pauses when the disk is full",
        ),
        Some(free) => Check::ok(
            "disk",
            format!("{} GiB free on the disk of {}", free >> 30, home.display()),
        ),
        None => Check::skip("disk", "not known on this system"),
    }
}

async fn memory(service: &Service) -> Check {
    let wanted = service.settings().await.memory;
    match machine::available_memory() {
        Some(free) if free < wanted && service.vm().running().is_none() => Check::warn(
            "memory",
            format!(
                "the VM wants {wanted}, and only {} MiB are available",
                free.as_mib()
            ),
            "longshore settings set memory=SIZE",
        ),
        _ => Check::ok("memory", format!("{wanted} for the VM")),
    }
}

async fn vm_process_checks(service: &Service, checks: &mut Vec<Check>) {
    let Some(mut client) = vm_process::find(service.home()).await else {
        checks.push(Check::fail(
            "vm",
            "longshore-vm does not answer",
            "longshore stop, then longshore start",
        ));
        checks.push(Check::skip("qmp", "longshore-vm does not answer"));
        return;
    };
    checks.push(match client.version().await {
        Ok(v) => Check::ok(
            "vm",
            format!("longshore-vm {} runs, process {}", v.vm, v.pid),
        ),
        Err(e) => Check::fail("vm", e.to_string(), "longshore restart"),
    });
    checks.push(match service.vm().running() {
        Some(vm) => Check::ok(
            "qmp",
            format!("QEMU {} answers, process {}", vm.qemu_version, vm.qemu_pid),
        ),
        None => Check::fail(
            "qmp",
            "QEMU is not running yet",
            "longshore status; longshore logs console",
        ),
    });
}

async fn guest_checks(service: &Service, checks: &mut Vec<Check>) {
    let socket = service.home().channel_socket();
    let hello = match guest::ask(&socket, Request::Hello, PATIENCE).await {
        Ok(Reply::Hello(hello)) => hello,
        Ok(_) => {
            checks.push(Check::fail(
                "channel",
                "an unexpected answer",
                "longshore restart",
            ));
            return;
        }
        Err(e) => {
            checks.push(Check::fail(
                "channel",
                e.to_string(),
                "longshore logs console; longshore restart",
            ));
            for name in ["agent", "supervisor", "daemon"] {
                checks.push(Check::skip(name, "the channel is broken"));
            }
            return;
        }
    };
    let kind = service.vm().running().map_or("?".to_owned(), |r| r.channel);
    checks.push(Check::ok("channel", format!("{kind}: the guest answers")));
    match guest::ask(&socket, Request::Status, PATIENCE).await {
        Ok(Reply::Status(status)) => {
            let about = format!("longshore-agent {} on Linux {}", hello.agent, hello.kernel);
            checks.push(if status.problems.is_empty() {
                Check::ok("agent", about)
            } else {
                Check::fail("agent", status.problems.join("; "), "longshore logs agent")
            });
            for name in ["supervisor", "daemon"] {
                checks.push(guest_service(&status, name));
            }
        }
        Ok(_) => checks.push(Check::fail(
            "agent",
            "an unexpected answer",
            "longshore restart",
        )),
        Err(e) => checks.push(Check::fail("agent", e.to_string(), "longshore logs agent")),
    }
}

fn guest_service(status: &Status, name: &str) -> Check {
    let fix = format!("longshore logs {name}");
    match status.services.iter().find(|s| s.name == name) {
        None => Check::fail(name, "the guest does not know it", fix),
        Some(s) if s.state == ServiceState::Running && s.starts > 1 => {
            let last = s.last_exit.as_deref().unwrap_or("unknown");
            Check::warn(
                name,
                format!("runs, started {} times, ended last with {last}", s.starts),
                fix,
            )
        }
        Some(s) if s.state == ServiceState::Running => Check::ok(
            name,
            format!("runs, process {} in the guest", s.pid.unwrap_or_default()),
        ),
        Some(s) => {
            let last = s.last_exit.as_deref().unwrap_or("it has not run");
            Check::fail(name, format!("does not run: {last}"), fix)
        }
    }
}

async fn docker_socket(service: &Service) -> Check {
    let path = service.home().docker_socket();
    let stream = match longshore_local_socket::connect(&path).await {
        Ok(stream) => stream,
        Err(e) => {
            return Check::fail(
                "docker-socket",
                format!("{}: {e}", path.display()),
                "longshore restart",
            );
        }
    };
    match engine::version(stream, PATIENCE).await {
        Ok(v) => Check::ok(
            "docker-socket",
            format!("engine {} answers, API {}", v.version, v.api_version),
        ),
        Err(e) => Check::fail("docker-socket", e.to_string(), "longshore logs daemon"),
    }
}

/// Asks the guest's name server for a name; that it answers counts, not what.
async fn dns(service: &Service) -> Check {
    let server = GuestConfig::default()
        .network
        .dns
        .first()
        .cloned()
        .unwrap_or_default();
    let command = ["nslookup", "example.com"].map(str::to_owned).to_vec();
    let fix = "look at the host's own name resolution: /etc/resolv.conf, VPN";
    let run = run_in_guest(service, command);
    match tokio::time::timeout(DNS_PATIENCE, run).await {
        Ok(Ok((0, _))) => Check::ok("dns", format!("name server {server} answers in the guest")),
        Ok(Ok((_, text))) if text.contains("NXDOMAIN") || text.contains("No answer") => {
            Check::ok("dns", format!("name server {server} answers in the guest"))
        }
        Ok(Ok((127, _))) => Check::skip("dns", "the guest has no nslookup"),
        Ok(Ok((_, text))) => Check::warn(
            "dns",
            text.lines().last().unwrap_or("no answer").trim().to_owned(),
            fix,
        ),
        Ok(Err(e)) => Check::fail("dns", e, "longshore logs agent"),
        Err(_) => Check::warn("dns", "no name server answers in the guest", fix),
    }
}

async fn run_in_guest(service: &Service, command: Vec<String>) -> Result<(i32, String), String> {
    let socket = service.home().channel_socket();
    let stream = channel::dial(&socket, ports::SHELL)
        .await
        .map_err(|e| e.to_string())?;
    let mut stream = BufReader::new(stream);
    let header = ShellHeader {
        version: VERSION,
        command,
        ..ShellHeader::default()
    };
    line::write_json(&mut stream, &header)
        .await
        .map_err(|e| e.to_string())?;
    Frame::StdinEof
        .write(&mut stream)
        .await
        .map_err(|e| e.to_string())?;
    let mut text = Vec::new();
    loop {
        match Frame::read(&mut stream).await.map_err(|e| e.to_string())? {
            Some(Frame::Stdout(bytes) | Frame::Stderr(bytes)) if text.len() < 64 * 1024 => {
                text.extend_from_slice(&bytes);
            }
            Some(Frame::Exit(code)) => {
                return Ok((code, String::from_utf8_lossy(&text).into_owned()));
            }
            Some(Frame::Error { code, message }) => return Ok((code, message)),
            Some(_) => {}
            None => return Err("the agent closed the shell".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_tells_its_version() {
        let table = [
            (
                "QEMU emulator version 7.2.13 (Debian 1:7.2+dfsg-7)",
                Some((7, 2)),
            ),
            ("QEMU emulator version 10.0.2", Some((10, 0))),
            ("something else", None),
        ];
        for (line, want) in table {
            assert_eq!(version(line), want);
        }
    }

    #[test]
    fn checksums_are_found_in_either_shape() {
        let by_key = serde_json::json!({"files": {"kernel": {"sha256": "aa"}}});
        let by_name = serde_json::json!({"files": [{"name": "initramfs"}, {"name": "kernel", "sha256": "bb"}]});
        assert_eq!(sha256_of(&by_key, "kernel"), Some("aa"));
        assert_eq!(sha256_of(&by_name, "kernel"), Some("bb"));
        assert_eq!(sha256_of(&by_name, "initramfs"), None);
    }
}
