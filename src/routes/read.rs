//! The questions: status, listings, histories. This module reads parameters, asks the store, and writes the answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bumpalo::Bump;

use super::follow::{Form, LogFollow, Place};
use super::parameters::LIMIT_MAX;
use super::problem::{Kind, Problem};
use super::stream::{LogStream, Streamed};
use super::wait::{Wait, Wanted, shows, status_body, write_events};
use super::{Desk, Exchange, Handled, Outcome, not_found, store_problem, table};
use crate::domain::dead_letter::Reason;
use crate::domain::fields::event_id;
use crate::domain::ids::{EventType, ProcessId, Source, StreamKey, TenantId};
use crate::domain::log_row::Level;
use crate::domain::process::Status;
use crate::http::Reply;
use crate::live::{Subject, Subscription};
use crate::room::Pool;
use crate::store::{
    Cursor, DeadLetterFilter, EventFilter, LogFilter, Page, Paged, ProcessFilter, StoreError,
};
use crate::telemetry::metrics::StoreCall;
use crate::view;
use crate::view::json::Json;

/// Rows on a page, unless the user asks otherwise.
const LIMIT_PROCESSES: usize = 50;
const LIMIT_ROWS: usize = 100;

/// What an operator looks for when no status is asked for.
const UNFINISHED: [Status; 5] =
    [Status::Registered, Status::Active, Status::Running, Status::Paused, Status::Expired];

/// A store's error in answer to a listing. All that a reader refuses is a cursor that is none of its own.
fn listing_problem(error: &StoreError) -> Problem {
    match error {
        StoreError::Refused { .. } => {
            Problem::new(Kind::BadRequest, "the cursor is not one that this listing gave")
                .field("cursor")
        }
        other => store_problem(other),
    }
}

impl<'a> Exchange<'_, 'a> {
    /// A page of a listing, with the next one in the body and as a Link (RFC 8288).
    fn page<T>(
        &self,
        name: &'static str,
        page: &Paged<T>,
        write: impl Fn(&mut Json<'a>, &T),
    ) -> Reply<'a> {
        let mut reply = self.json(200, |json| {
            json.object(|json| {
                json.member(name).array(|json| page.rows.iter().for_each(|row| write(json, row)));
                json.text_or_null(
                    "next_cursor",
                    page.next.as_ref().map(|cursor| cursor.0.as_str()),
                );
            });
        });
        if let Some(next) = &page.next {
            let head = &self.request.head;
            let others = head
                .query
                .split('&')
                .filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
            let mut link = format!("<{}?", head.path);
            for pair in others {
                link.push_str(pair);
                link.push('&');
            }
            link.push_str("cursor=");
            link.push_str(&next.0);
            link.push_str(">; rel=\"next\"");
            reply.headers.push(("Link", Cow::Owned(link)));
        }
        reply
    }
}

impl<'a> Exchange<'_, 'a> {
    /// A JSON answer with a tag, or 304 without a body if the client has it already.
    fn tagged(&self, tag: &'a str, body: impl FnOnce(&'a Bump) -> &'a [u8]) -> Handled<'a> {
        let known = self.request.head.headers.get("if-none-match").is_some_and(|known| {
            known == "*" || known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)
        });
        Handled::Reply(Reply {
            status: if known { 304 } else { 200 },
            content_type: super::JSON,
            // The client may keep it but must ask each time whether it still holds.
            headers: vec![
                ("ETag", Cow::Borrowed(tag)),
                ("Cache-Control", Cow::Borrowed("no-cache")),
            ],
            body: Cow::Borrowed(if known { &[] } else { body(self.arena) }),
            close: false,
        })
    }
}

impl<'a> Exchange<'_, 'a> {
    /// A wait, no longer than the token of the asker is good.
    fn wait(
        &self,
        tenant: TenantId,
        stream: StreamKey,
        wanted: Wanted,
        until: Instant,
        news: Arc<Subscription>,
    ) -> Handled<'a> {
        let ends = self.token_ends().unwrap_or(until);
        let (until, is_cut) = (until.min(ends), ends < until);
        let (path, trace) = (self.request.head.path.to_owned(), self.trace);
        Handled::Late(Wait { tenant, stream, wanted, until, is_cut, news, path, trace })
    }
}

