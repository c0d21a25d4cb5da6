//! Start, handles and attributes. This module is what ODPI-C asks before it talks to any server.

use std::ffi::{c_char, c_int, c_void};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::{ERROR, INVALID_HANDLE, NO_DATA, SUCCESS, answered};
use crate::errors::OraError;
use crate::handles::{self, Body};
use crate::moment::Moment;

/// AL32UTF8.
const CHARACTER_SET: u16 = 873;

// Attributes, by OCI's numbers.
const DATA_SIZE: u32 = 1;
const DATA_TYPE: u32 = 2;
const NAME: u32 = 4;
const PRECISION: u32 = 5;
const SCALE_OR_SERVER: u32 = 6;
const NULLABLE_OR_SESSION: u32 = 7;
const TRANSACTION: u32 = 8;
const ROW_COUNT: u32 = 9;
const FUNCTION_CODE: u32 = 10;
const PREFETCH_ROWS: u32 = 11;
const COLUMNS: u32 = 18;
const USER_NAME: u32 = 22;
const PASSWORD: u32 = 23;
const STATEMENT_KIND: u32 = 24;
const CHARSET_ID: u32 = 31;
const CHARSET_FORM: u32 = 32;
const ROWS_RETURNED: u32 = 42;
const ROW_ERRORS: u32 = 73;
const ROW_OFFSET: u32 = 74;
const PARSE_OFFSET: u32 = 129;
const SERVER_STATUS: u32 = 143;
const STATEMENT_TEXT: u32 = 144;
const CACHED_STATEMENTS: u32 = 176;
const BINDS: u32 = 190;
const ROWS_FETCHED: u32 = 197;
const IS_RETURNING: u32 = 218;
const CURRENT_SCHEMA: u32 = 224;
const NCHARSET_ID: u32 = 262;
const CLIENT_IDENTIFIER: u32 = 278;
const CHAR_SIZE: u32 = 286;
const MODULE: u32 = 366;
const ACTION: u32 = 367;
const CLIENT_INFO: u32 = 368;
const DB_NAME: u32 = 391;
const INSTANCE_NAME: u32 = 392;
const SERVICE_NAME: u32 = 393;
const DB_DOMAIN: u32 = 399;
const DRIVER_NAME: u32 = 424;
const ROW_COUNT_LONG: u32 = 457;
const ROW_COUNTS: u32 = 469;
const OPEN_CURSORS: u32 = 471;
const RECOVERABLE: u32 = 472;
const IN_TRANSACTION: u32 = 484;
const IDENTIFIER_LENGTH: u32 = 500;
const CALL_TIMEOUT: u32 = 531;
const JSON_COLUMN: u32 = 534;

/// Says 19.28 of the stand-in. The numbers have to be those of a client that ODPI-C knows.
#[unsafe(no_mangle)]
unsafe extern "C" fn OCIClientVersion(
    major: *mut c_int,
    minor: *mut c_int,
    update: *mut c_int,
    patch: *mut c_int,
    port: *mut c_int,
) {
    // SAFETY: five places of the caller.
    unsafe {
        *major = 19;
        *minor = 28;
        *update = 0;
        *patch = 0;
        *port = 0;
    }
}

