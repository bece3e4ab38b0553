//! S3: whose credentials, which region, which host, and the signature. The request itself is like any other's (see [`super::network`]), so that ranges,
//! conditions, retries and limits are one piece of code for every scheme; what the SDK is used for is its chain of credentials and its signer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider, error::CredentialsError};
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::{Builder, tls};
use aws_types::service_config::ServiceConfigKey;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

use super::error::Error;
use super::settings::Settings;
use crate::with_causes::with_causes;

/// Where no region is configured: S3 names the right one for a bucket that is elsewhere.
const DEFAULT_REGION: &str = "us-east-1";

/// Everything but what RFC 3986 calls unreserved, and the slashes of a key.
const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Whose requests these are, and where they go.
#[derive(Debug)]
pub struct Account {
    credentials: Option<SharedCredentialsProvider>,
    region: String,
    host: Host,
    regions: Mutex<HashMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// AWS itself, by the names of its FIPS or dual-stack hosts where that is configured.
    Aws { fips: bool, dual_stack: bool },
    /// Somewhere else: buckets are the first part of the path.
    Endpoint(Url),
}

impl Account {
    /// By the default chain of the SDK: environment, profiles, SSO, a process, a container's and an instance's own (IMDSv2).
    ///
    /// # Errors
    /// The endpoint is no address.
    pub async fn load(settings: &Settings) -> Result<Self, Error> {
        let client = Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)).build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(client);
        if let Some(profile) = &settings.profile {
            loader = loader.profile_name(profile);
        }
        if !settings.sign {
            loader = loader.no_credentials();
        }
        let config = loader.load().await;
        let host = match settings.endpoint_url.clone().or_else(|| endpoint_of(&config)) {
            None => Host::Aws { fips: config.use_fips().unwrap_or_default(), dual_stack: config.use_dual_stack().unwrap_or_default() },
            Some(endpoint) => Host::Endpoint(
                Url::parse(&endpoint)
                    .ok()
                    .filter(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none())
                    .ok_or_else(|| Error::Malformed { reason: "the endpoint of S3 is no http or https address".to_owned() })?,
            ),
        };
        Ok(Self {
            credentials: if settings.sign { config.credentials_provider() } else { None },
            region: config.region().map_or(DEFAULT_REGION, |region| region.as_ref()).to_owned(),
            host,
            regions: Mutex::new(HashMap::new()),
        })
        .and_then(|account| {
            if settings.sign && account.credentials.is_none() { Err(no_credentials("the chain is empty")) } else { Ok(account) }
        })
    }

    /// The region to ask for a bucket in.
    #[must_use]
    pub fn region_of(&self, bucket: &str) -> String {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner).get(bucket).unwrap_or(&self.region).clone()
    }

    /// Remembers where S3 says that a bucket is.
    pub fn learn(&self, bucket: &str, region: &str) {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner).insert(bucket.to_owned(), region.to_owned());
    }

    /// The address of an object, and the headers that go with a request for it.
    ///
    /// # Errors
    /// There are no credentials, or there is no such host.
    pub async fn request(&self, bucket: &str, key: &str, region: &str) -> Result<(Url, Vec<(String, String)>), Error> {
        let url = object_url(&self.host, bucket, key, region)?;
        let checksums = ("x-amz-checksum-mode", "ENABLED");
        let mut headers = vec![(checksums.0.to_owned(), checksums.1.to_owned())];
        let Some(provider) = &self.credentials else { return Ok((url, headers)) };
        let credentials = provider.provide_credentials().await.map_err(|error| match &error {
            // The chain is empty: what it looked at says nothing that helps.
            CredentialsError::CredentialsNotLoaded(_) => no_credentials("none are configured"),
            _ => no_credentials(&with_causes(&error)),
        })?;
        let identity = credentials.into();
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let unsignable = |error: &dyn std::fmt::Display| Error::Credentials { cause: format!("cannot sign: {error}") };
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name("s3")
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(|error| unsignable(&error))?
            .into();
        let request = SignableRequest::new("GET", url.as_str(), [checksums].into_iter(), SignableBody::Bytes(&[]))
            .map_err(|error| unsignable(&error))?;
        let (instructions, _) = sign(request, &parameters).map_err(|error| unsignable(&error))?.into_parts();
        headers.extend(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())));
        Ok((url, headers))
    }
}

