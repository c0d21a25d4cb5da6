//! Why a request is refused. This module turns what doors, tokens and stores say into problems, and keeps for the log
//! what only we need to know.

use std::borrow::Cow;

use bumpalo::Bump;

use super::problem::{Kind, Problem};
use crate::domain::door::trace_id_hex;
use crate::domain::event::TraceContext;
use crate::http::auth::{self, AuthError, Principal, Role};
use crate::http::{Head, Reply};
use crate::store::StoreError;

/// The reply that tells a problem. What caused one of ours is in the log.
pub(super) fn told<'a>(
    arena: &'a Bump,
    problem: &Problem,
    path: &str,
    trace: &TraceContext,
) -> Reply<'a> {
    let trace_id = trace_id_hex(trace);
    if let Some(cause) = &problem.cause {
        log::error!(traceId = trace_id.as_str(); "a request is answered with {}: {cause}", problem.kind.status());
    }
    problem.reply(arena, Some(path), Some(&trace_id))
}

pub(super) fn not_found() -> Problem {
    Problem::new(Kind::NotFound, "nothing of this name is known to your tenant")
}

/// A header field that decides what a request means or does.
pub(super) fn relied_on<'q>(
    head: &Head<'q>,
    name: &'static str,
) -> Result<Option<&'q str>, Problem> {
    let value = head.headers.only(name);
    value.map_err(|what| Problem::new(Kind::InvalidBody, format!("{name} {what}")).field(name))
}

pub(super) fn allowed(principal: &Principal, needed: Role) -> Result<(), Problem> {
    if principal.may(needed) {
        return Ok(());
    }
    Err(Problem::new(Kind::Forbidden, format!("this needs the role {}", needed.as_str())))
}

pub(super) fn unauthorized(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(Kind::Unauthorized, detail).header("WWW-Authenticate", auth::CHALLENGE)
}

pub(super) fn auth_problem(error: &AuthError) -> Problem {
    match error {
        AuthError::Missing => Problem::new(
            Kind::Unauthorized,
            "send Authorization: Bearer <token>; in development mode `sentinel token` makes one",
        )
        .header("WWW-Authenticate", "Bearer"),
        AuthError::NoKeys => Problem::new(Kind::KeysUnavailable, Kind::KeysUnavailable.help()),
        AuthError::Retry | AuthError::Invalid(_) => unauthorized(error.to_string()),
    }
}

/// Turns a store's error into an answer, and keeps for the log what only we need to know.
pub(super) fn store_problem(error: &StoreError) -> Problem {
    // What nobody understands may be the question's own fault, and then asking again helps nobody.
    if error.is_transient() && !matches!(error, StoreError::Unclear { .. }) {
        return Problem::new(Kind::Unavailable, error.to_string());
    }
    Problem {
        cause: Some(format!("a read failed: {}", Chain(error))),
        ..Problem::new(Kind::Internal, Kind::Internal.help())
    }
}

/// Shows an error with everything that led to it.
struct Chain<'e>(&'e dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
