//! As much of ELF64 (little-endian) as the builder needs: sections, needed libraries, module information.

/// The bytes of a named section.
pub fn section<'a>(file: &'a [u8], name: &str) -> Option<&'a [u8]> {
    sections(file)?
        .into_iter()
        .find(|section| section.name == name)
        .map(|section| section.data)
}

/// `DT_NEEDED` of a dynamic program or library; empty for a static one.
pub fn needed(file: &[u8]) -> Vec<String> {
    let (Some(dynamic), Some(strings)) = (section(file, ".dynamic"), section(file, ".dynstr"))
    else {
        return Vec::new();
    };
    const DT_NEEDED: u64 = 1;
    let words = |entry: &[u8]| Some((u64_at(entry, 0)?, u64_at(entry, 8)? as usize));
    let entries = dynamic.chunks_exact(16).filter_map(words);
    entries
        .filter(|(tag, _)| *tag == DT_NEEDED)
        .filter_map(|(_, at)| text_at(strings, at))
        .collect()
}

/// Values of a key in a kernel module's `.modinfo` section (`key=value`, NUL between them).
pub fn modinfo(module: &[u8], key: &str) -> Vec<String> {
    let info = section(module, ".modinfo").unwrap_or_default();
    let entries = info
        .split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok());
    entries
        .filter_map(|entry| entry.split_once('='))
        .filter(|(found, _)| *found == key)
        .map(|(_, value)| value.into())
        .collect()
}

pub fn is_elf(file: &[u8]) -> bool {
    // Class 2: 64 bits; data 1: little-endian.
    file.starts_with(b"\x7fELF\x02\x01")
}

struct Section<'a> {
    name: String,
    data: &'a [u8],
}

fn sections(file: &[u8]) -> Option<Vec<Section<'_>>> {
    const NOBITS: u32 = 8;
    if !is_elf(file) {
        return None;
    }
    let table = u64_at(file, 0x28)? as usize;
    let (size, count) = (u16_at(file, 0x3a)? as usize, u16_at(file, 0x3c)? as usize);
    let names = u16_at(file, 0x3e)? as usize;
    let header = |index: usize| file.get(table.checked_add(index * size)?..);
    let data = |header: &[u8]| {
        let (offset, length) = (
            u64_at(header, 0x18)? as usize,
            u64_at(header, 0x20)? as usize,
        );
        if u32_at(header, 4)? == NOBITS {
            Some(&file[..0])
        } else {
            file.get(offset..offset.checked_add(length)?)
        }
    };
    let names = data(header(names)?)?;
    (0..count)
        .map(|index| {
            let header = header(index)?;
            Some(Section {
                name: text_at(names, u32_at(header, 0)? as usize)?,
                data: data(header)?,
            })
        })
        .collect()
}

fn text_at(strings: &[u8], at: usize) -> Option<String> {
    let rest = strings.get(at..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    String::from_utf8(rest[..end].to_vec()).ok()
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_is_read() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(is_elf(&file));
        assert!(!section(&file, ".text").unwrap().is_empty());
        assert!(needed(&file).iter().all(|library| library.contains(".so")));
        assert_eq!(section(&file, ".modinfo"), None);
        assert!(sections(&file[..100]).is_none(), "a torn file is refused");
    }
}
