//! What are these bytes, and where in them is the WebAssembly module?
//!
//! [`Format::of`] looks at magic numbers only; [`unpack`] takes gzip and tar wrappers off (an OCI
//! layer, a downloaded `.wasm.gz`) until a core module is left, or says what it found instead.
//!
//! What always holds: no stage of unpacking holds more bytes than the limit, because the limit is
//! enforced while reading: a decompression bomb costs its limit, not its size. A path inside an
//! archive is only compared and shown; nothing is ever written to disk under it.
//!
//! What it deliberately does not do: it parses no WebAssembly and guesses no meaning; a module that
//! is not a Proxy-Wasm one is [`super::check`]'s to explain.

use std::borrow::Cow;
use std::fmt;
use std::io::Read;

use flate2::bufread::MultiGzDecoder;

use crate::error::{Bare, LoadFault};

/// How many wrappers are taken off: gzip around tar around gzip is the deepest that is packed on purpose.
const MAX_DEPTH: usize = 3;

/// How many names of an archive an error lists.
const LISTED: usize = 16;

/// What a sequence of bytes is, by its magic number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Format {
    /// A core WebAssembly module: what this host runs.
    Module,
    /// A component-model binary.
    Component,
    /// A WebAssembly binary of an unknown version.
    OtherWasm,
    /// WebAssembly text.
    Wat,
    /// A gzip stream.
    Gzip,
    /// A tar archive.
    Tar,
    /// A zstd stream.
    Zstd,
    /// A zip archive.
    Zip,
    /// An ELF file: a Linux library or program, or code that wasmtime compiled ahead of time.
    Elf,
    /// A macOS library or program.
    MachO,
    /// A Windows library or program.
    Pe,
    /// An HTML page.
    Html,
    /// An XML document.
    Xml,
    /// A JSON document.
    Json,
    /// Nothing at all.
    Empty,
    /// None of the above.
    Unknown,
}

impl Format {
    /// The format of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        match bytes {
            [] => Self::Empty,
            [0, b'a', b's', b'm', version @ ..] => wasm(version),
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Self::Zip,
            [0x7f, b'E', b'L', b'F', ..] => Self::Elf,
            [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..]
            | [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..]
            | [0xca, 0xfe, 0xba, 0xbe, ..] => Self::MachO,
            _ if bytes.get(257..262) == Some(b"ustar") => Self::Tar,
            [b'M', b'Z', ..] => Self::Pe,
            _ => text(bytes),
        }
    }

    /// What to do when these bytes were meant to be a filter.
    pub(crate) fn help(self) -> &'static str {
        match self {
            Self::Component => {
                "components are not supported yet: build a core module (wasm32-wasip1 or wasm32-unknown-unknown)"
            }
            Self::OtherWasm => "rebuild it with a toolchain that writes WebAssembly version 1",
            Self::Wat => "assemble it first: `wasm-tools parse filter.wat -o filter.wasm`",
            Self::Zstd | Self::Zip => {
                "unpack it, or pack it as gzip or tar: those are unpacked here"
            }
            Self::Elf | Self::MachO | Self::Pe => {
                "build the filter for wasm32; native code is never loaded"
            }
            Self::Html | Self::Xml | Self::Json => {
                "the server answered with a document, probably an error page: open the URL and check path and credentials"
            }
            Self::Empty => {
                "check where the file came from: the download or the mount brought nothing"
            }
            Self::Gzip | Self::Tar | Self::Module | Self::Unknown => {
                "check that the path or URL names a compiled .wasm file"
            }
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Module => "WebAssembly module",
            Self::Component => {
                "a WebAssembly component (component model), which is another binary format"
            }
            Self::OtherWasm => "a WebAssembly binary of an unknown version",
            Self::Wat => "WebAssembly text, not yet assembled",
            Self::Gzip => "gzip stream",
            Self::Tar => "tar archive",
            Self::Zstd => "a zstd stream",
            Self::Zip => "a zip archive",
            Self::Elf => "a native Linux binary (ELF)",
            Self::MachO => "a native macOS binary (Mach-O)",
            Self::Pe => "a native Windows binary (PE)",
            Self::Html => "an HTML page",
            Self::Xml => "an XML document",
            Self::Json => "a JSON document",
            Self::Empty => "empty",
            Self::Unknown => "bytes of an unknown format",
        })
    }
}

/// After `\0asm`: a version and a layer, two bytes each; layer 1 is the component model.
fn wasm(version: &[u8]) -> Format {
    match version {
        [1, 0, 0, 0, ..] => Format::Module,
        [_, _, 1, 0, ..] => Format::Component,
        // Cut inside the header: the parser has the better message.
        [] | [_] | [_, _] | [_, _, _] => Format::Module,
        _ => Format::OtherWasm,
    }
}

