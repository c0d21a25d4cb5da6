//! What a statement handle holds. This module keeps a text, its binds and defines, and the rows that are not fetched yet.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::errors::{OraError, Result};
use crate::handles::{Body, Handle, boxed};
use crate::sql::Prepared;
use crate::values::{self, Slot};
use crate::wire::{Column, Value};

/// Which of OCI's types a column is told to have.
#[derive(Debug, Clone)]
pub(crate) struct ColumnKind {
    /// Shared with what was described: ODPI-C reads it after it has freed the description.
    pub name: Arc<CString>,
    pub kind: u16,
    pub precision: i16,
    pub scale: i8,
    pub size: u16,
}

#[derive(Debug, Default)]
pub(crate) struct Bind {
    pub slot: Mutex<Slot>,
    /// Outside of the lock: the caller asks for it from within its own callback.
    pub rows_returned: AtomicU32,
}

#[derive(Debug, Default)]
pub(crate) struct Define {
    pub slot: Mutex<Slot>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Position(usize),
    Name(String),
}

#[derive(Debug, Default)]
pub(crate) struct Statement {
    pub prepared: Mutex<Prepared>,
    // A box each, because the caller holds pointers to them while the table grows.
    pub binds: Mutex<HashMap<Place, Box<Handle>>>,
    pub defines: Mutex<HashMap<usize, Box<Handle>>>,
    pub state: Mutex<State>,
    pub prefetch: AtomicU32,
    pub parse_offset: AtomicU32,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub service: usize,
    pub columns: Vec<ColumnKind>,
    pub rows: Vec<Vec<Value>>,
    /// The first row that was not fetched.
    pub next: usize,
    /// Rows that came with the execution, as far as they are not fetched.
    pub prefetched: usize,
    /// The server has said that there are no more.
    pub end_known: bool,
    pub open: bool,
    pub fetched: u32,
    pub row_count: u64,
    pub row_counts: Vec<u64>,
    pub row_errors: u32,
}

impl Statement {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn prepared(&self) -> Prepared {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bind at this place, made where there is none yet; its address stays.
    pub(crate) fn bind_at(&self, place: Place) -> *mut c_void {
        let mut binds = self.binds.lock().unwrap_or_else(PoisonError::into_inner);
        let bind =
            binds.entry(place).or_insert_with(|| Box::new(boxed(Body::Bind(Bind::default()))));
        std::ptr::from_mut(bind.as_mut()).cast()
    }

    pub(crate) fn define_at(&self, position: usize) -> *mut c_void {
        let mut defines = self.defines.lock().unwrap_or_else(PoisonError::into_inner);
        let define = defines
            .entry(position)
            .or_insert_with(|| Box::new(boxed(Body::Define(Define::default()))));
        std::ptr::from_mut(define.as_mut()).cast()
    }

    /// The handle of the bind for placeholder `index`, by its position or by its name.
    pub(crate) fn bound(&self, prepared: &Prepared, index: usize) -> Result<*mut c_void> {
        let mut binds = self.binds.lock().unwrap_or_else(PoisonError::into_inner);
        let name = prepared.names[index].clone();
        let by_position = binds.contains_key(&Place::Position(index + 1));
        let place = if by_position { Place::Position(index + 1) } else { Place::Name(name) };
        match binds.get_mut(&place) {
            Some(bind) => Ok(std::ptr::from_mut(bind.as_mut()).cast()),
            None => Err(OraError::new(1008, "not all variables bound")),
        }
    }

    /// Opens a cursor on rows that are all here already.
    pub(crate) fn open(
        &self,
        service: usize,
        columns: &[Column],
        rows: Vec<Vec<Value>>,
        prefetch: usize,
    ) {
        let mut state = self.state();
        let mut columns: Vec<ColumnKind> = columns.iter().map(ColumnKind::of).collect();
        // ODPI-C describes a statement once, and reads the names as often as it is executed.
        if columns
            .iter()
            .map(|column| &column.name)
            .eq(state.columns.iter().map(|column| &column.name))
        {
            columns = std::mem::take(&mut state.columns);
        }
        *state = State {
            service,
            columns,
            prefetched: prefetch.min(rows.len()),
            end_known: rows.len() < prefetch,
            rows,
            open: true,
            ..State::default()
        };
    }
}

impl ColumnKind {
    /// What Oracle would say about a column of this type.
    fn of(column: &Column) -> Self {
        let name = Arc::new(CString::new(column.name.to_uppercase()).unwrap_or_default());
        let mut kind = Self { name, kind: values::CHR, precision: 0, scale: 0, size: 4000 };
        let modifier = column.modifier;
        match column.kind {
            // Counts and the like: NUMBER without a precision would come as a double.
            20 | 21 | 23 => {
                kind.kind = values::NUM;
                kind.precision = 18;
            }
            values::NUMERIC => {
                kind.kind = values::NUM;
                kind.scale = -127;
                if modifier >= 4 {
                    kind.precision = i16::try_from((modifier - 4) >> 16).unwrap_or(0);
                    kind.scale = i8::try_from((modifier - 4) & 0x7ff).unwrap_or(0);
                }
            }
            700 | 701 => kind.kind = values::IBDOUBLE,
            values::TIMESTAMP => {
                kind.kind = if modifier == 0 { values::DAT } else { values::SQLT_TIMESTAMP };
                kind.scale = 6;
            }
            values::TIMESTAMP_TZ => {
                kind.kind = values::SQLT_TIMESTAMP_TZ;
                kind.scale = 6;
            }
            1082 => kind.kind = values::DAT,
            values::BYTEA => {
                kind.kind = values::BIN;
                kind.size = 2000;
            }
            values::VARCHAR => {
                let letters = if modifier > 4 { modifier - 4 } else { 1000 };
                // At most four bytes a letter, and never more than a column may hold.
                kind.size = u16::try_from(letters.saturating_mul(4).min(32_767)).unwrap_or(4000);
            }
            // A truth value or an oid as text; everything that has no bound is a CLOB.
            16 | 26 => kind.size = 32,
            _ => kind.kind = values::CLOB,
        }
        kind
    }
}
