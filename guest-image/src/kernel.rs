//! The kernel as QEMU boots it quickest: Debian's bzImage unpacked to the ELF file inside it.
//!
//! QEMU enters an ELF kernel through its PVH note, so that the guest need not decompress itself, which under emulation costs
//! more than a second. (Without its own decompressor the kernel does not choose a random base address.)

use crate::elf::{u16_at, u32_at, u64_at};

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("the kernel is not a bzImage of boot protocol 2.08 or later")]
    NotABzImage,
    #[error(
        "the kernel's payload is not packed with zstd, gzip's or xz's successor that this builder knows"
    )]
    UnknownPayload,
    #[error("unpack the kernel's payload: {0}")]
    Unpack(#[source] std::io::Error),
    #[error("the kernel's payload is not an ELF file with program headers")]
    NotElf,
    #[error("the kernel has no PVH entry (CONFIG_PVH)")]
    NoPvh,
}

/// The ELF file in a bzImage, cut to what its program headers load.
pub fn vmlinux(bzimage: &[u8]) -> Result<Vec<u8>, KernelError> {
    let elf = unpack(payload(bzimage).ok_or(KernelError::NotABzImage)?)?;
    if !crate::elf::is_elf(&elf) {
        return Err(KernelError::NotElf);
    }
    let notes = crate::elf::section(&elf, ".notes").unwrap_or_default();
    if !has_pvh_note(notes) {
        return Err(KernelError::NoPvh);
    }
    cut(elf).ok_or(KernelError::NotElf)
}

/// Documentation/arch/x86/boot.rst: setup_sects, magic, version, payload_offset, payload_length.
fn payload(image: &[u8]) -> Option<&[u8]> {
    if image.get(0x202..0x206)? != b"HdrS" || u16_at(image, 0x206)? < 0x208 {
        return None;
    }
    let setup = match *image.get(0x1f1)? {
        0 => 4,
        sectors => sectors as usize,
    };
    let start = (setup + 1) * 512 + u32_at(image, 0x248)? as usize;
    image.get(start..start + u32_at(image, 0x24c)? as usize)
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>, KernelError> {
    if !payload.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Err(KernelError::UnknownPayload);
    }
    // The unpacked size follows the frame, in four bytes.
    let frame = &payload[..payload.len() - 4];
    zstd::decode_all(frame).map_err(KernelError::Unpack)
}

/// The note "Xen" of type 18, XEN_ELFNOTE_PHYS32_ENTRY.
fn has_pvh_note(mut notes: &[u8]) -> bool {
    let step = |notes: &[u8]| -> Option<(bool, usize)> {
        let (name, data, kind) = (u32_at(notes, 0)?, u32_at(notes, 4)?, u32_at(notes, 8)?);
        let size = 12 + name.next_multiple_of(4) as usize + data.next_multiple_of(4) as usize;
        Some((kind == 18 && notes.get(12..15) == Some(b"Xen"), size))
    };
    while let Some((found, size)) = step(notes) {
        if found {
            return true;
        }
        notes = notes.get(size..).unwrap_or_default();
    }
    false
}

/// Drops what nothing loads: sections, the relocations behind them, and zeros at the end of a segment.
fn cut(mut elf: Vec<u8>) -> Option<Vec<u8>> {
    const FILE_SIZE: usize = 0x20;
    let (table, size) = (u64_at(&elf, 0x20)? as usize, u16_at(&elf, 0x36)? as usize);
    let mut end = 0;
    for index in 0..u16_at(&elf, 0x38)? as usize {
        let header = table + index * size;
        let (offset, length) = (
            u64_at(&elf, header + 8)? as usize,
            u64_at(&elf, header + FILE_SIZE)? as usize,
        );
        let data = elf.get(offset..offset + length)?;
        // What a segment has in memory beyond its file is zero anyway.
        let used = data
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1)
            .next_multiple_of(4096);
        let used = used.min(length);
        elf[header + FILE_SIZE..header + FILE_SIZE + 8]
            .copy_from_slice(&(used as u64).to_le_bytes());
        end = end.max(offset + used);
    }
    elf.truncate(end);
    // No section table any more: e_shoff, e_shnum, e_shstrndx.
    elf[0x28..0x30].fill(0);
    elf[0x3c..0x40].fill(0);
    Some(elf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_kernel_is_refused() {
        for bytes in [&b""[..], &[0; 0x300]] {
            assert!(matches!(vmlinux(bytes), Err(KernelError::NotABzImage)));
        }
    }

    #[test]
    fn the_pvh_note_is_found_behind_others() {
        let note = |kind: u8, name: &[u8; 4]| {
            [
                &[4, 0, 0, 0, 2, 0, 0, 0, kind, 0, 0, 0][..],
                name,
                &[1, 2, 0, 0],
            ]
            .concat()
        };
        let others = [note(6, b"Xen\0"), note(18, b"GNU\0")].concat();
        assert!(!has_pvh_note(&others));
        assert!(has_pvh_note(&[others, note(18, b"Xen\0")].concat()));
    }
}
