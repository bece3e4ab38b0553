//! What the head of an answer says of the body and of the object behind it.

use reqwest::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap, LAST_MODIFIED, RETRY_AFTER, TRANSFER_ENCODING,
};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

use super::verify::{Algorithm, Check};

/// What tells one version of an object from another, byte by byte: only these may stand in `If-Range` (RFC 9110, 13.1.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validator {
    /// A strong entity tag, in its quotes.
    ETag(String),
    /// A modification date, of an object that rested for at least a second before it was sent.
    LastModified(String),
}

impl Validator {
    /// As a header's value.
    #[must_use]
    pub fn value(&self) -> &str {
        match self {
            Self::ETag(value) | Self::LastModified(value) => value,
        }
    }
}

/// What `Content-Range: bytes FIRST-LAST/SIZE` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
    /// The whole object, where it is told.
    pub size: Option<u64>,
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The HTTP status.
    pub status: u16,
    /// Bytes of this body. From the header itself: a client's idea of it may be another.
    pub length: Option<u64>,
    /// Which bytes of the object the body is.
    pub range: Option<ContentRange>,
    /// What tells this version from another.
    pub validator: Option<Validator>,
    /// The entity tag as it was sent, weak or strong.
    pub etag: Option<String>,
    /// The server says that it gives no ranges.
    pub refuses_ranges: bool,
    /// The body says by itself where it ends.
    pub chunked: bool,
    /// How the body is encoded, where it is.
    pub encoding: Option<String>,
    /// How long to wait before another attempt.
    pub retry_after: Option<Duration>,
}

impl Head {
    /// Reads a head; `now` is what a date in `Retry-After` counts from.
    #[must_use]
    pub fn read(status: u16, headers: &HeaderMap, now: SystemTime) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let etag = text(ETAG).map(str::to_owned);
        let encoding = text(CONTENT_ENCODING).filter(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity"));
        Self {
            status,
            length: text(CONTENT_LENGTH).and_then(|length| length.parse().ok()),
            range: text(CONTENT_RANGE).and_then(content_range),
            validator: validator(etag.as_deref(), text(LAST_MODIFIED), text(DATE)),
            etag,
            refuses_ranges: text(ACCEPT_RANGES).is_some_and(|units| units.eq_ignore_ascii_case("none")),
            chunked: text(TRANSFER_ENCODING).is_some_and(|codings| codings.to_ascii_lowercase().ends_with("chunked")),
            encoding: encoding.map(str::to_owned),
            retry_after: text(RETRY_AFTER).and_then(|value| retry_after(value, now)),
        }
    }
}

fn validator(etag: Option<&str>, modified: Option<&str>, sent: Option<&str>) -> Option<Validator> {
    if let Some(etag) = etag.filter(|etag| etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"')) {
        return Some(Validator::ETag(etag.to_owned()));
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let rested = date(sent?)?.duration_since(date(modified?)?).ok()?;
    (rested >= Duration::from_secs(1)).then(|| Validator::LastModified(modified.unwrap_or_default().to_owned()))
}

fn content_range(value: &str) -> Option<ContentRange> {
    let (range, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let (start, end) = (first.parse().ok()?, last.parse::<u64>().ok()?.checked_add(1)?);
    let size = if size == "*" { None } else { Some(size.parse().ok()?) };
    (start < end && size.is_none_or(|size| end <= size)).then_some(ContentRange { start, end, size })
}

fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()),
    }
}

