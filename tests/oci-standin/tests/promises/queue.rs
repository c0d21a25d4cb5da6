//! The queue: order, rollback, attempts, the exception queue, and many who consume.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use oracle::Connection;
use oracle::sql_type::{OracleType, RefCursor, Timestamp};

use super::{As, code, connect, standin_or_skip, varchar};

const DEQUEUE: &str = "BEGIN sentinel_svc.dequeue_batch(:max, :wait_s, :cur); END;";
const ENQUEUE: &str = "BEGIN sentinel_svc.enqueue(:event_id, :event_type, :process_id, :tenant_id, :priority, :payload); END;";

pub(crate) fn enqueue(connection: &Connection, id: &str, priority: i64, payload: &str) {
    connection
        .execute(
            ENQUEUE,
            &[
                &varchar(id),
                &varchar("ENVELOPE"),
                &varchar("p"),
                &varchar("acme"),
                &priority,
                &As(payload, OracleType::Long),
            ],
        )
        .unwrap();
}

/// Event ids with their attempts.
pub(crate) fn dequeue(
    connection: &Connection,
    max: i64,
    wait_s: i64,
) -> oracle::Result<Vec<(String, i64)>> {
    let mut statement = connection.statement(DEQUEUE).build()?;
    statement.execute(&[&max, &wait_s, &OracleType::RefCursor])?;
    let mut cursor: RefCursor = statement.bind_value(3)?;
    let mut found = Vec::new();
    for row in cursor.query()? {
        let row = row?;
        found.push((row.get("EVENT_ID")?, row.get("ATTEMPTS")?));
    }
    Ok(found)
}

fn ids(found: &[(String, i64)]) -> Vec<&str> {
    found.iter().map(|(id, _)| id.as_str()).collect()
}

#[test]
fn a_message_comes_with_all_its_columns() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    let payload = format!("{{\"text\":\"{}\"}}", "ü".repeat(70_000));
    enqueue(&connection, "e1", 5, &payload);
    connection.commit().unwrap();
    let mut statement = connection.statement(DEQUEUE).build().unwrap();
    statement.execute(&[&10_i64, &0_i64, &OracleType::RefCursor]).unwrap();
    let mut cursor: RefCursor = statement.bind_value(3).unwrap();
    let row = cursor.query_row().unwrap();
    let names: Vec<&str> = row.column_info().iter().map(oracle::ColumnInfo::name).collect();
    let expected = [
        "MSGID",
        "ATTEMPTS",
        "ENQ_TIME",
        "PRIORITY",
        "EVENT_ID",
        "EVENT_TYPE",
        "PROCESS_ID",
        "TENANT_ID",
        "TIMESTAMP_UTC",
        "PAYLOAD",
    ];
    assert_eq!(names, expected);
    assert_eq!(row.get::<_, String>(0).unwrap().len(), 32);
    assert_eq!(row.get::<_, i64>("ATTEMPTS").unwrap(), 0);
    assert!(row.get::<_, Timestamp>("ENQ_TIME").unwrap().year() > 2000);
    assert_eq!(row.get::<_, String>("TENANT_ID").unwrap(), "acme");
    assert!(row.get::<_, String>("PAYLOAD").unwrap() == payload);
}

#[test]
fn priority_comes_first_and_then_the_order_of_arrival() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    for (id, priority) in [("a", 5), ("b", 3), ("c", 5), ("d", 1)] {
        enqueue(&connection, id, priority, "{}");
    }
    assert!(dequeue(&connect(&standin), 10, 0).unwrap().is_empty(), "nothing before the commit");
    connection.commit().unwrap();
    assert_eq!(ids(&dequeue(&connection, 3, 0).unwrap()), ["d", "b", "a"]);
    assert_eq!(ids(&dequeue(&connection, 3, 0).unwrap()), ["c"]);
    connection.commit().unwrap();
    assert!(dequeue(&connection, 3, 0).unwrap().is_empty());
}

#[test]
fn many_messages_go_in_one_batch() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    let mut batch = connection.batch(ENQUEUE, 500).build().unwrap();
    for (place, kind) in [(1, 100), (2, 50), (3, 100), (4, 50)] {
        batch.set_type(place, &OracleType::Varchar2(kind)).unwrap();
    }
    batch.set_type(5, &OracleType::Number(10, 0)).unwrap();
    batch.set_type(6, &OracleType::Varchar2(4000)).unwrap();
    for number in 0..500 {
        batch
            .append_row(&[&format!("e{number}"), &"ENVELOPE", &"p", &"acme", &5_i64, &"{}"])
            .unwrap();
    }
    batch.execute().unwrap();
    connection.commit().unwrap();
    let found = dequeue(&connection, 1000, 0).unwrap();
    let expected: Vec<String> = (0..500).map(|number| format!("e{number}")).collect();
    assert_eq!(ids(&found), expected);
}

