//! Values in the caller's memory. This module reads what was bound and writes what was asked for, in OCI's types.
//!
//! The layouts are those that ODPI-C uses: arrays with one size for all elements, arrays of indicators, lengths and
//! return codes beside them, descriptors as pointers, and callbacks where the memory is found only while it runs.

use std::ffi::c_void;

use crate::errors::{OraError, Result};
use crate::handles;
use crate::moment::Moment;
use crate::number;
use crate::wire::Value;

pub(crate) const CHR: u16 = 1;
pub(crate) const NUM: u16 = 2;
pub(crate) const INT: u16 = 3;
pub(crate) const VNU: u16 = 6;
pub(crate) const LNG: u16 = 8;
pub(crate) const VCS: u16 = 9;
pub(crate) const DAT: u16 = 12;
pub(crate) const BFLOAT: u16 = 21;
pub(crate) const BDOUBLE: u16 = 22;
pub(crate) const BIN: u16 = 23;
pub(crate) const LBI: u16 = 24;
pub(crate) const UIN: u16 = 68;
pub(crate) const AFC: u16 = 96;
pub(crate) const IBDOUBLE: u16 = 101;
pub(crate) const CLOB: u16 = 112;
pub(crate) const BLOB: u16 = 113;
pub(crate) const RSET: u16 = 116;
pub(crate) const ODT: u16 = 156;
pub(crate) const SQLT_TIMESTAMP: u16 = 187;
pub(crate) const SQLT_TIMESTAMP_TZ: u16 = 188;
pub(crate) const SQLT_TIMESTAMP_LTZ: u16 = 232;

// PostgreSQL's numbers of types.
pub(crate) const BYTEA: u32 = 17;
pub(crate) const TEXT: u32 = 25;
pub(crate) const DOUBLE: u32 = 701;
pub(crate) const VARCHAR: u32 = 1043;
pub(crate) const TIMESTAMP: u32 = 1114;
pub(crate) const TIMESTAMP_TZ: u32 = 1184;
pub(crate) const NUMERIC: u32 = 1700;

const NULL: i16 = -1;
const CONTINUE: i32 = -24_200;
const ONE_PIECE: u8 = 0;
const NEXT_PIECE: u8 = 2;
/// Column value was truncated.
const TRUNCATED: u16 = 1406;

pub(crate) type InCallback = unsafe extern "C" fn(
    *mut c_void,
    *mut c_void,
    u32,
    u32,
    *mut *mut c_void,
    *mut u32,
    *mut u8,
    *mut *mut c_void,
) -> i32;

pub(crate) type OutCallback = unsafe extern "C" fn(
    *mut c_void,
    *mut c_void,
    u32,
    u32,
    *mut *mut c_void,
    *mut *mut u32,
    *mut u8,
    *mut *mut c_void,
    *mut *mut u16,
) -> i32;

pub(crate) type DefineCallback = unsafe extern "C" fn(
    *mut c_void,
    *mut c_void,
    u32,
    *mut *mut c_void,
    *mut *mut u32,
    *mut u8,
    *mut *mut c_void,
    *mut *mut u16,
) -> i32;

/// Where the caller keeps the values of one bind or one define.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub value: *mut c_void,
    pub size: usize,
    pub kind: u16,
    pub indicators: *mut i16,
    pub lengths: *mut u32,
    pub codes: *mut u16,
    pub context: *mut c_void,
    pub take: Option<InCallback>,
    pub give: Option<OutCallback>,
    pub define: Option<DefineCallback>,
    /// Values of any length: a LONG.
    pub dynamic: bool,
}

// SAFETY: the pointers lead to memory of the caller, who by OCI's rules uses a statement in one thread at a time and
// keeps that memory as long as it is bound.
unsafe impl Send for Slot {}

impl Default for Slot {
    fn default() -> Self {
        let null = std::ptr::null_mut();
        Self {
            value: null,
            size: 0,
            kind: 0,
            indicators: std::ptr::null_mut(),
            lengths: std::ptr::null_mut(),
            codes: std::ptr::null_mut(),
            context: null,
            take: None,
            give: None,
            define: None,
            dynamic: false,
        }
    }
}