fn text(bytes: &[u8]) -> Format {
    let bytes = bytes
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(bytes)
        .trim_ascii_start();
    let starts = |word: &[u8]| {
        (bytes.get(..word.len())).is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    match bytes {
        _ if starts(b"<!doctype html") || starts(b"<html") => Format::Html,
        [b'<', ..] => Format::Xml,
        [b'{' | b'[', ..] => Format::Json,
        _ if starts(b"(module") || starts(b"(component") || starts(b"(;") || starts(b";;") => {
            Format::Wat
        }
        _ => Format::Unknown,
    }
}

/// The core module inside `bytes`, with no stage of unpacking above `limit` bytes.
///
/// # Errors
/// When the bytes are no module, are damaged, or are above the limit.
pub fn unpack(bytes: &[u8], limit: u64) -> Result<Cow<'_, [u8]>, LoadFault> {
    if bytes.len() as u64 > limit {
        return Err(LoadFault::TooLarge {
            what: "the file",
            limit,
        });
    }
    let mut bytes = Cow::Borrowed(bytes);
    for _ in 0..=MAX_DEPTH {
        bytes = match Format::of(&bytes) {
            Format::Module => return Ok(bytes),
            Format::Gzip => gunzip(&bytes, limit)?.into(),
            Format::Tar => untar(&bytes, limit)?.into(),
            found => return Err(LoadFault::NotAModule { found }),
        };
    }
    Err(LoadFault::NestedTooDeep { limit: MAX_DEPTH })
}

/// All of `reader`, refused as soon as it gives more than `limit` bytes.
fn read_bounded(
    reader: impl Read,
    limit: u64,
    container: Format,
    what: &'static str,
) -> Result<Vec<u8>, LoadFault> {
    let mut out = Vec::new();
    (reader.take(limit.saturating_add(1)).read_to_end(&mut out))
        .map_err(|error| damaged(container, &error))?;
    match out.len() as u64 > limit {
        true => Err(LoadFault::TooLarge { what, limit }),
        false => Ok(out),
    }
}

fn damaged(container: Format, error: &std::io::Error) -> LoadFault {
    LoadFault::Container {
        container,
        cause: error.to_string(),
    }
}

fn gunzip(bytes: &[u8], limit: u64) -> Result<Vec<u8>, LoadFault> {
    read_bounded(
        MultiGzDecoder::new(bytes),
        limit,
        Format::Gzip,
        "the decompressed file",
    )
}

