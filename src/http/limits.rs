//! What one peer may take: bytes, fields, seconds, connections. This module names every bound of the front with its
//! reason, so that nothing a peer can send or withhold is without an end.
//!
//! Bounds that an operator or a test sets live in [`Limits`]; the others are constants.

use std::time::Duration;

/// More fields than any proxy chain adds; they are kept on the stack.
pub const FIELDS_MAX: usize = 64;
/// What one read takes from a socket. The buffer belongs to the loop, so an idle connection owns none.
pub const READ_BYTES: usize = 64 << 10;
/// Reads for one connection before its neighbours get their turn.
pub const READS_PER_TURN: usize = 16;
/// Above so many unwritten bytes no further pipelined request is answered: who doesn't read is not served.
pub const OUT_BYTES_HIGH: usize = 64 << 10;
/// A larger buffer is given back to the allocator once it is empty.
pub const SPARE_BYTES_MAX: usize = 256 << 10;
/// Empty buffers that a loop keeps for the next requests that travel to a worker.
pub const SPARE_BUFFERS_MAX: usize = 64;
/// An arena that grew beyond this is made anew, so that one large reply doesn't hold its memory for ever.
pub const ARENA_BYTES_MAX: usize = 1 << 20;
/// A fresh arena: enough for a common reply.
pub const ARENA_BYTES: usize = 16 << 10;
/// The largest length that every JSON number holds exactly; beyond it a length is a trick, not a size.
pub const CONTENT_LENGTH_MAX: u64 = 1 << 53;
/// One chunk's size and extensions. Nobody sends extensions.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// The fields after a chunked body, which are read over.
pub const TRAILER_BYTES_MAX: usize = 4096;
/// What is read over after an error reply, so that a peer in mid-upload gets to see it. A body that only found no room
/// is read over whole: its sender is to hear when to come back.
pub const LINGER_BYTES_MAX: usize = 1 << 20;
/// The largest share of the room for bodies, one part in so many of it: that of a tenant, which never holds more than is
/// left free ([`crate::room`]), and that of all together who have not shown a token that holds, and get none above it.
/// Else those who announce bodies and send none could keep out everybody. No body is longer.
pub const LARGEST_SHARE_PART: usize = 2;
/// A body up to this long is small: any report, most events.
pub const SMALL_BODY_BYTES: usize = 16 << 10;
/// Beside the room for bodies there is some for small ones alone, one part in so many of it: a crowd of large batches
/// must not keep out the signs of life.
pub const SMALL_BODIES_PART: usize = 8;
/// The queue of connections that the kernel holds for us: a burst of a thousand clients is ordinary.
pub const BACKLOG: i32 = 1024;
/// Connections accepted in one turn before those that are already here get theirs.
pub const ACCEPTS_PER_TURN: usize = 256;
/// What TLS itself may have to say to a peer that takes nothing, such as answers to changes of keys.
pub const UNSENT_TLS_BYTES_MAX: usize = 256 << 10;
/// Answers handed out in one round, between two read snapshots.
pub const POSTS_PER_ROUND: usize = 1024;
/// Events taken from the kernel at once.
pub const EVENTS_PER_TURN: usize = 1024;
/// A loop looks around at least so often, whether or not anybody woke it.
pub const SLEEP_MAX: Duration = Duration::from_secs(1);
/// How soon something that had no room is tried again: an accept without descriptors, a piece without a worker.
pub const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// The bounds that are set at start.
#[derive(Debug, Clone)]
pub struct Limits {
    /// From the accept to the end of the TLS handshake: cut off after.
    pub handshake_time: Duration,
    /// Request line and fields together: 431 above.
    pub head_bytes_max: usize,
    /// From the first byte of a head to its last: 408 after.
    pub head_time: Duration,
    /// From the end of the head to the end of the body: 408 after.
    pub body_time: Duration,
    /// From a reply (or one piece of a streamed one) to its last byte written: cut off after.
    pub write_time: Duration,
    /// Between two requests: closed after.
    pub idle_time: Duration,
    /// After the last reply, for the peer to read it and close.
    pub linger_time: Duration,
    /// Silence in a stream without an end after which it says that it lives. Proxies cut what is silent for 30 s or 60 s.
    pub silence_time: Duration,
    /// From the stop signal to the end of the last connection.
    pub drain_time: Duration,
    /// All loops together: 503 above.
    pub connections_max: usize,
    /// From one address (one /64 of IPv6): 503 above.
    pub connections_per_ip_max: usize,
    /// All bodies together that are on their way in or wait for a worker, in bytes: 503 above. Small ones have
    /// [`SMALL_BODIES_PART`] more.
    pub bodies_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_time: Duration::from_secs(5),
            head_bytes_max: 16 << 10,
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            write_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(75),
            linger_time: Duration::from_secs(2),
            silence_time: Duration::from_secs(15),
            drain_time: Duration::from_secs(25),
            connections_max: 20_000,
            connections_per_ip_max: 1_000,
            bodies_bytes_max: 128 << 20,
        }
    }
}
