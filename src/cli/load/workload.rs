//! What is sent, and what has to come back. This module writes requests and judges their answers.

use std::fmt::Write;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::reply::{Reply, number_after};
use super::tally::Tally;
use super::{LoadArgs, Server};
use crate::domain::ids::TenantId;
use crate::domain::time::Timestamp;

/// Acknowledged events remembered, from which those to be sent again are drawn.
const REMEMBERED_MAX: usize = 1024;

/// Where the events of the load say that they come from.
const SOURCE: &str = "sentinel-load";

/// Answers with other statuses than these end up in the tally's surprises.
type Statuses = &'static [u16];

/// What has to come back for one request.
pub(super) enum Ask {
    Events(Sent),
    /// So many rows or questions, all answered with one of these statuses.
    Plain {
        count: u64,
        statuses: Statuses,
    },
}

/// The events of one request.
pub(super) struct Sent {
    fresh: u64,
    repeated: u64,
    invalid: u64,
    /// The last event, where it is one that may be looked for in its stream.
    pub(super) last: Option<Placed>,
    /// An event to remember once it is acknowledged.
    again: Option<Event>,
}

/// Where an event is to be found.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) event_id: String,
    pub(super) stream: String,
    /// When a process reported progress: from then on its status shows this time or a later one.
    pub(super) progress_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
struct Event {
    id: String,
    json: String,
}

/// An acknowledged event, with its number in the stream.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) placed: Placed,
    pub(super) stream_seq: u64,
    pub(super) acknowledged: Instant,
}

/// A source of requests.
pub(super) trait Workload {
    /// Appends the next request to `out`. None: there is none left.
    fn next(&mut self, out: &mut Vec<u8>) -> Option<Ask>;
    /// Counts the answer. Returns an event to be looked for.
    fn settle(&mut self, ask: Ask, reply: &Reply<'_>, tally: &mut Tally) -> Option<Sample>;
}

impl Ask {
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Events(sent) => sent.fresh + sent.repeated + sent.invalid,
            Self::Plain { count, .. } => *count,
        }
    }
}

/// The tenant that the token names. The service checks the token; here only its text is read.
pub(super) fn tenant_of(token: &str) -> anyhow::Result<String> {
    let claims =
        token.split('.').nth(1).context("events need a token, and this is none (a JWT)")?;
    let claims = URL_SAFE_NO_PAD.decode(claims).context("the token is no JWT")?;
    let claims: serde_json::Value =
        serde_json::from_slice(&claims).context("the token is no JWT")?;
    let tenant = claims["tenant_id"].as_str().context("the token names no tenant (tenant_id)")?;
    Ok(TenantId::parse(tenant).context("the token names no valid tenant")?.to_string())
}

/// Numbers that look random and cost nothing.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        Self(Uuid::now_v7().as_u64_pair().1)
    }

    /// The generator that is called `SplitMix64`.
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.roll() % bound).unwrap_or(0)
    }

    fn happens(&mut self, share: f64) -> bool {
        share > 0.0 && ((self.roll() >> 11) as f64) < share * (1_u64 << 53) as f64
    }
}