fn is_descriptor(kind: u16) -> bool {
    matches!(kind, SQLT_TIMESTAMP | SQLT_TIMESTAMP_TZ | SQLT_TIMESTAMP_LTZ | CLOB | BLOB | RSET)
}

impl Slot {
    /// The type as which PostgreSQL takes it.
    pub(crate) fn oid(&self) -> Result<u32> {
        Ok(match self.kind {
            CHR | VCS | AFC | LNG if self.dynamic => TEXT,
            CHR | VCS | AFC | LNG => VARCHAR,
            CLOB => TEXT,
            VNU | NUM | INT | UIN => NUMERIC,
            BFLOAT | BDOUBLE => DOUBLE,
            SQLT_TIMESTAMP | ODT => TIMESTAMP,
            SQLT_TIMESTAMP_TZ | SQLT_TIMESTAMP_LTZ => TIMESTAMP_TZ,
            BIN | LBI | BLOB => BYTEA,
            RSET => TEXT,
            other => return Err(OraError::beyond(format!("binding OCI type {other}"))),
        })
    }

    /// Where element `index` of a bind or define without callbacks lies: the value, or its descriptor.
    unsafe fn element(&self, index: usize) -> *mut c_void {
        if is_descriptor(self.kind) {
            // SAFETY: the caller bound an array of pointers with at least this many elements.
            unsafe { *self.value.cast::<*mut c_void>().add(index) }
        } else {
            // SAFETY: the caller bound an array with at least this many elements of this size.
            unsafe { self.value.cast::<u8>().add(index * self.size).cast() }
        }
    }

    /// The statement handle of a cursor that is to be opened.
    ///
    /// # Safety
    ///
    /// As for [`Self::read`].
    pub(crate) unsafe fn cursor(&self) -> Option<*mut c_void> {
        if self.kind != RSET || self.value.is_null() {
            return None;
        }
        if !self.indicators.is_null() {
            // SAFETY: arrays that are there have at least one element.
            unsafe { *self.indicators = 0 };
        }
        // SAFETY: ODPI-C makes the handle before it executes.
        Some(unsafe { self.element(0) })
    }

    /// The value of row `index` as PostgreSQL's text. An empty text is NULL.
    ///
    /// # Safety
    ///
    /// The caller's memory is as it promised when it bound; `handle` is the bind's.
    pub(crate) unsafe fn read(&self, handle: *mut c_void, index: usize) -> Result<Value> {
        let mut length = 0_u32;
        let (at, null) = if let Some(take) = self.take {
            let (mut at, mut indicator) = (std::ptr::null_mut(), std::ptr::null_mut());
            let mut piece = ONE_PIECE;
            let row = u32::try_from(index).unwrap_or(u32::MAX);
            // SAFETY: this is how OCI calls it; all out parameters are ours.
            let status = unsafe {
                take(self.context, handle, row, 0, &mut at, &mut length, &mut piece, &mut indicator)
            };
            if status != CONTINUE {
                return Err(OraError::new(24343, "user defined callback error"));
            }
            // SAFETY: the indicator is null or points at one of the caller's indicators.
            let null =
                unsafe { indicator.cast::<i16>().as_ref() }.is_some_and(|found| *found == NULL);
            (at, null || at.is_null())
        } else {
            // SAFETY: arrays that are there have at least this many elements.
            unsafe {
                let null = !self.indicators.is_null() && *self.indicators.add(index) == NULL;
                length = match self.lengths.is_null() {
                    true => u32::try_from(self.size).unwrap_or(u32::MAX),
                    false => *self.lengths.add(index),
                };
                (if null { std::ptr::null_mut() } else { self.element(index) }, null)
            }
        };
        if null {
            return Ok(None);
        }
        // SAFETY: the value is of the kind that was bound, and `length` bytes long where it is bytes.
        unsafe { self.text_of(at, length as usize) }
    }

