//! The project's own PL/SQL, by name. This module does what each procedure of `sentinel_svc` promises, with a queue that
//! is a table: it says nothing about whether the real ones compile.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::errors::{OraError, Result};
use crate::handles;
use crate::oci::connection::WAIT_SLICE;
use crate::oci::execute::Work;
use crate::session::Session;
use crate::sql::calls::{Argument, Call};
use crate::sql::{self, Prepared};
use crate::values::{NUMERIC, TEXT, VARCHAR};
use crate::wire::{Column, Failure, Value};

type Arguments = [(Option<String>, Argument)];

/// Messages that somebody gave back come without a notification; this often they are looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

const BOOLEAN: u32 = 16;
const INTEGER: u32 = 23;

const DEQUEUE: &str = "SELECT place, rawtohex(msgid) AS msgid, attempts, NVL(timestamp_utc, enq_time) AS enq_time, \
    priority, event_id, event_type, process_id, tenant_id, timestamp_utc, payload FROM standin.dequeued($1, $2)";

const ENQUEUE: &str = "INSERT INTO standin.message (event_id, event_type, process_id, tenant_id, priority, payload) \
    SELECT $1, $2, left($3, 100), $4, $5::integer, $6 FROM standin.setting WHERE enqueue_enabled";

const QUEUE_STATE: &str = "SELECT CASE e WHEN 0 THEN 'SENTINEL_QUEUE' ELSE 'AQ$_SENTINEL_QUEUE_TAB_E' END::varchar \
    AS queue_name, CASE WHEN e = 0 AND s.enqueue_enabled THEN 'YES' ELSE 'NO' END::varchar AS enqueue_enabled, \
    CASE WHEN e = 1 OR s.dequeue_enabled THEN 'YES' ELSE 'NO' END::varchar AS dequeue_enabled, \
    count(*) FILTER (WHERE e = 0 AND m.msg_state = 'READY')::numeric AS ready, \
    count(*) FILTER (WHERE e = 0 AND m.msg_state = 'WAIT')::numeric AS waiting, \
    count(*) FILTER (WHERE e = 1 AND m.msg_state = 'EXPIRED')::numeric AS expired, \
    min(m.enq_timestamp) FILTER (WHERE e = 0 AND m.msg_state = 'READY') AS oldest_enq_time \
    FROM generate_series(0, 1) AS e CROSS JOIN standin.setting s \
    LEFT JOIN standin.aq$sentinel_queue_tab m ON true \
    GROUP BY e, s.enqueue_enabled, s.dequeue_enabled ORDER BY e";

const DEAD_SESSIONS: &str = "SELECT tenant_id, process_id FROM process_live_status p \
    WHERE status IN ('ACTIVE', 'RUNNING') AND session_id IS NOT NULL \
    AND last_life_at < SYS_EXTRACT_UTC(SYSTIMESTAMP()) - interval '10 seconds' \
    AND NOT EXISTS (SELECT 1 FROM standin.living_session l WHERE l.session_id = p.session_id) \
    ORDER BY tenant_id, process_id LIMIT $1::integer";

const SESSION_KIND: &str = "SELECT server, failover_type FROM standin.session_kind";

const OPEN_WRITES: &str = "SELECT standin.open_writes() AS age_s";

const SET_TENANT: &str = "SELECT set_config('standin.tenant_id', COALESCE($1, ''), false), \
    set_config('standin.client_identifier', COALESCE($1, ''), false)";

pub(crate) fn run(work: &Work<'_>, calls: &[Call]) -> Result<()> {
    for call in calls {
        match call {
            Call::Commit => work.server.with(Session::commit)?,
            Call::Rollback => work.server.with(Session::roll_back)?,
            Call::Open { cursor, query, binds } => open(work, *cursor, query, binds)?,
            Call::Procedure { name, arguments } => procedure(work, name, arguments)?,
        }
    }
    work.statement.state().row_count = 1;
    Ok(())
}

