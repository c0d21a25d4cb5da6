//! What an error of the database or of its client means to us. This module is the table of error codes, and the only
//! place that looks into an error of the driver.
//!
//! A session that was lost reaches us as a DPI code, with the ORA number only in its text; so both are looked at, and
//! the DPI code counts first. Text that comes from the client is for the log alone: some of it is cut off badly, so
//! it is cleaned here.

use std::time::Duration;

use oracle::{DbError, Error, ErrorKind};

use crate::store::{Driver, StoreError};

/// What happened, told apart by what the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The session is gone. What was in flight is rolled back, or its outcome is unknown.
    SessionLost,
    /// No session can be opened now; a later attempt may succeed.
    CannotConnect,
    /// The database has no room for another session: a longer pause.
    SessionLimit,
    /// The address or the client is wrong: no attempt succeeds before somebody mends it.
    BadAddress,
    /// The client library is not there.
    NoClient,
    /// A call took longer than it may.
    CallTimeout,
    /// We cancelled it ourselves.
    Cancelled,
    /// There is no message: nothing is wrong.
    QueueEmpty,
    /// Somebody has stopped the queue.
    QueueStopped,
    /// A queue, a table or a right is not there.
    Missing,
    /// A value does not fit, and never will.
    TooLarge,
    /// A unique key is taken.
    Duplicate,
    /// The row it refers to is not there.
    ParentMissing,
    /// The schema refuses the data.
    BadData,
    /// Two transactions waited for each other: all of this one must be run again.
    Deadlock,
    /// Somebody else holds what is needed.
    Contention,
    /// Code of the database was replaced under us.
    Invalidated,
    /// There is no partition for it, or it cannot go.
    Partition,
    /// No room in the database.
    Space,
    /// User or password are refused. Repeats lock the account.
    Authentication,
    /// The wallet or the certificates do not fit.
    Wallet,
    /// Row security refuses it: a bug, or an attack.
    RowSecurity,
    /// Nothing we know.
    Unknown,
}

/// The numbers of each class. What is in two classes belongs to the first.
pub const ORA_CODES: &[(Class, &[i32])] = &[
    (
        Class::SessionLost,
        &[
            22, 28, 31, 45, 378, 602, 603, 609, 1012, 1041, 1043, 1089, 1092, 2396, 3113, 3114,
            3122, 3135, 12153, 12537, 12547, 12570, 12571, 12583, 12606, 12609, 27146, 28511,
            56600,
        ],
    ),
    (
        Class::CannotConnect,
        &[12514, 12516, 12518, 12520, 12528, 12541, 12543, 12545, 12170, 12535, 1033, 1034, 1090],
    ),
    (Class::SessionLimit, &[18, 20, 2391, 24418, 24457]),
    (Class::BadAddress, &[12154, 12162, 12504, 12505, 12533, 12538, 12560]),
    (Class::CallTimeout, &[3136, 3156, 12161]),
    (Class::Cancelled, &[1013]),
    (Class::QueueEmpty, &[25228, 25263]),
    (Class::QueueStopped, &[25226, 25207, 25253, 24026, 24085]),
    (Class::Missing, &[24010, 24002, 25205, 24033, 1031, 942, 4043, 904, 6550]),
    (
        Class::TooLarge,
        &[25201, 25202, 25203, 25204, 25215, 22814, 21560, 1461, 24816, 12899, 14699, 1438],
    ),
    (Class::Duplicate, &[1]),
    (Class::ParentMissing, &[2291, 2292]),
    (
        Class::BadData,
        &[2290, 1400, 1407, 1722, 6502, 40441, 1830, 1839, 1840, 1841, 1843, 1847, 1850, 1858],
    ),
    (Class::Deadlock, &[60]),
    (Class::Contention, &[54, 30006, 4021, 4020, 8177, 1555, 8176]),
    (Class::Invalidated, &[4061, 4065, 4068, 4063, 6508, 4045]),
    (Class::Partition, &[14400, 14300, 14402, 14758, 14006, 2149, 1502]),
    (Class::Space, &[1652, 1653, 1654, 1658, 1688, 1691, 1536, 30036, 257, 19809]),
    (Class::Authentication, &[1017, 28000, 28001, 1045, 1005, 28040, 28030]),
    (Class::Wallet, &[28759, 28750, 28860, 28862, 28864, 29024, 29002, 29003, 29019, 29106, 12578]),
    (Class::RowSecurity, &[28112, 28113, 28115, 42801]),
];