    unsafe fn text_of(&self, at: *mut c_void, length: usize) -> Result<Value> {
        // SAFETY: as for `read`; each arm reads what the bound kind says is there, unaligned where it is in an array
        // of bytes.
        let text = unsafe {
            match self.kind {
                CHR | VCS | AFC | LNG => {
                    let bytes = std::slice::from_raw_parts(at.cast::<u8>(), length);
                    if std::str::from_utf8(bytes).is_err() {
                        return Err(OraError::new(
                            29275,
                            "partial multibyte character (stand-in: no UTF-8)",
                        ));
                    }
                    return Ok((length > 0).then(|| bytes.into()));
                }
                VNU | NUM => number::to_text(&at.cast::<[u8; number::SIZE]>().read_unaligned()),
                INT => at.cast::<i64>().read_unaligned().to_string(),
                UIN => at.cast::<u64>().read_unaligned().to_string(),
                BDOUBLE => format!("{:?}", at.cast::<f64>().read_unaligned()),
                BFLOAT => format!("{:?}", at.cast::<f32>().read_unaligned()),
                ODT => OciDate::moment(at.cast::<OciDate>().read_unaligned()).to_text(false),
                SQLT_TIMESTAMP => (*at.cast::<Moment>()).to_text(false),
                SQLT_TIMESTAMP_TZ | SQLT_TIMESTAMP_LTZ => (*at.cast::<Moment>()).to_text(true),
                CLOB => {
                    let Some(large) = handles::lob(at) else { return Ok(None) };
                    let large = large.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    return Ok(large.exists.then(|| large.bytes.clone().into_boxed_slice()));
                }
                BIN | LBI => {
                    if length == 0 {
                        return Ok(None);
                    }
                    hexadecimal(std::slice::from_raw_parts(at.cast::<u8>(), length))
                }
                RSET => return Ok(None),
                other => return Err(OraError::beyond(format!("reading OCI type {other}"))),
            }
        };
        Ok(Some(text.into_bytes().into_boxed_slice()))
    }

    /// Writes one value of a fetch, of an OUT bind or of a row that a change returned.
    ///
    /// # Safety
    ///
    /// As for [`Self::read`].
    pub(crate) unsafe fn write(
        &self,
        handle: *mut c_void,
        row: usize,
        index: usize,
        value: Option<&[u8]>,
    ) -> Result<()> {
        let calls = self.define.is_some() || self.give.is_some();
        if !calls {
            // SAFETY: arrays that are there have at least this many elements.
            unsafe {
                if !self.codes.is_null() {
                    *self.codes.add(row) = 0;
                }
                if !self.indicators.is_null() {
                    *self.indicators.add(row) = if value.is_none() { NULL } else { 0 };
                }
                let Some(value) = value else { return Ok(()) };
                let length =
                    if self.lengths.is_null() { None } else { Some(&mut *self.lengths.add(row)) };
                let code =
                    if self.codes.is_null() { None } else { Some(&mut *self.codes.add(row)) };
                return self.put(self.element(row), value, self.size, length, code);
            }
        }
        let bytes = value.unwrap_or_default();
        let mut written = 0;
        let mut piece = ONE_PIECE;
        loop {
            // SAFETY: the callback is called as OCI calls it, and what it points at is the caller's to be written.
            unsafe {
                let (at, length, indicator, code) = self.ask(handle, row, index, &mut piece)?;
                if let Some(indicator) = indicator.cast::<i16>().as_mut() {
                    *indicator = if value.is_none() { NULL } else { 0 };
                }
                let Some(length) = length.as_mut() else {
                    return Err(OraError::new(24343, "a callback without a length"));
                };
                if value.is_none() {
                    *length = 0;
                    return Ok(());
                }
                if !self.dynamic {
                    let room = if is_descriptor(self.kind) { self.size } else { *length as usize };
                    return self.put(at, bytes, room, Some(length), code.as_mut());
                }
                let rest = &bytes[written..];
                let part = &rest[..rest.len().min(*length as usize)];
                std::ptr::copy_nonoverlapping(part.as_ptr(), at.cast::<u8>(), part.len());
                *length = u32::try_from(part.len()).unwrap_or(u32::MAX);
                written += part.len();
            }
            if written >= bytes.len() {
                return Ok(());
            }
            piece = NEXT_PIECE;
        }
    }