fn procedure(work: &Work<'_>, name: &str, arguments: &Arguments) -> Result<()> {
    match name {
        "sentinel_svc.dequeue_batch" => {
            let [max, wait_s, cursor] = named(arguments, ["p_max", "p_wait_s", "p_cur"])?;
            dequeue(work, number(work, max)?, number(work, wait_s)?, false, cursor)
        }
        "sentinel_svc.sweep_exceptions" => {
            let [max, cursor] = named(arguments, ["p_max", "p_cur"])?;
            dequeue(work, number(work, max)?, 0, true, cursor)
        }
        "sentinel_svc.enqueue" => enqueue(work, arguments),
        "sentinel_svc.set_tenant" => {
            let [tenant] = named(arguments, ["p_tenant_id"])?;
            let tenant = value(work, tenant)?;
            work.server.with(|session| {
                session.rows(SET_TENANT, &[VARCHAR], vec![tenant], work.how(false)).map(|_| ())
            })
        }
        "sentinel_svc.queue_state" => {
            let [cursor] = named(arguments, ["p_cur"])?;
            answer(work, cursor, QUEUE_STATE, &[], Vec::new())
        }
        "sentinel_svc.dead_sessions" => {
            let [max, cursor] = named(arguments, ["p_max", "p_cur"])?;
            let max = value(work, max)?;
            answer(work, cursor, DEAD_SESSIONS, &[NUMERIC], vec![max])
        }
        "sentinel_svc.session_kind" => {
            let [cursor] = named(arguments, ["p_cur"])?;
            answer(work, cursor, SESSION_KIND, &[], Vec::new())
        }
        "sentinel_svc.open_writes" => {
            let [cursor] = named(arguments, ["p_cur"])?;
            answer(work, cursor, OPEN_WRITES, &[], Vec::new())
        }
        "sentinel_svc.drop_partitions" => {
            let [_, _, dropped] = named(arguments, ["p_table_name", "p_before", "p_dropped"])?;
            // The twin has no partitions.
            give(work, dropped, b"0")
        }
        _ if name.starts_with("dbms_application_info.") || name.starts_with("dbms_session.") => {
            Ok(())
        }
        _ => Err(OraError::new(6550, format!("the stand-in (not Oracle) has no procedure {name}"))),
    }
}

/// The arguments in the order of the parameters.
fn named<'a, const N: usize>(
    arguments: &'a Arguments,
    names: [&str; N],
) -> Result<[&'a Argument; N]> {
    let mut found = [None; N];
    for (place, (name, argument)) in arguments.iter().enumerate() {
        let place = match name {
            None => place,
            Some(name) => names.iter().position(|known| known == name).unwrap_or(N),
        };
        *found.get_mut(place).ok_or_else(wrong)? = Some(argument);
    }
    let mut all = [&Argument::Literal(None); N];
    for (place, argument) in all.iter_mut().zip(found) {
        *place = argument.ok_or_else(wrong)?;
    }
    Ok(all)
}

fn wrong() -> OraError {
    OraError::new(6550, "PLS-00306: wrong number or types of arguments in call (stand-in)")
}

fn value(work: &Work<'_>, argument: &Argument) -> Result<Value> {
    match argument {
        Argument::Literal(text) => {
            Ok(text.clone().map(|text| text.into_bytes().into_boxed_slice()))
        }
        Argument::Bind(index) => {
            let (bind, slot) = work.slot(*index)?;
            // SAFETY: the caller's memory, as it was bound.
            unsafe { slot.read(bind, 0) }
        }
    }
}

fn number(work: &Work<'_>, argument: &Argument) -> Result<u64> {
    let value = value(work, argument)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&value).into_owned();
    text.parse().map_err(|_| {
        OraError::new(6502, format!("PL/SQL: numeric or value error: {text:?} (stand-in)"))
    })
}

fn give(work: &Work<'_>, argument: &Argument, text: &[u8]) -> Result<()> {
    let Argument::Bind(index) = argument else { return Err(wrong()) };
    let (bind, slot) = work.slot(*index)?;
    // SAFETY: the caller's memory, as it was bound.
    unsafe { slot.write(bind, 0, 0, Some(text)) }
}

fn hand_over(
    work: &Work<'_>,
    cursor: &Argument,
    columns: &[Column],
    rows: Vec<Vec<Value>>,
) -> Result<()> {
    let Argument::Bind(index) = cursor else { return Err(wrong()) };
    let (_, slot) = work.slot(*index)?;
    // SAFETY: the caller's memory, as it was bound; the handle is a statement's.
    let statement = unsafe { slot.cursor().and_then(|handle| handles::statement(handle)) };
    statement.ok_or_else(wrong)?.open(work.service, columns, rows, 0);
    Ok(())
}

