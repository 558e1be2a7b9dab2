//! Embeds the templates of `weir filter new`: every file below `sdk/templates`, so that the binary needs no other file to lay one down.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() -> std::io::Result<()> {
    let templates = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../templates").canonicalize()?;
    println!("cargo::rerun-if-changed={}", templates.display());
    let mut files = Vec::new();
    list(&templates, &mut files)?;
    files.sort();
    let mut text = String::from("/// Template, path in it, text.\nstatic FILES: &[(&str, &str, &str)] = &[\n");
    for file in files {
        let below = file.strip_prefix(&templates).unwrap_or(&file).to_string_lossy().into_owned();
        let (template, path) = below.split_once('/').unwrap_or((&below, ""));
        let _ = writeln!(text, "    ({template:?}, {path:?}, include_str!({:?})),", file.to_string_lossy());
    }
    text.push_str("];\n");
    std::fs::write(Path::new(&std::env::var("OUT_DIR").unwrap_or_default()).join("templates.rs"), text)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        println!("cargo::rerun-if-changed={}", path.display());
        match path.is_dir() {
            true => list(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}
