//! What machines and newcomers ask first: probes, metrics, the index. This module answers for the service itself.

use std::borrow::Cow;

use super::problem::Kind;
use super::{Desk, Exchange, Handled, JSON, Outcome, not_found};
use crate::http::Reply;
use crate::http::auth::{KeysState, unix_seconds};
use crate::http::handshakes::Fault;
use crate::store::WriteState;
use crate::telemetry::exposition;
use crate::telemetry::metrics::ChannelLabel;

pub(super) fn index<'a>(exchange: &Exchange<'_, 'a>) -> Handled<'a> {
    Handled::Reply(exchange.json(200, |json| {
        json.object(|json| {
            json.member("service").text("process-sentinel");
            json.member("version").text(env!("CARGO_PKG_VERSION"));
            json.member("api").text("/openapi.json");
            json.member("ready").text("/ready");
            json.member("metrics").text("/metrics");
        });
    }))
}

pub(super) fn health<'a>(_: &Exchange<'_, 'a>) -> Handled<'a> {
    Handled::Reply(Reply {
        status: 200,
        content_type: JSON,
        headers: Vec::new(),
        body: Cow::Borrowed(b"{\"status\":\"ok\"}"),
        close: false,
    })
}

pub(super) fn problem_help<'a>(exchange: &Exchange<'_, 'a>) -> Outcome<'a> {
    let kind = exchange.argument(Kind::parse).map_err(|_| not_found())?;
    Ok(Handled::Reply(exchange.json(200, |json| {
        json.object(|json| {
            json.member("type").text_parts(&["/problems/", kind.name()]);
            json.member("title").text(kind.title());
            json.member("status").number(u64::from(kind.status()));
            json.member("help").text(kind.help());
        });
    })))
}

/// One line of `/ready`.
struct Check {
    name: String,
    state: &'static str,
    detail: Cow<'static, str>,
    /// The instance cannot do its work without it.
    vital: bool,
}

impl Check {
    fn new(
        name: impl Into<String>,
        fine: bool,
        vital: bool,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        let state = match (fine, vital) {
            (true, _) => "ok",
            (false, true) => "failed",
            (false, false) => "degraded",
        };
        Self { name: name.into(), state, detail: detail.into(), vital: vital && !fine }
    }
}

/// Without keys no token can be checked, but everything that is known goes on: a reason to look, not to restart.
fn keys_check(state: &KeysState) -> Check {
    let (fine, detail) = match state {
        KeysState::Development => (true, Cow::Borrowed("the development key")),
        KeysState::Loaded { keys, age, last_error: None } => {
            (true, Cow::Owned(format!("{keys} keys, {} s old", age.as_secs())))
        }
        KeysState::Loaded { keys, age, last_error: Some(error) } => (
            false,
            Cow::Owned(format!(
                "{keys} keys, {} s old; the last attempt failed: {error}",
                age.as_secs()
            )),
        ),
        KeysState::NeverLoaded(reason) => (false, Cow::Owned(format!("no keys yet: {reason}"))),
    };
    Check::new("identity.keys", fine, false, detail)
}

