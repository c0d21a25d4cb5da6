//! Binds, batches, rows that are returned, large texts.

use oracle::sql_type::{OracleType, Timestamp, ToSql};
use oracle::{Connection, ErrorKind};

use super::{As, code, connect, standin_or_skip, varchar};

fn table(connection: &Connection) {
    let text = "CREATE TABLE t (id NUMBER(19) GENERATED ALWAYS AS IDENTITY (CACHE 10) NOT NULL, k VARCHAR2(20 CHAR) \
        NOT NULL, v NUMBER(10), at TIMESTAMP(6), body CLOB, raw RAW(16), share NUMBER(5,2), \
        CONSTRAINT t_pk PRIMARY KEY (k), CONSTRAINT t_v CHECK (v < 1000))";
    connection.execute(text, &[]).unwrap();
}

#[test]
fn the_versions_say_that_this_is_not_oracle() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    let (version, banner) = connection.server_version().unwrap();
    assert_eq!(version.major(), 19);
    assert!(banner.contains("NOT Oracle"), "{banner}");
    connection.ping().unwrap();
}

#[test]
fn values_come_back_as_they_went() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    table(&connection);
    let at = Timestamp::new(2026, 1, 28, 10, 30, 0, 123_456_000).unwrap();
    let insert =
        "INSERT INTO t (k, v, at, body, raw, share) VALUES (:k, :v, :at, :body, :raw, :share)";
    let raw = [1_u8, 2, 255];
    connection
        .execute_named(
            insert,
            &[
                ("k", &varchar("ключ")),
                ("v", &-12_i64),
                ("at", &As(at, OracleType::Timestamp(6))),
                ("body", &As("{\"é\": 1}", OracleType::Long)),
                ("raw", &As(raw.to_vec(), OracleType::Raw(16))),
                ("share", &12.5_f64),
            ],
        )
        .unwrap();
    connection.commit().unwrap();
    let row = connection
        .query_row("SELECT id, k, v, at, body, raw, share, COUNT(*) OVER () FROM t", &[])
        .unwrap();
    assert!(row.get::<_, i64>(0).unwrap() > 0);
    assert_eq!(row.get::<_, String>("K").unwrap(), "ключ");
    assert_eq!(row.get::<_, i64>(2).unwrap(), -12);
    assert_eq!(row.get::<_, Timestamp>(3).unwrap(), at);
    assert_eq!(row.get::<_, String>(4).unwrap(), "{\"é\": 1}");
    assert_eq!(row.get::<_, Vec<u8>>(5).unwrap(), raw);
    assert_eq!(row.get::<_, f64>(6).unwrap().to_string(), "12.5");
    assert_eq!(row.get::<_, i64>(7).unwrap(), 1);
}

#[test]
fn nothing_and_an_empty_text_are_the_same_null() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    let none: Option<&str> = None;
    let sql = "SELECT COUNT(*) FROM dual WHERE :a IS NULL AND :b IS NULL AND '' IS NULL AND NVL(:c, 'x') = 'x'";
    let found: i64 = connection
        .query_row_as(
            sql,
            &[&varchar(""), &As(none, OracleType::Varchar2(10)), &OracleType::Varchar2(10)],
        )
        .unwrap();
    assert_eq!(found, 1);
}

#[test]
fn one_name_may_stand_twice_and_there_may_be_many() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    let named: String = connection
        .query_row_as_named(
            "SELECT :a || :b || :a FROM dual",
            &[("a", &varchar("x")), ("b", &varchar("y"))],
        )
        .unwrap();
    assert_eq!(named, "xyx");
    // More names than ODPI-C asks for at once.
    let names: Vec<String> = (1..=20).map(|number| format!(":n{number}")).collect();
    let numbers: Vec<i64> = (1..=20).collect();
    let bound: Vec<&dyn ToSql> = numbers.iter().map(|number| number as &dyn ToSql).collect();
    let sum: i64 = connection
        .query_row_as(&format!("SELECT {} FROM dual", names.join(" + ")), &bound)
        .unwrap();
    assert_eq!(sum, 210);
}

