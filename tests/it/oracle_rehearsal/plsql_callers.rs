//! What a procedure of the database reports shows by HTTP. The stand-in cannot run the package, so this module writes
//! the rows and messages that `sentinel_pkg` writes (`record_start`, `record_event`, `write_logs` of
//! `sql/oracle/004_sentinel_pkg.sql`), in transactions of their own beside the service.

use serde_json::{Value, json};

use super::{Site, end};
use crate::harness::{Client, eventually};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A process that PL/SQL reports, and its tenant.
struct Caller<'s> {
    site: &'s Site,
    tenant: &'s str,
    process: &'s str,
    run_id: String,
}

/// A text as SQL has it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl<'s> Caller<'s> {
    /// `record_start`.
    fn start(site: &'s Site, tenant: &'s str, process: &'s str, data: &Value) -> Self {
        let run_id = uuid::Uuid::now_v7().simple().to_string().to_uppercase();
        let caller = Self { site, tenant, process, run_id };
        let names = format!("{}, {}", quoted(tenant), quoted(process));
        let message = caller.message("STARTED", &caller.run_id, 3, "1", data);
        site.standin.sql(&format!(
            "SET search_path = sentinel, standin, pg_catalog; BEGIN;
             INSERT INTO process_registry (tenant_id, process_id, process_type, package_name, procedure_name, status,
               registered_at, total_executions)
             VALUES ({names}, 'PLSQL', 'CONTRACT_PKG', 'CREATE_CONTRACT', 'RUNNING',
               sys_extract_utc(systimestamp()), 1);
             INSERT INTO process_live_status (tenant_id, process_id, run_id, run_no, status, started_at,
               last_update_at, last_life_at, history_key)
             SELECT {names}, {run}, 1, 'RUNNING', now, now, now, 'CONTRACT_PKG.CREATE_CONTRACT'
               FROM (SELECT sys_extract_utc(systimestamp()) AS now) AS one;
             INSERT INTO stream_counter (tenant_id, stream_key, last_seq) VALUES ({names}, 1);
             {message} COMMIT;",
            run = quoted(&caller.run_id),
        ));
        caller
    }

    /// `record_event`: takes the next number and enqueues.
    fn report(&self, event_type: &str, priority: u8, data: &Value) {
        let event_id = uuid::Uuid::now_v7().simple().to_string().to_uppercase();
        let message =
            self.message(event_type, &event_id, priority, "(SELECT last_seq FROM taken)", data);
        self.site.standin.sql(&format!(
            "SET search_path = sentinel, standin, pg_catalog; BEGIN;
             WITH taken AS (UPDATE stream_counter SET last_seq = last_seq + 1
               WHERE tenant_id = {tenant} AND stream_key = {process} RETURNING last_seq) {message} COMMIT;",
            tenant = quoted(self.tenant),
            process = quoted(self.process),
        ));
    }

    /// `enqueue_event`, with a number that is an expression.
    fn message(
        &self,
        event_type: &str,
        event_id: &str,
        priority: u8,
        number: &str,
        data: &Value,
    ) -> String {
        let payload = json!({
            "source": "plsql", "runId": self.run_id, "occurredAt": "@now", "traceparent": TRACEPARENT,
            "correlationId": "C-17", "data": data,
        });
        let texts = [event_id, event_type, self.process, self.tenant].map(quoted).join(", ");
        format!(
            "INSERT INTO standin.message (priority, event_id, event_type, process_id, tenant_id, payload)
             SELECT {priority}, {texts}, replace(regexp_replace({payload}, '^.', '{{\"streamSeq\":' || {number} || ','),
               '@now', pg_catalog.to_char(sys_extract_utc(systimestamp()), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'));",
            payload = quoted(&payload.to_string()),
        )
    }

    /// A message of the type LOG, as whoever has no access to the table sends it.
    fn line_by_queue(&self, lines: &Value) {
        let message = self.message("LOG", "L1", 5, "1", lines);
        self.site
            .standin
            .sql(&format!("SET search_path = sentinel, standin, pg_catalog; {message}"));
    }

    /// `write_logs`: one row, straight into the table.
    fn log(&self, level: &str, message: &str) {
        let texts = [
            self.tenant,
            self.process,
            level,
            "CONTRACT_PKG.CREATE_CONTRACT",
            "C-17",
            TRACE_ID,
            message,
        ];
        self.site.standin.sql(&format!(
            "SET search_path = sentinel, standin, pg_catalog;
             INSERT INTO process_logs (tenant_id, process_id, log_level, component, correlation_id, trace_id, message,
               logged_at, details)
             VALUES ({}, sys_extract_utc(systimestamp()), '{{\"rows\": 1}}');",
            texts.map(quoted).join(", "),
        ));
    }
}

fn status(client: &mut Client, process: &str) -> Value {
    client.get(&format!("/status/{process}")).expect(200).json()
}

/// `/status`, once it says so.
fn reaches(client: &mut Client, process: &str, wanted: &str) -> Value {
    eventually(wanted, || {
        let status = status(client, process);
        (status["status"] == wanted).then_some(status)
    })
}

#[test]
fn a_procedure_is_seen_from_its_start_to_its_end_with_its_trace() {
    let Some(site) = Site::start() else { return };
    let instances = [site.instance(&[]), site.instance(&[])];
    let [mut here, mut there] = [0, 1].map(|door: usize| site.client(&instances[door], "demo"));
    here.get("/status/P1").expect(404);
    let names = json!({"package_name": "CONTRACT_PKG", "procedure_name": "CREATE_CONTRACT",
                       "process_name": "CONTRACT_PKG.CREATE_CONTRACT", "process_type": "PLSQL"});
    let caller = Caller::start(&site, "demo", "P1", &names);
    // It is known with the commit of the start, before any listener has seen the message.
    assert_eq!(status(&mut there, "P1")["status"], "RUNNING");

    caller.report(
        "PROGRESS",
        5,
        &json!({"current_step": "INSERTING_CONTRACT", "progress_percent": 40}),
    );
    caller.log("INFO", "inserted");
    let shown = eventually("the progress is applied", || {
        let shown = status(&mut here, "P1");
        (shown["current_step"] == "INSERTING_CONTRACT").then_some(shown)
    });
    assert_eq!((&shown["status"], &shown["progress_percent"]), (&json!("RUNNING"), &json!(40.0)));
    assert_eq!(shown["metadata"]["package"], "CONTRACT_PKG");
    assert_eq!(shown["metadata"]["procedure"], "CREATE_CONTRACT");
    assert_eq!(shown["metadata"]["tenant_id"], "demo");
    let logs = there.get("/logs/P1").expect(200).json();
    let row = &logs["logs"][0];
    assert_eq!(row["component"], "CONTRACT_PKG.CREATE_CONTRACT");
    assert_eq!((&row["message"], &row["trace_id"]), (&json!("inserted"), &json!(TRACE_ID)));
    assert_eq!(row["details"], json!({"rows": 1}));

    // By HTTP somebody else says something of the same process: one stream, one order.
    let fields = [("X-Sentinel-Process-Id", "P1")];
    let posted = here.request("POST", "/internal/heartbeat", &fields, b"").expect(202).json();
    assert_eq!(posted["streamSeq"], 3);
    caller.report("COMPLETED", 2, &json!({"result": {"contract_id": "C-17"}}));
    reaches(&mut there, "P1", "COMPLETED");
    let events = eventually("all is applied", || {
        let page = here.get("/v1/streams/P1/events").expect(200).json();
        let events = page["events"].as_array().expect("events").clone();
        (events.len() == 4).then_some(events)
    });
    let told: Vec<_> = events
        .iter()
        .map(|event| (event["streamSeq"].as_u64().unwrap(), event["type"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            (1, "process.started"),
            (2, "process.progress"),
            (3, "process.heartbeat"),
            (4, "process.completed")
        ]
    );
    for event in events.iter().filter(|event| event["type"] != "process.heartbeat") {
        assert_eq!((&event["source"], &event["traceId"]), (&json!("plsql"), &json!(TRACE_ID)));
    }
    let runs = there.get("/processes/P1/runs").expect(200).json();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1), "{runs}");
    assert_eq!(runs["runs"][0]["run_id"], caller.run_id);

    // A failure, of a process whose other reports came by no way at all.
    let failing = Caller::start(&site, "demo", "P2", &names);
    failing.report(
        "ERROR",
        1,
        &json!({"error_code": "-20001", "error_message": "ORA-20001: it's no contract"}),
    );
    reaches(&mut here, "P2", "FAILED");
    // Another tenant knows nothing of all this.
    let mut stranger = site.client(&instances[0], "stranger");
    for path in ["/status/P1", "/logs/P1", "/v1/streams/P1/events"] {
        stranger.get(path).expect(404);
    }
    let dead = here.get("/v1/dead-letters").expect(200).json();
    assert_eq!(dead["dead_letters"], json!([]));
    instances.into_iter().for_each(end);
}

#[test]
fn lines_that_come_by_the_queue_are_log_rows() {
    let Some(site) = Site::start() else { return };
    let instance = site.instance(&[]);
    let mut client = site.client(&instance, "demo");
    let caller = Caller::start(&site, "demo", "P1", &json!({}));
    let lines = json!([{"level": "WARN", "message": "one", "component": "CONTRACT_PKG"}, {"message": "two"}]);
    caller.line_by_queue(&lines);
    let rows = eventually("the lines are there", || {
        let page = client.get("/logs/P1").expect(200).json();
        let rows = page["logs"].as_array().expect("rows").clone();
        (rows.len() == 2).then_some(rows)
    });
    assert_eq!(
        (&rows[0]["message"], &rows[0]["component"]),
        (&json!("one"), &json!("CONTRACT_PKG"))
    );
    assert_eq!((&rows[1]["message"], &rows[1]["level"]), (&json!("two"), &json!("INFO")));
    end(instance);
}
