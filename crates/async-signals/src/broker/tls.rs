//! TLS by rustls, with ring as its only cryptography: what [`Tls`] asks for,
//! as a client configuration.

use std::{io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem, pem::PemObject};

use super::{BrokerError, Tls};

/// The configuration for a connection: certificates and host names are
/// verified unless `tls` says otherwise.
///
/// # Errors
///
/// [`BrokerError::InvalidOption`] for files that cannot be read or do not fit together.
pub(super) fn client_config(tls: &Tls) -> Result<ClientConfig, BrokerError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid("broker_use_ssl", error))?;
    let builder = if tls.verify {
        builder.with_root_certificates(trusted_roots(tls.ca_certs.as_deref())?)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnyone { provider }))
    };
    match (&tls.certfile, &tls.keyfile) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certfile), keyfile) => {
            let chain = certificates("certfile", certfile)?;
            // As in Python's ssl module, the key may stand in the file of the certificate.
            let key = PrivateKeyDer::from_pem_file(keyfile.as_ref().unwrap_or(certfile))
                .map_err(|error| unreadable("keyfile", keyfile.as_ref().unwrap_or(certfile), error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| invalid("certfile", error))
        }
        (None, Some(_)) => Err(invalid("certfile", "a keyfile needs a certfile beside it")),
    }
}

/// The authorities in a file, or the system's where there is none.
fn trusted_roots(ca_certs: Option<&Path>) -> Result<RootCertStore, BrokerError> {
    let mut roots = RootCertStore::empty();
    match ca_certs {
        Some(path) => {
            for certificate in certificates("ca_certs", path)? {
                roots.add(certificate).map_err(|error| invalid("ca_certs", format!("{}: {error}", path.display())))?;
            }
        }
        None => {
            // A system store often holds a few certificates that no longer parse; the others count.
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let why = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
                return Err(invalid("ca_certs", format!("the system has no certificate authorities: {why}")));
            }
        }
    }
    Ok(roots)
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(option, path, error))?;
    if certificates.is_empty() {
        return Err(unreadable(option, path, pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn unreadable(option: &str, path: &Path, error: pem::Error) -> BrokerError {
    let reason = match error {
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => "there is no such file".to_owned(),
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it holds no such PEM section".to_owned(),
        error => format!("it is no PEM file: {error}"),
    };
    invalid(option, format!("{}: {reason}", path.display()))
}

fn invalid(option: &str, reason: impl ToString) -> BrokerError {
    let option = if option == "broker_use_ssl" { option.to_owned() } else { format!("broker_use_ssl[{option:?}]") };
    BrokerError::InvalidOption { option, reason: reason.to_string() }
}

/// What `verify: false` asks for: any certificate will do. The handshake's
/// signatures are checked all the same, so that at least nobody in between
/// can borrow the certificate of the one at the other end.
#[derive(Debug)]
struct TrustAnyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(tls: Tls) -> String {
        client_config(&tls).expect_err("the options are wrong").to_string()
    }

    #[test]
    fn names_the_option_and_the_file() {
        let missing = refusal(Tls { ca_certs: Some("/no/such/ca.pem".into()), ..Tls::default() });
        assert_eq!(missing, "broker_use_ssl[\"ca_certs\"]: /no/such/ca.pem: there is no such file");
        let lone = refusal(Tls { keyfile: Some("/key.pem".into()), verify: false, ..Tls::default() });
        assert_eq!(lone, "broker_use_ssl[\"certfile\"]: a keyfile needs a certfile beside it");
    }

    #[test]
    fn refuses_a_file_without_certificates() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("empty.pem");
        std::fs::write(&path, "no certificate here\n").expect("a file");
        let empty = refusal(Tls { ca_certs: Some(path), ..Tls::default() });
        assert!(empty.contains("it holds no such PEM section"), "{empty}");
    }

    #[test]
    fn needs_no_roots_to_trust_anyone() {
        client_config(&Tls { verify: false, ..Tls::default() }).expect("a configuration");
    }
}
