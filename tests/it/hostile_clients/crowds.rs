//! A crowd at the door: more connections than there is room for, than one address may have, than the system has
//! descriptors for, and ten thousand that say nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sentinel::http::limits::Limits;

use super::memory::{in_pages_kib, resident_kib};
use crate::front::{Peer, Server};
use crate::harness::{InChild, eventually};

/// Set for the child process that is to run out of descriptors: how many it has.
const FEW_DESCRIPTORS: &str = "HOSTILE_FEW_DESCRIPTORS";
/// Set for the child process that has little of everything: how many connections are to come.
const NOTHING_TO_SPARE: &str = "HOSTILE_NOTHING_TO_SPARE";
/// Address space that such a process may still take: far less than a small stack for each connection.
const SPARE_ADDRESS_BYTES: u64 = 64 << 20;
/// Set for the child process that holds many connections: how many, and to whom.
const CROWD: &str = "HOSTILE_CROWD";
const CROWD_ADDRESS: &str = "HOSTILE_CROWD_ADDRESS";
/// Descriptors that client and service need besides their connections.
const DESCRIPTORS_BESIDE: u64 = 300;
/// Connections from one loopback address: below what the service lets in by default, with room for others.
const PER_ADDRESS: usize = 900;

/// Another test of this program, in a process of its own, which ends with its input.
fn companion(
    name: &str,
    variables: &[(&str, String)],
) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", &format!("hostile_clients::crowds::{name}")])
        .envs(variables.iter().map(|(name, value)| (*name, value.as_str())))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

