//! QEMU's command line.

use std::path::Path;

use longshore_protocol::config::{
    CHANNEL_PARAMETER, DATA_DISK_SERIAL, ROOT_DISK_SERIAL, SELFTEST_PARAMETER, SERIAL_PORT_NAME,
};

use crate::accelerator::Accelerator;

/// Empty slots for shares that come while the guest runs.
pub const SPARE_PORTS: usize = 8;
/// First slot number; QEMU wants a chassis number for each port.
const FIRST_CHASSIS: usize = 1;

/// What every guest's kernel is told. `loglevel=6` shows its banner, the first sign of life, and little else. The others keep it
/// from work at each boot that nobody asked for: testing its own ciphers, reading certificates for module signatures (the
/// image's modules are stripped of theirs), setting up key derivation, encrypted keys and a jitter source (virtio-rng is
/// there), and starting security modules for which the guest has no policies.
const KERNEL_PARAMETERS: &str = "loglevel=6 panic=-1 cryptomgr.notests=1 lsm=landlock,yama,bpf \
    initcall_blacklist=load_system_certificate_list,crypto_kdf108_init,init_encrypted,jent_mod_init";

/// How CPUs reach their interrupt controllers by registers of their own instead of memory: x2APIC, which Linux uses where
/// interrupts are remapped. Emulation with a thread for each CPU loses accesses to a device's memory at the moment that another
/// CPU lets a device's memory appear or go (a driver starts, a share is attached): QEMU then looks the region up by its number
/// in the map before, in the map after (`iotlb_to_section` of 10.0 and 10.2). What is lost most is the end of a timer's
/// interrupt, and that CPU hears of nothing any more; or QEMU aborts. Devices' own memory is not remapped.
const X2APIC_DEVICE: &str = "intel-iommu,intremap=on,eim=on";
const X2APIC_KERNEL_PARAMETER: &str = "intel_iommu=off";

/// All that a VM's command line depends on.
pub struct Machine<'a> {
    pub accelerator: Accelerator,
    /// Whether this QEMU's emulated CPUs have an x2APIC.
    pub x2apic: bool,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    pub root: &'a Path,
    pub data: &'a Path,
    pub selftest: bool,
    pub channel: ChannelArguments<'a>,
    /// Descriptor of the monitor's socket in QEMU.
    pub monitor_fd: i32,
    pub shares: &'a [ShareArguments<'a>],
}

pub enum ChannelArguments<'a> {
    /// Descriptor of the port's socket in QEMU.
    Serial { fd: i32 },
    /// vhost-user socket of our device; only Linux has it.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    Vsock { socket: &'a Path },
}

pub struct ShareArguments<'a> {
    pub tag: &'a str,
    pub socket: &'a Path,
}

impl Machine<'_> {
    /// Real CPUs lose nothing.
    fn wants_x2apic(&self) -> bool {
        cfg!(target_arch = "x86_64") && self.accelerator == Accelerator::Tcg && self.x2apic
    }
}

/// The whole command line after the program's name.
pub fn build(machine: &Machine<'_>) -> Vec<String> {
    let mut arguments = Arguments::default();
    arguments.base(machine);
    arguments.boot(machine);
    arguments.disks(machine);
    arguments.devices(machine);
    arguments.channel(&machine.channel);
    arguments.ports(machine.shares);
    arguments.0
}

