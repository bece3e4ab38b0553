//! Whether a file is what its checksums say.

use std::fmt;
use std::io::{self, Read};

use crc_fast::CrcAlgorithm;
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::Error;

/// How much is read at once, in bytes.
const BLOCK: usize = 256 * 1024;

/// What a checksum is made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // Their names are their explanation.
pub enum Algorithm {
    Sha256,
    Md5,
    Crc32,
    Crc32C,
    Crc64Nvme,
}

impl Algorithm {
    /// Of a digest, in bytes.
    fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Md5 => 16,
            Self::Crc64Nvme => 8,
            Self::Crc32 | Self::Crc32C => 4,
        }
    }

    /// As in S3's `x-amz-checksum-…`.
    #[must_use]
    pub fn header_name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Md5 => "md5",
            Self::Crc32 => "crc32",
            Self::Crc32C => "crc32c",
            Self::Crc64Nvme => "crc64nvme",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.header_name())
    }
}

/// A checksum that a file has to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    algorithm: Algorithm,
    digest: Vec<u8>,
}

impl Check {
    /// A checksum in hexadecimal digits; none where it is not of the algorithm's length.
    #[must_use]
    pub fn from_hexadecimal(algorithm: Algorithm, text: &str) -> Option<Self> {
        if text.len() != 2 * algorithm.length() || !text.is_ascii() {
            return None;
        }
        let digest = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect::<Option<Vec<u8>>>()?;
        // `from_str_radix` also takes a sign.
        text.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(Self { algorithm, digest })
    }

    /// A checksum as S3 sends it; none where it is not of the algorithm's length.
    #[must_use]
    pub fn from_base64(algorithm: Algorithm, text: &str) -> Option<Self> {
        let digest = aws_smithy_types::base64::decode(text).ok()?;
        (digest.len() == algorithm.length()).then_some(Self { algorithm, digest })
    }

    fn compare(&self, found: &[u8]) -> Result<(), Error> {
        if self.digest == found {
            return Ok(());
        }
        Err(Error::Mismatch { algorithm: self.algorithm, expected: hexadecimal(&self.digest), found: hexadecimal(found) })
    }

    /// Reads what has to have this checksum, to its end.
    ///
    /// # Errors
    /// It cannot be read, or it has another one.
    pub fn verify(&self, mut content: impl Read) -> Result<(), Error> {
        let found = self.digest_of(&mut content).map_err(|error| Error::disk("read the file again", &error))?;
        self.compare(&found)
    }

    fn digest_of(&self, content: &mut impl Read) -> io::Result<Vec<u8>> {
        fn each(content: &mut impl Read, mut take: impl FnMut(&[u8])) -> io::Result<()> {
            let mut block = vec![0; BLOCK];
            loop {
                match content.read(&mut block) {
                    Ok(0) => return Ok(()),
                    Ok(length) => take(&block[..length]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let mut of_crc = |algorithm| {
            let mut digest = crc_fast::Digest::new(algorithm);
            each(content, |block| digest.update(block))?;
            Ok(digest.finalize().to_be_bytes()[8 - self.algorithm.length()..].to_vec())
        };
        match self.algorithm {
            Algorithm::Crc32 => of_crc(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc32C => of_crc(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc64Nvme => of_crc(CrcAlgorithm::Crc64Nvme),
            Algorithm::Sha256 => {
                let mut digest = Sha256::new();
                each(content, |block| digest.update(block))?;
                Ok(digest.finalize().to_vec())
            }
            Algorithm::Md5 => {
                let mut digest = Md5::new();
                each(content, |block| digest.update(block))?;
                Ok(digest.finalize().to_vec())
            }
        }
    }
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check values that the algorithms are published with.
    const NINE: &[u8] = b"123456789";

    #[test]
    fn every_algorithm_gives_its_published_value() {
        for (algorithm, digits) in [
            (Algorithm::Crc32, "cbf43926"),
            (Algorithm::Crc32C, "e3069283"),
            (Algorithm::Crc64Nvme, "ae8b14860a799888"),
            (Algorithm::Md5, "25f9e794323b453885f5181f1b624d0b"),
            (Algorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
        ] {
            let check = Check::from_hexadecimal(algorithm, digits).unwrap();
            assert_eq!(check.verify(NINE), Ok(()), "{algorithm}");
            let other = check.verify(&b"12345678"[..]).unwrap_err();
            assert!(matches!(&other, Error::Mismatch { expected, .. } if expected == digits), "{other}");
        }
    }

    #[test]
    fn what_is_no_checksum_is_none() {
        for text in ["", "12", "cbf4392g", "+bf43926", "cbf439261", "ä23456"] {
            assert_eq!(Check::from_hexadecimal(Algorithm::Crc32, text), None, "{text}");
        }
        assert!(Check::from_hexadecimal(Algorithm::Crc32, "CBF43926").is_some());
        assert!(Check::from_base64(Algorithm::Crc32, "y/Q5Jg==").is_some());
        assert_eq!(Check::from_base64(Algorithm::Crc32, "y/Q5"), None);
    }
}