#[test]
fn sixty_four_connections_at_once_are_all_answered_again_and_again() {
    let server = Server::roomy(2, Limits::default());
    let mut peers: Vec<Peer> = (0..64).map(|_| server.peer()).collect();
    for round in 0..3 {
        for peer in &mut peers {
            peer.send(format!("GET /{round} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        for peer in &mut peers {
            assert_eq!(peer.read().text(), format!("/{round}?"));
        }
    }
    assert_eq!(server.handle.connections(), 64);
}

#[test]
fn who_comes_when_the_house_is_full_hears_so_and_may_come_again() {
    let limits = Limits {
        connections_max: 256,
        connections_per_ip_max: 256,
        idle_time: Duration::from_secs(1),
        ..Limits::default()
    };
    let server = Server::roomy(2, limits);
    let mut crowd: Vec<Peer> = (0..400).map(|_| server.peer()).collect();
    let mut turned_away = 0;
    for peer in &mut crowd {
        // Whoever is turned away is told so without being asked, and may not get as far as asking.
        peer.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let got = peer.read();
        if got.status == 503 {
            turned_away += 1;
            assert!(got.head.contains("\r\nRetry-After: "), "{}", got.head);
            assert_eq!(peer.rest(), b"");
        } else {
            assert_eq!(got.status, 200);
        }
    }
    // Some may have been idle for too long by the time the last were asked.
    assert!(turned_away > 0 && turned_away <= 400 - 256, "{turned_away} were turned away");
    assert!(server.handle.turned_away() >= turned_away);
    // Nobody leaves, but their time is up.
    for peer in &mut crowd {
        assert_eq!(peer.rest(), b"");
    }
    assert_eq!(server.peer().get("/").status, 200);
}

#[test]
fn one_address_cannot_take_the_places_of_the_others() {
    let limits = Limits { connections_max: 8, connections_per_ip_max: 3, ..Limits::default() };
    let server = Server::roomy(2, limits);
    let at = |last: u8| Peer::at([127, 0, 0, last], server.address);
    let mut greedy: Vec<Peer> = (0..3).map(|_| at(2)).collect();
    greedy.iter_mut().for_each(|peer| assert_eq!(peer.get("/").status, 200));
    let mut fourth = at(2);
    assert_eq!(fourth.read().status, 503);
    assert_eq!(fourth.rest(), b"");
    let mut others: Vec<Peer> = [3, 3, 3, 4, 4].into_iter().map(at).collect();
    others.iter_mut().for_each(|peer| assert_eq!(peer.get("/").status, 200));
    // Now the house is full for everybody.
    assert_eq!(at(5).read().status, 503);
    // A place that is given back, by a reset as well, is had by the next.
    greedy.pop().unwrap().reset();
    eventually("the place is given back", || (server.handle.connections() == 7).then_some(()));
    assert_eq!(at(5).get("/").status, 200);
    eventually("a newcomer is served", || {
        let mut newcomer = at(2);
        newcomer.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        (newcomer.read().status == 200).then_some(())
    });
}

#[test]
fn who_comes_when_there_is_no_descriptor_left_costs_nobody_else_anything() {
    // Which call fails first depends on whether their number is even.
    for descriptors in [48, 49] {
        let (mut child, output) = companion(
            "a_server_with_few_descriptors",
            &[(FEW_DESCRIPTORS, descriptors.to_string())],
        );
        // Kept until the end, so that the child always has somebody to tell its result.
        let mut lines = output.lines();
        let address: SocketAddr = lines
            .find_map(|line| line.unwrap().split_once("listens on ")?.1.parse().ok())
            .expect("the server says where it listens");
        let mut peers: Vec<Peer> = (0..100).map(|_| Peer::to(address)).collect();
        let mut ask = |peer: &mut Peer| {
            // A connection that was dropped may fail at either step.
            peer.try_send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut first = [0];
            matches!(peer.stream.read(&mut first), Ok(1))
        };
        let served = peers.iter_mut().map(&mut ask).filter(|served| *served).count();
        assert!((10..90).contains(&served), "{served} of 100 were served");
        drop(peers);
        eventually("newcomers are served again", || ask(&mut Peer::to(address)).then_some(()));
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}

/// The other side of the test above.
#[test]
#[ignore = "is started by another test"]
fn a_server_with_few_descriptors() {
    let Ok(descriptors) = std::env::var(FEW_DESCRIPTORS) else { return };
    let limit = Some(descriptors.parse().unwrap());
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
    let server = Server::roomy(1, Limits::default());
    println!("listens on {}", server.address);
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    assert!(server.handle.accept_errors() > 0, "the descriptors never ran out");
}

#[test]
fn a_connection_takes_one_descriptor_no_thread_and_hardly_any_address_space() {
    let count = 800;
    let (mut child, output) =
        companion("a_server_with_nothing_to_spare", &[(NOTHING_TO_SPARE, count.to_string())]);
    let mut lines = output.lines();
    let address: SocketAddr = lines
        .find_map(|line| line.unwrap().split_once("listens on ")?.1.parse().ok())
        .expect("the server says where it listens");
    let mut peers: Vec<Peer> = (0..count).map(|_| Peer::to(address)).collect();
    for target in ["/", "/work/a"] {
        for peer in &mut peers {
            assert_eq!(peer.get(target).status, 200);
        }
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success(), "something ran out");
}

/// The other side of the test above.
#[test]
#[ignore = "is started by another test"]
fn a_server_with_nothing_to_spare() {
    let Ok(count) = std::env::var(NOTHING_TO_SPARE) else { return };
    let count: u64 = count.parse().unwrap();
    let limits = Limits { connections_per_ip_max: 20_000, ..Limits::default() };
    let server = Server::roomy(1, limits);
    // Once through everything, so that what is made once has been made.
    let mut first = server.peer();
    assert_eq!((first.get("/").status, first.get("/work/a").status), (200, 200));
    drop(first);
    let own = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let page = rustix::param::page_size() as u64;
    for (resource, limit) in [
        // A few for what the test itself opens.
        (Resource::Nofile, own + count + 8),
        (Resource::As, pages * page + SPARE_ADDRESS_BYTES),
    ] {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) }).unwrap();
    }
    println!("listens on {}", server.address);
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(server.handle.accept_errors(), 0, "the descriptors ran out");
}

