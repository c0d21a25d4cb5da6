//! Replies that come bit by bit, or late. This module holds that each piece waits for the one before, that a rest is
//! neither silent nor endless, and that what has no head yet is answered whole.

use std::time::Duration;

use super::*;

#[test]
fn a_stream_makes_its_next_piece_only_when_the_last_one_has_left() {
    let mut bench = Bench::new();
    bench.send(&[get("/stream"), get("/b")].concat());
    let (stream, _) = bench.connection.take_stream().unwrap();
    assert!(bench.connection.is_busy());
    bench.with(|c, moment, _| c.piece(Some((b"one".to_vec(), Some(stream))), moment));
    assert!(bench.connection.take_stream().is_none());
    assert_eq!(bench.deadline(), Some(30));
    bench.now += Duration::from_secs(20);
    bench.flush();
    assert_eq!(bench.deadline(), None);
    let (stream, _) = bench.connection.take_stream().unwrap();
    bench.with(|c, moment, _| c.piece(Some((b"two".to_vec(), Some(stream))), moment));
    assert_eq!(bench.deadline(), Some(50), "each piece has its own time");
    bench.flush();
    assert!(bench.connection.take_stream().is_some());
    bench.with(|c, moment, _| c.piece(Some((vec![], None)), moment));
    bench.flush();
    assert_eq!(bench.statuses(), [200, 200], "the next request is answered after the stream");
    assert!(bench.got.contains("\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\nHTTP/1.1 200"));
}

#[test]
fn a_stream_that_breaks_off_has_no_end() {
    let mut bench = Bench::new();
    bench.send(&get("/stream"));
    assert!(bench.connection.take_stream().is_some());
    bench.with(|c, moment, _| c.piece(None, moment));
    bench.flush();
    assert_eq!(bench.closing, CLOSED);
    assert!(bench.got.ends_with("\r\n\r\n"));
}

static ENDLESS: Endless =
    Endless { sign_of_life: b":", stopping: b"stopping", too_slow: b"too slow" };

/// A connection whose endless stream has said `piece` and rests, with what was sent by then forgotten.
fn resting(piece: &[u8]) -> Bench {
    let mut bench = Bench::new();
    bench.send(&get("/stream"));
    let (stream, _) = bench.connection.take_stream().unwrap();
    bench.with(|connection, moment, _| {
        connection.piece(Some((piece.to_vec(), Some(stream))), moment);
        connection.go_on(Some(&ENDLESS));
        connection.rest(None, moment);
    });
    bench
}

#[test]
fn a_stream_at_rest_says_every_fifteen_seconds_that_it_lives_and_asks_for_nothing() {
    let mut bench = resting(b"row");
    bench.flush();
    bench.got.clear();
    for s in [15, 30, 45] {
        assert_eq!(bench.deadline(), Some(s));
        bench.pass_time(14);
        assert_eq!(bench.got, "");
        bench.pass_time(1);
        assert_eq!(std::mem::take(&mut bench.got), "1\r\n:\r\n");
        assert!(bench.connection.take_stream().is_none());
    }
    bench.connection.end_rest();
    assert!(bench.connection.take_stream().is_some(), "news");
}

#[test]
fn a_stream_at_rest_ends_with_its_peer_and_with_the_service() {
    let mut gone = resting(b"row");
    gone.flush();
    gone.receive(b"GET /next");
    assert!(!gone.connection.wants_input(), "one look is enough");
    let mut gone = resting(b"row");
    gone.flush();
    gone.end();
    assert_eq!(gone.closing, CLOSED);
    let mut stopped = resting(b"row");
    stopped.draining = true;
    stopped.with(|connection, moment, _| connection.end_stream(moment));
    stopped.flush();
    assert!(stopped.got.ends_with("3\r\nrow\r\n8\r\nstopping\r\n0\r\n\r\n"), "{}", stopped.got);
    assert_eq!(stopped.closing, Closing::Half);
}

#[test]
fn a_follower_that_does_not_read_is_given_its_last_words_and_a_moment_to_read_them() {
    let mut bench = resting(b"row");
    assert_eq!(bench.deadline(), Some(30), "the piece must be taken by then");
    bench.now += Duration::from_secs(30);
    bench.with(|connection, moment, scribe| connection.expire(moment, scribe));
    assert!(bench.connection.output().ends_with(b"row\r\n8\r\ntoo slow\r\n0\r\n\r\n"));
    assert_eq!(bench.deadline(), Some(32));
    bench.now += Duration::from_secs(2);
    bench.with(|connection, moment, scribe| connection.expire(moment, scribe));
    assert_eq!(bench.with(|connection, moment, _| connection.closing(moment)), CLOSED);
}

/// A connection that has been asked for a reply that comes late, and for another behind it.
fn late() -> Bench {
    let mut bench = Bench::new();
    bench.send(&get("/late"));
    let (stream, _) = bench.connection.take_stream().unwrap();
    bench.with(|connection, moment, _| {
        connection.put_stream(stream);
        connection.rest(Some(moment.now + Duration::from_secs(20)), moment);
    });
    bench.send(&get("/next"));
    bench
}

#[test]
fn a_late_reply_is_asked_for_again_when_its_time_is_up_and_the_connection_goes_on() {
    let mut bench = late();
    bench.pass_time(19);
    assert!(bench.connection.take_stream().is_none());
    assert_eq!(bench.got, "", "not even a head");
    bench.pass_time(1);
    let (_, facts) = bench.connection.take_stream().unwrap();
    assert!(facts.keep && bench.connection.is_busy());
    bench.with(|connection, moment, scribe| {
        connection.answer(moment, |facts, out| Outcome::Replied {
            keep: scribe.frame(404, "none", facts, out),
        });
    });
    bench.flush();
    assert_eq!(bench.statuses(), [404, 200]);
}

#[test]
fn a_late_reply_that_the_service_does_not_wait_for_is_the_last_of_its_connection() {
    let mut bench = late();
    bench.draining = true;
    bench.with(|connection, moment, _| connection.end_stream(moment));
    assert!(bench.connection.take_stream().is_some());
    bench.with(|connection, moment, scribe| {
        connection.answer(moment, |facts, out| Outcome::Replied {
            keep: scribe.frame(200, "now", facts, out),
        });
    });
    bench.flush();
    assert!(bench.got.contains("Connection: close"), "{}", bench.got);
    assert_eq!((bench.statuses(), bench.closing), (vec![200], Closing::Half));
}

#[test]
fn only_what_has_no_head_yet_is_answered_whole() {
    let mut bench = Bench::new();
    bench.send(&get("/stream"));
    assert!(bench.connection.take_stream().is_some());
    bench.with(|connection, moment, scribe| {
        connection.answer(moment, |facts, out| Outcome::Replied {
            keep: scribe.frame(200, "a second head", facts, out),
        });
    });
    bench.flush();
    assert_eq!(bench.statuses(), [200]);
    assert!(bench.connection.is_busy());
}