/// A value inside a comma-separated option: commas are doubled (QEMU's `qemu-options`, `-drive file=`).
pub fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn add(&mut self, option: &str, value: impl Into<String>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }

    fn base(&mut self, machine: &Machine<'_>) {
        self.0
            .extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(String::from));
        self.add("-display", "none");
        self.add("-name", "longshore");
        // Legacy devices cost boot time under emulation, and nobody uses them.
        let board = if cfg!(target_arch = "x86_64") {
            "q35,usb=off,vmport=off,smbus=off,sata=off"
        } else {
            "virt"
        };
        let memory = machine.memory_bytes;
        if cfg!(target_os = "linux") {
            // vhost-user devices need memory that they can map.
            self.add("-machine", format!("{board},memory-backend=memory"));
            self.add(
                "-object",
                format!("memory-backend-memfd,id=memory,size={memory},share=on"),
            );
        } else {
            self.add("-machine", board);
        }
        self.0
            .extend(machine.accelerator.arguments().map(String::from));
        self.add("-smp", machine.cpus.to_string());
        if machine.wants_x2apic() {
            self.add("-device", X2APIC_DEVICE);
        }
        self.add("-m", format!("{}M", memory >> 20));
        self.add(
            "-chardev",
            format!("socket,id=monitor,fd={}", machine.monitor_fd),
        );
        self.add("-mon", "chardev=monitor,mode=control");
    }

    fn boot(&mut self, machine: &Machine<'_>) {
        self.add("-kernel", machine.kernel.display().to_string());
        self.add("-initrd", machine.initramfs.display().to_string());
        let channel = match machine.channel {
            ChannelArguments::Serial { .. } => "serial",
            ChannelArguments::Vsock { .. } => "vsock",
        };
        let console = if cfg!(target_arch = "x86_64") {
            "ttyS0"
        } else {
            "ttyAMA0"
        };
        let mut line = format!(
            "console={console} {KERNEL_PARAMETERS} {} {CHANNEL_PARAMETER}={channel}",
            machine.accelerator.kernel_parameters()
        );
        if machine.wants_x2apic() {
            line.push_str(&format!(" {X2APIC_KERNEL_PARAMETER}"));
        }
        if machine.selftest {
            line.push_str(&format!(" {SELFTEST_PARAMETER}=1"));
        }
        self.add("-append", line);
        // QEMU's stdout is a pipe to us.
        self.add("-chardev", "stdio,id=console,signal=off");
        self.add("-serial", "chardev:console");
    }

    fn disks(&mut self, machine: &Machine<'_>) {
        let root = escape(machine.root);
        self.add(
            "-drive",
            format!("if=none,id=root,format=raw,read-only=on,file={root}"),
        );
        self.add(
            "-device",
            format!("virtio-blk-pci,drive=root,serial={ROOT_DISK_SERIAL}"),
        );
        let data = escape(machine.data);
        // A write that fails on a full host disk stops the CPUs instead of reaching the guest's file system.
        self.add(
            "-drive",
            format!(
                "if=none,id=data,format=raw,cache=writeback,discard=unmap,detect-zeroes=unmap,\
                 werror=stop,rerror=stop,file={data}"
            ),
        );
        self.add(
            "-device",
            format!("virtio-blk-pci,id=data-disk,drive=data,serial={DATA_DISK_SERIAL}"),
        );
    }

    fn devices(&mut self, _machine: &Machine<'_>) {
        self.add("-netdev", "user,id=net");
        // The option ROM costs seconds under emulation.
        self.add("-device", "virtio-net-pci,netdev=net,romfile=");
        self.add("-device", "virtio-rng-pci");
        self.add("-device", "virtio-balloon-pci,free-page-reporting=on");
    }

    fn channel(&mut self, channel: &ChannelArguments<'_>) {
        match channel {
            ChannelArguments::Serial { fd } => {
                self.add("-chardev", format!("socket,id=channel,fd={fd}"));
                self.add("-device", "virtio-serial-pci");
                self.add(
                    "-device",
                    format!("virtserialport,chardev=channel,name={SERIAL_PORT_NAME}"),
                );
            }
            ChannelArguments::Vsock { socket } => {
                let socket = escape(socket);
                self.add("-chardev", format!("socket,id=channel,path={socket}"));
                self.add("-device", "vhost-user-vsock-pci,chardev=channel");
            }
        }
    }

    fn ports(&mut self, shares: &[ShareArguments<'_>]) {
        for slot in 0..SPARE_PORTS {
            let chassis = FIRST_CHASSIS + slot;
            self.add(
                "-device",
                format!("pcie-root-port,id=port{slot},chassis={chassis}"),
            );
        }
        for (slot, share) in shares.iter().enumerate() {
            let (tag, socket) = (share.tag, escape(share.socket));
            self.add("-chardev", format!("socket,id=share-{slot},path={socket}"));
            self.add(
                "-device",
                format!("vhost-user-fs-pci,id=share-{slot},bus=port{slot},chardev=share-{slot},tag={tag}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(accelerator: Accelerator, x2apic: bool) -> String {
        let home = ShareArguments {
            tag: "home",
            socket: Path::new("/s"),
        };
        let machine = Machine {
            accelerator,
            x2apic,
            cpus: 3,
            memory_bytes: 512 << 20,
            kernel: Path::new("/k"),
            initramfs: Path::new("/i"),
            root: Path::new("/r"),
            data: Path::new("/a,b/data.img"),
            selftest: true,
            channel: ChannelArguments::Serial { fd: 4 },
            monitor_fd: 3,
            shares: &[home],
        };
        build(&machine).join(" ")
    }

    #[test]
    fn paths_with_commas_and_the_chosen_channel_arrive() {
        let line = line(Accelerator::Tcg, false);
        for part in [
            "file=/a,,b/data.img",
            "-smp 3 -m 512M",
            "longshore.channel=serial longshore.selftest=1",
            "socket,id=channel,fd=4",
            "bus=port0,chardev=share-0,tag=home",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn interrupts_are_remapped_for_emulated_cpus_that_have_an_x2apic() {
        let remapped = |accelerator, x2apic| {
            let line = line(accelerator, x2apic);
            let parts = ["intel-iommu,intremap=on,eim=on", " intel_iommu=off"];
            parts.map(|part| line.contains(part))
        };
        assert_eq!(remapped(Accelerator::Tcg, true), [true; 2]);
        assert_eq!(remapped(Accelerator::Tcg, false), [false; 2], "QEMU 8.1");
        assert_eq!(remapped(Accelerator::Kvm, true), [false; 2]);
    }
}
