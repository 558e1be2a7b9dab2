//! The process: identity, operator's pages, discovery, and the resources as a whole.

use std::collections::HashMap;

use super::check::{Check, Zero, short};
use super::{cluster, filter, listener, secret};
use crate::address::Address;
use crate::config::{Bootstrap, Discovery};
use crate::diagnostic::Code;
use crate::path::At;
use crate::resource::Kind;

/// More threads than any machine has CPUs for.
const MAX_WORKERS: u32 = 1024;

pub(super) fn bootstrap(check: &mut Check<'_>, at: &At<'_>, bootstrap: &Bootstrap) {
    check.within(&at.field("workers"), bootstrap.workers, 0, MAX_WORKERS);
    check.duration(&at.field("drainTimeout"), bootstrap.drain_timeout, Zero::Fine);
    admin(check, at, bootstrap);
    if let Some(log) = &bootstrap.log {
        let at = at.field("log");
        level(check, &at.field("level"), &log.level);
    }
    if let Some(settings) = &bootstrap.discovery {
        discovery(check, &at.field("discovery"), settings);
        if bootstrap.node.as_ref().is_none_or(|node| node.id.is_empty()) {
            check.error(
                &at.field("node"),
                Code::Missing,
                "discovery needs to know who this is: `node.id` is missing",
                "write `node: {id: NAME}`",
            );
        }
    }
    resources(check, at, bootstrap);
}

fn resources(check: &mut Check<'_>, at: &At<'_>, bootstrap: &Bootstrap) {
    macro_rules! each {
        ($($list:ident $name:literal $what:literal $one:path,)*) => {$(
            let here = at.field($name);
            check.distinct(&here, $what, bootstrap.$list.iter().map(|item| &*item.name));
            for (index, item) in bootstrap.$list.iter().enumerate() {
                $one(check, &here.index(index), item);
            }
        )*};
    }
    each! {
        listeners "listeners" "listener" listener::listener,
        filter_chains "filterChains" "filter chain" filter::chain,
        clusters "clusters" "cluster" cluster::cluster,
        endpoints "endpoints" "resource of endpoints" cluster::endpoints_resource,
        secrets "secrets" "secret" secret::secret,
    }
    addresses(check, at, bootstrap);
}

/// Two listeners cannot have one address.
fn addresses(check: &mut Check<'_>, at: &At<'_>, bootstrap: &Bootstrap) {
    let at = at.field("listeners");
    let mut seen: HashMap<Address, &str> = HashMap::new();
    for (index, listener) in bootstrap.listeners.iter().enumerate() {
        let Ok(address) = listener.address.parse::<Address>() else { continue };
        if matches!(&address, Address::Socket(socket) if socket.port() == 0) {
            continue;
        }
        let here = at.index(index);
        if let Some(first) = seen.get(&address) {
            check.error(
                &here.field("address"),
                Code::Conflict,
                format!("the listener `{first}` has this address"),
                "join the two with branches, or choose another port",
            );
        } else {
            seen.insert(address, &listener.name);
        }
    }
}

fn admin(check: &mut Check<'_>, at: &At<'_>, bootstrap: &Bootstrap) {
    let Some(admin) = &bootstrap.admin else { return };
    let at = at.field("admin");
    if !matches!(&*admin.address, "" | "off") {
        let here = at.field("address");
        if let Some(Address::Socket(socket)) = check.address(&here, &admin.address, true)
            && !socket.ip().is_loopback()
        {
            check.warning(
                &here,
                Code::Insecure,
                "other machines can reach the operator's pages",
                "they can drain this proxy; write `127.0.0.1:15000`",
            );
        }
    }
    let at = at.field("allowedHosts");
    for (index, host) in admin.allowed_hosts.iter().enumerate() {
        check.authority(&at.index(index), host);
    }
}

/// `info`, or `info,upstream=debug`.
fn level(check: &mut Check<'_>, at: &At<'_>, text: &str) {
    const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];
    for part in text.split(',').map(str::trim).filter(|_| !text.is_empty()) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            let help = crate::path::did_you_mean(level, LEVELS, "the levels");
            check.error(at, Code::UnknownValue, format!("`{}` is no level", short(level)), help);
        }
    }
}

fn discovery(check: &mut Check<'_>, at: &At<'_>, discovery: &Discovery) {
    if discovery.addresses.is_empty() {
        check.error(&at.field("addresses"), Code::Missing, "there is nobody to ask", "write `addresses: [\"http://HOST:15010\"]`");
    }
    let list = at.field("addresses");
    for (index, text) in discovery.addresses.iter().enumerate() {
        let here = list.index(index);
        let address = match text.split_once("://") {
            Some(("http" | "https", rest)) => {
                rest.trim_end_matches('/').parse::<Address>().ok().filter(|address| !matches!(address, Address::Unix(_)))
            }
            Some(_) => None,
            None => text.parse::<Address>().ok().filter(|address| matches!(address, Address::Unix(_))),
        };
        if address.is_none_or(|address| matches!(address, Address::Socket(socket) if socket.port() == 0)) {
            check.error(
                &here,
                Code::InvalidAddress,
                format!("`{}` is no address of a controller", short(text)),
                "write `http://HOST:PORT`, `https://HOST:PORT` or `unix:/PATH`",
            );
        } else if text.starts_with("http://") && !discovery.token_file.is_empty() {
            check.warning(&here, Code::Insecure, "the token is sent as plain text", "write `https://`");
        }
    }
    if let Some(tls) = &discovery.tls {
        let here = at.field("tls");
        secret::upstream_tls(check, &here, tls);
        // These cannot come from the controller, for they are needed to reach it.
        for (field, name) in [("trustRoots", &tls.trust_roots), ("certificate", &tls.certificate)] {
            if !name.is_empty() && !check.closed {
                check.exists(&here.field(field), Kind::Secret, name);
            }
        }
        if !discovery.addresses.iter().any(|address| address.starts_with("https://")) {
            check.warning(&here, Code::NoEffect, "`tls` has no effect without an address with `https://`", "");
        }
    }
    check.durations(at, Zero::Wrong, &[("backoffMin", discovery.backoff_min), ("backoffMax", discovery.backoff_max)]);
    check.in_order(at, ("backoffMin", discovery.backoff_min), ("backoffMax", discovery.backoff_max));
}
