//! Answers that go on when they have come to the end. This module follows the log rows of a process.
//!
//! # Every row once
//!
//! What is stored is shown in the order of the process's own clock, what comes in meanwhile in the order of receipt: a
//! row may come in late and bear an early time. So a follower shows the stored rows up to the `log_id` that was the
//! newest when it began, and then the rows with a higher one. Since a row that becomes visible later has a higher
//! `log_id` ([`Reader::newest_log_id`]), the two parts touch and do not overlap. The `id` of an event names the part
//! and the place in it, so that a reader that was cut off goes on right there.
//!
//! A follower ends with the token that it was asked for with, when the door would refuse that token. The reader comes back
//! with a new one.
//!
//! A follower subscribes before it reads, takes the news before each read, and rests only when it has read
//! everything. It holds its place and no rows; what it has not read yet is in the store.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use bumpalo::Bump;

use super::problem::{Kind, Problem};
use crate::domain::ids::{ProcessId, TenantId};
use crate::http::{Endless, Onward, Pause};
use crate::live::Subscription;
use crate::store::{Cursor, LogFilter, Page, Reader, Result, StoredLog};
use crate::view;
use crate::view::json::Json;

/// Rows read for one piece.
const PIECE_ROWS: usize = 300;

/// What one follower can have unsent: a piece is made when the one before has left, and ends with the row that
/// reaches this.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// Rows that a follower may have missed and is still shown in the order of receipt. Beyond it goes by the index of its
/// process, as a newcomer does, instead of passing over the rows of everybody.
const MISSED_MAX: i64 = 50_000;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A JSON object on each line.
    Lines,
    /// Server-sent events.
    Events,
}

static LINES: Endless = Endless {
    sign_of_life: b"\n",
    stopping: b"{\"end\":\"the service is stopping\"}\n",
    too_slow: b"{\"end\":\"the reader is too slow\"}\n",
};

static EVENTS: Endless = Endless {
    sign_of_life: b":\n\n",
    stopping: b": the service is stopping\n\n",
    too_slow: b": the reader is too slow\n\n",
};

impl Form {
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Lines => "application/x-ndjson",
            Self::Events => "text/event-stream",
        }
    }

    fn endless(self) -> &'static Endless {
        match self {
            Self::Lines => &LINES,
            Self::Events => &EVENTS,
        }
    }

    /// The last words where the token of the reader is no longer good.
    fn token_expired(self) -> &'static [u8] {
        match self {
            Self::Lines => b"{\"end\":\"the token has expired\"}\n",
            Self::Events => b": the token has expired\n\n",
        }
    }

    /// The last words where a read failed.
    fn broken_off(self) -> &'static [u8] {
        match self {
            Self::Lines => b"{\"error\":\"the stream broke off: ask again with from=\"}\n",
            Self::Events => b": the stream broke off\n\n",
        }
    }
}

/// How far a follower has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Among the rows received after `above` and up to `until`, in the order of the process's clock, behind `after`.
    Stored { above: i64, until: i64, after: Option<Cursor> },
    /// Behind the row `after` in the order of receipt.
    New { after: i64 },
}

impl Place {
    /// Reads the `id` of an event. Rows up to `newest` can be shown by this instance, and none beyond `highest` can have
    /// been shown by another one.
    ///
    /// # Errors
    /// When it is none of ours.
    pub(super) fn parse(id: &str, newest: i64, highest: i64) -> std::result::Result<Self, Problem> {
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
        let parts: Vec<&str> = id.trim().split('.').collect();
        let place = match parts[..] {
            ["n", after] => number(after).map(|after| Self::New { after }),
            ["s", above, until, after] => number(above).zip(number(until)).map(|(above, until)| {
                let after = Some(Cursor(after.to_owned()));
                Self::Stored { above, until, after }
            }),
            _ => None,
        };
        let place = place.ok_or_else(|| {
            Problem::new(Kind::BadRequest, "Last-Event-ID is not an id that this stream gave")
        })?;
        Ok(match place {
            // The file of the rows was replaced by an older one: what comes now is new.
            Self::New { after } if after > highest => Self::New { after: newest },
            Self::New { after } if newest - after > MISSED_MAX => {
                Self::Stored { above: after, until: newest, after: None }
            }
            Self::Stored { above, until, after } => {
                Self::Stored { above, until: until.min(highest), after }
            }
            place @ Self::New { .. } => place,
        })
    }
}

/// Follows the log rows of a process.
pub struct LogFollow {
    pub(super) tenant: TenantId,
    pub(super) process: ProcessId,
    pub(super) filter: LogFilter,
    pub(super) form: Form,
    pub(super) place: Place,
    pub(super) news: Arc<Subscription>,
    /// Everything has been read that there was.
    pub(super) is_at_end: bool,
    /// The reader wants what there is, and nothing that comes later.
    pub(super) ends: bool,
    /// When the reader's token is no longer good.
    pub(super) until: Option<Instant>,
}

