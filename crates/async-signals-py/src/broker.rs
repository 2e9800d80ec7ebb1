//! Which broker, as Celery's settings say it.

use std::{path::PathBuf, time::Duration};

use async_signals::broker::{BrokerConfig, BrokerError, BrokerUrl, Tls};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};
use serde::Deserialize;

use crate::{convert, error, events};

/// The core's configuration: `urls` are kombu's, `tls` is `broker_use_ssl` in
/// the words of `publishers.py`, `heartbeat` is in seconds.
pub(crate) fn config(
    py: Python<'_>,
    urls: &[String],
    transport_options: Option<&Bound<'_, PyDict>>,
    tls: Option<&Bound<'_, PyDict>>,
    heartbeat: Option<f64>,
) -> PyResult<BrokerConfig> {
    // Whatever connects may have something to say.
    events::follow_levels(py);
    let urls: Result<Vec<BrokerUrl>, BrokerError> = urls.iter().map(|url| url.parse()).collect();
    Ok(BrokerConfig {
        urls: urls.map_err(|error| error::misconfigured(py, error))?,
        transport_options: match transport_options {
            Some(options) => convert::to_map(options, "broker_transport_options")?,
            None => Default::default(),
        },
        tls: tls.map(|options| convert::to_core::<TlsOptions>(options, "broker_use_ssl")).transpose()?.map(Tls::from),
        heartbeat: heartbeat.map(seconds).transpose()?,
    })
}

/// A time in seconds.
pub(crate) fn seconds(number: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(number).map_err(|_| PyValueError::new_err(format!("{number} is no time in seconds")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsOptions {
    ca_certs: Option<PathBuf>,
    certfile: Option<PathBuf>,
    keyfile: Option<PathBuf>,
    verify: bool,
}

impl From<TlsOptions> for Tls {
    fn from(TlsOptions { ca_certs, certfile, keyfile, verify }: TlsOptions) -> Self {
        Self { ca_certs, certfile, keyfile, verify }
    }
}
