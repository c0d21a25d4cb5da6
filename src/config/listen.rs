//! Where the service listens. This module understands addresses, ports and the `--bind` flag.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::mode::Mode;
use super::raw::{Origin, RawConfig};
use super::reader::Reader;

pub(super) fn listen(reader: &mut Reader<'_>, raw: &RawConfig, mode: &Mode) -> SocketAddr {
    let default = match mode {
        Mode::Development => Ipv4Addr::LOCALHOST,
        Mode::Provider(_) => Ipv4Addr::UNSPECIFIED,
    };
    let text = reader.text("SENTINEL_LISTEN_ADDRESS", &default.to_string());
    let port = reader.port("SENTINEL_HTTP_PORT");
    let mut listen = SocketAddr::new(IpAddr::V4(default), port);
    if let Some(text) = text {
        match address(&text) {
            Some(address) => listen.set_ip(address),
            None => reader.problem(
                "SENTINEL_LISTEN_ADDRESS",
                format!("{text:?} is not an IP address such as 127.0.0.1 or ::1 (the port is SENTINEL_HTTP_PORT)"),
            ),
        }
    }
    let Some(bind) = &raw.bind else { return listen };
    let parsed = bind.strip_prefix("tcp://").and_then(|rest| {
        let (host, port) = rest.rsplit_once(':')?;
        Some(SocketAddr::new(address(host)?, port.parse().ok()?))
    });
    match parsed {
        Some(bound) => {
            let flag = Origin::Flag("--bind");
            reader.note("SENTINEL_LISTEN_ADDRESS", &bound.ip().to_string(), &flag);
            reader.note("SENTINEL_HTTP_PORT", &bound.port().to_string(), &flag);
            bound
        }
        None => {
            reader.problems.add(
                "--bind",
                format!("{bind:?} is not tcp://ADDRESS:PORT, such as tcp://127.0.0.1:8090"),
            );
            listen
        }
    }
}

/// An IP address, with or without brackets. `localhost` is understood without asking anybody.
fn address(text: &str) -> Option<IpAddr> {
    if text.eq_ignore_ascii_case("localhost") {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}
