//! Files and folders that change while they are followed.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::source::{Key, Kind, Outcome, Rejection, Update};

const LONG: Duration = Duration::from_secs(20);

struct Consumer(mpsc::UnboundedSender<Update>);

impl Apply for Consumer {
    async fn apply(&mut self, update: Update) -> Outcome {
        let bad = update.resources.clusters().filter(|(cluster, _)| cluster.name.starts_with("bad"));
        let rejected: Vec<_> =
            bad.map(|(cluster, _)| Rejection::new(Key::new(Kind::Cluster, cluster.name.as_str()), "it is bad")).collect();
        if rejected.is_empty() {
            self.0.send(update).unwrap();
        }
        Outcome { rejected }
    }
}

struct Running {
    updates: mpsc::UnboundedReceiver<Update>,
    hub: Arc<Hub<Consumer>>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(path: &Path) -> Self {
        let (sender, updates) = mpsc::unbounded_channel();
        let hub = Hub::new(Consumer(sender), false);
        let task = tokio::spawn(run(Arc::clone(&hub), path.into(), Context::default(), None));
        Self { updates, hub, task }
    }

    async fn update(&mut self) -> Update {
        tokio::time::timeout(LONG, self.updates.recv()).await.expect("no update").unwrap()
    }

    /// The next time that a change is refused: why.
    async fn refusal(&mut self, count: u64) -> Vec<String> {
        let mut status = self.hub.status();
        let refused = tokio::time::timeout(LONG, status.wait_for(|status| status[0].rejected == count)).await.expect("no refusal");
        refused.unwrap()[0].last_error.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn cluster(name: &str, port: u16) -> String {
    format!("clusters:\n- name: {name}\n  endpoints:\n    localities:\n    - endpoints:\n      - address: 127.0.0.1:{port}\n")
}

fn changed(update: &Update) -> Vec<String> {
    update.changed.iter().map(ToString::to_string).collect()
}

fn replace(file: &Path, text: &str) {
    let beside = file.with_extension("tmp");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, file).unwrap();
}

#[test]
fn a_folder_is_one_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("b.yaml", &cluster("second", 1));
    write("a.yml", &format!("workers: 2\n{}", cluster("first", 1)));
    write("c.json", r#"{"secrets": [{"name": "s", "trustRoots": {"certificates": {"file": "deep/roots.pem"}}}]}"#);
    write(".hidden.yaml", "nonsense: [");
    write("notes.txt", "nonsense: [");
    let loaded = load(folder.path(), &Context::default()).unwrap();
    assert_eq!(loaded.bootstrap.workers, 2);
    assert!(loaded.bootstrap.clusters.is_empty());
    let clusters: Vec<_> = loaded.resources.clusters().map(|(cluster, _)| cluster.name.as_str()).collect();
    assert_eq!(clusters, ["first", "second"]);
    let (_, entry) = loaded.resources.secrets().next().unwrap();
    let roots = folder.path().join("deep/roots.pem");
    assert_eq!(entry.value.files(), [roots.to_str().unwrap()]);
    assert!(entry.origin.ends_with("c.json"), "{}", entry.origin);
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.yaml", "clusters:\n- name: a\n  adress: x\n");
    write("b.yaml", "workers: many\n");
    let wrong = load(folder.path(), &Context::default()).unwrap_err();
    let text = wrong.render(false);
    assert!(text.contains("a.yaml:3") && text.contains("b.yaml:1"), "{text}");
    for path in [folder.path().join("gone"), tempfile::tempdir().unwrap().path().to_path_buf()] {
        assert_eq!(load(&path, &Context::default()).unwrap_err().io.len(), 1);
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(load(empty.path(), &Context::default()).unwrap_err().to_string().contains("no *.yaml"));
}

#[tokio::test]
async fn changes_are_applied_and_mistakes_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weir.yaml");
    std::fs::write(&file, cluster("a", 1)).unwrap();
    let mut running = Running::start(&file);
    assert_eq!(changed(&running.update().await), ["Cluster/a"]);
    replace(&file, &(cluster("a", 1) + "- name: b\n  endpoints: {localities: [{endpoints: [{address: '127.0.0.1:2'}]}]}\n"));
    let update = running.update().await;
    assert_eq!(changed(&update), ["Cluster/b"], "what is the same has not changed");
    assert!(update.complete);
    replace(&file, "clusters: [{nam: a}]\n");
    let reasons = running.refusal(1).await;
    assert!(reasons.iter().any(|reason| reason.contains("weir.yaml:1") && reason.contains("nam")), "{reasons:?}");
    replace(&file, &cluster("bad", 1));
    assert_eq!(running.refusal(2).await, ["Cluster/bad: it is bad"]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(running.refusal(3).await.len(), 1);
    replace(&file, &cluster("a", 3));
    let update = running.update().await;
    assert_eq!(changed(&update), ["Cluster/a", "Cluster/b"], "compared with what serves");
    let status = running.hub.status().borrow()[0].clone();
    assert_eq!((status.accepted, status.rejected, status.last_error.len()), (3, 3, 0));
}

#[tokio::test]
async fn a_file_that_is_named_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (file, roots) = (folder.path().join("weir.yaml"), folder.path().join("pki/roots.pem"));
    std::fs::create_dir(folder.path().join("pki")).unwrap();
    std::fs::write(&roots, "1").unwrap();
    let text = cluster("a", 1) + "secrets:\n- name: s\n  trustRoots: {certificates: {file: pki/roots.pem}}\n";
    std::fs::write(&file, text).unwrap();
    let mut running = Running::start(&file);
    assert_eq!(changed(&running.update().await), ["Secret/s", "Cluster/a"]);
    replace(&roots, "2");
    assert_eq!(changed(&running.update().await), ["Secret/s"]);
}
