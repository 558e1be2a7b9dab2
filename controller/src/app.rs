//! The controller at work: follows a folder, and tells proxies what follows from it.
//!
//! Always: what cannot be read is said and takes nothing else down; a folder that cannot be read at all changes nothing that serves.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpListener;
use weir_model::diagnostic;

use crate::finding::Finding;
use crate::object::Object;
use crate::serve::{self, Distribution, Proxies};
use crate::source::folder::Folder;
use crate::source::watch::{Times, Watch};
use crate::translate::World;
use crate::translate::mesh::Mesh;
use crate::validate;

/// Serves what follows from a folder, until it is told to end. `say` is told what people should know.
///
/// # Errors
/// When the folder cannot be read at the start, or the address cannot be served on.
pub async fn run(folder: &Path, listen: SocketAddr, say: impl Fn(&str)) -> std::io::Result<()> {
    let mut watch = Watch::new(folder, Times::default(), true);
    let first = watch.next().await?;
    let distribution = Distribution::new(world(&first, &say));
    let listener = TcpListener::bind(listen).await?;
    let (address, count) = (listener.local_addr()?, first.objects.len());
    say(&format!("{count} objects from {}; discovery on http://{address}", folder.display()));
    let proxies = Arc::new(Proxies::default());
    let served = serve::serve(listener, Arc::clone(&distribution) as _, proxies);
    tokio::pin!(served);
    loop {
        tokio::select! {
            served = &mut served => return served.map_err(std::io::Error::other),
            ended = tokio::signal::ctrl_c() => return ended,
            next = watch.next() => match next {
                Ok(folder) => {
                    let began = Instant::now();
                    let changed = distribution.update(world(&folder, &say));
                    say(&format!("{} objects; {changed} configurations changed, in {:?}", folder.objects.len(), began.elapsed()));
                }
                Err(error) => say(&format!("the folder cannot be read, so nothing changes: {error}")),
            },
        }
    }
}

/// What a folder says, with what is wrong with it said. An object that is refused is left out, and no other with it.
#[must_use]
pub fn world(folder: &Folder, say: impl Fn(&str)) -> World {
    let mut diagnostics = folder.diagnostics.clone();
    let mut good = Vec::with_capacity(folder.objects.len());
    for object in &folder.objects {
        let findings = validate(object);
        diagnostics.extend(findings.iter().map(|finding| object.show(finding)));
        if !findings.iter().any(Finding::is_error) {
            good.push(object.clone());
        }
    }
    let shown = diagnostic::render(&diagnostics, std::io::stderr().is_terminal());
    if !shown.is_empty() {
        say(shown.trim_end());
    }
    World::new(&good, mesh(&good, &say))
}

/// The mesh configuration, where Istio keeps it: in the ConfigMap `istio` of the root namespace.
fn mesh(objects: &[Object], say: &impl Fn(&str)) -> Mesh {
    let is_mesh =
        |object: &&Object| *object.id.kind == *"ConfigMap" && *object.id.name == *"istio" && *object.id.namespace == *"istio-system";
    let text = objects.iter().find(is_mesh).and_then(|object| object.body.get("data")?.get("mesh")?.as_str());
    let Some(text) = text else { return Mesh::default() };
    let read = weir_model::yaml::document::documents("ConfigMap istio-system/istio data.mesh", text.as_bytes());
    let parsed = read.documents.into_iter().next().map(|document| serde_json::from_value(document.value));
    match parsed {
        Some(Ok(mesh)) => mesh,
        None => Mesh::default(),
        Some(Err(error)) => {
            say(&format!("the mesh configuration cannot be read, so its defaults hold: {error}"));
            Mesh::default()
        }
    }
}