/// The same for what the client library's wrapper says itself.
pub const DPI_CODES: &[(Class, &[i32])] = &[
    (Class::SessionLost, &[1080, 1010]),
    (Class::CallTimeout, &[1067]),
    (Class::NoClient, &[1047]),
    (Class::BadAddress, &[1050, 1072, 1032, 1069]),
    (Class::TooLarge, &[1056, 1071]),
];

/// Text of an error that goes into a log is cut here: the useful part comes first.
const TEXT_BYTES_MAX: usize = 600;

/// What to install where the client library is missing.
pub const CLIENT_ADVICE: &str = "the Oracle client library is not there: install Oracle Instant Client Basic (19 or newer, with libaio) \
     and name its folder in ORACLE_CLIENT_LIB_DIR, or put it on the loader path (LD_LIBRARY_PATH or ldconfig)";

impl Class {
    /// The class of an ORA number.
    pub fn of_ora(code: i32) -> Self {
        find(ORA_CODES, code)
    }

    /// The class of a DPI number.
    pub fn of_dpi(code: i32) -> Self {
        find(DPI_CODES, code)
    }

    /// The session cannot be used any more.
    pub const fn loses_session(self) -> bool {
        matches!(
            self,
            Self::SessionLost
                | Self::CannotConnect
                | Self::SessionLimit
                | Self::BadAddress
                | Self::NoClient
                | Self::Authentication
                | Self::Wallet
        )
    }

    /// Nobody can say whether the data, the session or the database is to blame. So it is tried again a few times, with
    /// another session and one message at a time; what goes on is told loudly and with long pauses, and nothing ends.
    pub const fn is_unclear(self) -> bool {
        matches!(self, Self::Partition | Self::RowSecurity | Self::Unknown)
    }

    /// Only somebody's hand helps, so the service must not even start with it.
    pub const fn needs_mending(self) -> bool {
        matches!(
            self,
            Self::BadAddress | Self::NoClient | Self::Authentication | Self::Wallet | Self::Missing
        )
    }

    /// One row is at fault, as far as anybody knows: it would be refused again, and others need not be.
    pub const fn is_of_the_row(self) -> bool {
        matches!(
            self,
            Self::TooLarge
                | Self::Duplicate
                | Self::ParentMissing
                | Self::BadData
                | Self::RowSecurity
                | Self::Unknown
        )
    }

    /// The pause before the next attempt, first and longest. A wrong password that is tried tightly locks the account.
    pub const fn pauses(self) -> (Duration, Duration) {
        match self {
            Self::Authentication | Self::Wallet | Self::BadAddress | Self::NoClient => {
                (Duration::from_secs(60), Duration::from_secs(600))
            }
            Self::SessionLimit | Self::Space | Self::Missing | Self::QueueStopped => {
                (Duration::from_secs(30), Duration::from_secs(120))
            }
            _ => (Duration::from_millis(100), Duration::from_secs(5)),
        }
    }

    /// What somebody who reads the error should do, where the text of the error does not say it.
    pub const fn advice(self) -> Option<&'static str> {
        Some(match self {
            Self::NoClient => CLIENT_ADVICE,
            Self::BadAddress => {
                "check SENTINEL_DATABASE or ORACLE_TNS_NAME, and that ORACLE_WALLET_LOCATION or TNS_ADMIN holds tnsnames.ora"
            }
            Self::Authentication => {
                "check ORACLE_USERNAME and ORACLE_PASSWORD (or the wallet's credential); it is tried again once a minute, \
                 because repeats lock the account"
            }
            Self::Wallet => {
                "check ORACLE_WALLET_LOCATION, the rights on its files, and WALLET_LOCATION in sqlnet.ora"
            }
            Self::Missing => {
                "run `sentinel migrate` as the owner and the grants of sql/oracle/000_grants_as_dba.sql; `sentinel doctor` \
                 names what is missing"
            }
            Self::QueueStopped => {
                "somebody has stopped the queue: EXECUTE DBMS_AQADM.START_QUEUE for it, see `sentinel doctor`"
            }
            Self::SessionLimit => "raise PROCESSES, SESSIONS or SESSIONS_PER_USER of the database",
            Self::Space => "add space to the tablespace, or raise the quota",
            _ => return None,
        })
    }
}

