//! `weir filter package`, `push`, `pull` and `keygen`: modules on their way to others.
//!
//! Always: what this host would not run is not packed; a module that is pulled is written whole or not at all; a private key is for this user's eyes only.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use weir_oci::{Key, KeyError};
use weir_wasm::module::check;
use weir_wasm::module::{LoadLimits, facts::ModuleFacts};

use crate::args;
use crate::failure::{Done, Failure, io};
use crate::filter::inspect::{bytes, capabilities, read};
use crate::filter::sections::Sections;
use crate::filter::source::{self, Source};
use crate::out::{Out, Paint};

/// Larger schemas are not repeated in the manifest: registries bound what it may take.
const MOST_SCHEMA: usize = 64 << 10;

fn packed(source: &Source) -> Done<(weir_oci::Package, String)> {
    let not = || {
        Failure::new(format!("{} is no WebAssembly module", source.name)).help(format!("look at it: weir filter inspect {}", source.name))
    };
    let (module, facts) = read(source).ok_or_else(not)?;
    check::check(&facts, LoadLimits::DEFAULT_MEMORY_BYTES).map_err(|fault| {
        Failure::new(format!("{}: {fault}", source.name)).help(format!("{}; weir filter inspect {} says more", fault.help(), source.name))
    })?;
    let sections = Sections::of(&module);
    let fallback = Path::new(&source.name).file_stem().map_or_else(|| "filter".into(), |stem| stem.to_string_lossy().into_owned());
    let name = sections.about("name").unwrap_or(fallback);
    let package = weir_oci::Package::new(module, annotations(&name, &facts, &sections));
    Ok((package.map_err(|error| Failure::new(format!("it cannot be packed: {error}")))?, name))
}

/// What an operator can see without fetching the module.
fn annotations(name: &str, facts: &ModuleFacts, sections: &Sections) -> BTreeMap<String, String> {
    let mut notes = BTreeMap::from([("org.opencontainers.image.title".to_owned(), format!("{name}.wasm"))]);
    let mut note = |key: &str, value: Option<String>| notes.extend(value.map(|value| (key.to_owned(), value)));
    note("org.opencontainers.image.version", sections.about("version"));
    note("dev.weir.filter.abi", facts.abi.map(|abi| abi.to_string()));
    note("dev.weir.filter.capabilities", Some(capabilities(facts).join(", ")));
    let schema = sections.schema.as_ref().map(ToString::to_string);
    note("dev.weir.filter.schema", schema.filter(|schema| schema.len() <= MOST_SCHEMA));
    notes
}

pub(crate) fn package(package: &args::Package, out: &Out) -> Done {
    let source = source::load_or_build(&package.module, &args::Registry::default(), out)?;
    let (packed, name) = packed(&source)?;
    let folder = package.out.clone().unwrap_or_else(|| {
        let base = if Path::new(&package.module).is_dir() { PathBuf::from(&package.module).join("build") } else { PathBuf::new() };
        base.join(format!("{name}.oci"))
    });
    let files = packed.files(&package.tag).map_err(|error| Failure::new(format!("it cannot be packed: {error}")))?;
    // Blobs are named by their content: what lies there already is the same, or nobody's.
    for (path, content) in files {
        let path = folder.join(path);
        whole(&path, &content)?;
    }
    let digest = packed.digest().to_string();
    let value = json!({"folder": folder.display().to_string(), "digest": digest, "tag": package.tag});
    out.value(&value, |out| format!("{}\n  digest {digest}\n", out.paint(Paint::Bold, &folder.display().to_string())));
    Ok(())
}

