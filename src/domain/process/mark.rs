//! One event of a process, reduced to what its state can ever need. This module reads it out of an accepted event.
//!
//! The doors have checked what came by HTTP. What came by the database's queue has passed no door, so this reading
//! forgives what it can (a number where a text is expected, a percentage out of range) and refuses the rest as a dead
//! letter. Only the members that a kind of event knows are looked at: any other may hold anything.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::time::Duration;

use super::Outcome;
use super::key::{Key, Rank};
use super::text::Text;
use crate::domain::dead_letter::Reason;
use crate::domain::event::Accepted;
use crate::domain::ids::{EventId, Source};
use crate::domain::time::Timestamp;

/// The types of the events that drive a process begin with this.
pub const TYPE_PREFIX: &str = "process.";

/// The longest step, in characters: the width of its column in every store.
pub const STEP_CHARS_MAX: usize = 200;
/// The longest process name, in characters: the width of its column.
pub const NAME_CHARS_MAX: usize = 200;
/// The longest process type, in characters: the width of its column.
pub const KIND_CHARS_MAX: usize = 50;
/// The longest package or procedure name, in characters: an Oracle identifier.
pub const IDENTIFIER_CHARS_MAX: usize = 128;
/// The longest correlation id or error code, in characters: the width of their columns.
pub const CODE_CHARS_MAX: usize = 100;
/// The longest error message a state keeps, in characters: 4,000 bytes hold it in any script. The event keeps it whole.
pub const ERROR_CHARS_MAX: usize = 1000;
/// The most members of metadata taken from one event, and kept of one run: a state must stay small.
pub const METADATA_MEMBERS_MAX: usize = 64;
/// The longest name of a member of metadata, in characters.
pub const MEMBER_NAME_CHARS_MAX: usize = 200;
/// The longest value of a member, in bytes of JSON. A longer one stays in its event and out of the state.
pub const MEMBER_VALUE_BYTES_MAX: usize = 2048;
/// No duration that a process declares is longer than ten years: sums of it and a date must stay dates.
pub const DECLARED_MAX: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Members of metadata: names and values, the values as JSON text.
pub type Metadata = Vec<(Text, Text)>;

/// What a process says about itself when it is registered or started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Attributes {
    pub process_name: Option<Text>,
    pub process_type: Option<Text>,
    pub package_name: Option<Text>,
    pub procedure_name: Option<Text>,
    pub correlation_id: Option<Text>,
    pub expected_duration: Option<Duration>,
    pub heartbeat_interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub metadata: Metadata,
}

/// How a run ended, by its own word.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// Completed or failed, never superseded.
    pub outcome: Outcome,
    pub error_code: Option<Text>,
    pub error_message: Option<Text>,
}

/// Why a judge found a process lost, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Judgement {
    pub last_life_at: Option<Timestamp>,
    /// None beside a watermark: no deadline had passed, but the session of the database that started it was gone.
    pub deadline_at: Option<Timestamp>,
    pub watermark: Option<Timestamp>,
    pub instance: Option<Text>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    Registered(Box<Attributes>),
    Started(Box<Attributes>),
    Progress { step: Option<Text>, percent: Option<f64>, metadata: Metadata },
    Heartbeat,
    Paused,
    Resumed,
    Ended(Ending),
    Expired(Judgement),
}

/// One event of a process.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Where it stands. That of an expiry is the judged sign of life's, with `echo`.
    pub key: Key,
    /// The run it says it belongs to. That of a start is its own id, whatever it says.
    pub tag: Option<EventId>,
    pub received_at: Timestamp,
    pub what: What,
}

/// Whether a type is one that drives a process, if it is known at all.
pub fn is_process_type(event_type: &str) -> bool {
    event_type.starts_with(TYPE_PREFIX)
}

/// What `event` means for its process. None: it is a domain event, which drives none.
///
/// # Errors
/// The reason and the detail of the dead letter that it has to become.
pub fn read(event: &Accepted) -> Result<Option<Mark>, (Reason, String)> {
    let Some(kind) = event.envelope.event_type.as_str().strip_prefix(TYPE_PREFIX) else {
        return Ok(None);
    };
    let rank = match kind {
        "started" => Rank::Start,
        "registered" | "paused" | "resumed" | "progress" | "heartbeat" | "expired" => Rank::Report,
        "completed" | "failed" => Rank::End,
        _ => {
            let detail = format!("no event has the type {:?}", event.envelope.event_type);
            return Err((Reason::UnknownType, detail));
        }
    };
    read_kind(event, kind, rank).map(Some).map_err(|problem| (Reason::InvalidPayload, problem))
}

