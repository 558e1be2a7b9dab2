//! The control thread: applies configurations, serves the operator's pages, waits for signals and for a successor, and sees to the end.

use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::AbortHandle;
use weir_model::validate::Context;

use crate::admin::{self, Admin};
use crate::app::App;
use crate::listener::sockets::SocketFile;
use crate::observe::log::LogLevel;
use crate::operator::Operator;
use crate::source::file::Loaded;
use crate::source::{Hub, ads, file};
use crate::succession::{Offering, Predecessor, give_back};

/// What a configuration may name: the filters of this binary.
#[must_use]
pub fn context() -> Context {
    Context { builtins: Some(weir_filters::all().iter().map(|builtin| builtin.name.to_owned()).collect()), ..Context::default() }
}

/// What a process is told from outside.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reopen: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let [terminate, interrupt, reopen] = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::user_defined1()].map(signal);
        Ok(Self { terminate: terminate?, interrupt: interrupt?, reopen: reopen? })
    }

    /// Completes when the process shall end. Until then access logs are opened again when that is asked for.
    async fn end(&mut self, app: &App) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.reopen.recv() => app.workers.process.access_logs.reopen(),
            }
        }
    }
}

/// The operator's pages while they are served.
struct Pages {
    /// What a successor calls their socket.
    key: String,
    task: AbortHandle,
    file: Option<SocketFile>,
}

impl Pages {
    /// The successor serves them.
    fn hand_over(mut self) {
        self.task.abort();
        self.file = None;
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            file.remove();
        }
    }
}

/// Runs a process with a configuration that was read, from its start to its end. `handover` is where processes meet that follow one another.
///
/// # Errors
/// When it cannot start, or does not come to take over.
pub async fn control(path: &Path, loaded: Loaded, level: LogLevel, handover: Option<&Path>) -> anyhow::Result<()> {
    let bootstrap = loaded.bootstrap.clone();
    let resources = loaded.resources.clone();
    let pages = bootstrap.admin.clone().unwrap_or_default();
    let predecessor = match handover {
        Some(path) => Predecessor::ask(path).await?,
        None => None,
    };
    let (predecessor, mut inherited) = predecessor.map_or_else(Default::default, |(predecessor, sockets)| (Some(predecessor), sockets));
    let key = admin::socket_key(&pages);
    let admin = Admin::bind(&pages, key.as_ref().and_then(|key| inherited.remove(key)?.pop()))?;
    let (app, applier) = App::start(&bootstrap, inherited)?;
    let app = Arc::new(app);
    let hub = Hub::new(applier, bootstrap.discovery.is_some());
    let operator = Operator::new(Arc::clone(&app), hub.status(), level);
    let mut signals = Signals::new()?;
    tokio::spawn(file::run(Arc::clone(&hub), path.to_owned(), context(), Some(loaded)));
    if let Some(discovery) = &bootstrap.discovery {
        let options = ads::Options::new(discovery, &bootstrap.node.clone().unwrap_or_default(), context());
        tokio::spawn(ads::run(Arc::clone(&hub), options, ads::Grpcs::new(discovery, resources)));
    }
    let relieved = match predecessor {
        None => Ok(()),
        Some(predecessor) => tokio::select! {
            relieved = predecessor.relieve(&app, hub.status(), key.clone()) => relieved,
            () = signals.end(&app) => Err(anyhow::anyhow!("told to end before it took over")),
        },
    };
    // Pages are served until the process ends.
    let pages = match relieved {
        Ok(()) => serve(&app, &operator, &mut signals, admin.zip(key), handover).await,
        Err(error) => {
            give_back(&app);
            Err(error)
        }
    };
    drain(&app, &operator, &mut signals).await;
    pages.map(drop)
}

/// Serves until this process shall end or a successor has taken over.
async fn serve(
    app: &Arc<App>,
    operator: &Arc<Operator>,
    signals: &mut Signals,
    admin: Option<(Admin, String)>,
    handover: Option<&Path>,
) -> anyhow::Result<Option<Pages>> {
    let also = admin.as_ref().map(|(admin, key)| admin.socket().map(|socket| (key.clone(), socket))).transpose()?;
    let mut offering = handover.map(|path| Offering::start(path, Arc::clone(app), also)).transpose()?;
    let mut pages = admin.map(|(mut admin, key)| {
        if let Some(address) = admin.local_addr() {
            tracing::info!(target: "admin", "pages on http://{address}/");
        }
        let file = admin.take_file();
        Pages { key, file, task: tokio::spawn(admin.serve(Arc::clone(operator))).abort_handle() }
    });
    let handed = async {
        match &mut offering {
            Some(offering) => offering.handed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = signals.end(app) => {}
        () = operator.asked_to_drain() => {}
        keys = handed => {
            tracing::info!(target: "app", "a successor has taken over");
            if let Some(pages) = pages.take_if(|pages| keys.contains(&pages.key)) {
                pages.hand_over();
            }
        }
    }
    Ok(pages)
}

/// Ends in order, unless told once more to end.
async fn drain(app: &App, operator: &Operator, signals: &mut Signals) {
    tracing::info!(target: "app", "draining for up to {:?}", app.drain_timeout);
    operator.draining();
    tokio::select! {
        () = app.workers.drain(app.drain_timeout) => {}
        () = signals.end(app) => tracing::warn!(target: "app", "told to end once more: connections are cut"),
    }
    app.workers.stop();
}
