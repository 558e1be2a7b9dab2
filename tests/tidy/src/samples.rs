//! Every sample in `manifests/` is loaded by a test.
//!
//! What counts: test code with a string literal that ends with the sample's path from the root, or with a folder above the
//! sample and a final `/` (a test that walks the folder). A comment does not count, nor does `manifests/` itself.
//!
//! Always: a sample nobody loads is a finding. That the test which names a sample also loads it is for its reader to see.

use crate::{File, Finding};

/// Files in `manifests/` that are samples: YAML and JSON anywhere in a folder `samples`.
fn is_sample(file: &File) -> bool {
    file.path.starts_with("manifests/")
        && file.path.contains("/samples/")
        && ["yaml", "yml", "json"].iter().any(|extension| file.is(extension))
}

/// The test code of a file: all of it in a `tests` folder or a Go test, and what follows `#[cfg(test)]` elsewhere.
fn test_code(file: &File) -> &str {
    let in_tests = file.path.starts_with("tests/") || file.path.contains("/tests/");
    if (file.is("rs") && in_tests) || file.path.ends_with("_test.go") {
        &file.text
    } else if file.is("rs") {
        file.text.find("\n#[cfg(test)]").map_or("", |at| &file.text[at..])
    } else {
        ""
    }
}

/// Samples that no test names.
#[must_use]
pub fn unloaded(files: &[File]) -> Vec<Finding> {
    let code: Vec<String> = files.iter().map(|file| without_comments(test_code(file))).collect();
    let named = |path: &str| code.iter().any(|code| code.contains(&format!("{path}\"")));
    let loaded = |sample: &str| {
        let folders = sample.match_indices('/').skip(1).map(|(at, _)| &sample[..=at]);
        named(sample) || folders.into_iter().any(named)
    };
    files
        .iter()
        .filter(|file| is_sample(file) && !loaded(&file.path))
        .map(|file| Finding::whole(&file.path, "no test loads this sample: name its path in the test that does"))
        .collect()
}

fn without_comments(code: &str) -> String {
    code.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Put together from pieces, so that this file names no sample of the real tree.
    fn sample(name: &str) -> String {
        format!("manifests/{}/{name}", "samples")
    }

    fn check(test: (&str, &str)) -> Vec<String> {
        let files = [
            File::new(sample("a.yaml"), ""),
            File::new(sample("deep/b.json"), ""),
            File::new("manifests/samples/README.md", ""),
            File::new("manifests/crds/c.yaml", ""),
            File::new(test.0, test.1),
        ];
        unloaded(&files).into_iter().map(|finding| finding.place).collect()
    }

    #[test]
    fn a_sample_needs_a_test_that_names_it() {
        let (a, b) = (sample("a.yaml"), sample("deep/b.json"));
        let both = format!("load(\"../{a}\");\nload(\"{b}\");\n");
        assert_eq!(check(("tests/e2e/x.rs", &both)), [""; 0]);
        assert_eq!(check(("host/src/x.rs", &format!("fn f() {{}}\n#[cfg(test)]\nmod t {{ {both} }}"))), [""; 0]);
        assert_eq!(check(("host/src/x.rs", &both)), [a.clone(), b.clone()], "product code is no test");
        assert_eq!(check(("tests/e2e/x.rs", &format!("// \"{a}\"\n"))), [a.clone(), b.clone()], "a comment is no test");
        assert_eq!(check(("tests/kube/x_test.go", &format!("load(\"{a}\")"))), std::slice::from_ref(&b));
        assert_eq!(check(("tests/e2e/x.rs", &format!("walk(\"{}\")", sample("deep/")))), [a]);
        assert_eq!(check(("tests/e2e/x.rs", &format!("walk(\"{}\")", sample("")))), [""; 0]);
        assert_eq!(check(("tests/e2e/x.rs", "walk(\"manifests/\")")).len(), 2);
    }
}