fn find(table: &[(Class, &[i32])], code: i32) -> Class {
    table
        .iter()
        .find(|(_, codes)| codes.contains(&code))
        .map_or(Class::Unknown, |(class, _)| *class)
}

/// The first `ORA-nnnnn` in a text.
pub fn ora_in_text(text: &str) -> Option<i32> {
    let (_, after) = text.split_once("ORA-")?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).take(5).collect();
    digits.parse().ok()
}

/// The class by the two codes of an error: what the wrapper says, then what the database says.
pub fn class_of_codes(dpi: Option<i32>, ora: Option<i32>) -> Class {
    let by_dpi = dpi.map_or(Class::Unknown, Class::of_dpi);
    if by_dpi != Class::Unknown {
        return by_dpi;
    }
    ora.map_or(Class::Unknown, Class::of_ora)
}

/// The ORA number of one error of the database: its code, or what its text names.
pub fn ora_of(error: &DbError) -> Option<i32> {
    Some(error.code()).filter(|code| *code != 0).or_else(|| ora_in_text(error.message()))
}

/// What an error of the driver means.
pub fn class_of(error: &Error) -> Class {
    if error.kind() == ErrorKind::NoDataFound {
        return Class::QueueEmpty;
    }
    let ora = error.db_error().and_then(ora_of);
    class_of_codes(error.dpi_code(), ora)
}

/// The text of an error for a log: one line, of bounded length, without what is no text.
pub fn clean(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .filter(|letter| *letter != char::REPLACEMENT_CHARACTER)
        .collect();
    if line.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(end);
    }
    line.trim().to_string()
}

/// An error of the driver as the store tells it.
pub fn classify(call: &'static str, error: &Error) -> StoreError {
    told(call, class_of(error), &error.to_string())
}

/// The same for an error whose class is known.
pub fn told(call: &'static str, class: Class, text: &str) -> StoreError {
    let mut words = clean(text);
    if let Some(advice) = class.advice() {
        words.push_str("; ");
        words.push_str(advice);
    }
    let source: Driver = words.into();
    match class {
        Class::SessionLost
        | Class::CannotConnect
        | Class::SessionLimit
        | Class::BadAddress
        | Class::NoClient
        | Class::Authentication
        | Class::Wallet
        | Class::Missing
        | Class::QueueStopped => StoreError::Disconnected { call, source },
        Class::CallTimeout
        | Class::Cancelled
        | Class::QueueEmpty
        | Class::Deadlock
        | Class::Contention
        | Class::Invalidated => StoreError::Busy { call, source },
        Class::TooLarge | Class::Duplicate | Class::ParentMissing | Class::BadData => {
            StoreError::Refused { call, source }
        }
        Class::Space => StoreError::NoSpace { call, why: "the database is out of space", source },
        Class::Partition | Class::RowSecurity | Class::Unknown => {
            StoreError::Unclear { call, source }
        }
    }
}