impl LogFollow {
    /// The next piece, and the stream unless it broke off.
    pub(super) fn next(mut self, reader: &mut dyn Reader) -> (Vec<u8>, Option<Self>) {
        if self.until.is_some_and(|until| until <= Instant::now()) {
            return (self.form.token_expired().to_vec(), None);
        }
        let mut out = Vec::new();
        match self.read(reader, &mut out) {
            Ok(()) if self.ends && self.is_at_end => (out, None),
            Ok(()) => (out, Some(self)),
            Err(error) => {
                // The head is sent, so the only honest end is one that says so.
                log::error!("a stream of logs broke off: {error}");
                out.extend_from_slice(self.form.broken_off());
                (out, None)
            }
        }
    }

    pub(super) fn onward(&self) -> Onward {
        let (news, until) = (&self.news, self.until);
        let pause = self.is_at_end.then(|| Pause { news: Arc::clone(news), until });
        Onward { pause, endless: Some(self.form.endless()) }
    }

    fn read(&mut self, reader: &mut dyn Reader, out: &mut Vec<u8>) -> Result<()> {
        if self.is_at_end
            && let Some(news) = self.news.take()
            && let Place::New { after } = &mut self.place
        {
            // What lies between is of other processes, and need not be passed over.
            *after = news.above.max(*after);
        }
        if let Place::Stored { above, until, after } = self.place.clone() {
            self.read_stored(reader, out, above, until, after)?;
        }
        if let Place::New { after } = self.place {
            self.read_new(reader, out, after)?;
        }
        Ok(())
    }

    fn read_stored(
        &mut self,
        reader: &mut dyn Reader,
        out: &mut Vec<u8>,
        above: i64,
        until: i64,
        after: Option<Cursor>,
    ) -> Result<()> {
        let filter =
            LogFilter { log_id_above: Some(above), log_id_max: Some(until), ..self.filter.clone() };
        let page = Page { limit: PIECE_ROWS, after };
        let found = reader.logs(&self.tenant, &self.process, &filter, &page)?;
        let mut next = None;
        if let Some(found) = found {
            next = found.next;
            for (index, row) in found.rows.iter().enumerate() {
                let cursor = reader.log_cursor(row);
                self.write(out, row, format_args!("s.{above}.{until}.{}", cursor.0));
                if out.len() >= PIECE_BYTES_MAX && index + 1 < found.rows.len() {
                    next = Some(cursor);
                    break;
                }
            }
        }
        self.place = match next {
            Some(after) => Place::Stored { above, until, after: Some(after) },
            None => Place::New { after: until },
        };
        Ok(())
    }

    fn read_new(&mut self, reader: &mut dyn Reader, out: &mut Vec<u8>, after: i64) -> Result<()> {
        let filter = LogFilter { log_id_above: Some(after), ..self.filter.clone() };
        let found = reader.new_logs(&self.tenant, &self.process, &filter, PIECE_ROWS)?;
        let (mut through, mut more) = (found.through, found.more);
        for (index, row) in found.rows.iter().enumerate() {
            self.write(out, row, format_args!("n.{}", row.log_id));
            if out.len() >= PIECE_BYTES_MAX && index + 1 < found.rows.len() {
                (through, more) = (row.log_id, true);
                break;
            }
        }
        self.place = Place::New { after: through };
        self.is_at_end = !more;
        Ok(())
    }

    fn write(&self, out: &mut Vec<u8>, row: &StoredLog, id: std::fmt::Arguments<'_>) {
        let arena = Bump::new();
        let mut json = Json::new(&arena);
        view::log_row::write(&mut json, row);
        if self.form == Form::Events {
            write!(out, "id: {id}\ndata: ").expect("a vector takes every byte");
        }
        // One line: text is escaped, and details were made compact at the door.
        out.extend_from_slice(json.finish());
        out.extend_from_slice(if self.form == Form::Events { b"\n\n" } else { b"\n" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_back_to_its_place_and_what_is_none_is_refused() {
        let place = |id| Place::parse(id, 100_000, 200_000).ok();
        assert_eq!(place("n.99000"), Some(Place::New { after: 99_000 }));
        let far = Place::Stored { above: 7, until: 100_000, after: None };
        assert_eq!(place("n.7"), Some(far), "too far to pass over the rows of everybody");
        assert_eq!(place("n.200000"), Some(Place::New { after: 200_000 }), "another was ahead");
        assert_eq!(place("n.200001"), Some(Place::New { after: 100_000 }), "the file is older");
        let after = Some(Cursor("AQ".to_owned()));
        let ahead = Place::Stored { above: 7, until: 150_000, after: after.clone() };
        assert_eq!(place("s.7.150000.AQ"), Some(ahead));
        assert_eq!(place("s.7.90.AQ"), Some(Place::Stored { above: 7, until: 90, after }));
        for bad in ["", "n", "n.", "n.-1", "n.x", "s.1.2", "s.1.x.AQ", "x.1", "n.1.2", "7"] {
            assert_eq!(place(bad), None, "{bad:?}");
        }
    }
}
