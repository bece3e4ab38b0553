//! The real app, in this process, on a free port.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use understudy::web::settings::Settings;
use understudy::web::startup::Application;

use super::throwaway_server::{PASSWORD, USER};

/// The app's deadline in these tests: long enough for a busy machine to answer, short enough to wait for.
pub const DEADLINE: Duration = Duration::from_millis(500);

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(15);

/// An app with its own record and password file. Ends with the test.
pub struct RunningApp {
    folder: TempDir,
    port: u16,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

/// One answer. The body is null where it is no JSON.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: serde_json::Value,
    text: String,
    headers: reqwest::header::HeaderMap,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }
}

impl RunningApp {
    /// The nodes are expected on `database_port` of whatever address the record names. There is no record yet.
    pub async fn start(database_port: u16) -> Self {
        Self::start_with_password(database_port, PASSWORD).await
    }

    pub async fn start_with_password(database_port: u16, password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let password_file = folder.path().join("database_password");
        std::fs::write(&password_file, password).unwrap();
        let application = Application::build(Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            record: folder.path().join("cluster.json"),
            password_file,
            database: "postgres".to_owned(),
            database_user: USER.to_owned(),
            database_port,
            ready_deadline: DEADLINE,
            pool_size: 4,
        })
        .await
        .unwrap();
        let port = application.port();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let stop = async {
                // A sender that was dropped stops the app too: its test has ended.
                let _ = stopped.await;
            };
            application.run_until_stopped(stop).await.unwrap();
        });
        Self { folder, port, client: understudy::http_client::builder(&[]).unwrap().no_proxy().build().unwrap(), stop: Some(stop), serving }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the record, in which everything that the page shows lies too.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn record(&self) -> PathBuf {
        self.folder.path().join("cluster.json")
    }

    /// Replaces the record as `failover-check` does it: a new file, renamed over the old one.
    pub fn write_record(&self, content: &str) {
        let new = self.folder.path().join("cluster.json.new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(&new, self.record()).unwrap();
    }

    pub fn name_primary(&self, primary: &str, epoch: u64) {
        self.write_record(&format!(
            r#"{{"version":1,"epoch":{epoch},"primary":"{primary}","standby_eligible":false,"transition":null,
                "paused":null,"system_identifier":null,"failovers":[]}}"#
        ));
    }

    pub fn remove_record(&self) {
        std::fs::remove_file(self.record()).unwrap();
    }

    pub fn write_password(&self, password: &str) {
        std::fs::write(self.folder.path().join("database_password"), password).unwrap();
    }

    pub async fn get(&self, path: &str) -> Answer {
        let response = self.client.get(format!("http://127.0.0.1:{}{path}", self.port)).timeout(PATIENCE).send().await.unwrap();
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.unwrap();
        Answer { status, body: serde_json::from_str(&text).unwrap_or_default(), text, headers }
    }

    /// The value of one metric without labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let metrics = self.get("/metrics").await;
        assert_eq!(metrics.status, 200);
        let value = metrics.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        match value {
            Some(value) => value.parse().unwrap(),
            None => panic!("no '{name}' in:\n{}", metrics.text),
        }
    }

    /// Asks `/ready` until it is as wished.
    pub async fn wait_for(&self, what: &str, wished: impl Fn(&Answer) -> bool) -> Answer {
        let begun = Instant::now();
        loop {
            let answer = self.get("/ready").await;
            if wished(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}; the last answer: {answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What SIGTERM does to the program.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).unwrap();
        }
    }

    pub async fn ended(&mut self) {
        (&mut self.serving).await.unwrap();
    }
}
