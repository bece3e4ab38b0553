//! The command line of `fetch`: what was typed, and what comes of it.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;

use super::address::check_name;
use super::error::Error;
use super::exit_code::ExitCode;
use super::input::{Wanted, sha256_of};
use super::listing::Listing;
use super::plan::{Plan, Step, plan};
use super::progress::{Progress, Telling};
use super::report::{self, Outcome, Row};
use super::settings::{Existing, Settings};
use super::verify::Check;
use super::workers;

const EXAMPLES: &str = "\
Examples:
  fetch https://host/a.tar.gz https://host/b.iso          both at once, into this directory
  fetch -d /srv/files -i list.txt                         a list: lines of the form URL [SHA256|-] [NAME]
  fetch --sha256 9f86…0a08 -o tool https://host/v1/tool   one file, under another name, if its checksum fits
  fetch --profile backup s3://bucket/dump.zst             with a profile of `aws configure`
  fetch --endpoint-url http://127.0.0.1:9000 s3://b/key   an S3 that is not at AWS
  fetch --json --skip-existing -i list.txt                for programs: one JSON object, and 0 when all files are there

A transfer that was ended leaves NAME.part and NAME.part.json: the same command goes on with it, if the object is still the same.
";

/// Downloads files in parallel, resumes what was interrupted, and gives a file its name only when it is whole.
#[derive(Debug, Parser)]
#[command(name = "fetch", version, after_help = format!("{EXAMPLES}\n{}", ExitCode::TABLE), max_term_width = 120)]
pub struct CommandLine {
    /// What to fetch: http, https or s3://bucket/key
    #[arg(value_name = "URL")]
    addresses: Vec<String>,
    /// The same, as an option
    #[arg(short = 'u', long = "url", value_name = "URL")]
    more_addresses: Vec<String>,
    /// A list, one file a line: URL [SHA256|-] [NAME]; - for standard input
    #[arg(short, long, value_name = "FILE")]
    input_file: Option<PathBuf>,
    /// Where the files go; made where it is missing
    #[arg(short, long, value_name = "DIRECTORY", default_value = ".")]
    dir: PathBuf,
    /// The file's name, where there is one URL
    #[arg(short, long, value_name = "NAME", value_parser = name)]
    output: Option<String>,
    /// Files at a time
    #[arg(short, long, value_name = "NUMBER", default_value_t = 16, value_parser = at_least_one)]
    jobs: usize,
    /// Files of one host at a time [default: as many as --jobs]
    #[arg(long, value_name = "NUMBER", value_parser = at_least_one)]
    per_host: Option<usize>,
    /// Ranges of one file at a time, from 32 MiB on
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = at_least_one)]
    connections: usize,
    /// The file's checksum, where there is one URL
    #[arg(long, value_name = "DIGITS", value_parser = checksum)]
    sha256: Option<Check>,
    /// Attempts after the first one, of each connection; a file that gets on by 1 MiB has all of them again
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    retries: u32,
    /// How long no byte may come
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    timeout: Duration,
    /// How long all may take; what has come until then is kept
    #[arg(long, value_name = "TIME", value_parser = time)]
    deadline: Option<Duration>,
    /// Replace files that exist
    #[arg(long, conflicts_with = "skip_existing")]
    overwrite: bool,
    /// Leave files that exist, and count them as there; with a checksum only if it fits
    #[arg(long)]
    skip_existing: bool,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
    /// Say only what failed
    #[arg(short, long)]
    quiet: bool,
    /// Say what would be fetched; ask nobody and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Authorities to trust beside those of this machine, in PEM
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Where S3 is, if not at AWS
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
    /// A profile of `aws configure`
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Ask S3 without credentials
    #[arg(long, conflicts_with = "profile")]
    no_sign_request: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "a number from 1 on is needed".to_owned())
}

/// A time with its unit, or seconds.
fn time(text: &str) -> Result<Duration, String> {
    let time = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string())?,
    };
    if time.is_zero() { Err("more than nothing is needed".to_owned()) } else { Ok(time) }
}

