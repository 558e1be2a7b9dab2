//! The module in a layer that is an archive: `plugin.wasm` in a tar, gzipped or not.
//!
//! Always: what is held is bounded while it is read, whatever a header claims; nothing is written to disk, and no name of an entry means anything but itself.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

/// The name that the layouts agree on.
const NAME: &str = "plugin.wasm";
/// Entries that are looked at.
const MOST_ENTRIES: usize = 10_000;

/// Ends with an error where the limit is, so that a bomb costs its limit.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 && !buffer.is_empty() {
            return Err(io::Error::other("it unpacks to more than the limit"));
        }
        let read = self.inner.read(&mut buffer[..room])?;
        self.left -= read as u64;
        Ok(read)
    }
}

/// The module in these bytes. At most `limit` bytes are unpacked.
pub(crate) fn module(layer: &[u8], limit: u64) -> Result<Vec<u8>, String> {
    let reader: Box<dyn Read + '_> = if layer.starts_with(&[0x1f, 0x8b]) { Box::new(MultiGzDecoder::new(layer)) } else { Box::new(layer) };
    let mut archive = tar::Archive::new(Bounded { inner: reader, left: limit });
    let broken = |error: io::Error| format!("its layer is no tar archive that can be read: {error}");
    let (mut other, mut names) = (None, Vec::new());
    for entry in archive.entries().map_err(broken)?.take(MOST_ENTRIES) {
        let mut entry = entry.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let is_it = name == NAME;
        if is_it || name.ends_with(".wasm") {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(broken)?;
            if bytes.len() as u64 != entry.size() {
                return Err(format!("its layer is cut short: {name} should have {} bytes", entry.size()));
            }
            if is_it {
                return Ok(bytes);
            }
            other = Some(bytes);
        }
        names.push(name.escape_debug().to_string().chars().take(80).collect::<String>());
        names.truncate(20);
    }
    let modules = names.iter().filter(|name| name.ends_with(".wasm")).count();
    match other {
        Some(bytes) if modules == 1 => Ok(bytes),
        _ => Err(format!("its layer has no file {NAME}; it has: {}", if names.is_empty() { "nothing".into() } else { names.join(", ") })),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;
    use std::io::Write as _;

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            // As a hostile packer would: without the checks of `append_data`.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn the_module_is_found_in_an_archive() {
        let files: [(&str, &[u8]); 3] = [("runtime-config.json", b"{}"), ("other.wasm", b"other"), ("./plugin.wasm", b"module")];
        assert_eq!(module(&gzip(&tar(&files)), 1 << 20).unwrap(), b"module");
        assert_eq!(module(&tar(&files), 1 << 20).unwrap(), b"module");
        assert_eq!(module(&tar(&[("deep/own.wasm", b"one")]), 1 << 20).unwrap(), b"one");
    }

    #[test]
    fn what_is_not_there_or_too_much_is_said() {
        for (bytes, said) in [
            (tar(&[("a.wasm", b"1"), ("b.wasm", b"2")]), "no file plugin.wasm"),
            (tar(&[("../plugin.wasm/x", b"1")]), "no file plugin.wasm"),
            (tar(&[]), "nothing"),
            (gzip(&vec![0; 4 << 20]), "nothing"),
            (gzip(&tar(&[("plugin.wasm", &vec![7; 4 << 20])])), "more than the limit"),
            (b"not a tar".to_vec(), "no tar archive"),
            (gzip(b"neither")[..12].to_vec(), "no tar archive"),
        ] {
            let why = module(&bytes, 1 << 20).unwrap_err();
            assert!(why.contains(said), "{said}: {why}");
        }
    }

    #[test]
    fn a_header_that_claims_a_huge_size_costs_nothing() {
        let mut bytes = tar(&[("plugin.wasm", b"small")]);
        let mut header = tar::Header::from_byte_slice(&bytes[..512]).clone();
        header.set_size(1 << 60);
        header.set_cksum();
        bytes[..512].copy_from_slice(header.as_bytes());
        assert!(module(&bytes, 1 << 20).is_err());
    }

    #[test]
    fn a_link_is_no_module() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_path("plugin.wasm").unwrap();
        header.set_link_name("/etc/passwd").unwrap();
        header.set_size(0);
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, &b""[..]).unwrap();
        assert!(module(&builder.into_inner().unwrap(), 1 << 20).unwrap_err().contains("no file"));
    }
}
