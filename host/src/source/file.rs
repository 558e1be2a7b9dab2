//! A file, or a folder of files, as a source: read, put together, checked, followed.
//!
//! A folder's `*.yaml`, `*.yml` and `*.json` are read in the order of their names; hidden files are not. Each is a piece of one configuration. Relative
//! paths are taken from the file that says them. The files that resources name (certificates, modules) are followed like the configuration itself.
//!
//! What always holds: a change that is wrong anywhere changes nothing, and is reported whole; what is the same as before keeps its `Arc`.
//!
//! What it does not do: apply at run time what a process has once (workers, limits, addresses of admin and controllers). It says so.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;
use weir_model::config::{Bootstrap, DataSource, data_source, module, secret};
use weir_model::diagnostic::{self, Diagnostic};
use weir_model::resource::version;
use weir_model::validate::{self, Context};
use weir_model::yaml;

use super::digest::Digests;
use super::watch::{Times, Watch, is_configuration};
use super::{Apply, Entry, Hub, Layer, Provenance, Resources, Value};

/// Files of a folder.
const MOST_FILES: usize = 10_000;

/// What was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is not a resource, with absolute paths.
    pub bootstrap: Bootstrap,
    /// The resources, with absolute paths.
    pub resources: Resources,
    /// What is allowed but perhaps not meant.
    pub warnings: Vec<Diagnostic>,
    digests: Digests,
}

/// Why nothing was read: every problem there is.
#[derive(Clone, Debug)]
pub struct Wrong {
    /// What was wrong inside of files.
    pub diagnostics: Vec<Diagnostic>,
    /// What was wrong with the files themselves.
    pub io: Vec<String>,
}

impl Wrong {
    /// All problems as text for people, each with the line that it is about.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let mut text = String::new();
        for problem in &self.io {
            let _ = writeln!(text, "error: {problem}");
        }
        text + &diagnostic::render(&self.diagnostics, color)
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Wrong {}

/// Reads the configuration at `path`, a file or a folder. Blocks.
///
/// # Errors
/// Every problem at once.
pub fn load(path: &Path, context: &Context) -> Result<Loaded, Wrong> {
    let mut wrong = Wrong { diagnostics: Vec::new(), io: Vec::new() };
    let mut texts = Vec::new();
    match files(path) {
        Ok(files) => {
            for file in files {
                match read(&file) {
                    Ok(bytes) => texts.push((file.to_string_lossy().into_owned(), bytes)),
                    Err(error) => wrong.io.push(format!("{}: {error}", file.display())),
                }
            }
        }
        Err(problem) => wrong.io.push(problem),
    }
    let (whole, found) = validate::load(texts.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())), context);
    // What could not be read would give rise to problems that are none.
    if diagnostic::any_error(&found) || !wrong.io.is_empty() {
        wrong.diagnostics = if wrong.io.is_empty() { found } else { Vec::new() };
        return Err(wrong);
    }
    let mut bootstrap = whole.bootstrap;
    let mut values = Vec::new();
    for (name, bytes) in &texts {
        let mut piece = yaml::parse(name, bytes).fragment.bootstrap;
        resolve(&mut piece, Path::new(name));
        if let Some(token) = piece.discovery.take().map(|discovery| discovery.token_file).filter(|token| !token.is_empty())
            && let Some(discovery) = &mut bootstrap.discovery
        {
            discovery.token_file = token;
        }
        let origin: Arc<str> = format!("file {name}").into();
        values.extend(split(piece).map(|value| (value, Arc::clone(&origin))));
    }
    let emptied = Bootstrap { listeners: vec![], filter_chains: vec![], clusters: vec![], endpoints: vec![], secrets: vec![], ..bootstrap };
    let entry = |(value, origin): (Value, _)| Entry { version: version(&value.encode()).into(), origin, value };
    let resources: Resources = values.into_iter().map(entry).collect();
    let named = resources.iter().flat_map(|(_, entry)| entry.value.files().into_iter().map(str::to_owned).collect::<Vec<_>>());
    let digests = Digests::read(named);
    Ok(Loaded { bootstrap: emptied, resources, warnings: found, digests })
}

