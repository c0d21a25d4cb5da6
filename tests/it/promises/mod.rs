//! What users are promised whatever the store, and at whichever instance they ask. This module holds the promises as
//! functions over clients; `delivery`, `poison` and `tenancy` run them on the embedded store, `oracle_rehearsal` on two instances
//! of one Oracle service.

pub(crate) mod delivery;
pub(crate) mod poison;
pub(crate) mod tenancy;

use crate::harness::Client;

/// A promise to one tenant, who has a client at each of two doors. They may lead to one instance.
pub(crate) type Promise = fn(&mut [Client; 2]);
