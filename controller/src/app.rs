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
use weir_model::yaml::document::Way;

use crate::finding::{Code, Finding};
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
            diagnostics.extend(not_carried(object).iter().map(|finding| object.show(finding)));
            good.push(object.clone());
        }
    }
    let shown = diagnostic::render(&diagnostics, std::io::stderr().is_terminal());
    if !shown.is_empty() {
        say(shown.trim_end());
    }
    World::new(&good, mesh(&good, &say))
}

/// Kinds that are judged and that no proxy is told of yet. Who relies on a policy must hear that it does not hold.
const NOT_CARRIED: [&str; 9] = [
    "AuthorizationPolicy",
    "RequestAuthentication",
    "PeerAuthentication",
    "Telemetry",
    "WasmPlugin",
    "TrafficExtension",
    "Sidecar",
    "ProxyConfig",
    "WorkloadGroup",
];

fn not_carried(object: &Object) -> Option<Finding> {
    let known = object.id.group.ends_with(".istio.io") && NOT_CARRIED.contains(&&*object.id.kind);
    let message = || format!("no proxy is told of a {} yet: what it says does not hold", object.id.kind);
    known.then(|| Finding::new(Code::NoEffect, &object.id, Way::ROOT.key("spec"), message()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn a_policy_that_does_not_hold_is_said_aloud_and_what_is_refused_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny-all}\nspec: {}\n";
        let wrong = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: bad}\nspec: {hosts: []}\n";
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: good}\nspec: {ports: [{port: 80}]}\n";
        std::fs::write(folder.path().join("all.yaml"), [policy, wrong, service].join("---\n")).unwrap();
        let said = RefCell::new(String::new());
        let world = world(&crate::source::folder::read(folder.path()).unwrap(), |line| said.borrow_mut().push_str(line));
        let said = said.into_inner();
        assert!(said.contains("deny-all") && said.contains("does not hold"), "{said}");
        assert!(said.contains("VirtualService default/bad"), "{said}");
        assert_eq!((world.virtual_services.len(), world.registry.services().count()), (0, 1));
    }
}
