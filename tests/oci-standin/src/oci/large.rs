//! Large objects. This module keeps each whole in its locator: it comes with its row, and goes with its bind.
//!
//! Oracle's client asks the server for each piece, so each piece counts as a round trip.

use std::ffi::{c_int, c_void};
use std::sync::{MutexGuard, PoisonError};

use super::{Call, INVALID_HANDLE, SUCCESS, answered, called, reached};
use crate::errors::OraError;
use crate::handles::{self, Large};

/// # Safety
///
/// `locator` is a LOB locator.
unsafe fn large<'a>(locator: *const c_void) -> Option<MutexGuard<'a, Large>> {
    // SAFETY: the caller's promise.
    let found = unsafe { handles::lob(locator) }?;
    Some(found.lock().unwrap_or_else(PoisonError::into_inner))
}

/// # Safety
///
/// A service context with its server, an error handle and a LOB locator.
unsafe fn piece(
    symbol: &'static str,
    service: *mut c_void,
    error: *mut c_void,
    locator: *mut c_void,
    work: impl FnOnce(&mut Large) -> c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let (server, _, deadline) = match reached(service) {
            Ok(reached) => reached,
            Err(failed) => return answered(error, Err(failed)),
        };
        let Some(mut large) = large(locator) else { return INVALID_HANDLE };
        called(Call { symbol, server, text: "", deadline }, error, || {
            server.trip("lob");
            Ok(work(&mut large))
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCILobCreateTemporary(
    service: *mut c_void,
    error: *mut c_void,
    locator: *mut c_void,
    _charset: u16,
    _form: u8,
    _kind: u8,
    _cache: c_int,
    _duration: u16,
) -> c_int {
    // SAFETY: the caller's handles.
    unsafe {
        piece("OCILobCreateTemporary", service, error, locator, |large| {
            *large = Large { bytes: Vec::new(), exists: true, temporary: true };
            SUCCESS
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCILobFreeTemporary(
    _service: *mut c_void,
    _error: *mut c_void,
    locator: *mut c_void,
) -> c_int {
    // SAFETY: a locator.
    if let Some(mut large) = unsafe { large(locator) } {
        *large = Large::default();
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCILobIsTemporary(
    _env: *mut c_void,
    _error: *mut c_void,
    locator: *mut c_void,
    temporary: *mut c_int,
) -> c_int {
    // SAFETY: a locator and a place of the caller.
    unsafe { *temporary = c_int::from(large(locator).is_some_and(|large| large.temporary)) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCILobLocatorAssign(
    _service: *mut c_void,
    _error: *mut c_void,
    source: *const c_void,
    target: *mut *mut c_void,
) -> c_int {
    // SAFETY: two locators.
    unsafe {
        let Some(copy) = large(source).map(|large| large.clone()) else { return INVALID_HANDLE };
        let Some(mut target) = large(*target) else { return INVALID_HANDLE };
        *target = copy;
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCILobGetLength2(
    service: *mut c_void,
    error: *mut c_void,
    locator: *mut c_void,
    length: *mut u64,
) -> c_int {
    // SAFETY: the caller's handles, and a place for a number.
    unsafe {
        piece("OCILobGetLength2", service, error, locator, |large| {
            *length = String::from_utf8_lossy(&large.bytes).chars().count() as u64;
            SUCCESS
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCILobGetChunkSize(
    _service: *mut c_void,
    _error: *mut c_void,
    _locator: *mut c_void,
    size: *mut u32,
) -> c_int {
    // SAFETY: a place of the caller.
    unsafe { *size = 8132 };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCILobTrim2(
    service: *mut c_void,
    error: *mut c_void,
    locator: *mut c_void,
    length: u64,
) -> c_int {
    // SAFETY: the caller's handles.
    unsafe {
        // ODPI-C makes a temporary one when it hears this.
        if large(locator).is_some_and(|large| !large.exists) {
            return INVALID_HANDLE;
        }
        piece("OCILobTrim2", service, error, locator, |large| {
            let at = byte_of(&large.bytes, length);
            large.bytes.truncate(at);
            SUCCESS
        })
    }
}

/// Where character number `characters` begins.
fn byte_of(bytes: &[u8], characters: u64) -> usize {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let characters = usize::try_from(characters).unwrap_or(usize::MAX);
    text.char_indices().nth(characters).map_or(bytes.len(), |(at, _)| at)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCILobWrite2(
    service: *mut c_void,
    error: *mut c_void,
    locator: *mut c_void,
    bytes: *mut u64,
    characters: *mut u64,
    offset: u64,
    buffer: *mut c_void,
    length: u64,
    _piece: u8,
    _context: *mut c_void,
    _callback: *mut c_void,
    _charset: u16,
    _form: u8,
) -> c_int {
    // SAFETY: the caller's handles, `length` bytes, and places for numbers.
    unsafe {
        let length = usize::try_from(length).unwrap_or(0);
        let new = std::slice::from_raw_parts(buffer.cast::<u8>(), length);
        let Ok(text) = std::str::from_utf8(new) else {
            return answered(error, Err(OraError::beyond("writing a part of a character")));
        };
        piece("OCILobWrite2", service, error, locator, |large| {
            let from = byte_of(&large.bytes, offset.saturating_sub(1));
            let count = text.chars().count() as u64;
            let to = from + byte_of(&large.bytes[from..], count);
            large.bytes.splice(from..to, new.iter().copied());
            large.exists = true;
            *bytes = new.len() as u64;
            *characters = count;
            SUCCESS
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCILobRead2(
    service: *mut c_void,
    error: *mut c_void,
    locator: *mut c_void,
    bytes: *mut u64,
    characters: *mut u64,
    offset: u64,
    buffer: *mut c_void,
    room: u64,
    _piece: u8,
    _context: *mut c_void,
    _callback: *mut c_void,
    _charset: u16,
    _form: u8,
) -> c_int {
    // SAFETY: the caller's handles, a buffer with this room, and places for numbers.
    unsafe {
        piece("OCILobRead2", service, error, locator, |large| {
            let from = byte_of(&large.bytes, offset.saturating_sub(1));
            let wanted = if *characters > 0 { *characters } else { u64::MAX };
            let rest = std::str::from_utf8(&large.bytes[from..]).unwrap_or_default();
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let mut length = byte_of(rest.as_bytes(), wanted).min(room);
            while !rest.is_char_boundary(length) {
                length -= 1;
            }
            let part = &rest[..length];
            std::ptr::copy_nonoverlapping(part.as_ptr(), buffer.cast::<u8>(), length);
            *bytes = length as u64;
            *characters = part.chars().count() as u64;
            SUCCESS
        })
    }
}
