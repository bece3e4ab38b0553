//! What `global/pg_control` says of a data directory, whether or not its server runs.

use std::io::{self, Read as _};
use std::path::Path;

/// Where the state stands in the file: after the system identifier (8 bytes), the version of the control file (4) and of the catalog (4).
/// So it has been in every version since 8.x (`ControlFileData` in `src/include/catalog/pg_control.h`).
const STATE_OFFSET: usize = 16;

/// `DB_SHUTDOWNED_IN_RECOVERY` of `DBState`.
const SHUT_DOWN_IN_RECOVERY: u32 = 2;
/// `DB_IN_ARCHIVE_RECOVERY` of `DBState`.
const IN_ARCHIVE_RECOVERY: u32 = 5;

/// Whether the data directory is that of a standby which was not promoted: its server is in recovery, or stopped while it was.
/// Started without its standby settings it would take writes on the timeline of its primary.
///
/// # Errors
/// When the file cannot be read.
pub fn is_unpromoted_standby(directory: &Path) -> io::Result<bool> {
    let mut start = [0; STATE_OFFSET + 4];
    std::fs::File::open(directory.join("global/pg_control"))?.read_exact(&mut start)?;
    let [.., a, b, c, d] = start;
    Ok(matches!(u32::from_ne_bytes([a, b, c, d]), SHUT_DOWN_IN_RECOVERY | IN_ARCHIVE_RECOVERY))
}

/// PostgreSQL's identity of the cluster that a data directory belongs to, as `pg_control_system()` shows it.
///
/// # Errors
/// When the file cannot be read.
pub fn system_identifier(directory: &Path) -> io::Result<String> {
    let mut start = [0; 8];
    std::fs::File::open(directory.join("global/pg_control"))?.read_exact(&mut start)?;
    Ok(u64::from_ne_bytes(start).to_string())
}
