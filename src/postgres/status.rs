//! What a server says of itself, in one round trip.

use tokio_postgres::SimpleQueryMessage;

use super::connection::{ServerError, Session};
use super::lsn::Lsn;

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// PostgreSQL's identity of the cluster that this data directory belongs to.
    pub system_identifier: String,
    /// Its role, and what only that role knows.
    pub role: RoleStatus,
}

/// A server's role, and what only that role knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleStatus {
    /// Not in recovery.
    Primary(PrimaryStatus),
    /// In recovery.
    Standby(StandbyStatus),
}

/// What a server that is not in recovery says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrimaryStatus {
    /// New transactions are read-only (`default_transaction_read_only`).
    pub read_only: bool,
    /// End of the flushed write-ahead log.
    pub flushed: Lsn,
    /// `synchronous_standby_names` as in force in a new session.
    pub synchronous_standby_names: String,
    /// `synchronous_commit` as a new session gets it: below `on` commits do not wait for the standby's disk, whatever the names say.
    pub synchronous_commit: String,
    /// The connections of standbys, as `pg_stat_replication` shows them.
    pub standbys: Vec<StandbyLink>,
    /// The timeline that it writes.
    pub timeline: Option<u32>,
    /// How much of its log the replication slot that holds back most holds back, in bytes.
    pub slot_retained: Option<u64>,
}

/// One standby, seen from its primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandbyLink {
    /// The standby's `application_name`.
    pub name: String,
    /// It streams (and does not still catch up or take a base backup).
    pub streaming: bool,
    /// The primary counts it as synchronous.
    pub synchronous: bool,
    /// What the standby has flushed, if it said.
    pub flushed: Option<Lsn>,
}

/// What a server in recovery says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandbyStatus {
    /// Its walreceiver is connected and streaming.
    pub streaming: bool,
    /// Replay was paused by somebody; a promotion would wait for ever.
    pub replay_paused: bool,
    /// End of what it has: the later of received and replayed, since the first is reset by a restart
    /// (<https://github.com/ClusterLabs/PAF/issues/225>). None before anything was replayed.
    pub received: Option<Lsn>,
    /// End of what it has replayed.
    pub replayed: Option<Lsn>,
    /// No walreceiver is there and the startup process waits for more log: all whole records that it has are replayed. `received` may still be ahead of
    /// `replayed`, by the part of a record that the primary had sent when it died.
    pub drained: bool,
    /// The timeline that it receives, else that of its last restart point.
    pub timeline: Option<u32>,
}

/// One row of text columns; `pg_stat_replication` rides along as one aggregated column, so that everything is of one moment.
const STATUS_QUERY: &str = "SELECT (SELECT system_identifier::text FROM pg_catalog.pg_control_system()), \
     pg_catalog.pg_is_in_recovery()::text, \
     pg_catalog.current_setting('transaction_read_only'), \
     pg_catalog.current_setting('synchronous_standby_names'), \
     CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_flush_lsn()::text END, \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn()::text END, \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()::text END, \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_is_wal_replay_paused()::text END, \
     (SELECT status FROM pg_catalog.pg_stat_wal_receiver), \
     ((SELECT status FROM pg_catalog.pg_stat_wal_receiver) IS NULL AND EXISTS (SELECT FROM pg_catalog.pg_stat_activity \
       WHERE backend_type = 'startup' AND wait_event IN ('RecoveryRetrieveRetryInterval', 'RecoveryWalStream')))::text, \
     pg_catalog.current_setting('synchronous_commit'), \
     (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(application_name, state, sync_state, flush_lsn::text))::text FROM pg_catalog.pg_stat_replication), \
     CASE WHEN pg_catalog.pg_is_in_recovery() \
       THEN COALESCE((SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver), (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()))::text \
       ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::pg_catalog.bit(32)::pg_catalog.int8::text END, \
     CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN (SELECT GREATEST(0, pg_catalog.max( \
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), restart_lsn)))::pg_catalog.int8::text \
       FROM pg_catalog.pg_replication_slots WHERE restart_lsn IS NOT NULL) END";

