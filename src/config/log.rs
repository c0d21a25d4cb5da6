//! The service's own log: what is written and how it looks. This module reads those settings.

use std::path::PathBuf;

use log::LevelFilter;

use super::raw::{Origin, Surroundings};
use super::reader::Reader;
use super::variables::NONE;

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

/// Whether `filter` is one that `env_logger` understands whole, instead of dropping the part that it doesn't.
///
/// # Errors
/// Says in words which part is wrong.
pub fn check_filter(filter: &str) -> Result<(), String> {
    // The part after a slash is a text that messages must contain.
    let directives = filter.split('/').next().unwrap_or_default();
    for directive in directives.split(',').map(str::trim).filter(|directive| !directive.is_empty())
    {
        if let Some((_, level)) = directive.split_once('=')
            && !level.is_empty()
            && level.trim().parse::<LevelFilter>().is_err()
        {
            return Err(format!(
                "{directive:?} names no level; the levels are off, error, warn, info, debug and trace"
            ));
        }
        if directive.contains(char::is_whitespace) {
            return Err(format!("{directive:?} holds a blank; separate directives by commas"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_would_be_understood_in_part_is_refused() {
        for good in ["", "info", "warn,sentinel::http=debug", "sentinel=off", "info/hello world"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for bad in ["sentinel=loud", "info sentinel=debug"] {
            assert!(check_filter(bad).is_err(), "{bad}");
        }
    }
}
