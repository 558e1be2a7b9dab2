//! What a connection costs that nobody uses.

use anyhow::{Result, ensure};

use super::client::{Answer, Client};
use super::load::PATH;
use super::race::Ground;
use super::scenarios;
use crate::report::{Report, say};

/// Connections that are open before the first weighing, so that what is there once is not counted.
const BEFORE: usize = 64;
const MANY: usize = 10_000;

/// Opens many connections, each with one exchange behind it, and weighs the proxy before and after.
pub(super) fn idle_connections(ground: &Ground, report: &mut Report) -> Result<()> {
    say(&format!("\nidle: {MANY} keep-alive connections, each idle after one request"));
    let running = ground.start(&scenarios::ALL[0].targets[0])?;
    let open = |count: usize| -> Result<Vec<Client>> {
        let one = || {
            let mut client = Client::connect(running.port)?;
            let answer = client.ask("GET", PATH, "")?;
            ensure!(answer == Answer { status: 200, length: 1024 }, "{answer:?}");
            Ok(client)
        };
        (0..count).map(|_| one()).collect()
    };
    let first = open(BEFORE)?;
    let before = running.process.resident_kib();
    let mut rest = open(MANY)?;
    let after = running.process.resident_kib();
    // All of them must still be there, or it was not they who were weighed.
    for client in first.into_iter().chain(rest.drain(..)).step_by(97).collect::<Vec<_>>().iter_mut() {
        client.ask("GET", PATH, "")?;
    }
    let each = (after - before) / MANY as f64;
    report.figure("idle_conn_kib", each, "resident memory of an idle HTTP/1.1 connection (goal 8)");
    Ok(())
}
