//! To-do markers and the changelog's "Known gaps": what is missing is written where users read, with an owner.
//!
//! A gap is a line `- [owner] What is missing.` under `## Known gaps` in CHANGELOG.md; following indented lines belong to it.
//! A marker in a file is `MARKER(owner): words`, and its words must occur in a gap of that owner.
//!
//! Always: a marker that does not read like this is a finding, as is a gap without an owner.

use crate::{File, Finding, line_of, words};

/// The markers, put together here so that this file holds none.
const MARKERS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// One entry of "Known gaps".
#[derive(Debug, PartialEq, Eq)]
struct Gap {
    owner: String,
    text: String,
}

/// Gaps without an owner in the changelog, and markers in `files` without a gap.
#[must_use]
pub fn check(files: &[File], changelog: &File) -> Vec<Finding> {
    let (gaps, mut findings) = known(changelog);
    for file in files {
        for marker in MARKERS {
            for at in words(&file.text, marker) {
                let rest = file.text[at + marker.len()..].lines().next().unwrap_or_default();
                if let Some(message) = unmatched(rest, &gaps) {
                    findings.push(Finding::at(&file.path, line_of(&file.text, at), format!("{marker}: {message}")));
                }
            }
        }
    }
    findings
}

/// Why the text after a marker has no gap, if it has none.
fn unmatched(rest: &str, gaps: &[Gap]) -> Option<String> {
    let parsed = rest.strip_prefix('(').and_then(|rest| rest.split_once("):"));
    let Some((owner, text)) = parsed.map(|(owner, text)| (owner.trim(), text.trim())) else {
        return Some("write it as MARKER(owner): words of a line in CHANGELOG.md, \"Known gaps\"".to_owned());
    };
    let known = !text.is_empty() && gaps.iter().any(|gap| gap.owner == owner && gap.text.contains(text));
    (!known).then(|| format!("no line `- [{owner}] … {text} …` under \"Known gaps\" in CHANGELOG.md"))
}

fn known(changelog: &File) -> (Vec<Gap>, Vec<Finding>) {
    let (mut gaps, mut findings): (Vec<Gap>, _) = (Vec::new(), Vec::new());
    let lines = changelog.text.lines().enumerate().skip_while(|(_, line)| *line != "## Known gaps").skip(1);
    for (number, line) in lines.take_while(|(_, line)| !line.starts_with("## ")) {
        if let Some(entry) = line.strip_prefix("- ") {
            match entry.strip_prefix('[').and_then(|entry| entry.split_once("] ")) {
                Some((owner, text)) if !owner.is_empty() && !text.trim().is_empty() => {
                    gaps.push(Gap { owner: owner.to_owned(), text: text.to_owned() });
                }
                _ => findings.push(Finding::at(&changelog.path, number + 1, "a gap needs an owner: `- [owner] What is missing.`")),
            }
        } else if let (Some(gap), true) = (gaps.last_mut(), line.starts_with("  ")) {
            gap.text.push(' ');
            gap.text.push_str(line.trim());
        }
    }
    (gaps, findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(code: &str, gaps: &str) -> Vec<String> {
        let changelog = File::new("CHANGELOG.md", format!("# Log\n\n## Known gaps\n\n{gaps}\n## 0.1\n- [host] old news\n"));
        let code = code.replace("MARK", MARKERS[0]).replace("MEND", MARKERS[1]);
        check(&[File::new("a.rs", code)], &changelog).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_marker_needs_its_gap() {
        let gaps = "- [host] Trailers of HTTP/1 requests\n  are dropped.\n";
        assert_eq!(check_one("// MARK(host): requests are dropped\n// MARKER, A_MARK\n", gaps), [""; 0]);
        assert!(check_one("\n// MARK(sdk): requests are dropped", gaps)[0].starts_with("a.rs:2: "));
        assert_eq!(check_one("// MEND(host): something else", gaps).len(), 1);
        assert_eq!(check_one("// MARK(host): old news", gaps).len(), 1, "only the section counts");
        assert_eq!(check_one("// MARK(host):", gaps).len(), 1);
        assert!(check_one("// MARK later", gaps)[0].contains("write it as"));
    }

    #[test]
    fn a_gap_needs_its_owner() {
        for bad in ["- Nobody's.\n", "- [] Empty.\n", "- [host]\n"] {
            assert!(check_one("", bad)[0].starts_with("CHANGELOG.md:5: a gap needs an owner"), "{bad}");
        }
    }
}
