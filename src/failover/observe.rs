//! Looks at everything once and says what was seen. Changes nothing.

use std::net::IpAddr;

use jiff::Timestamp;
use tokio::time::Instant;

use super::observation::{
    AppView, ContainerView, Elapsed, InsideView, NodeView, Observation, PauseView, RecordView, RuntimeView, ServerView,
};
use super::runtime::{ContainerState, Runtime, RuntimeError};
use super::servers::Servers;
use super::settings::Settings;
use crate::postgres::connection::ServerError;
use crate::postgres::status::{RoleStatus, ServerStatus};
use crate::record::{NodeName, Record};

/// Asks the app whether it is ready.
pub trait AppProbe {
    /// One request, within the probe deadline.
    fn ask(&self) -> impl Future<Output = AppView>;
}

/// Observes the pair. `suspicious`: the last pass found the primary silent, so the witness inside is asked at once and not only after the host's probe failed.
/// `now`: the wall clock, by which a person's pause ends.
pub async fn observe(
    settings: &Settings,
    record: &Record,
    runtime: &impl Runtime,
    servers: &impl Servers,
    app: &impl AppProbe,
    suspicious: bool,
    now: Timestamp,
) -> Observation {
    let primary = &record.primary;
    let standby = settings.other(primary).unwrap_or(primary);
    // Each node in its own course: the Engine holds its answer on a container that has just died back until it has cleaned up after it (a tenth of a second), and
    // the standby is asked meanwhile.
    let began = Instant::now();
    let primary_and_app = async {
        let state = inspect(settings, runtime, primary).await;
        let asked_after = began.elapsed();
        let silence = silence_of(&state);
        // A dead primary leaves the app nothing to say, and the wait for it would delay the failover.
        let app_is_asked = matches!(state, Ok(ContainerState::Running { .. }));
        let app = async {
            if app_is_asked { app.ask().await } else { AppView::NotReady("not asked: the primary is not known to run".to_owned()) }
        };
        let (primary, app) = tokio::join!(look(settings, runtime, servers, primary, state, Some(suspicious)), app);
        (silence, asked_after, primary, app)
    };
    let standby = async {
        let state = inspect(settings, runtime, standby).await;
        (silence_of(&state), look(settings, runtime, servers, standby, state, None).await)
    };
    let ((primary_silence, asked_after, primary, app), (standby_silence, standby)) = tokio::join!(primary_and_app, standby);
    let engine = match (primary_silence, standby_silence) {
        (Some(why), Some(_)) => RuntimeView::Silent(why),
        _ => RuntimeView::Answers,
    };
    let record = RecordView {
        standby_eligible: record.standby_eligible,
        in_transition: record.transition.is_some(),
        pause: match &record.paused {
            None => PauseView::None,
            Some(pause) => pause.left(now).map_or(PauseView::Open, PauseView::Left),
        },
        system_identifier: record.system_identifier.clone(),
    };
    Observation {
        runtime: engine,
        record,
        primary,
        standby,
        app,
        asked_after,
        elapsed: Elapsed::default(),
        thresholds: settings.thresholds,
    }
}

/// Why the runtime did not answer for a node, where it did not.
fn silence_of(state: &Result<ContainerState, RuntimeError>) -> Option<String> {
    match state {
        Err(RuntimeError::Silent(why)) => Some(why.clone()),
        _ => None,
    }
}

async fn inspect(settings: &Settings, runtime: &impl Runtime, node: &NodeName) -> Result<ContainerState, RuntimeError> {
    runtime.inspect(settings.container(node).unwrap_or_default()).await
}

/// `witness`: is the probe inside of interest, and if so, is it run at once?
async fn look(
    settings: &Settings,
    runtime: &impl Runtime,
    servers: &impl Servers,
    node: &NodeName,
    state: Result<ContainerState, RuntimeError>,
    witness: Option<bool>,
) -> NodeView {
    let view = |container, server, inside| NodeView { name: node.clone(), container, server, inside };
    match state {
        Err(error) => view(ContainerView::Unknown(error.to_string()), ServerView::NotAsked, InsideView::NotAsked),
        Ok(ContainerState::Missing) => view(ContainerView::Missing, ServerView::NotAsked, InsideView::NotAsked),
        Ok(ContainerState::Stopped { how, .. }) => view(ContainerView::Stopped(how), ServerView::NotAsked, InsideView::NotAsked),
        Ok(ContainerState::Running { paused: true, .. }) => {
            let why = "its container is frozen, by docker pause".to_owned();
            view(ContainerView::Running, ServerView::Silent(why.clone()), InsideView::Dead(why))
        }
        Ok(ContainerState::Running { address, .. }) => {
            let container = settings.container(node).unwrap_or_default();
            let inside = runtime.probe_inside(container, settings.probe_deadline);
            let (server, inside) = match witness {
                Some(true) => tokio::join!(ask(servers, address), inside),
                Some(false) => {
                    let server = ask(servers, address).await;
                    let inside = if matches!(server, ServerView::Silent(_)) { inside.await } else { InsideView::NotAsked };
                    (server, inside)
                }
                None => (ask(servers, address).await, InsideView::NotAsked),
            };
            view(ContainerView::Running, server, inside)
        }
    }
}

async fn ask(servers: &impl Servers, address: Option<IpAddr>) -> ServerView {
    let Some(address) = address else { return ServerView::Silent("its container has no network".to_owned()) };
    match servers.ask(address).await {
        Ok(ServerStatus { system_identifier, role: RoleStatus::Primary(status) }) => ServerView::Primary { status, system_identifier },
        Ok(ServerStatus { system_identifier, role: RoleStatus::Standby(status) }) => ServerView::Standby { status, system_identifier },
        Err(ServerError::Starting(why)) => ServerView::Starting(why),
        Err(ServerError::Refusing(why)) => ServerView::Refusing(why),
        Err(error @ (ServerError::Unreachable(_) | ServerError::TimedOut(_))) => ServerView::Silent(error.to_string()),
    }
}
