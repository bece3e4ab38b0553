//! The listener, the server, the following of the record, and the end of all three.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::{App, HttpServer, web};

use super::error::StartError;
use super::instruments::Instruments;
use super::page::Page;
use super::primary::Primary;
use super::readiness::Checker;
use super::routes;
use super::settings::Settings;

/// Threads that serve. The answers are small and the waiting is asynchronous. Two would each sleep and wake up more often: a request would take half as much
/// CPU time again and, under load, its answer ten times as long.
const WORKERS: usize = 1;

/// How long `/ready` says "shutting down" before connections are refused: a probe that comes every second sees it.
const ANNOUNCE: Duration = Duration::from_secs(1);

/// How long requests under way may take after that. With [`ANNOUNCE`] well below the 10 s that `docker stop` waits.
const DRAIN_SECONDS: u64 = 5;

/// The app, bound to its port and not yet serving.
pub struct Application {
    server: Server,
    port: u16,
    primary: Arc<Primary>,
    checker: web::Data<Checker>,
}

impl Application {
    /// Reads the password and the record, and binds the port. Asks no server yet.
    ///
    /// # Errors
    /// The password file cannot be used, or the address cannot be listened on.
    pub async fn build(settings: Settings) -> Result<Self, StartError> {
        let listen = |source| StartError::Listen { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).map_err(listen)?;
        let port = listener.local_addr().map_err(listen)?.port();
        let instruments = Arc::new(Instruments::new());
        let primary = Arc::new(Primary::open(&settings, Arc::clone(&instruments)).await?);
        let checker = web::Data::new(Checker::new(Arc::clone(&primary), Arc::clone(&instruments), settings.ready_deadline));
        let instruments = web::Data::from(instruments);
        let page = web::Data::new(Page::new(settings.record.clone()));
        let shared_checker = checker.clone();
        let app = move || {
            let app = App::new().app_data(shared_checker.clone()).app_data(instruments.clone()).app_data(page.clone());
            app.configure(routes::configure)
        };
        let server = HttpServer::new(app).workers(WORKERS).disable_signals().shutdown_timeout(DRAIN_SECONDS).listen(listener)?.run();
        Ok(Self { server, port, primary, checker })
    }

    /// The port that is listened on; tells a test which one port 0 became.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Serves until `stop` ends; then says so in `/ready`, lets requests under way finish, and returns.
    ///
    /// # Errors
    /// The server itself failed.
    pub async fn run_until_stopped(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let handle = self.server.handle();
        let primary = self.primary;
        let following = tokio::spawn(async move { primary.follow().await });
        let mut server = std::pin::pin!(self.server);
        log::info!("listening on port {}", self.port);

        let ended_by_itself = tokio::select! {
            result = &mut server => Some(result),
            () = async {
                stop.await;
                log::info!("shutting down");
                self.checker.begin_shutdown();
                tokio::time::sleep(ANNOUNCE).await;
            } => None,
        };
        let result = match ended_by_itself {
            Some(result) => result,
            None => {
                let ((), result) = tokio::join!(handle.stop(true), server);
                result
            }
        };
        following.abort();
        result
    }
}
