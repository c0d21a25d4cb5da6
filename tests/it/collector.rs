//! A collector that takes traces and remembers them. This module decodes what it is sent with the official protobuf
//! types (the crate opentelemetry-proto), not with anything of ours.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What came in, in the order of arrival.
#[derive(Default)]
pub(crate) struct Taken {
    /// The heads of the requests, as sent.
    pub heads: Vec<String>,
    /// The bodies, as sent.
    pub bodies: Vec<Vec<u8>>,
    pub spans: Vec<Span>,
    pub resource: BTreeMap<String, String>,
}

/// How a collector behaves.
#[derive(Clone)]
pub(crate) enum Manner {
    Takes,
    TakesOverTls(Arc<ServerConfig>),
    /// Accepts connections, reads and never answers.
    Silent,
    /// Answers with this status.
    Refuses(u16),
    /// Takes a request and says that so many of its spans are rejected.
    Rejects(i64),
}

/// A collector on loopback.
pub(crate) struct Collector {
    pub address: SocketAddr,
    pub taken: Arc<Mutex<Taken>>,
    stopping: Arc<AtomicBool>,
    /// The connection that is served: the exporter keeps it open.
    open: Arc<Mutex<Option<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    pub(crate) fn start(manner: Manner) -> Self {
        Self::start_on(0, manner)
    }

    /// The same on a port of the caller's choice; 0: any.
    pub(crate) fn start_on(port: u16, manner: Manner) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let address = listener.local_addr().unwrap();
        let taken: Arc<Mutex<Taken>> = Arc::default();
        let stopping: Arc<AtomicBool> = Arc::default();
        let open: Arc<Mutex<Option<TcpStream>>> = Arc::default();
        let (into, told, served) = (Arc::clone(&taken), Arc::clone(&stopping), Arc::clone(&open));
        let body = move || {
            // One connection at a time is all that one exporter needs. What is silent is kept open.
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                *served.lock() = Some(stream.try_clone().unwrap());
                if told.load(Ordering::SeqCst) {
                    return;
                }
                match &manner {
                    Manner::Silent => silent.push(stream),
                    Manner::Takes => serve(stream, 200, 0, &into),
                    Manner::Refuses(status) => serve(stream, *status, 0, &into),
                    Manner::Rejects(spans) => serve(stream, 200, *spans, &into),
                    Manner::TakesOverTls(config) => {
                        let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                        serve(StreamOwned::new(connection, stream), 200, 0, &into);
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().spawn(body).unwrap();
        Self { address, taken, stopping, open, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans of the trace that is called `trace_id`.
    pub(crate) fn trace(&self, trace_id: &str) -> Vec<Span> {
        let taken = self.taken.lock();
        taken.spans.iter().filter(|span| hex(&span.trace_id) == trace_id).cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.taken.lock().spans.len()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(open) = &*self.open.lock() {
            let _ = open.shutdown(Shutdown::Both);
        }
        drop(TcpStream::connect(self.address));
        let _ = self.thread.take().unwrap().join();
    }
}

/// Answers requests until the peer has no more.
fn serve(stream: impl Read + Write, status: u16, rejected_spans: i64, taken: &Mutex<Taken>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("content-length:").map(str::to_owned))
            .and_then(|length| length.trim().parse().ok())
            .expect("the exporter says how long the body is");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let request = ExportTraceServiceRequest::decode(&body[..]).expect("it is OTLP");
        let mut taken = taken.lock();
        if status == 200 {
            for resource_spans in request.resource_spans {
                let resource = resource_spans.resource.expect("spans have a resource");
                taken.resource = attributes(&resource.attributes);
                taken.spans.extend(
                    resource_spans
                        .scope_spans
                        .into_iter()
                        .flat_map(|scope_spans| scope_spans.spans),
                );
            }
        }
        taken.heads.push(head);
        taken.bodies.push(body);
        drop(taken);
        let error_message = "too many attributes".to_owned();
        let partial = ExportTracePartialSuccess { rejected_spans, error_message };
        let partial_success = (rejected_spans > 0).then_some(partial);
        let answer = ExportTraceServiceResponse { partial_success }.encode_to_vec();
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        let peer = stream.get_mut();
        if peer.write_all(head.as_bytes()).and_then(|()| peer.write_all(&answer)).is_err() {
            return;
        }
        let _ = peer.flush();
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Attributes as text.
pub(crate) fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{}: {other:?}", pair.key),
    };
    pairs.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}
