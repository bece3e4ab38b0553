//! A headless Chromium, driven over WebDriver: plain HTTP and JSON, so no library is needed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a test waits for what must be seen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A viewer's screen.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

/// One browser with one tab. Ended, with all that it started, with the test.
pub struct Browser {
    driver: Child,
    // Removed with its profile.
    _folder: TempDir,
    client: reqwest::Client,
    session: String,
}

fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/tools").join(name);
    assert!(path.exists(), "'{name}' is not in '{}'; try: scripts/fetch-test-tools", path.display());
    path.canonicalize().unwrap()
}

impl Browser {
    /// Starts it. `scripts`: does it run any?
    pub async fn start(scripts: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut driver = Command::new(tool("chromedriver"))
            .arg("--port=0")
            .env("TMPDIR", folder.path())
            .env("HOME", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port: u16 = lines
            .find_map(|line| line.split("successfully on port ").nth(1)?.trim_end_matches('.').parse().ok())
            .expect("a driver that says on which port it listens");
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let client = understudy::http_client::builder(&[]).unwrap().no_proxy().timeout(PATIENCE).build().unwrap();
        let options = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": {
                "binary": tool("chromium"),
                // As root it has no sandbox; what it opens is ours.
                "args": ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-proxy-server",
                         format!("--user-data-dir={}", folder.path().join("profile").display())],
            },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        // Made before it is asked for anything: what fails from here on is ended, too.
        let mut browser = Self { session: format!("http://127.0.0.1:{port}/session"), driver, _folder: folder, client };
        let answer: Value = browser.client.post(&browser.session).json(&options).send().await.unwrap().json().await.unwrap();
        let session = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {answer}"));
        browser.session = format!("{}/{session}", browser.session);
        if !scripts {
            browser.tell("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
        }
        browser
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.client.post(format!("{}/{path}", self.session)).json(&body).send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{path}: {body}");
        body["value"].clone()
    }

    pub async fn open(&self, url: &str) {
        self.post("url", json!({ "url": url })).await;
    }

    /// The value of an expression in the page.
    pub async fn evaluate(&self, expression: &str) -> Value {
        self.post("execute/sync", json!({ "script": format!("return {expression}"), "args": [] })).await
    }

    /// What a screen reader would say, role by role. Needs no script.
    pub async fn spoken(&self) -> String {
        let tree = self.tell("Accessibility.getFullAXTree", json!({})).await;
        let nodes = tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] != json!(true));
        let words = nodes.map(|node| {
            let text = |key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", text("role"), text("name"))
        });
        words.collect::<Vec<_>>().join("\n")
    }

    /// Looks until an expression in the page is true.
    pub async fn until(&self, what: &str, expression: &str) {
        let begun = Instant::now();
        while self.evaluate(expression).await != json!(true) {
            assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}; the page says:\n{}", self.spoken().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One of Chromium's own commands.
    async fn tell(&self, command: &str, parameters: Value) -> Value {
        self.post("goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    /// Whatever the page or the browser complained of since the last call: scripts that failed, what the policy refused.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = self.post("se/log", json!({ "type": "browser" })).await;
        entries.as_array().unwrap().iter().map(|entry| entry["message"].to_string()).collect()
    }

    pub async fn look_on(&self, screen: Screen) {
        let mobile = screen.width < 600;
        self.tell(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": screen.width, "height": screen.height, "deviceScaleFactor": if mobile { 2 } else { 1 }, "mobile": mobile }),
        )
        .await;
        let scheme = if screen.dark { "dark" } else { "light" };
        self.tell("Emulation.setEmulatedMedia", json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] })).await;
    }

    /// The whole page as a PNG.
    pub async fn keep_picture(&self, file: &Path) {
        let picture = self.tell("Page.captureScreenshot", json!({ "captureBeyondViewport": true, "format": "png" })).await;
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, decoded(picture["data"].as_str().unwrap())).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser when it is told to shut down; killed it would leave it behind.
        let base = self.session.rsplit_once("/session").map_or(self.session.as_str(), |(base, _)| base).to_owned();
        let session = self.session.clone();
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = understudy::http_client::builder(&[]).unwrap().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
                let _ = client.delete(session).send().await;
                let _ = client.get(format!("{base}/shutdown")).send().await;
            });
        });
        let _ = ended.join();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Base64, as the driver hands a picture over.
fn decoded(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for character in text.bytes().filter(|byte| *byte != b'=') {
        let value = ALPHABET.iter().position(|known| *known == character).expect("base64");
        bits = bits << 6 | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    bytes
}
