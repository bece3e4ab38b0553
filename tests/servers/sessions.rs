//! How `failover-check` keeps the sessions of its questions: cheaply, and without taking an old session's word for more than it is.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use understudy::failover::servers::{LOG_IN_EVERY, PairServers, Servers};
use understudy::failover::settings::Login;
use understudy::postgres::connection::ServerError;
use understudy::postgres::status::ServerStatus;

use crate::support::{Folder, Server};

const DEADLINE: Duration = Duration::from_millis(800);

/// A pass's questions to one server.
struct Asker {
    servers: PairServers,
    /// A thread of its own, so that it drives the sessions while the test does something else.
    runtime: tokio::runtime::Runtime,
}

impl Asker {
    fn of(server: &Server<'_>) -> Self {
        server.execute("CREATE ROLE checker LOGIN IN ROLE pg_monitor");
        let login = Login { port: server.port, user: "checker".to_owned(), password: String::new(), database: "postgres".to_owned() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { servers: PairServers::new(login, DEADLINE), runtime }
    }

    fn ask(&self) -> Result<ServerStatus, ServerError> {
        self.runtime.block_on(self.servers.ask(IpAddr::V4(Ipv4Addr::LOCALHOST)))
    }
}

/// The process that serves the kept session.
fn backend(server: &Server<'_>) -> Pid {
    Pid::from_raw(server.ask("SELECT min(pid) FROM pg_stat_activity WHERE usename = 'checker'").parse().unwrap())
}

#[test]
fn one_session_answers_until_it_is_time_to_log_in_anew() {
    let folder = Folder::new();
    let server = folder.primary(17);
    let asker = Asker::of(&server);
    asker.ask().unwrap();
    let first = backend(&server);
    asker.ask().unwrap();
    assert_eq!(backend(&server), first);
    server.execute("ALTER ROLE checker NOLOGIN");
    asker.ask().unwrap();

    std::thread::sleep(LOG_IN_EVERY);

    for _ in 0..2 {
        let refused = asker.ask();
        assert!(matches!(&refused, Err(ServerError::Refusing(why)) if why.contains("not permitted to log in")), "{refused:?}");
    }
}

#[test]
fn a_session_that_was_ended_is_no_silence_of_the_server() {
    let folder = Folder::new();
    let server = folder.primary(17);
    let asker = Asker::of(&server);
    asker.ask().unwrap();
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'checker'");
    asker.ask().unwrap();
    server.stop();
    assert!(matches!(asker.ask(), Err(ServerError::Unreachable(_))));
    server.start();
    asker.ask().unwrap();
}

#[test]
fn a_silent_session_costs_one_deadline_and_the_next_question_logs_in() {
    let folder = Folder::new();
    let server = folder.primary(17);
    let asker = Asker::of(&server);
    asker.ask().unwrap();
    let silent = backend(&server);
    kill(silent, Signal::SIGSTOP).unwrap();

    let begun = Instant::now();
    assert_eq!(asker.ask(), Err(ServerError::TimedOut(DEADLINE)));
    assert!(begun.elapsed() < DEADLINE * 3 / 2, "{:?}", begun.elapsed());

    asker.ask().unwrap();
    kill(silent, Signal::SIGCONT).unwrap();
}

#[test]
fn a_kept_session_shows_the_settings_that_are_in_force_now() {
    let folder = Folder::new();
    let server = folder.primary(17);
    let asker = Asker::of(&server);
    asker.ask().unwrap();
    let first = backend(&server);
    server.execute("ALTER SYSTEM SET synchronous_standby_names = 'somebody'");
    server.execute("SELECT pg_reload_conf()");
    // A new session gets it, so the postmaster has told all the others.
    server.wait_for("current_setting('synchronous_standby_names')", "somebody");
    let status = asker.ask().unwrap();
    assert!(format!("{status:?}").contains("synchronous_standby_names: \"somebody\""), "{status:?}");
    assert_eq!(backend(&server), first);
}
