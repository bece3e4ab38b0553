//! What the README says of the programs is what they do: a document that nobody holds to the code is wrong within a month.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use understudy::exit_code::ExitCode;
use understudy::failover::decide::RULES;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn readme() -> String {
    read("README.md")
}

/// The rows of the README's tables, cell by cell, without the heads' rules.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
    text.lines().filter(|line| line.starts_with('|') && !line.starts_with("| ---")).map(cells).collect()
}

/// The part of the README below a head, up to the next one of the same rank.
fn section<'a>(text: &'a str, head: &str) -> &'a str {
    let (_, after) = text.split_once(head).unwrap_or_else(|| panic!("the README has no section '{head}'"));
    after.split("\n## ").next().unwrap_or(after)
}

/// The words of a text that consist of `[A-Za-z0-9_]`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Everything below a folder that ends in `.rs`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_table_of_exit_codes_is_that_of_the_program() {
    let text = readme();
    let written: Vec<Vec<String>> = rows(section(&text, "\n## Exit codes")).into_iter().skip(1).collect();
    let meant: Vec<Vec<String>> = ExitCode::TABLE
        .lines()
        .skip(1)
        .map(|line| {
            let (code, meaning) = line.trim().split_once("  ").unwrap();
            vec![code.to_owned(), meaning.to_owned()]
        })
        .collect();
    assert_eq!(written, meant);
}

#[test]
fn the_table_of_exit_codes_of_fetch_is_that_of_the_program() {
    let text = readme();
    let written: Vec<String> = rows(section(&text, "\n## `fetch`")).into_iter().skip(1).map(|row| row.join("  ")).collect();
    let meant: Vec<&str> = understudy::fetch::exit_code::ExitCode::TABLE.lines().skip(1).map(str::trim).collect();
    assert_eq!(written, meant);
}

#[test]
fn the_samples_of_fetch_are_command_lines_of_it() {
    use clap::{CommandFactory as _, Parser as _};
    use understudy::fetch::command::CommandLine;

    let text = readme();
    let help = CommandLine::command().render_long_help().to_string();
    let samples: Vec<&str> =
        section(&text, "\n## `fetch`").lines().chain(help.lines()).map(str::trim).filter(|line| line.starts_with("fetch ")).collect();
    assert!(samples.len() >= 8, "{samples:?}");
    for sample in samples {
        // What follows after two blanks is an explanation.
        let words = sample.split("  ").next().unwrap().split(' ');
        // A checksum is cut short in a sample.
        let words = words.map(|word| if word.contains('…') { "0".repeat(64) } else { word.to_owned() });
        CommandLine::try_parse_from(words).unwrap_or_else(|error| panic!("{sample}: {error}"));
    }
}

#[test]
fn every_threshold_is_there_with_its_default() {
    // The defaults are private, as they should be: their source is read instead.
    let source = read("src/failover/settings.rs");
    let defaults = source.split("impl Default for FileThresholds").nth(1).unwrap().split("\nimpl ").next().unwrap();
    let number = |text: &str| text.replace('_', "").parse::<f64>().ok();
    let meant: Vec<(String, f64)> = defaults
        .lines()
        .filter_map(|line| line.trim().trim_end_matches(',').split_once(": "))
        .filter_map(|(name, value)| Some((name.to_owned(), number(value)?)))
        .collect();
    assert!(meant.len() >= 12, "the source has another shape: {meant:?}");
    let text = readme();
    let written: Vec<(String, f64)> = rows(section(&text, "\n## Settings"))
        .into_iter()
        .skip(1)
        .map(|row| (row[0].clone(), number(&row[1]).unwrap_or(f64::NAN)))
        .collect();
    assert_eq!(written, meant, "as in the source, in its order");
}

#[test]
fn every_playbook_is_there_and_none_is_invented() {
    let text = readme();
    let named: BTreeSet<String> = text
        .split("playbooks/")
        .skip(1)
        .filter_map(|after| after.split_once(".yml"))
        .map(|(name, _)| name.to_owned())
        .filter(|name| words(name).eq([name.as_str()]))
        .collect();
    let present: BTreeSet<String> = fs::read_dir(root().join("playbooks"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(named, present);
}

#[test]
fn every_make_target_that_is_named_exists() {
    let makefile = read("Makefile");
    let targets: BTreeSet<&str> = makefile.lines().filter_map(|line| line.split_once(':')).map(|(target, _)| target).collect();
    let text = readme();
    // As code: at the beginning of a line or after a backtick. "Make" in a sentence is no target.
    let starts = text.match_indices("make ").filter(|(at, _)| text[..*at].ends_with(['`', '\n']));
    let of_a_target = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let named: BTreeSet<&str> = starts.filter_map(|(at, start)| text[at + start.len()..].split(|c| !of_a_target(c)).next()).collect();
    assert!(named.contains("up") && named.contains("test"), "{named:?}");
    for target in named {
        assert!(targets.contains(target), "the README names 'make {target}', which the Makefile does not have");
    }
}

#[test]
fn every_rule_that_is_named_exists() {
    let text = readme();
    let is_rule =
        |word: &&str| word.strip_prefix('R').is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    let named: BTreeSet<&str> = words(&text).filter(is_rule).collect();
    assert!(named.len() > 10, "{named:?}");
    for rule in named {
        assert!(RULES.iter().any(|known| known.id == rule), "the README names {rule}, which is no rule");
    }
}

#[test]
fn every_test_that_an_invariant_rests_on_exists() {
    let text = readme();
    let code: String =
        ["src", "tests"].iter().flat_map(|folder| sources(&root().join(folder))).map(|path| fs::read_to_string(path).unwrap()).collect();
    let invariants: Vec<Vec<String>> =
        rows(section(&text, "\n## How it decides")).into_iter().filter(|row| row.len() == 3 && row[0].starts_with('I')).collect();
    assert_eq!(invariants.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["I1", "I2", "I3", "I4", "I5", "I6"]);
    for row in &invariants {
        for test in row[2].split(',').map(|test| test.trim().trim_matches('`')) {
            assert!(code.contains(&format!("fn {test}(")), "{} rests on '{test}', which is no test", row[0]);
        }
    }
}

#[test]
fn every_link_and_folder_leads_somewhere() {
    let text = readme();
    let links = text.split("](").skip(1).filter_map(|after| after.split_once(')')).map(|(target, _)| target.to_owned());
    let folders = rows(section(&text, "\n## Where things are"))
        .into_iter()
        .skip(1)
        .flat_map(|row| row[0].split(", ").map(|folder| folder.trim_matches('`').to_owned()).collect::<Vec<_>>());
    for target in links.chain(folders) {
        assert!(root().join(&target).exists(), "the README leads to '{target}', which does not exist");
    }
}
