//! One PostgreSQL server: how to reach it, what it says of itself, how to promote it, how to write its recovery settings.
//! Nothing here knows of a cluster, of containers or of Ansible.

pub mod connection;
pub mod conninfo;
pub mod control_file;
pub mod lsn;
pub mod promote;
pub mod recovery_conf;
pub mod settings_file;
pub mod status;
pub mod timeline;
pub mod version;
