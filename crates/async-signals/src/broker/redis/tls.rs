//! TLS for `rediss://`: what `broker_use_ssl` and the URL's `ssl_…` parameters ask for.

#[cfg(feature = "rustls")]
use std::path::Path;
use std::path::PathBuf;

use redis::ConnectionAddr;
#[cfg(feature = "rustls")]
use redis::{Client, ClientTlsConfig, IntoConnectionInfo, TlsCertificates};

use crate::broker::{BrokerConfig, BrokerError, BrokerUrl, Tls};

/// How TLS is to be done, if it is. As in kombu the URL's `ssl_…` parameters
/// override `broker_use_ssl`, and either asks for TLS even of `redis://`:
/// nobody who configured certificates wants the password sent in the clear.
pub(super) fn wanted(config: &BrokerConfig, url: &BrokerUrl) -> Result<Option<Tls>, BrokerError> {
    let parameters = ["ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"];
    let asked = parameters.iter().any(|name| url.query(name).is_some());
    if !(url.is_tls() || asked || config.tls.is_some()) {
        return Ok(None);
    }
    let mut tls = config.tls.clone().unwrap_or_default();
    let path = |name: &str| url.query(name).map(PathBuf::from);
    tls.ca_certs = path("ssl_ca_certs").or(tls.ca_certs);
    tls.certfile = path("ssl_certfile").or(tls.certfile);
    tls.keyfile = path("ssl_keyfile").or(tls.keyfile);
    match url.query("ssl_cert_reqs") {
        None => {}
        Some("CERT_REQUIRED" | "required" | "CERT_OPTIONAL" | "optional") => tls.verify = true,
        Some("CERT_NONE" | "none") => tls.verify = false,
        Some(_) => {
            return Err(BrokerError::InvalidOption {
                option: "ssl_cert_reqs".to_owned(),
                reason: "must be CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE".to_owned(),
            });
        }
    }
    Ok(Some(tls))
}

/// An address that is spoken to through TLS.
#[cfg(feature = "rustls")]
pub(super) fn address(host: String, port: u16, tls: &Tls, url: &BrokerUrl) -> Result<ConnectionAddr, BrokerError> {
    secured(host, port, tls, url).map_err(|reason| BrokerError::Tls { url: url.to_string(), reason })
}

/// An address that this build cannot speak to.
#[cfg(not(feature = "rustls"))]
pub(super) fn address(_host: String, _port: u16, _tls: &Tls, url: &BrokerUrl) -> Result<ConnectionAddr, BrokerError> {
    let reason = "this build has no TLS: it was compiled without the feature \"rustls\"".to_owned();
    Err(BrokerError::Tls { url: url.to_string(), reason })
}

#[cfg(feature = "rustls")]
fn secured(host: String, port: u16, tls: &Tls, url: &BrokerUrl) -> Result<ConnectionAddr, String> {
    install_provider();
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
    let client_tls = match (&tls.certfile, &tls.keyfile) {
        (None, None) => None,
        (Some(certfile), keyfile) => Some(ClientTlsConfig {
            client_cert: read(certfile)?,
            // As in Python's ssl: one file may hold both.
            client_key: read(keyfile.as_ref().unwrap_or(certfile))?,
        }),
        (None, Some(_)) => return Err("a keyfile needs its certfile".to_owned()),
    };
    let root_cert = tls.ca_certs.as_deref().map(read).transpose()?;
    let insecure = !tls.verify;
    let address = ConnectionAddr::TcpTls { host, port, insecure, tls_params: None };
    let info = address.into_connection_info().map_err(|error| error.to_string())?;
    let client =
        Client::build_with_tls(info, TlsCertificates { client_tls, root_cert }).map_err(|error| error.to_string())?;
    let mut address = client.get_connection_info().addr().clone();
    if url.query("ssl_check_hostname").is_some_and(|check| check.eq_ignore_ascii_case("false")) {
        address.set_danger_accept_invalid_hostnames(true);
    }
    Ok(address)
}

/// The redis crate takes the process' provider; a Python process has none until somebody sets it.
#[cfg(feature = "rustls")]
fn install_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Losing the race to another thread is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted_by(url: &str, configured: Option<Tls>) -> Result<Option<Tls>, BrokerError> {
        let mut config = BrokerConfig::new(url)?;
        config.tls = configured;
        wanted(&config, &config.urls[0])
    }

    #[test]
    fn verifies_unless_told_otherwise() {
        let verify = |url: &str| wanted_by(url, None).expect(url).map(|tls| tls.verify);
        assert_eq!(verify("redis://h"), None);
        assert_eq!(verify("rediss://h"), Some(true));
        assert_eq!(verify("rediss://h?ssl_cert_reqs=required"), Some(true));
        assert_eq!(verify("rediss://h?ssl_cert_reqs=CERT_NONE"), Some(false));
        assert!(matches!(wanted_by("rediss://h?ssl_cert_reqs=no", None), Err(BrokerError::InvalidOption { .. })));
    }

    #[test]
    fn certificates_ask_for_tls_and_the_url_overrides_them() {
        let configured = Tls { ca_certs: Some("/a.pem".into()), verify: false, ..Tls::default() };
        let plain = wanted_by("redis://h", Some(configured.clone())).expect("an option").expect("TLS");
        assert_eq!((plain.ca_certs, plain.verify), (Some("/a.pem".into()), false));
        let url = "rediss://h?ssl_ca_certs=/b.pem&ssl_cert_reqs=required";
        let overridden = wanted_by(url, Some(configured)).expect("an option").expect("TLS");
        assert_eq!((overridden.ca_certs, overridden.verify), (Some("/b.pem".into()), true));
    }

    #[cfg(feature = "rustls")]
    #[test]
    fn names_the_file_that_cannot_be_read() {
        let url = "rediss://h".parse().expect("a URL");
        let tls = Tls { ca_certs: Some("/no/such/ca.pem".into()), ..Tls::default() };
        let error = address("h".to_owned(), 1, &tls, &url).expect_err("no file");
        assert!(matches!(&error, BrokerError::Tls { reason, .. } if reason.contains("/no/such/ca.pem")), "{error}");
    }
}
