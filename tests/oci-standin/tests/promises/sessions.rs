//! Connections: how they begin, how they are lost, and what they cost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use oracle::{ConnStatus, Connection};

use super::{code, connect, dpi_code, standin_or_skip, varchar, wallet};

#[test]
fn a_wallet_or_a_password_opens_a_session_and_a_wrong_one_does_not() {
    let standin = standin_or_skip!();
    wallet(&standin).ping().unwrap();
    let wrong = Connection::connect("sentinel_svc", "wrong", &standin.connect_string);
    assert_eq!(code(wrong), 1017);
    let unknown = Connection::connect("sentinel_svc", "x", "//localhost/nosuchservice");
    assert_eq!(code(unknown), 12514);
}

#[test]
fn session_set_up_is_understood() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    connection.set_module("listener").unwrap();
    connection.set_client_identifier("acme").unwrap();
    connection.execute("ALTER SESSION SET TIME_ZONE = '+00:00' NLS_SORT = BINARY", &[]).unwrap();
    connection.execute("ALTER SESSION DISABLE PARALLEL DML", &[]).unwrap();
    connection.execute("BEGIN sentinel_svc.set_tenant(:t); END;", &[&varchar("acme")]).unwrap();
    let sql = "SELECT value, SYS_CONTEXT('SENTINEL_CTX', 'TENANT_ID') FROM nls_database_parameters \
        WHERE parameter = 'NLS_CHARACTERSET'";
    let found: (String, String) = connection.query_row_as(sql, &[]).unwrap();
    assert_eq!(found, ("AL32UTF8".to_owned(), "acme".to_owned()));
}

#[test]
fn a_call_that_takes_too_long_ends_and_the_session_goes_on() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    connection.set_call_timeout(Some(Duration::from_millis(300))).unwrap();
    let start = Instant::now();
    let slow = connection.query_row_as::<Option<String>>("SELECT pg_sleep(20) FROM dual", &[]);
    assert_eq!(dpi_code(slow), 1067);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    connection.ping().unwrap();
    assert_eq!(connection.status().unwrap(), ConnStatus::Normal);
}

#[test]
fn a_killed_session_is_closed_for_good() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    assert_eq!(standin.kill_sessions(), 1);
    assert_eq!(dpi_code(connection.query_row_as::<i64>("SELECT 1 FROM dual", &[])), 1080);
    assert_eq!(dpi_code(connection.ping()), 1010);
    assert_eq!(connection.status().unwrap(), ConnStatus::Closed);
}

#[test]
fn what_is_not_committed_is_gone_with_the_connection() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    connection.execute("CREATE TABLE t (a NUMBER)", &[]).unwrap();
    connection.execute("INSERT INTO t (a) VALUES (1)", &[]).unwrap();
    drop(connection);
    let rows: i64 = connect(&standin).query_row_as("SELECT COUNT(*) FROM t", &[]).unwrap();
    assert_eq!(rows, 0);
}

#[test]
fn many_threads_have_many_connections() {
    let standin = standin_or_skip!();
    std::thread::scope(|scope| {
        for number in 0..16_i64 {
            let standin = &standin;
            scope.spawn(move || {
                for _ in 0..5 {
                    let connection = connect(standin);
                    let found: i64 =
                        connection.query_row_as("SELECT :1 + 1 FROM dual", &[&number]).unwrap();
                    assert_eq!(found, number + 1);
                    connection.close().unwrap();
                }
            });
        }
    });
    let end = Instant::now() + Duration::from_secs(20);
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'oci-standin'";
    while standin.sql(left) != "0" {
        assert!(Instant::now() < end, "connections are left");
    }
}

#[test]
fn round_trips_are_those_that_oracle_s_client_would_make() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    connection.set_module("tests").unwrap();
    connection.set_action("counted").unwrap();
    assert_eq!(standin.trips("tests/another"), BTreeMap::new());
    let trips = |what: &str| standin.trips("tests/counted").get(what).copied().unwrap_or(0);
    let before = trips("execute");
    // One row comes with the execution; two need a fetch for the end, with two rows prefetched.
    connection.query_row_as::<i64>("SELECT 1 FROM dual", &[]).unwrap();
    assert_eq!((trips("execute") - before, trips("fetch")), (1, 0));
    let rows =
        connection.query_as::<i64>("SELECT 1 FROM dual UNION ALL SELECT 2 FROM dual", &[]).unwrap();
    assert_eq!(rows.count(), 2);
    assert_eq!((trips("execute") - before, trips("fetch")), (2, 1));
    super::queue::enqueue(&connection, "a", 5, "{}");
    connection.commit().unwrap();
    let (executes, fetches) = (trips("execute"), trips("fetch"));
    assert_eq!(super::queue::dequeue(&connection, 64, 0).unwrap().len(), 1);
    connection.commit().unwrap();
    assert_eq!((trips("execute") - executes, trips("fetch") - fetches, trips("commit")), (1, 1, 2));
}
