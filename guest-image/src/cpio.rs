//! The initramfs archive: cpio in the "newc" format, all root's, all of time 0.

use crate::deb::{Node, Tree};

const TRAILER: &str = "TRAILER!!!";

/// Packs the tree; parents come before what is in them, because the paths are in order.
pub fn pack(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, (path, node)) in tree.iter().enumerate() {
        let (mode, data): (u32, &[u8]) = match node {
            Node::Folder { mode } => (0o040000 | mode, &[]),
            Node::File { mode, data } => (0o100000 | mode, data),
            Node::Symlink { target } => (0o120777, target.as_bytes()),
        };
        entry(&mut out, number as u32 + 1, mode, path, data);
    }
    entry(&mut out, 0, 0, TRAILER, &[]);
    // A further archive may follow; it must begin at a multiple of four, and 512 is the custom.
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn entry(out: &mut Vec<u8>, inode: u32, mode: u32, path: &str, data: &[u8]) {
    let links = if mode & 0o170000 == 0o040000 { 2 } else { 1 };
    let name_size = path.len() as u32 + 1;
    let fields = [
        inode,
        mode,
        0,
        0,
        links,
        0,
        data.len() as u32,
        0,
        0,
        0,
        0,
        name_size,
        0,
    ];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(data);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_its_parts_where_the_format_says() {
        let tree = Tree::from([
            ("dev".to_owned(), Node::Folder { mode: 0o755 }),
            (
                "init".to_owned(),
                Node::File {
                    mode: 0o755,
                    data: b"hello".to_vec(),
                },
            ),
        ]);
        let bytes = pack(&tree);
        assert_eq!(bytes.len(), 512);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("07070100000001000041ed0000000000000000000000020000000000000000"));
        // 110 bytes of header and "dev\0" are 114, so the next entry begins at 116.
        assert_eq!(&text[116..122], "070701");
        assert!(text.contains("init\0\0hello\0\0\x00070701"));
        assert!(text.contains("TRAILER!!!\0"));
    }
}
