//! Statements as they are executed and fetched. This module brings binds to the server and rows back.

use std::ffi::{c_int, c_void};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Call, INVALID_HANDLE, NO_DATA, SUCCESS, answered, called, reached, warned};
use crate::errors::{OraError, Result};
use crate::handles;
use crate::procedures;
use crate::session::{Executed, How, Server, Session};
use crate::sql;
use crate::statement::Statement;
use crate::values::Slot;
use crate::wire::Value;

const DESCRIBE_ONLY: u32 = 0x10;
const COMMIT_ON_SUCCESS: u32 = 0x20;
const BATCH_ERRORS: u32 = 0x80;
const PARSE_ONLY: u32 = 0x100;

/// Error in array DML: what a success with errors is called.
const ARRAY_ERRORS: i32 = 24_381;

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIStmtExecute(
    service: *mut c_void,
    handle: *mut c_void,
    error: *mut c_void,
    iterations: u32,
    _offset: u32,
    _in: *const c_void,
    _out: *mut c_void,
    mode: u32,
) -> c_int {
    // SAFETY: a service context with its server, a statement and an error handle.
    unsafe {
        let (server, _, deadline) = match reached(service) {
            Ok(reached) => reached,
            Err(failed) => return answered(error, Err(failed)),
        };
        let Some(statement) = handles::statement(handle) else { return INVALID_HANDLE };
        let prepared = statement.prepared();
        statement.parse_offset.store(0, Ordering::SeqCst);
        let call = Call { symbol: "OCIStmtExecute", server, text: &prepared.text, deadline };
        called(call, error, || {
            server.trip("execute");
            server.broken_off.store(false, Ordering::SeqCst);
            let work = Work {
                server,
                service: service as usize,
                statement,
                prepared: &prepared,
                rows: (iterations as usize).max(1),
                tolerant: mode & BATCH_ERRORS != 0,
                deadline,
            };
            let done = if mode & (DESCRIBE_ONLY | PARSE_ONLY) != 0 {
                Err(OraError::beyond("describing or parsing only"))
            } else {
                work.done()
            };
            let rows = done.map_err(|failed| noted(failed, statement, server))?;
            if mode & COMMIT_ON_SUCCESS != 0 {
                server.with(Session::commit)?;
            }
            if rows.is_empty() {
                return Ok(SUCCESS);
            }
            let warning = OraError::new(ARRAY_ERRORS, "error(s) in array DML");
            Ok(warned(error, warning, rows))
        })
    }
}

/// A call that was broken off says so; and where in the text it went wrong is kept.
fn noted(mut failed: OraError, statement: &Statement, server: &Server) -> OraError {
    let position = u32::try_from(failed.position.saturating_sub(1)).unwrap_or(0);
    statement.parse_offset.store(position, Ordering::SeqCst);
    if failed.code == 3156 && server.broken_off.swap(false, Ordering::SeqCst) {
        failed = OraError::of_number(1013);
    }
    failed
}

pub(crate) struct Work<'a> {
    pub server: &'a Server,
    /// The service context, for cursors that are opened.
    pub service: usize,
    pub statement: &'a Statement,
    pub prepared: &'a sql::Prepared,
    pub rows: usize,
    pub tolerant: bool,
    pub deadline: Option<Instant>,
}

