//! The commands that the documents tell a reader to type exist.
//!
//! Always: every line of a `sh` block and every `` `make …` `` in running text is understood or is a finding: a command that
//! this file does not know could be one that never worked.

use crate::graph::Graph;
use crate::{File, Finding};

/// The proxy's own commands: `host/src/cli.rs`.
const PROXY: [&str; 3] = ["check", "run", "version"];

/// The controller's: `controller/src/cli.rs`.
const CONTROLLER: [&str; 3] = ["serve", "show", "version"];

/// The commands of `weir`, and of `weir filter`: `sdk/cli/src/args.rs`.
const WEIR: [&str; 5] = ["check", "completions", "filter", "run", "version"];
const FILTER: [&str; 10] = ["bench", "build", "inspect", "keygen", "new", "package", "pull", "push", "run", "test"];

/// Commands that are not ours to check.
const FOREIGN: [&str; 3] = ["cd", "git", "#"];

/// The targets of a Makefile that `make help` lists.
#[must_use]
pub fn targets(makefile: &str) -> Vec<&str> {
    let target = |line: &'_ str| line.split_once(':').filter(|(_, rest)| rest.contains("## ")).map(|(name, _)| name.len());
    makefile.lines().filter_map(|line| target(line).map(|end| &line[..end])).collect()
}

/// Targets of a Makefile that say nothing about themselves, by its `.PHONY` line.
#[must_use]
pub fn silent(makefile: &File) -> Vec<Finding> {
    let listed = targets(&makefile.text);
    let phony = makefile.text.lines().filter_map(|line| line.strip_prefix(".PHONY:")).flat_map(str::split_whitespace);
    phony
        .filter(|name| !listed.contains(name))
        .map(|name| Finding::whole(&makefile.path, format!("`make {name}` is not in `make help`: add `## what it does`")))
        .collect()
}

/// Commands in the documents that name a target, package or example that is not there.
#[must_use]
pub fn check(documents: &[File], makefile: &str, graph: &Graph) -> Vec<Finding> {
    let targets = targets(makefile);
    let mut findings = Vec::new();
    for document in documents {
        let mut fence: Option<&str> = None;
        for (number, line) in document.text.lines().enumerate() {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                fence = if fence.is_some() { None } else { Some(language) };
                continue;
            }
            let commands: Vec<&str> = match fence {
                Some("sh") => vec![line],
                Some(_) => vec![],
                None => line.split('`').skip(1).step_by(2).filter(|span| span.starts_with("make ")).collect(),
            };
            let wrong = commands.into_iter().filter_map(|command| wrong(command, &targets, graph));
            findings.extend(wrong.map(|message| Finding::at(&document.path, number + 1, message)));
        }
    }
    findings
}

/// Why the command would not work, if it would not.
fn wrong(command: &str, targets: &[&str], graph: &Graph) -> Option<String> {
    let command = command.split(" #").next().unwrap_or_default();
    let mut words = command.split_whitespace().skip_while(|word| word.contains('='));
    match words.next() {
        None => None,
        Some("make") => words
            .find(|word| !word.contains('=') && !targets.contains(word))
            .map(|word| format!("`make {word}` is not a target of the Makefile")),
        Some("weir-proxy") => {
            let command = words.next().unwrap_or_default();
            (!PROXY.contains(&command)).then(|| format!("`weir-proxy {command}` is no command of the proxy"))
        }
        Some("weir-controller") => {
            let command = words.next().unwrap_or_default();
            (!CONTROLLER.contains(&command)).then(|| format!("`weir-controller {command}` is no command of the controller"))
        }
        Some("weir") => {
            let (command, of) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let known = WEIR.contains(&command) && (command != "filter" || FILTER.contains(&of));
            (!known).then(|| format!("`weir {command} {of}` is no command of `weir`"))
        }
        Some("cargo") => wrong_cargo(&words.collect::<Vec<_>>(), graph),
        Some(word) if FOREIGN.contains(&word) => None,
        Some(word) => Some(format!("unknown command `{word}`: teach tests/tidy/src/commands.rs to check it")),
    }
}

fn wrong_cargo(words: &[&str], graph: &Graph) -> Option<String> {
    let after = |flag: &str| words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1).copied());
    let named = after("-p").map(|name| (name, graph.members().find(|(_, package, _)| package.name == name)));
    match (named, after("--example")) {
        (Some((name, None)), _) => Some(format!("there is no package {name}")),
        (Some((name, Some((_, package, _)))), Some(example)) if !package.examples.iter().any(|known| known == example) => {
            Some(format!("{name} has no example {example}"))
        }
        (None, Some(example)) => Some(format!("say which package has the example {example}: -p PACKAGE")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::made_up::graph;

    const MAKEFILE: &str = "SUITE = all\nrun: ## Run\n\tx\ntest lint\nlint: a ## Lint\nhidden:\n.PHONY: run lint hidden\n";

    #[test]
    fn targets_are_those_that_help_lists() {
        assert_eq!(targets(MAKEFILE), ["run", "lint"]);
        let found = silent(&File::new("Makefile", MAKEFILE));
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("`make hidden`"));
    }

    #[test]
    fn commands_that_do_not_exist_are_found() {
        let mut graph = graph(&[("weir-a", "host/a", &[], &[])]);
        graph.packages[0].examples.push("show".to_owned());
        let text = "Use `make run` or `make tset`.\n```sh\ncd weir # enter\nmake run SUITE=x\nmake nope\n\
                    cargo run -p weir-a --example show\ncargo run -p weir-b\nX=1 cargo run -p weir-a --example no\n\
                    cargo run --example show\nrm -rf x\nweir-proxy run -c x\nweir-proxy walk\nweir filter new x\nweir filter old x\n```\nand\n```text\nmake anything\n```\n";
        let found: Vec<_> = check(&[File::new("R.md", text)], MAKEFILE, &graph).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "R.md:1: `make tset` is not a target of the Makefile",
                "R.md:5: `make nope` is not a target of the Makefile",
                "R.md:7: there is no package weir-b",
                "R.md:8: weir-a has no example no",
                "R.md:9: say which package has the example show: -p PACKAGE",
                "R.md:10: unknown command `rm`: teach tests/tidy/src/commands.rs to check it",
                "R.md:12: `weir-proxy walk` is no command of the proxy",
                "R.md:14: `weir filter old` is no command of `weir`",
            ]
        );
    }
}
