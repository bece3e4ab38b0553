//! What a drill has measured, and whether that is within its limits.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::witness::Row;
use crate::record::NodeName;

/// What a drill has measured.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// When the primary's container was killed.
    pub at: Timestamp,
    /// The primary that was killed.
    pub from: NodeName,
    /// The standby that took over.
    pub to: NodeName,
    /// Did everything hold?
    pub held: bool,
    /// What did not.
    pub faults: Vec<String>,
    /// Between the last row that the old primary acknowledged and the first one of the new one (the RTO as measured); none where there was none.
    pub write_outage_seconds: Option<f64>,
    /// What it might have been at most.
    pub max_outage_seconds: f64,
    /// Rows acknowledged in all.
    pub rows_acknowledged: usize,
    /// Rows acknowledged and gone (the RPO as measured); none where they could not be counted.
    pub rows_lost: Option<usize>,
    /// How many nodes were seen to take writes at once, at most.
    pub most_writable: usize,
    /// From the kill until the old primary followed in sync and all was healthy; none where that took too long.
    pub healthy_after_seconds: Option<f64>,
    /// The history's events since, each with the seconds from the kill.
    pub steps: Vec<Step>,
    /// The longest time without an acknowledged row while the role was moved back; none where it was not.
    pub switch_back_outage_seconds: Option<f64>,
}

/// One event of the history.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Its name.
    pub event: String,
    /// Since the kill.
    pub seconds: f64,
}

impl Measured {
    /// Judges what was measured.
    pub fn judge(&mut self) {
        let limit = self.max_outage_seconds;
        match self.write_outage_seconds {
            Some(outage) if outage > limit => {
                self.faults.push(format!("no row was acknowledged for {outage:.3} s, over the limit of {limit:.3} s"))
            }
            Some(_) => {}
            None => self.faults.push("the new primary has acknowledged no row".to_owned()),
        }
        match self.rows_lost {
            Some(0) => {}
            Some(lost) => self.faults.push(format!("{lost} acknowledged rows are lost")),
            None => self.faults.push("the acknowledged rows could not be counted".to_owned()),
        }
        match self.most_writable {
            1 => {}
            0 => self.faults.push("no node was seen to take writes, so nobody has watched".to_owned()),
            many => self.faults.push(format!("{many} nodes took writes at once")),
        }
        if self.healthy_after_seconds.is_none() {
            self.faults.push("the pair was not healthy again in time".to_owned());
        }
        self.held = self.faults.is_empty();
    }

    /// For a person.
    #[must_use]
    pub fn text(&self) -> String {
        let seconds = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3} s"));
        let mut text = format!("drill: the primary {} was killed at {:.3}\n", self.from, self.at);
        for step in &self.steps {
            let _ = writeln!(text, "  {:>9.3} s  {}", step.seconds, step.event);
        }
        let lost = self.rows_lost.map_or("unknown".to_owned(), |lost| lost.to_string());
        let rows = [
            ("new primary", self.to.to_string()),
            ("no row acknowledged for (RTO)", format!("{}, at most {:.3} s", seconds(self.write_outage_seconds), self.max_outage_seconds)),
            ("acknowledged rows lost (RPO)", format!("{lost} of {}", self.rows_acknowledged)),
            ("nodes that took writes at once", format!("{} at most", self.most_writable)),
            ("healthy, in sync again after", seconds(self.healthy_after_seconds)),
            ("the way back cost writes", seconds(self.switch_back_outage_seconds)),
        ];
        for (what, value) in rows {
            let _ = writeln!(text, "  {what:<31} {value}");
        }
        for fault in &self.faults {
            let _ = writeln!(text, "  did not hold: {fault}");
        }
        text.push_str(if self.held { "the drill held its limits" } else { "the drill did not hold its limits" });
        text
    }
}

/// The longest time without an acknowledged row between `from` and the end.
#[must_use]
pub fn longest_gap(rows: &[Row], from: tokio::time::Instant) -> Option<Duration> {
    rows.windows(2).filter(|pair| pair.iter().all(|row| row.at >= from)).map(duration_between).max()
}

