//! What the service answers to each request. This module is the app behind the front: it admits, handles, completes.
//!
//! One [`Desk`] lives on each poll loop and on each worker, with a read session of its own. What is shared between
//! them is in [`Shared`]. A desk never blocks on a loop: what may take long is sent to a worker by the route table,
//! and what must be durable goes to the intake thread with a return address.

mod answers;
mod asked;
mod batch;
mod events;
mod follow;
mod internal;
pub mod lobby;
mod machines;
mod openapi;
mod parameters;
mod posting;
pub mod problem;
mod read;
mod refusal;
mod stream;
pub mod table;
mod wait;

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bumpalo::Bump;
use crossbeam::channel::Sender;

use crate::certificates::ClientAuth;
use crate::domain::dead_letter::NO_TENANT;
use crate::domain::door::{trace_id_hex, traceparent};
use crate::domain::event::TraceContext;
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::time::Timestamp;
use crate::http::auth::{
    AuthError, Authenticator, KEYS_WAIT, Principal, Recent, Role, unix_seconds,
};
use crate::http::front::FrontHandle;
use crate::http::{
    self, Admission, App, Head, Lateness, Onward, Place, Port, Reply, Request, ReturnAddress,
};
use crate::intake::Posting;
use crate::live::Hub;
use crate::log_writer::LogPosting;
use crate::mailbox::Answer;
use crate::room::{Account, Rooms};
use crate::store::{ProcessView, Reader, Store, StoreError};
use crate::telemetry::metrics::{Metrics, StoreCall};
use crate::telemetry::traces::{Receiving, Tracer};
use crate::view::json::Json;
use answers::Answers;
use asked::Asked;
use parameters::Parameters;
use problem::{Kind, Problem};
use refusal::{allowed, auth_problem, not_found, relied_on, store_problem, told, unauthorized};
use table::{Body, Found, Route, Scope};

/// A body longer than this is parsed on a worker: about 100 microseconds of work.
const LOOP_BODY_BYTES_MAX: usize = 16 * 1024;
/// The type of every JSON answer.
const JSON: &str = "application/json";

/// What the desks share.
#[derive(Clone)]
pub struct Shared {
    pub store: Arc<dyn Store>,
    pub authenticator: Arc<Authenticator>,
    pub postings: Sender<Posting>,
    /// Bounds the events on their way through `postings`.
    pub event_rooms: Arc<Rooms>,
    pub log_postings: Sender<LogPosting>,
    /// Bounds the rows on their way through `log_postings`.
    pub log_rooms: Arc<Rooms>,
    /// Bounds what events and rows on their way hold, in bytes.
    pub payload_rooms: Arc<Rooms>,
    /// Tells streams that there is more to read.
    pub live: Arc<Hub>,
    /// Bounds how many wait for that.
    pub wait_rooms: Arc<Rooms>,
    pub metrics: Arc<Metrics>,
    /// None: nothing is traced.
    pub tracer: Option<Tracer>,
    pub body_bytes_max: usize,
    pub batch_bytes_max: usize,
    /// Answers only to loopback host names, and `/metrics` to anybody.
    pub development: bool,
    /// Whether the API asks its clients for certificates, so that routes can demand one.
    pub client_auth: ClientAuth,
    /// The service is stopping: `/ready` says so.
    pub draining: Arc<AtomicBool>,
    /// What the ports count.
    pub front: FrontHandle,
    /// The names of the threads that must run, and whether each does.
    pub threads: Arc<dyn Fn() -> Vec<(String, bool)> + Send + Sync>,
}

/// What is known of a request once its head is read.
pub struct Admitted {
    route: &'static Route,
    caller: Caller,
    trace: TraceContext,
    /// When the head was read, where that may be asked for.
    begun: Option<Timestamp>,
}

/// Who is asking.
enum Caller {
    Nobody,
    Known(Arc<Principal>),
    /// The token names a key that is being fetched: a worker waits for it.
    Unknown {
        authorization: String,
    },
}

