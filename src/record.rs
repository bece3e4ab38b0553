//! The cluster record.
