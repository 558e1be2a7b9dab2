//! What every connected proxy is to have, kept up to date: one view for all proxies that are alike.
//!
//! Always: a view is derived again when the world changes and is told only if it differs; what nobody is connected for any more is forgotten.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use weir_model::discovery::Node;

use super::{Directory, View, identity};
use crate::translate::{Proxy, World, translate};

/// What every proxy is to have.
#[derive(Debug)]
pub struct Distribution(Mutex<State>);

#[derive(Debug)]
struct State {
    world: Arc<World>,
    views: BTreeMap<Proxy, watch::Sender<Arc<View>>>,
}

impl Distribution {
    /// What follows from this world.
    #[must_use]
    pub fn new(world: World) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { world: Arc::new(world), views: BTreeMap::new() })))
    }

    /// The world has changed. How many views have changed with it.
    pub fn update(&self, world: World) -> usize {
        let mut state = self.lock();
        state.world = Arc::new(world);
        state.views.retain(|_, view| view.receiver_count() > 0);
        let State { world, views } = &*state;
        let changed = |(proxy, view): &(&Proxy, &watch::Sender<Arc<View>>)| {
            view.send_if_modified(|known| {
                let new = View::new(&translate(world, proxy).bootstrap(), Some(known));
                let differs = new != **known;
                if differs {
                    *known = Arc::new(new);
                }
                differs
            })
        };
        views.iter().filter(changed).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory for Distribution {
    fn view(&self, node: &Node) -> Result<watch::Receiver<Arc<View>>, String> {
        let proxy = identity::proxy(node)?;
        let mut state = self.lock();
        if let Some(view) = state.views.get(&proxy) {
            return Ok(view.subscribe());
        }
        let view = View::new(&translate(&state.world, &proxy).bootstrap(), None);
        let (sender, receiver) = watch::channel(Arc::new(view));
        state.views.insert(proxy, sender);
        Ok(receiver)
    }
}