/// The app on one thread.
pub struct Desk {
    shared: Arc<Shared>,
    reader: Box<dyn Reader>,
    /// The state of a generator of trace ids (splitmix64), seeded from the system.
    random: u64,
    tokens: Recent,
    answers: Answers,
    /// Reads of a status so far.
    statuses: u32,
    /// The reply at hand goes to a probe or a scraper: the objectives are about users' requests.
    for_machines: bool,
    /// The trace of the request that is being looked at: what is left of it when that panics.
    at_hand: Option<[u8; 16]>,
    /// The recorded trace that the reply at hand belongs to.
    recorded: Option<[u8; 16]>,
}

/// One read of a status in so many is timed: reading the clock twice would add a hundredth to each, on the loop.
const STATUS_SAMPLE: u32 = 64;

/// What a request's handler works with.
struct Exchange<'e, 'a> {
    arena: &'a Bump,
    request: &'e Request<'e>,
    route: &'static Route,
    parameters: Parameters<'e>,
    /// The tenant whose data is meant: the token's, or the one an admin names.
    tenant: Option<TenantId>,
    /// Who is asking, where the route needs a token.
    principal: Option<Arc<Principal>>,
    trace: TraceContext,
    begun: Option<Timestamp>,
    back: &'e dyn ReturnAddress,
}

type Handled<'a> = http::Handled<'a, stream::Streamed, wait::Wait>;
type Outcome<'a> = Result<Handled<'a>, Problem>;

impl Desk {
    /// A desk with a read session of its own.
    ///
    /// # Errors
    /// When the store gives no session.
    pub fn new(shared: Arc<Shared>) -> Result<Self, StoreError> {
        let reader = shared.store.reader()?;
        let random = uuid::Uuid::now_v7().as_u128();
        #[expect(clippy::cast_possible_truncation, reason = "half of the random bits are wanted")]
        let random = (random >> 64) as u64 ^ random as u64;
        Ok(Self {
            shared,
            reader,
            random,
            tokens: Recent::default(),
            answers: Answers::default(),
            statuses: 0,
            for_machines: false,
            at_hand: None,
            recorded: None,
        })
    }

