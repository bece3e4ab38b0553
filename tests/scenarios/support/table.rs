//! The table that the run writes about itself: what each scenario was to show, and what was seen.
//!
//! The register is the table at the head of `main.rs`: a scenario that is not in it does not begin. Each one leaves a row in
//! a folder, as a file of its own, since each runs in a process of its own; the run collects them at its end.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::installation::Record;

/// Where the register is.
const REGISTER: &str = include_str!("../main.rs");

/// The folder of the rows, where the run names it.
const ROWS: &str = "UNDERSTUDY_SCENARIO_ROWS";

/// A scenario as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    pub name: String,
    /// The numbers of the fault list that it stands for.
    pub faults: Vec<u32>,
    /// It runs with `make scenarios-slow` only.
    pub slow: bool,
    /// What is to be seen.
    pub expected: String,
}

/// What one scenario has shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    pub scenario: String,
    pub faults: Vec<u32>,
    pub expected: String,
    /// `passed`, `failed`, or `skipped` with the reason.
    pub outcome: String,
    /// The rules that decided something new, in the order in which they did.
    pub rules: Vec<String>,
    /// Who was primary before and after.
    pub primary: (String, String),
    /// The record's epoch before and after.
    pub epoch: (u64, u64),
    pub rows_acknowledged: usize,
    pub rows_lost: usize,
    /// Lost because a person said that they may be.
    pub rows_given_up: usize,
    pub most_writable_nodes: usize,
    /// The longest time in which no row was acknowledged although one was to be written.
    pub write_outage_seconds: f64,
    /// From the healthy pair at its beginning to its end.
    pub took_seconds: f64,
}

impl Row {
    /// Of a scenario that could not be played here.
    pub fn skipped(story: &Story, record: &Record, why: &str) -> Self {
        Self {
            scenario: story.name.clone(),
            faults: story.faults.clone(),
            expected: story.expected.clone(),
            outcome: format!("skipped: {why}"),
            rules: Vec::new(),
            primary: (record.primary.clone(), record.primary.clone()),
            epoch: (record.epoch, record.epoch),
            rows_acknowledged: 0,
            rows_lost: 0,
            rows_given_up: 0,
            most_writable_nodes: 0,
            write_outage_seconds: 0.0,
            took_seconds: 0.0,
        }
    }

    /// Leaves the row where the run collects them; outside of a run nobody does.
    pub fn write(&self) {
        let Some(folder) = std::env::var_os(ROWS) else { return };
        let file = PathBuf::from(folder).join(format!("{}.json", self.scenario));
        fs::write(&file, serde_json::to_vec_pretty(self).unwrap()).unwrap_or_else(|error| panic!("'{}': {error}", file.display()));
    }

    fn seen(&self) -> String {
        let (before, after) = &self.primary;
        let primary = if before == after { format!("{before} stays") } else { format!("{before} → {after}") };
        let epoch = if self.epoch.0 == self.epoch.1 { String::new() } else { format!(", epoch {} → {}", self.epoch.0, self.epoch.1) };
        let given_up = if self.rows_given_up == 0 { String::new() } else { format!(", {} rows given up by a person", self.rows_given_up) };
        format!("{}: {primary}{epoch}{given_up}: {}", self.outcome, self.rules.join(" "))
    }
}

/// The registered scenarios, in the order of the register.
pub fn register() -> Vec<Story> {
    let rows = REGISTER.lines().filter_map(|line| line.strip_prefix("//! | `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_end().trim_end_matches('|').splitn(4, " | ").map(str::trim).collect();
        let [name, faults, when, expected] = cells[..] else { panic!("the register's row '{row}' has not four cells") };
        let faults = faults.split(", ").filter(|number| *number != "-");
        Story {
            name: name.trim_end_matches('`').to_owned(),
            faults: faults.map(|number| number.parse().unwrap_or_else(|_| panic!("'{number}' in the row '{row}' is no number"))).collect(),
            slow: when == "slow",
            expected: expected.to_owned(),
        }
    })
    .collect()
}

/// One registered scenario.
///
/// # Panics
/// With the remedy, when there is none of that name.
pub fn story(name: &str) -> Story {
    let found = register().into_iter().find(|story| story.name == name);
    found.unwrap_or_else(|| panic!("the scenario '{name}' is not registered; try: a row for it in the table of tests/scenarios/main.rs"))
}