/// Asks over an open session. The caller puts the deadline around it.
///
/// # Errors
/// See [`ServerError`].
pub async fn status(session: &Session) -> Result<ServerStatus, ServerError> {
    let messages = session.simple_query(STATUS_QUERY).await?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.ok_or_else(|| ServerError::Refusing("the status query gave no row".to_owned()))?;
    let columns: Vec<Option<&str>> = (0..row.len()).map(|index| row.get(index)).collect();
    read_status(&columns)
}

fn read_status(columns: &[Option<&str>]) -> Result<ServerStatus, ServerError> {
    let column = |index: usize| columns.get(index).copied().flatten();
    let odd = |what: &str| ServerError::Refusing(format!("the status query gave an odd answer: {what}"));
    let lsn = |index: usize| column(index).map(|text| text.parse::<Lsn>().map_err(|error| odd(&error.to_string()))).transpose();
    let system_identifier = column(0).ok_or_else(|| odd("no system identifier"))?.to_owned();
    let number = |index: usize| column(index).map(|text| text.parse::<u64>().map_err(|error| odd(&error.to_string()))).transpose();
    let timeline = number(12)?.and_then(|timeline| u32::try_from(timeline).ok());
    let role = if column(1) == Some("true") {
        let (received, replayed) = (lsn(5)?, lsn(6)?);
        RoleStatus::Standby(StandbyStatus {
            streaming: column(8) == Some("streaming"),
            replay_paused: column(7) == Some("true"),
            received: received.max(replayed),
            replayed,
            drained: column(9) == Some("true"),
            timeline,
        })
    } else {
        RoleStatus::Primary(PrimaryStatus {
            read_only: column(2) == Some("on"),
            flushed: lsn(4)?.ok_or_else(|| odd("a primary without a log position"))?,
            synchronous_standby_names: column(3).unwrap_or_default().to_owned(),
            synchronous_commit: column(10).unwrap_or_default().to_owned(),
            standbys: column(11).map(read_links).transpose().map_err(|why| odd(&why))?.unwrap_or_default(),
            timeline,
            slot_retained: number(13)?,
        })
    };
    Ok(ServerStatus { system_identifier, role })
}

fn read_links(json: &str) -> Result<Vec<StandbyLink>, String> {
    type Row = (Option<String>, Option<String>, Option<String>, Option<Lsn>);
    let rows: Vec<Row> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let link = |(name, state, sync_state, flushed): Row| StandbyLink {
        name: name.unwrap_or_default(),
        streaming: state.as_deref() == Some("streaming"),
        synchronous: sync_state.as_deref() == Some("sync"),
        flushed,
    };
    Ok(rows.into_iter().map(link).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_that_was_restarted_has_what_it_replayed() {
        let columns = [
            Some("7"),
            Some("true"),
            Some("on"),
            Some(""),
            None,
            Some("0/3000000"),
            Some("0/3000148"),
            Some("false"),
            None,
            Some("true"),
            Some("on"),
            None,
            Some("2"),
            None,
        ];
        let RoleStatus::Standby(standby) = read_status(&columns).unwrap().role else { panic!("a standby") };
        assert_eq!(standby.received, Some("0/3000148".parse().unwrap()), "received alone is only the segment's start");
        assert!(!standby.streaming);
        assert_eq!(standby.timeline, Some(2));
    }

    #[test]
    fn a_primary_with_a_synchronous_standby() {
        let links = r#"[["pg-b","streaming","sync","0/3000148"],["pg_basebackup","backup","async",null]]"#;
        let columns = [
            Some("7"),
            Some("false"),
            Some("off"),
            Some("\"pg-b\""),
            Some("0/3000150"),
            None,
            None,
            None,
            None,
            Some("false"),
            Some("on"),
            Some(links),
            Some("3"),
            Some("4096"),
        ];
        let RoleStatus::Primary(primary) = read_status(&columns).unwrap().role else { panic!("a primary") };
        assert!(primary.standbys[0].synchronous && primary.standbys[0].streaming && !primary.standbys[1].streaming);
        assert_eq!(primary.flushed.bytes_since(primary.standbys[0].flushed.unwrap()), 8);
        assert_eq!((primary.timeline, primary.slot_retained), (Some(3), Some(4096)));
    }

    #[test]
    fn an_odd_answer_is_said_and_not_guessed() {
        let columns = [Some("7"), Some("false"), Some("off"), Some(""), None, None, None, None, None, None, None, None];
        assert!(read_status(&columns).unwrap_err().to_string().contains("a primary without a log position"));
    }
}