    /// The read session, for one timed call.
    fn ask(&mut self, call: StoreCall) -> Asked<'_> {
        let metrics = &self.shared.metrics;
        Asked { reader: &mut *self.reader, metrics, call, begun: Instant::now() }
    }

    /// Reads a status, and times one read in [`STATUS_SAMPLE`].
    fn read_status(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
    ) -> Result<Option<ProcessView>, StoreError> {
        let is_timed = self.statuses.is_multiple_of(STATUS_SAMPLE);
        self.statuses = self.statuses.wrapping_add(1);
        if is_timed {
            self.ask(StoreCall::Status).status(tenant, process)
        } else {
            self.reader.status(tenant, process)
        }
    }

    fn random_u64(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The trace of the request: the caller's, else a new one [TE7].
    fn trace(&mut self, head: &Head<'_>) -> TraceContext {
        let fresh = self.fresh_trace_id();
        traceparent(head.headers.get("traceparent"), || fresh)
    }

    fn fresh_trace_id(&mut self) -> [u8; 16] {
        (u128::from(self.random_u64()) << 64 | u128::from(self.random_u64()) | 1).to_be_bytes()
    }

    /// Finds the route and who is asking.
    fn look_at(&mut self, head: &Head<'_>, trace: TraceContext) -> Result<Admitted, Problem> {
        if self.shared.development && !is_loopback_host(head.headers.get("host")) {
            return Err(Problem::new(Kind::MisdirectedRequest, Kind::MisdirectedRequest.help()));
        }
        let route = match table::find(&head.method, head.path, head.port) {
            Found::Route(route) => route,
            Found::OtherMethods(methods) => {
                let mut allow: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
                if allow.contains(&"GET") {
                    allow.push("HEAD");
                }
                let allow = allow.join(", ");
                let detail = format!("this path takes {allow}");
                return Err(Problem::new(Kind::MethodNotAllowed, detail).header("Allow", allow));
            }
            Found::Nothing => {
                return Err(Problem::new(
                    Kind::NotFound,
                    "no such path; /openapi.json lists them all",
                ));
            }
        };
        if route.certificate
            && self.shared.client_auth != ClientAuth::Off
            && head.port == Port::Api
            && head.certificate.is_none()
        {
            return Err(Problem::new(
                Kind::CertificateRequired,
                "this path is for services and scrapers that show a client certificate; connect with one",
            ));
        }
        // What a proxy unpacks and looks into must not be something else here.
        let coding = head.headers.get("content-encoding");
        if !matches!(route.body, Body::None)
            && coding.is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"))
        {
            let detail = "bodies are taken as they are: send it without Content-Encoding";
            return Err(Problem::new(Kind::UnsupportedMediaType, detail)
                .header("Accept-Encoding", "identity"));
        }
        let needed = match (route.scope, head.port) {
            (Scope::Open, _) | (Scope::Scrape, Port::Metrics) => None,
            (Scope::Scrape, Port::Api) => {
                let known = self.shared.development || head.certificate.is_some();
                (!known).then_some(Role::Read)
            }
            (Scope::Read, _) => Some(Role::Read),
            (Scope::Write, _) => Some(Role::Write),
            (Scope::Operate, _) => Some(Role::Operate),
        };
        let Some(needed) = needed else {
            return Ok(Admitted { route, caller: Caller::Nobody, trace, begun: None });
        };
        let authorization = head.headers.get("authorization");
        if head.headers.count("authorization") > 1 {
            return Err(unauthorized("there is more than one Authorization field"));
        }
        let authenticator = &self.shared.authenticator;
        let (tokens, now_s) = (&mut self.tokens, unix_seconds());
        let caller = match authenticator.check_again(tokens, authorization, head.certificate, now_s)
        {
            Ok(principal) => {
                allowed(&principal, needed)?;
                Caller::Known(principal)
            }
            Err(AuthError::Retry) => {
                Caller::Unknown { authorization: authorization.unwrap_or_default().to_owned() }
            }
            Err(error) => return Err(auth_problem(&error)),
        };
        let is_post = needed == Role::Write;
        let begun = self.shared.tracer.as_ref().filter(|_| is_post).map(Tracer::now);
        Ok(Admitted { route, caller, trace, begun })
    }

    /// The tenant that a request is about. Another one than the token's needs an admin [law 7].
    ///
    /// What cannot be read belongs to nobody, and only the listing of dead letters shows it.
    fn tenant(
        principal: &Principal,
        route: &Route,
        parameters: &Parameters<'_>,
    ) -> Result<TenantId, Problem> {
        let shows_unreadable =
            matches!(route.action, table::Action::DeadLetters | table::Action::DeadLetter);
        match parameters.given("tenant") {
            None => Ok(principal.tenant().clone()),
            Some(named) if named == principal.tenant().as_str() => Ok(principal.tenant().clone()),
            Some(_) if !principal.may(Role::Admin) => {
                Err(Problem::new(Kind::Forbidden, "another tenant needs the role sentinel:admin"))
            }
            Some(named) if shows_unreadable && named == NO_TENANT => Ok(TenantId::unreadable()),
            Some(named) => TenantId::parse(named)
                .map_err(|error| Problem::new(Kind::BadRequest, error.to_string()).field("tenant")),
        }
    }

    fn respond<'a>(
        &mut self,
        arena: &'a Bump,
        request: &Request<'_>,
        admitted: Admitted,
        back: &dyn ReturnAddress,
    ) -> Outcome<'a> {
        let Admitted { route, caller, trace, begun } = admitted;
        let principal = match caller {
            Caller::Nobody => None,
            Caller::Known(principal) => Some(principal),
            Caller::Unknown { authorization } => {
                let found = self
                    .shared
                    .authenticator
                    .check_waiting(
                        Some(&authorization),
                        request.head.certificate,
                        unix_seconds(),
                        KEYS_WAIT,
                    )
                    .map_err(|error| auth_problem(&error))?;
                let needed = match route.scope {
                    Scope::Write => Role::Write,
                    Scope::Operate => Role::Operate,
                    Scope::Open | Scope::Scrape | Scope::Read => Role::Read,
                };
                allowed(&found, needed)?;
                Some(found)
            }
        };
        // Probes and scrapers may say what they like.
        let query = match route.scope {
            Scope::Open | Scope::Scrape => "",
            Scope::Read | Scope::Write | Scope::Operate => request.head.query,
        };
        let parameters = Parameters::of(route, query)?;
        let tenant = principal
            .as_ref()
            .map(|principal| Self::tenant(principal, route, &parameters))
            .transpose()?;
        let exchange =
            Exchange { arena, request, route, parameters, tenant, principal, trace, begun, back };
        match route.action {
            table::Action::Index => Ok(machines::index(&exchange)),
            table::Action::Health => Ok(machines::health(&exchange)),
            table::Action::Ready => Ok(self.ready(&exchange)),
            table::Action::Metrics => Ok(self.metrics(&exchange)),
            table::Action::OpenApi => {
                Ok(openapi::answer(self.shared.client_auth, self.shared.development))
            }
            table::Action::ProblemHelp => machines::problem_help(&exchange),
            table::Action::Report(kind) => self.report(&exchange, kind),
            table::Action::Log => self.log(&exchange),
            table::Action::PostEvents => self.post_events(&exchange),
            table::Action::Status => self.status(&exchange),
            table::Action::Processes => self.processes(&exchange),
            table::Action::Runs => self.runs(&exchange),
            table::Action::Logs => self.logs(&exchange),
            table::Action::Events => self.events(&exchange),
            table::Action::Event => self.event(&exchange),
            table::Action::Stream => self.stream(&exchange),
            table::Action::StreamEvents => self.stream_events(&exchange),
            table::Action::DeadLetters => self.dead_letters(&exchange),
            table::Action::DeadLetter => self.dead_letter(&exchange),
        }
    }
}

