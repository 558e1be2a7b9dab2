//! The standard filters: what choosing a route costs with very many of them.

mod router;

use anyhow::Result;

use crate::report::Report;

pub(crate) fn run(report: &mut Report) -> Result<()> {
    router::run(report)
}
