//! The container runtime as the Docker Engine, over its socket.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerState as EngineState, ContainerStateStatusEnum, ContainerUpdateBody,
    HostConfig, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, EventsOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    RestartContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use super::observation::InsideView;
use super::processes::Processes;
use super::runtime::{ContainerState, Runtime, RuntimeError};
use crate::node::discarded::Discarded;
use crate::postgres::timeline::Timelines;
use crate::with_causes::with_causes;

/// Longest wait for an answer of the Engine to a question. It answers in milliseconds, and holds a question back while it changes that container.
const ANSWER: Duration = Duration::from_secs(5);

/// Longest wait for the Engine to do something to a container, beyond the grace that the container itself has.
const DEED: Duration = Duration::from_secs(20);

/// The client library's own limit on one request: above every limit of this file, so that those decide.
const TRANSPORT: Duration = Duration::from_secs(300);

/// What running the probe costs the Engine itself, on top of the probe's own deadline.
const EXEC_OVERHEAD: Duration = Duration::from_millis(800);

/// Longest wait for a program beside a node: to read a gigabyte of log takes it some ten seconds.
const BESIDE: Duration = Duration::from_secs(120);

/// Between two looks whether the Engine has noticed an end.
const GLANCE: Duration = Duration::from_millis(10);

/// The node's own program in its image.
const NODE_PROGRAM: &str = "/usr/local/bin/postgres-node";

/// It serves as the probe too.
const PROBE: [&str; 2] = [NODE_PROGRAM, "probe"];

/// The Docker Engine of this host.
pub struct Engine {
    socket: PathBuf,
    agreed: OnceCell<Docker>,
    processes: Processes,
}