#[test]
fn a_statement_can_be_executed_many_times() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    let mut statement = connection
        .statement("SELECT :n AS number_of, 'row ' || TO_CHAR(:n) AS label FROM dual")
        .build()
        .unwrap();
    for number in 0..50_i64 {
        let rows = statement.query_as_named::<(i64, String)>(&[("n", &number)]).unwrap();
        let all: Vec<(i64, String)> = rows.map(Result::unwrap).collect();
        assert_eq!(all, [(number, format!("row {number}"))]);
    }
}

#[test]
fn a_thousand_rows_go_in_one_batch() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    table(&connection);
    let insert =
        "INSERT INTO t (k, v, at, body) VALUES (:1, :2, SYS_EXTRACT_UTC(SYSTIMESTAMP), :3)";
    let mut batch = connection.batch(insert, 1000).build().unwrap();
    batch.set_type(1, &OracleType::Varchar2(20)).unwrap();
    batch.set_type(2, &OracleType::Number(10, 0)).unwrap();
    batch.set_type(3, &OracleType::Long).unwrap();
    for row in 0..1000_i64 {
        let body = "ж".repeat(usize::try_from(row).unwrap() + 1);
        batch.append_row(&[&format!("k{row}"), &(row % 900), &body]).unwrap();
    }
    batch.execute().unwrap();
    connection.commit().unwrap();
    let (rows, letters): (i64, i64) = connection
        .query_row_as("SELECT COUNT(*), SUM(DBMS_LOB.GETLENGTH(body)) FROM t", &[])
        .unwrap();
    assert_eq!((rows, letters), (1000, 500_500));
    // More rows than one fetch brings.
    let rows = connection
        .query_as::<(String, String)>("SELECT k, body FROM t ORDER BY v, k", &[])
        .unwrap();
    let all: Vec<(String, String)> = rows.map(Result::unwrap).collect();
    assert_eq!(all.len(), 1000);
}

#[test]
fn a_batch_goes_on_behind_rows_that_fail_and_says_which() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    table(&connection);
    let insert = "INSERT INTO t (k, v) VALUES (:1, :2)";
    let mut batch =
        connection.batch(insert, 10).with_batch_errors().with_row_counts().build().unwrap();
    batch.set_type(1, &OracleType::Varchar2(20)).unwrap();
    let rows: [(&str, i64); 7] =
        [("a", 1), ("b", 5000), ("c", 2), ("a", 3), ("d", 4), ("e", 1000), ("f", 6)];
    for (key, value) in rows {
        batch.append_row(&[&key, &value]).unwrap();
    }
    let failed = batch.execute().unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::BatchErrors);
    let mut errors: Vec<(u32, i32)> =
        failed.batch_errors().unwrap().iter().map(|error| (error.offset(), error.code())).collect();
    errors.sort_unstable();
    assert_eq!(errors, [(1, 2290), (3, 1), (5, 2290)]);
    assert_eq!(batch.row_counts().unwrap(), [1, 0, 1, 0, 1, 0, 1]);
    connection.commit().unwrap();
    let keys: String =
        connection.query_row_as("SELECT STRING_AGG(k, ',' ORDER BY k) FROM t", &[]).unwrap();
    assert_eq!(keys, "a,c,d,f");
}

#[test]
fn without_batch_errors_the_rows_before_the_failure_stay() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    table(&connection);
    let mut batch = connection.batch("INSERT INTO t (k, v) VALUES (:1, :2)", 10).build().unwrap();
    batch.set_type(1, &OracleType::Varchar2(20)).unwrap();
    for (key, value) in [("a", 1_i64), ("b", 2), ("c", 5000), ("d", 4)] {
        batch.append_row(&[&key, &value]).unwrap();
    }
    assert_eq!(code(batch.execute()), 2290);
    let rows: i64 = connection.query_row_as("SELECT COUNT(*) FROM t", &[]).unwrap();
    assert_eq!(rows, 2);
}

