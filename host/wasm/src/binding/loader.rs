//! Loading off the threads that serve: one thread that compiles, however many bindings wait.
//!
//! Requests are done in order and each is answered exactly once, on the loader's thread. One thread is enough, since the compiler uses every
//! core by itself; a loader that is dropped answers what it has begun and no more.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use bytes::Bytes;

use super::{Binding, BindingConfig, CanaryHost};
use crate::engine::Engine;
use crate::error::LoadError;

/// A binding to load.
pub struct LoadRequest {
    /// What it should be.
    pub config: BindingConfig,
    /// The module's name in messages: a path, a reference, `builtin://deny`.
    pub module: String,
    /// The module: Wasm, or Wasm in gzip or tar.
    pub bytes: Bytes,
    /// The host that the proving instance runs against; without one, a host that answers nothing.
    pub canary: Option<Arc<CanaryHost>>,
}

type Answer = Box<dyn FnOnce(Result<Arc<Binding>, LoadError>) + Send>;

/// A thread that loads bindings.
#[derive(Clone)]
pub struct Loader {
    requests: Sender<(LoadRequest, Answer)>,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Loader")
    }
}

impl Loader {
    /// Starts the thread. It ends when the last clone of the loader is gone.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(engine: &Engine) -> std::io::Result<Self> {
        let (requests, queue) = channel::<(LoadRequest, Answer)>();
        let engine = engine.clone();
        std::thread::Builder::new().name("weir-wasm-load".into()).spawn(move || {
            for (request, answer) in queue {
                let LoadRequest { config, module, bytes, canary } = request;
                answer(Binding::load(&engine, config, &module, &bytes, canary.as_deref()));
            }
        })?;
        Ok(Self { requests })
    }

    /// Loads `request` in its turn and then calls `answer`, on the loader's thread. Whatever was in use stays so until the answer is good.
    pub fn load(&self, request: LoadRequest, answer: impl FnOnce(Result<Arc<Binding>, LoadError>) + Send + 'static) {
        // The thread outlives every sender, and a send can fail only after it.
        let _ = self.requests.send((request, Box::new(answer)));
    }
}