#[unsafe(no_mangle)]
extern "C" fn OCIThreadProcessInit() {}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIThreadKeyInit(
    _env: *mut c_void,
    _error: *mut c_void,
    key: *mut *mut c_void,
    destroy: Option<unsafe extern "C" fn(*mut c_void)>,
) -> c_int {
    let mut made: libc::pthread_key_t = 0;
    // SAFETY: `made` is ours; the caller's function frees what the caller stores.
    if unsafe { libc::pthread_key_create(&raw mut made, destroy) } != 0 {
        return ERROR;
    }
    // SAFETY: a place of the caller.
    unsafe { *key = Box::into_raw(Box::new(made)).cast() };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIThreadKeyGet(
    _env: *mut c_void,
    _error: *mut c_void,
    key: *mut c_void,
    value: *mut *mut c_void,
) -> c_int {
    // SAFETY: `key` came from OCIThreadKeyInit.
    unsafe { *value = libc::pthread_getspecific(*key.cast::<libc::pthread_key_t>()) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIThreadKeySet(
    _env: *mut c_void,
    _error: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
) -> c_int {
    // SAFETY: `key` came from OCIThreadKeyInit.
    let status = unsafe { libc::pthread_setspecific(*key.cast::<libc::pthread_key_t>(), value) };
    if status == 0 { SUCCESS } else { ERROR }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIThreadKeyDestroy(
    _env: *mut c_void,
    _error: *mut c_void,
    key: *mut *mut c_void,
) -> c_int {
    // SAFETY: `*key` came from OCIThreadKeyInit and is not used again.
    unsafe {
        let made = Box::from_raw((*key).cast::<libc::pthread_key_t>());
        libc::pthread_key_delete(*made);
        *key = std::ptr::null_mut();
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIEnvNlsCreate(
    env: *mut *mut c_void,
    _mode: u32,
    _context: *mut c_void,
    _malloc: *mut c_void,
    _realloc: *mut c_void,
    _free: *mut c_void,
    _extra: usize,
    _user: *mut *mut c_void,
    _charset: u16,
    _ncharset: u16,
) -> c_int {
    // SAFETY: a place of the caller.
    unsafe { *env = handles::make(std::ptr::null_mut(), handles::ENV) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIHandleAlloc(
    parent: *mut c_void,
    handle: *mut *mut c_void,
    kind: u32,
    _extra: usize,
    _user: *mut *mut c_void,
) -> c_int {
    // SAFETY: the parent is an environment; a place of the caller.
    unsafe {
        *handle = handles::make(parent, kind);
        if (*handle).is_null() { INVALID_HANDLE } else { SUCCESS }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIHandleFree(handle: *mut c_void, kind: u32) -> c_int {
    // SAFETY: it was made by OCIHandleAlloc with this kind.
    unsafe { handles::free(handle, kind) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIDescriptorAlloc(
    parent: *mut c_void,
    descriptor: *mut *mut c_void,
    kind: u32,
    extra: usize,
    user: *mut *mut c_void,
) -> c_int {
    // SAFETY: as for a handle.
    unsafe { OCIHandleAlloc(parent, descriptor, kind, extra, user) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIDescriptorFree(descriptor: *mut c_void, kind: u32) -> c_int {
    // SAFETY: as for a handle.
    unsafe { handles::free(descriptor, kind) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIArrayDescriptorAlloc(
    _parent: *mut c_void,
    places: *mut *mut c_void,
    kind: u32,
    count: u32,
    _extra: usize,
    _user: *mut *mut c_void,
) -> c_int {
    if !matches!(kind, handles::TIMESTAMP | handles::TIMESTAMP_TZ | handles::TIMESTAMP_LTZ) {
        return INVALID_HANDLE;
    }
    // SAFETY: the caller has room for this many.
    unsafe { Moment::array(places, count as usize) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIArrayDescriptorFree(places: *mut *mut c_void, _kind: u32) -> c_int {
    if places.is_null() {
        return SUCCESS;
    }
    // SAFETY: the first of an array that OCIArrayDescriptorAlloc made.
    unsafe {
        if !(*places).is_null() {
            Moment::free_array((*places).cast());
        }
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIErrorGet(
    handle: *mut c_void,
    record: u32,
    _state: *mut c_char,
    code: *mut i32,
    buffer: *mut c_char,
    size: u32,
    _kind: u32,
) -> c_int {
    // SAFETY: an error handle; the buffer has this size.
    unsafe {
        let Some(recorded) = handles::recorded(handle) else { return INVALID_HANDLE };
        let recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = recorded.error.as_ref().filter(|_| record == 1) else { return NO_DATA };
        *code = error.code;
        let message = error.message();
        let mut length = message.len().min((size as usize).saturating_sub(1));
        while !message.is_char_boundary(length) {
            length -= 1;
        }
        std::ptr::copy_nonoverlapping(message.as_ptr().cast(), buffer, length);
        *buffer.add(length) = 0;
    }
    SUCCESS
}

/// One error of a batch, into an error handle that the caller made; or what a column is.
#[unsafe(no_mangle)]
unsafe extern "C" fn OCIParamGet(
    handle: *mut c_void,
    _kind: u32,
    _error: *mut c_void,
    parameter: *mut *mut c_void,
    position: u32,
) -> c_int {
    // SAFETY: an error handle or a statement, and a place of the caller.
    unsafe {
        if let Some(recorded) = handles::recorded(handle) {
            let row = {
                let recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
                recorded.rows.get(position as usize).cloned()
            };
            let (Some((offset, error)), Some(target)) = (row, handles::recorded(*parameter)) else {
                return ERROR;
            };
            let mut target = target.lock().unwrap_or_else(PoisonError::into_inner);
            target.error = Some(error);
            target.offset = offset;
            return SUCCESS;
        }
        let Some(statement) = handles::statement(handle) else { return INVALID_HANDLE };
        let state = statement.state();
        let Some(column) = state.columns.get((position as usize).wrapping_sub(1)) else {
            return ERROR;
        };
        // The caller frees it, and reads the name from the copy only until then.
        *parameter = handles::give(std::ptr::null_mut(), Body::Parameter(column.clone()));
    }
    SUCCESS
}

/// # Safety
///
/// `place` is the caller's and has the type that OCI documents for the attribute.
unsafe fn put<T>(place: *mut c_void, value: T) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { place.cast::<T>().write_unaligned(value) };
    SUCCESS
}

/// # Safety
///
/// As for [`put`]; `bytes` outlives the handle's next change.
unsafe fn put_text(place: *mut c_void, size: *mut u32, bytes: &[u8]) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        place.cast::<*const u8>().write_unaligned(bytes.as_ptr());
        if let Some(size) = size.as_mut() {
            *size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        }
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIAttrGet(
    handle: *const c_void,
    _kind: u32,
    place: *mut c_void,
    size: *mut u32,
    attribute: u32,
    error: *mut c_void,
) -> c_int {
    // SAFETY: a living handle; `place` has the type of the attribute.
    unsafe {
        let Some(found) = handles::find(handle) else { return INVALID_HANDLE };
        let status = match (&found.body, attribute) {
            (Body::Env(_), CHARSET_ID | NCHARSET_ID) => put(place, CHARACTER_SET),
            (Body::Service(service), SCALE_OR_SERVER) => {
                put(place, service.server.load(Ordering::SeqCst))
            }
            (Body::Service(service), NULLABLE_OR_SESSION) => {
                put(place, service.person.load(Ordering::SeqCst))
            }
            (Body::Service(service), CALL_TIMEOUT) => {
                put(place, service.call_timeout_ms.load(Ordering::SeqCst))
            }
            (Body::Service(service), CACHED_STATEMENTS) => {
                put(place, service.cached_statements.load(Ordering::SeqCst))
            }
            (Body::Service(_), IDENTIFIER_LENGTH) => put(place, 128_u8),
            (Body::Server(_), CHARSET_ID) => put(place, CHARACTER_SET),
            (Body::Server(server), SERVER_STATUS) => {
                put(place, u32::from(!server.dead.load(Ordering::SeqCst)))
            }
            (Body::Server(_), DB_NAME | SERVICE_NAME) => put_text(place, size, b"STANDIN"),
            (Body::Server(_), INSTANCE_NAME) => put_text(place, size, b"standin"),
            (Body::Server(_), DB_DOMAIN) => put_text(place, size, b""),
            (Body::Person(person), IN_TRANSACTION) => {
                let person = person.lock().unwrap_or_else(PoisonError::into_inner);
                put(place, i32::from(person.in_transaction.load(Ordering::SeqCst)))
            }
            (Body::Person(_), OPEN_CURSORS) => put(place, 300_u32),
            (Body::Person(_), CURRENT_SCHEMA) => put_text(place, size, b"SENTINEL"),
            (Body::Error(recorded), ROW_OFFSET) => {
                put(place, recorded.lock().unwrap_or_else(PoisonError::into_inner).offset)
            }
            (Body::Error(_), RECOVERABLE) => put(place, 0_i32),
            (Body::Statement(statement), _) => {
                statement_attribute(statement, place, size, attribute)
            }
            (Body::Bind(bind), ROWS_RETURNED) => {
                put(place, bind.rows_returned.load(Ordering::SeqCst))
            }
            (Body::Parameter(column), _) => match attribute {
                DATA_TYPE => put(place, column.kind),
                NAME => put_text(place, size, column.name.as_bytes()),
                DATA_SIZE => put(place, column.size),
                CHAR_SIZE => put(place, column.size / 4),
                PRECISION => put(place, column.precision),
                SCALE_OR_SERVER => put(place, column.scale),
                CHARSET_FORM | NULLABLE_OR_SESSION => put(place, 1_u8),
                JSON_COLUMN => put(place, 0_u8),
                _ => ERROR,
            },
            _ => ERROR,
        };
        if status == ERROR {
            let unknown = OraError::beyond(format!("attribute {attribute} of this handle"));
            return answered(error, Err(unknown));
        }
        status
    }
}

/// # Safety
///
/// As for [`put`].
unsafe fn statement_attribute(
    statement: &crate::statement::Statement,
    place: *mut c_void,
    size: *mut u32,
    attribute: u32,
) -> c_int {
    let state = statement.state();
    let prepared = statement.prepared.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the caller's promise; texts and counts stay where they are until the statement is prepared or executed
    // again.
    unsafe {
        match attribute {
            // A cursor that a block opened was never prepared here.
            STATEMENT_KIND if state.open && prepared.kind == 0 => put(place, crate::sql::SELECT),
            STATEMENT_KIND => put(place, prepared.kind),
            FUNCTION_CODE => put(place, prepared.function_code()),
            IS_RETURNING => put(place, i32::from(prepared.returning > 0)),
            COLUMNS => put(place, u32::try_from(state.columns.len()).unwrap_or(0)),
            BINDS => put(place, u32::try_from(prepared.names.len()).unwrap_or(0)),
            ROWS_FETCHED => put(place, state.fetched),
            ROW_COUNT => put(place, u32::try_from(state.row_count).unwrap_or(u32::MAX)),
            ROW_COUNT_LONG => put(place, state.row_count),
            ROW_ERRORS => put(place, state.row_errors),
            ROW_COUNTS => {
                place.cast::<*const u64>().write_unaligned(state.row_counts.as_ptr());
                if let Some(size) = size.as_mut() {
                    *size = u32::try_from(state.row_counts.len()).unwrap_or(0);
                }
                SUCCESS
            }
            PARSE_OFFSET => {
                let offset = statement.parse_offset.load(Ordering::SeqCst);
                put(place, u16::try_from(offset).unwrap_or(u16::MAX))
            }
            STATEMENT_TEXT => put_text(place, size, prepared.text.as_bytes()),
            _ => ERROR,
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIAttrSet(
    handle: *mut c_void,
    _kind: u32,
    value: *mut c_void,
    size: u32,
    attribute: u32,
    _error: *mut c_void,
) -> c_int {
    // SAFETY: a living handle; `value` has the type of the attribute, or `size` bytes of text.
    unsafe {
        let Some(found) = handles::find(handle) else { return INVALID_HANDLE };
        let number = || value.cast::<u32>().read_unaligned();
        match (&found.body, attribute) {
            (Body::Service(service), SCALE_OR_SERVER) => {
                service.server.store(value, Ordering::SeqCst)
            }
            (Body::Service(service), NULLABLE_OR_SESSION) => {
                service.person.store(value, Ordering::SeqCst);
            }
            (Body::Service(_), TRANSACTION) => {}
            (Body::Service(service), CALL_TIMEOUT) => {
                service.call_timeout_ms.store(number(), Ordering::SeqCst);
            }
            (Body::Service(service), CACHED_STATEMENTS) => {
                service.cached_statements.store(number(), Ordering::SeqCst);
            }
            (Body::Statement(statement), PREFETCH_ROWS) => {
                statement.prefetch.store(number(), Ordering::SeqCst);
            }
            (Body::Person(person), _) => {
                let text = if value.is_null() || size == 0 {
                    String::new()
                } else {
                    String::from_utf8_lossy(std::slice::from_raw_parts(value.cast(), size as usize))
                        .into()
                };
                let mut person = person.lock().unwrap_or_else(PoisonError::into_inner);
                match attribute {
                    USER_NAME => person.name = text,
                    PASSWORD => person.password = text,
                    MODULE => {
                        if let Some(trips) = &person.trips {
                            trips.lock().unwrap_or_else(PoisonError::into_inner).module_is(&text);
                        }
                        person.module = text;
                    }
                    ACTION => {
                        if let Some(trips) = &person.trips {
                            trips.lock().unwrap_or_else(PoisonError::into_inner).action_is(&text);
                        }
                        person.action = text;
                    }
                    CLIENT_INFO => person.client_info = text,
                    CLIENT_IDENTIFIER => person.client_identifier = text,
                    DRIVER_NAME => person.driver = text,
                    _ => {}
                }
            }
            // Character set forms, sizes and the like: nothing here depends on them.
            (Body::Bind(_) | Body::Define(_), _) => {}
            _ => return ERROR,
        }
    }
    SUCCESS
}
