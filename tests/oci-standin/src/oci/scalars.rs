//! Numbers, times and character sets. This module converts single values for ODPI-C.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::{ERROR, SUCCESS, answered};
use crate::errors::OraError;
use crate::moment::Moment;
use crate::number;

type Number = [u8; number::SIZE];

/// AL32UTF8, and the bytes of its longest character.
const CHARACTER_SET: u16 = 873;
const BYTES_MAX: i32 = 4;

/// The value of `number` after an unsigned conversion; ODPI-C has 2 for signed.
const SIGNED: c_uint = 2;

/// # Safety
///
/// `error` is an error handle, `target` a number of the caller.
unsafe fn store(error: *mut c_void, target: *mut c_void, text: &str) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        match number::from_text(text) {
            Some(number) => {
                target.cast::<Number>().write_unaligned(number);
                SUCCESS
            }
            None => answered(error, Err(OraError::new(22053, format!("overflow error: {text}")))),
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCINumberFromInt(
    error: *mut c_void,
    value: *const c_void,
    size: c_uint,
    sign: c_uint,
    target: *mut c_void,
) -> c_int {
    if size != 8 {
        // SAFETY: an error handle.
        return unsafe {
            answered(error, Err(OraError::beyond(format!("integers of {size} bytes"))))
        };
    }
    // SAFETY: an integer of 8 bytes.
    unsafe {
        let text = match sign {
            SIGNED => value.cast::<i64>().read_unaligned().to_string(),
            _ => value.cast::<u64>().read_unaligned().to_string(),
        };
        store(error, target, &text)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCINumberToInt(
    error: *mut c_void,
    value: *const c_void,
    size: c_uint,
    sign: c_uint,
    target: *mut c_void,
) -> c_int {
    // SAFETY: a number and an integer of the caller.
    unsafe {
        let text = number::to_text(&value.cast::<Number>().read_unaligned());
        let whole = text.split('.').next().unwrap_or_default();
        let fits = match (size, sign) {
            (8, SIGNED) => {
                whole.parse().map(|value| target.cast::<i64>().write_unaligned(value)).is_ok()
            }
            (8, _) => {
                whole.parse().map(|value| target.cast::<u64>().write_unaligned(value)).is_ok()
            }
            _ => false,
        };
        if fits { SUCCESS } else { answered(error, Err(OraError::new(22053, "overflow error"))) }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCINumberFromReal(
    error: *mut c_void,
    value: *const c_void,
    size: c_uint,
    target: *mut c_void,
) -> c_int {
    if size != 8 {
        // SAFETY: an error handle.
        return unsafe { answered(error, Err(OraError::beyond("reals but doubles"))) };
    }
    // SAFETY: a double of the caller.
    unsafe { store(error, target, &format!("{}", value.cast::<f64>().read_unaligned())) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCINumberToReal(
    _error: *mut c_void,
    value: *const c_void,
    size: c_uint,
    target: *mut c_void,
) -> c_int {
    // SAFETY: a number and a double of the caller.
    unsafe {
        let text = number::to_text(&value.cast::<Number>().read_unaligned());
        match (size, text.parse()) {
            (8, Ok(value)) => {
                target.cast::<f64>().write_unaligned(value);
                SUCCESS
            }
            _ => ERROR,
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIDateTimeConstruct(
    _env: *mut c_void,
    error: *mut c_void,
    moment: *mut c_void,
    year: i16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    nanosecond: u32,
    zone: *const c_char,
    zone_length: usize,
) -> c_int {
    let mut offset_minutes = 0;
    if !zone.is_null() && zone_length > 0 {
        // SAFETY: a text of this length.
        let zone = unsafe { std::slice::from_raw_parts(zone.cast::<u8>(), zone_length) };
        match offset(&String::from_utf8_lossy(zone)) {
            Some(offset) => offset_minutes = offset,
            // SAFETY: an error handle.
            None => return unsafe { answered(error, Err(OraError::beyond("named time zones"))) },
        }
    }
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 59
    {
        // SAFETY: an error handle.
        return unsafe { answered(error, Err(OraError::new(1843, "not a valid month"))) };
    }
    let new = Moment {
        year,
        month,
        day,
        hour,
        minute,
        second,
        nanosecond,
        offset_minutes,
        ..Moment::alone()
    };
    // SAFETY: a timestamp descriptor of the caller.
    unsafe { (*moment.cast::<Moment>()).set(new) };
    SUCCESS
}

/// Minutes of `+01:30`.
fn offset(text: &str) -> Option<i16> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let (hours, minutes) = rest.split_once(':')?;
    Some(sign * (hours.trim().parse::<i16>().ok()? * 60 + minutes.trim().parse::<i16>().ok()?))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIDateTimeGetDate(
    _env: *mut c_void,
    _error: *mut c_void,
    moment: *const c_void,
    year: *mut i16,
    month: *mut u8,
    day: *mut u8,
) -> c_int {
    // SAFETY: a timestamp descriptor and places of the caller.
    unsafe {
        let moment = &*moment.cast::<Moment>();
        *year = moment.year;
        *month = moment.month;
        *day = moment.day;
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIDateTimeGetTime(
    _env: *mut c_void,
    _error: *mut c_void,
    moment: *const c_void,
    hour: *mut u8,
    minute: *mut u8,
    second: *mut u8,
    nanosecond: *mut u32,
) -> c_int {
    // SAFETY: a timestamp descriptor and places of the caller.
    unsafe {
        let moment = &*moment.cast::<Moment>();
        *hour = moment.hour;
        *minute = moment.minute;
        *second = moment.second;
        *nanosecond = moment.nanosecond;
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIDateTimeGetTimeZoneOffset(
    _env: *mut c_void,
    _error: *mut c_void,
    moment: *const c_void,
    hours: *mut i8,
    minutes: *mut i8,
) -> c_int {
    // SAFETY: a timestamp descriptor and places of the caller.
    unsafe {
        let offset = (*moment.cast::<Moment>()).offset_minutes;
        *hours = i8::try_from(offset / 60).unwrap_or(0);
        *minutes = i8::try_from(offset % 60).unwrap_or(0);
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCINlsNumericInfoGet(
    _env: *mut c_void,
    _error: *mut c_void,
    value: *mut i32,
    _item: u16,
) -> c_int {
    // SAFETY: a place of the caller.
    unsafe { *value = BYTES_MAX };
    SUCCESS
}

/// All character sets are AL32UTF8 here, and ASCII is part of it.
#[unsafe(no_mangle)]
unsafe extern "C" fn OCINlsCharSetConvert(
    _env: *mut c_void,
    _error: *mut c_void,
    _to: u16,
    target: *mut c_void,
    room: usize,
    _from: u16,
    source: *const c_void,
    length: usize,
    written: *mut usize,
) -> c_int {
    let copied = length.min(room);
    // SAFETY: `source` has `length` bytes and `target` room for `room`.
    unsafe {
        std::ptr::copy_nonoverlapping(source.cast::<u8>(), target.cast::<u8>(), copied);
        if let Some(written) = written.as_mut() {
            *written = copied;
        }
    }
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCINlsCharSetIdToName(
    _env: *mut c_void,
    name: *mut c_char,
    room: usize,
    _id: u16,
) -> c_int {
    // SAFETY: a buffer of this size.
    unsafe { put_name(name, room, b"AL32UTF8\0") }
}

#[unsafe(no_mangle)]
extern "C" fn OCINlsCharSetNameToId(_env: *mut c_void, _name: *const c_char) -> u16 {
    CHARACTER_SET
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCINlsNameMap(
    _env: *mut c_void,
    name: *mut c_char,
    room: usize,
    _source: *const c_char,
    flag: u32,
) -> c_int {
    let known: &[u8] = if flag == 0 { b"AL32UTF8\0" } else { b"UTF-8\0" };
    // SAFETY: a buffer of this size.
    unsafe { put_name(name, room, known) }
}

/// # Safety
///
/// `name` has room for `room` bytes.
unsafe fn put_name(name: *mut c_char, room: usize, known: &[u8]) -> c_int {
    if room < known.len() {
        return ERROR;
    }
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(known.as_ptr().cast(), name, known.len()) };
    SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCINlsEnvironmentVariableGet(
    value: *mut c_void,
    _size: usize,
    _item: u16,
    _charset: u16,
    written: *mut usize,
) -> c_int {
    // SAFETY: places of the caller; the value is a character set's number.
    unsafe {
        value.cast::<u16>().write_unaligned(CHARACTER_SET);
        *written = size_of::<u16>();
    }
    SUCCESS
}
