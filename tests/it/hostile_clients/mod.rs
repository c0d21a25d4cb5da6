//! Clients that mean no good. This module attacks a running front, and a running service, with raw sockets on loopback:
//! every attack that is known to have worked against some server stands here by name, with the answer that it gets.
//!
//! Each file holds one kind of client. All attacks are bounded in count and in time, and none needs a token but those
//! that say so.

// A crowd: caps, descriptors, ten thousand who say nothing.
mod crowds;
// How a connection ends: half-closed, reset, in the middle of anything.
mod endings;
// What is no request, or two requests at once.
mod malformed;
// Who sends without end, and memory.
mod memory;
// Who sends slowly, or never reads.
mod slow;
