//! One request over http, https or to S3, and what the beginning of its answer says. Ranges, conditions and errors are the same for all of them.

use std::error::Error as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_RANGE, RANGE};
use reqwest::{Client, Response, redirect, retry};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::OnceCell;

use super::address::Address;
use super::error::Error;
use super::head::{Head, Validator};
use super::s3::Account;
use super::settings::Settings;
use crate::http_client;
use crate::with_causes::with_causes;

/// Redirects that are followed, one after the other.
const REDIRECTS: usize = 10;
/// Regions that are tried for one bucket: the one that was configured, and the one that S3 then names.
const REGIONS: usize = 2;
/// How much of an error's body is read for its code, in bytes.
const ERROR_BODY: usize = 16 * 1024;

/// An attempt that failed, and how long the server asks to wait before the next.
#[derive(Debug)]
pub struct Trouble {
    /// What went wrong.
    pub error: Error,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self { error, retry_after: None }
    }
}

/// Bytes of an object that are asked for, of one version only.
#[derive(Debug, Clone, Copy)]
pub struct Stretch<'a> {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
    /// The version.
    pub validator: &'a Validator,
}

/// The clients of a run, with their connections.
#[derive(Debug)]
pub struct Network {
    web: Client,
    s3: OnceCell<Result<(Account, Client), Error>>,
    authorities: Vec<CertificateDer<'static>>,
    settings: Settings,
}

impl Network {
    /// Prepares, and connects to nothing yet.
    ///
    /// # Errors
    /// The authorities that were given cannot be read. In words.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let authorities = settings.cacert.as_deref().map(authorities).transpose()?.unwrap_or_default();
        let web = client(settings, &authorities, redirect::Policy::custom(follow))
            .map_err(|error| format!("{error}; try: {}", error.remedy()))?;
        Ok(Self { web, s3: OnceCell::new(), authorities, settings: settings.clone() })
    }

    /// The account and a client of its own, made when the first object is asked for: it follows no redirects, since a signature holds for one host.
    async fn s3(&self) -> Result<&(Account, Client), Error> {
        let made =
            async || Ok((Account::load(&self.settings).await?, client(&self.settings, &self.authorities, redirect::Policy::none())?));
        self.s3.get_or_init(made).await.as_ref().map_err(Clone::clone)
    }

    /// Asks for an object, or for a stretch of it. Answers are 200 and 206; where a stretch was asked for, also 412 and 416.
    ///
    /// # Errors
    /// Anything else.
    pub async fn get(&self, address: &Address, stretch: Option<Stretch<'_>>) -> Result<(Head, Response), Trouble> {
        let mut headers = HeaderMap::new();
        // The bytes of the object, and lengths and ranges that count them.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(stretch) = stretch {
            let value =
                |text: &str| HeaderValue::from_str(text).map_err(|_| Error::Nonsense { cause: "the version is no header".to_owned() });
            headers.insert(RANGE, value(&format!("bytes={}-{}", stretch.start, stretch.end - 1))?);
            let condition = match (address, stretch.validator) {
                // S3 keeps to this one, where it may not know the other.
                (Address::Object { .. }, Validator::ETag(_)) => IF_MATCH,
                _ => IF_RANGE,
            };
            headers.insert(condition, value(stretch.validator.value())?);
        }
        let response = match address {
            Address::Web(url) => self.patiently(self.web.get(url.clone()).headers(headers).send()).await?,
            Address::Object { bucket, key } => self.object(bucket, key, &headers).await?,
        };
        let head = Head::read(response.status().as_u16(), response.headers(), SystemTime::now());
        match head.status {
            200 | 206 => Ok((head, response)),
            412 | 416 if stretch.is_some() => Ok((head, response)),
            status @ 300..=399 => {
                Err(Error::Redirect { cause: format!("the server answered {status}{}", detail(&response_reason(&response))) }.into())
            }
            status => {
                let retry_after = head.retry_after;
                let code = match address {
                    Address::Object { .. } => self.error_code(response).await,
                    Address::Web(_) => response_reason(&response),
                };
                Err(Trouble { error: Error::Status { status, detail: detail(&code) }, retry_after })
            }
        }
    }

    async fn object(&self, bucket: &str, key: &str, headers: &HeaderMap) -> Result<Response, Trouble> {
        let (account, client) = self.s3().await?;
        let mut region = account.region_of(bucket);
        for attempt in 1.. {
            let (url, signature) = account.request(bucket, key, &region).await?;
            let mut request = client.get(url).headers(headers.clone());
            for (name, value) in signature {
                let name = HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| Error::Nonsense { cause: "the signature is no header".to_owned() })?;
                request = request.header(name, value);
            }
            let response = self.patiently(request.send()).await?;
            let elsewhere = response.headers().get("x-amz-bucket-region").and_then(|region| region.to_str().ok()).map(str::to_owned);
            match (response.status().as_u16(), elsewhere) {
                (301 | 307 | 400, Some(other)) if other != region && attempt < REGIONS => {
                    account.learn(bucket, &other);
                    region = other;
                }
                _ => return Ok(response),
            }
        }
        unreachable!("the loop above ends by returning")
    }

    /// The code in the body of an error of S3; nothing else of it, since it may name keys.
    async fn error_code(&self, mut response: Response) -> String {
        let mut body = Vec::new();
        while body.len() < ERROR_BODY
            && let Ok(Ok(Some(chunk))) = tokio::time::timeout(self.settings.timeout, response.chunk()).await
        {
            body.extend_from_slice(&chunk);
        }
        let text = String::from_utf8_lossy(&body);
        let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code.trim());
        code.filter(|code| code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')).unwrap_or_default().to_owned()
    }

    /// The next piece of a body; none at its end.
    ///
    /// # Errors
    /// The connection ended, or nothing came for too long.
    pub async fn chunk(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, Error> {
        self.patiently(response.chunk()).await
    }

    async fn patiently<T>(&self, answer: impl Future<Output = reqwest::Result<T>>) -> Result<T, Error> {
        match tokio::time::timeout(self.settings.timeout, answer).await {
            Ok(answer) => answer.map_err(explained),
            Err(_) => Err(Error::Silent(self.settings.timeout)),
        }
    }
}