/// Collects the rows of a run into `table.md` and `table.json` beside their folder and prints them; tells what is missing or failed.
fn collect(rows: &Path, wanted: &[Story]) -> Result<String, String> {
    let (mut seen, mut missing) = (Vec::new(), Vec::new());
    for story in wanted {
        let file = rows.join(format!("{}.json", story.name));
        match fs::read(&file).map(|content| serde_json::from_slice::<Row>(&content)) {
            Ok(Ok(row)) => seen.push(row),
            Ok(Err(error)) => missing.push(format!("{} ({error})", story.name)),
            Err(_) => missing.push(story.name.clone()),
        }
    }
    let mut table = "| scenario | faults | expected | seen | rows acknowledged | rows lost | most writable nodes | write outage | took |\n\
                     | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    for row in &seen {
        let faults: Vec<String> = row.faults.iter().map(u32::to_string).collect();
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {} | {} | {} | {} | {:.2} s | {:.1} s |",
            row.scenario,
            faults.join(", "),
            row.expected,
            row.seen(),
            row.rows_acknowledged,
            row.rows_lost,
            row.most_writable_nodes,
            row.write_outage_seconds,
            row.took_seconds
        );
    }
    let beside = rows.parent().unwrap_or(rows);
    fs::write(beside.join("table.md"), &table).map_err(|error| error.to_string())?;
    fs::write(beside.join("table.json"), serde_json::to_vec_pretty(&seen).unwrap()).map_err(|error| error.to_string())?;
    let acknowledged: usize = seen.iter().map(|row| row.rows_acknowledged).sum();
    let lost: usize = seen.iter().map(|row| row.rows_lost).sum();
    let passed = seen.iter().filter(|row| row.outcome == "passed").count();
    let _ = writeln!(table, "\n{passed} of {} scenarios passed; {acknowledged} rows acknowledged, {lost} lost", wanted.len());
    if missing.is_empty() { Ok(table) } else { Err(format!("{table}\nno row was written by: {}", missing.join(", "))) }
}

/// The run calls this at its end, with the folder of the rows and the words that choose scenarios.
#[test]
#[ignore = "the end of a run of scenarios: tests/scenarios/run"]
fn the_table_of_this_run_is_whole() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; try: tests/scenarios/run"));
    let words = variable("UNDERSTUDY_SCENARIO_WORDS");
    let words: Vec<&str> = words.split_whitespace().collect();
    let slow = variable("UNDERSTUDY_SCENARIO_SLOW") == "yes";
    let chosen = |story: &Story| story.slow == slow && (words.is_empty() || words.iter().any(|word| story.name.contains(word)));
    let wanted: Vec<Story> = register().into_iter().filter(chosen).collect();
    match collect(Path::new(&variable(ROWS)), &wanted) {
        Ok(table) => eprintln!("{table}"),
        Err(why) => panic!("{why}"),
    }
}

/// The register is judged too: these need no installation.
#[cfg(test)]
mod tests {
    use super::*;

    /// Of the whole list; what comes after these is about two regions and about backups, which there are not.
    const FAULTS: std::ops::RangeInclusive<u32> = 1..=27;

    fn sources() -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
        let files = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
        files.filter(|file| file.extension().is_some_and(|ending| ending == "rs")).map(|file| fs::read_to_string(file).unwrap()).collect()
    }

    #[test]
    fn each_registered_scenario_is_a_test_and_slow_ones_are_ignored() {
        let sources = sources();
        for story in register() {
            let head = format!("fn {}() {{", story.name);
            let at = sources.find(&head).unwrap_or_else(|| panic!("no test is called '{}'", story.name));
            let attributes = &sources[sources[..at].rfind("#[test]").unwrap()..at];
            assert_eq!(attributes.contains("#[ignore"), story.slow, "{}: only slow scenarios are ignored", story.name);
            assert!(sources[at..].contains(&format!("(\"{}\"", story.name)), "{} begins under another name", story.name);
        }
    }

    #[test]
    fn each_fault_of_the_list_has_a_scenario() {
        let stories = register();
        for fault in FAULTS {
            assert!(stories.iter().any(|story| story.faults.contains(&fault)), "no scenario stands for fault {fault}");
        }
    }

    #[test]
    fn a_scenario_that_leaves_no_row_is_missed() {
        let folder = tempfile::tempdir().unwrap();
        let rows = folder.path().join("rows");
        fs::create_dir(&rows).unwrap();
        let wanted = &register()[..2];
        let row = Row {
            scenario: wanted[0].name.clone(),
            faults: vec![1],
            expected: "it stays".to_owned(),
            outcome: "passed".to_owned(),
            rules: vec!["R340".to_owned(), "R400".to_owned()],
            primary: ("pg-a".to_owned(), "pg-b".to_owned()),
            epoch: (3, 4),
            rows_acknowledged: 700,
            rows_lost: 0,
            rows_given_up: 0,
            most_writable_nodes: 1,
            write_outage_seconds: 0.234,
            took_seconds: 5.04,
        };
        fs::write(rows.join(format!("{}.json", row.scenario)), serde_json::to_vec(&row).unwrap()).unwrap();
        let line =
            format!("| `{}` | 1 | it stays | passed: pg-a → pg-b, epoch 3 → 4: R340 R400 | 700 | 0 | 1 | 0.23 s | 5.0 s |", row.scenario);
        let table = collect(&rows, &wanted[..1]).unwrap();
        assert!(table.contains(&line), "{table}");
        assert!(table.contains("1 of 1 scenarios passed; 700 rows acknowledged, 0 lost"), "{table}");
        let why = collect(&rows, wanted).unwrap_err();
        assert!(why.contains(&format!("no row was written by: {}", wanted[1].name)), "{why}");
    }
}
