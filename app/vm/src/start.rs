//! From settings to a guest that runs: what this machine can give, and the accelerator that the guest boots on.

use longshore_protocol::config::Share as GuestShare;

use crate::{
    accelerator::{self, Accelerator, Circumstances, PROBE_LIMIT, Remembered},
    boot::{self, BootError, Guest, Patience, Recipe, TCG_KERNEL_LIMIT},
    config::VmConfig,
    console::Console,
    control::{Failure, Running, Stage},
    disk, image, initramfs, qemu,
    share::Shares,
};

const MIN_MEMORY: u64 = 192 << 20;
const MAX_CPUS: u32 = 255;
/// How often an emulated guest that dies or stalls while it boots is tried: each is one boot in some tens at worst.
const EMULATED_ATTEMPTS: u32 = 3;

/// All stages of a start.
pub async fn start(
    config: &VmConfig,
    console: &Console,
    shares: &mut Shares,
    stage: &(dyn Fn(Stage) + Send + Sync),
) -> Result<(Guest, Running), Failure> {
    stage(Stage::Check);
    let check = |error: &dyn std::fmt::Display| failure(Stage::Check, error);
    let mut warnings = check_resources(config).map_err(|reason| check(&reason))?;
    let qemu = qemu::find(config.qemu.as_deref())
        .await
        .map_err(|error| Failure {
            advice: Some(error.advice().into()),
            ..failure(Stage::Check, &error)
        })?;
    let vm_dir = config.home.join("vm");
    let (dir, cache) = (
        config.guest_image.clone(),
        vm_dir.join("image-checked.json"),
    );
    let image = tokio::task::spawn_blocking(move || image::check(&dir, &cache))
        .await
        .map_err(|error| check(&error))?
        .map_err(|error| Failure {
            advice: Some("build or install the guest image again".into()),
            ..failure(Stage::Check, &error)
        })?;
    let data = config.data_disk();
    let disk_bytes = disk::prepare(&data, config.disk_bytes).map_err(|error| check(&error))?;
    if disk_bytes > config.disk_bytes.next_multiple_of(1 << 20) {
        warnings.push(format!(
            "the data disk stays at {disk_bytes} bytes; it never shrinks"
        ));
    }
    for share in &config.shares {
        shares.add(share).map_err(|error| check(&error))?;
    }
    let initramfs = config.sockets().join("initramfs");
    initramfs::write(&image.initramfs, &guest_config(config), &initramfs)
        .map_err(|error| check(&error))?;
    let recipe = Recipe {
        config,
        qemu: &qemu,
        image: &image,
        initramfs,
        data,
        console,
        shares,
        stage,
    };
    let (guest, reason) = choose(&recipe, &vm_dir.join("accelerator.json")).await?;
    let running = Running {
        accelerator: guest.accelerator.name().into(),
        accelerator_reason: reason,
        channel: guest.channel.name().into(),
        qemu_version: qemu.version.clone(),
        qemu_pid: guest.pid,
        cpus: config.cpus,
        memory_bytes: config.memory_bytes,
        disk_bytes,
        boot: guest.stages.clone(),
        warnings,
    };
    Ok((guest, running))
}

fn failure(stage: Stage, error: impl std::fmt::Display) -> Failure {
    Failure {
        stage: Some(stage),
        reason: error.to_string(),
        advice: None,
        log: Vec::new(),
    }
}

/// What this machine cannot give; what may be short is a warning.
fn check_resources(config: &VmConfig) -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    if config.cpus == 0 || config.cpus > MAX_CPUS {
        return Err(format!(
            "{} CPUs were asked for; 1 to {MAX_CPUS} are possible",
            config.cpus
        ));
    }
    let memory = config.memory_bytes;
    if memory < MIN_MEMORY {
        return Err(format!(
            "{} MiB of memory were asked for; the guest needs at least {} MiB",
            memory >> 20,
            MIN_MEMORY >> 20
        ));
    }
    if let Some((total, available)) = memory_of_this_machine() {
        if memory > total {
            return Err(format!(
                "not enough memory: the VM is to have {} MiB, this machine has {} MiB",
                memory >> 20,
                total >> 20
            ));
        }
        if memory > available {
            warnings.push(format!(
                "the VM may grow to {} MiB, and only {} MiB are available now",
                memory >> 20,
                available >> 20
            ));
        }
    }
    Ok(warnings)
}

