//! Store calls of the routes. This module times each one under its name, for as long as the session is lent.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

use crate::store::Reader;
use crate::telemetry::metrics::{Metrics, StoreCall};

/// The read session during one call, which is timed until this is dropped.
pub(super) struct Asked<'d> {
    pub(super) reader: &'d mut dyn Reader,
    pub(super) metrics: &'d Metrics,
    pub(super) call: StoreCall,
    pub(super) begun: Instant,
}

impl<'d> Deref for Asked<'d> {
    type Target = dyn Reader + 'd;

    fn deref(&self) -> &Self::Target {
        self.reader
    }
}

impl DerefMut for Asked<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.reader
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.metrics.store_call(self.call, self.begun.elapsed());
    }
}