pub(crate) fn push(push: &args::Push, out: &Out) -> Done {
    let reference = source::reference(&push.reference)?;
    let key = push.sign.as_deref().map(private_key).transpose()?;
    let verify = push.registry.verify.is_some();
    if verify {
        return Err(Failure::new("--verify is for fetching").help("sign what you push with --sign KEY"));
    }
    let source = source::load_or_build(&push.module, &args::Registry::default(), out)?;
    let (packed, _) = packed(&source)?;
    let client = source::client(&push.registry)?;
    out.progress(&format!("pushing to {reference}"));
    let digest = source::wait(async {
        let digest = client.push(&reference, &packed).await?;
        if let Some(key) = &key {
            client.sign(&reference, digest, key).await?;
        }
        Ok(digest)
    })?;
    let pinned = format!("oci://{}", reference.pinned(digest));
    let value = json!({"reference": reference.to_string(), "digest": digest.to_string(), "pinned": pinned, "signed": key.is_some()});
    out.value(&value, |out| {
        let signed = if key.is_some() { "\n  signed" } else { "" };
        format!("{}\n  digest {digest}{signed}\n", out.paint(Paint::Bold, &pinned))
    });
    Ok(())
}

pub(crate) fn pull(pull: &args::Pull, out: &Out) -> Done {
    let reference = source::reference(&pull.reference)?;
    let artifact = source::fetch(&pull.reference, &pull.registry, out)?;
    let named = || PathBuf::from(format!("{}.wasm", reference.repository.rsplit('/').next().unwrap_or("filter")));
    let path = pull.out.clone().unwrap_or_else(named);
    whole(&path, &artifact.module)?;
    let file = path.display().to_string();
    let value = json!({
        "file": file, "size": artifact.module.len(), "digest": artifact.digest.to_string(), "layout": artifact.layout.name(),
        "verified": pull.registry.verify.is_some(), "annotations": artifact.annotations,
    });
    out.value(&value, |out| {
        let verified = if pull.registry.verify.is_some() { "\n  signature good" } else { "" };
        let (size, layout) = (bytes(artifact.module.len() as u64), artifact.layout.name());
        format!("{} ({size}, layout {layout})\n  digest {}{verified}\n", out.paint(Paint::Bold, &file), artifact.digest)
    });
    Ok(())
}

pub(crate) fn keygen(keygen: &args::Keygen, out: &Out) -> Done {
    let with = |extension: &str| PathBuf::from(format!("{}.{extension}", keygen.name.display()));
    let (private, public) = (with("key"), with("pub"));
    let key = Key::generate().map_err(of_key(&private))?;
    let secret = key.to_pem(&password()).map_err(of_key(&private))?;
    let open = key.public().map_err(of_key(&public))?.to_pem();
    // Never over a key that somebody may need.
    create(&private, secret.as_bytes(), 0o600)?;
    create(&public, open.as_bytes(), 0o644)?;
    let encrypted = !password().is_empty();
    let value = json!({"private": private.display().to_string(), "public": public.display().to_string(), "password": encrypted});
    out.value(&value, |_| {
        let note = if encrypted { "" } else { "  its password is empty; set COSIGN_PASSWORD to give it one\n" };
        format!("{}: sign with it, and keep it secret\n{note}{}: for those who verify\n", private.display(), public.display())
    });
    Ok(())
}

fn password() -> Vec<u8> {
    std::env::var_os("COSIGN_PASSWORD").map(std::os::unix::ffi::OsStringExt::into_vec).unwrap_or_default()
}

fn private_key(path: &Path) -> Done<Key> {
    let text = std::fs::read_to_string(path).map_err(io(path))?;
    Key::from_pem(&text, &password()).map_err(of_key(path))
}

fn of_key(path: &Path) -> impl Fn(KeyError) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::new(format!("{path}: {error}"))
}

fn create(path: &Path, content: &[u8], mode: u32) -> Done {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = file.map_err(|error| io(path)(error).help("choose another name"))?;
    file.write_all(content).map_err(io(path))
}

/// Writes a file so that a reader sees all of it or none.
fn whole(path: &Path, content: &[u8]) -> Done {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    let mut file = tempfile::Builder::new().prefix(".weir-").tempfile_in(folder).map_err(io(folder))?;
    file.write_all(content).map_err(io(path))?;
    let permissions = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o644);
    file.as_file().set_permissions(permissions).map_err(io(path))?;
    file.persist(path).map_err(|error| io(path)(error.error))?;
    Ok(())
}
