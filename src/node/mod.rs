//! postgres-node.
