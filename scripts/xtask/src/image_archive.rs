//! Writes a `docker save`-style archive (manifest.json, config, one tar for each layer) from layer
//! tars, so that tests need no image from anywhere. Format: Docker Image Specification v1.2.

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

#[derive(Default)]
struct Options {
    tag: String,
    out: PathBuf,
    command: Vec<String>,
    environment: Vec<String>,
    layers: Vec<PathBuf>,
}

/// Runs `xtask image-archive` with the words after it.
pub fn write(arguments: impl Iterator<Item = String>) -> Result<()> {
    let options = parse(arguments)?;
    let digests = options
        .layers
        .iter()
        .map(|layer| sha256(layer))
        .collect::<Result<Vec<_>>>()?;
    let mut environment = options.environment.clone();
    environment
        .push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    let config = serde_json::to_vec(&json!({
        "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        // Fixed, so that the same layers give the same image.
        "created": "2026-01-01T00:00:00Z",
        "config": {"Cmd": options.command, "Env": environment},
        "rootfs": {"type": "layers", "diff_ids": digests.iter().map(|d| format!("sha256:{d}")).collect::<Vec<_>>()},
        "history": digests.iter().map(|_| json!({"created": "2026-01-01T00:00:00Z", "created_by": "xtask image-archive"})).collect::<Vec<_>>(),
    }))?;
    let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
    let manifest = serde_json::to_vec(&json!([{
        "Config": config_name,
        "RepoTags": [options.tag],
        "Layers": digests.iter().map(|d| format!("{d}/layer.tar")).collect::<Vec<_>>(),
    }]))?;

    let partial = options.out.with_extension("partial");
    let mut archive = tar::Builder::new(File::create(&partial)?);
    append(&mut archive, &config_name, &config)?;
    for (layer, digest) in options.layers.iter().zip(&digests) {
        let mut file = File::open(layer)?;
        let mut header = header(file.metadata()?.len());
        archive.append_data(&mut header, format!("{digest}/layer.tar"), &mut file)?;
    }
    append(&mut archive, "manifest.json", &manifest)?;
    archive.into_inner()?.flush()?;
    std::fs::rename(&partial, &options.out)?;
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    while let Some(word) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .with_context(|| format!("{word} needs a value"))
        };
        match word.as_str() {
            "--tag" => options.tag = value()?,
            "--out" => options.out = value()?.into(),
            "--cmd" => options.command.push(value()?),
            "--env" => options.environment.push(value()?),
            _ if word.starts_with('-') => bail!("unknown flag {word}"),
            _ => options.layers.push(word.into()),
        }
    }
    if options.tag.is_empty() || options.out.as_os_str().is_empty() || options.layers.is_empty() {
        bail!("--tag, --out and at least one layer are needed");
    }
    Ok(options)
}

fn append(archive: &mut tar::Builder<File>, name: &str, content: &[u8]) -> Result<()> {
    archive.append_data(&mut header(content.len() as u64), name, content)?;
    Ok(())
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("layer {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}