    unsafe fn ask(
        &self,
        handle: *mut c_void,
        row: usize,
        index: usize,
        piece: &mut u8,
    ) -> Result<(*mut c_void, *mut u32, *mut c_void, *mut u16)> {
        let (mut at, mut indicator) = (std::ptr::null_mut(), std::ptr::null_mut());
        let (mut length, mut code) = (std::ptr::null_mut(), std::ptr::null_mut());
        let row = u32::try_from(row).unwrap_or(u32::MAX);
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        // SAFETY: this is how OCI calls them; all out parameters are ours.
        let status = unsafe {
            match (self.define, self.give) {
                (Some(define), _) => define(
                    self.context,
                    handle,
                    row,
                    &mut at,
                    &mut length,
                    piece,
                    &mut indicator,
                    &mut code,
                ),
                (None, Some(give)) => give(
                    self.context,
                    handle,
                    row,
                    index,
                    &mut at,
                    &mut length,
                    piece,
                    &mut indicator,
                    &mut code,
                ),
                (None, None) => CONTINUE,
            }
        };
        if status != CONTINUE || at.is_null() {
            return Err(OraError::new(24343, "user defined callback error"));
        }
        Ok((at, length, indicator, code))
    }

    unsafe fn put(
        &self,
        at: *mut c_void,
        value: &[u8],
        room: usize,
        length: Option<&mut u32>,
        code: Option<&mut u16>,
    ) -> Result<()> {
        let text = std::str::from_utf8(value).unwrap_or_default();
        let no = || {
            OraError::new(
                932,
                format!("inconsistent datatypes: {text:?} is no OCI type {}", self.kind),
            )
        };
        let moment = || Moment::from_text(text).ok_or_else(no);
        // SAFETY: as for `read`; each arm writes what the asked kind says there is room for.
        unsafe {
            match self.kind {
                CHR | VCS | AFC | LNG => put_bytes(at, value, room, length, code),
                BIN | LBI => {
                    put_bytes(at, &from_hexadecimal(text).ok_or_else(no)?, room, length, code)
                }
                VNU | NUM => {
                    let number = number::from_text(text).ok_or_else(no)?;
                    at.cast::<[u8; number::SIZE]>().write_unaligned(number);
                }
                INT => at.cast::<i64>().write_unaligned(text.parse().map_err(|_| no())?),
                UIN => at.cast::<u64>().write_unaligned(text.parse().map_err(|_| no())?),
                BDOUBLE => at.cast::<f64>().write_unaligned(text.parse().map_err(|_| no())?),
                BFLOAT => at.cast::<f32>().write_unaligned(text.parse().map_err(|_| no())?),
                ODT => at.cast::<OciDate>().write_unaligned(OciDate::of(moment()?)),
                SQLT_TIMESTAMP | SQLT_TIMESTAMP_TZ | SQLT_TIMESTAMP_LTZ => {
                    (*at.cast::<Moment>()).set(moment()?);
                }
                CLOB => {
                    let large = handles::lob(at).ok_or_else(no)?;
                    let mut large = large.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    large.bytes = value.to_vec();
                    large.exists = true;
                }
                other => return Err(OraError::beyond(format!("fetching as OCI type {other}"))),
            }
        }
        Ok(())
    }
}

/// Copies what there is room for; less than all has its own return code.
unsafe fn put_bytes(
    at: *mut c_void,
    value: &[u8],
    room: usize,
    length: Option<&mut u32>,
    code: Option<&mut u16>,
) {
    let part = &value[..value.len().min(room)];
    // SAFETY: the caller's promise: there is room for this many bytes.
    unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), at.cast::<u8>(), part.len()) };
    if let Some(length) = length {
        *length = u32::try_from(part.len()).unwrap_or(u32::MAX);
    }
    if let Some(code) = code {
        *code = if part.len() < value.len() { TRUNCATED } else { 0 };
    }
}

/// `OCIDate` as ODPI-C lays it out.
#[repr(C)]
#[derive(Clone, Copy)]
struct OciDate {
    year: i16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl OciDate {
    fn of(moment: Moment) -> Self {
        let Moment { year, month, day, hour, minute, second, .. } = moment;
        Self { year, month, day, hour, minute, second }
    }

    fn moment(self) -> Moment {
        let Self { year, month, day, hour, minute, second } = self;
        let mut moment = Moment::alone();
        moment.set(Moment { year, month, day, hour, minute, second, ..Moment::alone() });
        moment
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    format!("\\x{}", digits.collect::<String>())
}

fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?;
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect()
}