impl Engine {
    /// The Engine that listens on `socket`, now or later: nothing is connected before it is needed.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), agreed: OnceCell::new(), processes: Processes::new(Path::new("/proc")) }
    }

    /// Agrees on a version of the Engine's interface, once (Debian 12's Engine is years older than this client).
    async fn docker(&self) -> Result<&Docker, Failure> {
        let silent = |why: String| Failure::Silent(format!("{why} ('{}')", self.socket.display()));
        let agree = || async {
            let docker = Docker::connect_with_unix(&self.socket.to_string_lossy(), TRANSPORT.as_secs(), API_DEFAULT_VERSION)
                .map_err(|error| silent(error.to_string()))?;
            docker.negotiate_version().await.map_err(|error| silent(with_causes(&error)))
        };
        // Around the wait for another question's attempt too: of several that begin together each would else begin its own when the one before has given up.
        match tokio::time::timeout(ANSWER, self.agreed.get_or_try_init(agree)).await {
            Ok(agreed) => agreed,
            Err(_) => Err(silent(format!("no answer within {ANSWER:?}"))),
        }
    }

    /// Puts a question to the Engine and waits at most `limit`.
    async fn ask<T>(
        &self,
        container: &str,
        doing: &str,
        limit: Duration,
        question: impl AsyncFnOnce(&Docker) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        let docker = self.docker().await?;
        match tokio::time::timeout(limit, question(docker)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Error::DockerResponseServerError { status_code, message })) => Err(Failure::Status(status_code, message)),
            Ok(Err(error)) => Err(Failure::Silent(with_causes(&error))),
            Err(_) => Err(Failure::Silent(format!("no answer to {doing} '{container}' within {limit:?}"))),
        }
    }

    /// What the Engine says of a container, in its own terms.
    async fn look_at(&self, container: &str) -> Result<ContainerInspectResponse, Failure> {
        self.ask(container, "inspect", ANSWER, async |docker| docker.inspect_container(container, None).await).await
    }

    /// Tells the Engine to do something. `fine`: the statuses that mean that it was so already.
    async fn order(
        &self,
        container: &str,
        doing: &'static str,
        limit: Duration,
        fine: &[u16],
        deed: impl AsyncFnOnce(&Docker) -> Result<(), Error>,
    ) -> Result<(), RuntimeError> {
        match self.ask(container, doing, limit, deed).await {
            Ok(()) => Ok(()),
            Err(Failure::Status(code, _)) if fine.contains(&code) => Ok(()),
            Err(failure) => Err(failure.into_error(container, doing)),
        }
    }

    /// A container that is gone by its name may run on under another (`docker rename`), and a second one may have been started on the node's data. The volume,
    /// which is named like the container, tells: while any container runs with it, the node counts as running, out of reach, and nothing is promoted.
    async fn unless_its_volume_is_in_use(&self, container: &str, state: ContainerState) -> Result<ContainerState, RuntimeError> {
        if self.containers_on_its_volume(container, false).await?.is_empty() {
            Ok(state)
        } else {
            Ok(ContainerState::Running { address: None, paused: false, restarts: false })
        }
    }

    /// The identities of the containers with the node's volume; only of those that run, unless `all` is asked for.
    async fn containers_on_its_volume(&self, container: &str, all: bool) -> Result<Vec<String>, RuntimeError> {
        let filters = std::collections::HashMap::from([("volume".to_owned(), vec![container.to_owned()])]);
        let options = ListContainersOptionsBuilder::new().filters(&filters).all(all).build();
        let doing = "list the containers on the volume of";
        let listed = self.ask(container, doing, ANSWER, async |docker| docker.list_containers(Some(options)).await).await;
        let listed = listed.map_err(|failure| failure.into_error(container, doing))?;
        Ok(listed.into_iter().map(|container| container.id.unwrap_or_default()).collect())
    }

    /// The kernel's word that the container has no process, where it has one to say: before the Engine has noticed, or while it cleans up. Another container with
    /// its volume, whatever its state, may be its successor and have processes; then only the Engine can tell.
    async fn ended_a_moment_ago(&self, container: &str) -> Result<Option<ContainerState>, RuntimeError> {
        let Some(id) = self.processes.ended_a_moment_ago(container) else { return Ok(None) };
        let is_alone = self.containers_on_its_volume(container, true).await?.iter().all(|listed| *listed == id);
        Ok(is_alone.then(|| ContainerState::Stopped { how: "all its processes ended a moment ago".to_owned(), restarts: false }))
    }

    /// An order to start a container whose end the Engine has not noticed yet is taken for one that is done already.
    async fn until_the_engine_knows_its_end(&self, container: &str) -> Result<(), RuntimeError> {
        let until = Instant::now() + DEED;
        while let Some(pid) = self.processes.ended_process(container)
            && Instant::now() < until
        {
            let found = self.look_at(container).await;
            match found {
                Ok(found) if found.state.as_ref().is_some_and(|state| state.running == Some(true) && state.pid == Some(pid)) => {
                    sleep(GLANCE).await
                }
                Ok(_) | Err(Failure::Status(404, _)) => self.processes.forget(container),
                Err(failure) => return Err(failure.into_error(container, "inspect")),
            }
        }
        Ok(())
    }

    /// The Engine answers such an order when it has cleaned up after the container; whoever gave it only waits for its end, and inspects it then.
    async fn until_it_ends(&self, container: &str, order: impl Future<Output = Result<(), RuntimeError>>) -> Result<(), RuntimeError> {
        tokio::select! {
            biased;
            answer = order => answer,
            () = self.processes.end_of(container) => Ok(()),
        }
    }

    /// Starts a program of the node's image inside the container.
    async fn begin(docker: &Docker, container: &str, command: &[&str]) -> Result<(String, StartExecResults), Error> {
        let options =
            CreateExecOptions { attach_stdout: Some(true), attach_stderr: Some(true), cmd: Some(command.to_vec()), ..Default::default() };
        let exec = docker.create_exec(container, options).await?;
        let started = docker.start_exec(&exec.id, None).await?;
        Ok((exec.id, started))
    }

    /// Waits for the end of what [`Engine::begin`] started: its exit code, if it gave one, and what it printed.
    async fn hear(docker: &Docker, (id, started): (String, StartExecResults)) -> Result<(Option<i64>, String), Error> {
        let mut words = String::new();
        if let StartExecResults::Attached { mut output, .. } = started {
            while let Some(part) = output.next().await {
                words.push_str(&part?.to_string());
            }
        }
        Ok((docker.inspect_exec(&id).await?.exit_code, words.trim().to_owned()))
    }

    /// Runs a program of the node's image inside the container that is to succeed: what it printed.
    async fn run_inside(&self, container: &str, command: &[&str], doing: &'static str) -> Result<String, RuntimeError> {
        let run = async |docker: &Docker| Self::hear(docker, Self::begin(docker, container, command).await?).await;
        match self.ask(container, doing, DEED, run).await {
            Ok((Some(0), words)) => Ok(words),
            Ok((_, why)) => Err(RuntimeError::Refused { container: container.to_owned(), doing, why }),
            Err(failure) => Err(failure.into_error(container, doing)),
        }
    }
}