#[test]
fn changed_rows_return_what_they_became() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    table(&connection);
    for key in ["a", "b", "c"] {
        connection.execute("INSERT INTO t (k, v) VALUES (:1, 1)", &[&varchar(key)]).unwrap();
    }
    let update = "UPDATE t SET v = v + :1 WHERE k < :2 RETURNING k, v INTO :3, :4";
    let statement = connection
        .execute(
            update,
            &[&41_i64, &varchar("c"), &OracleType::Varchar2(20), &OracleType::Number(10, 0)],
        )
        .unwrap();
    let mut keys: Vec<String> = statement.returned_values(3).unwrap();
    keys.sort();
    let values: Vec<i64> = statement.returned_values(4).unwrap();
    assert_eq!((keys, values), (vec!["a".to_owned(), "b".to_owned()], vec![42, 42]));
    assert_eq!(statement.row_count().unwrap(), 2);
    let none = connection
        .execute(
            update,
            &[&1_i64, &varchar(" "), &OracleType::Varchar2(20), &OracleType::Number(10, 0)],
        )
        .unwrap();
    assert_eq!(none.row_count().unwrap(), 0);
}

#[test]
fn a_large_text_of_two_byte_letters_comes_back_whole() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    table(&connection);
    let large = "xé".repeat(50_000);
    for (key, kind) in [("long", OracleType::Long), ("clob", OracleType::CLOB)] {
        let insert = "INSERT INTO t (k, body) VALUES (:1, :2)";
        connection.execute(insert, &[&varchar(key), &As(large.as_str(), kind)]).unwrap();
        let read: String =
            connection.query_row_as("SELECT body FROM t WHERE k = :1", &[&varchar(key)]).unwrap();
        assert!(read == large, "{key}: {} bytes of {}", read.len(), large.len());
    }
}

#[test]
fn merge_and_limits_do_what_oracle_does() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    table(&connection);
    let merge = "MERGE INTO t d USING (SELECT :1 AS k, :2 AS v FROM dual) s ON (d.k = s.k) \
        WHEN MATCHED THEN UPDATE SET d.v = s.v WHERE d.v < s.v \
        WHEN NOT MATCHED THEN INSERT (k, v) VALUES (s.k, s.v)";
    let mut counts = Vec::new();
    for value in [5_i64, 3, 7] {
        let done = connection.execute(merge, &[&varchar("a"), &value]).unwrap();
        counts.push(done.row_count().unwrap());
    }
    assert_eq!(counts, [1, 0, 1]);
    for key in ["b", "c", "d"] {
        connection.execute("INSERT INTO t (k, v) VALUES (:1, 1)", &[&varchar(key)]).unwrap();
    }
    let gone = connection.execute("DELETE FROM t WHERE v = 1 AND ROWNUM <= :1", &[&2_i64]).unwrap();
    assert_eq!(gone.row_count().unwrap(), 2);
    let first: String = connection
        .query_row_as("SELECT k FROM t ORDER BY k FETCH FIRST :1 ROWS ONLY", &[&1_i64])
        .unwrap();
    assert_eq!(first, "a");
}

#[test]
fn a_failed_statement_takes_back_itself_and_nothing_else() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    table(&connection);
    connection.execute("INSERT INTO t (k, v) VALUES ('a', 1)", &[]).unwrap();
    assert_eq!(code(connection.execute("INSERT INTO t (k, v) VALUES ('b', 1000)", &[])), 2290);
    assert_eq!(code(connection.execute("INSERT INTO t (k, v) VALUES ('a', 1)", &[])), 1);
    assert_eq!(code(connection.execute("INSERT INTO t (k, v) VALUES (NULL, 1)", &[])), 1400);
    assert_eq!(code(connection.execute("INSERT INTO nowhere (k) VALUES ('c')", &[])), 942);
    connection.commit().unwrap();
    let rows: i64 = connection.query_row_as("SELECT COUNT(*) FROM t", &[]).unwrap();
    assert_eq!(rows, 1);
}

#[test]
fn what_the_stand_in_does_not_know_is_refused_by_name() {
    let standin = standin_or_skip!();
    let connection = connect(&standin);
    for sql in [
        "BEGIN dbms_scheduler.create_job(:a); END;",
        "SELECT LISTAGG(k, ',') FROM t",
        "ALTER SESSION SET EVENTS = '10046 trace name context forever'",
        "SELECT nosuchfunction(1) FROM dual",
    ] {
        let bound: &[&dyn ToSql] = &[&varchar("x")];
        let bound = &bound[..usize::from(sql.contains(':'))];
        let mut statement = connection.statement(sql).build().unwrap();
        let query = statement.is_query();
        let refused =
            if query { statement.query(bound).map(|_| ()) } else { statement.execute(bound) };
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("stand-in"), "{sql}: {message}");
    }
}
