//! Killed at any moment, and a file that is larger than the memory it may use. How often and how large is said by the environment: `make downloads` is quick,
//! `make downloads-slow` thorough.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::nginx::Nginx;
use crate::support::server::{Manner, Server};
use crate::support::{Place, content, sha256};

/// Of the file that is killed over and over, in bytes: large enough for several connections.
const SIZE: usize = 40 << 20;
/// Kills at a time. A transfer is held back to some seconds by its server, so that it mostly waits.
const TOGETHER: u64 = 20;
/// Bytes a second of one connection.
const RATE: u64 = 3 << 20;

/// A number of the environment.
fn of_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Kills the program at a random moment, looks at what it claims, and lets a second one go on. How many bytes the second one did not have to fetch.
fn killed_once(server: &Server, chance: &mut fastrand::Rng, whole: &str) -> u64 {
    let place = Place::new();
    let arguments = ["--skip-existing", "--quiet", &server.url("a")];
    let mut child = place.command(&arguments).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(chance.u64(200..4500)));
    child.kill().unwrap();
    child.wait().unwrap();
    let claimed: Vec<(u64, u64)> = std::fs::read(place.path("a.part.json"))
        .ok()
        .map(|text| serde_json::from_value(serde_json::from_slice::<serde_json::Value>(&text).unwrap()["finished"].clone()).unwrap())
        .unwrap_or_default();
    let claimed = if place.path("a").exists() { vec![(0, SIZE as u64)] } else { claimed };
    server.forget();
    server.behave(|manner| manner.rate = None);
    place.fetched(&arguments);
    server.behave(|manner| manner.rate = Some(RATE));
    for asked in server.asked() {
        let (start, end) = asked.range.unwrap_or((0, SIZE as u64));
        for &(from, to) in &claimed {
            assert!(end <= from || to <= start, "{start} to {end} was asked for again; claimed were {claimed:?}");
        }
    }
    assert_eq!(sha256(&place.read("a")), whole);
    assert_eq!(place.names(), ["a"]);
    claimed.iter().map(|(from, to)| to - from).sum()
}

#[test]
fn killed_at_any_moment_a_second_run_completes_the_file_and_fetches_nothing_twice() {
    let bytes = content(SIZE, 1);
    let whole = sha256(&bytes);
    let seed = fastrand::u64(..);
    let kills = of_environment("FETCH_KILLS", TOGETHER);
    let threads: Vec<_> = (0..TOGETHER)
        .map(|number| {
            let server = Server::start(bytes.clone(), Manner { rate: Some(RATE), ..Manner::default() });
            let whole = whole.clone();
            std::thread::spawn(move || {
                let mut chance = fastrand::Rng::with_seed(seed + number);
                (0..kills.div_ceil(TOGETHER)).map(|_| killed_once(&server, &mut chance, &whole)).collect::<Vec<u64>>()
            })
        })
        .collect();
    let spared: Vec<u64> =
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|_| panic!("with the seed {seed}"))).collect();
    assert!(spared.len() as u64 >= kills);
    let resumed = spared.iter().filter(|&&bytes| bytes > 0).count();
    println!(
        "{resumed} of {} kills left something to go on with, {} MiB in the mean",
        spared.len(),
        (spared.iter().sum::<u64>() / spared.len() as u64) >> 20
    );
    assert!(resumed * 4 > spared.len(), "hardly a kill left anything: {spared:?}");
}

#[test]
fn a_file_larger_than_its_memory_takes_no_more_than_forty_megabytes() {
    let size = of_environment("FETCH_LARGE_MIB", 512) << 20;
    let (nginx, place) = (Nginx::start(), Place::new());
    // Of holes: what is measured is the program, not the disk behind the server.
    std::fs::File::create(nginx.path("large")).unwrap().set_len(size).unwrap();
    let mut child = place.command(&["--quiet", &nginx.http("large")]).stdin(Stdio::null()).spawn().unwrap();
    let (mut highest, begun) = (0, Instant::now());
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(300), "it does not end");
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let of_process = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        highest = highest.max(of_process.unwrap_or_default());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(std::fs::metadata(place.path("large")).unwrap().len(), size);
    println!("{} MiB: {highest} KiB resident at most, {:.1} s", size >> 20, begun.elapsed().as_secs_f64());
    assert!(0 < highest && highest <= 40 << 10, "{highest} KiB");
}
