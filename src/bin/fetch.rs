//! `fetch`: downloads files in parallel, and says how each went.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use understudy::failover::command::usage_error;
use understudy::fetch::command::{Answer, CommandLine, Refusal};
use understudy::fetch::exit_code::ExitCode as Code;

/// Ends at the first SIGINT or SIGTERM. The second one ends the program: whoever sends it does not want to wait for the disk.
async fn interrupt() {
    let (Ok(mut interrupts), Ok(mut terminations)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        return std::future::pending().await;
    };
    let mut next = async move || tokio::select! { _ = interrupts.recv() => {}, _ = terminations.recv() => {} };
    next().await;
    tokio::spawn(async move {
        next().await;
        std::process::exit(Code::Interrupted as i32);
    });
}

fn main() -> ExitCode {
    // What the libraries say is for whoever asks for it by RUST_LOG.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("off")).format_timestamp_millis().init();
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => match usage_error(&error) {
            Some(words) => {
                eprintln!("fetch: {words}");
                return Code::Usage.into();
            }
            None => error.exit(),
        },
    };
    let wants_json = command_line.wants_json();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("fetch: cannot start: {error}; try: look at the limits of this user (ulimit -a)");
            return Code::Failed.into();
        }
    };
    match runtime.block_on(command_line.execute(std::io::stderr().is_terminal(), interrupt())) {
        Ok(Answer { output, exit_code }) => {
            if !output.is_empty() {
                // Who closed it does not want to read it.
                let _ = writeln!(std::io::stdout(), "{output}");
            }
            exit_code.into()
        }
        Err(Refusal { words, exit_code }) => {
            if wants_json {
                println!("{}", serde_json::json!({ "error": words, "exit_code": exit_code as u8 }));
            } else {
                eprintln!("fetch: {words}");
            }
            exit_code.into()
        }
    }
}
