//! The commands of sdk/README.md exist, with the options that it names.

use crate::command::weir;

#[test]
fn the_guides_commands_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let guide = include_str!("../../../README.md");
    let lines = guide.lines().filter_map(|line| line.trim().strip_prefix("weir "));
    let mut seen = 0;
    for line in lines {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        // The command with its options, but asked for help: whatever is wrong with it is found, and nothing happens.
        let command: Vec<&str> = words.iter().take_while(|word| word.chars().all(|c| c.is_ascii_lowercase())).copied().take(2).collect();
        let help = weir(folder.path(), &[&command[..], &["--help"]].concat()).ok();
        for option in words.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(option), "weir {line}: there is no {option}");
        }
        seen += 1;
    }
    assert!(seen >= 8, "the guide names {seen} commands");
}
