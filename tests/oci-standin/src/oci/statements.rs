//! Statements before they are executed. This module prepares texts and notes where binds and columns go.

use std::ffi::{c_char, c_int, c_void};
use std::sync::PoisonError;

use super::{INVALID_HANDLE, NO_DATA, SUCCESS, answered};
use crate::errors::OraError;
use crate::handles::{self, Body};
use crate::sql;
use crate::statement::{Place, Statement};
use crate::values::{DefineCallback, InCallback, OutCallback, Slot};

/// Values come through callbacks.
const DYNAMIC: u32 = 2;

/// # Safety
///
/// `text` has `length` bytes.
unsafe fn text_of(text: *const c_char, length: u32) -> String {
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length as usize) };
    String::from_utf8_lossy(bytes).into_owned()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIStmtPrepare2(
    _service: *mut c_void,
    statement: *mut *mut c_void,
    error: *mut c_void,
    text: *const c_char,
    length: u32,
    _key: *const c_char,
    _key_length: u32,
    _language: u32,
    _mode: u32,
) -> c_int {
    if text.is_null() {
        // SAFETY: an error handle.
        return unsafe { answered(error, Err(OraError::beyond("statements by their tag"))) };
    }
    // SAFETY: a text of this length, and a place for the handle. It is freed by OCIStmtRelease.
    unsafe {
        let prepared = sql::prepared(&text_of(text, length));
        let made = Statement { prepared: prepared.into(), ..Statement::default() };
        *statement = handles::give(std::ptr::null_mut(), Body::Statement(Box::new(made)));
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIStmtRelease(
    statement: *mut c_void,
    _error: *mut c_void,
    _key: *const c_char,
    _key_length: u32,
    _mode: u32,
) -> c_int {
    // SAFETY: a statement of OCIStmtPrepare2, released once.
    unsafe { handles::free(statement, handles::STATEMENT) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIStmtGetBindInfo(
    statement: *mut c_void,
    _error: *mut c_void,
    size: u32,
    start: u32,
    found: *mut i32,
    names: *mut *mut c_char,
    lengths: *mut u8,
    indicator_names: *mut *mut c_char,
    indicator_lengths: *mut u8,
    duplicates: *mut u8,
    binds: *mut *mut c_void,
) -> c_int {
    // SAFETY: a statement; all arrays have `size` elements.
    unsafe {
        let Some(statement) = handles::statement(statement) else { return INVALID_HANDLE };
        // The names are read while the statement lives, so pointers into it will do.
        let prepared = statement.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let all = &prepared.names;
        let start = (start as usize).saturating_sub(1);
        if all.len() <= start {
            return NO_DATA;
        }
        // How many there are in all; less than nothing where they are not all told yet.
        let count = i32::try_from(all.len()).unwrap_or(i32::MAX);
        *found = if all.len() - start > size as usize { -count } else { count };
        for (place, name) in all.iter().skip(start).take(size as usize).enumerate() {
            *names.add(place) = name.as_ptr().cast_mut().cast();
            *lengths.add(place) = u8::try_from(name.len()).unwrap_or(u8::MAX);
            *indicator_names.add(place) = std::ptr::null_mut();
            *indicator_lengths.add(place) = 0;
            *duplicates.add(place) = u8::from(all[..start + place].contains(name));
            *binds.add(place) = std::ptr::null_mut();
        }
    }
    SUCCESS
}

/// # Safety
///
/// `statement` is a statement, `handle` a place of the caller.
unsafe fn bound(
    statement: *mut c_void,
    handle: *mut *mut c_void,
    error: *mut c_void,
    place: impl FnOnce(&sql::Prepared) -> Option<Place>,
    slot: Slot,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(statement) = handles::statement(statement) else { return INVALID_HANDLE };
        let Some(place) = place(&statement.prepared()) else {
            return answered(error, Err(OraError::new(1036, "illegal variable name/number")));
        };
        let bind = statement.bind_at(place);
        *handle = bind;
        if let Some(bind) = handles::bind(bind) {
            *bind.slot.lock().unwrap_or_else(PoisonError::into_inner) = slot;
        }
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIBindByPos2(
    statement: *mut c_void,
    handle: *mut *mut c_void,
    error: *mut c_void,
    position: u32,
    value: *mut c_void,
    size: i64,
    kind: u16,
    indicators: *mut c_void,
    lengths: *mut u32,
    codes: *mut u16,
    elements_max: u32,
    _elements: *mut u32,
    mode: u32,
) -> c_int {
    let slot = slot(value, size, kind, indicators, lengths, codes, mode);
    let place = |prepared: &sql::Prepared| {
        let known = (1..=prepared.names.len()).contains(&(position as usize));
        (known && elements_max == 0).then_some(Place::Position(position as usize))
    };
    // SAFETY: the caller's handles and memory.
    unsafe { bound(statement, handle, error, place, slot) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIBindByName2(
    statement: *mut c_void,
    handle: *mut *mut c_void,
    error: *mut c_void,
    name: *const c_char,
    length: i32,
    value: *mut c_void,
    size: i64,
    kind: u16,
    indicators: *mut c_void,
    lengths: *mut u32,
    codes: *mut u16,
    elements_max: u32,
    _elements: *mut u32,
    mode: u32,
) -> c_int {
    // SAFETY: a text of this length.
    let name = unsafe { text_of(name, u32::try_from(length).unwrap_or(0)) };
    let name = name.trim_start_matches(':').to_uppercase();
    let slot = slot(value, size, kind, indicators, lengths, codes, mode);
    let place = |prepared: &sql::Prepared| {
        (prepared.names.contains(&name) && elements_max == 0).then_some(Place::Name(name))
    };
    // SAFETY: the caller's handles and memory.
    unsafe { bound(statement, handle, error, place, slot) }
}

fn slot(
    value: *mut c_void,
    size: i64,
    kind: u16,
    indicators: *mut c_void,
    lengths: *mut u32,
    codes: *mut u16,
    mode: u32,
) -> Slot {
    // A LONG is bound with the greatest size there is.
    let dynamic = mode & DYNAMIC != 0 && size == i64::from(i32::MAX);
    let size = usize::try_from(size).unwrap_or(0);
    Slot {
        value,
        size,
        kind,
        indicators: indicators.cast(),
        lengths,
        codes,
        dynamic,
        ..Slot::default()
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIBindDynamic(
    bind: *mut c_void,
    _error: *mut c_void,
    in_context: *mut c_void,
    take: Option<InCallback>,
    _out_context: *mut c_void,
    give: Option<OutCallback>,
) -> c_int {
    // SAFETY: a bind of a living statement.
    let Some(bind) = (unsafe { handles::bind(bind) }) else { return INVALID_HANDLE };
    let mut slot = bind.slot.lock().unwrap_or_else(PoisonError::into_inner);
    // ODPI-C passes the same context for both.
    slot.context = in_context;
    slot.take = take;
    slot.give = give;
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIDefineByPos2(
    statement: *mut c_void,
    handle: *mut *mut c_void,
    _error: *mut c_void,
    position: u32,
    value: *mut c_void,
    size: u64,
    kind: u16,
    indicators: *mut c_void,
    lengths: *mut u32,
    codes: *mut u16,
    mode: u32,
) -> c_int {
    // SAFETY: a statement and a place of the caller.
    unsafe {
        let Some(statement) = handles::statement(statement) else { return INVALID_HANDLE };
        let define = statement.define_at(position as usize);
        *handle = define;
        if let Some(define) = handles::define(define) {
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            let new = slot(value, size, kind, indicators, lengths, codes, mode);
            *define.slot.lock().unwrap_or_else(PoisonError::into_inner) = new;
        }
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIDefineDynamic(
    define: *mut c_void,
    _error: *mut c_void,
    context: *mut c_void,
    callback: Option<DefineCallback>,
) -> c_int {
    // SAFETY: a define of a living statement.
    let Some(define) = (unsafe { handles::define(define) }) else { return INVALID_HANDLE };
    let mut slot = define.slot.lock().unwrap_or_else(PoisonError::into_inner);
    slot.context = context;
    slot.define = callback;
    SUCCESS
}
