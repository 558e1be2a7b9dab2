//! A folder of YAML, or one file: what `kubectl apply -R -f` would send.
//!
//! Any mix of kinds, several documents to a file, lists, CRLF and byte order marks. Files are read in the order of their names; an object that stands
//! twice is reported, and the first counts. Names that begin with a dot are not looked at, which is also how ConfigMap volumes keep their old versions.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use weir_model::diagnostic::Diagnostic;
use weir_model::yaml::document::{Way, documents};

use crate::finding::{Code, Finding};
use crate::object::{Id, Object};

/// What a folder holds.
#[derive(Debug, Default)]
pub struct Folder {
    /// Its objects, in the order of files and documents.
    pub objects: Vec<Object>,
    /// What was wrong on the way to them.
    pub diagnostics: Vec<Diagnostic>,
    /// Every file that was read.
    pub files: Vec<PathBuf>,
}

/// How deep folders are looked into.
const MAX_DEPTH: usize = 16;
/// How many files are read.
const MAX_FILES: usize = 10_000;

/// Reads a folder with those inside it, or one file.
///
/// # Errors
/// When it cannot be read at all.
pub fn read(path: &Path) -> std::io::Result<Folder> {
    read_and_hash(path, &mut std::hash::DefaultHasher::new())
}

/// The same; names and contents of the files go into the hash.
pub(super) fn read_and_hash(path: &Path, hasher: &mut impl Hasher) -> std::io::Result<Folder> {
    let mut folder = Folder::default();
    for file in find(path)?.files {
        let bytes = std::fs::read(&file)?;
        (&file, &bytes).hash(hasher);
        add(&mut folder, &file.to_string_lossy(), &bytes);
        folder.files.push(file);
    }
    refuse_twins(&mut folder);
    Ok(folder)
}

/// What lies where objects are looked for.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Files of objects, in the order in which they are read.
    pub(super) files: Vec<PathBuf>,
    /// Folders that were looked into.
    pub(super) folders: Vec<PathBuf>,
    /// Those of both that are symbolic links.
    pub(super) links: Vec<PathBuf>,
    /// A folder that links lead to in many ways is looked into once.
    seen: BTreeSet<(u64, u64)>,
}

pub(super) fn find(path: &Path) -> std::io::Result<Found> {
    let mut found = Found::default();
    if path.is_dir() {
        found.look_into(path, MAX_DEPTH)?;
        found.files.sort();
    } else {
        found.files.push(path.to_owned());
    }
    Ok(found)
}

/// Whether a file is read: `*.yaml`, `*.yml` or `*.json`, and not hidden.
pub(super) fn is_configuration(name: &str) -> bool {
    !name.starts_with('.') && [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end))
}

impl Found {
    fn look_into(&mut self, folder: &Path, depth: usize) -> std::io::Result<()> {
        let metadata = std::fs::metadata(folder)?;
        if !self.seen.insert((metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        self.folders.push(folder.to_owned());
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || self.files.len() >= MAX_FILES {
                continue;
            }
            let is_link = entry.file_type()?.is_symlink();
            if path.is_dir() {
                if depth > 0 {
                    self.links.extend(is_link.then(|| path.clone()));
                    self.look_into(&path, depth - 1)?;
                }
            } else if is_configuration(&name) {
                self.links.extend(is_link.then(|| path.clone()));
                self.files.push(path);
            }
        }
        Ok(())
    }
}

/// Adds what one file says.
fn add(folder: &mut Folder, name: &str, bytes: &[u8]) {
    let mut read = documents(name, bytes);
    folder.diagnostics.append(&mut read.diagnostics);
    for document in read.documents {
        let (mut objects, mut diagnostics) = Object::of_document(document);
        folder.objects.append(&mut objects);
        folder.diagnostics.append(&mut diagnostics);
    }
}

fn refuse_twins(folder: &mut Folder) {
    let mut seen: BTreeMap<Id, String> = BTreeMap::new();
    let diagnostics = &mut folder.diagnostics;
    folder.objects.retain(|object| {
        let place = object.place(&Way::ROOT).map(|place| place.to_string()).unwrap_or_default();
        match seen.get(&object.id) {
            None => {
                seen.insert(object.id.clone(), place);
                true
            }
            Some(first) => {
                let way = Way::ROOT.key("metadata").key("name");
                let finding = Finding::new(Code::Duplicate, &object.id, way, format!("there is one of this name at {first}, which counts"));
                diagnostics.push(object.show(&finding));
                false
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_and_what_is_wrong_takes_nothing_down() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let service = "kind: Service\r\napiVersion: v1\r\nmetadata: {name: a}\r\n";
        write("b/services.yaml", &format!("\u{feff}{service}---\r\n{service}"));
        write("a.yml", "kind: [\n");
        write("c.json", r#"{"kind": "Service", "apiVersion": "v1", "metadata": {"name": "c"}}"#);
        write(".hidden/d.yaml", service);
        write("notes.txt", "kind: Service");
        let read = read(folder.path()).unwrap();
        let names: Vec<_> = read.objects.iter().map(|object| object.id.to_string()).collect();
        assert_eq!(names, ["Service default/a", "Service default/c"]);
        let said: Vec<_> = read.diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "{said:#?}");
        assert!(said[0].contains("a.yml") && said[1].contains("services.yaml:7") && said[1].contains("services.yaml:1"), "{said:#?}");
        assert_eq!(read.files.len(), 3);
    }
}
