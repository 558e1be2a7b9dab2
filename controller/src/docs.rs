//! The page of what is told about objects, from the table of codes: `manifests/diagnostics.md`.
//!
//! Always: every code has its section. A test holds the committed page to it; `cargo run -p weir-controller --example diagnostics >
//! manifests/diagnostics.md` writes it anew.

use std::fmt::Write as _;

use weir_model::diagnostic::Severity;

use crate::finding::Code;

const HEAD: &str = "\
# What is told about objects

Made from the table of codes (`controller/src/finding.rs`) by `cargo run -p weir-controller --example diagnostics > manifests/diagnostics.md`; a test
says when it is out of date.

`weir check`, the admission webhook, folders that are followed and the statuses of objects all tell the same: the object, the field, what is wrong with it
here, and what to do. An object with an **error** is refused, and the last good state of it stays; one with a **warning** is used. A code never changes its
meaning, so it can be searched for and be looked for by programs.

Istio has two validators, the definitions of its kinds and a webhook. Here they are one: what either of them refuses is refused. A field that a kind does not
have is a warning, though `kubectl apply` refuses it: tools that apply objects otherwise let the API server drop it.
";

/// The page, in Markdown.
#[must_use]
pub fn diagnostics() -> String {
    let mut page = HEAD.to_owned();
    for code in Code::ALL {
        let severity = if code.severity() == Severity::Error { "Error" } else { "Warning" };
        let _ = write!(page, "\n## {code}\n\n{severity}. {}\n\nWhat to do: {}\n", code.cause(), code.help());
    }
    page
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_page_is_current() {
        let page = include_str!("../../manifests/diagnostics.md");
        assert!(super::diagnostics() == page, "run: cargo run -p weir-controller --example diagnostics > manifests/diagnostics.md");
    }
}
