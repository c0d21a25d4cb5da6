//! Faults on command, each seen by the caller as Oracle's client would show it.

use std::time::{Duration, Instant};

use oracle::Connection;

use super::{code, connect, dpi_code, standin_or_skip};

fn count(connection: &Connection) -> i64 {
    connection.query_row_as("SELECT COUNT(*) FROM t", &[]).unwrap()
}

fn insert(connection: &Connection) -> oracle::Result<()> {
    connection.execute("INSERT INTO t (a) VALUES (1)", &[]).map(|_| ())
}

fn table(connection: &Connection) {
    connection.execute("CREATE TABLE t (a NUMBER)", &[]).unwrap();
}

#[test]
fn the_nth_call_fails_with_a_number_and_does_nothing() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    table(&connection);
    let fault = standin.inject("on=OCIStmtExecute text=INSERT nth=2 times=1 do=ora:1653");
    insert(&connection).unwrap();
    assert_eq!(code(insert(&connection)), 1653);
    insert(&connection).unwrap();
    assert_eq!((count(&connection), standin.hits(&fault)), (2, 1));
}

#[test]
fn a_fault_lasts_until_it_is_mended() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    table(&connection);
    let full = standin.inject("on=OCIStmtExecute text=INSERT do=ora:14400");
    let other = standin.inject("on=OCIPing do=ora:1033");
    assert_eq!((code(insert(&connection)), code(insert(&connection))), (14400, 14400));
    standin.mend(&full);
    insert(&connection).unwrap();
    assert_eq!(code(connection.ping()), 1033);
    assert_eq!((standin.hits(&full), standin.hits(&other)), (2, 1));
}

#[test]
fn a_module_can_be_hit_alone() {
    let standin = standin_or_skip!();
    let (reader, writer) = (connect(&standin), connect(&standin));
    reader.set_module("reader").unwrap();
    writer.set_module("writer").unwrap();
    standin.inject("module=writer on=OCIPing do=ora:54");
    reader.ping().unwrap();
    assert_eq!(code(writer.ping()), 54);
}

#[test]
fn a_commit_that_is_lost_before_the_server_took_back_everything() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    table(&connection);
    standin.inject("on=OCITransCommit times=1 do=lose");
    insert(&connection).unwrap();
    assert_eq!(dpi_code(connection.commit()), 1080);
    assert_eq!(dpi_code(connection.ping()), 1010);
    assert_eq!(count(&connect(&standin)), 0);
}

#[test]
fn a_commit_whose_answer_is_lost_has_happened() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    table(&connection);
    standin.inject("on=OCITransCommit times=1 do=lose-after");
    insert(&connection).unwrap();
    assert_eq!(dpi_code(connection.commit()), 1080);
    assert_eq!(count(&connect(&standin)), 1);
}

#[test]
fn a_call_hangs_until_its_timeout_a_break_or_the_end_of_the_fault() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    let fault = standin.inject("on=OCIPing do=hang");
    connection.set_call_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(dpi_code(connection.ping()), 1067);
    connection.set_call_timeout(None).unwrap();
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| connection.ping());
        while standin.hits(&fault) < 2 {
            std::thread::yield_now();
        }
        while !hanging.is_finished() {
            connection.break_execution().unwrap();
        }
        assert_eq!(code(hanging.join().unwrap()), 1013);
        let hanging = scope.spawn(|| connection.ping());
        while standin.hits(&fault) < 3 {
            std::thread::yield_now();
        }
        standin.mend(&fault);
        hanging.join().unwrap().unwrap();
    });
}

#[test]
fn a_slow_network_delays_each_call() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    standin.inject("on=OCIPing do=delay:120");
    let start = Instant::now();
    connection.ping().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(120), "{:?}", start.elapsed());
}

#[test]
fn a_warning_comes_with_a_success() {
    let standin = standin_or_skip!();
    standin.inject("on=OCISessionBegin times=1 do=warn:28002");
    let connection = connect(&standin);
    let warning = connection.last_warning().expect("a warning");
    assert_eq!(warning.oci_code(), Some(28002));
    connection.ping().unwrap();
}

#[test]
fn a_password_expires_and_a_server_is_gone() {
    let standin = standin_or_skip!();
    let expired = standin.inject("on=OCISessionBegin do=ora:28001");
    let again = || Connection::connect("sentinel_svc", "x", &standin.connect_string);
    assert_eq!(code(again()), 28001);
    standin.mend(&expired);
    let gone = standin.inject("on=OCIServerAttach do=ora:12541");
    assert_eq!(code(again()), 12541);
    standin.mend(&gone);
    again().unwrap().ping().unwrap();
}