/// What a program that runs beside a node may do to its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl Engine {
    /// Runs the node's own program on the node's volumes, in a container of its own, so that the node need not run: what it printed. It has no network, and is
    /// removed when it ends, also where nobody waits for it any more. While it runs the node's volume is in use, so the node counts as running and out of
    /// reach, and is not promoted.
    async fn run_beside(&self, container: &str, arguments: &[&str], access: Access, doing: &'static str) -> Result<String, RuntimeError> {
        let mode = match access {
            Access::Read => "ro",
            Access::Write => "rw",
        };
        let run = async |docker: &Docker| {
            let found = docker.inspect_container(container, None).await?;
            let host_config = HostConfig {
                volumes_from: Some(vec![format!("{container}:{mode}")]),
                network_mode: Some("none".to_owned()),
                readonly_rootfs: Some(true),
                cap_drop: Some(vec!["ALL".to_owned()]),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                auto_remove: Some(true),
                ..Default::default()
            };
            let body = ContainerCreateBody {
                image: found.image,
                entrypoint: Some(vec![NODE_PROGRAM.to_owned()]),
                cmd: Some(arguments.iter().map(|&argument| argument.to_owned()).collect()),
                labels: Some(found.config.and_then(|config| config.labels).unwrap_or_default()),
                host_config: Some(host_config),
                ..Default::default()
            };
            let made = docker.create_container(None, body).await?;
            let options = AttachContainerOptionsBuilder::new().stream(true).stdout(true).stderr(true).build();
            let mut heard = docker.attach_container(&made.id, Some(options)).await?;
            docker.start_container(&made.id, None).await?;
            let mut words = String::new();
            while let Some(part) = heard.output.next().await {
                words.push_str(&part?.to_string());
            }
            Ok(words.trim().to_owned())
        };
        self.ask(container, doing, BESIDE, run).await.map_err(|failure| failure.into_error(container, doing))
    }
}

