//! What users rely on, promise by promise. This module is the one integration crate; its modules are named after what
//! they hold the service to.

mod front;
