//! The service's own log: one line for each record, as JSON for machines or as text for people at a terminal.
//! This module prints foreign text escaped, so that no message can forge a line or drive a terminal, and lets the
//! filter be changed while the service runs.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use env_logger::Logger;
use log::kv::{self, VisitSource};
use log::{Log, Metadata, Record};
use parking_lot::RwLock;

use crate::config::{LogFilter, LogFormat, LogSettings, check_filter};
use crate::domain::time::Timestamp;

/// A longer message is cut: a line must stay something that a collector takes.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// The fields that every line has; a key-value pair of the same name is left out.
const FIELDS: [&str; 5] = ["ts", "level", "target", "thread", "msg"];

/// Changes the filter of a log that is running.
#[derive(Clone)]
pub struct Handle {
    current: Arc<RwLock<Logger>>,
    file: Option<PathBuf>,
    format: LogFormat,
}

/// The logger that the whole process writes to. What is inside may be exchanged.
///
/// Reads are recursive, because a record may be written while another one is being printed.
struct Exchangeable(Arc<RwLock<Logger>>);

impl Log for Exchangeable {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.read_recursive().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.0.read_recursive().log(record);
    }

    fn flush(&self) {
        self.0.read_recursive().flush();
    }
}

/// Starts the log of this process.
///
/// # Errors
/// When the file with the filter cannot be read or holds no filter, or when the process has a log already.
pub fn init(settings: &LogSettings) -> anyhow::Result<Handle> {
    let (filter, file) = match &settings.filter {
        LogFilter::Fixed(filter) => (filter.clone(), None),
        LogFilter::File(path) => (read_filter(path)?, Some(path.clone())),
    };
    let logger = logger(&filter, settings.format);
    let level = logger.filter();
    let current = Arc::new(RwLock::new(logger));
    log::set_boxed_logger(Box::new(Exchangeable(Arc::clone(&current))))?;
    log::set_max_level(level);
    std::panic::set_hook(Box::new(note_panic));
    Ok(Handle { current, file, format: settings.format })
}

/// Makes a panic a line of this log like any other: where it happened, and its words where they stand in the source.
/// Words that are put together while the service runs may quote a payload, and are left out.
fn note_panic(panic: &PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let words = panic.payload().downcast_ref::<&'static str>().copied();
    let words = words.unwrap_or("(its words are left out, since they may quote a payload)");
    log::error!(at = at.as_str(); "a thread panicked: {words}");
    // Only where RUST_BACKTRACE asks for it.
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        log::error!("the panic came from: {trace}");
    }
}

impl Handle {
    /// Reads the file with the filter again, if there is one. A file that holds no filter changes nothing.
    pub fn reload(&self) {
        let Some(path) = &self.file else { return };
        match read_filter(path) {
            Ok(filter) => {
                let logger = logger(&filter, self.format);
                let level = logger.filter();
                *self.current.write() = logger;
                log::set_max_level(level);
                log::info!("the log filter is now {filter:?}");
            }
            Err(error) => log::warn!("the log filter stays as it is: {error:#}"),
        }
    }
}

fn read_filter(path: &PathBuf) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| anyhow::anyhow!("cannot read {}: {error}", path.display()))?;
    let filter = text.trim().to_string();
    check_filter(&filter).map_err(|what| anyhow::anyhow!("{}: {what}", path.display()))?;
    Ok(if filter.is_empty() { "info".to_string() } else { filter })
}

fn logger(filter: &str, format: LogFormat) -> Logger {
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(filter);
    builder.format(move |out, record| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
        let thread = std::thread::current();
        out.write_all(line(format, record, thread.name().unwrap_or("-"), now).as_bytes())
    });
    builder.build()
}

/// A record as a whole line, with its line break.
pub fn line(format: LogFormat, record: &Record<'_>, thread: &str, now: Timestamp) -> String {
    let mut message = String::new();
    // A cut message is still a message.
    let _ = write!(Bounded(&mut message), "{}", record.args());
    let mut out = String::with_capacity(message.len() + 128);
    match format {
        LogFormat::Json => {
            let _ = write!(out, r#"{{"ts":"{now}","level":"{}","target":"#, record.level());
            json_string(&mut out, record.target());
            out.push_str(r#","thread":"#);
            json_string(&mut out, thread);
            out.push_str(r#","msg":"#);
            json_string(&mut out, &message);
        }
        LogFormat::Text => {
            let _ = write!(out, "{now} {:5} {thread} {}: ", record.level(), record.target());
            plain(&mut out, &message);
        }
    }
    let mut pairs = Pairs { out: &mut out, format };
    // Only a pair that refuses to be written ends this early, and then the rest of the line still holds.
    let _ = record.key_values().visit(&mut pairs);
    out.push_str(match format {
        LogFormat::Json => "}\n",
        LogFormat::Text => "\n",
    });
    out
}

/// Takes text up to [`MESSAGE_BYTES_MAX`] and then no more.
struct Bounded<'a>(&'a mut String);

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MESSAGE_BYTES_MAX.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let cut = (0..=room).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0);
        self.0.push_str(&text[..cut]);
        self.0.push('…');
        Err(fmt::Error)
    }
}

