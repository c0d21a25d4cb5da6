//! Handshakes that come to nothing, and many at once. This module breaks them off at any byte, lets them take their
//! time, and begins hundreds; whoever is served already goes on being served.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sentinel::http::handshakes::Fault;

use super::{Authority, House, Tls, World, flight, reset, rest, session, socket};
use crate::harness::{PATIENCE, eventually};

#[test]
fn a_dripping_handshake_is_cut_off_and_holds_nobody_up() {
    let world = World::start("optional");
    let mut dripping = TcpStream::connect(world.api()).unwrap();
    let silent = TcpStream::connect(world.api()).unwrap();
    let begun = Instant::now();
    world.connect(None).get("/health", "").expect(200);
    dripping.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    dripping.write_all(&[22, 3, 1, 1, 0, 1]).unwrap();
    let cut = loop {
        // One more byte of a long hello each time nothing comes.
        let gone = dripping.write_all(&[0]).is_err();
        match dripping.read(&mut [0; 64]) {
            Err(error) if !gone && error.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(begun.elapsed() < PATIENCE, "it is still there");
            }
            _ => break begun.elapsed(),
        }
    };
    assert!((Duration::from_secs(4)..Duration::from_secs(30)).contains(&cut), "{cut:?}");
    assert_eq!(rest(silent).unwrap_or_default(), b"");
    world.connect(None).get("/health", "").expect(200);
    world.service.stop();
}

/// Reads until the session has a flight to send that is more than nothing.
fn answer(session: &mut rustls::ClientConnection, socket: &mut TcpStream) -> Vec<u8> {
    while session.is_handshaking() {
        assert!(session.read_tls(socket).unwrap() > 0, "the service has hung up");
        session.process_new_packets().unwrap();
    }
    flight(session)
}

/// Where to break something of this length off: in its record's head, in the middle, before and after its end.
fn places(length: usize) -> [usize; 7] {
    [1, 4, 5, 6, length / 2, length - 1, length]
}

#[test]
fn a_handshake_that_is_reset_or_ended_at_any_place_costs_nobody_anything() {
    let house = House::start("optional");
    let mut guest = house.guest();
    let ends: [fn(TcpStream); 2] = [reset, drop::<TcpStream>];
    for end in ends {
        // Before a word, in the hello, and in the last flight, which proves the certificate.
        end(socket(house.api()));
        let whole = flight(&mut session(&house.around.authority, Some(&house.pair))).len();
        for at in places(whole) {
            let mut socket = socket(house.api());
            let mut session = session(&house.around.authority, Some(&house.pair));
            socket.write_all(&flight(&mut session)[..at]).unwrap();
            end(socket);
            guest.get("/health", "").expect(200);
        }
        for place in 0..7 {
            let mut socket = socket(house.api());
            let mut session = session(&house.around.authority, Some(&house.pair));
            socket.write_all(&flight(&mut session)).unwrap();
            let last = answer(&mut session, &mut socket);
            socket.write_all(&last[..places(last.len())[place]]).unwrap();
            end(socket);
            guest.get("/health", "").expect(200);
        }
    }
    house.is_well(&mut guest);
    house.stop();
}

#[test]
fn a_handshake_byte_by_byte_comes_about() {
    let house = House::start("optional");
    let mut guest = house.guest();
    let mut socket = socket(house.api());
    let mut session = session(&house.around.authority, Some(&house.pair));
    for byte in flight(&mut session) {
        socket.write_all(&[byte]).unwrap();
    }
    for byte in answer(&mut session, &mut socket) {
        socket.write_all(&[byte]).unwrap();
    }
    let mut slow = Tls::over(session, socket);
    slow.get("/processes", &house.token).expect(200);
    // And a request whose record comes byte by byte.
    for byte in slow.sealed(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") {
        slow.socket().write_all(&[byte]).unwrap();
    }
    slow.read().expect(200);
    drop(slow);
    house.is_well(&mut guest);
    house.stop();
}

#[test]
fn a_handshake_that_is_never_finished_is_cut_off_at_its_deadline() {
    let house = House::start("optional");
    let mut guest = house.guest();
    let _ = house.service.said();
    let begun = Instant::now();
    // One says nothing, one half a hello, one reads the answer and never proves itself.
    let silent = socket(house.api());
    let mut half = socket(house.api());
    let hello = flight(&mut session(&house.around.authority, None));
    half.write_all(&hello[..hello.len() / 2]).unwrap();
    let mut mute = socket(house.api());
    mute.write_all(&hello).unwrap();
    eventually("all three are in", || (house.others(&mut guest) == 3).then_some(()));
    for (name, socket) in [("silent", silent), ("half", half), ("mute", mute)] {
        let answered = rest(socket).unwrap_or_default();
        assert_eq!(answered.is_empty(), name != "mute", "{name}: {answered:?}");
        // The deadline is 5 s, and absolute.
        let took = begun.elapsed();
        assert!(
            (Duration::from_secs(4)..Duration::from_secs(30)).contains(&took),
            "{name}: {took:?}"
        );
    }
    assert!(house.service.says("came to nothing")["msg"].as_str().unwrap().contains("too long"));
    house.is_well(&mut guest);
    house.stop();
}