/// `plugin.wasm` at the archive's root, else its only `*.wasm`.
fn untar(bytes: &[u8], limit: u64) -> Result<Vec<u8>, LoadFault> {
    let broken = |error: std::io::Error| damaged(Format::Tar, &error);
    let mut archive = tar::Archive::new(bytes);
    let (mut only, mut modules, mut names) = (None, 0, Vec::new());
    for entry in archive.entries().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        // Links and devices have no bytes of their own.
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse()) {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if names.len() < LISTED {
            names.push(Bare(&name).to_string());
        }
        let root = name.trim_start_matches("./").trim_start_matches('/');
        let module =
            root.len() >= 5 && root.as_bytes()[root.len() - 5..].eq_ignore_ascii_case(b".wasm");
        if root == "plugin.wasm" {
            return read_bounded(entry, limit, Format::Tar, "plugin.wasm in the archive");
        }
        if module {
            modules += 1;
            // A second candidate settles that none will be taken: its bytes are not worth reading.
            only = match modules {
                1 => Some(read_bounded(
                    entry,
                    limit,
                    Format::Tar,
                    "the module in the archive",
                )?),
                _ => None,
            };
        }
    }
    only.ok_or(LoadFault::NoModuleInArchive { modules, names })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const LIMIT: u64 = 1 << 20;
    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            // Set by hand: the builder refuses `..`, an attacker does not.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        let cases: [(&[u8], Format); 21] = [
            (b"", Format::Empty),
            (MODULE, Format::Module),
            (b"\0asm\x01", Format::Module),
            (b"\0asm\x0d\0\x01\0", Format::Component),
            (b"\0asm\x02\0\0\0", Format::OtherWasm),
            (b"\x1f\x8b\x08", Format::Gzip),
            (b"\x28\xb5\x2f\xfd", Format::Zstd),
            (b"PK\x03\x04", Format::Zip),
            (b"\x7fELF", Format::Elf),
            (b"\xcf\xfa\xed\xfe", Format::MachO),
            (b"MZ\x90", Format::Pe),
            (b"<!DOCTYPE HTML><p>404", Format::Html),
            (b"\n <html>", Format::Html),
            (b"<?xml version='1.0'?><Error/>", Format::Xml),
            (b"\xef\xbb\xbf{\"errors\":[]}", Format::Json),
            (b"[1]", Format::Json),
            (b"  (module)", Format::Wat),
            (b";; filter\n(module)", Format::Wat),
            (b"(; filter ;)(module)", Format::Wat),
            (b"hello", Format::Unknown),
            (b"\0\0\0\0", Format::Unknown),
        ];
        for (bytes, format) in cases {
            assert_eq!(Format::of(bytes), format, "{bytes:?}");
        }
        assert_eq!(Format::of(&tar_of(&[("a", b"")])), Format::Tar);
    }

    #[test]
    fn wrappers_come_off() {
        let tar = tar_of(&[
            ("README", b"x"),
            ("./plugin.wasm", MODULE),
            ("other.wasm", b"no"),
        ]);
        for packed in [
            MODULE.to_vec(),
            gzip(MODULE),
            tar.clone(),
            gzip(&tar),
            gzip(&tar_of(&[("a/FILTER.WASM", &gzip(MODULE))])),
        ] {
            assert_eq!(*unpack(&packed, LIMIT).unwrap(), *MODULE);
        }
        assert!(
            matches!(unpack(MODULE, LIMIT), Ok(Cow::Borrowed(_))),
            "a plain module is not copied"
        );
    }

    #[test]
    fn an_archive_without_one_clear_module_lists_its_files() {
        let none =
            unpack(&tar_of(&[("../../etc/passwd", b"x"), ("a\nb", b"")]), LIMIT).unwrap_err();
        assert_eq!(
            none.to_string(),
            "the tar archive holds no .wasm file (its files: ../../etc/passwd, a\\nb)"
        );
        let two = unpack(&tar_of(&[("a.wasm", MODULE), ("b.wasm", MODULE)]), LIMIT).unwrap_err();
        assert_eq!(
            two.to_string(),
            "the tar archive holds 2 .wasm files and none is plugin.wasm (its files: a.wasm, b.wasm)"
        );
    }

    #[test]
    fn bombs_are_refused_while_reading() {
        let zeros = vec![0; 8 << 20];
        let bomb = gzip(&zeros);
        assert!(bomb.len() < 64 << 10);
        assert_eq!(
            unpack(&bomb, LIMIT).unwrap_err(),
            LoadFault::TooLarge {
                what: "the decompressed file",
                limit: LIMIT
            }
        );
        assert!(matches!(
            unpack(&tar_of(&[("plugin.wasm", &zeros)]), 9 << 20),
            Err(LoadFault::NotAModule {
                found: Format::Unknown
            })
        ));
        assert!(matches!(
            unpack(MODULE, 7),
            Err(LoadFault::TooLarge {
                what: "the file",
                ..
            })
        ));
    }

    #[test]
    fn a_sparse_entry_cannot_grow_past_the_limit() {
        // GNU sparse: no stored bytes, a real size of 1 GiB of holes.
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..11].copy_from_slice(b"plugin.wasm");
        header.set_entry_type(tar::EntryType::GNUSparse);
        header.set_size(0);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.sparse[0].offset.copy_from_slice(b"10000000000\0");
        gnu.sparse[0].numbytes.copy_from_slice(b"00000000000\0");
        gnu.realsize.copy_from_slice(b"10000000000\0");
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend([0; 1024]);
        assert_eq!(
            unpack(&bytes, LIMIT).unwrap_err(),
            LoadFault::TooLarge {
                what: "plugin.wasm in the archive",
                limit: LIMIT
            }
        );
    }

    #[test]
    fn depth_is_bounded() {
        let deep = (0..4).fold(MODULE.to_vec(), |bytes, _| gzip(&bytes));
        assert_eq!(
            unpack(&deep, LIMIT).unwrap_err(),
            LoadFault::NestedTooDeep { limit: 3 }
        );
        let fine = (0..3).fold(MODULE.to_vec(), |bytes, _| gzip(&bytes));
        assert_eq!(*unpack(&fine, LIMIT).unwrap(), *MODULE);
    }

    #[test]
    fn damage_is_named() {
        let mut packed = gzip(MODULE);
        packed.truncate(packed.len() - 5);
        assert!(matches!(
            unpack(&packed, LIMIT),
            Err(LoadFault::Container {
                container: Format::Gzip,
                ..
            })
        ));
        let mut tar = tar_of(&[("plugin.wasm", MODULE)]);
        tar[0] ^= 1;
        assert!(matches!(
            unpack(&tar, LIMIT),
            Err(LoadFault::Container {
                container: Format::Tar,
                ..
            })
        ));
    }
}
