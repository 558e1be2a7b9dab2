//! The `router` filter: chooses what is done with a request, by its host, path, method, headers and whatever else is known of it.
//!
//! The filter chooses and the core carries out: an action is what the proxy's configuration calls a RouteAction, and is handed to the core once, while the filter
//! is configured. Equal actions are one.
//!
//! Always: the action of the first route that means the request, in the order that the configuration asks for; a request that no route means is answered 404,
//! with `route_not_found` as the response's code details, unless the configuration says otherwise. What it does not do: normalise paths, which the core did
//! before, or anything to the message itself.

mod conditions;
pub mod config;
mod draft;
mod hosts;
mod index;
mod path;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use conditions::Request;
use config::{Action, Router};
pub use draft::{Draft, Written};
pub use table::Table;
use weir_sdk::Route;
use weir_sdk::prelude::*;

/// What is done with a request that no route means: without a name, it is what the core does with a request that has no route.
const NOT_FOUND: &str = r#"{"respond":{"status":404}}"#;

/// The filter: its routes, compiled.
#[derive(Debug)]
pub struct Chooser {
    table: Table,
    routes: Vec<Route>,
    unmatched: Route,
    no_route: Counter,
}

#[register]
impl Filter for Chooser {
    type Config = Router;

    fn read(bytes: &[u8]) -> Result<Router, Refusal> {
        // Keeping account of where it is takes most of the time of reading: only done for a configuration that has a mistake.
        serde_json::from_slice(bytes).or_else(|_| weir_sdk::parse(bytes))
    }

    fn configure(config: Router, _: &Plugin) -> Result<Self, Refusal> {
        let (table, written) = config.virtual_hosts.0.finish(config.precedence, config.fall_through, &config.proxy)?;
        let mut named = BTreeMap::new();
        for (name, action) in &config.actions {
            let route = Route::define(action.json().as_bytes()).map_err(|refusal| refusal.within(&format!("actions.{name}")))?;
            named.insert(name.as_str(), route);
        }
        let action = |json: &str, field: &str| match name(json) {
            None => Route::define(json.as_bytes()).map_err(|refusal| refusal.within(field)),
            Some(name) => named.get(&*name).copied().ok_or_else(|| Refusal::at(field, format!("there is no {name:?} in `actions`"))),
        };
        let routes = written.iter().map(|written| action(&written.json, &written.field)).collect::<Result<_, _>>()?;
        let unmatched = action(config.unmatched.as_ref().map_or(NOT_FOUND, Action::json), "unmatched")?;
        Ok(Self { table, routes, unmatched, no_route: Counter::define("weir_router_unmatched_total", &[])? })
    }

    fn on_request_headers(&self, stream: &mut Stream<'_>) -> Flow {
        let found = self.table.find(stream).and_then(|action| self.routes.get(action as usize));
        let route = found.unwrap_or_else(|| {
            self.no_route.increment();
            &self.unmatched
        });
        match stream.select(*route) {
            Ok(()) => Flow::Continue,
            // Going on would mean the listener's default action, which nobody chose for this request.
            Err(status) => {
                weir_sdk::error!("the route cannot be chosen: {status}");
                stream.reply(500).details("route_not_selected").send()
            }
        }
    }
}

/// The name of an action, if that is what the JSON is.
fn name(json: &str) -> Option<String> {
    json.starts_with('"').then(|| weir_sdk::parse::<String>(json.as_bytes()).ok()).flatten()
}