/// The same error, as one that trying again does not mend.
pub(super) fn unreachable(error: StoreError) -> StoreError {
    match error {
        StoreError::Disconnected { call, source } => StoreError::Unreachable { call, source },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_a_code_and_every_code_one_class() {
        let mut seen = Vec::new();
        for (class, codes) in ORA_CODES {
            assert!(!codes.is_empty(), "{class:?}");
            for code in *codes {
                assert_eq!(Class::of_ora(*code), *class, "ORA-{code:05}");
                assert!(!seen.contains(code), "ORA-{code:05} is listed twice");
                seen.push(*code);
            }
        }
    }

    #[test]
    fn a_lost_session_is_dropped_and_told_as_such() {
        for code in [28, 3113, 3114, 3135, 12537, 1012, 2396] {
            assert_eq!(Class::of_ora(code), Class::SessionLost);
        }
        assert_eq!(class_of_codes(Some(1080), None), Class::SessionLost);
        assert_eq!(class_of_codes(Some(1010), Some(0)), Class::SessionLost);
        assert!(Class::SessionLost.loses_session());
        assert!(matches!(
            told("settle", Class::SessionLost, "ORA-03113"),
            StoreError::Disconnected { .. }
        ));
    }

    #[test]
    fn what_cannot_connect_now_is_tried_again_soon() {
        for code in [12514, 12541, 1033, 1034, 12170] {
            assert_eq!(Class::of_ora(code), Class::CannotConnect);
        }
        assert!(Class::CannotConnect.pauses().0 < Duration::from_secs(1));
        assert!(!Class::CannotConnect.needs_mending());
    }

    #[test]
    fn limits_of_the_database_wait_longer() {
        assert_eq!(Class::of_ora(2391), Class::SessionLimit);
        assert!(Class::SessionLimit.pauses().0 >= Duration::from_secs(30));
    }

    #[test]
    fn a_wrong_address_is_for_somebody_to_mend() {
        for code in [12154, 12505, 12560] {
            assert_eq!(Class::of_ora(code), Class::BadAddress);
        }
        assert_eq!(class_of_codes(Some(1032), None), Class::BadAddress);
        assert!(Class::BadAddress.needs_mending());
        assert!(Class::BadAddress.pauses().0 >= Duration::from_secs(60));
    }

    #[test]
    fn a_missing_client_library_says_what_to_install() {
        assert_eq!(class_of_codes(Some(1047), None), Class::NoClient);
        let error = told("open", Class::NoClient, "DPI-1047: Cannot locate a 64-bit library");
        let StoreError::Disconnected { source, .. } = error else { panic!("{error:?}") };
        assert!(source.to_string().contains("Instant Client"), "{source}");
        assert!(source.to_string().contains("ORACLE_CLIENT_LIB_DIR"), "{source}");
    }

    #[test]
    fn a_call_that_took_too_long_keeps_its_session() {
        assert_eq!(class_of_codes(Some(1067), Some(3156)), Class::CallTimeout);
        assert!(!Class::CallTimeout.loses_session());
        assert!(told("claim", Class::CallTimeout, "").is_transient());
    }

    #[test]
    fn what_we_cancelled_and_an_empty_queue_are_no_faults() {
        assert_eq!(Class::of_ora(1013), Class::Cancelled);
        assert_eq!(Class::of_ora(25228), Class::QueueEmpty);
        assert!(told("claim", Class::Cancelled, "").is_transient());
    }

    #[test]
    fn a_stopped_queue_is_polled_slowly() {
        assert_eq!(Class::of_ora(25226), Class::QueueStopped);
        assert_eq!(Class::of_ora(25207), Class::QueueStopped);
        assert_eq!(Class::QueueStopped.pauses().0, Duration::from_secs(30));
    }

    #[test]
    fn what_is_missing_in_the_schema_names_migrate() {
        for code in [24010, 942, 1031, 4043] {
            assert_eq!(Class::of_ora(code), Class::Missing);
        }
        assert!(Class::Missing.advice().unwrap().contains("sentinel migrate"));
    }

    #[test]
    fn what_does_not_fit_is_refused_for_good() {
        for (code, class) in [
            (12899, Class::TooLarge),
            (24816, Class::TooLarge),
            (1, Class::Duplicate),
            (2291, Class::ParentMissing),
            (2290, Class::BadData),
            (1400, Class::BadData),
            (40441, Class::BadData),
        ] {
            assert_eq!(Class::of_ora(code), class, "ORA-{code:05}");
            assert!(matches!(told("settle", class, ""), StoreError::Refused { .. }));
        }
        assert_eq!(class_of_codes(Some(1071), None), Class::TooLarge);
    }

    #[test]
    fn a_deadlock_and_contention_are_tried_again() {
        assert_eq!(Class::of_ora(60), Class::Deadlock);
        for code in [54, 30006, 8177, 1555] {
            assert_eq!(Class::of_ora(code), Class::Contention);
        }
        assert!(matches!(told("settle", Class::Deadlock, ""), StoreError::Busy { .. }));
    }

    #[test]
    fn code_that_was_replaced_is_called_again() {
        for code in [4061, 4068, 6508] {
            assert_eq!(Class::of_ora(code), Class::Invalidated);
        }
        assert!(told("claim", Class::Invalidated, "").is_transient());
    }

    #[test]
    fn what_nobody_understands_is_tried_again_with_another_session_and_ends_nothing() {
        assert_eq!(Class::of_ora(14400), Class::Partition);
        assert_eq!(Class::of_ora(28115), Class::RowSecurity);
        assert_eq!(Class::of_ora(600), Class::Unknown, "an internal error of the database");
        for class in [Class::Partition, Class::RowSecurity, Class::Unknown] {
            assert!(class.is_unclear());
            let error = told("archive", class, "");
            assert!(matches!(error, StoreError::Unclear { .. }) && error.is_transient());
        }
    }

    /// One row for each class: a number of it, and what whoever called does.
    #[test]
    fn no_class_of_error_ends_the_service() {
        use Class::*;
        let table = [
            (SessionLost, 3113, "again"),
            (CannotConnect, 12541, "again"),
            (SessionLimit, 2391, "again"),
            (BadAddress, 12154, "again"),
            (CallTimeout, 3156, "again"),
            (Cancelled, 1013, "again"),
            (QueueEmpty, 25228, "again"),
            (QueueStopped, 25226, "again"),
            (Missing, 942, "again"),
            (Missing, 6550, "again"),
            (TooLarge, 12899, "aside"),
            (Duplicate, 1, "aside"),
            (ParentMissing, 2291, "aside"),
            (BadData, 2290, "aside"),
            (Deadlock, 60, "again"),
            (Contention, 54, "again"),
            (Invalidated, 4068, "again"),
            (Partition, 14400, "unclear"),
            (Space, 1653, "again"),
            (Authentication, 1017, "again"),
            (Wallet, 28759, "again"),
            (RowSecurity, 28115, "unclear"),
            (Unknown, 600, "unclear"),
            (Unknown, 7445, "unclear"),
        ];
        for (class, code, wanted) in table {
            assert_eq!(Class::of_ora(code), class, "ORA-{code:05}");
            let does = match told("settle", class, "") {
                StoreError::Refused { .. } => "aside",
                StoreError::Unclear { .. } => "unclear",
                error if error.is_transient() => "again",
                error => panic!("ORA-{code:05} would stop the service: {error:?}"),
            };
            assert_eq!(does, wanted, "ORA-{code:05}");
            assert_eq!(class.is_unclear(), wanted == "unclear");
        }
        let classes =
            ORA_CODES.iter().filter(|(class, _)| !table.iter().any(|row| row.0 == *class));
        assert_eq!(classes.count(), 0, "every class has its row");
    }

    #[test]
    fn a_row_is_not_blamed_for_what_every_other_row_would_meet() {
        for code in [1653, 14400, 60, 3113, 1502, 942] {
            assert!(!Class::of_ora(code).is_of_the_row(), "ORA-{code:05}");
        }
        for code in [12899, 1, 2291, 2290, 28115, 99_999] {
            assert!(Class::of_ora(code).is_of_the_row(), "ORA-{code:05}");
        }
    }

    #[test]
    fn no_space_is_told_as_no_space() {
        assert_eq!(Class::of_ora(1653), Class::Space);
        assert!(matches!(told("accept", Class::Space, ""), StoreError::NoSpace { .. }));
    }

    #[test]
    fn a_refused_user_is_never_tried_tightly() {
        for code in [1017, 28000, 28001, 1045] {
            assert_eq!(Class::of_ora(code), Class::Authentication);
        }
        assert!(Class::Authentication.pauses().0 >= Duration::from_secs(60));
        assert_eq!(Class::of_ora(28759), Class::Wallet);
        assert!(Class::Wallet.pauses().0 >= Duration::from_secs(60));
    }

    #[test]
    fn the_number_is_found_in_the_text() {
        let text = "DPI-1080: connection was closed by ORA-03113\u{0}\u{fffd}rubbish";
        assert_eq!(ora_in_text(text), Some(3113));
        assert_eq!(ora_in_text("DPI-1010: not connected"), None);
        assert_eq!(ora_in_text("ORA-"), None);
        assert_eq!(clean(text), "DPI-1080: connection was closed by ORA-03113 rubbish");
        assert!(clean(&"ä".repeat(1000)).len() <= TEXT_BYTES_MAX);
    }
}