/// The checksums of the whole object that S3 sent. Those of a multipart object that were made of its parts' checksums, and an entity tag that is no MD5
/// (of a multipart object, which has a `-`, or of one that is encrypted by a key of KMS or of the customer), are none.
#[must_use]
pub fn checks_of_s3(headers: &HeaderMap) -> Vec<Check> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let composite = text("x-amz-checksum-type").is_some_and(|kind| kind.eq_ignore_ascii_case("composite"));
    if !composite {
        // One is enough, the strongest first.
        for algorithm in [Algorithm::Sha256, Algorithm::Crc64Nvme, Algorithm::Crc32C, Algorithm::Crc32] {
            if let Some(value) = text(&format!("x-amz-checksum-{}", algorithm.header_name()))
                && let Some(check) = Check::from_base64(algorithm, value)
            {
                return vec![check];
            }
        }
    }
    let encryption = text("x-amz-server-side-encryption").unwrap_or_default();
    if encryption.contains("kms") || headers.contains_key("x-amz-server-side-encryption-customer-algorithm") {
        return Vec::new();
    }
    text("etag").and_then(|etag| Check::from_hexadecimal(Algorithm::Md5, etag.trim_matches('"'))).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (reqwest::header::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn head(pairs: &[(&'static str, &str)]) -> Head {
        Head::read(200, &headers(pairs), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn only_a_strong_tag_or_a_date_that_rested_is_a_validator() {
        assert_eq!(head(&[("etag", "\"a\"")]).validator, Some(Validator::ETag("\"a\"".to_owned())));
        for weak in ["W/\"a\"", "a", "\"\"", "\""] {
            assert_eq!(head(&[("etag", weak)]).validator, None, "{weak}");
        }
        let (early, late) = ("Sun, 06 Nov 1994 08:49:36 GMT", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(head(&[("last-modified", early), ("date", late)]).validator, Some(Validator::LastModified(early.to_owned())));
        assert_eq!(head(&[("last-modified", late), ("date", late)]).validator, None, "it may have changed within that second");
        assert_eq!(head(&[("last-modified", early)]).validator, None);
    }

    #[test]
    fn a_range_has_to_make_sense() {
        let range = |text: &str| head(&[("content-range", text)]).range;
        assert_eq!(range("bytes 0-9/100"), Some(ContentRange { start: 0, end: 10, size: Some(100) }));
        assert_eq!(range("bytes 5-9/*"), Some(ContentRange { start: 5, end: 10, size: None }));
        for wrong in ["bytes 9-5/100", "bytes 0-100/100", "bytes */100", "items 0-9/100", "bytes 0-18446744073709551615/*", "bytes a-b/c"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        assert_eq!(head(&[("retry-after", "7")]).retry_after, Some(Duration::from_secs(7)));
        assert_eq!(head(&[("retry-after", "Thu, 01 Jan 1970 00:00:09 GMT")]).retry_after, Some(Duration::from_secs(9)));
        assert_eq!(head(&[("retry-after", "soon")]).retry_after, None);
    }

    #[test]
    fn a_tag_of_a_multipart_or_encrypted_object_is_no_md5() {
        let md5 = "\"9e107d9d372bb6826bd81d3542a419d6\"";
        assert_eq!(checks_of_s3(&headers(&[("etag", md5)])).len(), 1);
        assert!(checks_of_s3(&headers(&[("etag", "\"9e107d9d372bb6826bd81d3542a419d6-2\"")])).is_empty());
        assert!(checks_of_s3(&headers(&[("etag", md5), ("x-amz-server-side-encryption", "aws:kms")])).is_empty());
        assert!(checks_of_s3(&headers(&[("etag", md5), ("x-amz-server-side-encryption-customer-algorithm", "AES256")])).is_empty());
    }

    #[test]
    fn a_checksum_of_checksums_is_not_one_of_the_object() {
        let crc = ("x-amz-checksum-crc32", "y/Q5Jg==");
        assert_eq!(checks_of_s3(&headers(&[crc])), [Check::from_base64(Algorithm::Crc32, "y/Q5Jg==").unwrap()]);
        assert!(checks_of_s3(&headers(&[crc, ("x-amz-checksum-type", "COMPOSITE")])).is_empty());
        assert!(checks_of_s3(&headers(&[("x-amz-checksum-crc32", "y/Q5Jg==-2")])).is_empty());
    }
}