#[test]
fn who_speaks_no_tls_gets_no_word_of_http() {
    let house = House::start("optional");
    let mut guest = house.guest();
    let hello = flight(&mut session(&house.around.authority, None));
    let cases: [(&str, Vec<u8>); 6] = [
        ("HTTP", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("data before a handshake", [&[23, 3, 3, 0, 16][..], &[7; 16]].concat()),
        ("an alert", vec![21, 3, 3, 0, 2, 2, 40]),
        ("a record that is too long", [&[22, 3, 1, 0xff, 0xff][..], &[1; 4096]].concat()),
        ("a hello with a byte turned", {
            let mut turned = hello.clone();
            // The length of the message: it no longer ends with its record.
            turned[8] ^= 1;
            turned
        }),
    ];
    for (name, bytes) in cases {
        let mut socket = socket(house.api());
        socket.write_all(&bytes).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = rest(socket).unwrap_or_default();
        assert!(answer.first().is_none_or(|kind| *kind == 21), "{name}: {answer:?}");
        assert!(!answer.windows(4).any(|window| window == b"HTTP"), "{name}: {answer:?}");
        guest.get("/health", "").expect(200);
    }
    house.is_well(&mut guest);
    house.stop();
}

#[test]
fn two_hundred_handshakes_at_once_hold_nobody_up() {
    const NEWCOMERS: usize = 200;
    let house = House::start("optional");
    let mut guest = house.guest();
    let over = AtomicBool::new(false);
    let (house, over) = (&house, &over);
    let served = std::thread::scope(|scope| {
        let mut served = house.guest();
        let busy = scope.spawn(move || {
            let (mut answers, mut longest) = (0, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                served.get("/processes", &house.token).expect(200);
                longest = longest.max(asked.elapsed());
                answers += 1;
            }
            (answers, longest)
        });
        let mut newcomers: Vec<_> = (0..NEWCOMERS)
            .map(|_| (session(&house.around.authority, Some(&house.pair)), socket(house.api())))
            .collect();
        // All hellos before any answer is read.
        for (session, socket) in &mut newcomers {
            socket.write_all(&flight(session)).unwrap();
        }
        let mut newcomers: Vec<Tls> =
            newcomers.into_iter().map(|(session, socket)| Tls::over(session, socket)).collect();
        for tls in &mut newcomers {
            tls.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        }
        for tls in &mut newcomers {
            tls.read().expect(200);
        }
        over.store(true, Ordering::Relaxed);
        busy.join().unwrap()
    });
    let (answers, longest) = served;
    println!("{answers} answers during {NEWCOMERS} handshakes, the longest after {longest:?}");
    assert!(answers > 10, "{answers} answers");
    assert!(longest < PATIENCE / 10, "{longest:?}");
    house.is_well(&mut guest);
    house.service.signal_term();
}

/// How many handshakes have come to nothing for each reason, as the metrics say it.
fn failures(world: &World) -> BTreeMap<String, u64> {
    let known = world.around.client();
    let text = world.connect(Some(&known)).get("/metrics", "").expect(200).text();
    let series = "sentinel_tls_handshake_errors_total{reason=\"";
    text.lines()
        .filter_map(|line| line.strip_prefix(series)?.split_once("\"} "))
        .map(|(reason, count)| (reason.to_owned(), count.parse().unwrap()))
        .collect()
}

#[test]
fn a_handshake_that_comes_to_nothing_is_counted_by_its_reason() {
    let world = World::start("required");
    let none: BTreeMap<String, u64> =
        Fault::ALL.iter().map(|fault| (fault.as_str().to_owned(), 0)).collect();
    assert_eq!(failures(&world), none, "each is there before the first");
    let mut expected = none;
    let mut counts = |reason: &str, cause: &dyn Fn()| {
        cause();
        *expected.get_mut(reason).unwrap() += 1;
        eventually(reason, || (failures(&world) == expected).then_some(()));
    };
    counts("no_certificate", &|| {
        world.connect(None).try_get("/health", "").unwrap_err();
    });
    let foreign = Authority::called("somebody else").sign("billing");
    counts("unknown_issuer", &|| {
        world.connect(Some(&foreign)).try_get("/health", "").unwrap_err();
    });
    let expired = world
        .around
        .clients
        .sign_with("billing", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    counts("bad_certificate", &|| {
        world.connect(Some(&expired)).try_get("/health", "").unwrap_err();
    });
    counts("alert", &|| {
        let stranger = Authority::new();
        Tls::connect(world.api(), &stranger, None).try_get("/health", "").unwrap_err();
    });
    counts("protocol", &|| {
        let mut socket = TcpStream::connect(world.api()).unwrap();
        socket.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        rest(socket).unwrap();
    });
    counts("closed", &|| drop(TcpStream::connect(world.api()).unwrap()));
    let silent = TcpStream::connect(world.api()).unwrap();
    // The handshake has five seconds.
    counts("timeout", &|| assert_eq!(rest(silent.try_clone().unwrap()).unwrap_or_default(), b""));
    // What breaks later is no handshake.
    let mut open = world.connect(Some(&world.around.client()));
    open.get("/health", "").expect(200);
    open.0.get_mut().sock.write_all(b"garbage behind the handshake\r\n\r\n").unwrap();
    rest(open.0.get_ref().sock.try_clone().unwrap()).unwrap_or_default();
    eventually("nothing else is counted", || (failures(&world) == expected).then_some(()));
    world.service.stop();
}