/// Total and available bytes, where the platform tells (proc(5), `/proc/meminfo`).
fn memory_of_this_machine() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
            .map(|kib| kib << 10)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}

/// The guest's configuration with the clock and the shares of this start.
fn guest_config(config: &VmConfig) -> longshore_protocol::config::GuestConfig {
    let mut guest = config.guest.clone();
    if guest.shares.is_empty() {
        guest.shares = config
            .shares
            .iter()
            .map(|share| GuestShare {
                tag: share.tag.clone(),
                path: share.path.display().to_string(),
                read_only: share.read_only,
            })
            .collect();
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    guest.host_time_unix_ns = now.map_or(0, |now| now.as_nanos() as u64);
    guest
}

/// Boots on the first accelerator that works, remembers it, and says why it is this one.
async fn choose(recipe: &Recipe<'_>, memory: &std::path::Path) -> Result<(Guest, String), Failure> {
    (recipe.stage)(Stage::Accelerator);
    let circumstances = Circumstances::of_this_machine(&recipe.qemu.version);
    let remembered = accelerator::remembered(memory, &circumstances);
    let plan = accelerator::plan(recipe.config.accelerator, remembered.as_ref());
    let automatic = recipe.config.accelerator == crate::config::AcceleratorChoice::Auto;
    let mut tried = Vec::new();
    let last = plan.candidates.len() - 1;
    for (index, candidate) in plan.candidates.iter().enumerate() {
        let emulated = *candidate == Accelerator::Tcg;
        let mut patience = Patience {
            life: if emulated {
                TCG_KERNEL_LIMIT
            } else {
                PROBE_LIMIT
            },
            stalls: !emulated,
        };
        let mut booted = boot::boot(recipe, *candidate, patience).await;
        // A kernel patches its own code as it starts. Emulation can show another CPU a half-done patch, and the kernel panics
        // (in `sched_clock_cpu`, once in some hundred boots with QEMU 7.2). And without an x2APIC a CPU may lose the end of a
        // timer's interrupt, for which RCU waits for ever (see `arguments::X2APIC_DEVICE`; two of thirty boots on a busy
        // machine). What is on the disk then is what a power cut leaves. On a machine that is merely slow, the last is waited for.
        for attempt in 2..=EMULATED_ATTEMPTS {
            let Err(error @ (BootError::GuestEnded(_) | BootError::Stalled)) = &booted else {
                break;
            };
            if !emulated {
                break;
            }
            tracing::warn!(%error, attempt, "trying once more");
            (recipe.stage)(Stage::Accelerator);
            patience.stalls = attempt == EMULATED_ATTEMPTS;
            booted = boot::boot(recipe, *candidate, patience).await;
        }
        match booted {
            Ok(guest) => {
                let reason = match tried.as_slice() {
                    [] => plan.reason,
                    tried => format!("{}; {} booted", tried.join("; "), candidate.name()),
                };
                let choice = Remembered {
                    circumstances,
                    accelerator: *candidate,
                    reason,
                };
                let news = remembered.is_none_or(|known| known.accelerator != *candidate);
                if automatic
                    && news
                    && let Err(error) = accelerator::remember(memory, &choice)
                {
                    tracing::warn!(%error, "the accelerator's choice is not remembered");
                }
                return Ok((guest, choice.reason));
            }
            Err(error) if index < last => {
                tracing::warn!(accelerator = candidate.name(), %error, "no guest boots on it");
                tried.push(format!("{}: {error}", candidate.name()));
            }
            Err(error) => return Err(boot_failure(recipe, *candidate, &error)),
        }
    }
    Err(failure(Stage::Accelerator, "no accelerator is left to try"))
}

fn boot_failure(recipe: &Recipe<'_>, accelerator: Accelerator, error: &BootError) -> Failure {
    let advice = (accelerator != Accelerator::Tcg).then(|| {
        "try `--accel auto` or `--accel tcg`, which need no hardware virtualisation".into()
    });
    let reason = format!("{error} (accelerator {})", accelerator.name());
    Failure {
        stage: Some(error.stage()),
        reason,
        advice,
        log: last_lines(recipe.console),
    }
}

pub fn last_lines(console: &Console) -> Vec<String> {
    let qemu = console
        .errors
        .get()
        .into_iter()
        .map(|line| format!("qemu: {line}"));
    let guest = console.lines.get();
    let guest = guest[guest.len().saturating_sub(20)..]
        .iter()
        .map(|line| format!("guest: {line}"));
    qemu.chain(guest).collect()
}
