//! The way to the collector: HTTP/1.1 by a blocking client. This module is what the OTLP library sends with.
//!
//! Redirects are not followed (a redirect would carry the header fields elsewhere), an answer is read up
//! to a bound, and everything about one batch ends by a deadline that the exporter sets.

use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use parking_lot::Mutex;
use prost::Message;
use ureq::Agent;
use ureq::http::{HeaderName, HeaderValue};
use ureq::tls::TlsConfig;

use crate::config::{Traces, WebAddress};

/// An answer to spans is empty or says how many were refused.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// What is left of a deadline that has passed: enough for the client to fail in its own words.
const NO_TIME: Duration = Duration::from_millis(1);

/// The collector and how it is spoken to.
pub(super) struct Collector {
    agent: Agent,
    address: WebAddress,
    headers: Vec<(HeaderName, HeaderValue)>,
    answer_by: Mutex<Instant>,
    trouble: Mutex<Option<String>>,
    rejected: Mutex<u64>,
}

impl Collector {
    pub(super) fn new(settings: &Traces, tls: TlsConfig) -> Self {
        let config = Agent::config_builder()
            .tls_config(tls)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("process-sentinel/", env!("CARGO_PKG_VERSION")));
        // A proxy has no way to our loopback.
        let config = if settings.endpoint.is_loopback() { config.proxy(None) } else { config };
        let headers = settings.headers.iter().filter_map(|(name, value)| {
            let mut value = HeaderValue::try_from(value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name.as_str()).ok()?, value))
        });
        Self {
            agent: config.build().new_agent(),
            address: settings.endpoint.clone(),
            headers: headers.collect(),
            answer_by: Mutex::new(Instant::now()),
            trouble: Mutex::new(None),
            rejected: Mutex::new(0),
        }
    }

    /// Everything that is sent from here on is answered by `deadline`, or has failed.
    pub(super) fn answer_by(&self, deadline: Instant) {
        *self.answer_by.lock() = deadline;
    }

    /// What was wrong with the last request, also where it succeeded in part.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().take()
    }

    /// How many spans of the last request were rejected although it succeeded.
    pub(super) fn rejected(&self) -> u64 {
        std::mem::take(&mut *self.rejected.lock())
    }

    /// Notes what an answer says beside its status.
    fn note(&self, answer: &Response<Bytes>) {
        let (mut trouble, mut rejected) = (None, 0);
        if !answer.status().is_success() {
            trouble = Some(format!("it answers {}", answer.status()));
        } else if let Ok(said) = ExportTraceServiceResponse::decode(&answer.body()[..])
            && let Some(partial) = said.partial_success
            && partial.rejected_spans > 0
        {
            rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
            trouble = Some(format!("it rejects {rejected} spans: {}", partial.error_message));
        }
        *self.trouble.lock() = trouble;
        *self.rejected.lock() = rejected;
    }

    fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let left = self.answer_by.lock().saturating_duration_since(Instant::now()).max(NO_TIME);
        let (mut head, body) = request.into_parts();
        for (name, value) in &self.headers {
            head.headers.insert(name.clone(), value.clone());
        }
        let request = Request::from_parts(head, &body[..]);
        let request = self.agent.configure_request(request).timeout_global(Some(left)).build();
        let answer = self.agent.run(request)?;
        let (head, mut body) = answer.into_parts();
        let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }
}

#[async_trait]
impl HttpClient for Collector {
    /// Blocks, as the exporter's thread does for it alone.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        match self.call(request) {
            Ok(answer) => {
                self.note(&answer);
                Ok(answer)
            }
            Err(error) => {
                *self.trouble.lock() = Some(error.to_string());
                Err(error.into())
            }
        }
    }
}

impl fmt::Debug for Collector {
    /// Never the header fields.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Display for Collector {
    /// The address without its query, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.address.as_str();
        f.write_str(text.split_once('?').map_or(text, |(address, _)| address))
    }
}