impl Desk {
    pub(super) fn status<'a>(&mut self, exchange: &Exchange<'_, 'a>) -> Outcome<'a> {
        let tenant = exchange.tenant()?;
        let name = table::argument(exchange.route, exchange.request.head.path);
        let name = name.ok_or_else(not_found)?;
        let parameters = &exchange.parameters;
        let seen = parameters.parsed("seen", "a stream number", |text| text.parse::<u64>().ok())?;
        let wait = parameters.wait()?;
        if let (Some(seen), Some(wait)) = (seen, wait)
            && !self.reader.shows_acknowledged()
            && let Some(waiting) = self.status_wait(exchange, &name, seen, wait)?
        {
            return Ok(waiting);
        }
        let now = self.shared.store.now();
        // First, see `Reader::status_stamp`.
        let stamp = self.reader.status_stamp(tenant, &name);
        if let Some(stamp) = stamp
            && let Some(answer) = self.answers.find(tenant, &name, stamp, now)
        {
            let tag = exchange.arena.alloc_str(&answer.tag);
            return Ok(exchange.tagged(tag, |arena| arena.alloc_slice_copy(&answer.body)));
        }
        let process = ProcessId::parse(&name).map_err(|_| not_found())?;
        let found = self.read_status(tenant, &process).map_err(|error| store_problem(&error))?;
        let Some(view) = found else { return Err(not_found()) };
        // Staleness comes with time alone, so it is part of the tag; everything else comes with an event.
        let stale = if view.row.is_stale(now) { "-stale" } else { "" };
        let tag = bumpalo::format!(in exchange.arena, "\"{:x}{stale}\"", view.version);
        let tag = tag.into_bump_str();
        let mut json = Json::new(exchange.arena);
        view::process::write(&mut json, &view, now);
        let body = json.finish();
        if let Some(stamp) = stamp {
            self.answers.keep(stamp, &view, now, body, tag);
        }
        Ok(exchange.tagged(tag, |_| body))
    }