#[test]
fn ten_thousand_who_say_nothing_cost_a_kilobyte_each_and_nobody_else_anything() {
    let wanted = 10_000;
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(descriptors.saturating_sub(DESCRIPTORS_BESIDE)).unwrap();
    let crowd = wanted.min(room);
    if crowd < wanted {
        println!(
            "SCALED: {descriptors} descriptors are allowed here, so {crowd} connections were held instead of {wanted}"
        );
    }
    let grown = cost_of_a_crowd(crowd);
    assert!(grown < crowd as u64, "{crowd} idle connections cost {grown} KiB");
}

/// Has the allocator ask for no transparent huge pages. With them resident memory grows by 2 MiB at a time, a fifth of
/// all that the crowd may cost: what is measured then is where the last step fell, up or down, and not what a
/// connection takes.
const SMALL_PAGES: (&str, &str) = ("MIMALLOC_ALLOW_THP", "0");

/// Lets a crowd into a fresh service, serves others meanwhile, and returns what it cost in KiB of resident memory.
fn cost_of_a_crowd(crowd: usize) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[SMALL_PAGES]);
    let id = service.id();
    let threads = || std::fs::read_dir(format!("/proc/{id}/task")).unwrap().count();
    let mut active: Vec<Peer> = (0..64).map(|_| Peer::to(service.api)).collect();
    let mut serve_the_active = || {
        for path in ["/health", "/ready", "/health"] {
            for peer in &mut active {
                peer.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            }
            for peer in &mut active {
                assert_eq!(peer.read().status, 200, "{path}");
            }
        }
    };
    serve_the_active();
    let (before, threads_before) = (resident_kib(id), threads());
    let (mut child, output) = companion(
        "a_crowd_that_says_nothing",
        &[(CROWD, crowd.to_string()), (CROWD_ADDRESS, service.api.to_string())],
    );
    let mut lines = output.lines();
    let opened = lines.find(|line| line.as_ref().unwrap().contains("all are open"));
    assert!(opened.is_some(), "the crowd is let in");
    // Looked at before anybody else is served: what workers and store keep is not the crowd's.
    let grown = resident_kib(id).saturating_sub(before);
    assert_eq!(in_pages_kib(id, "AnonHugePages:"), 0, "it is counted in small pages");
    serve_the_active();
    for _ in 0..20 {
        let mut newcomer = Peer::to(service.api);
        newcomer.send("GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(newcomer.read().status, 200);
    }
    assert_eq!(threads(), threads_before, "a connection is no thread");
    // Each of them is still there, and answered.
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success(), "somebody in the crowd was forgotten");
    assert_eq!(service.terminate(), 0);
    println!("{crowd} idle connections cost {grown} KiB");
    grown
}

/// The other side of the test above: opens connections from several addresses of loopback, is served once on each, says
/// so, and at the end of its input asks again on each.
#[test]
#[ignore = "is started by another test"]
fn a_crowd_that_says_nothing() {
    let Ok(count) = std::env::var(CROWD) else { return };
    let address: SocketAddr = std::env::var(CROWD_ADDRESS).unwrap().parse().unwrap();
    let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let open = |index: usize| {
        let last = u8::try_from(1 + index / PER_ADDRESS).unwrap();
        let mut peer = Peer::at([127, 0, 0, last], address);
        peer.send(request);
        assert_eq!(peer.read().status, 200);
        // Only the socket is kept: its buffer is ours, not the service's, and may hold nothing of a next reply.
        peer.stream.into_inner()
    };
    let mut crowd: Vec<_> = (0..count.parse().unwrap()).map(open).collect();
    println!("all are open");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let mut reply = [0; 1024];
    for stream in &mut crowd {
        stream.write_all(request).unwrap();
        let bytes = stream.read(&mut reply).unwrap();
        assert!(reply[..bytes].starts_with(b"HTTP/1.1 200"), "it was forgotten");
    }
}
