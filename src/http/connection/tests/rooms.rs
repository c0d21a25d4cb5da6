//! Bodies of many connections against the room that there is for all of them, and every way in which it is given back.

use super::*;

/// A connection that shares the room of `other`.
fn beside(other: &Bench) -> Bench {
    let mut bench = Bench::new();
    bench.scribe.bodies = Arc::clone(&other.scribe.bodies);
    bench
}

/// A request whose body has been announced, and half of it sent.
fn half_of(path: &str, bytes: usize) -> Vec<u8> {
    let mut request = post(path, &"x".repeat(bytes));
    request.truncate(request.len() - bytes / 2);
    request
}

fn chunked(path: &str, chunks: &[usize]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunks = chunks.iter().map(|bytes| format!("{bytes:x}\r\n{}\r\n", "x".repeat(*bytes)));
    (head + &chunks.collect::<String>()).into_bytes()
}

#[test]
fn a_body_that_finds_no_room_is_refused_before_it_is_read_and_the_next_one_finds_it() {
    let mut first = Bench::new();
    first.send(&half_of("/a", 100));
    assert_eq!(first.scribe.bodies.taken(), 100, "what is announced is kept free");
    let mut second = beside(&first);
    second.send(&half_of("/a", 100));
    let mut third = beside(&first);
    third
        .send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 51\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(third.statuses(), [503], "and nothing is asked for");
    assert!(third.got.contains("Connection: close\r\n"), "{}", third.got);
    assert_eq!(third.closing, Closing::Half);
    assert_eq!(first.scribe.bodies.taken(), 200);
    first.send(&[b'x'; 50]);
    assert_eq!((first.statuses(), first.scribe.bodies.taken()), (vec![200], 100));
    let mut fourth = beside(&first);
    fourth.send(&half_of("/a", 100));
    fourth.send(&[b'x'; 50]);
    second.send(&[b'x'; 50]);
    assert_eq!((fourth.statuses(), second.statuses()), (vec![200], vec![200]));
    assert_eq!(first.scribe.bodies.taken(), 0);
}

#[test]
fn what_is_handled_straight_out_of_the_scratch_needs_no_room() {
    let mut bench = Bench::new();
    let all = bench.scribe.bodies.take(BODIES_BYTES_MAX).unwrap();
    bench.send(&post("/a", &"x".repeat(100)));
    bench.send(&get("/b"));
    // A worker would have to keep it. It is all here, so the connection goes on.
    bench.send(&post("/worker", "hello"));
    bench.send(&get("/c"));
    assert_eq!(bench.statuses(), [200, 200, 503, 200]);
    assert!(bench.scribe.dispatched.is_empty());
    drop(all);
    bench.send(&post("/worker", "hello"));
    assert_eq!(bench.scribe.dispatched.len(), 1);
}

#[test]
fn a_chunked_body_takes_room_as_it_grows() {
    let mut bench = Bench::new();
    bench.send(&chunked("/a", &[]));
    assert_eq!(bench.scribe.bodies.taken(), 0);
    bench.send(b"28\r\n");
    bench.send(&[b'x'; 40]);
    assert_eq!(bench.scribe.bodies.taken(), 40, "what has come, and no framing");
    let rest = bench.scribe.bodies.take(BODIES_BYTES_MAX - 60).unwrap();
    bench.send(b"\r\n14\r\n");
    bench.send(&[b'x'; 20]);
    assert_eq!(bench.scribe.bodies.taken(), BODIES_BYTES_MAX);
    bench.send(b"\r\n1\r\nx");
    assert_eq!(bench.statuses(), [503]);
    drop(rest);
    assert_eq!(bench.scribe.bodies.taken(), 0, "given back with the answer");
}

#[test]
fn a_body_that_never_fits_is_too_large_however_it_comes() {
    for request in [post("/a", &"x".repeat(60)), half_of("/a", 60), chunked("/a", &[30, 30])] {
        let mut bench = Bench::new();
        bench.scribe.bodies = Rooms::new(50);
        bench.send(&request);
        assert_eq!(bench.statuses(), [413], "{}", String::from_utf8_lossy(&request));
        assert_eq!(bench.scribe.bodies.taken(), 0);
    }
}

#[test]
fn whoever_is_not_known_leaves_the_larger_part_to_others() {
    let mut strangers: Vec<Bench> = vec![Bench::new()];
    strangers[0].send(&half_of("/stranger", 100));
    let mut second = beside(&strangers[0]);
    second.send(&half_of("/stranger", 26));
    assert_eq!(second.statuses(), [503], "half of all is open to strangers");
    let mut growing = beside(&strangers[0]);
    growing.send(&chunked("/stranger", &[25]));
    growing.send(b"1\r\nx");
    assert_eq!(growing.statuses(), [503], "the same piece by piece");
    let mut known = beside(&strangers[0]);
    known.send(&half_of("/a", 100));
    known.send(&[b'x'; 50]);
    assert_eq!(known.statuses(), [200]);
}

#[test]
fn every_way_out_gives_the_room_back() {
    let waiting = || {
        let mut bench = Bench::new();
        bench.send(&half_of("/a", 100));
        assert_eq!(bench.scribe.bodies.taken(), 100);
        bench
    };
    let mut late = waiting();
    late.pass_time(30);
    assert_eq!((late.statuses(), late.scribe.bodies.taken()), (vec![408], 0));

    let mut ended = waiting();
    ended.end();
    assert_eq!((ended.closing, ended.scribe.bodies.taken()), (CLOSED, 0));

    let mut reset = waiting();
    reset.connection.abort();
    reset.flush();
    assert_eq!(reset.closing, CLOSED, "which is where its owner drops it");
    let Bench { connection, scribe, .. } = reset;
    drop(connection);
    assert_eq!(scribe.bodies.taken(), 0);

    let mut malformed = Bench::new();
    malformed.send(&chunked("/a", &[50]));
    malformed.send(b"x\r\n");
    assert_eq!((malformed.statuses(), malformed.scribe.bodies.taken()), (vec![400], 0));
}

#[test]
fn the_room_goes_to_the_worker_with_the_body() {
    let mut bench = Bench::new();
    bench.send(&half_of("/worker", 100));
    bench.send(&[b'x'; 50]);
    assert_eq!(bench.scribe.bodies.taken(), 100, "it waits for the worker");
    let parcel = bench.scribe.dispatched.pop().unwrap();
    assert_eq!(parcel.bytes.len() - parcel.head_bytes, 100);
    bench.connection.abort();
    bench.flush();
    assert_eq!((bench.closing, bench.scribe.bodies.taken()), (Closing::Reserved, 100));
    drop(parcel);
    assert_eq!(bench.scribe.bodies.taken(), 0);
}
