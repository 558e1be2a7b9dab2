//! HTTP on a branch: limits, timeouts, and the actions that requests may meet.

use super::check::{Check, Zero};
use super::route;
use crate::config::{FilterChain, Http, HttpLimits, server_header};
use crate::diagnostic::Code;
use crate::path::At;
use crate::resource::Kind;

/// What a filter can be handed at once, as the Wasm host has it: 1 MiB and 1,024 fields.
const MAX_HEADER_BYTES: u32 = 1 << 20;
const MAX_HEADER_COUNT: u32 = 1024;
/// The largest window of HTTP/2.
const MAX_WINDOW: u32 = (1 << 31) - 1;

pub(super) fn http(check: &mut Check<'_>, at: &At<'_>, http: &Http) {
    if !http.filter_chain.is_empty() {
        check.reference(&at.field("filterChain"), Kind::FilterChain, &http.filter_chain);
    }
    let chain = chain(check, &http.filter_chain);
    if http.filter_chain.is_empty() && http.default_action.is_none() {
        check.warning(
            at,
            Code::NoEffect,
            "every request is answered 404: there is neither a default action nor a filter that chooses one",
            "write `defaultAction: {forward: {clusters: [{name: NAME}]}}`",
        );
    }
    let scope = route::Scope { chain, named: !http.filter_chain.is_empty() };
    if let Some(action) = &http.default_action {
        route::action(check, &at.field("defaultAction"), action, scope);
    }
    let list = at.field("actions");
    check.distinct(&list, "action", http.actions.iter().map(|action| &*action.name));
    for (index, action) in http.actions.iter().enumerate() {
        let here = list.index(index);
        check.name(&here, &action.name);
        route::action(check, &here, action, scope);
        if http.default_action.as_ref().is_some_and(|default| !default.name.is_empty() && default.name == action.name) {
            check.error(
                &here.field("name"),
                Code::DuplicateName,
                format!("the default action is called `{}`, too", action.name),
                "rename one",
            );
        }
    }
    if let Some(settings) = &http.limits {
        limits(check, &at.field("limits"), settings);
    }
    if let Some(timeouts) = &http.timeouts {
        let here = at.field("timeouts");
        let optional = [("requestHeaders", timeouts.request_headers), ("idle", timeouts.idle), ("streamIdle", timeouts.stream_idle)];
        check.durations(&here, Zero::Fine, &optional);
        let limits = [("request", timeouts.request), ("maxConnectionAge", timeouts.max_connection_age), ("maxStream", timeouts.max_stream)];
        check.durations(&here, Zero::Wrong, &limits);
    }
    rest(check, at, http);
}

fn chain<'a>(check: &Check<'a>, name: &str) -> Option<&'a FilterChain> {
    let index = check.names.index(Kind::FilterChain, name)?;
    check.names.bootstrap?.filter_chains.get(index)
}

fn limits(check: &mut Check<'_>, at: &At<'_>, limits: &HttpLimits) {
    check.within(&at.field("headerBytes"), limits.header_bytes, 0, MAX_HEADER_BYTES);
    check.within(&at.field("headerCount"), limits.header_count, 0, MAX_HEADER_COUNT);
    check.within(&at.field("pathBytes"), limits.path_bytes, 0, MAX_HEADER_BYTES);
    check.within(&at.field("streamWindow"), limits.stream_window, 0, MAX_WINDOW);
    check.within(&at.field("connectionWindow"), limits.connection_window, 0, MAX_WINDOW);
}

fn rest(check: &mut Check<'_>, at: &At<'_>, http: &Http) {
    if let Some(header) = &http.server_header {
        let here = at.field("serverHeader");
        let here = here.field("value");
        let overwrites = header.mode() == server_header::Mode::Overwrite;
        if overwrites && header.value.is_empty() {
            check.error(&here, Code::Missing, "it is not said what the header becomes", "write `value: NAME`, or `mode: remove`");
        } else if !overwrites && !header.value.is_empty() {
            check.warning(&here, Code::NoEffect, "the value has no effect in this mode", "write `mode: overwrite`");
        }
        check.header_value(&here, &header.value);
    }
    let list = at.field("exemptPaths");
    for (index, path) in http.exempt_paths.iter().enumerate() {
        check.path(&list.index(index), path);
    }
}
