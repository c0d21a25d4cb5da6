//! One output of the command. This module passes it through unchanged, at once, and hands on its lines.
//!
//! The command must not notice the watcher: nothing here waits for the service. If whoever reads our output goes
//! away, we stop reading too, so that the command gets the same broken pipe as without us.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::lines::LineSplitter;

/// As much as a pipe of the usual size holds.
const CHUNK_BYTES: usize = 64 * 1024;
/// How often a silent pipe is asked whether the command is over.
const PAUSE: Duration = Duration::from_millis(100);
/// A line without an end becomes a row after so many pauses, so that a prompt or a dot is seen while it waits.
const PAUSES_BEFORE_A_ROW: u32 = 10;
/// What is read after the command has ended: what it wrote itself is in the pipe, which holds no more than this
/// (`/proc/sys/fs/pipe-max-size`). Whoever else still holds the pipe, a background process say, is not waited for.
const BYTES_AFTER_END_MAX: usize = 1024 * 1024;

/// Reads `source` to its end, or until `over` is set and nothing is left in the pipe.
///
/// # Errors
/// When the pipe cannot be read, which the system does not do to pipes.
pub(super) fn follow(
    mut source: File,
    sink: &File,
    over: &AtomicBool,
    line: &mut dyn FnMut(&str),
) -> io::Result<()> {
    let mut splitter = LineSplitter::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes_after_end = 0;
    let mut pauses = 0;
    let mut passing_through = true;
    while bytes_after_end < BYTES_AFTER_END_MAX {
        // Asked before the pipe is: what the command wrote before its end is seen by this poll.
        let was_over = over.load(Ordering::Acquire);
        if !is_ready(&source, PollFlags::IN, PAUSE)? {
            if was_over {
                break;
            }
            pauses += 1;
            if pauses == PAUSES_BEFORE_A_ROW {
                splitter.pause(line);
            }
            continue;
        }
        pauses = 0;
        let length = match source.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if was_over {
            bytes_after_end += length;
        }
        let bytes = &chunk[..length];
        if passing_through && let Err(error) = pass_through(bytes, sink) {
            if error.kind() == io::ErrorKind::BrokenPipe {
                break;
            }
            // A full disk, say. The rows still tell what the command printed.
            passing_through = false;
            line(&format!("sentinel run: the output cannot be passed through any more: {error}"));
        }
        splitter.push(bytes, line);
    }
    splitter.end(line);
    Ok(())
}

fn pass_through(mut bytes: &[u8], mut sink: &File) -> io::Result<()> {
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody who shares our output has made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                is_ready(sink, PollFlags::OUT, PAUSE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits up to `patience` until `file` can be read or written, or is at its end.
fn is_ready(file: &File, flags: PollFlags, patience: Duration) -> io::Result<bool> {
    let mut asked = [PollFd::from_borrowed_fd(file.as_fd(), flags)];
    let patience = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    match poll(&mut asked, Some(&patience)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeWriter, Seek, pipe};
    use std::os::fd::OwnedFd;

    use super::*;

    fn source() -> (File, PipeWriter) {
        let (reader, writer) = pipe().unwrap();
        (File::from(OwnedFd::from(reader)), writer)
    }

    fn follow_all(source: File, sink: &File, over: bool) -> Vec<String> {
        let mut lines = Vec::new();
        follow(source, sink, &AtomicBool::new(over), &mut |line| lines.push(line.to_string()))
            .unwrap();
        lines
    }

    #[test]
    fn bytes_pass_through_unchanged_and_become_lines() {
        let (source, mut writer) = source();
        let bytes = b"one\r\n\x00\xff two\n\n no end";
        writer.write_all(bytes).unwrap();
        drop(writer);
        let mut sink = tempfile::tempfile().unwrap();
        let lines = follow_all(source, &sink, false);
        assert_eq!(lines, ["one", "\u{fffd}\u{fffd} two", " no end"]);
        let mut passed = Vec::new();
        sink.rewind().unwrap();
        sink.read_to_end(&mut passed).unwrap();
        assert_eq!(passed, bytes);
    }

    #[test]
    fn a_background_process_that_holds_the_pipe_is_not_waited_for() {
        let (source, mut writer) = source();
        writer.write_all(b"the last words\n").unwrap();
        let sink = tempfile::tempfile().unwrap();
        assert_eq!(follow_all(source, &sink, true), ["the last words"]);
        drop(writer);
    }

    #[test]
    fn a_reader_that_goes_away_breaks_the_pipe_of_the_command_too() {
        let (source, mut writer) = source();
        let (far_end, sink) = pipe().unwrap();
        drop(far_end);
        writer.write_all(b"nobody reads this\n").unwrap();
        follow_all(source, &File::from(OwnedFd::from(sink)), false);
        assert_eq!(writer.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