impl Desk {
    /// 503 when this instance cannot read the store, cannot accept writes or is draining [TE10].
    pub(super) fn ready<'a>(&mut self, exchange: &Exchange<'_, 'a>) -> Handled<'a> {
        let mut checks = Vec::new();
        let draining = self.shared.is_draining();
        checks.push(Check::new(
            "service",
            !draining,
            true,
            if draining { "stopping" } else { "running" },
        ));
        checks.push(match self.reader.ping() {
            Ok(()) => Check::new("store.read", true, true, "answers"),
            // With the words of the database, which say what is to be done.
            Err(error) => {
                let words = format!("{:#}", anyhow::Error::from(error));
                Check::new("store.read", false, true, words)
            }
        });
        checks.push(match self.shared.store.write_state() {
            WriteState::Open => Check::new("store.write", true, true, "takes writes"),
            WriteState::SheddingLogs(why) => {
                Check::new("store.write", false, false, format!("log rows are not taken: {why}"))
            }
            WriteState::Closed(why) => Check::new("store.write", false, true, why),
        });
        checks.extend(self.shared.store.condition().into_iter().map(|line| {
            // Reading and writing decide whether the instance can work; this says why, or what to look at.
            Check::new(format!("store.{}", line.name), line.fine, line.vital, line.detail)
        }));
        checks.push(keys_check(&self.shared.authenticator.keys_state(unix_seconds())));
        let (backlog, oldest) = self.shared.store.backlog();
        let lag = oldest.map_or(0, |oldest| self.shared.store.now().since(oldest).as_secs());
        checks.push(Check::new(
            "listener.lag",
            lag < LAG_DEGRADED_S,
            false,
            format!("{backlog} accepted and not yet applied, the oldest {lag} s old"),
        ));
        for (thread, runs) in (self.shared.threads)() {
            checks.push(Check::new(
                format!("thread.{thread}"),
                runs,
                true,
                if runs { "runs" } else { "ended" },
            ));
        }
        let ready = checks.iter().all(|check| !check.vital);
        let degraded = checks.iter().any(|check| check.state == "degraded");
        let word = if !ready {
            "unavailable"
        } else if degraded {
            "degraded"
        } else {
            "ready"
        };
        Handled::Reply(exchange.json(if ready { 200 } else { 503 }, |json| {
            json.object(|json| {
                json.member("status").text(word);
                json.member("checks").array(|json| {
                    for check in &checks {
                        json.object(|json| {
                            json.member("name").text(&check.name);
                            json.member("state").text(check.state);
                            json.member("detail").text(&check.detail);
                        });
                    }
                });
            });
        }))
    }

    pub(super) fn metrics<'a>(&mut self, exchange: &Exchange<'_, 'a>) -> Handled<'a> {
        let metrics = &self.shared.metrics;
        let depth = |channel, taken: usize| {
            metrics
                .channel_depth
                .get_or_create(&ChannelLabel { channel })
                .set(i64::try_from(taken).unwrap_or(i64::MAX));
        };
        depth("events", self.shared.event_rooms.taken());
        depth("logs", self.shared.log_rooms.taken());
        let front = &self.shared.front;
        metrics.inflight("body", front.body_bytes());
        metrics.inflight("payload", self.shared.payload_rooms.taken());
        metrics.held_back("body", front.bodies_held_back());
        metrics.held_back("event", self.shared.event_rooms.held_back());
        metrics.held_back("log", self.shared.log_rooms.held_back());
        metrics.held_back("payload", self.shared.payload_rooms.held_back());
        metrics.held_back("wait", self.shared.wait_rooms.held_back());
        metrics.front(front.connections(), front.turned_away(), front.accept_errors());
        for fault in Fault::ALL {
            metrics.handshakes_failed(fault.as_str(), front.handshake_errors().of(fault));
        }
        metrics.reconnected(self.shared.store.reconnects());
        let takes_writes = !matches!(self.shared.store.write_state(), WriteState::Closed(_));
        metrics.store_up.set(i64::from(takes_writes && self.reader.ping().is_ok()));
        let (_, oldest) = self.shared.store.backlog();
        let lag = oldest.map_or(0.0, |oldest| self.shared.store.now().since(oldest).as_secs_f64());
        metrics.processor_lag_seconds.set(lag);
        metrics.projection_lag_seconds.set(lag);
        let dialect = exposition::negotiate(exchange.request.head.headers.get("accept"));
        let text = dialect.encode(metrics.registry());
        Handled::Reply(Reply {
            status: 200,
            content_type: dialect.content_type(),
            headers: vec![("Cache-Control", Cow::Borrowed("no-store"))],
            body: Cow::Owned(text.into_bytes()),
            close: false,
        })
    }
}

/// A listener that is so many seconds behind is worth a look.
const LAG_DEGRADED_S: u64 = 10;