fn client(settings: &Settings, authorities: &[CertificateDer<'static>], policy: redirect::Policy) -> Result<Client, Error> {
    let unusable = |error: &dyn std::error::Error| Error::Certificate { cause: with_causes(error) };
    let builder = http_client::builder(authorities)
        .map_err(|error| unusable(&error))?
        .user_agent(concat!("understudy-fetch/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        // It would tell the host that a redirect leads to what signs the address.
        .referer(false)
        .redirect(policy)
        // Attempts are counted elsewhere. With none allowed here the client keeps no copy of each request either.
        .retry(retry::never().max_retries_per_request(0))
        .connect_timeout(settings.timeout)
        .pool_max_idle_per_host(settings.jobs.max(settings.connections));
    builder.build().map_err(|error| unusable(&error))
}

/// The certificates of authorities, from a file in PEM.
fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable =
        |words: String| format!("cannot read the authorities in '{}': {words}; try: a file with certificates in PEM", path.display());
    let pem = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| unreadable(with_causes(&error)))?;
    if found.is_empty() {
        return Err(unreadable("there is none".to_owned()));
    }
    Ok(found)
}

/// Follows redirects, but not out of TLS: who asked by https did not want anybody on the way to choose the bytes.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let downgraded = attempt.url().scheme() != "https" && attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if downgraded {
        return attempt.error("it leads from https to http");
    }
    if !matches!(attempt.url().scheme(), "http" | "https") {
        let words = format!("it leads to the scheme '{}'", attempt.url().scheme());
        return attempt.error(words);
    }
    if attempt.previous().len() > REDIRECTS {
        return attempt.error("it leads on and on");
    }
    attempt.follow()
}

/// The words of a client's error, without the address in it, which may hold a signature.
fn explained(error: reqwest::Error) -> Error {
    let error = error.without_url();
    // What it is built from is an address: the first one was looked at long before, so this is one that a redirect named.
    if error.is_redirect() || error.is_builder() {
        return Error::Redirect { cause: error.source().map_or_else(|| error.to_string(), ToString::to_string) };
    }
    if let Some(cause) = certificate_error(&error) {
        return Error::Certificate { cause };
    }
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    // Each layer of the client has words of its own around this.
    let what = if error.is_connect() { "cannot connect" } else { "the connection broke" };
    Error::Network { cause: format!("{what}: {innermost}") }
}

/// What rustls has against a certificate, somewhere below. An error of the system's kind shows what it carries as its own, not as its source.
fn certificate_error(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
        return Some(why.to_string());
    }
    let carried = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let below = carried.map(|carried| carried as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    certificate_error(below?)
}

fn response_reason(response: &Response) -> String {
    response.status().canonical_reason().unwrap_or_default().to_owned()
}

fn detail(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(" ({words})") }
}