impl Runtime for Engine {
    async fn endings(&self, containers: &[String]) -> Option<impl Stream<Item = ()>> {
        let docker = self.docker().await.ok()?;
        let filters = std::collections::HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("event".to_owned(), vec!["die".to_owned()]),
            ("container".to_owned(), containers.to_vec()),
        ]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let told = docker
            .events(Some(options))
            .take_while(|event| std::future::ready(event.is_ok()))
            .map(|_| Some(()))
            .chain(stream::iter([None]));
        // The kernel tells of it first. It goes on without the Engine, so that the Engine's going away has to end the stream.
        let seen = stream::repeat(()).then(|()| self.processes.next_end()).map(Some);
        Some(stream::select(told, seen).take_while(|ending| std::future::ready(ending.is_some())).map(|_| ()))
    }

    async fn inspect(&self, container: &str) -> Result<ContainerState, RuntimeError> {
        if let Some(state) = self.ended_a_moment_ago(container).await? {
            return Ok(state);
        }
        match self.look_at(container).await {
            Ok(found) => {
                let (id, pid) = (found.id.clone().unwrap_or_default(), found.state.as_ref().and_then(|state| state.pid).unwrap_or(0));
                let state =
                    read_state(found).map_err(|why| RuntimeError::Refused { container: container.to_owned(), doing: "inspect", why })?;
                if matches!(state, ContainerState::Running { restarts: false, .. }) {
                    self.processes.note(container, &id, pid);
                } else {
                    // One that the Engine would start again may have a process the next moment.
                    self.processes.forget(container);
                }
                if matches!(state, ContainerState::Running { .. }) {
                    Ok(state)
                } else {
                    self.unless_its_volume_is_in_use(container, state).await
                }
            }
            Err(Failure::Status(404, _)) => self.unless_its_volume_is_in_use(container, ContainerState::Missing).await,
            Err(failure) => Err(failure.into_error(container, "inspect")),
        }
    }

    async fn start(&self, container: &str) -> Result<(), RuntimeError> {
        self.until_the_engine_knows_its_end(container).await?;
        self.order(container, "start", DEED, &[304], async |docker| docker.start_container(container, None).await).await
    }

    async fn stop(&self, container: &str, grace: Duration) -> Result<(), RuntimeError> {
        let options = StopContainerOptionsBuilder::new().t(i32::try_from(grace.as_secs()).unwrap_or(i32::MAX)).build();
        let order =
            self.order(container, "stop", grace + DEED, &[304], async |docker| docker.stop_container(container, Some(options)).await);
        self.until_it_ends(container, order).await
    }

    async fn kill(&self, container: &str) -> Result<(), RuntimeError> {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        // 409: it does not run. 404: it does not exist.
        let order = self.order(container, "kill", DEED, &[404, 409], async |docker| docker.kill_container(container, Some(options)).await);
        self.until_it_ends(container, order).await
    }

    async fn restart(&self, container: &str) -> Result<(), RuntimeError> {
        let options = RestartContainerOptionsBuilder::new().t(5).build();
        self.order(container, "restart", DEED, &[], async |docker| docker.restart_container(container, Some(options)).await).await
    }

    async fn forbid_restart(&self, container: &str) -> Result<(), RuntimeError> {
        let policy = RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None };
        let body = ContainerUpdateBody { restart_policy: Some(policy), ..Default::default() };
        self.order(container, "update", DEED, &[404], async |docker| docker.update_container(container, body).await).await
    }

    async fn probe_inside(&self, container: &str, deadline: Duration) -> InsideView {
        let limit = deadline + EXEC_OVERHEAD;
        let docker = match self.docker().await {
            Ok(docker) => docker,
            Err(failure) => return InsideView::Unknown(failure.into_error(container, "probe").to_string()),
        };
        // Until the program runs, its silence is the Engine's and not the server's.
        let begun = match tokio::time::timeout(EXEC_OVERHEAD, Self::begin(docker, container, &PROBE)).await {
            Ok(Ok(begun)) => begun,
            Ok(Err(error)) => return InsideView::Unknown(with_causes(&error)),
            Err(_) => return InsideView::Unknown(format!("the Engine did not start the probe within {EXEC_OVERHEAD:?}")),
        };
        match tokio::time::timeout(limit, Self::hear(docker, begun)).await {
            Ok(Ok((Some(0), _))) => InsideView::Alive,
            Ok(Ok((Some(1), words))) => InsideView::Dead(words),
            Ok(Ok((Some(3), words))) => InsideView::Preparing(words),
            // 126 and 127: the program could not be started; anything else is not the probe's word either.
            Ok(Ok((code, words))) => InsideView::Unknown(format!("the probe ended with code {}: {words}", code.unwrap_or(-1))),
            Ok(Err(error)) => InsideView::Unknown(with_causes(&error)),
            Err(_) => InsideView::Dead(format!("the probe inside gave no answer within {limit:?}")),
        }
    }

    async fn discarded(&self, container: &str, primary: &Timelines) -> Result<Vec<Discarded>, RuntimeError> {
        #[derive(serde::Deserialize)]
        struct Said {
            discarded: Vec<Discarded>,
        }
        let doing = "look at the data of";
        let words = self.run_beside(container, &["discarded", "--primary", &primary.to_string()], Access::Read, doing).await?;
        let said: Result<Said, _> = serde_json::from_str(&words);
        said.map(|said| said.discarded).map_err(|_| RuntimeError::Refused { container: container.to_owned(), doing, why: words })
    }

    async fn order_copy(&self, container: &str) -> Result<(), RuntimeError> {
        let doing = "order a copy for";
        let words = self.run_beside(container, &["order-copy"], Access::Write, doing).await?;
        if words.contains("copy_ordered") {
            Ok(())
        } else {
            Err(RuntimeError::Refused { container: container.to_owned(), doing, why: words })
        }
    }

    async fn discard_old_data(&self, container: &str) -> Result<String, RuntimeError> {
        self.run_inside(container, &[NODE_PROGRAM, "discard-old-data"], "discard the old data of").await
    }

    async fn note_lead(&self, container: &str, epoch: u64) -> Result<(), RuntimeError> {
        let epoch = epoch.to_string();
        self.run_inside(container, &[NODE_PROGRAM, "note-lead", "--epoch", &epoch], "note the lead in").await.map(drop)
    }
}