    /// The wait for a status that shows the event `seen`. None: it does already.
    fn status_wait<'a>(
        &mut self,
        exchange: &Exchange<'_, 'a>,
        name: &str,
        seen: u64,
        wait: Duration,
    ) -> Result<Option<Handled<'a>>, Problem> {
        let tenant = exchange.tenant()?.clone();
        let process = ProcessId::parse(name).map_err(|_| not_found())?;
        let stream = StreamKey::parse(name).map_err(|_| not_found())?;
        // Before the first look, so that nothing comes between the two.
        let subject = Subject::Events(tenant.clone(), stream.clone());
        let news = self.subscribe(exchange, subject);
        if shows(&mut *self.reader, &tenant, &stream, seen)
            .map_err(|error| store_problem(&error))?
        {
            return Ok(None);
        }
        let news = news?;
        let found = self.read_status(&tenant, &process).map_err(|error| store_problem(&error))?;
        let known = found.map(|view| status_body(&view, self.shared.store.now()));
        let wanted = Wanted::Status { process, seen, known };
        Ok(Some(exchange.wait(tenant, stream, wanted, Instant::now() + wait, news)))
    }

    /// A place among those who wait for news of `subject`, as a part of the asker's share.
    fn subscribe(
        &self,
        exchange: &Exchange<'_, '_>,
        subject: Subject,
    ) -> Result<Arc<Subscription>, Problem> {
        let room = self.shared.wait_rooms.take_for(1, exchange.account()?, Pool::Waits);
        let room = room.map_err(|_| {
            Problem::new(
                Kind::Unavailable,
                "your tenant has as many waits and followers open as are left to others: end some, or ask without waiting",
            )
        })?;
        Ok(Arc::new(self.shared.live.subscribe(subject).holding(room)))
    }

    pub(super) fn processes<'a>(&mut self, exchange: &Exchange<'_, 'a>) -> Outcome<'a> {
        let parameters = &exchange.parameters;
        let statuses = match parameters.get("status") {
            None => UNFINISHED.to_vec(),
            Some(all) if all.eq_ignore_ascii_case("all") => Vec::new(),
            Some(text) => text.split(',').map(|word| Status::parse(word.trim())).collect::<Option<_>>().ok_or_else(|| {
                Problem::new(
                    Kind::BadRequest,
                    "status must be all, or some of REGISTERED, ACTIVE, RUNNING, PAUSED, COMPLETED, FAILED, EXPIRED, ARCHIVED",
                )
                .field("status")
            })?,
        };
        let filter = ProcessFilter {
            statuses,
            process_type: parameters.get("type").map(str::to_owned),
            name: parameters.get("name").map(str::to_owned),
        };
        let page = self
            .ask(StoreCall::Processes)
            .processes(exchange.tenant()?, &filter, &parameters.page(LIMIT_PROCESSES)?)
            .map_err(|error| listing_problem(&error))?;
        let now = self.shared.store.now();
        Ok(Handled::Reply(
            exchange.page("processes", &page, |json, view| view::process::write(json, view, now)),
        ))
    }

    pub(super) fn runs<'a>(&mut self, exchange: &Exchange<'_, 'a>) -> Outcome<'a> {
        let process = exchange.argument(|text| ProcessId::parse(text).ok())?;
        let page = exchange.parameters.page(LIMIT_ROWS)?;
        let found = self
            .ask(StoreCall::Runs)
            .runs(exchange.tenant()?, &process, &page)
            .map_err(|error| listing_problem(&error))?;
        let Some(page) = found else { return Err(not_found()) };
        Ok(Handled::Reply(exchange.page("runs", &page, view::process::write_run)))
    }

    pub(super) fn logs<'a>(&mut self, exchange: &Exchange<'_, 'a>) -> Outcome<'a> {
        let tenant = exchange.tenant()?;
        let process = exchange.argument(|text| ProcessId::parse(text).ok())?;
        let parameters = &exchange.parameters;
        let filter = LogFilter {
            level: parameters.parsed(
                "level",
                "TRACE, DEBUG, INFO, WARN, ERROR or FATAL",
                Level::parse,
            )?,
            from: parameters.time("from")?,
            to: parameters.time("to")?,
            ..LogFilter::default()
        };
        let accept = exchange.request.head.headers.get("accept").unwrap_or_default();
        let follows = parameters.parsed("follow", "true or false", |text| text.parse().ok())?;
        let as_events = accept.contains("text/event-stream");
        if as_events || follows == Some(true) {
            let form = if as_events { Form::Events } else { Form::Lines };
            let after = parameters.page(LIMIT_ROWS)?.after;
            let ends = follows == Some(false);
            return self.follow(exchange, process, filter, (form, ends), after);
        }
        if accept.contains("application/x-ndjson") {
            let page = Page { limit: LIMIT_MAX, after: parameters.page(LIMIT_ROWS)?.after };
            let first = self
                .ask(StoreCall::Logs)
                .logs(tenant, &process, &filter, &page)
                .map_err(|error| listing_problem(&error))?;
            let Some(first) = first else { return Err(not_found()) };
            return Ok(Handled::Stream {
                status: 200,
                content_type: "application/x-ndjson",
                headers: vec![("Cache-Control", Cow::Borrowed("no-store"))],
                stream: Streamed::Logs(LogStream::new(tenant.clone(), process, filter, first)),
            });
        }
        let page = parameters.page(LIMIT_ROWS)?;
        let found = self
            .ask(StoreCall::Logs)
            .logs(tenant, &process, &filter, &page)
            .map_err(|error| listing_problem(&error))?;
        let Some(page) = found else { return Err(not_found()) };
        Ok(Handled::Reply(exchange.page("logs", &page, view::log_row::write)))
    }

    /// Log rows, and those to come unless `ends`.
    fn follow<'a>(
        &mut self,
        exchange: &Exchange<'_, 'a>,
        process: ProcessId,
        filter: LogFilter,
        (form, ends): (Form, bool),
        after: Option<Cursor>,
    ) -> Outcome<'a> {
        let tenant = exchange.tenant()?;
        // First of all, so that what comes in after the first read is announced.
        let subject = Subject::Logs(tenant.clone(), process.clone());
        let news = self.subscribe(exchange, subject)?;
        let newest = self.reader.newest_log_id().map_err(|error| store_problem(&error))?;
        let place = match exchange.request.head.headers.get("last-event-id") {
            Some(id) if !id.is_empty() => {
                let highest =
                    self.reader.highest_log_id().map_err(|error| store_problem(&error))?;
                Place::parse(id, newest, highest)?
            }
            _ => Place::Stored { above: 0, until: newest, after },
        };
        let after = match &place {
            Place::Stored { after, .. } => after.clone(),
            Place::New { .. } => None,
        };
        // Whether there is such a process and such a place can only be said before the head.
        let found = self
            .ask(StoreCall::Logs)
            .logs(tenant, &process, &LogFilter::default(), &Page { limit: 1, after })
            .map_err(|error| listing_problem(&error))?;
        if found.is_none() {
            return Err(not_found());
        }
        let tenant = tenant.clone();
        let is_at_end = false;
        // One that ends with what is there is an answer to the request, like any other.
        let until = if ends { None } else { exchange.token_ends() };
        let follow =
            LogFollow { tenant, process, filter, form, place, news, is_at_end, ends, until };
        Ok(Handled::Stream {
            status: 200,
            content_type: form.media_type(),
            headers: vec![
                ("Cache-Control", Cow::Borrowed("no-store")),
                // Proxies that gather a body before they pass it on would gather this one for ever.
                ("X-Accel-Buffering", Cow::Borrowed("no")),
            ],
            stream: Streamed::Follow(follow),
        })
    }

    pub(super) fn events<'a>(&mut self, exchange: &Exchange<'_, 'a>) -> Outcome<'a> {
        let parameters = &exchange.parameters;
        let filter = EventFilter {
            from: parameters.time("from")?,
            to: parameters.time("to")?,
            source: parameters.parsed("source", "a source", |text| Source::parse(text).ok())?,
            event_type: parameters.parsed("type", "a type", |text| EventType::parse(text).ok())?,
            stream: parameters
                .parsed("stream", "a stream key", |text| StreamKey::parse(text).ok())?,
        };
        let page = self
            .ask(StoreCall::Events)
            .events(exchange.tenant()?, &filter, &parameters.page(LIMIT_ROWS)?)
            .map_err(|error| listing_problem(&error))?;
        Ok(Handled::Reply(exchange.page("events", &page, view::event::write)))
    }

    pub(super) fn event<'a>(&mut self, exchange: &Exchange<'_, 'a>) -> Outcome<'a> {
        let id = exchange.argument(|text| event_id(text).ok())?;
        let found = self
            .ask(StoreCall::Event)
            .event(exchange.tenant()?, &id)
            .map_err(|error| store_problem(&error))?;
        let Some(event) = found else { return Err(not_found()) };
        Ok(Handled::Reply(exchange.json(200, |json| view::event::write(json, &event))))
    }

    pub(super) fn stream<'a>(&mut self, exchange: &Exchange<'_, 'a>) -> Outcome<'a> {
        let key = exchange.argument(|text| StreamKey::parse(text).ok())?;
        let found = self
            .ask(StoreCall::Stream)
            .stream(exchange.tenant()?, &key)
            .map_err(|error| store_problem(&error))?;
        let Some(state) = found else { return Err(not_found()) };
        Ok(Handled::Reply(
            exchange.json(200, |json| view::event::write_stream(json, key.as_str(), &state)),
        ))
    }

    pub(super) fn stream_events<'a>(&mut self, exchange: &Exchange<'_, 'a>) -> Outcome<'a> {
        let key = exchange.argument(|text| StreamKey::parse(text).ok())?;
        let parameters = &exchange.parameters;
        let after = parameters
            .parsed("after", "a stream number", |text| text.parse::<u64>().ok())?
            .unwrap_or(0);
        let wait = parameters.wait()?;
        let limit = parameters.page(LIMIT_ROWS)?.limit;
        let tenant = exchange.tenant()?;
        let news = wait.map(|wait| {
            let subject = Subject::Events(tenant.clone(), key.clone());
            (Instant::now() + wait, self.subscribe(exchange, subject))
        });
        let found = self
            .ask(StoreCall::StreamEvents)
            .stream_events(tenant, &key, after, limit)
            .map_err(|error| store_problem(&error))?;
        let Some(events) = found else { return Err(not_found()) };
        if let Some((until, news)) = news
            && events.is_empty()
        {
            let wanted = Wanted::Events { after, limit };
            return Ok(exchange.wait(tenant.clone(), key, wanted, until, news?));
        }
        Ok(Handled::Reply(exchange.json(200, |json| write_events(json, &events, after))))
    }

    pub(super) fn dead_letters<'a>(&mut self, exchange: &Exchange<'_, 'a>) -> Outcome<'a> {
        let parameters = &exchange.parameters;
        let reason =
            parameters.parsed("reason", "one of the reasons in /openapi.json", Reason::parse)?;
        let filter = DeadLetterFilter {
            reason: reason.map(|reason| reason.as_str().to_owned()),
            source: parameters.get("source").map(str::to_owned),
            from: parameters.time("from")?,
            to: parameters.time("to")?,
        };
        let page = self
            .ask(StoreCall::DeadLetters)
            .dead_letters(exchange.tenant()?, &filter, &parameters.page(LIMIT_ROWS)?)
            .map_err(|error| listing_problem(&error))?;
        Ok(Handled::Reply(exchange.page("dead_letters", &page, |json, letter| {
            view::dead_letter::write(json, letter, false)
        })))
    }

    pub(super) fn dead_letter<'a>(&mut self, exchange: &Exchange<'_, 'a>) -> Outcome<'a> {
        let id = exchange.argument(|text| text.parse::<i64>().ok())?;
        let found = self
            .ask(StoreCall::DeadLetter)
            .dead_letter(exchange.tenant()?, id)
            .map_err(|error| store_problem(&error))?;
        let Some(letter) = found else { return Err(not_found()) };
        Ok(Handled::Reply(exchange.json(200, |json| view::dead_letter::write(json, &letter, true))))
    }
}
