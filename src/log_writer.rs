//! Writes log rows in bulk. This module is the `logs-N` thread.

use crate::domain::log_row::LogRow;
use crate::mailbox::ReplyTo;

/// Log rows of one request on their way to the store.
pub struct LogPosting {
    pub rows: Vec<LogRow>,
    /// Who waits for the commit; None for a source that cannot wait.
    pub reply: Option<ReplyTo>,
}
