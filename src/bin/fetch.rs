//! `fetch`: downloads files in parallel, and says how each went.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use understudy::fetch::address::redacted_in;
use understudy::fetch::command::{Answer, CommandLine, Refusal};
use understudy::fetch::exit_code::ExitCode as Code;
use understudy::usage_error::usage_error;

/// Ends at the first SIGINT or SIGTERM after this call. The second one ends the program: whoever sends it does not want to wait for the disk.
fn interrupt() -> impl Future<Output = ()> {
    let signals = signal(SignalKind::interrupt()).and_then(|interrupts| Ok((interrupts, signal(SignalKind::terminate())?)));
    async move {
        let Ok((mut interrupts, mut terminations)) = signals else { return std::future::pending().await };
        let mut next = async move || tokio::select! { _ = interrupts.recv() => {}, _ = terminations.recv() => {} };
        next().await;
        tokio::spawn(async move {
            next().await;
            std::process::exit(Code::Interrupted as i32);
        });
    }
}

fn main() -> ExitCode {
    // No log: what the libraries below would write there may hold addresses as they are sent.
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => match usage_error(&error) {
            Some(words) => {
                // Quoted in it are arguments, and a URL in the wrong place may hold a password.
                let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
                eprintln!("fetch: {}", redacted_in(&words, arguments));
                return Code::Usage.into();
            }
            None => error.exit(),
        },
    };
    let wants_json = command_line.wants_json();
    // One thread for the network, which only copies; what waits for the disk has threads of its own. With more of them small files would cost half as much again.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("fetch: cannot start: {error}; try: look at the limits of this user (ulimit -a)");
            return Code::Failed.into();
        }
    };
    let ended = runtime.block_on(async { command_line.execute(std::io::stderr().is_terminal(), interrupt()).await });
    // What still runs then is the reading of files that are there, given up by a signal or a deadline.
    runtime.shutdown_background();
    match ended {
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
