//! Where modules come from: files, projects, the standard filters, registries.
//!
//! Always: a module of a registry was compared with its digest, and verified where that was asked for, before anybody looks into it.

use std::path::Path;

use weir_oci::{Artifact, Client, Credentials, Options, PublicKey, Reference};

use crate::args::Registry;
use crate::failure::{Done, Failure, io};
use crate::filter::project::Project;
use crate::out::Out;

/// Files that are read are no larger.
const MOST: u64 = weir_wasm::module::LoadLimits::MAX_MODULE_BYTES;

/// Bytes that should be a module.
pub(crate) struct Source {
    /// What it is called in messages.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// What a word on the command line means.
pub(crate) fn load(word: &str, registry: &Registry, out: &Out) -> Done<Source> {
    if let Some(name) = word.strip_prefix("builtin://") {
        let known = || weir_filters::all().iter().map(|filter| filter.name).collect::<Vec<_>>().join(", ");
        let filter = weir_filters::builtin(name)
            .ok_or_else(|| Failure::new(format!("there is no standard filter {name:?}")).help(format!("those are: {}", known())))?;
        return Ok(Source { name: word.to_owned(), bytes: filter.bytes.to_vec() });
    }
    if word.starts_with("oci://") {
        let artifact = fetch(word, registry, out)?;
        return Ok(Source { name: word.to_owned(), bytes: artifact.module.to_vec() });
    }
    if registry.verify.is_some() {
        return Err(Failure::new("--verify is for modules of registries").help("name one: oci://REGISTRY/REPOSITORY[:TAG][@sha256:DIGEST]"));
    }
    file(Path::new(word))
}

/// The same, or a project's folder, which is built.
pub(crate) fn load_or_build(word: &str, registry: &Registry, out: &Out) -> Done<Source> {
    if !Path::new(word).is_dir() {
        return load(word, registry, out);
    }
    let project = Project::at(Path::new(word))?;
    file(&project.build(out)?)
}

pub(crate) fn file(path: &Path) -> Done<Source> {
    use std::io::Read as _;
    if path.is_dir() {
        return Err(
            Failure::new(format!("{} is a folder", path.display())).help("name a .wasm file, builtin://NAME or oci://REGISTRY/REPOSITORY")
        );
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes)).map_err(io(path))?;
    if bytes.len() as u64 > MOST {
        return Err(Failure::new(format!("{} has more than {MOST} bytes", path.display())).help("check that it is a filter"));
    }
    Ok(Source { name: path.display().to_string(), bytes })
}

/// A text, or what is in the file that it names with an `@`.
pub(crate) fn text(word: &str) -> Done<String> {
    match word.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(io(Path::new(path))),
        None => Ok(word.to_owned()),
    }
}

/// Runs what waits for the network.
pub(crate) fn wait<T>(work: impl Future<Output = Done<T>>) -> Done<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("no runtime: {error}")))?;
    let done = runtime.block_on(work);
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    done
}

pub(crate) fn client(registry: &Registry) -> Done<Client> {
    let authorities = registry.ca.as_deref().map(|path| std::fs::read(path).map_err(io(path))).transpose()?;
    let credentials = Credentials::of_this_user();
    Ok(Client::new(Options { insecure: registry.insecure, authorities, credentials, ..Options::default() })?)
}

pub(crate) fn reference(word: &str) -> Done<Reference> {
    word.parse().map_err(|error: weir_oci::BadReference| Failure::new(error))
}

/// Fetches from a registry, and verifies if that is asked for.
pub(crate) fn fetch(word: &str, registry: &Registry, out: &Out) -> Done<Artifact> {
    let reference = reference(word)?;
    let client = client(registry)?;
    let key = registry.verify.as_deref().map(public_key).transpose()?;
    out.progress(&format!("fetching {reference}"));
    wait(async {
        let artifact = client.pull(&reference).await?;
        if let Some(key) = &key {
            client.verify(&reference, artifact.digest, key).await?;
            out.progress("its signature is good");
        }
        Ok(artifact)
    })
}

fn public_key(path: &Path) -> Done<PublicKey> {
    let text = std::fs::read_to_string(path).map_err(io(path))?;
    PublicKey::from_pem(&text).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}
