//! The functions of Oracle's client library that ODPI-C asks for. This module has what they share: how a call is counted,
//! hit by a fault, and answered.
//!
//! All of them are called by ODPI-C, which passes handles that it got here and memory that it owns, as the declarations
//! in its `dpiOci.c` say. Every `unsafe` block below rests on that; what else one rests on stands beside it.

pub(crate) mod connection;
pub(crate) mod execute;
pub(crate) mod large;
pub(crate) mod memory;
pub(crate) mod scalars;
pub(crate) mod statements;

use std::ffi::{c_int, c_void};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::errors::{OraError, Result};
use crate::faults::Effect;
use crate::handles::{self, Recorded, Service};
use crate::session::Server;

pub(crate) const SUCCESS: c_int = 0;
pub(crate) const SUCCESS_WITH_INFO: c_int = 1;
pub(crate) const ERROR: c_int = -1;
pub(crate) const INVALID_HANDLE: c_int = -2;
pub(crate) const NO_DATA: c_int = 100;

/// What a call is about: whose it is, and the text by which a fault may choose it.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub symbol: &'static str,
    pub server: &'a Server,
    pub text: &'a str,
    /// When it has to be over.
    pub deadline: Option<Instant>,
}

/// The server of a service context, and when a call that starts now has to be over.
///
/// # Safety
///
/// `service` is null or a service context, whose server was not freed.
pub(crate) unsafe fn reached<'a>(
    service: *const c_void,
) -> Result<(&'a Server, &'a Service, Option<Instant>)> {
    // SAFETY: the caller's promise.
    unsafe {
        let service = handles::service(service).ok_or_else(|| OraError::of_number(1012))?;
        let server = handles::server(service.server.load(Ordering::SeqCst));
        let server = server.ok_or_else(|| OraError::of_number(1012))?;
        let timeout = service.call_timeout_ms.load(Ordering::SeqCst);
        let deadline =
            (timeout > 0).then(|| Instant::now() + Duration::from_millis(timeout.into()));
        Ok((server, service, deadline))
    }
}

/// Does the work of a call unless a fault hits it, and answers in OCI's way.
///
/// # Safety
///
/// `error` is null or an error handle.
pub(crate) unsafe fn answered(error: *mut c_void, done: Result<c_int>) -> c_int {
    // SAFETY: the caller's promise.
    let recorded = unsafe { handles::recorded(error) };
    match done {
        Ok(status) => status,
        Err(failed) => {
            if let Some(recorded) = recorded {
                let mut recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
                recorded.error = Some(failed);
            }
            ERROR
        }
    }
}

/// Notes a warning, which a success brings along.
///
/// # Safety
///
/// `error` is null or an error handle.
pub(crate) unsafe fn warned(
    error: *mut c_void,
    warning: OraError,
    rows: Vec<(u32, OraError)>,
) -> c_int {
    // SAFETY: the caller's promise.
    if let Some(recorded) = unsafe { handles::recorded(error) } {
        let mut recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
        *recorded = Recorded { error: Some(warning), offset: 0, rows };
    }
    SUCCESS_WITH_INFO
}

/// Runs a call that goes to the server, through the faults that a test asked for.
///
/// # Safety
///
/// `error` is null or an error handle.
pub(crate) unsafe fn called(
    call: Call<'_>,
    error: *mut c_void,
    work: impl FnOnce() -> Result<c_int>,
) -> c_int {
    let Call { symbol, server, text, deadline } = call;
    let session = server.trips.lock().unwrap_or_else(PoisonError::into_inner).name().to_owned();
    let place = server.place();
    let effects =
        place.as_ref().map_or_else(Vec::new, |place| place.faults.hit(symbol, text, &session));
    let mut lose_after = false;
    let mut warning = None;
    for effect in effects {
        let failed = match effect {
            Effect::Error(code) => Some(OraError::of_number(code)),
            Effect::Hang => {
                let still = || place.as_ref().is_some_and(|place| place.faults.still_hangs(symbol));
                hang(server, deadline, still)
            }
            Effect::Lose => Some(OraError::lost("a fault cut the line")),
            Effect::LoseAfter => {
                lose_after = true;
                None
            }
            Effect::Warning(code) => {
                warning = Some(code);
                None
            }
            Effect::Delay(pause) => {
                std::thread::sleep(pause);
                None
            }
        };
        if let Some(failed) = failed {
            if failed.fatal {
                server.cut();
            }
            // SAFETY: the caller's promise.
            return unsafe { answered(error, Err(failed)) };
        }
    }
    let done = work();
    // SAFETY: the caller's promise.
    unsafe {
        if lose_after && done.is_ok() {
            server.cut();
            return answered(error, Err(OraError::lost("a fault cut the line before the answer")));
        }
        match (warning, done) {
            (Some(code), Ok(SUCCESS)) => warned(error, OraError::of_number(code), Vec::new()),
            (_, done) => answered(error, done),
        }
    }
}

/// Does nothing until the call's time is over, somebody breaks it off, or the fault ends.
fn hang(server: &Server, deadline: Option<Instant>, still: impl Fn() -> bool) -> Option<OraError> {
    server.broken_off.store(false, Ordering::SeqCst);
    while still() {
        if server.broken_off.swap(false, Ordering::SeqCst) {
            return Some(OraError::of_number(1013));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Some(OraError::of_number(3156));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}
