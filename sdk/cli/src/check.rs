//! `weir check`: what is wrong with a configuration, as text or as data.

use std::path::Path;

use serde_json::{Value, json};
use weir_proxy::source::file;

use crate::failure::{Done, Failure};
use crate::out::Out;

pub(crate) fn check(path: &Path, out: &Out) -> Done {
    let loaded = file::load(path, &weir_proxy::control::context());
    if !out.is_json() {
        return match loaded {
            Ok(loaded) => {
                let warnings = weir_model::diagnostic::render(&loaded.warnings, out.color());
                out.data(&format!("{warnings}{}: {} resources, no errors\n", path.display(), loaded.resources.len()));
                Ok(())
            }
            Err(wrong) => {
                out.data(&wrong.render(out.color()));
                Err(Failure::told())
            }
        };
    }
    let (ok, resources, found, io) = match loaded {
        Ok(loaded) => (true, loaded.resources.len(), loaded.warnings, Vec::new()),
        Err(wrong) => (false, 0, wrong.diagnostics, wrong.io),
    };
    let problems = found.iter().map(|found| {
        json!({
            "severity": format!("{:?}", found.severity).to_lowercase(), "code": found.code.as_str(), "message": found.message, "help": found.help,
            "path": found.path, "file": found.file(), "line": found.line(), "column": found.column(),
        })
    });
    let of_files = io.iter().map(|problem| json!({"severity": "error", "code": "file", "message": problem}));
    let problems: Vec<Value> = of_files.chain(problems).collect();
    out.json(&json!({"ok": ok, "resources": resources, "problems": problems}));
    if ok { Ok(()) } else { Err(Failure::told()) }
}
