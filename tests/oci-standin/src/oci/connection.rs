//! Connections and transactions. This module opens and ends sessions at the place that a connect string names.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Call, SUCCESS, answered, called, reached};
use crate::errors::{OraError, Result};
use crate::handles;
use crate::place::Place;
use crate::session::{Server, Session};

/// Written where Oracle's banner stands.
const BANNER: &str = "Oracle's stand-in for tests, over PostgreSQL: this is NOT Oracle";

/// Credentials come from a wallet.
const EXTERNAL: u32 = 2;

/// # Safety
///
/// `text` has `length` bytes.
unsafe fn text_of(text: *const c_char, length: usize) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    String::from_utf8_lossy(bytes).into_owned()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIServerAttach(
    server: *mut c_void,
    error: *mut c_void,
    connect: *const c_char,
    length: i32,
    _mode: u32,
) -> c_int {
    // SAFETY: a server handle, an error handle, and a text of this length.
    unsafe {
        let Some(server) = handles::server(server) else { return super::INVALID_HANDLE };
        let connect = text_of(connect, usize::try_from(length).unwrap_or(0));
        match Place::of_connect_string(&connect) {
            Ok(place) => {
                server.trips.lock().unwrap_or_else(PoisonError::into_inner).start(&place.control);
                *server.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
            }
            Err(failed) => return answered(error, Err(failed)),
        }
        let call = Call { symbol: "OCIServerAttach", server, text: &connect, deadline: None };
        called(call, error, || {
            server.trip("connect");
            let place = server.place().ok_or_else(|| OraError::of_number(12541))?;
            let session = Session::open(place)?;
            let canceller = session.wire.canceller.clone();
            *server.canceller.lock().unwrap_or_else(PoisonError::into_inner) = Some(canceller);
            *server.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
            server.dead.store(false, Ordering::SeqCst);
            Ok(SUCCESS)
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIServerDetach(
    server: *mut c_void,
    _error: *mut c_void,
    _mode: u32,
) -> c_int {
    // SAFETY: a server handle.
    if let Some(server) = unsafe { handles::server(server) } {
        let session = server.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut session) = session {
            session.wire.close();
        }
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCISessionBegin(
    service: *mut c_void,
    error: *mut c_void,
    person: *mut c_void,
    credentials: u32,
    _mode: u32,
) -> c_int {
    // SAFETY: a service context with its server, an error handle and a session handle.
    unsafe {
        let (server, _, deadline) = match reached(service) {
            Ok(reached) => reached,
            Err(failed) => return answered(error, Err(failed)),
        };
        let Some(person) = handles::person(person) else { return super::INVALID_HANDLE };
        let call = Call { symbol: "OCISessionBegin", server, text: "", deadline };
        called(call, error, || {
            server.trip("logon");
            let mut person = person.lock().unwrap_or_else(PoisonError::into_inner);
            person.in_transaction = Arc::clone(&server.in_transaction);
            person.trips = Some(Arc::clone(&server.trips));
            let external = credentials == EXTERNAL;
            // Any name will do, with any password but this one: a test of a wrong password says "wrong".
            if external && !person.password.is_empty() || !external && person.password.is_empty() {
                return Err(OraError::new(1005, "null password given; logon denied"));
            }
            if person.password == "wrong" {
                return Err(OraError::of_number(1017));
            }
            Ok(SUCCESS)
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCISessionEnd(
    service: *mut c_void,
    error: *mut c_void,
    _person: *mut c_void,
    _mode: u32,
) -> c_int {
    // SAFETY: a service context with its server, and an error handle.
    unsafe {
        match reached(service) {
            Ok((server, _, _)) if server.dead.load(Ordering::SeqCst) => SUCCESS,
            // As OCI does: the end of a session commits. ODPI-C rolls back before.
            Ok((server, _, _)) => answered(error, server.with(Session::commit).map(|()| SUCCESS)),
            Err(failed) => answered(error, Err(failed)),
        }
    }
}

/// A call that only talks to the server.
///
/// # Safety
///
/// A service context with its server, and an error handle.
unsafe fn talk(
    symbol: &'static str,
    what: &'static str,
    service: *mut c_void,
    error: *mut c_void,
    work: impl FnOnce(&mut Session) -> Result<()>,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        match reached(service) {
            Err(failed) => answered(error, Err(failed)),
            Ok((server, _, deadline)) => {
                called(Call { symbol, server, text: "", deadline }, error, || {
                    server.trip(what);
                    server.with(work).map(|()| SUCCESS)
                })
            }
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCITransCommit(
    service: *mut c_void,
    error: *mut c_void,
    _flags: u32,
) -> c_int {
    // SAFETY: the caller's handles.
    unsafe { talk("OCITransCommit", "commit", service, error, Session::commit) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCITransRollback(
    service: *mut c_void,
    error: *mut c_void,
    _flags: u32,
) -> c_int {
    // SAFETY: the caller's handles.
    unsafe { talk("OCITransRollback", "rollback", service, error, Session::roll_back) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIPing(service: *mut c_void, error: *mut c_void, _mode: u32) -> c_int {
    // SAFETY: the caller's handles.
    unsafe { talk("OCIPing", "ping", service, error, |session| session.simple("SELECT 1")) }
}

/// Breaks off what another thread does on this connection. What comes too early hits the next call, as with Oracle.
#[unsafe(no_mangle)]
unsafe extern "C" fn OCIBreak(handle: *mut c_void, error: *mut c_void) -> c_int {
    // SAFETY: a service context; only what may be used from several threads is.
    unsafe {
        let server: &Server = match reached(handle) {
            Ok((server, _, _)) => server,
            Err(failed) => return answered(error, Err(failed)),
        };
        server.broken_off.store(true, Ordering::SeqCst);
        let canceller = server.canceller.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(canceller) = canceller {
            let _ = canceller.cancel();
        }
        SUCCESS
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIServerRelease2(
    service: *mut c_void,
    error: *mut c_void,
    buffer: *mut c_char,
    size: u32,
    _kind: u8,
    version: *mut u32,
    _mode: u32,
) -> c_int {
    // SAFETY: a service context, an error handle, a buffer of this size and a place for a number.
    unsafe {
        let status = talk("OCIServerRelease2", "version", service, error, |_| Ok(()));
        if status == SUCCESS {
            if !buffer.is_null() && size > 0 {
                let length = BANNER.len().min(size as usize - 1);
                std::ptr::copy_nonoverlapping(BANNER.as_ptr().cast(), buffer, length);
                *buffer.add(length) = 0;
            }
            *version = (19 << 24) | (28 << 16);
        }
        status
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIPasswordChange(
    _service: *mut c_void,
    error: *mut c_void,
    _user: *const c_char,
    _user_length: u32,
    _old: *const c_char,
    _old_length: u32,
    _new: *const c_char,
    _new_length: u32,
    _mode: u32,
) -> c_int {
    // SAFETY: an error handle.
    unsafe { answered(error, Err(OraError::beyond("changing a password"))) }
}

/// How long a wait for a message looks away: a break and a call timeout are noticed after this.
pub(crate) const WAIT_SLICE: Duration = Duration::from_millis(10);
