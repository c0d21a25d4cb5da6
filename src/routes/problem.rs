//! Every error answer, as RFC 9457 problem details. This module is the only place that makes one.
//!
//! A problem's `type` is the stable path `/problems/<name>`, which the service itself explains. `detail` says what
//! to do. No answer holds a token or a payload.

use std::borrow::Cow;

use bumpalo::Bump;

use crate::http::Reply;
use crate::view::json::Json;

macro_rules! problems {
    ($($(#[$doc:meta])* $variant:ident = $status:literal, $name:literal, $title:literal, $help:literal;)*) => {
        /// What can be wrong with a request, or with us.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind { $($(#[$doc])* $variant,)* }

        impl Kind {
            /// Every kind, for the documents and the tests.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// The problem's type.
            pub const fn path(self) -> &'static str {
                match self { $(Self::$variant => concat!("/problems/", $name),)* }
            }

            /// The last part of the problem's type.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// What it means and what to do, for `GET /problems/<name>`.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

problems! {
    BadRequest = 400, "bad-request", "The request is not acceptable",
        "The bytes are no acceptable HTTP request, or a parameter has no valid value. The detail says which.";
    InvalidBody = 400, "invalid-body", "The body is not valid",
        "The body is not JSON, or one of its fields breaks a rule. The detail names the field.";
    KeyMissing = 400, "idempotency-key-missing", "An Idempotency-Key is required",
        "Send the header Idempotency-Key with a value of your own for each new event, and the same value when you retry it.";
    KeyOnBatch = 400, "idempotency-key-on-batch", "A batch takes no Idempotency-Key header",
        "Put idempotencyKey into each line (or the CloudEvents extension idempotencykey into each event) instead.";
    Unauthorized = 401, "unauthorized", "A valid token is required",
        "Send Authorization: Bearer <JWT>. The detail says what is wrong with the one you sent.";
    Forbidden = 403, "forbidden", "The token does not allow this",
        "The detail names the role that is needed.";
    CertificateRequired = 403, "client-certificate-required", "A client certificate is required",
        "Connect with a certificate that the authority in SENTINEL_TLS_CLIENT_CA_FILE has signed. A token is needed, too, except by /metrics.";
    TenantMismatch = 403, "tenant-mismatch", "The tenant is not the token's",
        "An event belongs to the tenant of the token that posts it. Leave tenantId out, or use that tenant's token.";
    NotFound = 404, "not-found", "There is no such thing",
        "No such path, or nothing of this name is known to your tenant.";
    MethodNotAllowed = 405, "method-not-allowed", "The path does not take this method",
        "The Allow header lists the methods that it takes.";
    RequestTimeout = 408, "request-timeout", "The request did not arrive in time",
        "The head must arrive within 10 seconds and the body within 30.";
    KeyReused = 409, "idempotency-key-reused", "The Idempotency-Key was used for something else",
        "This key belongs to an earlier event with another content. Use a new key for a new event.";
    EventIdReused = 409, "event-id-reused", "The eventId was used for something else",
        "This source has already sent an event with this id and another content. Use a new id for a new event.";
    TooLarge = 413, "content-too-large", "The body is too large",
        "Split the batch, or send less in one event. The limits are SENTINEL_MAX_BODY_BYTES, SENTINEL_MAX_BATCH_BYTES and SENTINEL_INFLIGHT_BYTES.";
    UnsupportedMediaType = 415, "unsupported-media-type", "The content type is not supported",
        "POST /v1/events takes application/json, application/x-ndjson, application/cloudevents+json, application/cloudevents-batch+json, and any type with ce-* headers; nothing takes a Content-Encoding.";
    ExpectationFailed = 417, "expectation-failed", "The expectation cannot be met",
        "Only Expect: 100-continue is understood.";
    MisdirectedRequest = 421, "misdirected-request", "This host name is not served here",
        "In development mode the service answers only to localhost, 127.0.0.1 and [::1].";
    HeadTooLarge = 431, "head-too-large", "The head is too large",
        "A head may hold 16 KiB and 64 fields, a token 8 KiB.";
    Internal = 500, "internal-error", "The service failed",
        "A bug of ours. The log of the service has the same traceId.";
    NotImplemented = 501, "not-implemented", "The request asks for something that is not implemented",
        "The method is none of GET, HEAD, POST, PUT, DELETE, OPTIONS and PATCH, or the transfer coding is not chunked. The detail says which.";
    Unavailable = 503, "unavailable", "The service cannot take this now",
        "Try again after the seconds of Retry-After. Nothing of the request was kept.";
    Draining = 503, "draining", "The service is stopping",
        "Try again: another instance, or this one after its restart, will answer.";
    KeysUnavailable = 503, "keys-unavailable", "Tokens cannot be checked now",
        "The identity provider is out of reach, and the keys that are known do not tell. /ready says why.";
}

impl Kind {
    /// The kind that stands for a bare status, as the front decides it.
    pub fn of_status(status: u16) -> Self {
        match status {
            408 => Self::RequestTimeout,
            413 => Self::TooLarge,
            417 => Self::ExpectationFailed,
            431 => Self::HeadTooLarge,
            500 => Self::Internal,
            501 => Self::NotImplemented,
            503 => Self::Unavailable,
            _ => Self::BadRequest,
        }
    }

    /// The kind called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// How long a client should wait before it tries again, in seconds.
pub const RETRY_AFTER_S: &str = "1";

/// A problem on its way to becoming an answer.
#[derive(Debug, Clone)]
pub struct Problem {
    pub kind: Kind,
    /// What is wrong here, and what to do.
    pub detail: Cow<'static, str>,
    /// The field that is wrong, where one is.
    pub field: Option<&'static str>,
    /// Header fields that the status demands (Allow, WWW-Authenticate).
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// What went wrong with us, for the log alone.
    pub cause: Option<String>,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), field: None, headers: Vec::new(), cause: None }
    }

    pub fn field(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }

    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Writes the problem as a JSON object.
    pub fn write(&self, json: &mut Json<'_>, instance: Option<&str>, trace_id: Option<&str>) {
        json.object(|json| {
            json.member("type").with(|json| json.text_parts(&["/problems/", self.kind.name()]));
            json.member("title").text(self.kind.title());
            json.member("status").number(u64::from(self.kind.status()));
            json.member("detail").printable(&self.detail);
            if let Some(field) = self.field {
                json.member("field").text(field);
            }
            if let Some(instance) = instance {
                json.member("instance").printable(instance);
            }
            if let Some(trace_id) = trace_id {
                json.member("traceId").text(trace_id);
            }
        });
    }

    /// The whole answer.
    pub fn reply<'a>(
        &self,
        arena: &'a Bump,
        instance: Option<&str>,
        trace_id: Option<&str>,
    ) -> Reply<'a> {
        let mut json = Json::new(arena);
        self.write(&mut json, instance, trace_id);
        let mut headers: Vec<(&'static str, Cow<'a, str>)> = self
            .headers
            .iter()
            .map(|(name, value)| {
                let value: Cow<'a, str> = match value {
                    Cow::Borrowed(text) => Cow::Borrowed(*text),
                    Cow::Owned(text) => Cow::Borrowed(&*arena.alloc_str(text)),
                };
                (*name, value)
            })
            .collect();
        if self.kind.status() == 503 {
            headers.push(("Retry-After", Cow::Borrowed(RETRY_AFTER_S)));
        }
        Reply {
            status: self.kind.status(),
            content_type: "application/problem+json",
            headers,
            body: Cow::Borrowed(json.finish()),
            close: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_members_of_rfc_9457_and_says_what_to_do() {
        let arena = Bump::new();
        let problem = Problem::new(Kind::InvalidBody, "streamKey is empty").field("streamKey");
        let reply = problem.reply(&arena, Some("/v1/events"), Some("ab"));
        assert_eq!(reply.status, 400);
        assert_eq!(reply.content_type, "application/problem+json");
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "/problems/invalid-body", "title": "The body is not valid", "status": 400,
                "detail": "streamKey is empty", "field": "streamKey", "instance": "/v1/events", "traceId": "ab"
            })
        );
    }

    #[test]
    fn every_kind_has_a_name_of_its_own_and_an_error_status() {
        for (index, kind) in Kind::ALL.iter().enumerate() {
            assert!((400..=599).contains(&kind.status()), "{kind:?}");
            assert_eq!(Kind::parse(kind.name()), Some(*kind));
            assert!(
                Kind::ALL[index + 1..].iter().all(|other| other.name() != kind.name()),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn try_again_is_said_with_a_time() {
        let arena = Bump::new();
        let reply = Problem::new(Kind::Unavailable, "full").reply(&arena, None, None);
        assert!(
            reply
                .headers
                .iter()
                .any(|(name, value)| *name == "Retry-After" && value == RETRY_AFTER_S)
        );
    }
}