fn read_kind(event: &Accepted, kind: &str, rank: Rank) -> Result<Mark, String> {
    let payload = Payload::parse(&event.envelope.payload)?;
    let mut key = Key::of(event, rank);
    let mut tag = match text("run_id", payload.run_id, EventId::CHARS_MAX + 1)? {
        Some(id) => Some(EventId::parse(id.as_str()).map_err(|e| format!("run_id: {e}"))?),
        None => None,
    };
    let what = match kind {
        "started" => {
            tag = Some(event.envelope.event_id.clone());
            What::Started(Box::new(payload.attributes()?))
        }
        "registered" => What::Registered(Box::new(payload.attributes()?)),
        "progress" => What::Progress {
            step: text("current_step", payload.current_step, STEP_CHARS_MAX)?,
            percent: percent(payload.progress_percent)?,
            metadata: metadata(payload.metadata)?,
        },
        "paused" => What::Paused,
        "resumed" => What::Resumed,
        "completed" => What::Ended(Ending {
            outcome: Outcome::Completed,
            error_code: None,
            error_message: None,
        }),
        "failed" => What::Ended(Ending {
            outcome: Outcome::Failed,
            error_code: text("error_code", payload.error_code, CODE_CHARS_MAX)?,
            error_message: text("error_message", payload.error_message, ERROR_CHARS_MAX)?,
        }),
        "expired" => {
            key = judged(payload.judged)?;
            What::Expired(payload.judgement()?)
        }
        // The caller let only known kinds through, and this is the one that is left.
        _ => What::Heartbeat,
    };
    Ok(Mark { key, tag, received_at: event.received_at, what })
}

/// A payload whose members are still JSON text.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload<'a> {
    #[serde(borrow)]
    run_id: Option<&'a RawValue>,
    #[serde(borrow)]
    process_name: Option<&'a RawValue>,
    #[serde(borrow)]
    process_type: Option<&'a RawValue>,
    #[serde(borrow)]
    package_name: Option<&'a RawValue>,
    #[serde(borrow)]
    procedure_name: Option<&'a RawValue>,
    #[serde(borrow)]
    correlation_id: Option<&'a RawValue>,
    #[serde(borrow)]
    expected_duration_s: Option<&'a RawValue>,
    #[serde(borrow)]
    heartbeat_interval_s: Option<&'a RawValue>,
    #[serde(borrow)]
    timeout_s: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    current_step: Option<&'a RawValue>,
    #[serde(borrow)]
    progress_percent: Option<&'a RawValue>,
    #[serde(borrow)]
    error_code: Option<&'a RawValue>,
    #[serde(borrow)]
    error_message: Option<&'a RawValue>,
    #[serde(borrow)]
    judged: Option<&'a RawValue>,
    #[serde(borrow)]
    last_life_at: Option<&'a RawValue>,
    #[serde(borrow)]
    deadline_at: Option<&'a RawValue>,
    #[serde(borrow)]
    watermark: Option<&'a RawValue>,
    #[serde(borrow)]
    instance: Option<&'a RawValue>,
}

impl<'a> Payload<'a> {
    /// Nothing at all and `null` are an object without members: a bare ping.
    fn parse(json: &'a str) -> Result<Self, String> {
        let json = json.trim_ascii();
        if json.is_empty() || json == "null" {
            return Ok(Self::default());
        }
        // A struct can also be read from an array, member by member; nobody means that.
        if !json.starts_with('{') {
            return Err("the payload is not an object".to_string());
        }
        serde_json::from_str(json).map_err(|error| format!("the payload does not parse: {error}"))
    }

    fn attributes(&self) -> Result<Attributes, String> {
        Ok(Attributes {
            process_name: text("process_name", self.process_name, NAME_CHARS_MAX)?,
            process_type: text("process_type", self.process_type, KIND_CHARS_MAX)?,
            package_name: text("package_name", self.package_name, IDENTIFIER_CHARS_MAX)?,
            procedure_name: text("procedure_name", self.procedure_name, IDENTIFIER_CHARS_MAX)?,
            correlation_id: text("correlation_id", self.correlation_id, CODE_CHARS_MAX)?,
            expected_duration: seconds("expected_duration_s", self.expected_duration_s)?,
            heartbeat_interval: seconds("heartbeat_interval_s", self.heartbeat_interval_s)?,
            timeout: seconds("timeout_s", self.timeout_s)?,
            metadata: metadata(self.metadata)?,
        })
    }

    fn judgement(&self) -> Result<Judgement, String> {
        Ok(Judgement {
            last_life_at: moment("last_life_at", self.last_life_at)?,
            deadline_at: moment("deadline_at", self.deadline_at)?,
            watermark: moment("watermark", self.watermark)?,
            instance: text("instance", self.instance, NAME_CHARS_MAX)?,
        })
    }
}

