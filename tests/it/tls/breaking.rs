//! Connections that are broken off, abused and never read. The handshake was good each time; what follows is not.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use crossbeam::channel::unbounded;
use sentinel::certificates::{ClientAuth, ServerFiles, ServerIdentity};
use sentinel::component::End;
use sentinel::http::Port;
use sentinel::http::front::Front;
use sentinel::http::limits::Limits;
use sentinel::http::{turns, worker};
use sentinel::routes::Desk;
use serde_json::json;

use super::{House, Tls, World, request};
use crate::harness::{PATIENCE, eventually};

/// On the loop, and on a worker.
const TARGETS: [&str; 2] = ["/health", "/processes"];

#[test]
fn a_side_that_is_closed_without_a_word_gets_its_last_answer() {
    let house = House::start("optional");
    let mut guest = house.guest();
    for target in TARGETS {
        let mut tls = house.guest();
        tls.send(request("GET", target, &house.token, "", "").as_bytes()).unwrap();
        tls.half_close();
        tls.read().expect(200);
        assert_eq!(tls.rest(), (Vec::new(), true), "{target}");
    }
    // Many that were asked before the end are answered before it.
    let mut tls = house.guest();
    let many = request("GET", "/processes", &house.token, "", "").repeat(50);
    tls.send(many.as_bytes()).unwrap();
    tls.half_close();
    for _ in 0..50 {
        tls.read().expect(200);
    }
    assert_eq!(tls.rest(), (Vec::new(), true));
    house.is_well(&mut guest);
    house.stop();
}

/// A request that would change something, if it counted.
fn start(house: &House, process: &str) -> String {
    let fields = format!("X-Sentinel-Process-Id: {process}\r\nContent-Type: application/json\r\n");
    let body = json!({"process_type": "x".repeat(40)}).to_string();
    request("POST", "/internal/start", &house.token, &fields, &body)
}

#[test]
fn a_request_that_is_broken_off_at_any_place_is_not_heard_and_costs_nobody_anything() {
    let house = House::start("optional");
    let mut guest = house.guest();
    let whole = start(&house, "cut").len();
    // How it ends: by a reset, by a close, and by a close of one side, behind which an answer could still come.
    let ends: [fn(Tls); 3] = [Tls::reset, drop::<Tls>, |mut tls| {
        tls.half_close();
        assert_eq!(tls.rest().0, b"");
    }];
    for end in ends {
        // In the text, where each part is a whole record: in the head, between head and body, in the body.
        for at in [0, 1, 4, 20, whole / 2, whole - 60, whole - 2, whole - 1] {
            let mut tls = house.guest();
            tls.send(&start(&house, "cut").as_bytes()[..at]).unwrap();
            end(tls);
            guest.get("/health", "").expect(200);
        }
        // In the record: in its head, its middle, its seal.
        for place in 0..7 {
            let mut tls = house.guest();
            let sealed = tls.sealed(start(&house, "cut").as_bytes());
            let at = [1, 4, 5, 6, sealed.len() / 2, sealed.len() - 16, sealed.len() - 1][place];
            tls.socket().write_all(&sealed[..at]).unwrap();
            end(tls);
            guest.get("/health", "").expect(200);
        }
    }
    house.is_well(&mut guest);
    guest.get("/status/cut", &house.token).expect(404);
    house.stop();
}

