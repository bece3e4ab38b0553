//! Where every HTTP client that may speak TLS is begun (clippy.toml forbids it elsewhere). A client of reqwest takes the process's TLS provider and panics where
//! none is installed, and it does not come into being on a machine that trusts nobody; even one that only ever asks by http. Here it is told both.

use std::sync::{Arc, OnceLock};

use reqwest::{Client, ClientBuilder};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// A client that trusts the authorities of this machine (as OpenSSL finds them: `SSL_CERT_FILE`, `SSL_CERT_DIR`, else the usual places), and these beside
/// them. On a machine without any it speaks http, and no certificate verifies.
///
/// # Errors
/// One of the authorities given is none.
pub fn builder(authorities: &[CertificateDer<'static>]) -> Result<ClientBuilder, Error> {
    let mut trusted = RootCertStore::empty();
    for authority in authorities {
        trusted.add(authority.clone())?;
    }
    // The provider of failover-check's notifications too.
    let provider = Arc::new(ring::default_provider());
    let tls = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        // It is rustls's own verification, only later.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OnceNeeded { given: trusted, provider, verifier: OnceLock::new() }))
        .with_no_client_auth();
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    let builder = Client::builder();
    Ok(builder.tls_backend_preconfigured(tls))
}

/// Verifies as rustls does, but reads the authorities of this machine at the first handshake: that takes 8 ms, which is a third of what a small file by http
/// takes in all.
#[derive(Debug)]
struct OnceNeeded {
    given: RootCertStore,
    provider: Arc<CryptoProvider>,
    /// None where nobody is trusted.
    verifier: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
}

impl OnceNeeded {
    fn verifier(&self) -> Result<&WebPkiServerVerifier, Error> {
        let made = self.verifier.get_or_init(|| {
            let mut trusted = self.given.clone();
            // What cannot be read there is another program's matter; a server that needs it will not verify.
            trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            WebPkiServerVerifier::builder_with_provider(Arc::new(trusted), Arc::clone(&self.provider)).build().ok()
        });
        made.as_deref().ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }
}

impl ServerCertVerifier for OnceNeeded {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
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