/// Between the last row of the old primary before the first one of the new one, and that one.
#[must_use]
pub fn outage(rows: &[Row], to: &NodeName) -> Option<Duration> {
    rows.windows(2).find(|pair| matches!(pair, [before, after] if before.node != *to && after.node == *to)).map(duration_between)
}

fn duration_between(pair: &[Row]) -> Duration {
    match pair {
        [before, after] => after.at - before.at,
        _ => Duration::ZERO,
    }
}

/// The history's events from `begun` on, as steps of a drill.
#[must_use]
pub fn steps(events: &[Map<String, Value>], begun: Timestamp) -> Vec<Step> {
    let step = |event: &Map<String, Value>| {
        let at: Timestamp = event.get("at")?.as_str()?.parse().ok()?;
        let name = event.get("event")?.as_str()?;
        let words = match name {
            "decision" => format!("decided {} {}", event.get("rule")?.as_str()?, event.get("action")?.as_str()?),
            name => name.to_owned(),
        };
        (at >= begun).then(|| Step { event: words, seconds: at.duration_since(begun).as_secs_f64() })
    };
    events.iter().filter_map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Measured {
        Measured {
            at: "2026-11-21T08:01:07.884Z".parse().unwrap(),
            from: "pg-a".parse().unwrap(),
            to: "pg-b".parse().unwrap(),
            held: false,
            faults: Vec::new(),
            write_outage_seconds: Some(0.2),
            max_outage_seconds: 5.0,
            rows_acknowledged: 900,
            rows_lost: Some(0),
            most_writable: 1,
            healthy_after_seconds: Some(3.0),
            steps: vec![Step { event: "fenced".to_owned(), seconds: 0.006 }],
            switch_back_outage_seconds: None,
        }
    }

    #[test]
    fn a_drill_holds_only_where_everything_was_seen_and_is_within_its_limits() {
        let mut good = measured();
        good.judge();
        assert!(good.held, "{:?}", good.faults);
        assert!(good.text().contains("    0.006 s  fenced\n") && good.text().ends_with("the drill held its limits"), "{}", good.text());
        type Spoil = fn(&mut Measured);
        let spoils: [(Spoil, &str); 7] = [
            (|it| it.write_outage_seconds = Some(5.1), "no row was acknowledged for 5.100 s, over the limit of 5.000 s"),
            (|it| it.write_outage_seconds = None, "the new primary has acknowledged no row"),
            (|it| it.rows_lost = Some(1), "1 acknowledged rows are lost"),
            (|it| it.rows_lost = None, "the acknowledged rows could not be counted"),
            (|it| it.most_writable = 2, "2 nodes took writes at once"),
            (|it| it.most_writable = 0, "no node was seen to take writes, so nobody has watched"),
            (|it| it.healthy_after_seconds = None, "the pair was not healthy again in time"),
        ];
        for (spoil, fault) in spoils {
            let mut bad = measured();
            spoil(&mut bad);
            bad.judge();
            assert_eq!((bad.held, bad.faults.as_slice()), (false, [fault.to_owned()].as_slice()));
            assert!(bad.text().contains(&format!("did not hold: {fault}\n")), "{}", bad.text());
        }
    }

    #[test]
    fn the_outage_lies_between_the_last_row_of_the_old_primary_and_the_first_of_the_new_one() {
        let begun = tokio::time::Instant::now();
        let row =
            |node: &str, milliseconds: u64| Row { id: 1, at: begun + Duration::from_millis(milliseconds), node: node.parse().unwrap() };
        let rows = [row("pg-a", 0), row("pg-a", 900), row("pg-b", 1_100), row("pg-b", 1_105)];
        assert_eq!(outage(&rows, &"pg-b".parse().unwrap()), Some(Duration::from_millis(200)));
        assert_eq!(outage(&rows[..2], &"pg-b".parse().unwrap()), None);
        assert_eq!(longest_gap(&rows, begun), Some(Duration::from_millis(900)));
        assert_eq!(longest_gap(&rows, begun + Duration::from_millis(900)), Some(Duration::from_millis(200)));
    }
}
