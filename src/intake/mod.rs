//! Makes posted events durable, many with one commit, and answers whoever asked. This module is the intake thread.

use crate::domain::event::Envelope;
use crate::mailbox::ReplyTo;

/// Envelopes of one request on their way to the store. Answered with one verdict each.
pub struct Posting {
    pub envelopes: Vec<Envelope>,
    pub reply: ReplyTo,
}