impl App for Desk {
    type Admitted = Admitted;
    type Stream = stream::Streamed;
    type Late = wait::Wait;

    fn admit<'a>(&mut self, arena: &'a Bump, head: &Head<'_>) -> Admission<'a, Admitted> {
        self.for_machines = false;
        let trace = self.trace(head);
        self.at_hand = Some(trace.trace_id);
        let looked_at = self.look_at(head, trace);
        self.at_hand = None;
        match looked_at {
            Ok(admitted) => {
                let route = admitted.route;
                let body_bytes_max = match route.body {
                    Body::None => self.shared.body_bytes_max,
                    Body::One => self.shared.body_bytes_max,
                    Body::Many if events::is_batch(head) || route.action == table::Action::Log => {
                        self.shared.batch_bytes_max
                    }
                    Body::Many => self.shared.body_bytes_max,
                };
                let short = head.content_length.is_some_and(|bytes| bytes <= LOOP_BODY_BYTES_MAX);
                let waits = matches!(admitted.caller, Caller::Unknown { .. });
                // What asks a store that may keep it waiting must not keep its neighbours waiting.
                let asks = !self.shared.store.answers_at_once() && route.reads_store();
                let place = if short && !waits && !asks { route.place } else { Place::Worker };
                Admission::Read { admitted, place, body_bytes_max }
            }
            Err(problem) => Admission::Refuse(problem.reply(
                arena,
                Some(head.path),
                Some(&trace_id_hex(&trace)),
            )),
        }
    }

    fn account(admitted: &Admitted) -> Option<&Arc<Account>> {
        match &admitted.caller {
            Caller::Known(principal) => Some(principal.account()),
            Caller::Nobody | Caller::Unknown { .. } => None,
        }
    }

