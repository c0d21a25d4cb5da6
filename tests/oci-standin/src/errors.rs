//! Errors with Oracle's numbers. This module says which number a refusal of PostgreSQL stands for.

use crate::wire::{Failure, Refusal};

pub(crate) type Result<T> = std::result::Result<T, OraError>;

#[derive(Debug, Clone)]
pub(crate) struct OraError {
    pub code: i32,
    pub text: String,
    /// The session is gone.
    pub fatal: bool,
    /// PostgreSQL threw away a plan: the same once more succeeds.
    pub stale_plan: bool,
    pub position: usize,
}

impl OraError {
    pub(crate) fn new(code: i32, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text, fatal: false, stale_plan: false, position: 0 }
    }

    /// Something that the stand-in can't do, said so that nobody takes it for Oracle's verdict.
    pub(crate) fn beyond(what: impl std::fmt::Display) -> Self {
        Self::new(3001, format!("unimplemented feature of the stand-in (not Oracle): {what}"))
    }

    pub(crate) fn lost(why: impl std::fmt::Display) -> Self {
        let mut lost =
            Self::new(3113, format!("end-of-file on communication channel (stand-in: {why})"));
        lost.fatal = true;
        lost
    }

    pub(crate) fn message(&self) -> String {
        format!("ORA-{:05}: {}\n", self.code, self.text)
    }

    /// The usual words of a number that a test asks for.
    pub(crate) fn of_number(code: i32) -> Self {
        let text = match code {
            1 => "unique constraint (SENTINEL.STANDIN) violated",
            28 => "your session has been killed",
            54 => "resource busy and acquire with NOWAIT specified or timeout expired",
            60 => "deadlock detected while waiting for resource",
            257 => "Archiver error. Connect AS SYSDBA only until resolved.",
            1013 => "user requested cancel of current operation",
            1017 => "invalid username/password; logon denied",
            1033 => "ORACLE initialization or shutdown in progress",
            1653 => "unable to extend table SENTINEL.STANDIN by 128 in tablespace USERS",
            3113 => "end-of-file on communication channel",
            3114 => "not connected to ORACLE",
            3135 => "connection lost contact",
            3156 => "OCI call timed out",
            4068 => "existing state of packages has been discarded",
            12541 => "TNS:no listener",
            12170 => "TNS:Connect timeout occurred",
            14400 => "inserted partition key does not map to any partition",
            24344 => "success with compilation error",
            25207 => "enqueue failed, queue SENTINEL.SENTINEL_QUEUE is disabled from enqueueing",
            25226 => "dequeue failed, queue SENTINEL.SENTINEL_QUEUE is not enabled for dequeue",
            28000 => "The account is locked.",
            28001 => "the password has expired",
            28002 => "the password will expire within 7 days",
            _ => "an error that a test asked for",
        };
        let mut error = Self::new(code, format!("{text} (stand-in)"));
        error.fatal =
            matches!(code, 28 | 603 | 1012 | 1089 | 1092 | 3113 | 3114 | 3135 | 12537 | 12547);
        error
    }

    /// What a failure of the wire stands for. A statement that was cancelled was either broken off or too slow.
    pub(crate) fn of_failure(failure: Failure, broken_off: bool) -> Self {
        match failure {
            Failure::TimedOut if broken_off => Self::of_number(1013),
            Failure::TimedOut => Self::of_number(3156),
            Failure::Lost(why) => Self::lost(why),
            Failure::Refused(refusal) => Self::of_refusal(&refusal),
        }
    }

    pub(crate) fn of_refusal(refusal: &Refusal) -> Self {
        let Refusal { state, message, constraint, table, column, .. } = refusal;
        let upper = |text: &str| text.to_uppercase();
        let own = |what: &str| format!("SENTINEL.{}", upper(what));
        let (code, text) = match state.as_str() {
            "23505" => (1, format!("unique constraint ({}) violated", own(constraint))),
            "23502" => (
                1400,
                format!(
                    "cannot insert NULL into (\"SENTINEL\".\"{}\".\"{}\")",
                    upper(table),
                    upper(column)
                ),
            ),
            "23514" => (2290, format!("check constraint ({}) violated", own(constraint))),
            "23503" if message.contains("update or delete") => (
                2292,
                format!("integrity constraint ({}) violated - child record found", own(constraint)),
            ),
            "23503" => (
                2291,
                format!(
                    "integrity constraint ({}) violated - parent key not found",
                    own(constraint)
                ),
            ),
            "42P01" | "3F000" => (942, format!("table or view does not exist: {message}")),
            "42P07" => (955, format!("name is already used by an existing object: {message}")),
            "42710" => (955, format!("name is already used by an existing object: {message}")),
            "42703" => (904, format!("invalid identifier: {message}")),
            "42701" => (1430, format!("column being added already exists in table: {message}")),
            "42883" => (904, format!("invalid identifier, or beyond the stand-in: {message}")),
            "22001" => (12899, format!("value too large for column: {message}")),
            "22P02" => (1722, format!("invalid number: {message}")),
            "22003" => (
                1438,
                format!("value larger than specified precision allowed for this column: {message}"),
            ),
            "22007" | "22008" => (1843, format!("not a valid month: {message}")),
            "22012" => (1476, "divisor is equal to zero".to_owned()),
            "21000" => (1427, format!("single-row subquery returns more than one row: {message}")),
            "42601" => (900, format!("invalid SQL statement, or beyond the stand-in: {message}")),
            "42804" => (932, format!("inconsistent datatypes: {message}")),
            "42P18" => (932, format!("a bind whose type cannot be told: {message}")),
            "42501" => (1031, format!("insufficient privileges: {message}")),
            "42702" => (918, format!("column ambiguously defined: {message}")),
            "55P03" => return Self::of_number(54),
            "40P01" => return Self::of_number(60),
            "40001" => (8177, "can't serialize access for this transaction".to_owned()),
            "53100" => return Self::of_number(1653),
            "53300" => (20, "maximum number of processes exceeded".to_owned()),
            "S5226" => return Self::of_number(25226),
            "57014" => return Self::of_number(1013),
            "57P01" => return Self::of_number(28),
            "57P02" | "57P04" => return Self::of_number(1092),
            "57P03" => return Self::of_number(1033),
            "3D000" => {
                (12514, format!("TNS:listener does not currently know of service: {message}"))
            }
            _ => (600, format!("stand-in: PostgreSQL's {state}: {message}")),
        };
        let mut error = Self::new(code, text);
        error.stale_plan = state == "0A000" && message.contains("cached plan");
        error.position = refusal.position;
        error
    }
}
