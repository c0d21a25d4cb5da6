//! The service's own log: what is written and how it looks. This module reads those settings.

use std::path::PathBuf;

use super::raw::{Origin, Surroundings};
use super::reader::Reader;
use super::variables::NONE;
use crate::telemetry::logging::check_filter;

/// How a line of the service's own log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

/// Where the filter of the service's own log comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFilter {
    Fixed(String),
    /// Read again on SIGHUP.
    File(PathBuf),
}

/// The service's own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    pub filter: LogFilter,
    pub format: LogFormat,
}

pub(super) fn log(reader: &mut Reader<'_>, surroundings: &Surroundings<'_>) -> LogSettings {
    let file = reader.text("SENTINEL_LOG_FILE", NONE).map(PathBuf::from);
    let filter = reader.text_or_default("SENTINEL_LOG");
    if let Some(given) = reader.given("SENTINEL_LOG") {
        if let Err(what) = check_filter(&given.value) {
            reader.problem("SENTINEL_LOG", what);
        }
        if file.is_some() {
            let typed = match &given.origin {
                Origin::Environment(typed) => typed.as_str(),
                Origin::Default | Origin::File(_) | Origin::Flag(_) => "SENTINEL_LOG",
            };
            let names = format!("{typed} and SENTINEL_LOG_FILE");
            reader.problems.add(names, "are both set; unset one of them");
        }
    }
    if let Some(path) = &file {
        let text = (surroundings.read_file)(path).map_err(|error| {
            format!("cannot read it: {error}; name a file that the service may read")
        });
        if let Err(what) = text.and_then(|text| check_filter(text.trim())) {
            reader.problem("SENTINEL_LOG_FILE", format!("{}: {what}", path.display()));
        }
    }
    let (word, format) =
        if surroundings.terminal { ("text", LogFormat::Text) } else { ("json", LogFormat::Json) };
    let words = [("json", LogFormat::Json), ("text", LogFormat::Text)];
    let format = reader.word("SENTINEL_LOG_FORMAT", word, &words).unwrap_or(format);
    LogSettings { filter: file.map_or(LogFilter::Fixed(filter), LogFilter::File), format }
}
