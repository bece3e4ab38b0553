//! `app`: serves `/health`, `/ready` and `/metrics`, and follows the primary.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::Write;
use std::process::ExitCode;

use actix_web::rt::System;
use tokio::signal::unix::{SignalKind, signal};
use understudy::web::error::StartError;
use understudy::web::settings::{Asked, Settings};
use understudy::web::startup::Application;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
        .format(|out, line| {
            let now = jiff::Timestamp::now();
            writeln!(out, "{now:.3} {} {}", line.level(), line.args())
        })
        .init();
    let asked = Settings::from_command_line(std::env::args_os(), |name| std::env::var(name).ok());
    let result = match asked {
        Ok(Asked::Print(text)) => {
            print!("{text}");
            Ok(())
        }
        Ok(Asked::Serve(settings)) => System::new().block_on(serve(*settings)),
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error.remedy() {
                Some(remedy) => eprintln!("app: {error}; try: {remedy}"),
                None => eprintln!("app: {error}"),
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// The handlers are there before anything else: the first process of a container ignores signals it has none for.
async fn serve(settings: Settings) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let application = Application::build(settings).await?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(application.run_until_stopped(stop).await?)
}
