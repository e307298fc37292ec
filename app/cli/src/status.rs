//! The state of the instance.

use std::process::ExitCode;

use longshore_host_api::types::{State, Status};
use longshore_host_api::{ApiError, Client, ErrorCode, Home, Size};

/// Exit code when the VM does not run, so that scripts can ask.
const NOT_RUNNING: u8 = 4;

pub async fn show(home: &Home, json: bool) -> Result<ExitCode, ApiError> {
    // Without a service a VM may still run: the service finds it.
    let vm_may_run = home.vm_may_run();
    let client = if vm_may_run {
        Client::new(home.clone())
    } else {
        Client::without_spawn(home.clone())
    };
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) if error.code == ErrorCode::NoService && !vm_may_run => stopped(home),
        Err(error) => return Err(error),
    };
    if json {
        let text =
            serde_json::to_string_pretty(&status).map_err(|e| ApiError::internal(e.to_string()))?;
        println!("{text}");
    } else {
        print(&status);
    }
    Ok(if status.state == State::Running {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_RUNNING)
    })
}

fn stopped(home: &Home) -> Status {
    Status {
        state: State::Stopped,
        detail: None,
        warning: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        home: home.root().to_owned(),
        docker_host: home.docker_host(),
        vm: None,
        shares: Vec::new(),
        ports: Vec::new(),
        host_pid: 0,
    }
}

fn print(status: &Status) {
    let row = |name: &str, text: &str| println!("{name:<12} {text}");
    match &status.detail {
        Some(detail) => row("state", &format!("{}: {detail}", status.state.as_str())),
        None => row("state", status.state.as_str()),
    }
    if let Some(warning) = &status.warning {
        row("warning", warning);
    }
    row("home", &status.home.display().to_string());
    row("docker", &status.docker_host);
    if let Some(vm) = &status.vm {
        row(
            "size",
            &format!(
                "{} CPUs, {} memory, {} disk",
                vm.cpus,
                Size(vm.memory),
                Size(vm.disk)
            ),
        );
        let reason = vm.accelerator_reason.as_deref().unwrap_or_default();
        row(
            "accelerator",
            &format!("{} ({reason})", vm.accelerator.as_deref().unwrap_or("?")),
        );
        row("channel", vm.channel.as_deref().unwrap_or("?"));
        row("qemu", vm.qemu_version.as_deref().unwrap_or("?"));
    }
    for share in &status.shares {
        let mode = if share.read_only { " (read only)" } else { "" };
        let trouble = share
            .error
            .as_ref()
            .map(|e| format!("  not mounted: {e}"))
            .unwrap_or_default();
        row("share", &format!("{}{mode}{trouble}", share.path.display()));
    }
    for port in &status.ports {
        row("port", &format!("{} → {}", port.host, port.guest));
    }
}