/// Writes the key-value pairs of a record behind its message.
struct Pairs<'a> {
    out: &'a mut String,
    format: LogFormat,
}

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        if FIELDS.contains(&key.as_str()) {
            return Ok(());
        }
        let mut text = String::new();
        let _ = write!(Bounded(&mut text), "{value}");
        match self.format {
            LogFormat::Json => {
                self.out.push(',');
                json_string(self.out, key.as_str());
                self.out.push(':');
                let number = value.to_u64().is_some() || value.to_i64().is_some();
                let plain_number = number && text.parse::<i128>().is_ok();
                if plain_number || value.to_bool().is_some() {
                    self.out.push_str(&text);
                } else {
                    json_string(self.out, &text);
                }
            }
            LogFormat::Text => {
                self.out.push(' ');
                plain(self.out, key.as_str());
                self.out.push('=');
                plain(self.out, &text);
            }
        }
        Ok(())
    }
}

/// Writes `text` as a JSON string. Control characters beyond ASCII are escaped as well: terminals obey them too.
fn json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Writes `text` so that a terminal shows it and obeys nothing in it.
pub fn plain(out: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use log::Level;

    use log::LevelFilter;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_769_596_200_250_000);

    fn print(format: LogFormat, message: &str, pairs: &[(&str, kv::Value<'_>)]) -> String {
        line(
            format,
            &Record::builder()
                .level(Level::Warn)
                .target("sentinel::intake")
                .args(format_args!("{message}"))
                .key_values(&pairs)
                .build(),
            "intake",
            NOW,
        )
    }

    #[test]
    fn a_line_is_one_json_object_with_what_is_known() {
        let pairs = [
            ("tenantId", kv::Value::from("contoso")),
            ("rows", kv::Value::from(3u64)),
            ("late", kv::Value::from(true)),
            ("msg", kv::Value::from("a forgery")),
        ];
        assert_eq!(
            print(LogFormat::Json, "a batch is late", &pairs),
            concat!(
                r#"{"ts":"2026-01-28T10:30:00.25Z","level":"WARN","target":"sentinel::intake","thread":"intake","#,
                r#""msg":"a batch is late","tenantId":"contoso","rows":3,"late":true}"#,
                "\n"
            )
        );
    }

    #[test]
    fn foreign_text_can_neither_forge_a_line_nor_drive_a_terminal() {
        let evil = "x\u{1b}[2J\n{\"level\":\"INFO\"}\r\u{9b}31m\u{7f}\0\"\\";
        let printed = print(LogFormat::Json, evil, &[("processId", kv::Value::from(evil))]);
        assert_eq!(printed.chars().filter(|c| c.is_control()).collect::<String>(), "\n");
        let parsed: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(parsed["msg"], evil);
        assert_eq!(parsed["processId"], evil);
        let printed = print(LogFormat::Text, evil, &[("processId", kv::Value::from(evil))]);
        assert_eq!(printed.chars().filter(|c| c.is_control()).collect::<String>(), "\n");
    }

    #[test]
    fn text_is_for_people() {
        assert_eq!(
            print(LogFormat::Text, "a batch is late", &[("tenantId", kv::Value::from("contoso"))]),
            "2026-01-28T10:30:00.25Z WARN  intake sentinel::intake: a batch is late tenantId=contoso\n"
        );
    }

    #[test]
    fn an_endless_message_is_cut() {
        let printed = print(LogFormat::Json, &"ä".repeat(MESSAGE_BYTES_MAX), &[]);
        assert!(printed.len() < MESSAGE_BYTES_MAX + 256);
        assert!(printed.contains('…'));
    }

    #[test]
    fn the_filter_file_is_read_again_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("filter");
        std::fs::write(&path, "warn\n").unwrap();
        let handle = Handle {
            current: Arc::new(RwLock::new(logger("warn", LogFormat::Json))),
            file: Some(path.clone()),
            format: LogFormat::Json,
        };
        std::fs::write(&path, "sentinel=trace").unwrap();
        handle.reload();
        assert_eq!(handle.current.read().filter(), LevelFilter::Trace);
        std::fs::write(&path, "sentinel=loud").unwrap();
        handle.reload();
        assert_eq!(handle.current.read().filter(), LevelFilter::Trace);
        std::fs::remove_file(&path).unwrap();
        handle.reload();
        assert_eq!(handle.current.read().filter(), LevelFilter::Trace);
    }
}
