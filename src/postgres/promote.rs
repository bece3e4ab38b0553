//! Promotion of a standby by SQL, and the proof that it takes writes.

use std::time::Duration;

use super::connection::{ServerError, Target, connect, within};

/// Retry interval in force while a promotion is waited for, in milliseconds.
///
/// While the startup process sleeps between its tries to reach the lost primary, a promotion request waits too: up to 5 s with PostgreSQL's default.
const RETRY_INTERVAL_MILLISECONDS: u32 = 10;

/// Makes the startup process notice a promotion at once, by a short `wal_retrieve_retry_interval`. Undone by [`relax`].
///
/// # Errors
/// See [`ServerError`]. The promotion works without it, only slower.
pub async fn hurry(target: &Target, deadline: Duration) -> Result<(), ServerError> {
    set_retry_interval(target, deadline, &format!("ALTER SYSTEM SET wal_retrieve_retry_interval = {RETRY_INTERVAL_MILLISECONDS}")).await
}

/// Takes [`hurry`]'s setting back.
///
/// # Errors
/// See [`ServerError`].
pub async fn relax(target: &Target, deadline: Duration) -> Result<(), ServerError> {
    set_retry_interval(target, deadline, "ALTER SYSTEM RESET wal_retrieve_retry_interval").await
}

async fn set_retry_interval(target: &Target, deadline: Duration, statement: &str) -> Result<(), ServerError> {
    within(deadline, async {
        let session = connect(target, deadline).await?;
        // ALTER SYSTEM cannot run inside the implicit transaction of a multi-statement query.
        session.simple_query(statement).await?;
        session.simple_query("SELECT pg_catalog.pg_reload_conf()").await?;
        Ok(())
    })
    .await
}

/// Asks the server to leave recovery, and does not wait. Asking a server that is being promoted already, or that is a primary, does no harm.
///
/// # Errors
/// See [`ServerError`]; the request may have been heard even so.
pub async fn request(target: &Target, deadline: Duration) -> Result<(), ServerError> {
    within(deadline, async {
        let session = connect(target, deadline).await?;
        session.simple_query("SELECT pg_catalog.pg_promote(wait => false) WHERE pg_catalog.pg_is_in_recovery()").await?;
        Ok(())
    })
    .await
}

/// Over a fresh connection: is the server out of recovery, and did it give out a transaction id, which no read-only server does?
///
/// # Errors
/// See [`ServerError`].
pub async fn is_writable(target: &Target, deadline: Duration) -> Result<bool, ServerError> {
    within(deadline, async {
        let session = connect(target, deadline).await?;
        let row = session.query_one("SELECT pg_catalog.pg_is_in_recovery() OR pg_catalog.current_setting('transaction_read_only')::bool", &[]).await?;
        if row.try_get::<_, bool>(0)? {
            return Ok(false);
        }
        session.simple_query("SELECT pg_catalog.txid_current()").await?;
        Ok(true)
    })
    .await
}