fn no_credentials(cause: &str) -> Error {
    Error::Credentials { cause: cause.to_owned() }
}

/// `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, or the same of the profile.
fn endpoint_of(config: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder().service_id("s3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build().ok()?;
    config.service_config().and_then(|service| service.load_config(key)).or_else(|| config.endpoint_url().map(str::to_owned))
}

fn object_url(host: &Host, bucket: &str, key: &str, region: &str) -> Result<Url, Error> {
    let key = utf8_percent_encode(key, KEY);
    let text = match host {
        Host::Endpoint(endpoint) => format!("{}/{bucket}/{key}", endpoint.as_str().trim_end_matches('/')),
        Host::Aws { fips, dual_stack } => {
            if !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
                return Err(Error::Malformed { reason: "the region is no part of a host's name".to_owned() });
            }
            let service = if *fips { "s3-fips" } else { "s3" };
            let stack = if *dual_stack { ".dualstack" } else { "" };
            let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            let host = format!("{service}{stack}.{region}.{suffix}");
            // The certificate is for one label before the host, and for small letters.
            let is_a_label = (3..=63).contains(&bucket.len())
                && bucket.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            if is_a_label { format!("https://{bucket}.{host}/{key}") } else { format!("https://{host}/{bucket}/{key}") }
        }
    };
    Url::parse(&text).map_err(|error| Error::Malformed { reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_aws(bucket: &str, key: &str, region: &str) -> String {
        object_url(&Host::Aws { fips: false, dual_stack: false }, bucket, key, region).unwrap().to_string()
    }

    #[test]
    fn a_bucket_is_a_host_where_its_certificate_allows_that() {
        assert_eq!(at_aws("bucket", "a/b.txt", "eu-west-1"), "https://bucket.s3.eu-west-1.amazonaws.com/a/b.txt");
        assert_eq!(at_aws("my.bucket", "a", "eu-west-1"), "https://s3.eu-west-1.amazonaws.com/my.bucket/a");
        assert_eq!(at_aws("Old_Bucket", "a", "us-east-1"), "https://s3.us-east-1.amazonaws.com/Old_Bucket/a");
        assert_eq!(at_aws("bucket", "a", "cn-north-1"), "https://bucket.s3.cn-north-1.amazonaws.com.cn/a");
        let fips = object_url(&Host::Aws { fips: true, dual_stack: true }, "bucket", "a", "us-east-1").unwrap();
        assert_eq!(fips.as_str(), "https://bucket.s3-fips.dualstack.us-east-1.amazonaws.com/a");
    }

    #[test]
    fn a_key_is_sent_byte_for_byte() {
        assert_eq!(
            at_aws("bucket", "a b+c?d#e%20/ä//x", "us-east-1"),
            "https://bucket.s3.us-east-1.amazonaws.com/a%20b%2Bc%3Fd%23e%2520/%C3%A4//x"
        );
    }

    #[test]
    fn an_endpoint_has_buckets_in_its_path() {
        let endpoint = Host::Endpoint(Url::parse("http://127.0.0.1:9000/").unwrap());
        assert_eq!(object_url(&endpoint, "bucket", "a", "x").unwrap().as_str(), "http://127.0.0.1:9000/bucket/a");
    }

    #[test]
    fn a_region_that_a_server_names_cannot_lead_to_another_host() {
        assert!(object_url(&Host::Aws { fips: false, dual_stack: false }, "bucket", "a", "evil.example/").is_err());
    }
}
