//! What the ports answer while the store cannot be opened yet. This module is the app of a service that waits.
//!
//! A folder that is read-only or full at the start is mended by people, and they look at `/ready` first. So the ports
//! are open from the beginning: `/health` is well, everything else is 503 and says why.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use bumpalo::Bump;

use super::is_loopback_host;
use super::problem::{Kind, Problem};
use crate::http::{Admission, App, Handled, Head, Lateness, Place, Reply, Request, ReturnAddress};
use crate::mailbox::Answer;
use crate::room::Account;
use crate::view::json::Json;

/// Answers for a service whose store is not there yet.
pub struct Lobby {
    why: Arc<str>,
    /// Answers only to loopback host names, as the service will.
    development: bool,
}

/// What a request in the lobby asks.
pub enum Asked {
    Health,
    Ready,
    /// What only an open store can answer.
    Else,
}

impl Lobby {
    /// `why` is told to everybody who asks.
    pub fn new(why: Arc<str>, development: bool) -> Self {
        Self { why, development }
    }
}

/// What is answered here belongs to no trace that goes on, but whoever asks about it has a name for it.
fn trace_id() -> String {
    format!("{:032x}", uuid::Uuid::now_v7().as_u128())
}

impl App for Lobby {
    type Admitted = Asked;
    type Stream = std::convert::Infallible;
    type Late = std::convert::Infallible;

    fn admit<'a>(&mut self, arena: &'a Bump, head: &Head<'_>) -> Admission<'a, Asked> {
        if self.development && !is_loopback_host(head.headers.get("host")) {
            let problem = Problem::new(Kind::MisdirectedRequest, Kind::MisdirectedRequest.help());
            return Admission::Refuse(problem.reply(arena, Some(head.path), Some(&trace_id())));
        }
        let admitted = match head.path {
            "/health" => Asked::Health,
            "/ready" => Asked::Ready,
            _ => Asked::Else,
        };
        // No body is of use here, so none is waited for beyond what a probe may send.
        let (place, body_bytes_max) = (Place::Loop, BODY_BYTES_MAX);
        Admission::Read { admitted, place, body_bytes_max }
    }

    fn account(_: &Asked) -> Option<&Arc<Account>> {
        None
    }

    fn handle<'a>(
        &mut self,
        arena: &'a Bump,
        request: &Request<'_>,
        asked: Asked,
        _back: &dyn ReturnAddress,
    ) -> Handled<'a, Self::Stream, Self::Late> {
        let json = |status, body| Reply {
            status,
            content_type: super::JSON,
            headers: Vec::new(),
            body: Cow::Borrowed(body),
            close: false,
        };
        Handled::Reply(match asked {
            Asked::Health => json(200, b"{\"status\":\"ok\"}"),
            Asked::Ready => {
                let mut body = Json::new(arena);
                body.object(|body| {
                    body.member("status").text("unavailable");
                    body.member("checks").array(|body| {
                        body.object(|body| {
                            body.member("name").text("store.open");
                            body.member("state").text("failed");
                            body.member("detail").text(&self.why);
                        });
                    });
                });
                json(503, body.finish())
            }
            Asked::Else => {
                Problem::new(Kind::Unavailable, format!("the store is not open yet: {}", self.why))
                    .reply(arena, Some(request.head.path), Some(&trace_id()))
            }
        })
    }

    fn complete<'a>(&mut self, arena: &'a Bump, _: Box<dyn Any + Send>, _: Answer) -> Reply<'a> {
        self.refuse(arena, 503, "the store is not open yet")
    }

    fn more(&mut self, stream: Self::Stream) -> (Vec<u8>, Option<Self::Stream>) {
        match stream {}
    }

    fn late<'a>(&mut self, _: &'a Bump, late: Self::Late) -> Lateness<'a, Self::Late> {
        match late {}
    }

    fn refuse<'a>(&mut self, arena: &'a Bump, status: u16, detail: &'static str) -> Reply<'a> {
        if status == 500 {
            log::error!("a request in the lobby is answered with 500: {detail}");
        }
        Problem::new(Kind::of_status(status), detail).reply(arena, None, Some(&trace_id()))
    }

    fn replied(&mut self, _: u16, _: u64, _: usize) {}

    fn end_turn(&mut self) {}
}

/// Enough for any report; a batch may wait for the store.
const BODY_BYTES_MAX: usize = 64 * 1024;