fn now() -> Timestamp {
    Timestamp::default().plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// `POST /v1/events`, one by one or as NDJSON.
pub(super) struct Events {
    fields: String,
    tenant: String,
    batch: usize,
    duplicates: f64,
    invalid: f64,
    processes: f64,
    streams: usize,
    filler: String,
    dice: Dice,
    acknowledged: Vec<Event>,
    /// Events of processes so far: each process goes through [`STEPS`] again and again.
    process_events: usize,
    body: String,
}

/// What a process sends, one after the other.
const STEPS: [(&str, &str); 5] = [
    ("process.started", r#"{"process_name":"load","process_type":"load"}"#),
    ("process.progress", r#"{"current_step":"first","progress_percent":25}"#),
    ("process.heartbeat", r#"{"message":"alive"}"#),
    ("process.progress", r#"{"current_step":"second","progress_percent":75}"#),
    ("process.completed", r#"{"result":{"rows":1000}}"#),
];

/// Processes that take part in a load.
const PROCESSES: usize = super::SEEDED;

impl Events {
    pub(super) fn new(args: &LoadArgs, server: &Server, tenant: String) -> Self {
        // {"n":"…16 digits…","text":"…"}
        let frame = 36;
        Self {
            fields: server.fields.clone(),
            tenant,
            batch: args.batch,
            duplicates: args.duplicates,
            invalid: args.invalid,
            processes: args.processes,
            streams: args.streams,
            filler: "x".repeat(args.payload_bytes.saturating_sub(frame)),
            dice: Dice::new(),
            acknowledged: Vec::new(),
            process_events: 0,
            body: String::new(),
        }
    }

    /// Appends an event that nobody has sent before.
    fn write_fresh(&mut self, time: Timestamp, valid: bool) -> Placed {
        let event_id = Uuid::now_v7().hyphenated().to_string();
        let id = if valid { &*event_id } else { "this is no UUID" };
        let tenant = &self.tenant;
        let stream;
        let mut progress_at = None;
        let body = &mut self.body;
        if self.dice.happens(self.processes) {
            stream = format!("load-process-{}", self.process_events % PROCESSES);
            let (event_type, payload) = STEPS[self.process_events / PROCESSES % STEPS.len()];
            self.process_events += 1;
            progress_at = (event_type == "process.progress").then_some(time);
            let _ = write!(
                body,
                r#"{{"eventId":"{id}","tenantId":"{tenant}","source":"{SOURCE}","type":"{event_type}","timestampUtc":"{time}","schemaVersion":1,"streamKey":"{stream}","payload":{payload}}}"#
            );
        } else {
            stream = format!("load-stream-{}", self.dice.below(self.streams));
            let (number, filler) = (self.dice.roll(), &self.filler);
            let _ = write!(
                body,
                r#"{{"eventId":"{id}","tenantId":"{tenant}","source":"{SOURCE}","type":"LoadApplied","timestampUtc":"{time}","schemaVersion":1,"streamKey":"{stream}","payload":{{"n":"{number:016x}","text":"{filler}"}}}}"#
            );
        }
        Placed { event_id, stream, progress_at }
    }
}

impl Workload for Events {
    fn next(&mut self, out: &mut Vec<u8>) -> Option<Ask> {
        let time = now();
        let mut sent = Sent { fresh: 0, repeated: 0, invalid: 0, last: None, again: None };
        let mut key = String::new();
        self.body.clear();
        for _ in 0..self.batch {
            sent.last = None;
            let start = self.body.len();
            if !self.acknowledged.is_empty() && self.dice.happens(self.duplicates) {
                let event = &self.acknowledged[self.dice.below(self.acknowledged.len())];
                self.body.push_str(&event.json);
                key.clone_from(&event.id);
                sent.repeated += 1;
            } else if self.dice.happens(self.invalid) {
                key = self.write_fresh(time, false).event_id;
                sent.invalid += 1;
            } else {
                let placed = self.write_fresh(time, true);
                key.clone_from(&placed.event_id);
                if self.duplicates > 0.0 && sent.again.is_none() {
                    let json = self.body[start..].to_string();
                    sent.again = Some(Event { id: placed.event_id.clone(), json });
                }
                sent.last = Some(placed);
                sent.fresh += 1;
            }
            if self.batch > 1 {
                self.body.push('\n');
            }
        }
        out.extend_from_slice(b"POST /v1/events HTTP/1.1\r\n");
        out.extend_from_slice(self.fields.as_bytes());
        let rest = if self.batch > 1 {
            format!(
                "Content-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
                self.body.len()
            )
        } else {
            format!(
                "Content-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n",
                self.body.len()
            )
        };
        out.extend_from_slice(rest.as_bytes());
        out.extend_from_slice(self.body.as_bytes());
        Some(Ask::Events(sent))
    }

    fn settle(&mut self, ask: Ask, reply: &Reply<'_>, tally: &mut Tally) -> Option<Sample> {
        let Ask::Events(sent) = ask else { return None };
        let all = sent.fresh + sent.repeated + sent.invalid;
        let found = if self.batch > 1 { Lines::read(reply) } else { Lines::of_one(reply) };
        let Some(found) = found else {
            tally.reject(reply.status, all, false);
            return None;
        };
        tally.accepted += found.accepted - found.replayed.min(found.accepted);
        tally.replayed += found.replayed;
        for (status, lines) in &found.rejected {
            tally.reject(*status, *lines, *status == 400 && *lines == sent.invalid);
        }
        if found.rejected.iter().all(|(status, _)| *status == 400) {
            let right = (sent.fresh + sent.repeated, sent.repeated);
            if (found.accepted, found.replayed) != right {
                tally.surprise(format!(
                    "status {}: {} of {} events accepted, {} of {} as replays",
                    reply.status, found.accepted, right.0, found.replayed, right.1
                ));
            } else if let Some(event) = sent.again {
                if self.acknowledged.len() < REMEMBERED_MAX {
                    self.acknowledged.push(event);
                } else {
                    let index = self.dice.below(REMEMBERED_MAX);
                    self.acknowledged[index] = event;
                }
            }
        }
        let stream_seq = found.last_stream_seq?;
        Some(Sample { placed: sent.last?, stream_seq, acknowledged: Instant::now() })
    }
}

/// What became of the events of one request.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lines {
    /// Replays are among them.
    accepted: u64,
    replayed: u64,
    rejected: Vec<(u16, u64)>,
    last_stream_seq: Option<u64>,
}

impl Lines {
    fn of_one(reply: &Reply<'_>) -> Option<Self> {
        match reply.status {
            202 => Some(Self {
                accepted: 1,
                replayed: u64::from(reply.replayed),
                rejected: Vec::new(),
                last_stream_seq: number_after(reply.body, "\"streamSeq\""),
            }),
            400 => Some(Self { rejected: vec![(400, 1)], ..Self::default() }),
            _ => None,
        }
    }

    /// One line of the answer for each event. None: the batch was refused whole.
    fn read(reply: &Reply<'_>) -> Option<Self> {
        if !matches!(reply.status, 202 | 207) {
            return None;
        }
        let mut lines = Self::default();
        for line in reply.body.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            // A problem within the line has a status too, but a later one.
            let status =
                number_after(line, "\"status\"").and_then(|status| u16::try_from(status).ok());
            lines.last_stream_seq = None;
            match status.unwrap_or(0) {
                202 => {
                    lines.accepted += 1;
                    let replayed = memchr::memmem::find(line, b"\"replayed\":true").is_some();
                    lines.replayed += u64::from(replayed);
                    lines.last_stream_seq = number_after(line, "\"streamSeq\"");
                }
                status => match lines.rejected.iter_mut().find(|(known, _)| *known == status) {
                    Some((_, count)) => *count += 1,
                    None => lines.rejected.push((status, 1)),
                },
            }
        }
        Some(lines)
    }
}

/// Counts answers that only have to have the right status.
fn settle_plain(ask: &Ask, reply: &Reply<'_>, tally: &mut Tally) {
    let Ask::Plain { count, statuses } = ask else { return };
    if statuses.contains(&reply.status) {
        tally.accepted += count;
    } else {
        tally.reject(reply.status, *count, false);
    }
}

/// `POST /internal/log`.
pub(super) struct Logs {
    fields: String,
    batch: usize,
    message: String,
    dice: Dice,
    body: String,
}

impl Logs {
    pub(super) fn new(args: &LoadArgs, server: &Server) -> Self {
        let message = "x".repeat(args.payload_bytes);
        let (fields, batch) = (server.fields.clone(), args.batch);
        Self { fields, batch, message, dice: Dice::new(), body: String::new() }
    }
}

impl Workload for Logs {
    fn next(&mut self, out: &mut Vec<u8>) -> Option<Ask> {
        const LEVELS: [&str; 4] = ["DEBUG", "INFO", "WARN", "ERROR"];
        self.body.clear();
        for index in 0..self.batch {
            self.body.push(if index == 0 { '[' } else { ',' });
            let level = LEVELS[self.dice.below(LEVELS.len())];
            let message = &self.message;
            let _ = write!(
                self.body,
                r#"{{"level":"{level}","component":"load","message":"{message}"}}"#
            );
        }
        self.body.push(']');
        let head = format!(
            "POST /internal/log HTTP/1.1\r\n{}X-Sentinel-Process-Id: load-process-{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.fields,
            self.dice.below(PROCESSES),
            self.body.len()
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(self.body.as_bytes());
        Some(Ask::Plain {
            count: u64::try_from(self.batch).unwrap_or(u64::MAX),
            statuses: &[200, 202],
        })
    }

    fn settle(&mut self, ask: Ask, reply: &Reply<'_>, tally: &mut Tally) -> Option<Sample> {
        settle_plain(&ask, reply, tally);
        None
    }
}

/// Requests without a body, prepared before.
pub(super) struct Plain {
    requests: Vec<Vec<u8>>,
    dice: Dice,
}

impl Plain {
    fn get(server: &Server, paths: impl Iterator<Item = String>) -> Self {
        let request = |path| format!("GET {path} HTTP/1.1\r\n{}\r\n", server.fields).into_bytes();
        Self { requests: paths.map(request).collect(), dice: Dice::new() }
    }

    /// `GET /status/{id}`.
    pub(super) fn status(server: &Server, processes: usize) -> Self {
        Self::get(server, (0..processes).map(|number| format!("/status/load-process-{number}")))
    }

    /// `GET /health`.
    pub(super) fn constant(server: &Server) -> Self {
        Self::get(server, std::iter::once("/health".to_string()))
    }
}

impl Workload for Plain {
    fn next(&mut self, out: &mut Vec<u8>) -> Option<Ask> {
        let index = self.dice.below(self.requests.len());
        out.extend_from_slice(&self.requests[index]);
        Some(Ask::Plain { count: 1, statuses: &[200] })
    }

    fn settle(&mut self, ask: Ask, reply: &Reply<'_>, tally: &mut Tally) -> Option<Sample> {
        settle_plain(&ask, reply, tally);
        None
    }
}

/// `POST /internal/start` of each process, once.
pub(super) struct Seeds {
    fields: String,
    left: usize,
}

impl Seeds {
    pub(super) fn new(server: &Server, processes: usize) -> Self {
        Self { fields: server.fields.clone(), left: processes }
    }
}

impl Workload for Seeds {
    fn next(&mut self, out: &mut Vec<u8>) -> Option<Ask> {
        self.left = self.left.checked_sub(1)?;
        let body = r#"{"process_name":"load","process_type":"load"}"#;
        let request = format!(
            "POST /internal/start HTTP/1.1\r\n{}X-Sentinel-Process-Id: load-process-{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.fields,
            self.left,
            body.len()
        );
        out.extend_from_slice(request.as_bytes());
        Some(Ask::Plain { count: 1, statuses: &[200, 202] })
    }

    fn settle(&mut self, ask: Ask, reply: &Reply<'_>, tally: &mut Tally) -> Option<Sample> {
        settle_plain(&ask, reply, tally);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply<'_> {
        Reply { status, replayed: false, close: false, body: body.as_bytes() }
    }

    #[test]
    fn each_line_of_a_batch_is_judged_by_its_own_status() {
        let body = concat!(
            r#"{"line":1,"status":202,"eventId":"a","streamSeq":7,"replayed":false}"#,
            "\n",
            r#"{"line":2,"status":400,"problem":{"status":400}}"#,
            "\n",
            r#"{"line":3,"status":202,"eventId":"b","streamSeq":9,"replayed":true}"#,
            "\n"
        );
        let lines =
            Lines { accepted: 2, replayed: 1, rejected: vec![(400, 1)], last_stream_seq: Some(9) };
        assert_eq!(Lines::read(&reply(207, body)), Some(lines));
        assert_eq!(Lines::read(&reply(503, body)), None);
    }

    #[test]
    fn the_tenant_is_read_from_the_token() {
        let token = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(r#"{"tenant_id":"contoso"}"#));
        assert_eq!(tenant_of(&token).unwrap(), "contoso");
        for bad in ["", "a.b", "e30.e30.x", "opaque"] {
            assert!(tenant_of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_share_comes_about_as_often_as_it_says() {
        let mut dice = Dice(1);
        let times = (0..10_000).filter(|_| dice.happens(0.1)).count();
        assert!((900..1100).contains(&times), "{times}");
        assert!((0..1000).all(|_| dice.happens(1.0)));
        assert!((0..1000).all(|_| !dice.happens(0.0)));
    }
}