#[test]
fn what_is_no_record_ends_the_connection_and_none_of_it_is_heard() {
    let house = House::start("optional");
    let mut guest = house.guest();
    let sealed = |tls: &mut Tls| tls.sealed(start(&house, "forged").as_bytes());
    type Forge<'f> = &'f dyn Fn(&mut Tls) -> Vec<u8>;
    let cases: [(&str, Forge<'_>); 6] = [
        ("HTTP in the clear", &|_| start(&house, "forged").into_bytes()),
        ("a record that nobody has sealed", &|_| [&[23, 3, 3, 0, 32][..], &[7; 32]].concat()),
        ("a byte turned", &|tls| {
            let mut record = sealed(tls);
            let middle = record.len() / 2;
            record[middle] ^= 1;
            record
        }),
        ("a record left out", &|tls| {
            let _ = tls.sealed(b"GET /health HTTP/1.1\r\n");
            sealed(tls)
        }),
        ("a length beyond what a record may have", &|_| {
            [&[23, 3, 3, 0xff, 0xff][..], &[7; 20_000]].concat()
        }),
        ("a hello in the middle", &|_| vec![22, 3, 3, 0, 4, 1, 0, 0, 0]),
    ];
    for (name, forge) in cases {
        let mut tls = house.guest();
        let bytes = forge(&mut tls);
        tls.socket().write_all(&bytes).unwrap();
        let (answer, whole) = tls.rest();
        assert_eq!(String::from_utf8_lossy(&answer), "", "{name}");
        assert!(!whole, "{name}: it ends with an alert, not as if all were well");
        guest.get("/health", "").expect(200);
    }
    // The same record twice: what was heard first is good, its repetition is not.
    let mut tls = house.guest();
    let record = tls.sealed(request("GET", "/health", "", "", "").as_bytes());
    tls.socket().write_all(&record).unwrap();
    tls.read().expect(200);
    tls.socket().write_all(&record).unwrap();
    assert_eq!(tls.rest(), (Vec::new(), false));
    house.is_well(&mut guest);
    guest.get("/status/forged", &house.token).expect(404);
    house.stop();
}

/// Sends requests until the other side takes no more. Never reads.
fn pour(tls: &mut Tls, requests: &[u8], bytes_max: usize) -> usize {
    tls.socket().set_nonblocking(true).unwrap();
    let (mut sent, mut refusals) = (0, 0);
    let mut record = Vec::new();
    while sent < bytes_max && refusals < 2000 {
        if record.is_empty() {
            record = tls.sealed(requests);
        }
        match tls.socket().write(&record) {
            Ok(bytes) => {
                record.drain(..bytes);
                sent += bytes;
                refusals = 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refusals += 1;
                std::thread::yield_now();
            }
            Err(_) => break,
        }
    }
    tls.socket().set_nonblocking(false).unwrap();
    sent
}

#[test]
fn who_asks_for_much_and_reads_nothing_is_not_served_on_and_holds_up_nobody() {
    let house = House::start("optional");
    let mut guest = house.guest();
    let mut silent: Vec<Tls> = (0..4).map(|_| house.guest()).collect();
    for (number, tls) in silent.iter_mut().enumerate() {
        let path = if number % 2 == 0 { "/openapi.json" } else { "/health" };
        let requests = request("GET", path, "", "", "").repeat(100);
        let sent = pour(tls, requests.as_bytes(), 64 << 20);
        assert!(sent < 64 << 20, "{path}: {sent} bytes were taken");
        for _ in 0..20 {
            guest.get("/health", "").expect(200);
            guest.get("/processes", &house.token).expect(200);
        }
    }
    assert_eq!(house.others(&mut guest), 4);
    // One reads on after all, and all is there, whole and in order; the others leave.
    let mut late = silent.remove(1);
    for _ in 0..100 {
        late.read().expect(200);
    }
    drop((late, silent));
    house.is_well(&mut guest);
    house.stop();
}

#[test]
fn who_takes_nothing_is_cut_off_at_the_deadline_for_writing() {
    let world = World::start("optional");
    // Another front for the same service, with less patience.
    let limits = Limits { write_time: Duration::from_millis(500), ..Limits::default() };
    let mut front = Front::bind("127.0.0.1:0".parse().unwrap(), None, 1, limits).unwrap();
    let folder = world.around.folder.path();
    let files = ServerFiles {
        certificate: folder.join("cert.pem"),
        key: folder.join("key.pem"),
        client_ca: None,
        client_auth: ClientAuth::Off,
    };
    front.secure(Port::Api, &ServerIdentity::open("API", files).unwrap());
    let (ended, _) = unbounded();
    let (jobs, queue) = turns::bounded(1000);
    let desk = || Desk::new(world.service.service.shared().clone()).unwrap();
    let face = front.start_loop(0, desk(), jobs, ended.clone()).unwrap();
    let worker = worker::start(0, desk(), queue, ended).unwrap();
    let (api, handle) = (front.api_address(), front.handle());

    let mut tls = Tls::connect(api, &world.around.authority, None);
    tls.get("/health", "").expect(200);
    let requests = request("GET", "/openapi.json", "", "", "").repeat(100);
    pour(&mut tls, requests.as_bytes(), 16 << 20);
    eventually("who takes nothing is cut off", || (handle.connections() == 0).then_some(()));
    // What was sealed before the end is still good, and its end is no close_notify: something is missing.
    assert!(!tls.rest().1, "nothing says that all is there");
    Tls::connect(api, &world.around.authority, None).get("/health", "").expect(200);
    for mut component in [face, worker] {
        component.stop();
        handle.wake();
        let end = component.join_by(Instant::now() + PATIENCE);
        assert!(matches!(end, End::Clean), "{} ended by {end:?}", component.name());
    }
    world.service.stop();
}
