//! What the Ansible modules do. Nothing here knows of JSON or of Ansible's files: that is [`crate::ansible_module`]'s.

pub mod login;
pub mod postgres_promote;
pub mod postgres_recovery_conf;