    fn handle<'a>(
        &mut self,
        arena: &'a Bump,
        request: &Request<'_>,
        admitted: Admitted,
        back: &dyn ReturnAddress,
    ) -> Handled<'a> {
        let trace = admitted.trace;
        self.for_machines = admitted.route.is_for_machines();
        self.at_hand = Some(trace.trace_id);
        let outcome = self.respond(arena, request, admitted, back);
        self.at_hand = None;
        match outcome {
            Ok(handled) => handled,
            Err(problem) => Handled::Reply(told(arena, &problem, request.head.path, &trace)),
        }
    }

    fn complete<'a>(
        &mut self,
        arena: &'a Bump,
        context: Box<dyn Any + Send>,
        answer: Answer,
    ) -> Reply<'a> {
        self.for_machines = false;
        match context.downcast::<Waiting>() {
            Ok(mut waiting) => {
                self.at_hand = waiting.trace_id();
                let receiving = waiting.receiving();
                let reply = waiting.finish(arena, answer);
                self.recorded = receiving.map(|receiving| receiving.answered(reply.status));
                self.at_hand = None;
                reply
            }
            Err(_) => self.refuse(arena, 500, "an answer came back without its question"),
        }
    }

    fn more(&mut self, stream: Self::Stream) -> (Vec<u8>, Option<Self::Stream>) {
        stream.next(&mut *self.reader)
    }

    fn onward(&self, stream: &Self::Stream) -> Onward {
        stream.onward()
    }

    fn late<'a>(&mut self, arena: &'a Bump, late: wait::Wait) -> Lateness<'a, wait::Wait> {
        self.for_machines = false;
        self.at_hand = Some(late.trace.trace_id);
        let (now, draining) = (self.shared.store.now(), self.shared.is_draining());
        let looked = late.look(&mut *self.reader, arena, now, draining);
        self.at_hand = None;
        match looked {
            Ok(Some(reply)) => Lateness::Reply(reply),
            Ok(None) => {
                let pause = late.pause();
                Lateness::NotYet(late, pause)
            }
            Err(problem) => Lateness::Reply(told(arena, &problem, &late.path, &late.trace)),
        }
    }

    fn refuse<'a>(&mut self, arena: &'a Bump, status: u16, detail: &'static str) -> Reply<'a> {
        let trace_id = self.at_hand.take().unwrap_or_else(|| self.fresh_trace_id());
        let trace_id = format!("{:032x}", u128::from_be_bytes(trace_id));
        if status == 500 {
            log::error!(traceId = trace_id.as_str(); "a request is answered with 500: {detail}");
        }
        let kind = Kind::of_status(status);
        let detail = match kind {
            // The front knows that it is too large, and not what for.
            Kind::TooLarge => Cow::Owned(format!(
                "{detail}: an event or report may have {} bytes, a batch and log rows {}",
                self.shared.body_bytes_max, self.shared.batch_bytes_max
            )),
            _ => Cow::Borrowed(detail),
        };
        Problem::new(kind, detail).reply(arena, None, Some(&trace_id))
    }

    fn replied(&mut self, status: u16, micros: u64, arena_bytes: usize) {
        let recorded = self.recorded.take();
        if std::mem::take(&mut self.for_machines) {
            return;
        }
        let took = Duration::from_micros(micros);
        self.shared.metrics.replied(status, took, arena_bytes, recorded);
    }

    fn end_turn(&mut self) {
        self.reader.end_turn();
    }
}

/// What is needed to finish a request whose answer comes from another thread.
enum Waiting {
    Report(internal::WaitingReport),
    Log(internal::WaitingLog),
    Event(events::WaitingEvent),
    Row(events::WaitingRow),
    Batch(batch::WaitingBatch),
}