#[test]
fn a_rollback_brings_messages_back_later_with_one_attempt_more() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    enqueue(&connection, "a", 5, "{}");
    connection.commit().unwrap();
    for attempts in 0..4 {
        assert_eq!(dequeue(&connection, 10, 0).unwrap(), [("a".to_owned(), attempts)]);
        connection.rollback().unwrap();
        assert!(dequeue(&connection, 10, 0).unwrap().is_empty(), "not before the delay is over");
        standin.forward(Duration::from_secs(11));
    }
    assert!(dequeue(&connection, 10, 0).unwrap().is_empty(), "it is in the exception queue");
    let sweep = "BEGIN sentinel_svc.sweep_exceptions(:max, :cur); END;";
    let mut statement = connection.statement(sweep).build().unwrap();
    statement.execute(&[&10_i64, &OracleType::RefCursor]).unwrap();
    let mut cursor: RefCursor = statement.bind_value(2).unwrap();
    let row = cursor.query_row().unwrap();
    assert_eq!(
        (row.get::<_, String>("EVENT_ID").unwrap().as_str(), row.get::<_, i64>(1).unwrap()),
        ("a", 4)
    );
    connection.commit().unwrap();
    assert_eq!(standin.sql("SELECT count(*) FROM standin.message"), "0");
}

#[test]
fn a_session_that_dies_gives_its_messages_back_without_an_attempt() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    enqueue(&connection, "a", 5, "{}");
    connection.commit().unwrap();
    assert_eq!(ids(&dequeue(&connection, 10, 0).unwrap()), ["a"]);
    assert_eq!(standin.kill_sessions(), 1);
    assert_eq!(dequeue(&connect(&standin), 10, 5).unwrap(), [("a".to_owned(), 0)]);
}

#[test]
fn a_wait_ends_when_a_message_comes() {
    let standin = standin_or_skip!();
    let (consumer, producer) = (connect(&standin), connect(&standin));
    let start = Instant::now();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| dequeue(&consumer, 10, 30).unwrap());
        enqueue(&producer, "late", 5, "{}");
        producer.commit().unwrap();
        assert_eq!(ids(&waiting.join().unwrap()), ["late"]);
    });
    assert!(start.elapsed() < Duration::from_secs(10));
    let start = Instant::now();
    consumer.commit().unwrap();
    assert!(dequeue(&consumer, 10, 1).unwrap().is_empty());
    assert!((900..3000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}

#[test]
fn a_wait_can_be_broken_off() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| dequeue(&connection, 10, 30));
        while !standin.trips("").contains_key("execute") {
            std::thread::yield_now();
        }
        // It may come before the wait has begun, as it may with Oracle: then it is told again.
        while !waiting.is_finished() {
            connection.break_execution().unwrap();
            std::thread::yield_now();
        }
        assert_eq!(code(waiting.join().unwrap()), 1013);
    });
    connection.rollback().unwrap();
    assert!(dequeue(&connection, 10, 0).unwrap().is_empty());
}

#[test]
fn a_stopped_queue_says_so() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    standin.queue(false, false);
    assert_eq!(code(dequeue(&connection, 10, 0)), 25226);
    let mut statement =
        connection.statement("BEGIN sentinel_svc.queue_state(:cur); END;").build().unwrap();
    statement.execute(&[&OracleType::RefCursor]).unwrap();
    let mut cursor: RefCursor = statement.bind_value(1).unwrap();
    let states: Vec<(String, String, String, i64)> = cursor
        .query()
        .unwrap()
        .map(|row| row.unwrap())
        .map(|row| {
            (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap(), row.get(3).unwrap())
        })
        .collect();
    assert_eq!(states[0], ("SENTINEL_QUEUE".to_owned(), "NO".to_owned(), "NO".to_owned(), 0));
    standin.queue(true, true);
    enqueue(&connection, "a", 5, "{}");
    assert_eq!(ids(&dequeue(&connection, 10, 0).unwrap()), ["a"]);
}

#[test]
fn four_consumers_take_each_of_two_thousand_messages_once_though_one_dies() {
    let standin = standin_or_skip!();
    let producer = connect(&standin);
    standin.sql(
        "INSERT INTO standin.message (priority, event_id, payload) SELECT 5, 'e' || n, '{}' FROM generate_series(1, 2000) n",
    );
    let seen = Mutex::new(BTreeSet::new());
    let twice = Mutex::new(Vec::new());
    let end = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        for consumer in 0..4 {
            let (seen, twice, standin) = (&seen, &twice, &standin);
            scope.spawn(move || {
                let connection = connect(standin);
                if consumer == 0 {
                    assert_eq!(dequeue(&connection, 50, 0).unwrap().len(), 50);
                    // Dropped without a commit: the client rolls back when it closes, so these come after the delay.
                    drop(connection);
                    standin.forward(Duration::from_secs(11));
                    return;
                }
                while seen.lock().unwrap().len() < 2000 && Instant::now() < end {
                    let found = dequeue(&connection, 20, 1).unwrap();
                    connection.commit().unwrap();
                    for (id, _) in found {
                        if !seen.lock().unwrap().insert(id.clone()) {
                            twice.lock().unwrap().push(id);
                        }
                    }
                }
            });
        }
    });
    assert_eq!(seen.lock().unwrap().len(), 2000);
    assert_eq!(*twice.lock().unwrap(), Vec::<String>::new());
    drop(producer);
}
