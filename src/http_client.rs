//! Where every HTTP client that may speak TLS is begun (clippy.toml forbids it elsewhere). A client of reqwest takes the process's TLS provider and panics where
//! none is installed, and it does not come into being on a machine that trusts nobody; even one that only ever asks by http. Here it is told both.

use std::sync::Arc;

use reqwest::{Client, ClientBuilder};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

/// A client that trusts the authorities of this machine (as OpenSSL finds them: `SSL_CERT_FILE`, `SSL_CERT_DIR`, else the usual places), and these beside
/// them. On a machine without any it speaks http, and no certificate verifies.
///
/// # Errors
/// One of the authorities given is none.
pub fn builder(authorities: &[CertificateDer<'static>]) -> Result<ClientBuilder, rustls::Error> {
    let mut trusted = RootCertStore::empty();
    // What cannot be read there is another program's matter; a server that needs it will not verify.
    trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for authority in authorities {
        trusted.add(authority.clone())?;
    }
    // The provider of failover-check's notifications too.
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    let builder = Client::builder();
    Ok(builder.tls_backend_preconfigured(tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a process of its own under nextest; under cargo's runner no other test here installs one either.
    #[test]
    fn a_client_is_made_without_a_provider_of_the_process() {
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
        // Were it of another version of rustls than reqwest's, this would be an error.
        builder(&[]).unwrap().build().unwrap();
        assert!(rustls::crypto::CryptoProvider::get_default().is_none(), "nothing of the whole process is changed");
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(builder(&[CertificateDer::from(b"nonsense".to_vec())]).is_err());
    }
}