impl Waiting {
    fn trace_id(&self) -> Option<[u8; 16]> {
        let hex = match self {
            Self::Report(waiting) => &waiting.trace_id,
            Self::Log(waiting) => &waiting.trace_id,
            Self::Event(waiting) => &waiting.trace_id,
            Self::Row(waiting) => &waiting.trace_id,
            Self::Batch(waiting) => &waiting.trace_id,
        };
        u128::from_str_radix(hex, 16).ok().map(u128::to_be_bytes)
    }

    /// The span of the request, which is open until it is answered.
    fn receiving(&mut self) -> Option<Box<Receiving>> {
        match self {
            Self::Report(waiting) => waiting.receiving.take(),
            Self::Event(waiting) => waiting.receiving.take(),
            Self::Batch(waiting) => waiting.receiving.take(),
            // Log rows are no events.
            Self::Log(_) | Self::Row(_) => None,
        }
    }

    fn finish<'a>(self, arena: &'a Bump, answer: Answer) -> Reply<'a> {
        match self {
            Self::Report(waiting) => waiting.finish(arena, answer),
            Self::Log(waiting) => waiting.finish(arena, answer),
            Self::Event(waiting) => waiting.finish(arena, answer),
            Self::Row(waiting) => waiting.finish(arena, answer),
            Self::Batch(waiting) => waiting.finish(arena, answer),
        }
    }
}

impl<'a> Exchange<'_, 'a> {
    /// The tenant of a route that needs a token.
    fn tenant(&self) -> Result<&TenantId, Problem> {
        self.tenant.as_ref().ok_or_else(|| Problem::new(Kind::Internal, "the route has no scope"))
    }

    /// When the token of the request is no longer good. None: never, as far as can be said.
    fn token_ends(&self) -> Option<Instant> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Instant::now().checked_add(self.principal.as_ref()?.good_for(now)?)
    }

    /// Whose share of the rooms it takes: that of its token's tenant, whatever tenant it names.
    fn account(&self) -> Result<&Arc<Account>, Problem> {
        let principal = self.principal.as_ref();
        principal
            .map(|principal| principal.account())
            .ok_or_else(|| Problem::new(Kind::Internal, "the route has no scope"))
    }

    fn trace_id(&self) -> String {
        trace_id_hex(&self.trace)
    }

    /// The segment in braces of the route's path. What is no valid name names nothing.
    fn argument<T>(&self, parse: impl Fn(&str) -> Option<T>) -> Result<T, Problem> {
        table::argument(self.route, self.request.head.path)
            .and_then(|text| parse(&text))
            .ok_or_else(not_found)
    }

    /// A whole JSON answer.
    fn json(&self, status: u16, write: impl FnOnce(&mut Json<'a>)) -> Reply<'a> {
        json(self.arena, status, write)
    }
}

fn json<'a>(arena: &'a Bump, status: u16, write: impl FnOnce(&mut Json<'a>)) -> Reply<'a> {
    let mut json = Json::new(arena);
    write(&mut json);
    Reply {
        status,
        content_type: JSON,
        headers: vec![("Cache-Control", Cow::Borrowed("no-store"))],
        body: Cow::Borrowed(json.finish()),
        close: false,
    }
}

/// Development mode answers only to loopback names, so that no web page can reach it by a name of its own.
fn is_loopback_host(host: Option<&str>) -> bool {
    let Some(host) = host else { return true };
    let name = match host.strip_prefix('[') {
        Some(rest) => return rest.split_once(']').is_some_and(|(address, _)| address == "::1"),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1"
}

impl Shared {
    /// Whether the service is on its way out.
    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn development_mode_knows_the_loopback_names() {
        for host in
            ["localhost", "LOCALHOST:8090", "127.0.0.1", "127.0.0.1:1", "[::1]:8090", "[::1]"]
        {
            assert!(is_loopback_host(Some(host)), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:8090",
            "127.0.0.2",
            "[::2]",
            "",
            "127.0.0.1.evil.example",
        ] {
            assert!(!is_loopback_host(Some(host)), "{host}");
        }
    }
}
