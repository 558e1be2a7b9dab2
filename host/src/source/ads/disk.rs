//! The last good state of a controller's share, on disk: what a proxy serves when it starts while no controller answers.
//!
//! The file is a line that names the format, the SHA-256 of what follows, then length-delimited messages: who the state is for, and the resources of
//! each kind as the controller would send them. It is written beside its place, synced, and renamed; it holds private keys, so only its owner reads it.
//!
//! What always holds: a file that was cut, changed, written by another format or for another node is an error, never a wrong configuration.
//!
//! What it does not do: decide when.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use weir_model::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource};
use weir_model::protobuf::Any;

use super::super::{Entry, Kind, Resources, Value};

const MAGIC: &[u8] = b"weir last good state, format 1\n";
/// SHA-256.
const CHECK: usize = 32;
/// No state is larger: what is staged is bounded below it.
const LARGEST: u64 = 2 << 30;

/// Why there is no state to be had.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file system.
    #[error("{path}: {cause}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        cause: std::io::Error,
    },
    /// What is there is not a state.
    #[error("{path}: {what}")]
    Corrupt {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// It is another proxy's.
    #[error("{path}: it is the state of node {found:?}, not of {wanted:?}")]
    OtherNode {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> DiskError {
    move |cause| DiskError::Io { path: path.to_path_buf(), cause }
}

/// Where the state lies in `folder`.
#[must_use]
pub fn path(folder: &Path) -> PathBuf {
    folder.join("last-good-state")
}

/// Writes `resources` as the state of `node`, making `folder` if need be. Blocks.
///
/// # Errors
/// When the file system refuses; the state before is as it was.
pub fn save(folder: &Path, node: &str, resources: &Resources) -> Result<(), DiskError> {
    let mut payload = Vec::new();
    let owner = Node { id: node.into(), ..Node::default() };
    encode(&DeltaDiscoveryRequest { node: Some(owner), ..DeltaDiscoveryRequest::default() }, &mut payload);
    for kind in Kind::ALL {
        let resource = |(name, entry): (&std::sync::Arc<str>, &Entry)| Resource {
            version: entry.version.to_string(),
            name: name.to_string(),
            resource: Some(Any { type_url: kind.type_url().into(), value: entry.value.encode() }),
            ..Resource::default()
        };
        let resources = resources.of(kind).iter().map(resource).collect();
        encode(&DeltaDiscoveryResponse { type_url: kind.type_url().into(), resources, ..Default::default() }, &mut payload);
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io(folder))?;
    let (place, beside) = (path(folder), folder.join("last-good-state.tmp"));
    // A leftover may have other permissions.
    let _ = fs::remove_file(&beside);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(io(&beside))?;
    let parts: [&[u8]; 3] = [MAGIC, &Sha256::digest(&payload), &payload];
    parts.into_iter().try_for_each(|part| file.write_all(part)).map_err(io(&beside))?;
    file.sync_all().map_err(io(&beside))?;
    fs::rename(&beside, &place).map_err(io(&place))?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))
}

fn encode(message: &impl prost::Message, to: &mut Vec<u8>) {
    to.extend_from_slice(&message.encode_length_delimited_to_vec());
}

/// Reads the state of `node`, and when it was written; `None` if there is none. Blocks.
///
/// # Errors
/// When it cannot be read, or is not one of this node's.
pub fn load(folder: &Path, node: &str) -> Result<Option<(Resources, SystemTime)>, DiskError> {
    let path = path(folder);
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(io(&path)(cause)),
    };
    let metadata = file.metadata().map_err(io(&path))?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes).map_err(io(&path))?;
    let corrupt = |what| DiskError::Corrupt { path: path.clone(), what };
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| corrupt("not a state of this format"))?;
    let (check, payload) = rest.split_at_checked(CHECK).ok_or_else(|| corrupt("cut short"))?;
    if Sha256::digest(payload)[..] != *check {
        return Err(corrupt("its checksum does not match"));
    }
    let mut left = payload;
    let owner = DeltaDiscoveryRequest::decode_length_delimited(&mut left).map_err(|_| corrupt("no owner"))?;
    let found = owner.node.unwrap_or_default().id;
    if found != node {
        return Err(DiskError::OtherNode { path, found, wanted: node.into() });
    }
    let mut resources = Resources::default();
    while !left.is_empty() {
        let response = DeltaDiscoveryResponse::decode_length_delimited(&mut left).map_err(|_| corrupt("a message that cannot be read"))?;
        let kind = Kind::of_type_url(&response.type_url).ok_or_else(|| corrupt("a type that is not known"))?;
        for resource in response.resources {
            let any = resource.resource.unwrap_or_default();
            let value = Value::decode(kind, &any.value).map_err(|_| corrupt("a resource that cannot be read"))?;
            resources.insert(resource.name.into(), Entry { value, version: resource.version.into(), origin: "disk".into() });
        }
    }
    Ok(Some((resources, metadata.modified().map_err(io(&path))?)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use weir_model::config::{Cluster, Secret};

    use super::*;

    fn some() -> Resources {
        let entry = |value| Entry { value, version: "7".into(), origin: "controller".into() };
        let cluster = Cluster { name: "c".into(), max_requests_per_connection: 9, ..Cluster::default() };
        let secret = Secret { name: "s".into(), ..Secret::default() };
        [entry(Value::Cluster(Arc::new(cluster))), entry(Value::Secret(Arc::new(secret)))].into_iter().collect()
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("deep/state");
        assert!(load(&state, "me").unwrap().is_none());
        for _ in 0..2 {
            save(&state, "me", &some()).unwrap();
        }
        let (loaded, written) = load(&state, "me").unwrap().unwrap();
        assert!(written.elapsed().unwrap().as_secs() < 60);
        assert_eq!(loaded.len(), 2);
        assert_eq!(loaded.cluster("c").unwrap().max_requests_per_connection, 9);
        assert_eq!(&*loaded.of(Kind::Secret)["s"].version, "7");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path(&state)), mode(&state)), (0o600, 0o700));
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn another_nodes_state_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), "me", &some()).unwrap();
        assert!(matches!(load(folder.path(), "you"), Err(DiskError::OtherNode { .. })));
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), "me", &some()).unwrap();
        let whole = fs::read(path(folder.path())).unwrap();
        for at in 0..whole.len() {
            fs::write(path(folder.path()), &whole[..at]).unwrap();
            assert!(load(folder.path(), "me").is_err(), "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(path(folder.path()), flipped).unwrap();
            assert!(load(folder.path(), "me").is_err(), "flipped at {at}");
        }
    }
}
