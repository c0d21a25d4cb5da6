//! Bodies of many connections against the room that there is for all of them, and every way in which it is given back.

use super::*;

/// A connection of another tenant that shares the room of `other`.
fn beside(other: &Bench) -> Bench {
    let mut bench = Bench::new();
    bench.scribe.bodies = Arc::clone(&other.scribe.bodies);
    bench
}

/// A connection of the same tenant.
fn of_the_same(other: &Bench) -> Bench {
    let mut bench = beside(other);
    bench.scribe.account = Arc::clone(&other.scribe.account);
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
    first.send(&half_of("/batch", 20_000));
    assert_eq!(first.scribe.bodies.taken(), 20_000, "what is announced is kept free");
    let mut second = beside(&first);
    second.send(&half_of("/batch", 10_000));
    let mut third = beside(&first);
    third.send(
        b"POST /batch HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(third.statuses(), [503], "and nothing is asked for");
    assert!(third.got.contains("Connection: close\r\n"), "{}", third.got);
    assert_eq!(third.closing, Closing::Half);
    assert_eq!(first.scribe.bodies.taken(), 30_000);
    first.send(&[b'x'; 10_000]);
    assert_eq!((first.statuses(), first.scribe.bodies.taken()), (vec![200], 10_000));
    let mut fourth = beside(&first);
    fourth.send(&half_of("/batch", 14_000));
    fourth.send(&[b'x'; 7_000]);
    second.send(&[b'x'; 5_000]);
    assert_eq!((fourth.statuses(), second.statuses()), (vec![200], vec![200]));
    assert_eq!(first.scribe.bodies.taken(), 0);
}

#[test]
fn small_bodies_have_some_room_to_themselves() {
    let mut bench = Bench::new();
    let batches = bench.scribe.bodies.take(BODIES_BYTES_MAX).unwrap();
    bench.send(&half_of("/a", 100));
    assert_eq!(bench.scribe.bodies.taken(), BODIES_BYTES_MAX + 100);
    bench.send(&[b'x'; 50]);
    let mut large = beside(&bench);
    large.send(&half_of("/batch", 16_386));
    let mut growing = beside(&bench);
    growing.send(&chunked("/batch", &[1]));
    let mut late = beside(&bench);
    let others = late.scribe.bodies.take(SMALL_BYTES_MAX).unwrap();
    late.send(&half_of("/a", 100));
    let statuses = [bench, large, growing, late].map(|bench| bench.statuses());
    assert_eq!(statuses, [[200], [503], [503], [503]], "and that has an end, too");
    drop((batches, others));
}

#[test]
fn what_is_handled_straight_out_of_the_scratch_needs_no_room() {
    let mut bench = Bench::new();
    let all = bench.scribe.bodies.take(BODIES_BYTES_MAX + SMALL_BYTES_MAX).unwrap();
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
    bench.send(b"POST /batch HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(bench.scribe.bodies.taken(), 0);
    bench.send(b"28\r\n");
    bench.send(&[b'x'; 40]);
    assert_eq!(bench.scribe.bodies.taken(), 40, "what has come, and no framing");
    let rest = bench.scribe.bodies.take(BODIES_BYTES_MAX - 120).unwrap();
    bench.send(b"\r\n14\r\n");
    bench.send(&[b'x'; 20]);
    assert_eq!(
        bench.scribe.bodies.taken(),
        BODIES_BYTES_MAX - 60,
        "as much as it has itself is left"
    );
    bench.send(b"\r\n1\r\nx");
    assert_eq!(bench.statuses(), [503]);
    drop(rest);
    assert_eq!(bench.scribe.bodies.taken(), 0, "given back with the answer");
}

#[test]
fn a_body_that_never_fits_is_too_large_however_it_comes() {
    for request in [post("/a", &"x".repeat(60)), half_of("/a", 60), chunked("/a", &[30, 30])] {
        let mut bench = Bench::new();
        bench.limits.bodies_bytes_max = 50;
        bench.send(&request);
        assert_eq!(bench.statuses(), [413], "{}", String::from_utf8_lossy(&request));
        assert_eq!(bench.scribe.bodies.taken(), 0);
    }
}

#[test]
fn whoever_is_not_known_leaves_half_of_the_room_to_others() {
    let mut first = Bench::new();
    first.send(&half_of("/stranger-batch", 15_000));
    let mut second = beside(&first);
    second.send(&half_of("/stranger-batch", 6_000));
    assert_eq!(second.statuses(), [503], "half of all is open to strangers");
    let mut growing = beside(&first);
    growing.send(b"POST /stranger-batch HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    growing.send(b"1388\r\n");
    growing.send(&[b'x'; 5_000]);
    assert_eq!(first.scribe.bodies.taken(), 20_000);
    growing.send(b"\r\n1\r\nx");
    assert_eq!(growing.statuses(), [503], "the same piece by piece");
    let mut known = beside(&first);
    known.send(&half_of("/batch", 12_000));
    known.send(&[b'x'; 6_000]);
    assert_eq!(known.statuses(), [200]);
}

#[test]
fn a_tenant_holds_no_more_than_is_left_to_others_over_all_of_its_connections() {
    let mut first = Bench::new();
    first.send(&half_of("/batch", 18_000));
    let mut second = of_the_same(&first);
    second.send(&chunked("/batch", &[2_000]));
    assert_eq!(first.scribe.bodies.taken(), BODIES_BYTES_MAX / 2);
    let mut third = of_the_same(&first);
    third.send(&half_of("/batch", 17_000));
    assert_eq!(third.statuses(), [503]);
    assert!(third.got.contains("left to others"), "{}", third.got);
    second.send(b"1\r\nx");
    assert_eq!(second.statuses(), [503], "the same piece by piece");
    // It may still send signs of life, and another tenant batches.
    let mut small = of_the_same(&first);
    small.send(&half_of("/worker", 100));
    small.send(&[b'x'; 50]);
    assert_eq!(small.scribe.dispatched.len(), 1);
    let mut other = beside(&first);
    other.send(&half_of("/batch", 10_000));
    other.send(&[b'x'; 5_000]);
    assert_eq!(other.statuses(), [200]);
    assert_eq!(first.scribe.bodies.held_back(), 2);
    first.send(&[b'x'; 9_000]);
    let mut again = of_the_same(&first);
    again.send(&half_of("/batch", 17_000));
    again.send(&[b'x'; 8_500]);
    assert_eq!(again.statuses(), [200], "what is given back is there again");
}

#[test]
fn who_hears_that_there_is_no_room_may_send_its_body_to_the_end() {
    let mut bench = Bench::new();
    bench.limits.bodies_bytes_max = 4 << 20;
    let all = bench.scribe.bodies.take(BODIES_BYTES_MAX + SMALL_BYTES_MAX).unwrap();
    let (length, sent) = (2 << 20, 100_000);
    bench.send(&post("/batch", &"x".repeat(length))[..sent]);
    assert_eq!((bench.statuses(), bench.closing), (vec![503], Closing::Half));
    bench.send(&vec![b'x'; length - sent]);
    assert!(bench.connection.wants_input(), "a reset would overtake the answer");
    bench.end();
    assert_eq!(bench.closing, CLOSED);
    drop(all);
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
