//! The numbers behind `/metrics`. Nothing here asks a server: a scrape costs the same whether the primary lives or not.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::page::View;

/// What the app counts and measures. All names begin with `understudy_`.
#[derive(Debug)]
pub struct Instruments {
    registry: Registry,
    /// 1 when the last check found a writable primary.
    pub ready: Gauge,
    /// When the last check ended, in seconds since 1970: a gauge that nobody refreshes must be seen to be old.
    pub ready_checked: Gauge<f64, AtomicU64>,
    /// How long each check took, whatever its result.
    pub ready_check_duration: Histogram,
    /// Connections of the pool that exist now.
    pub pool_connections: Gauge,
    /// Connections that the pool may have.
    pub pool_size: Gauge,
    /// The epoch of the record as last read.
    pub record_epoch: Gauge,
    /// How often another node was named primary since the app started.
    pub primary_changes: Counter,
    /// How often the record could not be read since the app started.
    pub record_read_failures: Counter,
    /// When `failover-check` last left a word, in seconds since 1970: its dead man, seen without `node_exporter`. 0 where it never did.
    pub status_written: Gauge<f64, AtomicU64>,
    /// 1 while the record says that a person has paused the tool.
    pub record_paused: Gauge,
    /// 1 while the record holds a change of primary.
    pub record_transition: Gauge,
    /// 1 while the record says that the standby may take over without loss.
    pub record_standby_eligible: Gauge,
}

impl Instruments {
    /// All at zero, and registered under their names.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("understudy");
        let instruments = Self {
            ready: Gauge::default(),
            ready_checked: Gauge::default(),
            // Around the usual millisecond, and up to the deadline and beyond.
            ready_check_duration: Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]),
            pool_connections: Gauge::default(),
            pool_size: Gauge::default(),
            record_epoch: Gauge::default(),
            primary_changes: Counter::default(),
            record_read_failures: Counter::default(),
            status_written: Gauge::default(),
            record_paused: Gauge::default(),
            record_transition: Gauge::default(),
            record_standby_eligible: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("build", "Version of the app", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("ready", "1 when the last check of readiness found a writable primary", instruments.ready.clone());
        registry.register_with_unit(
            "ready_checked_timestamp",
            "When the last check of readiness ended, in seconds since 1970",
            Unit::Seconds,
            instruments.ready_checked.clone(),
        );
        registry.register_with_unit(
            "ready_check_duration",
            "How long the checks of readiness took",
            Unit::Seconds,
            instruments.ready_check_duration.clone(),
        );
        registry.register("pool_connections", "Connections to the primary that exist now", instruments.pool_connections.clone());
        registry.register("pool_size", "Connections to the primary that may exist", instruments.pool_size.clone());
        registry.register(
            "record_epoch",
            "Epoch of the cluster record as last read; grows by one at each change of primary",
            instruments.record_epoch.clone(),
        );
        registry.register(
            "primary_changes",
            "Changes of primary that the app has followed since it started",
            instruments.primary_changes.clone(),
        );
        registry.register(
            "record_read_failures",
            "Times that the cluster record could not be read since the app started",
            instruments.record_read_failures.clone(),
        );
        registry.register_with_unit(
            "status_timestamp",
            "When failover-check last left a word, in seconds since 1970; 0 where it never did",
            Unit::Seconds,
            instruments.status_written.clone(),
        );
        registry.register("record_paused", "1 while a person has paused failover-check", instruments.record_paused.clone());
        registry.register("record_transition", "1 while a change of primary is under way", instruments.record_transition.clone());
        registry.register(
            "record_standby_eligible",
            "1 while the record says that the standby may take over without loss",
            instruments.record_standby_eligible.clone(),
        );
        Self { registry, ..instruments }
    }

    /// Takes over what the page knows.
    pub fn note_view(&self, view: &View) {
        self.status_written.set(view.watch.at.map_or(0.0, |at| at.as_duration().as_secs_f64()));
        self.record_paused.set(i64::from(view.paused.is_some()));
        self.record_transition.set(i64::from(view.transition.is_some()));
        self.record_standby_eligible.set(i64::from(view.standby_eligible == Some(true)));
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// Only when formatting into a string fails.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

impl Default for Instruments {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let text = Instruments::new().encode().unwrap();

        for line in [
            "understudy_build_info{version=\"0.1.0\"} 1",
            "understudy_ready 0",
            "understudy_ready_checked_timestamp_seconds 0.0",
            "understudy_ready_check_duration_seconds_count 0",
            "understudy_pool_connections 0",
            "understudy_pool_size 0",
            "understudy_record_epoch 0",
            "understudy_primary_changes_total 0",
            "understudy_record_read_failures_total 0",
            "understudy_status_timestamp_seconds 0.0",
            "understudy_record_paused 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
