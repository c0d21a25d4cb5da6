//! What travels, whole, in pieces and to its end. This module splits requests at every byte, asks for much at once, and
//! speaks what is no TLS 1.3.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::{World, request, rest};
use crate::harness::{eventually, read_response};

#[test]
fn what_is_no_tls_1_3_is_closed_cleanly() {
    let world = World::start("optional");
    let mut socket = TcpStream::connect(world.api()).unwrap();
    socket.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let answer = rest(socket).unwrap();
    assert_eq!(answer.first(), Some(&21), "an alert, and not a word of HTTP: {answer:?}");
    // A hello of TLS 1.2: no supported_versions, one cipher suite of 1.2.
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let extensions: &[u8] = &[0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3];
    hello.extend([0, u8::try_from(extensions.len()).unwrap()]);
    hello.extend(extensions);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(&hello);
    let mut socket = TcpStream::connect(world.api()).unwrap();
    socket.write_all(&record).unwrap();
    // protocol_version is alert 70.
    assert_eq!(rest(socket).unwrap(), [21, 3, 3, 0, 2, 2, 70]);
    world.service.stop();
}

#[test]
fn a_request_split_at_every_byte_and_many_at_once_are_answered_in_order() {
    let world = World::start("optional");
    let token = world.around.token();
    let whole = request("GET", "/status/nobody", &token, "", "");
    let mut tls = world.connect(None);
    for at in 1..whole.len() {
        tls.send(&whole.as_bytes()[..at]).unwrap();
        tls.send(&whole.as_bytes()[at..]).unwrap();
        read_response(&mut tls.0, false).unwrap().expect(404);
    }
    let pipeline = format!("{whole}{}", request("GET", "/health", "", "", "")).repeat(200);
    tls.send(pipeline.as_bytes()).unwrap();
    for _ in 0..200 {
        read_response(&mut tls.0, false).unwrap().expect(404);
        read_response(&mut tls.0, false).unwrap().expect(200);
    }
    world.service.stop();
}

#[test]
fn many_log_rows_stream_out_whole_and_the_connection_ends_with_a_close_notify() {
    let world = World::start("optional");
    let token = world.around.token();
    let mut tls = world.connect(Some(&world.around.client()));
    let fields = "X-Sentinel-Process-Id: p\r\nContent-Type: application/json\r\n";
    let rows: Vec<Value> =
        (0..5000).map(|n| json!({"message": format!("{n} {}", "x".repeat(200))})).collect();
    let body = Value::from(rows).to_string();
    tls.send(request("POST", "/internal/log", &token, fields, &body).as_bytes()).unwrap();
    read_response(&mut tls.0, false).unwrap().expect(202);
    let ndjson = request("GET", "/logs/p", &token, "Accept: application/x-ndjson\r\n", "");
    eventually("all rows are there", || {
        tls.send(ndjson.as_bytes()).unwrap();
        let text = read_response(&mut tls.0, false).unwrap().text();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("xxx")).collect();
        (lines.len() == 5000).then_some(())
    });
    tls.send(request("GET", "/health", "", "Connection: close\r\n", "").as_bytes()).unwrap();
    read_response(&mut tls.0, false).unwrap().expect(200);
    // Without a close_notify this is an error, not an end.
    assert_eq!(tls.0.read(&mut [0; 1]).unwrap(), 0);
    world.service.stop();
}