fn name(text: &str) -> Result<String, Error> {
    check_name(text).map(|()| text.to_owned())
}

fn checksum(text: &str) -> Result<Check, String> {
    sha256_of(text).map_err(|_| "64 hexadecimal digits are needed".to_owned())
}

/// Why a run does not begin, in one line with what helps.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Cause and remedy.
    pub words: String,
    /// How the program ends.
    pub exit_code: ExitCode,
}

impl Refusal {
    fn usage(words: impl Into<String>) -> Self {
        Self { words: words.into(), exit_code: ExitCode::Usage }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Answer {
    /// For standard output.
    pub output: String,
    /// How the program ends.
    pub exit_code: ExitCode,
}

impl CommandLine {
    /// Does the caller want JSON?
    #[must_use]
    pub fn wants_json(&self) -> bool {
        self.json
    }

    /// Fetches what is wanted. `interrupt` ends when a person wants it to end; `is_terminal` is whether one sees standard error.
    ///
    /// # Errors
    /// Nothing can be fetched at all.
    pub async fn execute(self, is_terminal: bool, interrupt: impl Future<Output = ()>) -> Result<Answer, Refusal> {
        let begun = Instant::now();
        let settings = self.settings();
        let wanted = self.wanted()?;
        let listing = Listing::of(&settings.directory, wanted.len());
        let plan = plan(wanted, settings.existing, |name| listing.look(name));
        let telling = match (self.quiet, is_terminal) {
            (true, _) => Telling::Failures,
            (_, true) => Telling::Bars,
            _ => Telling::Lines,
        };
        let progress = Progress::new(if self.dry_run { Telling::Failures } else { telling }, plan.entries.len());
        if !self.quiet {
            plan.notes.iter().for_each(|note| progress.say(note));
        }
        let rows = if self.dry_run {
            let rows = rows_of_a_dry_run(&plan);
            rows.iter().for_each(|row| progress.tell(row));
            rows
        } else {
            let failed = |words| Refusal { words, exit_code: ExitCode::Failed };
            std::fs::create_dir_all(&settings.directory).map_err(|error| {
                let error = Error::Directory { directory: settings.directory.display().to_string(), cause: error.to_string() };
                failed(format!("{error}; try: {}", error.remedy()))
            })?;
            workers::run(&plan, &settings, &progress, interrupt).await.map_err(failed)?
        };
        progress.clear();
        let interrupted = rows.iter().any(|row| row.outcome == Outcome::Failed(Error::Interrupted));
        let exit_code = report::exit_code(&rows, interrupted);
        let kept = rows.iter().filter(|row| row.kept > 0).count();
        if !self.quiet && kept > 0 {
            let parts = if kept == 1 { "1 part is kept".to_owned() } else { format!("{kept} parts are kept") };
            progress.say(&format!("{parts} in {}; the same command goes on with what is there", settings.directory.display()));
        }
        let output = match (self.json, self.quiet) {
            (true, _) => report::json(&rows, &plan.notes, begun.elapsed(), exit_code).to_string(),
            (_, true) => String::new(),
            _ => report::table(&rows, begun.elapsed()),
        };
        Ok(Answer { output, exit_code })
    }

    fn settings(&self) -> Settings {
        Settings {
            directory: self.dir.clone(),
            jobs: self.jobs,
            per_host: self.per_host.unwrap_or(self.jobs),
            connections: self.connections,
            retries: self.retries,
            timeout: self.timeout,
            deadline: self.deadline,
            existing: match (self.overwrite, self.skip_existing) {
                (true, _) => Existing::Overwrite,
                (_, true) => Existing::Skip,
                _ => Existing::Refuse,
            },
            cacert: self.cacert.clone(),
            endpoint_url: self.endpoint_url.clone(),
            profile: self.profile.clone(),
            sign: !self.no_sign_request,
        }
    }

    fn wanted(&self) -> Result<Vec<Wanted>, Refusal> {
        let mut wanted: Vec<Wanted> = self.addresses.iter().chain(&self.more_addresses).map(|address| Wanted::address(address)).collect();
        if let Some(path) = &self.input_file {
            let mut list = Vec::new();
            let read = if path.as_os_str() == "-" {
                std::io::stdin().read_to_end(&mut list).map(|_| ())
            } else {
                std::fs::read(path).map(|content| list = content)
            };
            read.map_err(|error| {
                Refusal::usage(format!("cannot read the list '{}': {error}; try: name a file with --input-file", path.display()))
            })?;
            wanted.extend(String::from_utf8_lossy(&list).lines().filter_map(Wanted::line));
        }
        if wanted.is_empty() {
            return Err(Refusal::usage("nothing to fetch; try: a URL, or a list with --input-file; --help"));
        }
        for (given, option) in [(self.output.is_some(), "--output"), (self.sha256.is_some(), "--sha256")] {
            if given && wanted.len() > 1 {
                let remedy = "a list with --input-file, with lines of the form URL [SHA256|-] [NAME]";
                return Err(Refusal::usage(format!("{option} is for one URL, and there are {}; try: {remedy}", wanted.len())));
            }
        }
        if let Some(only) = wanted.first_mut() {
            only.name = self.output.clone().or(only.name.take());
            only.sha256 = self.sha256.clone().or(only.sha256.take());
        }
        Ok(wanted)
    }
}

fn rows_of_a_dry_run(plan: &Plan) -> Vec<Row> {
    let row = |entry: &super::plan::Entry| {
        let (outcome, size) = match &entry.step {
            Step::Fetch(_) => (Outcome::Planned, None),
            Step::Verify(_, size) | Step::Keep(size) => (Outcome::Present, Some(*size)),
            Step::Refuse(error) => (Outcome::Failed(error.clone()), None),
        };
        let remark = match &entry.step {
            Step::Verify(..) => Some("its checksum would be looked at"),
            Step::Fetch(job) if job.begun => Some("its part is there; it would be gone on with, if the object is still the same"),
            _ => None,
        };
        Row { remark: remark.map(str::to_owned), ..Row::of(&entry.shown, entry.name.as_deref(), size, outcome) }
    };
    plan.entries.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn help_has_examples_and_the_exit_codes() {
        let help = CommandLine::command().render_long_help().to_string();
        assert!(help.contains("fetch -d /srv/files -i list.txt"));
        assert!(help.contains(ExitCode::TABLE));
    }

    fn wanted(arguments: &[&str]) -> Result<Vec<Wanted>, Refusal> {
        CommandLine::try_parse_from(["fetch"].iter().chain(arguments)).unwrap().wanted()
    }

    #[test]
    fn addresses_come_from_everywhere_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        std::fs::write(&list, "# a list\nhttp://h/c\n\nhttp://h/d - e\n").unwrap();
        let wanted = wanted(&["http://h/a", "-u", "http://h/b", "-i", list.to_str().unwrap()]).unwrap();
        assert_eq!(
            wanted.iter().map(|wanted| wanted.shown.as_str()).collect::<Vec<_>>(),
            ["http://h/a", "http://h/b", "http://h/c", "http://h/d"]
        );
        assert_eq!(wanted[3].name.as_deref(), Some("e"));
    }

    #[test]
    fn nothing_to_fetch_and_one_name_for_many_are_wrong_usage() {
        assert_eq!(wanted(&[]).unwrap_err().exit_code, ExitCode::Usage);
        let refused = wanted(&["-o", "x", "http://h/a", "http://h/b"]).unwrap_err();
        assert!(refused.words.starts_with("--output is for one URL, and there are 2; try: "), "{refused:?}");
        for wrong in [
            &["-j", "0", "http://h/a"][..],
            &["-o", "../x", "http://h/a"],
            &["--sha256", "12", "http://h/a"],
            &["--timeout", "soon", "http://h/a"],
        ] {
            assert!(CommandLine::try_parse_from(["fetch"].iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }
}