fn answer(
    work: &Work<'_>,
    cursor: &Argument,
    text: &str,
    kinds: &[u32],
    values: Vec<Value>,
) -> Result<()> {
    let (columns, rows) =
        work.server.with(|session| session.rows(text, kinds, values, work.how(false)))?;
    hand_over(work, cursor, &columns, rows)
}

fn open(work: &Work<'_>, cursor: usize, query: &Prepared, binds: &[usize]) -> Result<()> {
    let text = sql::rewritten(query)?;
    let (mut kinds, mut values) = (Vec::new(), Vec::new());
    for index in binds {
        let (bind, slot) = work.slot(*index)?;
        kinds.push(slot.oid()?);
        // SAFETY: the caller's memory, as it was bound.
        values.push(unsafe { slot.read(bind, 0)? });
    }
    answer(work, &Argument::Bind(cursor), &text, &kinds, values)
}

/// One message, or one for each row of a batch.
fn enqueue(work: &Work<'_>, arguments: &Arguments) -> Result<()> {
    let names =
        ["p_event_id", "p_event_type", "p_process_id", "p_tenant_id", "p_priority", "p_payload"];
    let arguments = named(arguments, names)?;
    let kinds = [VARCHAR, VARCHAR, VARCHAR, VARCHAR, NUMERIC, TEXT];
    let mut rows = vec![Vec::with_capacity(names.len()); work.rows];
    for argument in arguments {
        for (row, values) in rows.iter_mut().enumerate() {
            values.push(match argument {
                Argument::Literal(_) => value(work, argument)?,
                Argument::Bind(index) => {
                    let (bind, slot) = work.slot(*index)?;
                    // SAFETY: the caller's memory, as it was bound.
                    unsafe { slot.read(bind, row)? }
                }
            });
        }
    }
    let mut executed =
        work.server.with(|session| session.execute(ENQUEUE, &kinds, &rows, work.how(true)))?;
    if let Some((_, failed)) = executed.errors.drain(..).next() {
        return Err(failed);
    }
    let all = executed.done.iter().flatten().all(|answer| answer.count == 1);
    if all { Ok(()) } else { Err(OraError::of_number(25207)) }
}

/// Takes messages, waiting for the first where there is none.
fn dequeue(
    work: &Work<'_>,
    max: u64,
    wait_s: u64,
    exception: bool,
    cursor: &Argument,
) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(wait_s);
    let text = |text: String| Some(text.into_bytes().into_boxed_slice());
    loop {
        let (columns, rows) = work.server.with(|session| {
            let fresh = !session.in_transaction;
            if fresh && wait_s > 0 && !session.listening {
                session.simple("LISTEN standin_message")?;
                session.listening = true;
            }
            session.wire.notified = false;
            let values = vec![text(max.min(4000).to_string()), text(exception.to_string())];
            let found = session.rows(DEQUEUE, &[INTEGER, BOOLEAN], values, work.how(true))?;
            if found.1.is_empty() && fresh {
                // Nothing was taken, and notifications come only outside of a transaction.
                session.take_back()?;
            }
            let places = found.1.iter().filter_map(|row| row.first()?.as_deref());
            let places = places.filter_map(|place| std::str::from_utf8(place).ok()?.parse().ok());
            session.dequeued.extend(places.collect::<Vec<i64>>());
            Ok(found)
        })?;
        if !rows.is_empty() || Instant::now() >= end {
            let rows = rows.into_iter().map(|row| row.into_iter().skip(1).collect()).collect();
            return hand_over(work, cursor, &columns[1..], rows);
        }
        wait(work, end)?;
    }
}

/// Until there may be a message, or it is time to look again.
fn wait(work: &Work<'_>, end: Instant) -> Result<()> {
    let look_again = (Instant::now() + LOOK_AGAIN).min(end);
    while Instant::now() < look_again {
        if work.server.broken_off.swap(false, Ordering::SeqCst) {
            return Err(OraError::of_number(1013));
        }
        if work.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(OraError::of_number(3156));
        }
        let notified = work.server.with(|session| match session.wire.wait(WAIT_SLICE) {
            Ok(()) => Ok(session.wire.notified),
            // A cancel that came while nothing ran is no answer to anything.
            Err(Failure::Refused(refusal)) if refusal.state == "57014" => Ok(false),
            Err(failure) => Err(OraError::of_failure(failure, false)),
        })?;
        if notified {
            break;
        }
    }
    Ok(())
}
