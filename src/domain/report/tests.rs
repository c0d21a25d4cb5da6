//! Table tests. This module is the specification of its parent.

use super::*;
