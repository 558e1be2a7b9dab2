//! `weir filter new`: lays down a project whose first test passes.
//!
//! Always: nothing that is there is overwritten; a project is written whole or, on an error, what is there says how far it got.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::args::{New, Template};
use crate::failure::{Done, Failure, io};
use crate::out::{Out, Paint};

include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// Where this command was built, and so where weir-sdk lies if that is still there.
const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Words that would be no crate, or not this one.
const TAKEN: [&str; 14] =
    ["test", "core", "std", "alloc", "proc-macro", "weir", "weir-sdk", "build", "self", "super", "crate", "fn", "type", "deps"];

pub(crate) fn new(new: &New, out: &Out) -> Done {
    check_name(&new.name)?;
    let folder = new.path.clone().unwrap_or_else(|| PathBuf::from(&new.name));
    let occupied = folder.is_file() || std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        return Err(
            Failure::new(format!("{} is there already, and not empty", folder.display())).help("choose another name, or --path DIR")
        );
    }
    let is_rust = matches!(new.template, Template::Rust | Template::RustTcp);
    let sdk = if is_rust { Some(sdk(new.sdk.as_deref())?) } else { None };
    let template = match new.template {
        Template::Rust => "rust",
        Template::RustTcp => "rust-tcp",
        Template::Go => "go",
        Template::Assemblyscript => "assemblyscript",
    };
    let words = Words::new(&new.name, sdk.as_deref());
    let mut written = Vec::new();
    for (_, path, text) in FILES.iter().filter(|(of, ..)| *of == template) {
        let path = folder.join(place(path));
        write(&path, &words.put_into(text))?;
        written.push(path.display().to_string());
    }
    // The versions that the checkout is tested with; cargo drops those that are not needed.
    if let Some(lock) = sdk.as_ref().and_then(|sdk| std::fs::read_to_string(sdk.join("../Cargo.lock")).ok()) {
        write(&folder.join("Cargo.lock"), &lock)?;
    }
    let value = json!({"name": new.name, "template": template, "folder": folder.display().to_string(), "files": written});
    out.value(&value, |out| {
        let note = if is_rust { "\nThe first test compiles the host that it runs in: minutes once, seconds from then on.\n" } else { "" };
        format!(
            "{} in {}\n\nNext:\n  cd {0}\n  weir filter test      its tests pass\n  weir filter run       a proxy with it; save a file, and it is swapped\n{note}",
            folder.display(),
            out.paint(Paint::Bold, template),
        )
    });
    Ok(())
}

fn check_name(name: &str) -> Done {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = name.len() <= 64
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
        && name.bytes().all(plain)
        && !name.ends_with('-')
        && !name.contains("--");
    if !fits {
        return Err(Failure::new(format!("{name:?} is no name for a filter"))
            .help("begin with a letter; use lower-case letters, digits and single `-`"));
    }
    if TAKEN.contains(&name) {
        return Err(Failure::new(format!("{name:?} means something else to the tools")).help(format!("choose another, like {name}-filter")));
    }
    Ok(())
}

/// Where weir-sdk lies.
fn sdk(asked: Option<&Path>) -> Done<PathBuf> {
    let is_sdk = |path: &Path| std::fs::read_to_string(path.join("Cargo.toml")).is_ok_and(|text| text.contains("name = \"weir-sdk\""));
    let help = "weir-sdk is on no registry yet: name the folder `sdk` of a Weir checkout with --sdk DIR";
    let (path, missing) = match asked {
        Some(path) => (path.to_owned(), format!("{} is not weir-sdk", path.display())),
        None => (PathBuf::from(CHECKOUT), "the checkout that this command was built from is not there any more".to_owned()),
    };
    // The checkout's root is meant as well as its sdk.
    let found = [path.clone(), path.join("sdk")].into_iter().find(|path| is_sdk(path));
    let found = found.ok_or_else(|| Failure::new(missing).help(help))?;
    found.canonicalize().map_err(io(&path))
}

/// Where a file of a template goes: `dot-` and `.in` keep the tree's own tools from taking it for theirs.
fn place(path: &str) -> String {
    let path = path.strip_suffix(".in").unwrap_or(path);
    path.split('/')
        .map(|part| part.strip_prefix("dot-").map_or_else(|| part.to_owned(), |rest| format!(".{rest}")))
        .collect::<Vec<_>>()
        .join("/")
}

/// What stands in the template for what is the project's own.
struct Words([(&'static str, String); 5]);

impl Words {
    fn new(name: &str, sdk: Option<&Path>) -> Self {
        let camel = name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        let sdk = sdk.map(|path| path.display().to_string()).unwrap_or_default();
        let target = target().display().to_string();
        Self([
            ("my-filter", name.to_owned()),
            ("my_filter", name.replace('-', "_")),
            ("MyFilter", camel),
            ("@SDK@", sdk),
            ("@TARGET@", target),
        ])
    }

    fn put_into(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
    }
}

/// Where all projects of this user compile: the host that tests run in is the same for all.
fn target() -> PathBuf {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join("weir/target")
}

fn write(path: &Path, text: &str) -> Done {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(io(folder))?;
    }
    std::fs::write(path, text).map_err(io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_everywhere() {
        for name in ["a", "my-filter", "geo2", "a-b-c"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "A", "1a", "a_b", "a--b", "a-", "-a", "../a", "a/b", "test", "a b", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn every_template_is_whole() {
        for template in ["rust", "rust-tcp", "go", "assemblyscript"] {
            let paths: Vec<String> = FILES.iter().filter(|(of, ..)| *of == template).map(|(_, path, _)| place(path)).collect();
            for wanted in ["sample.yaml", "README.md", ".gitignore", ".github/workflows/ci.yml"] {
                assert!(paths.iter().any(|path| path == wanted), "{template} has no {wanted}: {paths:?}");
            }
            assert!(paths.iter().any(|path| path.starts_with("tests/")), "{template} has no tests");
            assert!(paths.iter().all(|path| !path.contains("dot-") && !path.ends_with(".in")));
        }
        let words = Words::new("geo-block", None);
        for (_, path, text) in FILES {
            let text = words.put_into(text);
            assert!(!["my-filter", "my_filter", "MyFilter", "@SDK@", "@TARGET@"].iter().any(|word| text.contains(word)), "{path}");
        }
    }
}
