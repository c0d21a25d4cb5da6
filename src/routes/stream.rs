//! Bodies that come in pieces. This module is what is remembered between two pieces, and pages through stored logs.
//!
//! No worker waits for the peer: each piece is one page, made when the peer has read the one before.

use bumpalo::Bump;

use super::follow::LogFollow;
use crate::domain::ids::{ProcessId, TenantId};
use crate::http::Onward;
use crate::store::{LogFilter, Page, Paged, Reader, StoredLog};
use crate::view;
use crate::view::json::Json;

/// Rows in one piece: some 60 KB of text.
const PIECE_ROWS: usize = 300;

/// Where a streamed body stands.
pub enum Streamed {
    /// All log rows of a process, to the last one.
    Logs(LogStream),
    /// The log rows of a process, without an end.
    Follow(LogFollow),
}

impl Streamed {
    /// The next piece, and the stream if there is more.
    pub(super) fn next(self, reader: &mut dyn Reader) -> (Vec<u8>, Option<Self>) {
        match self {
            Self::Logs(stream) => {
                let (piece, more) = stream.next(reader);
                (piece, more.map(Self::Logs))
            }
            Self::Follow(stream) => {
                let (piece, more) = stream.next(reader);
                (piece, more.map(Self::Follow))
            }
        }
    }

    pub(super) fn onward(&self) -> Onward {
        match self {
            Self::Logs(_) => Onward::default(),
            Self::Follow(stream) => stream.onward(),
        }
    }
}

/// Where a stream of stored log rows stands.
pub struct LogStream {
    tenant: TenantId,
    process: ProcessId,
    filter: LogFilter,
    /// The next page to write: read ahead, so that its existence is known.
    ready: Paged<StoredLog>,
}

impl LogStream {
    pub(super) fn new(
        tenant: TenantId,
        process: ProcessId,
        filter: LogFilter,
        first: Paged<StoredLog>,
    ) -> Self {
        Self { tenant, process, filter, ready: first }
    }

    /// The next piece, and the stream if there is more.
    pub(super) fn next(mut self, reader: &mut dyn Reader) -> (Vec<u8>, Option<Self>) {
        let arena = Bump::new();
        let mut json = Json::new(&arena);
        for row in &self.ready.rows {
            view::log_row::write(&mut json, row);
            json.line();
        }
        let after = self.ready.next.take();
        let more = after.is_some();
        if more {
            let page = Page { limit: PIECE_ROWS, after };
            match reader.logs(&self.tenant, &self.process, &self.filter, &page) {
                Ok(Some(next)) => self.ready = next,
                Ok(None) => return (json.finish().to_vec(), None),
                Err(error) => {
                    // The head is sent; the only honest end is a line that says so.
                    log::error!("a stream of logs broke off: {error}");
                    json.object(|json| {
                        json.member("error").text("the stream broke off: ask again with from=")
                    });
                    json.line();
                    return (json.finish().to_vec(), None);
                }
            }
        }
        (json.finish().to_vec(), more.then_some(self))
    }
}
