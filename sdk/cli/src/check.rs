//! `weir check`: what is wrong with a configuration, as the proxy says it, or as data.
//!
//! Always: the check is the proxy's own: it reads, puts together, and starts every filter as a process would that serves from it.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use weir_proxy::source::file;

use crate::failure::{Done, Failure};
use crate::out::Out;

pub(crate) fn check(path: &Path, out: &Out) -> Result<ExitCode, Failure> {
    if !out.is_json() {
        return Ok(weir_proxy::cli::run(["weir".into(), "check".into(), "--config".into(), path.into()]));
    }
    let mut problems = Vec::new();
    let mut resources = 0;
    match file::load(path, &weir_proxy::control::context()) {
        Ok(loaded) => {
            resources = loaded.resources.len();
            problems.extend(loaded.warnings.iter().map(diagnostic));
            problems.extend(rejections(&loaded)?);
        }
        Err(wrong) => {
            problems.extend(wrong.io.iter().map(|problem| json!({"severity": "error", "code": "file", "message": problem})));
            problems.extend(wrong.diagnostics.iter().map(diagnostic));
        }
    }
    let ok = problems.iter().all(|problem| problem["severity"] != "error");
    out.json(&json!({"ok": ok, "resources": resources, "problems": problems}));
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn diagnostic(found: &weir_model::diagnostic::Diagnostic) -> Value {
    json!({
        "severity": format!("{:?}", found.severity).to_lowercase(), "code": found.code.as_str(), "message": found.message, "help": found.help,
        "path": found.path, "file": found.file(), "line": found.line(), "column": found.column(),
    })
}

/// What a process would refuse that served from it.
fn rejections(loaded: &file::Loaded) -> Done<Vec<Value>> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("the configuration cannot be tried: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    let could_serve = runtime.block_on(weir_proxy::app::check(&loaded.bootstrap, loaded.resources.clone()));
    runtime.shutdown_background();
    let rejected = could_serve.map_err(|error| failed(&error))?.err().unwrap_or_default();
    Ok(rejected.iter().map(|rejection| json!({"severity": "error", "code": "refused", "message": rejection.to_string()})).collect())
}
