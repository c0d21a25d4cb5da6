//! How a process and its runs look from outside. This module is the shape of `/status` and of each row of a listing.

use super::json::Json;
use crate::domain::history;
use crate::domain::process::{Outcome, RunRow};
use crate::domain::time::Timestamp;
use crate::store::ProcessView;

/// Writes a `/status` object [RA2].
pub fn write(json: &mut Json<'_>, view: &ProcessView, now: Timestamp) {
    let row = &view.row;
    json.object(|json| {
        json.member("process_id").text(row.process.as_str());
        json.member("status").text(row.status.as_str());
        json.text_or_null("current_step", row.current_step.as_deref());
        match row.progress_percent {
            Some(percent) => json.member("progress_percent").float(percent),
            None => json.member("progress_percent").null(),
        }
        json.time_or_null("started_at", row.started_at);
        json.member("last_update_at").time(row.last_update_at);
        json.time_or_null(
            "estimated_completion",
            history::estimated_completion(row, view.median_ms),
        );
        json.member("stale").boolean(row.is_stale(now));
        json.text_or_null("reason", row.reason.as_deref());
        json.text_or_null("run_id", row.run_id.as_ref().map(|id| id.as_str()));
        json.member("run_no").number(row.run_no);
        json.time_or_null("ended_at", row.ended_at);
        json.time_or_null("last_life_at", row.last_life_at);
        json.time_or_null("deadline_at", row.deadline_at);
        json.text_or_null("process_name", row.process_name.as_deref());
        json.text_or_null("process_type", row.process_type.as_deref());
        json.text_or_null("correlation_id", row.correlation_id.as_deref());
        json.member("total_executions").number(row.total_executions);
        json.member("successful_runs").number(row.successful_runs);
        json.member("failed_runs").number(row.failed_runs);
        match row.avg_duration_ms {
            Some(average) => json.member("avg_duration_ms").number(average),
            None => json.member("avg_duration_ms").null(),
        }
        json.member("metadata").object(|json| {
            json.text_or_null("package", row.package_name.as_deref());
            json.text_or_null("procedure", row.procedure_name.as_deref());
            json.member("tenant_id").text(row.tenant.as_str());
            // The three fixed members win over members of the same name that the user sent.
            for (name, value) in &row.metadata {
                if !matches!(name.as_str(), "package" | "procedure" | "tenant_id") {
                    json.named(name).value(value);
                }
            }
        });
    });
}

/// Writes one run.
pub fn write_run(json: &mut Json<'_>, run: &RunRow) {
    json.object(|json| {
        json.text_or_null("run_id", run.run_id.as_ref().map(|id| id.as_str()));
        json.time_or_null("started_at", run.started_at);
        json.time_or_null("ended_at", run.ended_at);
        json.text_or_null("outcome", run.outcome.map(Outcome::as_str));
        match run.duration_ms {
            Some(duration) => json.member("duration_ms").number(duration),
            None => json.member("duration_ms").null(),
        }
        json.text_or_null("error_code", run.error_code.as_deref());
        json.text_or_null("error_message", run.error_message.as_deref());
    });
}