/// The files that `path` stands for.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let text = |error: std::io::Error| format!("{}: {error}", path.display());
    if !std::fs::metadata(path).map_err(text)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(text)? {
        let file = entry.map_err(text)?.path();
        if is_configuration(&file) && !file.is_dir() {
            files.push(file);
        }
        if files.len() > MOST_FILES {
            return Err(format!("{}: more than {MOST_FILES} files", path.display()));
        }
    }
    files.sort_unstable();
    match files.is_empty() {
        true => Err(format!("{}: no *.yaml, *.yml or *.json in this folder", path.display())),
        false => Ok(files),
    }
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than may be: the reader says that it is too large.
    std::fs::File::open(file)?.take(yaml::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes the paths absolute that `file` gives relative to itself.
fn resolve(bootstrap: &mut Bootstrap, file: &Path) {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    let folder = file.parent().unwrap_or(&file).to_path_buf();
    let absolute = |path: &mut String| {
        if !path.is_empty() && Path::new(path.as_str()).is_relative() {
            *path = folder.join(path.as_str()).to_string_lossy().into_owned();
        }
    };
    for filter in bootstrap.filter_chains.iter_mut().flat_map(|chain| &mut chain.filters) {
        if let Some(module::Source::File(path)) = filter.module.as_mut().and_then(|module| module.source.as_mut()) {
            absolute(path);
        }
    }
    for source in bootstrap.secrets.iter_mut().flat_map(data_sources) {
        if let Some(data_source::Source::File(path)) = &mut source.source {
            absolute(path);
        }
    }
    if let Some(discovery) = &mut bootstrap.discovery {
        absolute(&mut discovery.token_file);
    }
}

fn data_sources(secret: &mut weir_model::config::Secret) -> Vec<&mut DataSource> {
    match &mut secret.kind {
        Some(secret::Kind::KeyPair(pair)) => {
            [&mut pair.certificate_chain, &mut pair.private_key, &mut pair.ocsp].into_iter().flatten().collect()
        }
        Some(secret::Kind::TrustRoots(roots)) => [&mut roots.certificates, &mut roots.revocation_lists].into_iter().flatten().collect(),
        None => Vec::new(),
    }
}

/// The resources of a piece.
fn split(piece: Bootstrap) -> impl Iterator<Item = Value> {
    let listeners = piece.listeners.into_iter().map(|message| Value::Listener(Arc::new(message)));
    let chains = piece.filter_chains.into_iter().map(|message| Value::FilterChain(Arc::new(message)));
    let clusters = piece.clusters.into_iter().map(|message| Value::Cluster(Arc::new(message)));
    let endpoints = piece.endpoints.into_iter().map(|message| Value::Endpoints(Arc::new(message)));
    let secrets = piece.secrets.into_iter().map(|message| Value::Secret(Arc::new(message)));
    listeners.chain(chains).chain(clusters).chain(endpoints).chain(secrets)
}

impl Loaded {
    /// Keeps what is the same as `before`: the message, and every file that it names.
    fn keep(&mut self, before: &Self) {
        let changed = self.digests.differing(&before.digests);
        let mut kept = self.resources.clone();
        for (key, entry) in self.resources.iter() {
            let same = before.resources.get(&key).filter(|old| old.value == entry.value);
            if let Some(old) = same
                && !entry.value.files().iter().any(|path| changed.contains(*path))
            {
                kept.insert(Arc::clone(&key.name), Entry { value: old.value.clone(), ..entry.clone() });
            }
        }
        self.resources = kept;
    }

    fn files(&self) -> Vec<PathBuf> {
        self.resources.iter().flat_map(|(_, entry)| entry.value.files().into_iter().map(PathBuf::from).collect::<Vec<_>>()).collect()
    }
}

/// Offers what is at `path`, then follows it for ever: drop the future to stop. `first` is what the process started with, if it was read already.
/// Runs inside a tokio runtime with time and I/O.
pub async fn run<A: Apply>(hub: Arc<Hub<A>>, path: PathBuf, context: Context, first: Option<Loaded>) {
    let mut source = FileSource { hub, path, context, serving: None, started: None, watch: Watch::new(Times::default(), true) };
    source.follow(first.as_ref());
    if let Some(first) = first {
        source.offer(first).await;
    }
    source.read().await;
    loop {
        source.watch.changed().await;
        source.read().await;
    }
}

struct FileSource<A> {
    hub: Arc<Hub<A>>,
    path: PathBuf,
    context: Context,
    serving: Option<Loaded>,
    /// What the process was started with, apart from resources.
    started: Option<Bootstrap>,
    watch: Watch,
}

impl<A: Apply> FileSource<A> {
    fn follow(&mut self, loaded: Option<&Loaded>) -> bool {
        let named = loaded.map(Loaded::files).unwrap_or_default();
        // Whether it is a file or a folder may change too.
        match self.path.is_dir() {
            true => self.watch.set(named, [self.path.clone()]),
            false => self.watch.set(named.into_iter().chain([self.path.clone()]), []),
        }
    }

    async fn read(&mut self) {
        loop {
            let (path, context) = (self.path.clone(), self.context.clone());
            let loaded = match tokio::task::spawn_blocking(move || load(&path, &context)).await {
                Ok(Ok(loaded)) => loaded,
                Ok(Err(wrong)) => return self.refuse(&wrong),
                Err(_) => return,
            };
            let new = self.follow(Some(&loaded));
            self.offer(loaded).await;
            // What is followed only now may have changed since it was read.
            if !new {
                return;
            }
        }
    }

    fn refuse(&mut self, wrong: &Wrong) {
        let path = self.path.display().to_string();
        tracing::error!(%path, problems = wrong.diagnostics.len() + wrong.io.len(), "the configuration is wrong; the last good one stays\n{wrong}");
        let reasons = wrong.diagnostics.iter().map(ToString::to_string).chain(wrong.io.iter().cloned());
        self.hub.refused(Layer::File, reasons.collect());
    }

    async fn offer(&mut self, mut loaded: Loaded) {
        if let Some(before) = &self.serving {
            loaded.keep(before);
        }
        self.compare_process(&loaded.bootstrap);
        let unchanged = self.serving.as_ref().is_some_and(|before| loaded.resources.changes_since(&before.resources).is_empty());
        if unchanged {
            // A change that was refused may have been taken back.
            self.hub.settled(Layer::File);
            return;
        }
        let notes: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        for note in &notes {
            tracing::warn!("{note}");
        }
        let provenance = Provenance::File(self.path.to_string_lossy().into());
        let outcome = self.hub.offer(Layer::File, loaded.resources.clone(), provenance, notes).await;
        if outcome.is_applied() {
            tracing::info!(path = %self.path.display(), resources = loaded.resources.len(), "the configuration is applied");
            self.serving = Some(loaded);
            return;
        }
        for rejection in &outcome.rejected {
            tracing::error!(resource = %rejection.key, reason = %rejection.reason, "the configuration is refused; the last good one stays");
        }
        self.hub.refused(Layer::File, outcome.rejected.iter().map(ToString::to_string).collect());
    }

    /// Says what takes effect only at the next start.
    fn compare_process(&mut self, now: &Bootstrap) {
        let Some(started) = &self.started else {
            self.started = Some(now.clone());
            return;
        };
        if started.encode_to_vec() != now.encode_to_vec() {
            tracing::warn!(
                "what the process has once (node, admin, workers, limits, discovery, moduleCache, log) takes effect at the next start"
            );
            self.started = Some(now.clone());
        }
    }
}

#[cfg(test)]
mod tests;