impl Work<'_> {
    /// What the rows of a batch failed with.
    fn done(&self) -> Result<Vec<(u32, OraError)>> {
        match self.prepared.kind {
            sql::SELECT => self.query().map(|()| Vec::new()),
            sql::INSERT | sql::UPDATE | sql::DELETE | sql::MERGE => self.change(),
            sql::BEGIN | sql::DECLARE | sql::CALL => self.block().map(|()| Vec::new()),
            sql::CREATE | sql::DROP => self.define().map(|()| Vec::new()),
            sql::ALTER if sql::alter_session(&self.prepared.text).is_ok() => Ok(Vec::new()),
            _ => match sql::words_of(&self.prepared.text).as_slice() {
                ["COMMIT"] => self.server.with(Session::commit).map(|()| Vec::new()),
                ["ROLLBACK"] => self.server.with(Session::roll_back).map(|()| Vec::new()),
                ["SAVEPOINT", name] => {
                    self.server.with(|session| session.save(name)).map(|()| Vec::new())
                }
                ["ROLLBACK", "TO", "SAVEPOINT", name] | ["ROLLBACK", "TO", name] => {
                    self.server.with(|session| session.roll_back_to(name)).map(|()| Vec::new())
                }
                _ => match self.prepared.text.trim().strip_prefix("EXPLAIN PLAN FOR ") {
                    Some(text) => self.explained(text).map(|()| Vec::new()),
                    None => self.define().map(|()| Vec::new()),
                },
            },
        }
    }

    pub(crate) fn how(&self, transaction: bool) -> How {
        How { transaction, tolerant: self.tolerant, deadline: self.deadline }
    }

    fn query(&self) -> Result<()> {
        let text = sql::rewritten(self.prepared)?;
        let locks = text.to_uppercase().contains("FOR UPDATE");
        let (kinds, rows) = self.values(self.prepared.names.len(), 1)?;
        let mut executed =
            self.server.with(|session| session.execute(&text, &kinds, &rows, self.how(locks)))?;
        if let Some((_, failed)) = executed.errors.pop() {
            return Err(failed);
        }
        let rows = executed.done.pop().flatten().map(|answer| answer.rows).unwrap_or_default();
        let prefetch = self.statement.prefetch.load(Ordering::SeqCst) as usize;
        self.statement.open(self.service, &executed.columns, rows, prefetch);
        Ok(())
    }

    fn change(&self) -> Result<Vec<(u32, OraError)>> {
        let text = sql::rewritten(self.prepared)?;
        let given = self.prepared.names.len() - self.prepared.returning;
        let (kinds, rows) = self.values(given, self.rows)?;
        let executed =
            self.server.with(|session| session.execute(&text, &kinds, &rows, self.how(true)))?;
        self.returned(&executed)?;
        self.counted(executed)
    }

    /// Notes what each row did. An array that nothing tolerates stops at its first error.
    fn counted(&self, executed: Executed) -> Result<Vec<(u32, OraError)>> {
        let mut state = self.statement.state();
        state.row_counts = executed
            .done
            .iter()
            .map(|answer| answer.as_ref().map_or(0, |answer| answer.count))
            .collect();
        state.row_count = state.row_counts.iter().sum();
        state.row_errors = 0;
        let errors: Vec<(u32, OraError)> = executed
            .errors
            .into_iter()
            .map(|(row, failed)| (u32::try_from(row).unwrap_or(u32::MAX), failed))
            .collect();
        if self.tolerant {
            state.row_counts.resize(self.rows, 0);
            state.row_errors = u32::try_from(errors.len()).unwrap_or(u32::MAX);
            return Ok(errors);
        }
        match errors.into_iter().next() {
            Some((_, failed)) => Err(failed),
            None => Ok(Vec::new()),
        }
    }

    /// Gives the caller what the changed rows return.
    fn returned(&self, executed: &Executed) -> Result<()> {
        let given = self.prepared.names.len() - self.prepared.returning;
        for column in 0..self.prepared.returning {
            let bind = self.statement.bound(self.prepared, given + column)?;
            // SAFETY: a bind of this statement, which lives.
            let Some(found) = (unsafe { handles::bind(bind) }) else { continue };
            let slot = *found.slot.lock().unwrap_or_else(PoisonError::into_inner);
            for (iteration, answer) in executed.done.iter().enumerate() {
                let Some(answer) = answer else { continue };
                let count = u32::try_from(answer.rows.len()).unwrap_or(u32::MAX);
                found.rows_returned.store(count, Ordering::SeqCst);
                for (index, row) in answer.rows.iter().enumerate() {
                    let value = row.get(column).and_then(|value| value.as_deref());
                    // SAFETY: the caller's memory, as it was bound.
                    unsafe { slot.write(bind, iteration, index, value)? };
                }
            }
        }
        Ok(())
    }

    fn block(&self) -> Result<()> {
        if let Some(statements) = sql::install(&self.prepared.text)? {
            return self.installed(&statements);
        }
        procedures::run(self, &sql::call(self.prepared)?)
    }

    fn define(&self) -> Result<()> {
        let statements = sql::table_or_index(&self.prepared.text)?;
        self.server.with(|session| {
            session.commit()?;
            statements.iter().try_for_each(|statement| session.simple(statement))
        })
    }

    /// Says whether the server understands a statement, and keeps no plan.
    fn explained(&self, text: &str) -> Result<()> {
        let text = sql::rewritten(&sql::prepared(text.trim()))?;
        self.server.with(|session| {
            session.commit()?;
            session.simple(&format!("PREPARE explained AS {text}"))?;
            session.simple("DEALLOCATE explained")
        })
    }

    /// What exists already is left as it is, as the blocks themselves say.
    fn installed(&self, statements: &[String]) -> Result<()> {
        self.server.with(|session| {
            session.commit()?;
            for statement in statements {
                match session.simple(statement) {
                    Err(failed) if matches!(failed.code, 955 | 942) => {}
                    done => done?,
                }
            }
            Ok(())
        })
    }

    /// The first binds as PostgreSQL's types, and their values for all rows.
    pub(crate) fn values(&self, count: usize, rows: usize) -> Result<(Vec<u32>, Vec<Vec<Value>>)> {
        let mut kinds = Vec::with_capacity(count);
        let mut all = vec![Vec::with_capacity(count); rows];
        for index in 0..count {
            let (bind, slot) = self.slot(index)?;
            kinds.push(slot.oid()?);
            for (row, values) in all.iter_mut().enumerate() {
                // SAFETY: the caller's memory, as it was bound.
                values.push(unsafe { slot.read(bind, row)? });
            }
        }
        Ok((kinds, all))
    }

    pub(crate) fn slot(&self, index: usize) -> Result<(*mut c_void, Slot)> {
        let bind = self.statement.bound(self.prepared, index)?;
        // SAFETY: a bind of this statement, which lives.
        let found = unsafe { handles::bind(bind) };
        let found = found.ok_or_else(|| OraError::new(1008, "not all variables bound"))?;
        Ok((bind, *found.slot.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn OCIStmtFetch2(
    handle: *mut c_void,
    error: *mut c_void,
    wanted: u32,
    _orientation: u16,
    _offset: i32,
    _mode: u32,
) -> c_int {
    // SAFETY: a statement and an error handle. The service context that it was executed with still lives, or ODPI-C
    // would have closed the statement.
    unsafe {
        let Some(statement) = handles::statement(handle) else { return INVALID_HANDLE };
        let service = statement.state().service as *const c_void;
        let (server, _, deadline) = match reached(service) {
            Ok(reached) => reached,
            Err(failed) => return answered(error, Err(failed)),
        };
        let text = statement.prepared().text;
        let call = Call { symbol: "OCIStmtFetch2", server, text: &text, deadline };
        called(call, error, || fetched(statement, server, wanted as usize))
    }
}

fn fetched(statement: &Statement, server: &Server, wanted: usize) -> Result<c_int> {
    let mut state = statement.state();
    if !state.open {
        return Err(OraError::new(1002, "fetch out of sequence"));
    }
    let left = state.rows.len() - state.next;
    let given = left.min(wanted);
    // All rows are here, but Oracle's client would have to ask for those that did not come with the execution, and for
    // the end where the last row does not tell it.
    if given > state.prefetched || (given < wanted && !state.end_known) {
        if server.dead.load(Ordering::SeqCst) {
            return Err(OraError::of_number(3114));
        }
        server.trip("fetch");
    }
    state.end_known |= given < wanted;
    let defines = statement.defines.lock().unwrap_or_else(PoisonError::into_inner);
    for row in 0..given {
        let from = state.next + row;
        for column in 0..state.columns.len() {
            let Some(define) = defines.get(&(column + 1)) else { continue };
            let pointer = std::ptr::from_ref(define.as_ref()).cast_mut().cast();
            // SAFETY: a define of this statement, and the caller's memory as it was defined.
            unsafe {
                let Some(define) = handles::define(pointer) else { continue };
                let slot = *define.slot.lock().unwrap_or_else(PoisonError::into_inner);
                let value = state.rows[from].get(column).and_then(|value| value.as_deref());
                slot.write(pointer, row, 0, value)?;
            }
        }
    }
    for place in state.next..state.next + given {
        state.rows[place] = Vec::new();
    }
    state.next += given;
    state.prefetched = state.prefetched.saturating_sub(given);
    state.fetched = u32::try_from(given).unwrap_or(u32::MAX);
    state.row_count += given as u64;
    Ok(if given < wanted { NO_DATA } else { SUCCESS })
}
