//! Promotion of a standby by SQL, and the proof that it takes writes.

use std::time::Duration;

use super::connection::{ServerError, Session, Target, connect, within};

/// Between two looks whether the server has left recovery.
const GLANCE: Duration = Duration::from_millis(5);

/// Retry interval in force while a promotion is waited for, in milliseconds.
///
/// While the startup process sleeps between its tries to reach the lost primary, a promotion request waits too: up to 5 s with PostgreSQL's default. [`relax`] takes it back.
const RETRY_INTERVAL_MILLISECONDS: u32 = 10;

/// Asks, and does not wait. Nothing happens to a server that is not in recovery.
const REQUEST: &str = "SELECT pg_catalog.pg_promote(wait => false) WHERE pg_catalog.pg_is_in_recovery()";

/// Asks the server to leave recovery, and does not wait.
///
/// # Errors
/// See [`ServerError`]; the request may have been heard even so.
pub async fn request(target: &Target, deadline: Duration) -> Result<(), ServerError> {
    within(deadline, async {
        let session = connect(target, deadline).await?;
        session.simple_query(REQUEST).await?;
        Ok(())
    })
    .await
}

/// Asks the server to leave recovery, and waits until it has. The caller puts the deadline around it. Asking a server that is being promoted already, or that
/// is a primary, does no harm. One session does it all: each more would cost some milliseconds of a failover.
///
/// Leaves a short `wal_retrieve_retry_interval` behind, see [`relax`].
///
/// # Errors
/// See [`ServerError`]; the request may have been heard even so.
pub async fn promote(session: &Session) -> Result<(), ServerError> {
    // ALTER SYSTEM cannot run inside the implicit transaction of a multi-statement query. Where it is refused the promotion is only slower.
    let hurry = format!("ALTER SYSTEM SET wal_retrieve_retry_interval = {RETRY_INTERVAL_MILLISECONDS}");
    match session.simple_query(&hurry).await {
        Ok(_) => drop(session.simple_query("SELECT pg_catalog.pg_reload_conf()").await?),
        Err(error) => log::warn!("the promotion may take some seconds longer: {error}"),
    }
    session.simple_query(REQUEST).await?;
    // Its own wait looks ten times a second only.
    while session.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await?.try_get::<_, bool>(0)? {
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

/// Takes the short `wal_retrieve_retry_interval` of [`promote`] back.
///
/// # Errors
/// See [`ServerError`].
pub async fn relax(target: &Target, deadline: Duration) -> Result<(), ServerError> {
    within(deadline, async {
        let session = connect(target, deadline).await?;
        session.simple_query("ALTER SYSTEM RESET wal_retrieve_retry_interval").await?;
        session.simple_query("SELECT pg_catalog.pg_reload_conf()").await?;
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
        let row = session
            .query_one("SELECT pg_catalog.pg_is_in_recovery() OR pg_catalog.current_setting('transaction_read_only')::bool", &[])
            .await?;
        if row.try_get::<_, bool>(0)? {
            return Ok(false);
        }
        session.simple_query("SELECT pg_catalog.txid_current()").await?;
        Ok(true)
    })
    .await
}
