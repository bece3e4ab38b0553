//! Asks the app over HTTP whether it is ready.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::observation::AppView;
use super::observe::AppProbe;

/// The app, over HTTP. Without TLS, and without anything of the process that a TLS library needs: no failover may depend on that.
pub struct HttpApp {
    url: Url,
    deadline: Duration,
}

/// What is read of an answer that says no, in bytes. The app's own is a line; whoever else listens there may send anything.
const LARGEST_REASON: usize = 16 * 1024;

impl HttpApp {
    /// The app at `base`, an `http://` address without a path.
    #[must_use]
    pub fn new(base: &Url, deadline: Duration) -> Self {
        Self { url: base.clone(), deadline }
    }

    /// Over a fresh connection each time: a kept one would hide that the app's network is gone. No proxy stands between a host and itself.
    async fn request(&self) -> Result<hyper::Response<Incoming>, AppView> {
        let failed = |error: hyper::Error| AppView::NotReady(format!("/ready: {error}"));
        let (host, port) = (self.url.host_str().unwrap_or_default(), self.url.port_or_known_default().unwrap_or(80));
        // An address of IPv6 is in brackets in a URL, and only there.
        let connected = TcpStream::connect((host.trim_matches(['[', ']']), port)).await;
        let stream = connected.map_err(|_| AppView::NotReady("nothing listens at the app's address".to_owned()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // It ends when the answer is dropped.
        tokio::spawn(connection);
        let mut request = Request::new(Empty::<Bytes>::new());
        let path = format!("{}/ready", self.url.path().trim_end_matches('/'));
        let unspeakable = |error: &dyn std::fmt::Display| AppView::NotReady(format!("app_url cannot be asked: {error}"));
        *request.uri_mut() = path.parse().map_err(|error| unspeakable(&error))?;
        request.headers_mut().insert(HOST, format!("{host}:{port}").parse().map_err(|error| unspeakable(&error))?);
        sender.send_request(request).await.map_err(failed)
    }
}

impl AppProbe for HttpApp {
    async fn ask(&self) -> AppView {
        let until = Instant::now() + self.deadline;
        let answer = match timeout_at(until, self.request()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(not_ready)) => return not_ready,
            Err(_) => return AppView::NotReady("/ready gave no answer within the deadline".to_owned()),
        };
        let status = answer.status();
        if status.is_success() {
            return AppView::Ready;
        }
        let body = timeout_at(until, Limited::new(answer.into_body(), LARGEST_REASON).collect()).await;
        let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        AppView::NotReady(match body.get("reason").and_then(serde_json::Value::as_str) {
            Some(reason) => format!("/ready says {}: {reason}", status.as_u16()),
            None => format!("/ready says {}", status.as_u16()),
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const DEADLINE: Duration = Duration::from_millis(300);

    fn app_at(port: u16) -> HttpApp {
        HttpApp::new(&format!("http://127.0.0.1:{port}/").parse().unwrap(), DEADLINE)
    }

    /// What is seen of an app that answers with these bytes, and then closes the connection or falls silent.
    async fn seen_of(answer: String, closes: bool) -> AppView {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = app_at(listener.local_addr().unwrap().port());
        let serve = async {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = connection.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let _ = connection.write_all(answer.as_bytes()).await;
            if closes {
                drop(connection);
            } else {
                std::mem::forget(connection);
            }
            request
        };
        let (view, request) = tokio::join!(app.ask(), serve);
        assert!(request.starts_with("GET /ready HTTP/1.1\r\nhost: 127.0.0.1:"), "{request}");
        view
    }

    fn not_ready(why: &str) -> AppView {
        AppView::NotReady(why.to_owned())
    }

    #[tokio::test]
    async fn what_the_app_says_is_seen_without_any_tls_provider() {
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
        assert_eq!(seen_of("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(), true).await, AppView::Ready);
        let refusal = |body: &str| format!("HTTP/1.1 503 No\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        assert_eq!(seen_of(refusal(r#"{"reason":"no primary"}"#), true).await, not_ready("/ready says 503: no primary"));
        assert_eq!(seen_of(refusal("no JSON"), true).await, not_ready("/ready says 503"));
        let endless = format!(r#"{{"reason":"{}"}}"#, "x".repeat(LARGEST_REASON));
        assert_eq!(seen_of(refusal(&endless), true).await, not_ready("/ready says 503"), "only so much is read");
        assert_eq!(seen_of("HTTP/1.1 302 No\r\nlocation: /\r\n\r\n".to_owned(), true).await, not_ready("/ready says 302"));
    }

    #[tokio::test]
    async fn an_app_that_is_silent_is_not_waited_for() {
        assert_eq!(seen_of(String::new(), false).await, not_ready("/ready gave no answer within the deadline"));
        let half = "HTTP/1.1 503 No\r\ncontent-length: 9\r\n\r\nx".to_owned();
        assert_eq!(seen_of(half, false).await, not_ready("/ready says 503"), "its status was an answer");
        let well = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx".to_owned();
        assert_eq!(seen_of(well, false).await, AppView::Ready);
    }

    #[tokio::test]
    async fn an_app_that_is_gone_is_told_from_one_that_speaks_nonsense() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        assert_eq!(app_at(port).ask().await, not_ready("nothing listens at the app's address"));
        let AppView::NotReady(why) = seen_of("nonsense\r\n\r\n".to_owned(), true).await else { panic!("ready") };
        assert!(why.starts_with("/ready: "), "{why}");
    }
}
