//! What hides behind the pointers that the caller holds. This module makes handles and descriptors, finds them again,
//! and frees them, so that a caller's mistake with memory is a mistake here too, for valgrind to see.
//!
//! Every handle is a `Box<Handle>` that went out through `Box::into_raw` and comes back once, through `free`. Between
//! the two it is only read: what changes lies behind a lock or an atomic, because OCI lets threads share a connection
//! and lets one of them break what another one does.

use std::collections::HashSet;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32};
use std::sync::{Arc, Mutex, PoisonError};

use crate::errors::OraError;
use crate::moment::Moment;
use crate::session::Server;
use crate::statement::{Bind, ColumnKind, Define, Statement};
use crate::trips::Trips;

pub(crate) const ENV: u32 = 1;
pub(crate) const ERROR: u32 = 2;
pub(crate) const SERVICE: u32 = 3;
pub(crate) const STATEMENT: u32 = 4;
pub(crate) const SERVER: u32 = 8;
pub(crate) const SESSION: u32 = 9;
pub(crate) const LOB: u32 = 50;
pub(crate) const TIMESTAMP: u32 = 68;
pub(crate) const TIMESTAMP_TZ: u32 = 69;
pub(crate) const TIMESTAMP_LTZ: u32 = 70;

/// What an error handle holds: one error, and those of the rows of a batch.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub error: Option<OraError>,
    pub offset: u32,
    pub rows: Vec<(u32, OraError)>,
}

/// Who logs on, and how it is called in the server's views.
#[derive(Debug, Default)]
pub(crate) struct Person {
    pub name: String,
    pub password: String,
    pub module: String,
    pub action: String,
    pub client_info: String,
    pub client_identifier: String,
    pub driver: String,
    /// Of the connection that this one works on, once there is one.
    pub in_transaction: Arc<AtomicBool>,
    pub trips: Option<Arc<Mutex<Trips>>>,
}

/// What a service context ties together.
#[derive(Debug, Default)]
pub(crate) struct Service {
    pub server: AtomicPtr<c_void>,
    pub person: AtomicPtr<c_void>,
    pub call_timeout_ms: AtomicU32,
    pub cached_statements: AtomicU32,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Large {
    pub bytes: Vec<u8>,
    pub exists: bool,
    pub temporary: bool,
}

#[derive(Debug)]
pub(crate) enum Body {
    /// Those that it frees with itself, as OCI does with the children of an environment.
    Env(Mutex<HashSet<usize>>),
    Error(Mutex<Recorded>),
    Service(Service),
    Statement(Box<Statement>),
    Server(Server),
    Person(Mutex<Person>),
    Lob(Mutex<Large>),
    Parameter(ColumnKind),
    Bind(Bind),
    Define(Define),
}

#[derive(Debug)]
pub(crate) struct Handle {
    parent: *mut c_void,
    pub body: Body,
}

pub(crate) fn boxed(body: Body) -> Handle {
    Handle { parent: std::ptr::null_mut(), body }
}

/// The handle behind a pointer of the caller.
///
/// # Safety
///
/// `pointer` is null or was made by [`give`] (or points at a bind or define of a living statement) and was not freed.
pub(crate) unsafe fn find<'a>(pointer: *const c_void) -> Option<&'a Handle> {
    // SAFETY: the caller's promise; nobody holds a handle by `&mut`, so a shared reference is right.
    unsafe { pointer.cast::<Handle>().as_ref() }
}

macro_rules! finder {
    ($name:ident, $variant:ident, $kind:ty) => {
        /// The body of a handle of this kind; none for a null pointer or another kind.
        ///
        /// # Safety
        ///
        /// As for [`find`].
        pub(crate) unsafe fn $name<'a>(pointer: *const c_void) -> Option<&'a $kind> {
            // SAFETY: the caller's promise.
            match unsafe { find(pointer) } {
                Some(Handle { body: Body::$variant(found), .. }) => Some(found),
                _ => None,
            }
        }
    };
}
finder!(service, Service, Service);
finder!(statement, Statement, Statement);
finder!(server, Server, Server);
finder!(person, Person, Mutex<Person>);
finder!(lob, Lob, Mutex<Large>);
finder!(recorded, Error, Mutex<Recorded>);
finder!(bind, Bind, Bind);
finder!(define, Define, Define);

/// Makes a handle or a descriptor that is no array. Null for a kind that the stand-in does not know.
///
/// # Safety
///
/// `parent` is null or an environment handle.
pub(crate) unsafe fn make(parent: *mut c_void, kind: u32) -> *mut c_void {
    let body = match kind {
        ENV => Body::Env(Mutex::default()),
        ERROR => Body::Error(Mutex::default()),
        SERVICE => Body::Service(Service::default()),
        STATEMENT => Body::Statement(Box::default()),
        SERVER => Body::Server(Server::default()),
        SESSION => Body::Person(Mutex::default()),
        LOB => Body::Lob(Mutex::default()),
        TIMESTAMP | TIMESTAMP_TZ | TIMESTAMP_LTZ => {
            return Box::into_raw(Box::new(Moment::alone())).cast();
        }
        _ => return std::ptr::null_mut(),
    };
    // SAFETY: the caller's promise.
    unsafe { give(parent, body) }
}

/// Hands a body out as a handle that its parent frees at the latest.
///
/// # Safety
///
/// `parent` is null or an environment handle.
pub(crate) unsafe fn give(parent: *mut c_void, body: Body) -> *mut c_void {
    let pointer: *mut c_void = Box::into_raw(Box::new(Handle { parent, body })).cast();
    // SAFETY: the caller's promise.
    if let Some(Handle { body: Body::Env(children), .. }) = unsafe { find(parent) } {
        children.lock().unwrap_or_else(PoisonError::into_inner).insert(pointer as usize);
    }
    pointer
}

/// Frees a handle or a descriptor, and an environment's children with it.
///
/// # Safety
///
/// `pointer` is null or came from [`make`] or [`give`], with this kind, and is freed once.
pub(crate) unsafe fn free(pointer: *mut c_void, kind: u32) {
    if pointer.is_null() {
        return;
    }
    if matches!(kind, TIMESTAMP | TIMESTAMP_TZ | TIMESTAMP_LTZ) {
        // SAFETY: the caller's promise; a moment that is alone is a box.
        drop(unsafe { Box::from_raw(pointer.cast::<Moment>()) });
        return;
    }
    // SAFETY: the caller's promise.
    let handle = unsafe { Box::from_raw(pointer.cast::<Handle>()) };
    // SAFETY: an environment outlives its children, or frees them itself, below.
    if let Some(Handle { body: Body::Env(children), .. }) = unsafe { find(handle.parent) } {
        let mut children = children.lock().unwrap_or_else(PoisonError::into_inner);
        children.remove(&(pointer as usize));
    }
    if let Body::Env(children) = &handle.body {
        let children =
            std::mem::take(&mut *children.lock().unwrap_or_else(PoisonError::into_inner));
        for child in children {
            // SAFETY: what is in the set came from `give` and was not freed, or it would have left the set. Its parent
            // is unlinked first because that is being freed.
            unsafe {
                let child = child as *mut Handle;
                (*child).parent = std::ptr::null_mut();
                drop(Box::from_raw(child));
            }
        }
    }
}