/// Reads what the Engine says of a container. Anything that may have a process, or may get one without being told to, counts as running.
fn read_state(found: ContainerInspectResponse) -> Result<ContainerState, String> {
    let state = found.state.ok_or("the Engine says nothing of its state")?;
    let restarts = found
        .host_config
        .and_then(|config| config.restart_policy)
        .and_then(|policy| policy.name)
        .is_some_and(|name| !matches!(name, RestartPolicyNameEnum::NO | RestartPolicyNameEnum::EMPTY));
    let is = |flag: Option<bool>| flag == Some(true);
    let ended =
        matches!(state.status, Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD | ContainerStateStatusEnum::CREATED));
    if ended && !is(state.running) && !is(state.paused) && !is(state.restarting) && state.pid.unwrap_or(0) == 0 {
        return Ok(ContainerState::Stopped { how: how_it_ended(&state), restarts });
    }
    let networks = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let address = networks.into_values().filter_map(|network| network.ip_address).find_map(|address| address.parse::<IpAddr>().ok());
    Ok(ContainerState::Running { address, paused: is(state.paused), restarts })
}

fn how_it_ended(state: &EngineState) -> String {
    if state.status == Some(ContainerStateStatusEnum::CREATED) {
        return "never started".to_owned();
    }
    let memory = if state.oom_killed == Some(true) { ", out of memory" } else { "" };
    let error = state.error.as_deref().filter(|error| !error.is_empty()).map(|error| format!(", {error}")).unwrap_or_default();
    format!("exited with code {}{memory}{error}", state.exit_code.unwrap_or(-1))
}

enum Failure {
    Status(u16, String),
    Silent(String),
}

impl Failure {
    fn into_error(self, container: &str, doing: &'static str) -> RuntimeError {
        match self {
            Self::Status(_, why) => RuntimeError::Refused { container: container.to_owned(), doing, why },
            Self::Silent(why) => RuntimeError::Silent(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(status: ContainerStateStatusEnum, change: impl Fn(&mut EngineState), policy: RestartPolicyNameEnum) -> ContainerState {
        let mut state =
            EngineState { status: Some(status), running: Some(false), pid: Some(0), exit_code: Some(137), ..Default::default() };
        change(&mut state);
        let policy = RestartPolicy { name: Some(policy), maximum_retry_count: None };
        let host_config = HostConfig { restart_policy: Some(policy), ..Default::default() };
        read_state(ContainerInspectResponse { state: Some(state), host_config: Some(host_config), ..Default::default() }).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn questions_that_wait_together_give_a_silent_engine_up_together() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let _never_answers = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let engine = Engine::new(&socket);
        let begun = tokio::time::Instant::now();
        let answers = tokio::join!(engine.inspect("pg-a"), engine.inspect("pg-b"), engine.inspect("pg-c"));
        assert!(matches!(answers, (Err(RuntimeError::Silent(_)), Err(RuntimeError::Silent(_)), Err(RuntimeError::Silent(_)))));
        assert!(begun.elapsed() < ANSWER * 2, "{:?}", begun.elapsed());
    }

    #[test]
    fn only_what_surely_has_no_process_counts_as_stopped() {
        use ContainerStateStatusEnum as Status;
        let no = RestartPolicyNameEnum::NO;
        assert_eq!(state(Status::EXITED, |_| {}, no), ContainerState::Stopped { how: "exited with code 137".to_owned(), restarts: false });
        assert_eq!(state(Status::CREATED, |_| {}, no), ContainerState::Stopped { how: "never started".to_owned(), restarts: false });
        assert!(matches!(state(Status::EXITED, |_| {}, RestartPolicyNameEnum::ALWAYS), ContainerState::Stopped { restarts: true, .. }));
        for status in [Status::RUNNING, Status::PAUSED, Status::RESTARTING, Status::REMOVING, Status::STOPPING, Status::EMPTY] {
            assert!(matches!(state(status, |_| {}, no), ContainerState::Running { .. }), "{status}");
        }
        assert!(matches!(state(Status::EXITED, |state| state.pid = Some(7), no), ContainerState::Running { .. }), "a process is left");
        assert!(
            matches!(state(Status::EXITED, |state| state.running = Some(true), no), ContainerState::Running { .. }),
            "a contradiction is no proof"
        );
        assert!(read_state(ContainerInspectResponse::default()).is_err(), "no word is no proof either");
    }
}