/// A text, or a number or a truth value as it is written: `SQLCODE` is a number, and people want to read it.
fn text(name: &str, value: Option<&RawValue>, chars_max: usize) -> Result<Option<Text>, String> {
    let Some(json) = value.map(RawValue::get) else { return Ok(None) };
    match json.as_bytes() {
        [b'"', inside @ .., b'"'] if !inside.contains(&b'\\') => {
            Ok(Text::cut(&json[1..json.len() - 1], chars_max))
        }
        [b'"', ..] => match serde_json::from_str::<String>(json) {
            Ok(unescaped) => Ok(Text::cut(&unescaped, chars_max)),
            Err(error) => Err(format!("{name} does not parse: {error}")),
        },
        [b'{' | b'[', ..] => Err(format!("{name} is not a text")),
        _ => Ok(Text::cut(json, chars_max)),
    }
}

/// A number, also one that is written as a text.
fn number(name: &str, value: Option<&RawValue>) -> Result<Option<f64>, String> {
    let Some(digits) = text(name, value, NAME_CHARS_MAX)? else { return Ok(None) };
    match digits.as_str().trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Some(number)),
        _ => Err(format!("{name} is not a number")),
    }
}

/// Between 0 and 100, with two decimals.
fn percent(value: Option<&RawValue>) -> Result<Option<f64>, String> {
    let number = number("progress_percent", value)?;
    // Adding zero turns a negative zero into a plain one.
    Ok(number.map(|number| (number.clamp(0.0, 100.0) * 100.0).round() / 100.0 + 0.0))
}

/// A span of time. Zero says nothing.
fn seconds(name: &str, value: Option<&RawValue>) -> Result<Option<Duration>, String> {
    match number(name, value)? {
        None => Ok(None),
        Some(number) if number < 0.0 => Err(format!("{name} is negative")),
        Some(number) => {
            let span = Duration::from_secs_f64(number.min(DECLARED_MAX.as_secs_f64()));
            Ok((!span.is_zero()).then_some(span))
        }
    }
}

fn moment(name: &str, value: Option<&RawValue>) -> Result<Option<Timestamp>, String> {
    match text(name, value, NAME_CHARS_MAX)? {
        None => Ok(None),
        Some(text) => match Timestamp::parse(text.as_str()) {
            Some(moment) => Ok(Some(moment)),
            None => Err(format!("{name} is not a date and time")),
        },
    }
}

/// The members of an object, in the order in which they stand.
fn metadata(value: Option<&RawValue>) -> Result<Metadata, String> {
    struct Members(Metadata);

    impl<'de> Deserialize<'de> for Members {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Members;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }

                fn visit_map<A: serde::de::MapAccess<'de>>(
                    self,
                    mut map: A,
                ) -> Result<Members, A::Error> {
                    let mut members = Metadata::new();
                    while let Some((name, value)) =
                        map.next_entry::<std::borrow::Cow<'de, str>, &'de RawValue>()?
                    {
                        let Some(name) = Text::cut(&name, MEMBER_NAME_CHARS_MAX) else { continue };
                        if value.get().len() > MEMBER_VALUE_BYTES_MAX {
                            continue;
                        }
                        let Some(value) = Text::cut(value.get(), MEMBER_VALUE_BYTES_MAX) else {
                            continue;
                        };
                        match members.iter().position(|(known, _)| *known == name) {
                            Some(place) => members[place].1 = value,
                            None if members.len() < METADATA_MEMBERS_MAX => {
                                members.push((name, value));
                            }
                            None => {}
                        }
                    }
                    Ok(Members(members))
                }
            }
            deserializer.deserialize_map(Visitor)
        }
    }

    let Some(json) = value.map(RawValue::get) else { return Ok(Metadata::new()) };
    serde_json::from_str::<Members>(json)
        .map(|members| members.0)
        .map_err(|_| "metadata is not an object".to_string())
}

/// The key of the judged sign of life, with the echo.
fn judged(value: Option<&RawValue>) -> Result<Key, String> {
    #[derive(Deserialize)]
    struct Judged {
        at_us: i64,
        rank: u8,
        source: Source,
        event_id: EventId,
    }
    let json = value.map(RawValue::get).ok_or("an expiry does not say what it judged")?;
    let judged: Judged = serde_json::from_str(json).map_err(|error| format!("judged: {error}"))?;
    Ok(Key {
        at: Timestamp::from_micros(judged.at_us),
        rank: Rank::from_number(judged.rank).ok_or("judged: unknown rank")?,
        source: judged.source,
        event_id: judged.event_id,
        echo: true,
    })
}
