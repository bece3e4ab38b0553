//! `postgres-node`: entrypoint of a node's container; takes the recorded role, then becomes postgres.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use clap::Parser;
use understudy::node::command::CommandLine;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).format_timestamp_millis().init();
    match CommandLine::parse().execute() {
        Ok(said) => {
            println!("{}", said.output);
            said.exit_code.into()
        }
        Err(error) => {
            eprintln!("postgres-node: {error}");
            ExitCode::FAILURE
        }
    }
}
